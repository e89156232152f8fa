//! What a recount changes: by ad and minute, with the cause of each change. Changes are adjustments
//! beside what was counted, and never edits of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_common::bucket::{Addend, BucketTotals};
use weir_common::reason::Outcome;
use weir_common::time::Minute;

use super::recount::{Click, Recounted};

/// Why a click is counted in another way than by its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It came past the allowed lateness, and counts in the minute in which it was made.
    Late,
    /// The same click came to another node before.
    CrossNodeDuplicate,
    /// Another click of its impression came to another node before.
    CrossNodeRepeat,
    /// Other rules filter it, or do not any more.
    RuleChange,
    /// Another click of its impression counts now, or does not any more.
    Consequence,
}

impl Cause {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Late => "late, counted in their own minute",
            Self::CrossNodeDuplicate => "duplicates of a click at another node",
            Self::CrossNodeRepeat => "repeats of a click at another node",
            Self::RuleChange => "other rules",
            Self::Consequence => "another click of the impression counts",
        }
    }
}

/// How many clicks, and what they cost, by which a count changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// First clicks.
    pub click_count: i64,
    /// All traffic.
    pub gross: i64,
    /// Billable clicks.
    pub net: i64,
    /// What they cost.
    pub cost_micros: i64,
}

impl Change {
    fn of(totals: &BucketTotals) -> Self {
        Self {
            click_count: totals.accepted.get().cast_signed(),
            gross: totals.gross().cast_signed(),
            net: totals.billable().cast_signed(),
            cost_micros: totals.cost_micros.get().cast_signed(),
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, totals: &BucketTotals, sign: i64) {
        let other = Self::of(totals);
        self.click_count += sign * other.click_count;
        self.gross += sign * other.gross;
        self.net += sign * other.net;
        self.cost_micros += sign * other.cost_micros;
    }
}

/// An ad, its campaign and a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The ad.
    pub ad: u64,
    /// The campaign.
    pub campaign: u32,
    /// The minute.
    pub minute: Minute,
}

/// What was counted, what is to be counted, and why they differ.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// The rows as the nodes counted them.
    pub recorded: BTreeMap<Cell, BucketTotals>,
    /// The rows as they are to be counted.
    pub recounted: BTreeMap<Cell, BucketTotals>,
    /// By cell and cause.
    pub changes: BTreeMap<(Cell, Cause), Change>,
    /// Clicks by cause.
    pub clicks: BTreeMap<Cause, u64>,
}

/// What a click adds by an outcome: nothing when it is a duplicate.
fn addend(click: &Click, outcome: Outcome, reason: u8) -> BucketTotals {
    let mut totals = BucketTotals::default();
    let price_micros = click.price_micros.cast_unsigned();
    totals.add(&Addend {
        outcome,
        reason,
        row_flags: click.row_flags,
        price_micros,
        is_unsigned: !click.is_signed(),
    });
    totals
}

impl Differences {
    /// Takes what a recount came to of one click. Only what counts, or counted, in these minutes.
    pub fn take(&mut self, click: &Click, recounted: Recounted, minutes: &std::ops::Range<Minute>) {
        let cell = |minute| Cell { ad: click.ad.cast_unsigned(), campaign: click.campaign, minute };
        let (before, after) = (cell(Minute(click.minute)), cell(recounted.minute));
        let was = Outcome::from_number(click.outcome).unwrap_or(Outcome::Malformed);
        let old = addend(click, was, click.reason);
        let new = addend(click, recounted.outcome, recounted.reason as u8);
        let (is_before, is_after) = (minutes.contains(&before.minute), minutes.contains(&after.minute));
        if is_before {
            self.recorded.entry(before).or_default().merge(&old);
        }
        if is_after {
            self.recounted.entry(after).or_default().merge(&new);
        }
        let Some(cause) = recounted.cause.filter(|_| is_before || is_after) else { return };
        *self.clicks.entry(cause).or_default() += 1;
        if is_before {
            self.changes.entry((before, cause)).or_default().add(&old, -1);
        }
        if is_after {
            self.changes.entry((after, cause)).or_default().add(&new, 1);
        }
    }
}
