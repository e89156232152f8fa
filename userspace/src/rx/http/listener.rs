//! Listening sockets: one for each worker and address, in one `SO_REUSEPORT` group an address.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds until they are accepted; it takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} TCP {address}: {source}; {remedy}")]
pub struct ListenError {
    operation: &'static str,
    address: SocketAddr,
    source: io::Error,
    remedy: &'static str,
}

/// Opens the listeners of one address, one a worker.
///
/// # Errors
/// Names the step, the address and what to do.
pub fn open_group(address: SocketAddr, workers: usize) -> Result<Vec<Socket>, ListenError> {
    (0..workers).map(|_| open(address)).collect()
}

fn open(address: SocketAddr) -> Result<Socket, ListenError> {
    let at = |operation, remedy| move |source| ListenError { operation, address, source, remedy };
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
        .map_err(at("open a socket for", "raise the limit on open files"))?;
    let tuning = "this kernel is older than Weir supports";
    if address.is_ipv6() {
        // IPv4 has sockets of its own; a dual-stack socket would be in the way of both.
        socket.set_only_v6(true).map_err(at("set IPV6_V6ONLY on", tuning))?;
    }
    // A restart must not wait for connections of the last run that linger.
    socket.set_reuse_address(true).map_err(at("set SO_REUSEADDR on", tuning))?;
    socket.set_reuse_port(true).map_err(at("set SO_REUSEPORT on", tuning))?;
    // Accepted connections inherit it: a response is sent whole, so nothing is gained by waiting.
    socket.set_tcp_nodelay(true).map_err(at("set TCP_NODELAY on", tuning))?;
    socket
        .bind(&address.into())
        .map_err(at("bind", "see `ss -tlnp` for who holds the port, and that the address is on this host"))?;
    socket.listen(BACKLOG).map_err(at("listen on", tuning))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_listeners_of_a_group_share_one_port() {
        let first = open("127.0.0.1:0".parse().unwrap()).expect("first");
        let address = first.local_addr().expect("address").as_socket().expect("inet");
        assert_eq!(open_group(address, 3).expect("group").len(), 3);
    }

    #[test]
    fn a_taken_port_is_named_with_its_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address");
        let error = open_group(address, 1).expect_err("the port is taken").to_string();
        assert!(
            error.starts_with(&format!("cannot bind TCP {address}:")) && error.contains("ss -tlnp"),
            "{error}"
        );
    }
}
