//! What a row at the sink must say, and the bucket that counts it.

use std::collections::BTreeMap;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::reason::{FIRST_FILTERED, Outcome, Reason};
use weir_common::row::{Row, row_flags};
use weir_common::time::MS_PER_MINUTE;
use weir_common::wire::click_flags;

use super::super::limits::Limits;
use super::super::segments::BlockName;
use super::{ClickName, Oracle, Verdict, hold};

/// Totals of a bucket, counted by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    accepted: u64,
    repeat: u64,
    late: u64,
    suspect: u64,
    cost: u64,
    unsigned: u64,
    filtered: BTreeMap<u8, u64>,
}

impl Totals {
    pub(super) fn of(totals: &BucketTotals) -> Self {
        let filtered = totals.filtered.iter().enumerate().filter(|(_, count)| count.get() > 0);
        Self {
            accepted: totals.accepted.get(),
            repeat: totals.repeat.get(),
            late: totals.late.get(),
            suspect: totals.clock_suspect.get(),
            cost: totals.cost_micros.get(),
            unsigned: totals.unsigned.get(),
            filtered: filtered.map(|(slot, count)| (slot as u8 + FIRST_FILTERED, count.get())).collect(),
        }
    }
}

impl Oracle {
    pub(super) fn note_row(&mut self, block: BlockName, row: &Row) -> Verdict {
        self.rows_at_sink += 1;
        let name = ClickName::of(&row.click);
        let received = row.received_at_ms.get();
        let may_be_forgotten = name.foreign && self.may_be_forgotten(name.impression);
        let (minute, flags, expected) = self.expected(block, row);
        let Some(outcome) = Outcome::from_number(row.outcome) else {
            return Err(format!("{name:?} has no outcome"));
        };
        let Some(truth) = self.clicks.get_mut(&name) else {
            return Err(format!("{name:?} is at the sink, and nobody made it"));
        };
        hold!(truth.is_sound, "{name:?} is at the sink, and no node should have taken it");
        hold!(
            truth.at_sink.is_empty() || may_be_forgotten || truth.is_excused,
            "{name:?} is at the sink in {:?} and again in {block:?}",
            truth.at_sink
        );
        truth.at_sink.push((block, received, outcome));
        let is_expected = truth.is_excused || expected.contains(&(outcome, row.reason));
        hold!(
            (row.minute.get(), row.flags) == (minute, flags) && is_expected,
            "{name:?}, received at {received}, has {outcome:?} {} in minute {}; expected {expected:?} in {minute}",
            row.reason,
            row.minute.get()
        );
        self.users.note(row);
        let key = bucket_of(row);
        if matches!(outcome, Outcome::Accepted | Outcome::Late) {
            self.impressions.insert((name.foreign, name.impression), received);
        }
        self.counted_from.entry(key).or_default().insert(block);
        let totals = self.recount.entry(key).or_default();
        match outcome {
            Outcome::Accepted => {
                totals.accepted += 1;
                totals.unsigned += u64::from(name.foreign);
                totals.cost += if name.foreign { 0 } else { row.click.price_micros.get() };
            }
            Outcome::Repeat => totals.repeat += 1,
            Outcome::Late => totals.late += 1,
            _ => *totals.filtered.entry(row.reason).or_default() += 1,
        }
        totals.suspect += u64::from(row.flags & row_flags::CLOCK_SUSPECT != 0);
        Ok(())
    }

    /// Foreign ids are remembered for a lifetime from their first click at least, and nobody says
    /// how much longer.
    pub(super) fn may_be_forgotten(&self, impression: u128) -> bool {
        let (first, (_, latest)) = (self.foreign.get(&impression), self.wall.unwrap_or_default());
        first.is_some_and(|first| latest.saturating_sub(*first) > self.limits.lifetime_ms)
    }

    /// Minute, flags, and the outcomes that a row of this click may have after those before it.
    pub(super) fn expected(&self, block: BlockName, row: &Row) -> (u32, u8, Vec<(Outcome, u8)>) {
        let Limits { lifetime_ms, lateness_ms, max_ahead_ms } = self.limits;
        let (click, received) = (&row.click, row.received_at_ms.get());
        let clicked = click.clicked_at_ms.get();
        let foreign = click.flags & click_flags::FOREIGN != 0;
        let issued = if foreign { 0 } else { u64::from(click.impression.issued_at_s()) * 1000 };
        let age = received.saturating_sub(clicked);
        let suspect = clicked + 1000 < issued || clicked > received + max_ahead_ms || age > lifetime_ms;
        // What is final stays final, whatever the clock says now.
        let closed_before = self.closed_before.get(&block.0).copied().unwrap_or(0);
        let late = !suspect && (age > lateness_ms || clicked / MS_PER_MINUTE < u64::from(closed_before));
        let minute = if suspect || late { received } else { clicked } / MS_PER_MINUTE;
        let filter = if click.flags & click_flags::TEST != 0 {
            Some(Reason::TestTraffic)
        } else if click.flags & click_flags::PREFETCH != 0 {
            Some(Reason::Prefetch)
        } else {
            None
        };
        let outcomes = match filter {
            Some(reason) => vec![(Outcome::Filtered, reason as u8)],
            None if late => vec![(Outcome::Late, 0)],
            None => match self.impressions.get(&(foreign, u128::from_le_bytes(click.impression.0))) {
                None => vec![(Outcome::Accepted, 0)],
                Some(_) if foreign && self.may_be_forgotten(u128::from_le_bytes(click.impression.0)) => {
                    vec![(Outcome::Accepted, 0), (Outcome::Repeat, 0)]
                }
                Some(_) => vec![(Outcome::Repeat, 0)],
            },
        };
        (minute as u32, u8::from(suspect) * row_flags::CLOCK_SUSPECT, outcomes)
    }
}

/// The bucket that counts this row.
pub(super) fn bucket_of(row: &Row) -> BucketKey {
    BucketKey {
        ad: row.click.ad,
        minute: row.minute,
        country: row.click.country,
        device: row.click.device,
        rules: 1.into(),
        ..BucketKey::default()
    }
}
