//! Multishot `recvmsg`: one request, many datagrams (Linux 6.0).
//!
//! Each filled buffer holds the kernel's framing and then the payload: `io_uring_recvmsg_out`,
//! [`NAME_LEN`] bytes for the sender's address, [`CONTROL_LEN`] bytes of control messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::RecvMsgOut;
use io_uring::{opcode, squeue, types};

use super::provided::GROUP;
use super::token::Token;
use super::{BufferId, ReceiverId};

/// Room for a `sockaddr_in6` (28 bytes), rounded up to keep what follows aligned.
const NAME_LEN: usize = 32;
/// Room for `SO_RXQ_OVFL` (24 bytes) and `IPV6_PKTINFO` (40 bytes) with their headers.
const CONTROL_LEN: usize = 64;
/// Bytes of `struct cmsghdr`: length, level, type.
const CONTROL_HEADER_LEN: usize = 16;

/// A socket with its armed request.
pub(super) struct Receiver {
    socket: OwnedFd,
    // Boxed: the kernel reads it while the request lives, so it must not move.
    header: Box<libc::msghdr>,
}

impl Receiver {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, header: Box::new(framing()) }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn entry(&self, token: Token) -> squeue::Entry {
        opcode::RecvMsgMulti::new(types::Fd(self.raw_fd()), &raw const *self.header, GROUP)
            .build()
            .user_data(token.user_data())
    }
}

/// The lengths that shape every filled buffer.
fn framing() -> libc::msghdr {
    // SAFETY: `msghdr` is a plain C struct of integers and pointers; all-zero is valid. It has
    // private padding on some targets, so it cannot be written as a literal.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_LEN as libc::socklen_t;
    header.msg_controllen = CONTROL_LEN;
    header
}

/// Who sent a datagram, and which of our addresses it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The sender.
    pub address: SocketAddr,
    /// Our address, to answer from: an Anycast node has several.
    pub local: Option<IpAddr>,
    /// The socket it came in on.
    pub receiver: ReceiverId,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// Our address.
    pub local: Option<IpAddr>,
    /// The payload; cut when [`Datagram::truncated`].
    pub payload: &'a [u8],
    /// The payload was longer than a buffer.
    pub truncated: bool,
    /// Datagrams the socket has dropped so far for want of room (`SO_RXQ_OVFL`, modulo 2^32).
    pub socket_drops: Option<u32>,
}

impl<'a> Datagram<'a> {
    pub(super) fn parse(buffer: &'a [u8]) -> Option<Self> {
        // `parse` needs only the two lengths of the header.
        let framed = RecvMsgOut::parse(buffer, &framing()).ok()?;
        let truncated = framed.is_payload_truncated();
        let from = read_address(buffer.get(RECVMSG_OUT_LEN..RECVMSG_OUT_LEN + framed.name_data().len())?)?;
        let controls = RECVMSG_OUT_LEN + NAME_LEN;
        let control = buffer.get(controls..controls + framed.control_data().len())?;
        let start = controls + CONTROL_LEN;
        let payload = buffer.get(start..start + framed.payload_data().len())?;
        let (local, socket_drops) = read_control(control);
        Some(Self { from, local, payload, truncated, socket_drops })
    }

    /// Where an answer goes.
    #[must_use]
    pub fn peer(&self, receiver: ReceiverId) -> Peer {
        Peer { address: self.from, local: self.local, receiver }
    }
}

/// Bytes of `struct io_uring_recvmsg_out`: four 32-bit numbers.
const RECVMSG_OUT_LEN: usize = 16;
const _: () = assert!(
    super::provided::BUFFER_LEN - RECVMSG_OUT_LEN - NAME_LEN - CONTROL_LEN > weir_common::wire::MAX_PAYLOAD
);
// A buffer id is all that names a buffer; it must stay as cheap as the number in it.
const _: () = assert!(size_of::<BufferId>() == 2);

/// Reads a `sockaddr_in` or `sockaddr_in6`.
fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port)))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope)))
        }
        _ => None,
    }
}

/// Finds our address and the drop counter among the control messages.
fn read_control(mut rest: &[u8]) -> (Option<IpAddr>, Option<u32>) {
    let (mut local, mut drops) = (None, None);
    // Two kinds of message are switched on; the bound only guards against a kernel gone mad.
    for _ in 0..4 {
        let Some(header) = rest.first_chunk::<CONTROL_HEADER_LEN>() else { break };
        let [l0, l1, l2, l3, l4, l5, l6, l7, v0, v1, v2, v3, t0, t1, t2, t3] = *header;
        let len = usize::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let Some(data) = rest.get(CONTROL_HEADER_LEN..len) else { break };
        match (i32::from_ne_bytes([v0, v1, v2, v3]), i32::from_ne_bytes([t0, t1, t2, t3])) {
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                drops = data.first_chunk().map(|b| u32::from_ne_bytes(*b))
            }
            // `in_pktinfo`: interface index, local address, destination address.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                local = data.get(8..12).and_then(|b| b.first_chunk::<4>()).map(|b| IpAddr::from(*b));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                local = data.first_chunk::<16>().map(|b| IpAddr::from(*b));
            }
            _ => {}
        }
        let Some(after) = rest.get(len.next_multiple_of(size_of::<usize>())..) else { break };
        rest = after;
    }
    (local, drops)
}
