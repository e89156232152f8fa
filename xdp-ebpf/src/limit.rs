//! A token bucket for each source: of datagrams on each CPU apart, of connections over all CPUs.
//!
//! A sender's datagrams are one flow and come to one CPU, so its bucket needs no word with other
//! CPUs. Connections are a flow each and are spread over all of them: a bucket a CPU would allow a
//! source its rate as many times as there are CPUs. So they share one, by compare and exchange,
//! which is paid for a SYN alone.
//!
//! A flood from spoofed sources must not turn a table into a churn that costs more than the
//! packets do: above a number of new sources in a second a CPU remembers no further ones, and
//! their packets are not limited. Sources that are remembered stay limited. The two tables are
//! apart, so that a flood of one kind costs the other no place.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use weir_common::maps::{Policy, policy_flags};
use weir_common::packet::{Family, Sender, Source};
use weir_common::reason::Reason;

use crate::atomic::Shared;
use crate::frame::Frame;
use crate::maps::{NEW_OF_DATAGRAMS, NEW_OF_SYNS, NEW_SOURCES, SOURCES, SYN_SOURCES};
use crate::{prefix, verdict};

const SECOND_NS: u64 = 1_000_000_000;
/// The upper half of an IPv4 source's key: as an IPv6 prefix it would be multicast, which no
/// source has.
const V4_MARK: u64 = 0xffff_ffff << 32;
/// How often a token is tried for that other CPUs take away. Each time one of them has taken a
/// token of the same source in the same few nanoseconds, which only a flood does.
const SYN_TRIES: u32 = 4;

/// Takes a token of the packet's source.
///
/// # Errors
/// [`Reason::RateLimited`].
#[inline(always)]
pub(crate) fn check(frame: &Frame, policy: &Policy, sender: Sender) -> Result<(), Reason> {
    if !policy.is(policy_flags::RATE) {
        return Ok(());
    }
    let Some(source) = source(frame, sender) else { return Ok(()) };
    let now_ns = now_ns();
    let Some(full_at_ns) = SOURCES.get_ptr_mut(source) else {
        if remembers(frame, NEW_OF_DATAGRAMS, policy.new_sources_per_s, now_ns) {
            // A failed insert leaves the source without a bucket: it is tried again at its next
            // packet.
            let _ = SOURCES.insert(source, now_ns + policy.rate.interval_ns, u64::from(BPF_ANY));
        }
        return Ok(());
    };
    // SAFETY: the pointer comes from the map and is checked; the value is this CPU's own. An
    // eviction by this CPU cannot come between, by another it can at worst let a packet through.
    let full_at_ns = unsafe { &mut *full_at_ns };
    *full_at_ns = policy.rate.take(*full_at_ns, now_ns).ok_or(Reason::RateLimited)?;
    Ok(())
}

/// Takes a connection's token of the packet's source, unless its prefix is allowed. Denied
/// prefixes are of datagrams, and a denied source is limited like any other.
///
/// # Errors
/// [`Reason::SynRateLimited`].
#[inline(always)]
pub(crate) fn check_syn(frame: &Frame, policy: &Policy, sender: Sender) -> Result<(), Reason> {
    if matches!(prefix::allows(frame, policy, sender), Ok(true)) {
        return Ok(());
    }
    let Some(source) = source(frame, sender) else { return Ok(()) };
    let now_ns = now_ns();
    for _ in 0..SYN_TRIES {
        let Some(full_at_ns) = SYN_SOURCES.get_ptr_mut(source) else {
            if !remembers(frame, NEW_OF_SYNS, policy.new_syn_sources_per_s, now_ns) {
                return Ok(());
            }
            let first = now_ns + policy.syn_rate.interval_ns;
            match SYN_SOURCES.insert(source, first, u64::from(BPF_NOEXIST)) {
                // Another CPU was first; this packet is charged to the bucket it made.
                Err(EEXIST) => continue,
                // Without room in the table the source is tried again at its next packet.
                _ => return Ok(()),
            }
        };
        // SAFETY: the pointer comes from the map and is checked; a hash map aligns its values to 8
        // bytes, and this one's are used here alone. An eviction that gives the place to another
        // source meanwhile can at worst charge that one with this packet.
        let full_at_ns = unsafe { Shared::new(full_at_ns) };
        let found = full_at_ns.load();
        let next = policy.syn_rate.take(found, now_ns).ok_or(Reason::SynRateLimited)?;
        if full_at_ns.replace(found, next) {
            return Ok(());
        }
    }
    Err(Reason::SynRateLimited)
}

/// What an insert returns for a key that is there (errno-base.h).
const EEXIST: i32 = -17;

/// The kernel's coarse clock (5.11): it ticks every 1 to 10 ms and costs a few loads; the precise
/// one costs as much as the rest of this program.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper call without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The rate's key: an IPv4 address, or an IPv6 /64, which is what one host has.
#[inline(always)]
fn source(frame: &Frame, sender: Sender) -> Option<u64> {
    Some(match sender.family {
        Family::V4 => V4_MARK | u64::from(u32::from_le_bytes(frame.read::<4>(sender.address_offset())?)),
        Family::V6 => u64::from_be_bytes(frame.read::<8>(sender.address_offset())?),
    })
}

/// Whether this CPU remembers a new source, or too many came in this second.
#[inline(always)]
fn remembers(frame: &Frame, table: u32, new_sources_per_s: u64, now_ns: u64) -> bool {
    let Some(new) = NEW_SOURCES.get_ptr_mut(table) else { return false };
    // SAFETY: the pointer comes from the map and is checked; the slot is this CPU's own.
    let new = unsafe { &mut *new };
    if now_ns - new.since_ns >= SECOND_NS {
        new.since_ns = now_ns;
        new.count = 0;
    }
    if new.count >= new_sources_per_s {
        verdict::count(frame, Reason::FloodBypass);
        return false;
    }
    new.count += 1;
    true
}
