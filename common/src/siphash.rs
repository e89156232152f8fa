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

/// SipHash-2-4 of `L` messages at once, each under a key of its own: word `n` of message `lane` is
/// `words[n][lane]`, its key `keys[0][lane]` and `keys[1][lane]`.
///
/// The same steps as [`siphash24`], each over a row of lanes and nothing else, so that a compiler
/// that may use vector registers keeps every row in one. Which it may is the caller's to say.
#[inline(always)]
#[must_use]
pub fn siphash24_lanes<const L: usize, const N: usize>(
    keys: &[[u64; L]; 2],
    words: &[[u64; L]; N],
) -> [u64; L] {
    let with = |row: &[u64; L], constant: u64| row.map(|lane| lane ^ constant);
    let mut v = [
        with(&keys[0], 0x736f_6d65_7073_6575),
        with(&keys[1], 0x646f_7261_6e64_6f6d),
        with(&keys[0], 0x6c79_6765_6e65_7261),
        with(&keys[1], 0x7465_6462_7974_6573),
    ];
    for row in words {
        xor(&mut v[3], row);
        round_lanes(&mut v);
        round_lanes(&mut v);
        xor(&mut v[0], row);
    }
    let last = [((N as u64 * 8) & 0xff) << 56; L];
    xor(&mut v[3], &last);
    round_lanes(&mut v);
    round_lanes(&mut v);
    xor(&mut v[0], &last);
    xor(&mut v[2], &[0xff; L]);
    for _ in 0..4 {
        round_lanes(&mut v);
    }
    let [mut tags, v1, v2, v3] = v;
    xor(&mut tags, &v1);
    xor(&mut tags, &v2);
    xor(&mut tags, &v3);
    tags
}

#[inline(always)]
fn xor<const L: usize>(left: &mut [u64; L], right: &[u64; L]) {
    for lane in 0..L {
        left[lane] ^= right[lane];
    }
}

#[inline(always)]
fn add<const L: usize>(left: &mut [u64; L], right: &[u64; L]) {
    for lane in 0..L {
        left[lane] = left[lane].wrapping_add(right[lane]);
    }
}

#[inline(always)]
fn rotate<const L: usize>(row: &mut [u64; L], bits: u32) {
    for lane in row {
        *lane = lane.rotate_left(bits);
    }
}

/// [`round`], row by row.
#[inline(always)]
fn round_lanes<const L: usize>(v: &mut [[u64; L]; 4]) {
    let [v0, v1, v2, v3] = v;
    add(v0, v1);
    rotate(v1, 13);
    xor(v1, v0);
    rotate(v0, 32);
    add(v2, v3);
    rotate(v3, 16);
    xor(v3, v2);
    add(v0, v3);
    rotate(v3, 21);
    xor(v3, v0);
    add(v2, v1);
    rotate(v1, 17);
    xor(v1, v2);
    rotate(v2, 32);
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

    proptest! {
        #[test]
        fn each_lane_has_the_tag_of_its_own_message_and_key(
            keys: [[u64; 8]; 2],
            words: [[u64; 8]; 6],
        ) {
            let tags = siphash24_lanes(&keys, &words);
            for lane in 0..8 {
                let key = SipKey { k0: keys[0][lane], k1: keys[1][lane] };
                prop_assert_eq!(tags[lane], siphash24(&key, &words.map(|row| row[lane])));
            }
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(std::format!("{:?}", SipKey { k0: 7, k1: 9 }), "SipKey(..)");
    }
}
