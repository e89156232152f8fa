//! Counts a decision and turns it into an XDP action.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use weir_common::maps::{Policy, policy_flags};
use weir_common::packet::Source;
use weir_common::reason::Reason;

use crate::frame::Frame;
use crate::maps::COUNTERS;

/// Not ours: the kernel gets it.
#[inline(always)]
pub(crate) fn pass(frame: &Frame, reason: Reason) -> u32 {
    count(frame, reason);
    XDP_PASS
}

/// Ours, and to be dropped if the policy enforces.
#[inline(always)]
pub(crate) fn refuse(frame: &Frame, policy: &Policy, reason: Reason) -> u32 {
    count(frame, reason);
    #[cfg(feature = "trace")]
    trace(frame, reason);
    if policy.is(policy_flags::ENFORCE) {
        return XDP_DROP;
    }
    count(frame, Reason::Shadowed);
    XDP_PASS
}

/// Says of one frame that it was refused and why. Each record takes the ring buffer's lock, which
/// all CPUs share: hence only where the feature is on.
#[cfg(feature = "trace")]
fn trace(frame: &Frame, reason: Reason) {
    aya_log_ebpf::info!(frame, "refused: reason {}, {} linear bytes", reason as u8, frame.linear_len());
}

/// Counts this frame for `reason` on this CPU.
#[inline(always)]
pub(crate) fn count(frame: &Frame, reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        let bytes = frame.linear_len() as u64;
        // SAFETY: the pointer comes from the map and is checked. The slot is this CPU's own and
        // XDP programs do not interrupt each other on one CPU, so the reference is the only one.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes;
    }
}
