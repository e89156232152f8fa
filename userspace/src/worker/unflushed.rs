//! Bucket totals taken from the ledger and not yet given to the forwarder.
//!
//! The ledger closes a minute only after its totals were taken, and closing is what makes room
//! for new minutes. So a worker takes them at least once a minute, also while no flush is asked
//! for: because the sink is away, or because the journal is being refolded. Totals are
//! cumulative, so of each bucket the latest is enough; what is held is bounded by the keys.

use std::collections::HashMap;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::row::Row;
use weir_common::time::{Minute, UnixMs};

use crate::ledger::Ledger;

/// What one worker owes the forwarder.
#[derive(Debug, Default)]
pub struct Unflushed {
    totals: HashMap<BucketKey, BucketTotals>,
    taken_in: Minute,
    scratch: Vec<(BucketKey, BucketTotals)>,
}

impl Unflushed {
    /// Takes what changed, when a minute has begun since the last time. Call it before the rows
    /// of `now`. `wanted` says which minutes matter to the sink.
    pub fn take_each_minute(&mut self, now: UnixMs, ledger: &mut Ledger, wanted: impl Fn(Minute) -> bool) {
        if now.minute() <= self.taken_in {
            return;
        }
        self.taken_in = now.minute();
        self.take(ledger, wanted);
    }

    /// Takes what changed. `wanted` says which minutes matter to the sink.
    pub fn take(&mut self, ledger: &mut Ledger, wanted: impl Fn(Minute) -> bool) {
        ledger.take_changed(&mut self.scratch);
        let wanted = self.scratch.drain(..).filter(|(key, _)| wanted(Minute(key.minute.get())));
        self.totals.extend(wanted);
    }

    /// Counts a row, also in a minute that is closed here by now.
    ///
    /// The running worker closed minutes with its flushes, and a click that waited in a hand-off
    /// ring counts in the order of its receive time only for the worker that read it. So a row
    /// can come after its minute was closed: all of that minute was taken then, and if it is
    /// `wanted`, is held here.
    pub fn count(&mut self, row: &Row, ledger: &mut Ledger, wanted: impl Fn(Minute) -> bool) {
        if ledger.count(row) {
            return;
        }
        // An old minute may stand in the way of the row's: once taken it can close.
        self.take(ledger, &wanted);
        if !ledger.count(row) && wanted(Minute(row.minute.get())) {
            self.totals.entry(ledger.bucket_of_row(row)).or_default().count(row);
        }
    }

    /// Everything that changed since the last flush.
    pub fn flush(&mut self, now: UnixMs, ledger: &mut Ledger) -> Vec<(BucketKey, BucketTotals)> {
        self.taken_in = self.taken_in.max(now.minute());
        let mut changed = Vec::new();
        ledger.take_changed(&mut changed);
        if self.totals.is_empty() {
            return changed;
        }
        // What was taken last is the latest.
        self.totals.extend(changed);
        self.totals.drain().collect()
    }

    /// Everything held.
    pub fn drain(&mut self) -> Vec<(BucketKey, BucketTotals)> {
        self.totals.drain().collect()
    }

    /// What a flush took and did not carry comes back; what has changed since is newer.
    pub fn put_back(&mut self, changed: Vec<(BucketKey, BucketTotals)>) {
        for (key, totals) in changed {
            self.totals.entry(key).or_insert(totals);
        }
    }

    /// The oldest minute of which something is held.
    #[must_use]
    pub fn oldest_minute(&self) -> Option<Minute> {
        self.totals.keys().map(|key| Minute(key.minute.get())).min()
    }

    /// Buckets held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::ImpressionId;
    use weir_common::reason::Outcome;
    use weir_common::siphash::SipKey;
    use weir_common::wire::{Click, click_flags};
    use zerocopy::byteorder::little_endian::{U32, U64};

    use super::*;
    use crate::admission::Admitted;
    use crate::ledger::{Entry, Settings};
    use crate::traffic::Flags;

    const START_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_row_of_a_minute_that_is_closed_by_now_is_counted_where_its_minute_is_held() {
        let mut ledger = Ledger::new(&Settings::new(SipKey { k0: 1, k1: 2 }));
        let mut unflushed = Unflushed::default();
        let old = UnixMs(START_MS);
        let row = |n: u128, received_at: UnixMs| Row {
            received_at_ms: U64::new(received_at.0),
            minute: U32::new(received_at.minute().0),
            outcome: Outcome::Accepted as u8,
            reason: 0,
            flags: 0,
            traffic: 0,
            click: Click {
                impression: ImpressionId(n.to_le_bytes()),
                ad: U64::new(7),
                flags: click_flags::FOREIGN,
                ..Click::zeroed()
            },
        };
        // Two rows of the first minute, and between them an hour in which it was closed.
        let later = |minutes: u64| UnixMs(START_MS + minutes * 60_000);
        for (n, at) in [(1, old), (2, later(60)), (3, later(61)), (4, old)] {
            unflushed.take_each_minute(at, &mut ledger, |_| true);
            unflushed.count(&row(n, at), &mut ledger, |_| true);
        }
        assert!(ledger.closed_before() > old.minute());
        let owed = unflushed.flush(later(61), &mut ledger);
        let of_old = owed.iter().find(|(key, _)| key.minute.get() == old.minute().0).unwrap().1;
        assert_eq!((of_old.accepted.get(), owed.len()), (2, 3));
        // A minute that nobody waits for is not sent with one row alone.
        unflushed.count(&row(5, old), &mut ledger, |_| false);
        assert!(unflushed.flush(old, &mut ledger).is_empty());
    }

    #[test]
    fn an_hour_without_a_flush_loses_no_bucket_and_refuses_no_click() {
        let mut ledger = Ledger::new(&Settings::new(SipKey { k0: 1, k1: 2 }));
        let mut unflushed = Unflushed::default();
        let mut decisions = Vec::new();
        for second in 0..3600_u64 {
            let now = UnixMs(START_MS + second * 1000);
            let click = Click {
                impression: ImpressionId(u128::from(second).to_le_bytes()),
                ad: U64::new(second % 3),
                flags: click_flags::FOREIGN,
                ..Click::zeroed()
            };
            let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
            unflushed.take_each_minute(now, &mut ledger, |_| true);
            ledger.apply(&[Entry { received_at: now, admitted, click: &click }], &mut decisions);
        }
        assert!(decisions.iter().all(|decision| decision.outcome == Outcome::Accepted));
        let flushed = unflushed.flush(UnixMs(START_MS + 3_600_000), &mut ledger);
        let accepted: u64 = flushed.iter().map(|(_, totals)| totals.accepted.get()).sum();
        assert_eq!((accepted, flushed.len()), (3600, 60 * 3));
        assert!(unflushed.is_empty());
    }

    #[test]
    fn minutes_the_sink_has_are_not_held() {
        let mut ledger = Ledger::new(&Settings::new(SipKey { k0: 1, k1: 2 }));
        let mut unflushed = Unflushed::default();
        let admitted =
            Admitted { minute: UnixMs(START_MS).minute(), row_flags: 0, traffic: Flags::NONE, late: false };
        let click = Click { flags: click_flags::FOREIGN, ..Click::zeroed() };
        ledger.apply(&[Entry { received_at: UnixMs(START_MS), admitted, click: &click }], &mut Vec::new());
        unflushed.take_each_minute(UnixMs(START_MS), &mut ledger, |_| false);
        assert_eq!(unflushed.len(), 0);
    }
}
