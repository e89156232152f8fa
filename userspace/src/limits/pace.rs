//! What was spent of budgets, shared by all workers without locks.
//!
//! A budget is a pace: the generic cell rate algorithm (ITU-T I.371), which is a token bucket kept as the one
//! time at which it is full again. A payer whose time has passed is one who never paid: his place can be
//! another's, and nothing is lost. So the table forgets exactly what need not be known, and a full set of places
//! means that as many payers are spending at this moment.
//!
//! A place is two words, name and time, each atomic by itself. Should a place change hands while somebody pays
//! there, the newcomer begins with one click spent: an error of one click, never of a budget.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places of a set: two lines of memory.
const WAYS: usize = 8;
/// Tries to write a time that others write too.
const TRIES_MAX: u32 = 64;
const NS_PER_S: u64 = 1_000_000_000;

/// Clicks a second, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At least 1.
    pub clicks_per_s: u32,
    /// At least 1.
    pub burst: u32,
}

/// A budget as times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two clicks.
    interval_ns: u64,
    /// How far ahead of now the time of a payer may be who takes one more.
    ahead_ns_max: u64,
}

impl Pace {
    /// The pace of a budget.
    #[must_use]
    pub fn of(budget: Budget) -> Self {
        let interval_ns = (NS_PER_S / u64::from(budget.clicks_per_s.max(1))).max(1);
        Self { interval_ns, ahead_ns_max: interval_ns * u64::from(budget.burst.max(1) - 1) }
    }

    /// One click in so long.
    pub(super) const fn one_in(interval_ns: u64) -> Self {
        Self { interval_ns, ahead_ns_max: 0 }
    }
}

#[derive(Debug, Default)]
struct Place {
    /// 0: nobody's yet.
    name: AtomicU64,
    /// When all of the budget is there again.
    full_at_ns: AtomicU64,
}

/// Who has spent what. Of fixed size.
#[derive(Debug)]
pub(super) struct Table {
    places: Box<[Place]>,
}

impl Table {
    pub(super) fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).max(1).next_power_of_two();
        Self { places: (0..sets * WAYS).map(|_| Place::default()).collect() }
    }

    fn set(&self, name: u64) -> &[Place] {
        let sets = self.places.len() / WAYS;
        let first = (name as usize & (sets - 1)) * WAYS;
        &self.places[first..first + WAYS]
    }

    /// How long this payer has to wait for one click more; 0 when there is room for it.
    pub(super) fn wait_ns(&self, name: u64, pace: Pace, now_ns: u64) -> u64 {
        let own = self.set(name).iter().find(|place| place.name.load(Ordering::Acquire) == name);
        let full_at_ns = own.map_or(0, |place| place.full_at_ns.load(Ordering::Relaxed));
        full_at_ns.saturating_sub(now_ns).saturating_sub(pace.ahead_ns_max)
    }

    /// Charges one click; false when there is no place to note that.
    pub(super) fn spend(&self, name: u64, pace: Pace, now_ns: u64) -> bool {
        let Some(place) = self.place_of(name, now_ns) else { return false };
        let mut seen = place.full_at_ns.load(Ordering::Relaxed);
        for _ in 0..TRIES_MAX {
            let next = seen.max(now_ns).saturating_add(pace.interval_ns);
            match place.full_at_ns.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    /// A payer's place: his own, or one whose payer has all of his budget.
    fn place_of(&self, name: u64, now_ns: u64) -> Option<&Place> {
        let set = self.set(name);
        if let Some(own) = set.iter().find(|place| place.name.load(Ordering::Acquire) == name) {
            return Some(own);
        }
        set.iter().find(|place| {
            let other = place.name.load(Ordering::Acquire);
            // Somebody else may take it in this moment, perhaps for the same payer.
            place.full_at_ns.load(Ordering::Relaxed) <= now_ns
                && match place.name.compare_exchange(other, name, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => true,
                    Err(taken_by) => taken_by == name,
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { interval_ns: 1000, ahead_ns_max: 9 * 1000 };

    #[test]
    fn a_place_is_anothers_only_when_its_payer_has_all_of_his_budget() {
        let table = Table::new(1);
        let at = 1_000_000;
        // Names that fall into the one set there is.
        for name in 1..=WAYS as u64 {
            assert!(table.spend(name, PACE, at));
        }
        assert!(!table.spend(99, PACE, at), "all are spending");
        assert!(table.spend(99, PACE, at + 1000), "now they have all of it again");
        assert_eq!(table.wait_ns(99, Pace { ahead_ns_max: 0, ..PACE }, at + 1000), 1000);
    }

    #[test]
    fn workers_that_spend_at_once_spend_as_much_as_one_after_the_other() {
        let table = Table::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!((0..10_000).all(|_| table.spend(7, PACE, 1_000_000))));
            }
        });
        let no_burst = Pace { ahead_ns_max: 0, ..PACE };
        assert_eq!(table.wait_ns(7, no_burst, 1_000_000), 40_000 * PACE.interval_ns);
    }
}
