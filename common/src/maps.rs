//! BPF map layouts, written once for both sides of the kernel boundary.
//!
//! The policy is one value, so that swapping it is one pointer store: a packet sees all of the
//! old or all of the new. It holds no counters; it does hold keys, which are never printed.
//!
//! Start reading at [`Policy`].

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::id::{Issuer, KeyId, SHARDS, Shard};
use crate::packet;
use crate::siphash::SipKey;

/// Addresses of one family. A POP has a few anycast addresses; the list is searched from the
/// front, so it must stay short.
pub const MAX_ADDRESSES: usize = 16;
/// 64-bit words of a table with one bit for each 16-bit number.
const BITMAP_WORDS: usize = (1 << 16) / 64;
/// The CPU of a shard that nobody owns: its packets stay where they arrive.
pub const NO_CPU: u16 = u16::MAX;
/// CPUs a CPUMAP entry can be made for; the kernel wants no more entries than it has CPUs, so the
/// loader lowers this.
pub const MAX_CPUS: u32 = 1024;
/// Workers a reuseport group can have; also the `worker` of a shard that nobody owns.
pub const MAX_WORKERS: u32 = 1024;
/// Places in the table of sockets: a group of [`MAX_WORKERS`] for IPv4, then one for IPv6.
pub const MAX_SOCKETS: u32 = 2 * MAX_WORKERS;

/// The place of a worker's socket.
#[inline(always)]
#[must_use]
pub const fn socket_place(is_ipv6: bool, worker: u16) -> u32 {
    (if is_ipv6 { MAX_WORKERS } else { 0 }) + worker as u32
}
/// Sources whose rate is remembered, least recently seen evicted. At 88 bytes each that is about
/// 6 MiB for 65,536. There is a table of datagrams and one of connections.
pub const MAX_SOURCES: u32 = 65_536;
/// TCP ports whose connections can have a rate: the two of the HTTP door, and room.
pub const MAX_SYN_PORTS: usize = 4;
/// Signing keys the kernel can hold: a quarter of the table, so that each finds a slot near its
/// home.
pub const MAX_KEYS: usize = KEY_SLOTS / 4;
/// Slots of the key table, a power of two.
const KEY_SLOTS: usize = 512;
/// Slots from its home that a key may be in.
const KEY_PROBES: usize = 8;
/// Slots of prefix tries: the policy names one, the next swap fills the other.
pub const PREFIX_SLOTS: u32 = 2;

/// One bit for each 16-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Bitmap([u64; BITMAP_WORDS]);

impl Bitmap {
    /// Whether the bit of `index` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, index: u16) -> bool {
        self.0[(index >> 6) as usize] >> (index & 63) & 1 != 0
    }

    /// Sets the bit of `index`.
    pub const fn set(&mut self, index: u16) {
        self.0[(index >> 6) as usize] |= 1 << (index & 63);
    }
}

/// Bits of [`Policy::flags`].
pub mod policy_flags {
    /// Drops happen; without it they are counted and passed on.
    pub const ENFORCE: u32 = 1 << 0;
    /// Fragments to our addresses go to the kernel.
    pub const PASS_FRAGMENTS: u32 = 1 << 1;
    /// There are denied or allowed prefixes.
    pub const PREFIXES: u32 = 1 << 2;
    /// Sources have a rate.
    pub const RATE: u32 = 1 << 3;
    /// Sources ask for connections at a rate.
    pub const SYN_RATE: u32 = 1 << 4;
}

/// What the program decides by. Fields that most packets read come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Policy {
    /// [`policy_flags`].
    pub flags: u32,
    /// Which slot of prefix tries belongs to this policy.
    pub prefix_slot: u32,
    /// How many of `v4` count.
    pub v4_count: u32,
    /// How many of `v6` count.
    pub v6_count: u32,
    /// Addresses in network order.
    pub v4: [[u8; 4]; MAX_ADDRESSES],
    /// Addresses in network order.
    pub v6: [[u8; 16]; MAX_ADDRESSES],
    /// The rate of each source.
    pub rate: Rate,
    /// New sources each CPU remembers in a second; beyond it, new sources are not limited.
    pub new_sources_per_s: u64,
    /// The rate at which each source may ask for connections.
    pub syn_rate: Rate,
    /// As [`Policy::new_sources_per_s`], of those that ask for connections.
    pub new_syn_sources_per_s: u64,
    /// The TCP ports of that rate; the first one again in places that are not needed.
    pub syn_ports: [u16; MAX_SYN_PORTS],
    /// The ports that take clicks.
    pub ports: Bitmap,
    /// The CPU that owns each shard, or [`NO_CPU`].
    pub shard_cpu: [u16; SHARDS],
    /// Pre-test of the IPv4 prefixes: one bit for each /16 that a prefix touches.
    pub v4_touched: Bitmap,
    /// Pre-test of the IPv6 prefixes: one bit for each [`v6_bucket`] that a prefix touches.
    pub v6_touched: Bitmap,
    /// The keys by which first clicks are checked.
    pub keys: KeyTable,
}

/// 64-bit words of a [`Policy`], as which the loader writes it.
pub const POLICY_WORDS: usize = size_of::<Policy>() / 8;
const _: () = assert!(size_of::<Policy>() == POLICY_WORDS * 8);

impl Policy {
    /// A policy to which nothing is ours.
    #[must_use]
    pub fn empty() -> Self {
        Self { shard_cpu: [NO_CPU; SHARDS], ..Self::new_zeroed() }
    }

    /// Whether all bits of `flag` are set.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// The CPU that owns `shard`, or [`NO_CPU`].
    #[inline(always)]
    #[must_use]
    pub const fn owner_cpu(&self, shard: Shard) -> u16 {
        self.shard_cpu[shard.0 as usize & (SHARDS - 1)]
    }
}

impl packet::Policy for Policy {
    #[inline(always)]
    fn has_v4(&self, address: [u8; 4]) -> bool {
        let address = u32::from_le_bytes(address);
        for (i, own) in self.v4.iter().enumerate() {
            if i >= self.v4_count as usize {
                return false;
            }
            if u32::from_le_bytes(*own) == address {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn has_v6(&self, address: [u8; 16]) -> bool {
        let [low, high] = halves(address);
        for (i, own) in self.v6.iter().enumerate() {
            if i >= self.v6_count as usize {
                return false;
            }
            let [own_low, own_high] = halves(*own);
            if own_low == low && own_high == high {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn has_port(&self, port: u16) -> bool {
        self.ports.has(port)
    }

    #[inline(always)]
    fn passes_fragments(&self) -> bool {
        self.is(policy_flags::PASS_FRAGMENTS)
    }

    #[inline(always)]
    fn limits_syns_to(&self, port: u16) -> bool {
        self.is(policy_flags::SYN_RATE) && self.syn_ports.contains(&port)
    }
}

#[inline(always)]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])]
}

/// The pre-test bucket of an IPv4 address: its /16.
#[inline(always)]
#[must_use]
pub const fn v4_bucket(address: [u8; 4]) -> u16 {
    u16::from_be_bytes([address[0], address[1]])
}

/// Bits of an IPv6 address that [`v6_bucket`] looks at: registries allocate /32 to providers.
pub const V6_BUCKET_BITS: u8 = 32;

/// The pre-test bucket of an IPv6 address: a mix of its /32.
#[inline(always)]
#[must_use]
pub const fn v6_bucket(address: [u8; 16]) -> u16 {
    let head = u32::from_be_bytes([address[0], address[1], address[2], address[3]]);
    // Knuth's multiplicative hash: 2^32 over the golden ratio.
    (head.wrapping_mul(0x9e37_79b9) >> 16) as u16
}

/// What a prefix says of the sources in it.
pub mod prefix_action {
    /// Drop.
    pub const DENY: u32 = 1;
    /// Never denied, never limited.
    pub const ALLOW: u32 = 2;
}

/// The rate of one source, as the generic cell rate algorithm (ITU-T I.371), which is a token bucket
/// that needs one number of state: when the bucket will be full again. Of datagrams each CPU has one,
/// of connections all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds in which one token comes.
    pub interval_ns: u64,
    /// Nanoseconds in which the whole bucket fills, less one token.
    pub burst_ns: u64,
}

impl Rate {
    /// Takes one token at `now_ns` from a bucket that is full at `full_at_ns`. Returns when it
    /// will be full again, or `None` when it is empty.
    #[inline(always)]
    #[must_use]
    pub const fn take(&self, full_at_ns: u64, now_ns: u64) -> Option<u64> {
        let from_ns = if full_at_ns > now_ns { full_at_ns } else { now_ns };
        if from_ns - now_ns > self.burst_ns { None } else { Some(from_ns + self.interval_ns) }
    }
}

/// New sources of one CPU in the current second, of datagrams or of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NewSources {
    /// When the second began.
    pub since_ns: u64,
    /// Sources remembered in it.
    pub count: u64,
}

/// Packets and bytes of one reason on one CPU. Bytes are those of the frame's linear part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Signing keys, open-addressed: the kernel's own hash map costs as much as half of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct KeyTable([KeySlot; KEY_SLOTS]);

#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct KeySlot {
    index: u32,
    used: u32,
    k0: u64,
    k1: u64,
}

impl core::fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A key must never reach a log.
        f.write_str("KeySlot(..)")
    }
}

impl KeyTable {
    /// Adds a key, or replaces it; false if the slots near its home are taken.
    #[must_use]
    pub fn insert(&mut self, issuer: Issuer, key_id: KeyId, key: SipKey) -> bool {
        let index = key_index(issuer.0, key_id.0);
        for probe in 0..KEY_PROBES {
            let slot = &mut self.0[key_slot(index, probe)];
            if slot.used == 0 || slot.index == index {
                *slot = KeySlot { index, used: 1, k0: key.k0, k1: key.k1 };
                return true;
            }
        }
        false
    }

    /// The key of the impression whose id begins with this word (issuer, key, issued-at).
    #[inline(always)]
    #[must_use]
    pub fn find(&self, id_word: u64) -> Option<SipKey> {
        let index = id_word as u32;
        for probe in 0..KEY_PROBES {
            let slot = &self.0[key_slot(index, probe)];
            if slot.used == 0 {
                return None;
            }
            if slot.index == index {
                return Some(SipKey { k0: slot.k0, k1: slot.k1 });
            }
        }
        None
    }
}

/// A key's number: the lower half of the first word of the ids it signs.
const fn key_index(issuer: u16, key: u16) -> u32 {
    issuer as u32 | (key as u32) << 16
}

#[inline(always)]
const fn key_slot(index: u32, probe: usize) -> usize {
    let home = (index.wrapping_mul(0x9e37_79b9) >> (u32::BITS - KEY_SLOTS.ilog2())) as usize;
    (home + probe) & (KEY_SLOTS - 1)
}

/// The name of the XDP program in the object.
pub const XDP_PROGRAM: &str = "weir";
/// The name of the reuseport program in the object.
pub const REUSEPORT_PROGRAM: &str = "weir_reuseport";
/// The name of the program that drops everything, against which the benchmark measures.
pub const NULL_PROGRAM: &str = "weir_null";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Policy as _;

    #[test]
    fn an_empty_policy_has_nothing_not_even_the_zero_address() {
        let policy = Policy::empty();
        assert!(!policy.has_v4([0; 4]) && !policy.has_v6([0; 16]) && !policy.has_port(0));
        assert!(!policy.limits_syns_to(0));
        assert_eq!(policy.owner_cpu(Shard(5)), NO_CPU);
    }

    #[test]
    fn the_last_address_of_a_full_list_is_found() {
        let mut policy = Policy::empty();
        for i in 0..MAX_ADDRESSES as u8 {
            policy.v4[i as usize] = [10, 0, 0, i];
            policy.v6[i as usize][15] = i;
        }
        (policy.v4_count, policy.v6_count) = (MAX_ADDRESSES as u32, MAX_ADDRESSES as u32);
        assert!(policy.has_v4([10, 0, 0, 15]) && !policy.has_v4([10, 0, 0, 16]));
        let last = policy.v6[15];
        assert!(policy.has_v6(last) && !policy.has_v6([1; 16]));
    }

    #[test]
    fn a_bitmap_has_what_was_set_and_nothing_else() {
        let mut policy = Policy::empty();
        for index in [0, 63, 64, 8899, u16::MAX] {
            policy.ports.set(index);
        }
        let found: std::vec::Vec<u16> = (0..=u16::MAX).filter(|&index| policy.ports.has(index)).collect();
        assert_eq!(found, [0, 63, 64, 8899, u16::MAX]);
    }

    #[test]
    fn a_full_key_table_finds_each_key_and_no_other() {
        let mut keys = Policy::empty().keys;
        let numbers = (0..MAX_KEYS as u16).map(|i| (Issuer(i / 2), KeyId(i % 2)));
        for (issuer, key_id) in numbers.clone() {
            let key = SipKey { k0: u64::from(issuer.0), k1: u64::from(key_id.0) };
            assert!(keys.insert(issuer, key_id, key));
        }
        for (issuer, key_id) in numbers {
            let id = crate::id::ImpressionId::issued(issuer, key_id, u32::MAX, 0);
            let found = keys.find(id.words()[0]).unwrap();
            assert_eq!((found.k0, found.k1), (u64::from(issuer.0), u64::from(key_id.0)));
        }
        assert!(keys.find(u64::from(key_index(9999, 0))).is_none());
        assert!(!std::format!("{keys:?}").contains("k0"));
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let rate = Rate { interval_ns: 10, burst_ns: 20 };
        let mut full_at_ns = 0;
        let mut takes = |now_ns: u64| {
            let taken = rate.take(full_at_ns, now_ns);
            full_at_ns = taken.unwrap_or(full_at_ns);
            taken.is_some()
        };
        // A burst of three at once, then one in ten nanoseconds.
        assert_eq!([takes(100), takes(100), takes(100), takes(100)], [true, true, true, false]);
        assert_eq!([takes(109), takes(110), takes(111), takes(120)], [false, true, false, true]);
        // A long silence fills the bucket, and not more than that.
        assert_eq!([takes(1000), takes(1000), takes(1000), takes(1000)], [true, true, true, false]);
    }
}
