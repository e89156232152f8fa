//! A timing wheel: one deadline a slot, constant time to set and clear, memory fixed at birth.
//!
//! A deadline beyond the wheel's horizon is filed under its last cell and filed again when that
//! cell comes up, so any deadline is allowed. A deadline fires at most one tick late, never early.

/// A tick is 2^18 ns, about a quarter of a millisecond.
const TICK_SHIFT: u32 = 18;
/// Cells; with the tick above the horizon is about one second.
const CELLS: u64 = 4096;
const WORDS: usize = CELLS as usize / 64;
const NONE: u32 = u32::MAX;

pub(crate) struct Wheel {
    /// Every tick up to this one has come up; cells hold the ticks `base + 1 ..= base + CELLS - 1`.
    base: u64,
    heads: Vec<u32>,
    occupied: [u64; WORDS],
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    deadline_ns: u64,
    /// The tick it is filed under, or [`UNSET`].
    tick: u64,
    previous: u32,
    next: u32,
}

const UNSET: u64 = u64::MAX;

impl Wheel {
    pub(crate) fn new(slots: usize) -> Self {
        let unset = Entry { deadline_ns: 0, tick: UNSET, previous: NONE, next: NONE };
        Self { base: 0, heads: vec![NONE; CELLS as usize], occupied: [0; WORDS], entries: vec![unset; slots] }
    }

    /// Sets the slot's deadline, replacing the one it had.
    pub(crate) fn set(&mut self, slot: u32, deadline_ns: u64) {
        self.clear(slot);
        let due = (deadline_ns >> TICK_SHIFT) + 1;
        let tick = due.clamp(self.base + 1, self.base + CELLS - 1);
        let cell = (tick % CELLS) as usize;
        let head = self.heads[cell];
        self.entries[slot as usize] = Entry { deadline_ns, tick, previous: NONE, next: head };
        if head != NONE {
            self.entries[head as usize].previous = slot;
        }
        self.heads[cell] = slot;
        self.occupied[cell / 64] |= 1 << (cell % 64);
    }

    /// Clears the slot's deadline, if it has one.
    pub(crate) fn clear(&mut self, slot: u32) {
        let entry = self.entries[slot as usize];
        if entry.tick == UNSET {
            return;
        }
        let cell = (entry.tick % CELLS) as usize;
        if entry.previous == NONE {
            self.heads[cell] = entry.next;
            if entry.next == NONE {
                self.occupied[cell / 64] &= !(1 << (cell % 64));
            }
        } else {
            self.entries[entry.previous as usize].next = entry.next;
        }
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
        self.entries[slot as usize].tick = UNSET;
    }

    /// Takes one slot whose deadline has passed.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
        let now_tick = now_ns >> TICK_SHIFT;
        // Each round fires a slot or files one under a later cell: bounded by the slots set.
        loop {
            let Some(tick) = self.first_tick().filter(|&tick| tick <= now_tick) else {
                self.base = self.base.max(now_tick);
                return None;
            };
            self.base = tick - 1;
            let slot = self.heads[(tick % CELLS) as usize];
            let deadline_ns = self.entries[slot as usize].deadline_ns;
            if deadline_ns <= now_ns {
                self.clear(slot);
                return Some(slot);
            }
            self.set(slot, deadline_ns);
        }
    }

    /// When [`Self::pop_due`] may next have something: not after the earliest deadline's tick.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.first_tick().map(|tick| tick << TICK_SHIFT)
    }

    fn first_tick(&self) -> Option<u64> {
        let start = ((self.base + 1) % CELLS) as usize;
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let cell = (word * 64) as u64 + u64::from(bits.trailing_zeros());
                return Some(self.base + 1 + (cell + CELLS - start as u64) % CELLS);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK_NS: u64 = 1 << TICK_SHIFT;

    #[test]
    fn a_deadline_beyond_the_horizon_fires_in_its_own_time() {
        let mut wheel = Wheel::new(1);
        let deadline_ns = 10 * CELLS * TICK_NS + 5;
        wheel.set(0, deadline_ns);
        let mut now_ns = 0;
        while now_ns < deadline_ns {
            assert_eq!(wheel.pop_due(now_ns), None, "fired early at {now_ns}");
            now_ns = wheel.next_ns().unwrap().max(now_ns + 1);
        }
        assert_eq!(wheel.pop_due(deadline_ns + TICK_NS), Some(0));
        assert_eq!(wheel.next_ns(), None);
    }

    #[test]
    fn a_cleared_deadline_does_not_fire() {
        let mut wheel = Wheel::new(3);
        for slot in 0..3 {
            wheel.set(slot, 1000);
        }
        wheel.clear(1);
        let mut fired: Vec<_> = std::iter::from_fn(|| wheel.pop_due(TICK_NS)).collect();
        fired.sort_unstable();
        assert_eq!(fired, [0, 2]);
    }

    proptest! {
        #[test]
        fn slots_fire_as_in_a_sorted_map(
            steps in prop::collection::vec((0_u32..32, 0_u64..3 * CELLS * TICK_NS, any::<bool>()), 1..200)
        ) {
            let mut wheel = Wheel::new(32);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now_ns = 0;
            for (slot, delay_ns, clear) in steps {
                if clear {
                    wheel.clear(slot);
                    model.remove(&slot);
                } else {
                    wheel.set(slot, now_ns + delay_ns);
                    model.insert(slot, now_ns + delay_ns);
                }
                now_ns += delay_ns / 7;
                while let Some(fired) = wheel.pop_due(now_ns) {
                    let deadline_ns = model.remove(&fired);
                    prop_assert!(deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns));
                }
                // Whatever is left is not due by more than a tick.
                prop_assert!(model.values().all(|&deadline_ns| deadline_ns + 2 * TICK_NS > now_ns));
                prop_assert_eq!(model.is_empty(), wheel.next_ns().is_none());
            }
        }
    }
}
