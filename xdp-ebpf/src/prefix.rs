//! Denied and allowed prefixes, behind a bitmap that answers for most sources.

use aya_ebpf::btf_maps::lpm_trie::Key;
use weir_common::maps::{self, Policy, policy_flags, prefix_action};
use weir_common::packet::{Family, Sender, Source};
use weir_common::reason::Reason;

use crate::frame::Frame;
use crate::maps::{PREFIXES_V4, PREFIXES_V6};

/// Whether the source is allowed by name, and so without a rate.
///
/// The longest prefix decides: a denied network may have allowed hosts, and the reverse.
///
/// # Errors
/// [`Reason::DeniedSource`].
#[inline(always)]
pub(crate) fn allows(frame: &Frame, policy: &Policy, sender: Sender) -> Result<bool, Reason> {
    if !policy.is(policy_flags::PREFIXES) {
        return Ok(false);
    }
    let action = match sender.family {
        Family::V4 => v4_action(frame, policy, sender),
        Family::V6 => v6_action(frame, policy, sender),
    };
    match action {
        Some(prefix_action::DENY) => Err(Reason::DeniedSource),
        Some(prefix_action::ALLOW) => Ok(true),
        _ => Ok(false),
    }
}

#[inline(always)]
fn v4_action(frame: &Frame, policy: &Policy, sender: Sender) -> Option<u32> {
    let address = frame.read::<4>(sender.address_offset())?;
    if !policy.v4_touched.has(maps::v4_bucket(address)) {
        return None;
    }
    PREFIXES_V4.get(policy.prefix_slot)?.get(&Key::new(32, address)).copied()
}

#[inline(always)]
fn v6_action(frame: &Frame, policy: &Policy, sender: Sender) -> Option<u32> {
    let address = frame.read::<16>(sender.address_offset())?;
    if !policy.v6_touched.has(maps::v6_bucket(address)) {
        return None;
    }
    PREFIXES_V6.get(policy.prefix_slot)?.get(&Key::new(128, address)).copied()
}
