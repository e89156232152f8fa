//! Adds the workers' shares up to the node's buckets.
//!
//! A share has a worker's totals so far, so the node's bucket is the sum of the latest share of
//! each worker. The minutes that may still change are held; closed ones are forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::WorkerId;
use weir_common::time::Minute;

use super::batch::Bucket;
use super::mailbox::Share;

/// The shares of one bucket. Most buckets are touched by few workers.
type Shares = Vec<(WorkerId, BucketTotals)>;

/// The node's buckets of the minutes that may still change.
#[derive(Debug, Default)]
pub struct Merge {
    minutes: BTreeMap<Minute, HashMap<BucketKey, Shares>>,
    changed: HashSet<BucketKey>,
    /// Minutes before this one are closed.
    open_from: Minute,
    refused: u64,
}

impl Merge {
    /// A merge that takes nothing for minutes before `final_before`: the sink has the last word
    /// on them, and what a refold knows of them may be less.
    #[must_use]
    pub fn new(final_before: Minute) -> Self {
        Self { open_from: final_before, ..Self::default() }
    }

    /// Takes a worker's share.
    pub fn add(&mut self, share: &Share) {
        for (key, totals) in &share.changed {
            let minute = Minute(key.minute.get());
            if minute < self.open_from {
                self.refused += 1;
                continue;
            }
            let shares = self.minutes.entry(minute).or_default().entry(*key).or_default();
            match shares.iter_mut().find(|(worker, _)| *worker == share.worker) {
                Some((_, mine)) => *mine = *totals,
                None => shares.push((share.worker, *totals)),
            }
            self.changed.insert(*key);
        }
    }

    /// The buckets that changed since [`Merge::settle`], in the order of their keys, so that the
    /// same shares make the same batch.
    #[must_use]
    pub fn changed(&self) -> Vec<Bucket> {
        let total = |key: &BucketKey| {
            let shares = self.minutes.get(&Minute(key.minute.get()))?.get(key)?;
            let mut totals = BucketTotals::default();
            shares.iter().for_each(|(_, share)| totals.merge(share));
            Some(Bucket { key: *key, totals })
        };
        let mut buckets: Vec<_> = self.changed.iter().filter_map(total).collect();
        buckets.sort_unstable_by_key(|bucket| bucket.key);
        buckets
    }

    /// The changed buckets are committed; minutes before `open_from` will not change again.
    pub fn settle(&mut self, open_from: Minute) {
        self.changed.clear();
        self.open_from = self.open_from.max(open_from);
        self.minutes = self.minutes.split_off(&self.open_from);
    }

    /// Buckets held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.minutes.values().map(HashMap::len).sum()
    }

    /// Bucket shares that came for closed minutes and were not taken.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::BlockSeq;
    use zerocopy::byteorder::little_endian::{U32, U64};

    use super::super::batch::FlushNo;
    use super::*;

    fn key(minute: u32) -> BucketKey {
        BucketKey { minute: U32::new(minute), ..BucketKey::default() }
    }

    fn share(worker: u16, minute: u32, accepted: u64) -> Share {
        Share {
            worker: WorkerId(worker),
            flush: FlushNo(1),
            upto: BlockSeq(1),
            changed: vec![(key(minute), BucketTotals { accepted: U64::new(accepted), ..Default::default() })],
            oldest_received_at: None,
            held_back: None,
        }
    }

    fn accepted(merge: &Merge) -> Vec<u64> {
        merge.changed().iter().map(|bucket| bucket.totals.accepted.get()).collect()
    }

    #[test]
    fn shares_are_set_for_each_worker_and_added_over_workers() {
        let mut merge = Merge::default();
        merge.add(&share(0, 5, 10));
        merge.add(&share(1, 5, 1));
        merge.add(&share(0, 5, 12));
        assert_eq!(accepted(&merge), [13]);
    }

    #[test]
    fn a_change_of_one_worker_keeps_the_others_share_from_before_the_commit() {
        let mut merge = Merge::default();
        merge.add(&share(0, 5, 10));
        merge.settle(Minute(0));
        assert_eq!(accepted(&merge), [] as [u64; 0]);
        merge.add(&share(1, 5, 7));
        assert_eq!(accepted(&merge), [17]);
    }

    #[test]
    fn closed_minutes_are_forgotten_and_take_nothing_more() {
        let mut merge = Merge::new(Minute(3));
        merge.add(&share(0, 2, 1));
        merge.add(&share(0, 3, 1));
        assert_eq!((merge.held(), merge.refused()), (1, 1));
        merge.settle(Minute(4));
        assert_eq!(merge.held(), 0);
    }
}
