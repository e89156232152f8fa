//! Counts the clicks of some impressions again: each impression's clicks in the order in which they
//! came, by the rule that nodes count by, over all nodes together.
//!
//! A node knows its own clicks alone. Here those of all are at hand: what came to two nodes is a
//! duplicate, and what came late is counted in the minute in which it was made.

use weir_common::id::Ordinal;
use weir_common::reason::{FIRST_FILTERED, Outcome, Reason};
use weir_common::row::row_flags;
use weir_common::time::Minute;
use weir_common::verdict::{Standing, State};
use weir_common::wire::click_flags;

use super::difference::Cause;
use super::rules::Rules;

/// A click as the archive has it: what a recount needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Click {
    /// The two words of its impression.
    pub impression: [i64; 2],
    /// Its ordinal.
    pub ordinal: u8,
    /// [`click_flags`].
    pub click_flags: u8,
    /// Who wrote it, and where it stands there: incarnation, epoch, worker, sequence, row.
    pub place: (i64, i64, i32, i64, i64),
    /// When that node read it, in ms.
    pub received_at_ms: i64,
    /// When its user made it, as he says, in ms.
    pub clicked_at_ms: i64,
    /// The minute whose bucket counts it.
    pub minute: u32,
    /// Its outcome there.
    pub outcome: u8,
    /// Its reason there.
    pub reason: u8,
    /// [`row_flags`].
    pub row_flags: u8,
    /// Every filter that holds, as bits.
    pub traffic: u8,
    /// The ad.
    pub ad: i64,
    /// The campaign.
    pub campaign: u32,
    /// The price, in micros.
    pub price_micros: i64,
}

impl Click {
    /// Whether somebody vouches for it and its price.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.click_flags & click_flags::FOREIGN == 0
    }

    /// The minute in which it was made, where it came late; else the one that counts it.
    fn true_minute(&self) -> Minute {
        let is_late = self.outcome == Outcome::Late as u8;
        if is_late && self.row_flags & row_flags::CLOCK_SUSPECT == 0 {
            let minute = self.clicked_at_ms.max(0) / 60_000;
            return Minute(u32::try_from(minute).unwrap_or(self.minute));
        }
        Minute(self.minute)
    }
}

/// What a recount comes to of one click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recounted {
    /// The outcome; duplicates among nodes have one too.
    pub outcome: Outcome,
    /// Why it is filtered, if it is.
    pub reason: Reason,
    /// The minute that counts it.
    pub minute: Minute,
    /// Why that is another than its node's, if it is.
    pub cause: Option<Cause>,
}

/// Counts the clicks of any number of impressions; of each impression all clicks must be there. Calls
/// `each` once a click, impression after impression.
pub fn recount(clicks: &mut [Click], rules: &Rules, mut each: impl FnMut(&Click, Recounted)) {
    // Foreign and issued ids of the same octets are two impressions.
    let key = |click: &Click| (click.impression, click.is_signed());
    clicks.sort_unstable_by_key(|click| (key(click), click.place));
    for impression in clicks.chunk_by(|left, right| key(left) == key(right)) {
        of_impression(impression, rules, &mut each);
    }
}

/// The clicks of one impression, ordered by who wrote them and where.
fn of_impression(clicks: &[Click], rules: &Rules, each: &mut impl FnMut(&Click, Recounted)) {
    let mut state = State::default();
    let mut counted_by = None;
    in_order(clicks, |click| {
        let ordinal = Ordinal(click.ordinal);
        let filter = rules.filter(click);
        // A late click counts where it belongs, if nothing else of its impression does.
        let standing = Standing::new(false, click.row_flags);
        let outcome = state.judge(ordinal, filter, standing);
        if outcome == Outcome::Duplicate {
            each(
                click,
                Recounted {
                    outcome,
                    reason: Reason::None,
                    minute: Minute(click.minute),
                    cause: Some(Cause::CrossNodeDuplicate),
                },
            );
            return;
        }
        state = state.after(ordinal, outcome);
        if outcome == Outcome::Accepted {
            counted_by = Some(click.place.0);
        }
        let cause = cause(click, outcome, filter, counted_by);
        each(click, Recounted { outcome, reason: filter, minute: click.true_minute(), cause });
    });
}

/// Gives the clicks in the order in which they came. Each node's own are in the order in which it decided
/// on them, whatever their times; among nodes the earlier goes first.
fn in_order(clicks: &[Click], mut each: impl FnMut(&Click)) {
    let mut nodes: Vec<&[Click]> = clicks.chunk_by(|left, right| left.place.0 == right.place.0).collect();
    loop {
        let heads = nodes.iter_mut().filter(|rest| !rest.is_empty());
        let Some(earliest) = heads.min_by_key(|rest| (rest[0].received_at_ms, rest[0].place)) else { return };
        let Some((click, rest)) = earliest.split_first() else { return };
        *earliest = rest;
        each(click);
    }
}

/// Why a click is counted in another way than by its node, if it is.
fn cause(click: &Click, outcome: Outcome, filter: Reason, counted_by: Option<i64>) -> Option<Cause> {
    let before = Outcome::from_number(click.outcome);
    if before == Some(outcome) && (outcome != Outcome::Filtered || click.reason == filter as u8) {
        return None;
    }
    Some(match (before, outcome) {
        (Some(Outcome::Late), _) => Cause::Late,
        (Some(Outcome::Filtered), _) | (_, Outcome::Filtered) => Cause::RuleChange,
        (Some(Outcome::Accepted), _) if counted_by.is_some_and(|node| node != click.place.0) => {
            Cause::CrossNodeRepeat
        }
        // What came before it counts no more, or counts now.
        _ => Cause::Consequence,
    })
}

/// The reason that a click is filtered for of these, by number less [`FIRST_FILTERED`].
#[must_use]
pub fn first_reason(bits: u8) -> Reason {
    let slot = bits.trailing_zeros() as u8;
    if slot >= 8 { Reason::None } else { Reason::from_number(FIRST_FILTERED + slot).unwrap_or(Reason::None) }
}

#[cfg(test)]
mod tests;
