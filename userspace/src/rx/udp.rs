//! UDP sockets: one for each worker and address, in one `SO_REUSEPORT` group an address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} UDP {address}: {source}; {remedy}")]
pub struct SocketError {
    operation: &'static str,
    address: SocketAddr,
    source: io::Error,
    remedy: &'static str,
}

/// Opens the sockets of one address, one a worker, in worker order: the order in which they join
/// the group is the order in which the kernel numbers them.
///
/// # Errors
/// Names the step, the address and what to do.
pub fn open_group(address: SocketAddr, workers: usize) -> Result<Vec<Socket>, SocketError> {
    (0..workers).map(|_| open(address)).collect()
}

/// Gives a socket of this address a receive buffer of so many bytes, or as many as the system allows.
///
/// # Errors
/// Names the address and what to do.
pub fn resize(socket: &Socket, address: SocketAddr, buffer_bytes: usize) -> Result<(), SocketError> {
    set_receive_buffer(socket, buffer_bytes).map_err(|source| SocketError {
        operation: "size the receive buffer of",
        address,
        source,
        remedy: "lower `rx.udp.socket_buffer`",
    })
}

fn open(address: SocketAddr) -> Result<Socket, SocketError> {
    let at = |operation, remedy| move |source| SocketError { operation, address, source, remedy };
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
        .map_err(at("open a socket for", "raise the limit on open files"))?;
    let tuning = "this kernel is older than Weir supports";
    if address.is_ipv6() {
        // IPv4 has sockets of its own; a dual-stack socket would be in the way of both.
        socket.set_only_v6(true).map_err(at("set IPV6_V6ONLY on", tuning))?;
    }
    socket.set_reuse_port(true).map_err(at("set SO_REUSEPORT on", tuning))?;
    set_flag(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL).map_err(at("set SO_RXQ_OVFL on", tuning))?;
    let (level, name) = match address.ip() {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    set_flag(&socket, level, name).map_err(at("ask for destination addresses on", tuning))?;
    socket
        .bind(&address.into())
        .map_err(at("bind", "see `ss -ulnp` for who holds the port, and that the address is on this host"))?;
    Ok(socket)
}

/// Asks for a receive buffer past the system's limit, and failing that (no `CAP_NET_ADMIN`) up to it.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let bytes_c = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes_c).is_ok() {
        return Ok(());
    }
    socket.set_recv_buffer_size(bytes)?;
    // The kernel doubles the value for its own bookkeeping and caps it silently.
    let granted = socket.recv_buffer_size()? / 2;
    if granted < bytes {
        tracing::warn!(
            asked_bytes = bytes,
            granted_bytes = granted,
            "the socket buffer is smaller than asked; raise net.core.rmem_max"
        );
    }
    Ok(())
}

fn set_flag(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    set_option(socket, level, name, 1)
}

fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives across the call and `len` is its size; the kernel copies it. Needed
    // because socket2 has no setter for these options.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Words of `SO_MEMINFO` (Linux 4.12): nine counters, the drops last.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_DROPS: usize = 8;
/// `SO_MEMINFO` of `asm-generic/socket.h`; the libc crate does not name it.
const SO_MEMINFO: libc::c_int = 55;

/// Datagrams this socket has dropped since it was opened, modulo 2^32: the number that
/// `SO_RXQ_OVFL` reports, to be had also when no further datagram arrives to carry it.
#[must_use]
pub fn socket_drops(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `words`, which outlives the call; any
    // bit pattern is a valid u32. Needed because socket2 has no getter for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    (result == 0 && len as usize == size_of_val(&words)).then_some(words[MEMINFO_DROPS])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn loopback(address: &str) -> SocketAddr {
        address.parse().expect("address")
    }

    #[test]
    fn the_sockets_of_a_group_share_one_port() {
        let first = open(loopback("127.0.0.1:0")).expect("first");
        let address = first.local_addr().expect("address").as_socket().expect("inet");
        let group = open_group(address, 3).expect("group");
        assert_eq!(group.len(), 3);
    }

    #[test]
    fn a_taken_port_is_named_with_its_remedy() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address");
        let error = open_group(address, 1).expect_err("the port is taken").to_string();
        assert!(
            error.starts_with(&format!("cannot bind UDP {address}:")) && error.contains("ss -ulnp"),
            "{error}"
        );
    }

    #[test]
    fn drops_of_a_full_socket_are_counted_to_the_unit() {
        let socket = open(loopback("127.0.0.1:0")).expect("socket");
        let address = socket.local_addr().expect("address").as_socket().expect("inet");
        resize(&socket, address, 4096).expect("buffer");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        const SENT: u32 = 200;
        for _ in 0..SENT {
            client.send_to(&[0; 1000], address).expect("send");
        }
        socket.set_nonblocking(true).expect("nonblocking");
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2000];
        let mut read = 0;
        while socket.recv(&mut buffer).is_ok() {
            read += 1;
        }
        assert!(read > 0 && read < SENT);
        assert_eq!(socket_drops(socket.as_fd()), Some(SENT - read));
    }
}
