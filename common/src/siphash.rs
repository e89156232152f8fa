//! SipHash-2-4 with a 64-bit tag (Aumasson and Bernstein, 2012), over whole 64-bit words.
//!
//! Written here, and not taken from a crate, because the same code must run inside the kernel:
//! fixed length, no slices, no panics, every loop unrolled by its constant bound. The tests
//! hold it against the `siphasher` crate and the paper's own vector.

/// A 128-bit SipHash key as two little-endian words.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SipKey {
    /// Bytes 0 to 7.
    pub k0: u64,
    /// Bytes 8 to 15.
    pub k1: u64,
}

impl SipKey {
    /// A key from its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { k0: both as u64, k1: (both >> 64) as u64 }
    }
}

impl core::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A key must never reach a log.
        f.write_str("SipKey(..)")
    }
}

#[inline(always)]
const fn round(mut v: [u64; 4]) -> [u64; 4] {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
    v
}

/// SipHash-2-4 of `words`, that is of `8 * N` bytes read as little-endian words.
#[inline(always)]
#[must_use]
pub const fn siphash24<const N: usize>(key: &SipKey, words: &[u64; N]) -> u64 {
    let mut v = [
        key.k0 ^ 0x736f_6d65_7073_6575,
        key.k1 ^ 0x646f_7261_6e64_6f6d,
        key.k0 ^ 0x6c79_6765_6e65_7261,
        key.k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut i = 0;
    while i < N {
        v[3] ^= words[i];
        v = round(round(v));
        v[0] ^= words[i];
        i += 1;
    }
    // The last word holds no message bytes here, only the length modulo 256 in its top byte.
    let last = ((N as u64 * 8) & 0xff) << 56;
    v[3] ^= last;
    v = round(round(v));
    v[0] ^= last;
    v[2] ^= 0xff;
    v = round(round(round(round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    fn reference(key: &SipKey, words: &[u64]) -> u64 {
        let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key.k0, key.k1);
        for word in words {
            hasher.write(&word.to_le_bytes());
        }
        hasher.finish()
    }

    #[test]
    fn the_vector_of_the_reference_implementation_for_eight_bytes_holds() {
        let key = SipKey::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let message = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(siphash24(&key, &[message]), 0x93f5_f579_9a93_2462);
    }

    proptest! {
        #[test]
        fn tags_of_six_words_equal_the_crates_own(k0: u64, k1: u64, words: [u64; 6]) {
            let key = SipKey { k0, k1 };
            prop_assert_eq!(siphash24(&key, &words), reference(&key, &words));
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(std::format!("{:?}", SipKey { k0: 7, k1: 9 }), "SipKey(..)");
    }
}
