//! A packet socket (packet(7)): whole Ethernet frames, as they are, out of one interface.
//!
//! Holds this crate's `unsafe` for it, and nothing else: no safe crate in use can name a link layer
//! address. It sends only; bound to protocol 0 it receives nothing.

use std::io;

use anyhow::Context as _;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// A socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    mac: [u8; 6],
}

impl PacketSocket {
    /// Opens a socket on an interface of this network namespace. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// No such interface, or no permission.
    pub fn open(interface: &str) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)
            .context("no packet socket: raw frames need CAP_NET_RAW (run as root)")?;
        let any: socket2::Socket =
            Socket::new(Domain::IPV4, Type::DGRAM, None).context("no socket to ask for the interface")?;
        let index = rustix::net::netdevice::name_to_index(&any, interface)
            .with_context(|| format!("no interface {interface} in this network namespace"))?;
        socket.bind(&link_address(index)).with_context(|| format!("packet socket on {interface}"))?;
        let mac = mac_of(socket.local_addr().context("own link address")?);
        Ok(Self { socket, mac })
    }

    /// The interface's own address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends one frame, link header included.
    ///
    /// # Errors
    /// The kernel did not take it: queue full, interface down, or shorter than a link header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }
}

fn link_address(index: u32) -> SockAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: needed because socket2 knows no link layer addresses. `sockaddr_ll` is one of the types
    // a `sockaddr_storage` is made to hold (packet(7)), smaller and no more aligned than it.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = address;
    // SAFETY: the storage was zeroed and then filled with an address of exactly this length, so all
    // of its bytes are initialised and family and length agree.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) }
}

fn mac_of(address: SockAddr) -> [u8; 6] {
    let mut storage = address.as_storage();
    // SAFETY: the address comes from getsockname(2) on a packet socket, which fills in a
    // `sockaddr_ll`; any bytes at all are valid for its integer fields.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    let mut mac = [0; 6];
    mac.copy_from_slice(&address.sll_addr[..6]);
    mac
}
