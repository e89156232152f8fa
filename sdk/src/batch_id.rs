//! Batch ids: unique, unpredictable without the seed, and they say where the batch is held.
//!
//! The low 16 bits are the batch's slot, the high 48 a counter passed through a keyed permutation
//! (four Feistel rounds over two 24-bit halves, SipHash as round function). A permutation never
//! repeats before 2^48 batches; the key keeps the ids from being guessed by somebody who sees none.

use weir_common::siphash::{SipKey, siphash24};

const HALF_BITS: u32 = 24;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;
/// Luby and Rackoff: four rounds make a strong permutation of a good round function.
const ROUNDS: u64 = 4;
const SLOT_BITS: u32 = 16;
const _: () = assert!(2 * HALF_BITS + SLOT_BITS == u64::BITS);

pub(crate) struct BatchIds {
    key: SipKey,
    next: u64,
}

impl BatchIds {
    pub(crate) const fn new(key: SipKey) -> Self {
        Self { key, next: 0 }
    }

    pub(crate) fn next(&mut self, slot: u32) -> u64 {
        let counter = self.next;
        self.next = self.next.wrapping_add(1);
        permute(&self.key, counter) << SLOT_BITS | u64::from(slot)
    }

    pub(crate) const fn slot(batch_id: u64) -> usize {
        (batch_id & ((1 << SLOT_BITS) - 1)) as usize
    }
}

fn permute(key: &SipKey, counter: u64) -> u64 {
    let (mut left, mut right) = (counter >> HALF_BITS & HALF_MASK, counter & HALF_MASK);
    for round in 0..ROUNDS {
        let mixed = siphash24(key, &[right | round << HALF_BITS]) & HALF_MASK;
        (left, right) = (right, left ^ mixed);
    }
    left << HALF_BITS | right
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_one_slot_never_repeat_and_name_their_slot() {
        let mut ids = BatchIds::new(SipKey { k0: 1, k1: 2 });
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let id = ids.next(77);
            assert_eq!(BatchIds::slot(id), 77);
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn ids_of_two_seeds_differ() {
        let mut one = BatchIds::new(SipKey { k0: 1, k1: 2 });
        let mut two = BatchIds::new(SipKey { k0: 1, k1: 3 });
        assert_ne!(one.next(0), two.next(0));
    }
}
