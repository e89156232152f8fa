//! Who and what: impressions, clicks, shards, nodes. One newtype each, so that none can be
//! passed for another.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Shards are 10 bits: enough to split a POP over 1,024 cores, few enough for one flat map.
pub const SHARD_BITS: u32 = 10;
/// Number of shards.
pub const SHARDS: usize = 1 << SHARD_BITS;

/// Ordinals run from 0 to `ORDINALS - 1`. The state of an impression is one byte: a bit for
/// each ordinal and one for "a click of it was counted". A click past the limit is
/// `refused(ordinal_limit)`.
pub const ORDINALS: u8 = 7;

/// A 128-bit impression id, as it stands on the wire.
///
/// *Issued* ids are minted by an ad server that holds a key: issuer u16, key u16, issued-at
/// seconds u32, sequence u64, all little-endian. *Foreign* ids are any 16 bytes. Which of the
/// two an id is, the click's flags say: the same 16 bytes as issued and as foreign id are two
/// different impressions.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct ImpressionId(pub [u8; 16]);

impl ImpressionId {
    /// Mints an issued id.
    #[must_use]
    pub const fn issued(issuer: Issuer, key: KeyId, issued_at_s: u32, sequence: u64) -> Self {
        let high = issuer.0 as u64 | (key.0 as u64) << 16 | (issued_at_s as u64) << 32;
        Self((high as u128 | (sequence as u128) << 64).to_le_bytes())
    }

    /// The id as two little-endian words: (issuer, key, issued-at), sequence.
    #[inline]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        let both = u128::from_le_bytes(self.0);
        [both as u64, (both >> 64) as u64]
    }

    /// The issuer of an issued id.
    #[inline]
    #[must_use]
    pub const fn issuer(self) -> Issuer {
        Issuer(self.words()[0] as u16)
    }

    /// The key that signed an issued id.
    #[inline]
    #[must_use]
    pub const fn key(self) -> KeyId {
        KeyId((self.words()[0] >> 16) as u16)
    }

    /// Seconds since the Unix epoch at which an issued id was minted.
    #[inline]
    #[must_use]
    pub const fn issued_at_s(self) -> u32 {
        (self.words()[0] >> 32) as u32
    }

    /// The issuer's sequence number of an issued id.
    #[inline]
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.words()[1]
    }

    /// The shard of an issued id: the low ten bits of its sequence, mirrored, so that
    /// consecutive impressions differ in the shard's *leading* bit and spread over all cores.
    #[inline]
    #[must_use]
    pub const fn issued_shard(self) -> Shard {
        let low = (self.sequence() & (SHARDS as u64 - 1)) as u16;
        Shard(low.reverse_bits() >> (u16::BITS - SHARD_BITS))
    }

    /// The shard of a foreign id: the top ten bits of a fixed 64-bit mix of its bytes. Not a
    /// defence: a sender that chooses its ids can choose its shard, and gains nothing by it.
    #[inline]
    #[must_use]
    pub const fn foreign_shard(self) -> Shard {
        let [low, high] = self.words();
        // Constants of the MurmurHash3 64-bit finaliser (public domain).
        let mut mixed = low ^ high.rotate_left(32).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Shard((mixed >> (u64::BITS - SHARD_BITS)) as u16)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);
    };
}

number!(/// An ad server that mints impression ids.
    Issuer(u16));
number!(/// One signing key of an issuer; two are live during a rotation.
    KeyId(u16));
number!(/// Which click on an impression this is, counted by the SDK from 0.
    Ordinal(u8));
number!(/// One of the [`SHARDS`] slices of the id space; always below [`SHARDS`].
    Shard(u16));
number!(/// A POP node, as the operator numbers it.
    NodeId(u32));
number!(/// One life of a journal folder: drawn at random when the folder is born.
    Incarnation(u64));
number!(/// A start of the daemon on one journal folder: 1 for the first, one more each time.
    Epoch(u32));
number!(/// A worker of one start of the daemon.
    WorkerId(u16));
number!(/// The sequence of a block: from 1, without gaps, for each (epoch, worker).
    BlockSeq(u64));

impl Shard {
    /// Whether this shard agrees with `other` in its leading `bits` bits.
    #[inline]
    #[must_use]
    pub const fn shares_leading(self, other: Shard, bits: u32) -> bool {
        let shift = SHARD_BITS.saturating_sub(bits);
        self.0 >> shift == other.0 >> shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_id_gives_back_its_parts() {
        let id = ImpressionId::issued(Issuer(0x1234), KeyId(0xabcd), 0xdead_beef, 0x0102_0304_0506_0708);
        assert_eq!(id.issuer(), Issuer(0x1234));
        assert_eq!(id.key(), KeyId(0xabcd));
        assert_eq!(id.issued_at_s(), 0xdead_beef);
        assert_eq!(id.sequence(), 0x0102_0304_0506_0708);
        assert_eq!(id.0[..4], [0x34, 0x12, 0xcd, 0xab]);
    }

    #[test]
    fn consecutive_impressions_alternate_over_two_halves_of_the_shards() {
        let half = |sequence| ImpressionId::issued(Issuer(1), KeyId(1), 1, sequence).issued_shard().0 >> 9;
        assert_eq!([half(0), half(1), half(2), half(3)], [0, 1, 0, 1]);
    }

    #[test]
    fn every_shard_gets_one_of_1024_consecutive_impressions() {
        let mut seen = [0_u32; SHARDS];
        for sequence in 5000..5000 + SHARDS as u64 {
            seen[ImpressionId::issued(Issuer(1), KeyId(1), 1, sequence).issued_shard().0 as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn foreign_ids_that_count_up_spread_within_a_third_of_even() {
        let mut seen = [0_u32; 16];
        for value in 0..16_000_u128 {
            seen[(ImpressionId(value.to_le_bytes()).foreign_shard().0 >> 6) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (667..1334).contains(&count)), "{seen:?}");
    }

    #[test]
    fn zero_shared_bits_agree_with_any_shard_and_ten_only_with_itself() {
        assert!(Shard(3).shares_leading(Shard(1000), 0));
        assert!(Shard(1000).shares_leading(Shard(1000), 10));
        assert!(!Shard(1000).shares_leading(Shard(1001), 10));
        assert!(Shard(1000).shares_leading(Shard(1001), 9));
    }
}
