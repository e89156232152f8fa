//! Which worker owns which shard.

use weir_common::id::{SHARDS, Shard, WorkerId};

/// The most workers a node has: a shard each.
pub const MAX_WORKERS: usize = SHARDS;

/// The owner of every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    owners: Box<[WorkerId; SHARDS]>,
}

impl ShardMap {
    /// Splits the shards into one contiguous range for each of `workers` (1 to [`MAX_WORKERS`])
    /// workers. Contiguous, so that a sender that groups by leading bits hits one owner.
    #[must_use]
    pub fn even(workers: usize) -> Self {
        assert!((1..=MAX_WORKERS).contains(&workers), "the config bounds the number of workers");
        let owner = |shard: usize| WorkerId((shard * workers / SHARDS) as u16);
        Self { owners: Box::new(std::array::from_fn(owner)) }
    }

    /// The worker that owns `shard`.
    #[inline]
    #[must_use]
    pub fn owner(&self, shard: Shard) -> WorkerId {
        self.owners[usize::from(shard.0) % SHARDS]
    }

    /// The shards that `worker` owns, in order.
    pub fn of(&self, worker: WorkerId) -> impl Iterator<Item = Shard> + '_ {
        let owned = move |(_, owner): &(u16, &WorkerId)| **owner == worker;
        (0..).zip(self.owners.iter()).filter(owned).map(|(shard, _)| Shard(shard))
    }

    /// The owners in shard order.
    pub fn iter(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.owners.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_owns_its_even_share_in_one_range() {
        for workers in [1, 2, 3, 7, 64, 1000, MAX_WORKERS] {
            let map = ShardMap::even(workers);
            let owners: Vec<_> = map.iter().collect();
            assert!(owners.is_sorted());
            for worker in 0..workers {
                let share = owners.iter().filter(|owner| usize::from(owner.0) == worker).count();
                assert_eq!(map.of(WorkerId(worker as u16)).count(), share);
                assert!(share.abs_diff(SHARDS / workers) <= 1, "{worker} of {workers} owns {share}");
            }
        }
    }

    #[test]
    fn a_leading_bit_decides_between_two_workers() {
        let map = ShardMap::even(2);
        assert_eq!(map.owner(Shard(511)), WorkerId(0));
        assert_eq!(map.owner(Shard(512)), WorkerId(1));
    }
}
