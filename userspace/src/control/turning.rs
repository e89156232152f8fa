//! Whether all workers turn: each counts its turns, idle or not, so one whose count stands still hangs.
//!
//! Who looks says how many looks without a turn are too many; between two looks there has to be time for some turns.

/// For how many looks each worker has made no turn.
#[derive(Debug)]
pub(super) struct Turning {
    /// The turns that were seen last, and the looks since they changed.
    workers: Vec<(u64, u32)>,
    /// Looks without a turn after which a worker hangs.
    still_looks_max: u32,
}

impl Turning {
    /// Nobody has turned, and nothing is held against anybody.
    pub(super) fn new(workers: usize, still_looks_max: u32) -> Self {
        Self { workers: vec![(0, 0); workers], still_looks_max }
    }

    /// Looks at the turns of all workers; the first that has made none for too long.
    pub(super) fn hanging(&mut self, turns: impl IntoIterator<Item = u64>) -> Option<usize> {
        for ((seen, still_looks), turns) in self.workers.iter_mut().zip(turns) {
            *still_looks = if *seen == turns { still_looks.saturating_add(1) } else { 0 };
            *seen = turns;
        }
        self.workers.iter().position(|(_, still_looks)| *still_looks >= self.still_looks_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_makes_no_turn_for_as_many_looks_hangs_and_turning_again_it_is_well() {
        let mut turning = Turning::new(2, 10);
        assert_eq!(turning.hanging([1, 1]), None);
        for look in 2..=10 {
            assert_eq!(turning.hanging([look, 1]), None, "{look}");
        }
        assert_eq!(turning.hanging([11, 1]), Some(1), "the tenth look");
        assert_eq!(turning.hanging([12, 1]), Some(1));
        assert_eq!(turning.hanging([13, 2]), None);
        // What it did before is forgotten.
        assert!((14..=22).all(|look| turning.hanging([look, 2]).is_none()));
    }

    #[test]
    fn where_one_look_is_enough_one_worker_that_does_not_turn_is_one_too_many() {
        let mut turning = Turning::new(2, 1);
        assert_eq!(turning.hanging([0, 0]), Some(0), "workers that never turned");
        assert_eq!(turning.hanging([1, 9]), None);
        assert_eq!(turning.hanging([2, 9]), Some(1));
        assert_eq!(turning.hanging([2, 9]), Some(0));
        assert_eq!(turning.hanging([3, 10]), None);
        // A counter that has gone round is another number all the same.
        assert_eq!(turning.hanging([4, 0]), None);
    }
}
