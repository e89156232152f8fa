//! A token bucket for each source, on each CPU apart.
//!
//! A flood from spoofed sources must not turn the table into a churn that costs more than the
//! packets do: above a number of new sources in a second a CPU remembers no further ones, and
//! their packets are not limited. Sources that are remembered stay limited.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use weir_common::maps::{Policy, policy_flags};
use weir_common::packet::{Clicks, Family, Source};
use weir_common::reason::Reason;

use crate::frame::Frame;
use crate::maps::{NEW_SOURCES, SOURCES};
use crate::verdict;

const SECOND_NS: u64 = 1_000_000_000;
/// The upper half of an IPv4 source's key: as an IPv6 prefix it would be multicast, which no
/// source has.
const V4_MARK: u64 = 0xffff_ffff << 32;

/// Takes a token of the packet's source.
///
/// # Errors
/// [`Reason::RateLimited`].
#[inline(always)]
pub(crate) fn check(frame: &Frame, policy: &Policy, clicks: &Clicks) -> Result<(), Reason> {
    if !policy.is(policy_flags::RATE) {
        return Ok(());
    }
    let Some(source) = source(frame, clicks) else { return Ok(()) };
    // The coarse clock (kernel 5.11) ticks every 1 to 10 ms and costs a few loads; the precise
    // one costs as much as the rest of this program.
    // SAFETY: a helper call without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(full_at_ns) = SOURCES.get_ptr_mut(source) else {
        remember(frame, policy, source, now_ns);
        return Ok(());
    };
    // SAFETY: the pointer comes from the map and is checked; the value is this CPU's own. An
    // eviction by this CPU cannot come between, by another it can at worst let a packet through.
    let full_at_ns = unsafe { &mut *full_at_ns };
    *full_at_ns = policy.rate.take(*full_at_ns, now_ns).ok_or(Reason::RateLimited)?;
    Ok(())
}

/// The rate's key: an IPv4 address, or an IPv6 /64, which is what one host has.
#[inline(always)]
fn source(frame: &Frame, clicks: &Clicks) -> Option<u64> {
    Some(match clicks.family {
        Family::V4 => V4_MARK | u64::from(u32::from_le_bytes(frame.read::<4>(clicks.source_offset())?)),
        Family::V6 => u64::from_be_bytes(frame.read::<8>(clicks.source_offset())?),
    })
}

/// Starts a bucket for a source, unless too many came in this second.
#[inline(always)]
fn remember(frame: &Frame, policy: &Policy, source: u64, now_ns: u64) {
    let Some(new) = NEW_SOURCES.get_ptr_mut(0) else { return };
    // SAFETY: the pointer comes from the map and is checked; the slot is this CPU's own.
    let new = unsafe { &mut *new };
    if now_ns - new.since_ns >= SECOND_NS {
        new.since_ns = now_ns;
        new.count = 0;
    }
    if new.count >= policy.new_sources_per_s {
        verdict::count(frame, Reason::FloodBypass);
        return;
    }
    new.count += 1;
    // A failed insert leaves the source without a bucket: it is tried again at its next packet.
    let _ = SOURCES.insert(source, now_ns + policy.rate.interval_ns, u64::from(BPF_ANY));
}
