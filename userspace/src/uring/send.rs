//! Send slots: memory for datagrams on their way out.

use std::net::{IpAddr, SocketAddr};

use io_uring::{opcode, squeue, types};

use super::receive::Peer;
use super::token::{Kind, Token};

/// Bytes a slot can send: one UDP payload.
pub const SLOT_PAYLOAD: usize = weir_common::wire::MAX_PAYLOAD;
/// Room for `IPV6_PKTINFO` with its header, the larger of the two.
const CONTROL_LEN: usize = 40;

/// A slot that was taken and not yet sent. Not `Clone`: sent at most once.
#[derive(Debug, PartialEq, Eq)]
pub struct SlotId(pub(super) u16);

/// What the kernel reads while a send is in flight.
#[repr(C, align(8))]
struct Slot {
    payload: [u8; SLOT_PAYLOAD],
    name: [u8; 32],
    control: [u8; CONTROL_LEN],
    iovec: libc::iovec,
    header: libc::msghdr,
}

/// All slots of a ring; their addresses never change.
pub(super) struct SendSlots {
    slots: Box<[Slot]>,
    free: Vec<u16>,
}

impl SendSlots {
    pub(super) fn new(count: u16) -> Self {
        // SAFETY: a slot is bytes, integers and raw pointers; all-zero is valid for each.
        let slots = (0..count).map(|_| unsafe { std::mem::zeroed::<Slot>() }).collect();
        Self { slots, free: (0..count).rev().collect() }
    }

    pub(super) fn take(&mut self) -> Option<SlotId> {
        self.free.pop().map(SlotId)
    }

    pub(super) fn release(&mut self, slot: SlotId) {
        debug_assert!(self.free.len() < self.slots.len());
        self.free.push(slot.0);
    }

    pub(super) fn payload(&mut self, slot: &SlotId) -> &mut [u8; SLOT_PAYLOAD] {
        &mut self.slots[usize::from(slot.0)].payload
    }

    pub(super) fn entry(&mut self, id: SlotId, len: usize, to: &Peer, fd: types::Fd) -> squeue::Entry {
        let slot = &mut self.slots[usize::from(id.0)];
        let name_len = write_address(&mut slot.name, to.address);
        let control_len = write_source(&mut slot.control, to.local);
        slot.iovec.iov_base = (&raw mut slot.payload).cast();
        slot.iovec.iov_len = len.min(SLOT_PAYLOAD);
        slot.header.msg_name = (&raw mut slot.name).cast();
        slot.header.msg_namelen = name_len as libc::socklen_t;
        slot.header.msg_iov = &raw mut slot.iovec;
        slot.header.msg_iovlen = 1;
        slot.header.msg_control = (&raw mut slot.control).cast();
        slot.header.msg_controllen = control_len;
        // An ack must not block the ring: a full send buffer drops it, and the sender resends.
        opcode::SendMsg::new(fd, &raw const slot.header)
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
            .user_data(Token::new(Kind::Send, u64::from(id.0)).user_data())
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}

/// Writes a `sockaddr_in` or `sockaddr_in6`; returns its length.
fn write_address(name: &mut [u8; 32], address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&v4.port().to_be_bytes());
            name[4..8].copy_from_slice(&v4.ip().octets());
            name[8..16].fill(0);
            16
        }
        SocketAddr::V6(v6) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&v6.port().to_be_bytes());
            name[4..8].fill(0);
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            28
        }
    }
}

/// Writes the control message that makes the kernel answer from `local`; returns its length.
fn write_source(control: &mut [u8; CONTROL_LEN], local: Option<IpAddr>) -> usize {
    let (level, kind, data_len) = match local {
        Some(IpAddr::V4(_)) => (libc::IPPROTO_IP, libc::IP_PKTINFO, 12_usize),
        Some(IpAddr::V6(_)) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20),
        None => return 0,
    };
    control.fill(0);
    control[..8].copy_from_slice(&(16 + data_len).to_ne_bytes());
    control[8..12].copy_from_slice(&level.to_ne_bytes());
    control[12..16].copy_from_slice(&kind.to_ne_bytes());
    match local {
        // `in_pktinfo`: the source address is its second field, `ipi_spec_dst`.
        Some(IpAddr::V4(v4)) => control[20..24].copy_from_slice(&v4.octets()),
        Some(IpAddr::V6(v6)) => control[16..32].copy_from_slice(&v6.octets()),
        None => {}
    }
    (16 + data_len).next_multiple_of(8)
}
