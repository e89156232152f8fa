//! A binary fuse filter (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor
//! Filters", 2022) of three positions a key and fingerprints of twelve bits.
//!
//! Twelve bits, because the bound is 180 MB for a hundred million keys: they take 169 of it, and
//! of those who are not listed one in 4,096 is taken for one who is, a quarter of what ten bits
//! would give. Own code, because libraries have fingerprints of 8, 16 and 32 bits: the first is
//! wrong four times as often as it may be, the second takes 225 MB.
//!
//! Pure functions over hashes; [`super::file`] knows how they lie in a file.

use weir_common::siphash::SipKey;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bits of a fingerprint. Two of them are three octets, so one is always within two octets.
pub(super) const FINGERPRINT_BITS: u32 = 12;
const FINGERPRINT_MASK: u16 = (1 << FINGERPRINT_BITS) - 1;
/// Longer segments make no difference to the size and leave the caches.
const SEGMENT_BITS_MAX: u32 = 18;
/// How often another seed is tried. One fails with a few percent at worst, for small sets.
const ATTEMPTS_MAX: u64 = 100;
/// What the hashes of all files are keyed with. It is fixed, and written in each file, so that a
/// list always gives the same file; who knows it can find out who else is taken for a listed
/// one, and no more.
pub(super) const FILE_KEY: SipKey = SipKey::from_bytes(*b"weir known actor");

/// One shard of a filter: which slots it has, and how a hash finds its three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Shard {
    /// Mixed into each hash; the one that let the shard be built.
    pub(super) seed: U64,
    /// The first of its slots; even.
    pub(super) first_slot: U64,
    /// Slots where a key's first position may be: a multiple of the segment.
    pub(super) first_positions: U32,
    /// Slots of a segment, a power of two, as its exponent.
    pub(super) segment_bits: U32,
}

impl Shard {
    /// The shape for this many keys, without seed.
    pub(super) fn for_keys(keys: usize, first_slot: u64) -> Self {
        // The formulas of the paper's reference implementation for three positions.
        let ln = (keys.max(2) as f64).ln();
        let exponent = (ln / 3.33_f64.ln() + 2.25) as u32;
        let segment_bits = exponent.min(SEGMENT_BITS_MAX);
        let factor = (0.875 + 0.25 * 1_000_000_f64.ln() / ln).max(1.125);
        let wanted = (keys as f64 * factor).round() as u32;
        let segments = wanted.div_ceil(1 << segment_bits).saturating_sub(2).max(1);
        Self {
            seed: 0.into(),
            first_slot: first_slot.into(),
            first_positions: (segments << segment_bits).into(),
            segment_bits: segment_bits.into(),
        }
    }

    /// How many slots it has: an even number.
    pub(super) fn slots(&self) -> u64 {
        u64::from(self.first_positions.get()) + (2 << self.segment_bits.get())
    }

    /// Whether all its positions are below `slots`, so that no look-up can leave them.
    pub(super) fn is_sound(&self, slots: u64) -> bool {
        let (bits, first) = (self.segment_bits.get(), self.first_slot.get());
        (1..=SEGMENT_BITS_MAX).contains(&bits)
            && self.first_positions.get().trailing_zeros() >= bits
            && first.is_multiple_of(2)
            && first.checked_add(self.slots()).is_some_and(|end| end <= slots)
    }

    /// A key's fingerprint and its three positions, counted from the shard's first slot.
    #[inline(always)]
    pub(super) const fn place(&self, hash: u64) -> (u16, [u32; 3]) {
        // The finaliser of MurmurHash3: every bit of the hash changes every other.
        let mut mixed = hash.wrapping_add(self.seed.get());
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
        let segment = 1_u32 << self.segment_bits.get();
        let mask = segment - 1;
        let first = ((mixed as u128 * self.first_positions.get() as u128) >> 64) as u32;
        let second = (first + segment) ^ ((mixed >> 18) as u32 & mask);
        let third = (first + 2 * segment) ^ (mixed as u32 & mask);
        // Bits that no position rests on alone.
        let fingerprint = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FINGERPRINT_BITS)) as u16;
        (fingerprint, [first, second, third])
    }
}

/// Memory of one build after another.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// For each slot: four times the keys that have a position there, and the exclusive or of
    /// which of their positions it is.
    counts: Vec<u8>,
    /// For each slot the exclusive or of their hashes.
    hashes: Vec<u64>,
    /// Slots with one key.
    alone: Vec<u32>,
    /// Keys in the order they were peeled off, and which of their positions nobody else had.
    peeled: Vec<(u64, u8)>,
    slots: Vec<u16>,
}

/// What a set of hashes was built to: its shard and the fingerprints in its slots.
pub(super) type Built<'s> = (Shard, &'s [u16]);

/// Builds one shard of hashes that are all different; none when no seed would do, which is only
/// to be expected if they are not.
pub(super) fn build<'s>(hashes: &[u64], first_slot: u64, scratch: &'s mut Scratch) -> Option<Built<'s>> {
    let mut shard = Shard::for_keys(hashes.len(), first_slot);
    for attempt in 1..=ATTEMPTS_MAX {
        shard.seed = attempt.wrapping_mul(0xd6e8_feb8_6659_fd93).into();
        if peel(&shard, hashes, scratch) {
            assign(&shard, scratch);
            return Some((shard, &scratch.slots));
        }
    }
    None
}

/// Orders the keys so that each has a slot which none before it uses. False when that is not
/// possible with this seed.
fn peel(shard: &Shard, hashes: &[u64], scratch: &mut Scratch) -> bool {
    let Scratch { counts, hashes: sums, alone, peeled, .. } = scratch;
    let slots = shard.slots() as usize;
    counts.clear();
    counts.resize(slots, 0);
    sums.clear();
    sums.resize(slots, 0);
    alone.clear();
    peeled.clear();
    for &hash in hashes {
        for (which, at) in (0..).zip(shard.place(hash).1) {
            let count = &mut counts[at as usize];
            // So many keys at one slot come of a bad seed, if ever.
            let Some(more) = count.checked_add(4) else { return false };
            *count = more ^ which;
            sums[at as usize] ^= hash;
        }
    }
    alone.extend((0..).zip(counts.iter()).filter(|&(_, count)| count >> 2 == 1).map(|(at, _)| at));
    while let Some(at) = alone.pop() {
        let count = counts[at as usize];
        if count >> 2 != 1 {
            continue;
        }
        let hash = sums[at as usize];
        peeled.push((hash, count & 3));
        for (which, at) in (0..).zip(shard.place(hash).1) {
            let count = &mut counts[at as usize];
            *count = (*count - 4) ^ which;
            sums[at as usize] ^= hash;
            if *count >> 2 == 1 {
                alone.push(at);
            }
        }
    }
    peeled.len() == hashes.len()
}

/// Gives each key, last peeled first, the value at its own slot that makes its three add up to its
/// fingerprint.
fn assign(shard: &Shard, scratch: &mut Scratch) {
    let slots = &mut scratch.slots;
    slots.clear();
    slots.resize(shard.slots() as usize, 0);
    for &(hash, which) in scratch.peeled.iter().rev() {
        let (fingerprint, at) = shard.place(hash);
        let own = at[which as usize] as usize;
        slots[own] = 0;
        slots[own] = at.iter().fold(fingerprint, |value, &at| value ^ slots[at as usize]);
    }
}

/// Octets that this many slots take.
pub(super) const fn packed_len(slots: u64) -> u64 {
    slots / 2 * 3
}

/// Packs fingerprints, two in three octets; an even number of them.
pub(super) fn pack(slots: &[u16], out: &mut Vec<u8>) {
    for pair in slots.chunks_exact(2) {
        let both = u32::from(pair[0]) | u32::from(pair[1]) << FINGERPRINT_BITS;
        out.extend_from_slice(&both.to_le_bytes()[..3]);
    }
}

/// The fingerprint in a slot; 0 past the end.
#[inline(always)]
pub(super) fn unpacked(packed: &[u8], slot: u64) -> u16 {
    let at = (slot * u64::from(FINGERPRINT_BITS) / 8) as usize;
    let Some(two) = packed.get(at..at + 2) else { return 0 };
    let shift = (slot & 1) as u32 * 4;
    u16::from_le_bytes([two[0], two[1]]) >> shift & FINGERPRINT_MASK
}

/// Whether a hash is one that the shard was built of, or looks like one.
#[inline(always)]
pub(super) fn contains(shard: &Shard, packed: &[u8], hash: u64) -> bool {
    let (fingerprint, at) = shard.place(hash);
    let first = shard.first_slot.get();
    let found = at.map(|at| unpacked(packed, first + u64::from(at)));
    found[0] ^ found[1] ^ found[2] == fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_were_packed() {
        let slots: Vec<u16> = (0..200_u16).map(|n| n.wrapping_mul(2053) & FINGERPRINT_MASK).collect();
        let mut packed = Vec::new();
        pack(&slots, &mut packed);
        assert_eq!(packed.len() as u64, packed_len(200));
        let back: Vec<u16> = (0..200).map(|slot| unpacked(&packed, slot)).collect();
        assert_eq!(back, slots);
        assert_eq!(unpacked(&packed, 200), 0);
    }

    #[test]
    fn sets_of_every_small_size_and_some_larger_ones_are_built_and_found() {
        let mut scratch = Scratch::default();
        for keys in (0..300).chain([1_000, 10_000, 100_000]) {
            let hashes: Vec<u64> = (0..keys).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let (shard, slots) = build(&hashes, 0, &mut scratch).unwrap();
            assert!(shard.is_sound(shard.slots()) && !shard.is_sound(shard.slots() - 1), "{keys}");
            let mut packed = Vec::new();
            pack(slots, &mut packed);
            assert!(hashes.iter().all(|&hash| contains(&shard, &packed, hash)), "{keys}");
        }
    }

    #[test]
    fn a_hundred_million_keys_fit_180_megabytes() {
        let shard = Shard::for_keys(100_000_000 / 64, 0);
        assert!(packed_len(shard.slots() * 64) < 175_000_000, "{}", packed_len(shard.slots() * 64));
    }
}
