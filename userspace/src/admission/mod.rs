//! Decides, from a click alone and the receive time, whether it may be counted at all.
//!
//! Pure: no I/O, no clock, no state but the keys and limits it was given. It never looks at other
//! clicks; that is the ledger's part.
//!
//! Start reading at [`Admission::judge`], which names the order of the checks. [`KeyRing`] holds
//! the keys, `event_time` chooses the minute, `tags`
//! computes the tags of several clicks at once.

mod event_time;
mod keys;
mod tags;

use weir_common::id::ORDINALS;
use weir_common::reason::{Outcome, Reason};
use weir_common::siphash::SipKey;
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::{Click, click_flags};

use tags::{LANES, Messages};

use crate::traffic::Flags;

pub use keys::{KeyRing, KeyRingError, MAX_KEYS, MAX_KEYS_PER_ISSUER, SigningKey};

/// A click as it came from the wire, structure already sound.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The fixed part.
    pub click: &'a Click,
    /// Its extension.
    pub extension: &'a [u8],
}

/// What admission found out about a click that may be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The minute whose bucket will count it.
    pub minute: Minute,
    /// [`weir_common::row::row_flags`].
    pub row_flags: u8,
    /// What speaks against the click.
    pub traffic: Flags,
    /// Past the allowed lateness.
    pub late: bool,
}

/// The judgement on one click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// On to the ledger.
    Admit(Admitted),
    /// Not to be counted: refused or malformed, and why.
    Reject(Outcome, Reason),
}

/// What is left to check of a click.
#[derive(Clone, Copy)]
enum Check {
    /// Nothing.
    Sound,
    /// Its tag.
    Tag,
}

/// The limits admission holds clicks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long after its issue an impression can be clicked, in ms. The ledger remembers
    /// impressions for as long; the two must be given the same value.
    pub lifetime_ms: u64,
    /// How far ahead of this node's clock an issue or a click may be, in ms: the disagreement of
    /// two honest clocks.
    pub max_ahead_ms: u64,
    /// How long after the click it may arrive and still be counted in its own minute, in ms.
    pub lateness_ms: u64,
    /// Minutes before this one are final at the sink: a click of theirs is late, whatever the
    /// lateness says. It can be more than it was at an earlier start.
    pub closed_before: Minute,
    /// Whether clicks with foreign ids, which nobody signed, are taken.
    pub allow_unsigned: bool,
}

impl Default for Settings {
    /// 24 h (a click is void a day after its impression), 60 s, 10 min, unsigned refused.
    fn default() -> Self {
        Self {
            lifetime_ms: 86_400_000,
            max_ahead_ms: 60_000,
            lateness_ms: 600_000,
            closed_before: Minute(0),
            allow_unsigned: false,
        }
    }
}

/// Judges clicks, each by itself, in batches.
#[derive(Clone, Debug)]
pub struct Admission {
    settings: Settings,
    keys: KeyRing,
}

impl Admission {
    /// Admission under these limits, for clicks signed with these keys.
    #[must_use]
    pub const fn new(settings: Settings, keys: KeyRing) -> Self {
        Self { settings, keys }
    }

    /// Judges clicks that this node read at `received_at`; one judgement each, in order, is
    /// appended to `out`.
    ///
    /// The first check that fails names the reason, cheap checks before dear ones:
    /// 1. the click's own fields and extension ([`Click::check`]): malformed;
    /// 2. a foreign id where unsigned traffic is not taken: `unsigned_not_allowed`;
    /// 3. an ordinal that cannot be told apart: `ordinal_limit`;
    /// 4. issued ids: too old, `expired`, or from the future, `not_yet_issued`;
    /// 5. issued ids: a key this node does not hold, `unknown_key`, then the tag, `bad_tag`.
    ///
    /// So nothing is hashed for a click that would be refused anyway; its `expired` is its own
    /// word, which nobody vouched for.
    pub fn judge(&self, received_at: UnixMs, arrivals: &[Arrival], out: &mut Vec<Judgement>) {
        out.reserve(arrivals.len());
        for group in arrivals.chunks(LANES) {
            self.judge_group(received_at, group, out);
        }
    }

    /// Checks the signature of one issued click and nothing else of it: for a click that was
    /// rejected before its tag was looked at.
    ///
    /// # Errors
    /// `unknown_key` or `bad_tag`.
    pub fn check_tag(&self, click: &Click) -> Result<(), Reason> {
        let key = self.signing_key_of(click)?;
        if click.expected_tag(key) == click.tag.get() { Ok(()) } else { Err(Reason::BadTag) }
    }

    /// Judges at most [`LANES`] clicks, their tags together.
    #[inline]
    fn judge_group(&self, received_at: UnixMs, group: &[Arrival], out: &mut Vec<Judgement>) {
        let mut messages = Messages::EMPTY;
        let mut found = [Ok(Check::Sound); LANES];
        let mut any_tag = false;
        for ((lane, arrival), found) in group.iter().enumerate().zip(&mut found) {
            *found = self.check_before_tag(received_at, arrival).map(|key| {
                key.map_or(Check::Sound, |key| {
                    messages.set(lane, key, arrival.click);
                    any_tag = true;
                    Check::Tag
                })
            });
        }
        let tags = if any_tag { messages.tags() } else { [0; LANES] };
        out.extend(group.iter().zip(found).zip(tags).map(|((arrival, found), tag)| match found {
            // One comparison of two whole words: its time does not depend on where they differ.
            Ok(Check::Tag) if tag != arrival.click.tag.get() => {
                Judgement::Reject(Outcome::Refused, Reason::BadTag)
            }
            Ok(_) => Judgement::Admit(self.admit(received_at, arrival.click)),
            Err((outcome, reason)) => Judgement::Reject(outcome, reason),
        }));
    }

    /// Everything but the tag; gives the key the tag must be under, if there must be one.
    #[inline(always)]
    fn check_before_tag(
        &self,
        received_at: UnixMs,
        arrival: &Arrival,
    ) -> Result<Option<&SipKey>, (Outcome, Reason)> {
        let click = arrival.click;
        let refused = |reason| (Outcome::Refused, reason);
        click.check(arrival.extension).map_err(|reason| (Outcome::Malformed, reason))?;
        let foreign = click.is_foreign();
        if foreign && !self.settings.allow_unsigned {
            return Err(refused(Reason::UnsignedNotAllowed));
        }
        if click.ordinal >= ORDINALS {
            return Err(refused(Reason::OrdinalLimit));
        }
        if foreign { Ok(None) } else { self.key_of(received_at, click).map(Some).map_err(refused) }
    }

    #[inline(always)]
    fn key_of(&self, received_at: UnixMs, click: &Click) -> Result<&SipKey, Reason> {
        let issued_at_ms = u64::from(click.impression.issued_at_s()) * 1000;
        if received_at.0.saturating_sub(issued_at_ms) > self.settings.lifetime_ms {
            return Err(Reason::Expired);
        }
        if issued_at_ms.saturating_sub(received_at.0) > self.settings.max_ahead_ms {
            return Err(Reason::NotYetIssued);
        }
        self.signing_key_of(click)
    }

    #[inline(always)]
    fn signing_key_of(&self, click: &Click) -> Result<&SipKey, Reason> {
        self.keys.find(click.impression.issuer(), click.impression.key()).ok_or(Reason::UnknownKey)
    }

    #[inline]
    fn admit(&self, received_at: UnixMs, click: &Click) -> Admitted {
        let says = |flag| click.flags & flag != 0;
        let traffic = Flags::NONE
            .with(Reason::TestTraffic, says(click_flags::TEST))
            .with(Reason::Prefetch, says(click_flags::PREFETCH));
        let placed = event_time::place(&self.settings, received_at, click);
        Admitted { minute: placed.minute, row_flags: placed.row_flags, traffic, late: placed.late }
    }
}

#[cfg(test)]
mod tests;
