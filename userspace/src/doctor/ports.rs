//! The ports the config names: free here, or held by the node that runs.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::Condition;
use super::finding::{Finding, Unread, Verdict};
use super::node::Holder;
use crate::config::Config;

/// A place where the node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    address: SocketAddr,
    is_udp: bool,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_udp { "udp" } else { "tcp" }, self.address)
    }
}

/// Every place, in the order of the config.
fn of(config: &Config) -> Vec<Port> {
    let udp = config
        .udp
        .addresses
        .iter()
        .map(|&ip| Port { address: SocketAddr::new(ip, config.udp.port), is_udp: true });
    let tcp = config.http.listeners().map(|(address, _)| address).chain(config.metrics.listen);
    udp.chain(tcp.map(|address| Port { address, is_udp: false })).collect()
}

/// Binds a socket of its own there, and closes it. It never listens, and takes no port from who has it.
fn bind(port: Port) -> io::Result<()> {
    let Port { address, is_udp } = port;
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let (kind, protocol) = if is_udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if !is_udp {
        // Connections of a node that ended a moment ago are in nobody's way.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())
}

/// Everything that there is to say of the ports.
pub(super) fn examine(config: &Config, holder: Holder) -> Vec<Finding> {
    let judged = |port: Port| judge_port(&bind(port), holder).of(Condition::Ports, Some(port.to_string()));
    of(config).into_iter().map(judged).collect()
}

fn judge_port(bound: &io::Result<()>, holder: Holder) -> Verdict {
    let required = if holder == Holder::Node { "held by the node" } else { "free" };
    let Err(error) = bound else {
        return match holder {
            // It holds what its own config says, which may be older than this one.
            Holder::Node => Verdict::note(required, "free, while the node runs")
                .fix("The running node listens elsewhere: restart it if the config has changed."),
            Holder::Other | Holder::Unknown => Verdict::ok(required, "free"),
        };
    };
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => match holder {
            Holder::Node => Verdict::ok(required, "held, while the node runs"),
            Holder::Other => Verdict::fatal(required, "held by another process"),
            Holder::Unknown => {
                let why = "held, and the node may not be asked whether it is the holder";
                Verdict::unknown(required, &Unread(why.to_owned()))
                    .fix("Ask as the user that the node runs as.")
            }
        },
        Some(Errno::ADDRNOTAVAIL) => Verdict::fatal(required, "this host does not have the address")
            .fix("Bring the address up, or correct the config."),
        Some(Errno::ACCESS) => Verdict::fatal(required, "ports below 1024 take a privilege")
            .fix("Give the node CAP_NET_BIND_SERVICE."),
        _ => Verdict::fatal(required, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown};
    use super::*;

    #[test]
    fn a_port_is_free_or_the_nodes_own_or_in_the_way() {
        let refused = |errno: Errno| Err(io::Error::from(errno));
        for (bound, absent, running, hidden) in [
            (Ok(()), Fine, Note, Fine),
            (refused(Errno::ADDRINUSE), Fatal, Fine, Unknown),
            (refused(Errno::ADDRNOTAVAIL), Fatal, Fatal, Fatal),
            (refused(Errno::ACCESS), Fatal, Fatal, Fatal),
            (refused(Errno::NOMEM), Fatal, Fatal, Fatal),
        ] {
            assert_eq!(judge_port(&bound, Holder::Other).severity, absent, "{bound:?}");
            assert_eq!(judge_port(&bound, Holder::Node).severity, running, "{bound:?}");
            assert_eq!(judge_port(&bound, Holder::Unknown).severity, hidden, "{bound:?}");
        }
    }

    #[test]
    fn a_port_that_is_held_is_found_and_a_free_one_stays_free() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let ports = [
            Port { address: udp.local_addr().expect("an address"), is_udp: true },
            Port { address: tcp.local_addr().expect("an address"), is_udp: false },
        ];
        for port in ports {
            assert_eq!(bind(port).expect_err("held").kind(), io::ErrorKind::AddrInUse, "{port}");
        }
        drop((udp, tcp));
        for port in ports {
            bind(port).and_then(|()| bind(port)).unwrap_or_else(|error| panic!("{port}: {error}"));
        }
    }

    #[test]
    fn every_port_of_a_config_is_looked_at() {
        let text =
            "[rx.udp]\nport = 1\naddresses = [\"127.0.0.1\"]\n[rx.http]\nport = 2\naddresses = [\"::1\"]\n";
        let ports: Vec<_> =
            of(&Config::parse(text).expect("a config")).iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["udp 127.0.0.1:1", "tcp [::1]:2", "tcp 127.0.0.1:9464"]);
    }
}
