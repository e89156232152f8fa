//! Keyed hashing of ids and bucket keys: nobody who does not hold the key can choose ids that
//! meet in one place of a table.
//!
//! Pair-multiply-shift (Dietzfelbinger 1996; Thorup, "High Speed Hashing for Integers and
//! Strings", 2015, section 3.5) is strongly universal: any two different inputs collide with
//! probability 2^-64 over the key. It is linear, though, so ids that count up would form a
//! regular pattern; a bijective finaliser breaks the pattern and keeps the bound.

use weir_common::siphash::{SipKey, siphash24};

/// Keyed hash functions for 128-bit ids and 256-bit bucket keys.
#[derive(Clone, Copy)]
pub(super) struct Hasher {
    multipliers: [u128; 4],
    addend: u128,
}

impl Hasher {
    /// Draws the 640 bits of key from 128 by SipHash in counter mode.
    pub(super) const fn new(key: &SipKey) -> Self {
        const fn wide(key: &SipKey, n: u64) -> u128 {
            (siphash24(key, &[2 * n]) as u128) << 64 | siphash24(key, &[2 * n + 1]) as u128
        }
        Self { multipliers: [wide(key, 0), wide(key, 1), wide(key, 2), wide(key, 3)], addend: wide(key, 4) }
    }

    #[inline]
    pub(super) const fn of_id(&self, words: [u64; 2]) -> u64 {
        finish(self.pair(0, words).wrapping_add(self.addend))
    }

    #[inline]
    pub(super) const fn of_bucket(&self, words: [u64; 4]) -> u64 {
        let first = self.pair(0, [words[0], words[1]]);
        let second = self.pair(2, [words[2], words[3]]);
        finish(first.wrapping_add(second).wrapping_add(self.addend))
    }

    #[inline(always)]
    const fn pair(&self, at: usize, words: [u64; 2]) -> u128 {
        let left = self.multipliers[at].wrapping_add(words[1] as u128);
        let right = self.multipliers[at + 1].wrapping_add(words[0] as u128);
        left.wrapping_mul(right)
    }
}

/// The top half, through the bijective 64-bit finaliser of MurmurHash3 (public domain).
#[inline(always)]
const fn finish(wide: u128) -> u64 {
    let mut hash = (wide >> 64) as u64;
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SipKey = SipKey { k0: 3, k1: 4 };

    /// Puts 64 Ki ids into 256 cells; the fullest and emptiest must be near 256.
    fn assert_even(ids: impl Iterator<Item = [u64; 2]>) {
        let hasher = Hasher::new(&KEY);
        let mut cells = [0_u32; 256];
        for id in ids {
            cells[(hasher.of_id(id) >> 56) as usize] += 1;
        }
        // Six standard deviations of a fair throw.
        assert!(cells.iter().all(|&count| (160..352).contains(&count)), "{cells:?}");
    }

    #[test]
    fn ids_that_count_up_spread_evenly() {
        assert_even((0..65_536).map(|n| [7, n]));
        assert_even((0..65_536).map(|n| [n << 32, 0]));
        assert_even((0..65_536_u64).map(|n| [n, n.wrapping_neg()]));
    }

    #[test]
    fn another_key_gives_another_order() {
        let (one, two) = (Hasher::new(&KEY), Hasher::new(&SipKey { k0: 3, k1: 5 }));
        assert!((0..1000).all(|n| one.of_id([1, n]) != two.of_id([1, n])));
    }

    #[test]
    fn each_word_of_a_bucket_key_moves_its_hash() {
        let hasher = Hasher::new(&KEY);
        let base = hasher.of_bucket([1, 2, 3, 4]);
        for word in 0..4 {
            let mut words = [1, 2, 3, 4];
            words[word] ^= 1 << 63;
            assert_ne!(hasher.of_bucket(words), base);
        }
    }
}
