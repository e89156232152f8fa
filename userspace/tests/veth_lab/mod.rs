//! What tests on real interfaces share: two network namespaces with a veth pair.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir_common::id::SHARDS;

use crate::xdp_lab::{OUR_PORT, clicks};

/// A network namespace that is gone when this is dropped.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    /// A new namespace; or `None`, having said why the test is skipped.
    pub(crate) fn new() -> Option<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-xdp-{}-{serial}", std::process::id());
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => Some(Self(name)),
            Ok(output) => {
                eprintln!("SKIPPED: `ip netns add` failed: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: `ip` does not start: {error}");
                None
            }
        }
    }

    /// Moves this thread, and what it starts, into the namespace.
    pub(crate) fn enter(&self) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), network).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two namespaces with a veth pair; this thread is in the receiver's.
pub(crate) struct Lab {
    pub(crate) sender: Namespace,
    _receiver: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Option<Self> {
        let (sender, receiver) = (Namespace::new()?, Namespace::new()?);
        receiver.enter();
        ip(&format!("link add w0 type veth peer name w1 netns {}", sender.0));
        ip("addr add 192.0.2.10/24 dev w0");
        ip("addr add 192.0.2.11/24 dev w0");
        ip("link set w0 up");
        ip("link set lo up");
        ip(&format!("-n {} addr add 192.0.2.1/24 dev w1", sender.0));
        ip(&format!("-n {} link set w1 up", sender.0));
        // The lab is about clicks, not about neighbour discovery.
        let mac = ip("-br link show w0");
        let mac = mac.split_whitespace().nth(2).unwrap();
        for address in ["192.0.2.10", "192.0.2.11"] {
            ip(&format!("-n {} neigh replace {address} lladdr {mac} dev w1 nud permanent", sender.0));
        }
        Some(Self { sender, _receiver: receiver })
    }

    /// Runs `work` on a thread in the sender's namespace.
    pub(crate) fn as_sender<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.sender.enter();
                work()
            });
            thread.join().unwrap()
        })
    }
}

/// The sockets of one reuseport group.
pub(crate) fn group(address: &str, count: usize) -> Vec<UdpSocket> {
    let address: std::net::SocketAddr = format!("{address}:{OUR_PORT}").parse().unwrap();
    let socket = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        // Long enough for a loaded machine; a test that waits this long has failed.
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.into()
    };
    (0..count).map(|_| socket()).collect()
}

/// Shards by turns to two workers.
pub(crate) fn by_turns() -> [u16; SHARDS] {
    std::array::from_fn(|shard| (shard % 2) as u16)
}

/// Reads `count` datagrams; returns their shards.
pub(crate) fn shards_received(socket: &UdpSocket, count: usize) -> Vec<u16> {
    let mut buffer = [0; 2048];
    let mut shard = || {
        let len = loop {
            match socket.recv(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.unwrap(),
            }
        };
        assert!(len > 24);
        u16::from_le_bytes([buffer[8], buffer[9]])
    };
    (0..count).map(|_| shard()).collect()
}

pub(crate) fn send_each_shard(address: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for shard in 0..100 {
        socket.send_to(&clicks(1, shard, 10), (address, OUR_PORT)).unwrap();
    }
}
