//! Brings a datagram to the CPU that owns its shard.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use weir_common::maps::{NO_CPU, Policy};
use weir_common::packet::Clicks;
use weir_common::reason::Reason;

use crate::frame::Frame;
use crate::maps::CPUS;
use crate::{verdict, vlan};

/// Delivers a datagram here, or to its owner's CPU. It is never dropped: where steering fails,
/// the workers' hand-off does the rest.
#[inline(always)]
pub(crate) fn deliver(frame: &Frame, policy: &Policy, clicks: &Clicks) -> u32 {
    let (action, reason) = route(policy, clicks);
    verdict::count(frame, reason);
    vlan::strip(frame, clicks);
    action
}

#[inline(always)]
fn route(policy: &Policy, clicks: &Clicks) -> (u32, Reason) {
    let Some(shard) = clicks.shard() else { return (XDP_PASS, Reason::Local) };
    let owner = policy.owner_cpu(shard);
    // SAFETY: a helper call without arguments.
    let here = unsafe { bpf_get_smp_processor_id() };
    if owner == NO_CPU || u32::from(owner) == here {
        return (XDP_PASS, Reason::Local);
    }
    // The flags' low bits are the action if there is no queue to that CPU (kernel 5.2).
    match CPUS.redirect(u32::from(owner), u64::from(XDP_PASS)) {
        Ok(action) => (action, Reason::Steered),
        Err(_) => (XDP_PASS, Reason::SteerFailed),
    }
}
