//! Removes the VLAN tags of our own packets, so that the host needs no VLAN device for them.
//!
//! Safe, because only packets with a sound click header come here: the two MAC addresses move up
//! to the inner type field and the frame's head moves behind the tags. Tags that the NIC or
//! generic XDP took out before are invisible here and stay the kernel's matter.

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use weir_common::packet::{Clicks, Source, VLAN_TAG_LEN};

use crate::frame::Frame;
use crate::maps;

const MACS_LEN: usize = 12;

/// Strips the tags. `frame` is stale afterwards.
#[inline(always)]
pub(crate) fn strip(frame: &Frame, clicks: &Clicks) {
    if !maps::strips_vlan() || clicks.vlan_tags == 0 {
        return;
    }
    let tags_len = clicks.vlan_tags as usize * VLAN_TAG_LEN;
    let Some(macs) = frame.read::<MACS_LEN>(0) else { return };
    if frame.write(tags_len, macs).is_some() {
        // SAFETY: a helper call; `ctx` is this program run's own. It fails only if less than an
        // Ethernet header would remain, and behind the tags there is a whole datagram.
        let _ = unsafe { bpf_xdp_adjust_head(frame.ctx(), tags_len as i32) };
    }
}
