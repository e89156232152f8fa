//! The maps and the load-time switches. Layouts and bounds stand in `weir_common::maps`.

use core::ptr::{from_ref, read_volatile};

use aya_ebpf::bindings::BPF_F_NO_COMMON_LRU;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, CpuMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, ReusePortSockArray,
};
use aya_ebpf::macros::btf_map;
use weir_common::id::SHARDS;
use weir_common::maps::{FrameCounter, MAX_CPUS, MAX_SOCKETS, MAX_SOURCES, NewSources, PREFIX_SLOTS, Policy};
use weir_common::reason::REASON_SLOTS;

/// The policy, behind one pointer that the loader swaps.
#[btf_map]
static POLICY: ArrayOfMaps<Array<Policy, 1>, 1> = ArrayOfMaps::new();

/// Packets and bytes by reason number.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<FrameCounter, REASON_SLOTS> = PerCpuArray::new();

/// Denied and allowed IPv4 prefixes; the policy names its slot.
#[btf_map]
pub(crate) static PREFIXES_V4: ArrayOfMaps<LpmTrie<[u8; 4], u32, 1>, { PREFIX_SLOTS as usize }> =
    ArrayOfMaps::new();

/// Denied and allowed IPv6 prefixes; the policy names its slot.
#[btf_map]
pub(crate) static PREFIXES_V6: ArrayOfMaps<LpmTrie<[u8; 16], u32, 1>, { PREFIX_SLOTS as usize }> =
    ArrayOfMaps::new();

/// When each source's bucket is full again, in ns of the kernel's coarse monotonic clock.
#[btf_map]
pub(crate) static SOURCES: LruPerCpuHashMap<
    u64,
    u64,
    { MAX_SOURCES as usize },
    { BPF_F_NO_COMMON_LRU as usize },
> = LruPerCpuHashMap::new();

/// When each source's bucket of connections is full again, in ns of the same clock. One for all CPUs,
/// and one list of the least recently seen: whichever CPUs meet new sources have all of the room.
#[btf_map]
pub(crate) static SYN_SOURCES: LruHashMap<u64, u64, { MAX_SOURCES as usize }> = LruHashMap::new();

/// How fast this CPU meets new sources: of datagrams, then of connections.
#[btf_map]
pub(crate) static NEW_SOURCES: PerCpuArray<NewSources, 2> = PerCpuArray::new();
/// A place in [`NEW_SOURCES`].
pub(crate) const NEW_OF_DATAGRAMS: u32 = 0;
/// As [`NEW_OF_DATAGRAMS`].
pub(crate) const NEW_OF_SYNS: u32 = 1;

/// Queues to other CPUs.
#[btf_map]
pub(crate) static CPUS: CpuMap<{ MAX_CPUS as usize }> = CpuMap::new();

/// The workers' sockets.
#[btf_map]
pub(crate) static SOCKETS: ReusePortSockArray<{ MAX_SOCKETS as usize }> = ReusePortSockArray::new();

/// The worker that owns each shard.
#[btf_map]
pub(crate) static SHARD_WORKER: Array<[u16; SHARDS], 1> = Array::new();

/// Set by the loader before the verifier sees the program, which then prunes what is off.
#[unsafe(no_mangle)]
static VERIFY_FIRST: u8 = 0;

/// As [`VERIFY_FIRST`].
#[unsafe(no_mangle)]
static STRIP_VLAN: u8 = 0;

#[inline(always)]
pub(crate) fn policy() -> Option<&'static Policy> {
    POLICY.get_value(0, &0)
}

/// Whether the tag of a datagram's first click is checked.
#[inline(always)]
pub(crate) fn verifies_first() -> bool {
    is_on(&VERIFY_FIRST)
}

/// Whether VLAN tags of our own packets are removed.
#[inline(always)]
pub(crate) fn strips_vlan() -> bool {
    is_on(&STRIP_VLAN)
}

#[inline(always)]
fn is_on(switch: &'static u8) -> bool {
    // SAFETY: a plain read of a static. Volatile, because the loader changes the value in the
    // object and the compiler must not fold the initial one.
    unsafe { read_volatile(from_ref(switch)) != 0 }
}
