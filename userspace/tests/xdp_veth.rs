//! The XDP program on real interfaces: veth pairs between network namespaces.
//!
//! ```text
//!   namespace "sender"                     namespace "receiver" (this thread)
//!   w1 192.0.2.1/24  ---- veth pair ----   w0 192.0.2.10/24, the program is attached here
//! ```
//!
//! Needs root and `ip` of iproute2; each test says so when it is skipped.

mod xdp_lab;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir::steer::{Mode, Policy, Prefix, Rung, Settings, SteerError, Steering, Switches};
use weir_common::id::SHARDS;
use weir_common::maps::NO_CPU;
use weir_common::reason::Reason;
use xdp_lab::*;

/// A network namespace that is gone when this is dropped.
struct Namespace(String);

impl Namespace {
    /// A new namespace; or `None`, having said why the test is skipped.
    fn new() -> Option<Self> {
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
    fn enter(&self) {
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
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two namespaces with a veth pair; this thread is in the receiver's.
struct Lab {
    sender: Namespace,
    _receiver: Namespace,
}

impl Lab {
    fn new() -> Option<Self> {
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
    fn as_sender<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.sender.enter();
                work()
            });
            thread.join().unwrap()
        })
    }
}

fn settings(mode: Mode, interface: &str, policy: Policy) -> Settings {
    Settings { mode, interface: interface.to_owned(), policy, switches: Switches::default() }
}

/// Attaches; or `None`, having said why the test is skipped.
fn attach(settings: &Settings) -> Option<Steering> {
    load(Switches::default(), &policy())?;
    Some(Steering::attach(settings).unwrap())
}

/// The sockets of one reuseport group.
fn group(address: &str, count: usize) -> Vec<UdpSocket> {
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
fn by_turns() -> [u16; SHARDS] {
    std::array::from_fn(|shard| (shard % 2) as u16)
}

/// Reads `count` datagrams; returns their shards.
fn shards_received(socket: &UdpSocket, count: usize) -> Vec<u16> {
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

fn send_each_shard(address: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for shard in 0..100 {
        socket.send_to(&clicks(1, shard, 10), (address, OUR_PORT)).unwrap();
    }
}

#[test]
fn on_a_veth_the_program_runs_in_the_driver_and_every_datagram_reaches_its_worker() {
    let Some(lab) = Lab::new() else { return };
    let Some(mut steering) = attach(&settings(Mode::Auto, "w0", policy())) else { return };
    assert_eq!(steering.status().rung, Rung::Native, "{:?}", steering.status());
    assert!(ip("link show w0").contains("prog/xdp"));
    let sockets = group("192.0.2.10", 2);
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    assert!(steering.attach_reuseport(false, &borrowed, &by_turns()).unwrap());
    lab.as_sender(|| send_each_shard("192.0.2.10"));
    assert!(shards_received(&sockets[0], 50).iter().all(|shard| shard % 2 == 0));
    assert!(shards_received(&sockets[1], 50).iter().all(|shard| shard % 2 == 1));
    let frames = steering.frames().unwrap();
    assert_eq!(frames.iter().find(|frame| frame.reason == Reason::Local).unwrap().packets, 100);
}

#[test]
fn dropping_the_steering_takes_the_program_off_the_interface() {
    let Some(_lab) = Lab::new() else { return };
    let Some(steering) = attach(&settings(Mode::Native, "w0", policy())) else { return };
    assert!(ip("link show w0").contains("prog/xdp"));
    drop(steering);
    assert!(!ip("link show w0").contains("prog/xdp"));
}

#[test]
fn an_interface_whose_driver_lacks_xdp_gets_the_generic_rung_and_the_reason() {
    let Some(_lab) = Lab::new() else { return };
    let Some(steering) = attach(&settings(Mode::Auto, "lo", policy())) else { return };
    let status = steering.status();
    assert_eq!(status.rung, Rung::Generic);
    assert_eq!(status.misses.iter().map(|miss| miss.rung).collect::<Vec<_>>(), [Rung::Native]);
    assert!(status.misses[0].why.contains("XDP did not attach to `lo`"), "{status:?}");
    let error = Steering::attach(&settings(Mode::Native, "lo", policy())).unwrap_err();
    assert!(matches!(error, SteerError::Attach { .. }), "{error}");
}

#[test]
fn without_the_interface_auto_goes_on_without_xdp_and_native_does_not() {
    let Some(_lab) = Lab::new() else { return };
    let Some(mut steering) = attach(&settings(Mode::Auto, "gone0", policy())) else { return };
    assert_eq!(steering.status().rung, Rung::None);
    assert_eq!(steering.status().misses.len(), 2);
    // The socket chooser does not need the interface.
    let sockets = group("127.0.0.1", 2);
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    assert!(steering.attach_reuseport(false, &borrowed, &by_turns()).unwrap());
    send_each_shard("127.0.0.1");
    assert!(shards_received(&sockets[1], 50).iter().all(|shard| shard % 2 == 1));
    steering.detach_reuseport(borrowed[0]).unwrap();
    assert!(Steering::attach(&settings(Mode::Native, "gone0", policy())).is_err());
}

#[test]
fn without_addresses_listed_the_interfaces_own_take_clicks() {
    let Some(lab) = Lab::new() else { return };
    let own = Policy { addresses: Vec::new(), ..policy() };
    let Some(steering) = attach(&settings(Mode::Auto, "w0", own)) else { return };
    let sockets = group("192.0.2.11", 1);
    lab.as_sender(|| send_each_shard("192.0.2.11"));
    shards_received(&sockets[0], 100);
    let frames = steering.frames().unwrap();
    assert_eq!(frames.iter().find(|frame| frame.reason == Reason::Local).unwrap().packets, 100);
}

/// Under one policy the datagrams' source is denied; under the other their address is not ours,
/// and nothing is denied. A packet that saw one policy's addresses and the other's prefixes would
/// be delivered.
#[test]
fn while_the_policy_is_swapped_each_packet_sees_all_of_one() {
    const SWAPS: usize = 100;
    let Some(lab) = Lab::new() else { return };
    let source: Prefix = "192.0.2.1/32".parse().unwrap();
    let denies = Policy { deny: vec![source], ..policy() };
    let other_address = vec!["192.0.2.11".parse().unwrap()];
    let elsewhere = Policy { addresses: other_address, allow: vec![source], ..policy() };
    let Some(mut steering) = attach(&settings(Mode::Native, "w0", denies.clone())) else { return };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.sender.enter();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let datagram = clicks(1, 0, 0);
            while !done.load(Ordering::Relaxed) {
                let _ = socket.send_to(&datagram, ("192.0.2.10", OUR_PORT));
            }
        });
        for swap in 0..SWAPS {
            steering.set_policy(if swap % 2 == 0 { &elsewhere } else { &denies }).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let met = |reason| steering.frames().unwrap().iter().find(|f| f.reason == reason).unwrap().packets;
    println!("{} denied, {} elsewhere", met(Reason::DeniedSource), met(Reason::OtherAddress));
    assert!(met(Reason::DeniedSource) > 0 && met(Reason::OtherAddress) > 0);
    assert_eq!(met(Reason::Local) + met(Reason::Steered) + met(Reason::SteerFailed), 0);
}

#[test]
fn a_shard_that_another_cpu_owns_arrives_there_and_is_not_lost() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return eprintln!("SKIPPED: steering needs two CPUs");
    }
    let Some(lab) = Lab::new() else { return };
    // A packet that changes CPUs loses the note that its checksum is still to be made, which only a
    // veth's peer leaves to be made: see `weir::steer`.
    let whole_checksums = ["netns", "exec", &lab.sender.0, "ethtool", "-K", "w1", "tx", "off"];
    if !Command::new("ip").args(whole_checksums).output().is_ok_and(|output| output.status.success()) {
        return eprintln!("SKIPPED: `ethtool` cannot turn off the sender's checksum offload");
    }
    // Whatever CPU a datagram comes in on, half of the shards are owned by the other.
    let owned = Policy { shard_owner_cpu: by_turns(), ..policy() };
    assert!(!owned.shard_owner_cpu.contains(&NO_CPU));
    let Some(steering) = attach(&settings(Mode::Native, "w0", owned)) else { return };
    let sockets = group("192.0.2.10", 1);
    lab.as_sender(|| send_each_shard("192.0.2.10"));
    let mut shards = shards_received(&sockets[0], 100);
    shards.sort_unstable();
    assert_eq!(shards, (0..100).collect::<Vec<_>>());
    let met = |reason| steering.frames().unwrap().iter().find(|f| f.reason == reason).unwrap().packets;
    assert_eq!((met(Reason::Steered) + met(Reason::Local), met(Reason::SteerFailed)), (100, 0));
    assert!(met(Reason::Steered) > 0);
}

/// Runs itself again as a user who may nothing.
#[test]
fn without_the_capability_auto_goes_on_without_xdp_and_says_why() {
    const ROLE: &str = "WEIR_TEST_WITHOUT_CAPABILITIES";
    const NAME: &str = "without_the_capability_auto_goes_on_without_xdp_and_says_why";
    if std::env::var_os(ROLE).is_some() {
        let mut steering = Steering::attach(&settings(Mode::Auto, "lo", policy())).unwrap();
        assert_eq!(steering.status().rung, Rung::None);
        assert!(steering.status().misses[0].why.contains("CAP_BPF"), "{:?}", steering.status());
        let sockets = group("127.0.0.1", 1);
        assert!(!steering.attach_reuseport(false, &[sockets[0].as_fd()], &[0; SHARDS]).unwrap());
        assert!(steering.frames().unwrap().is_empty());
        assert!(Steering::attach(&settings(Mode::Native, "lo", policy())).is_err());
        return;
    }
    let me = std::env::current_exe().unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let child = Command::new("setpriv").args(nobody).arg(&me).args(["--exact", NAME]).env(ROLE, "1").output();
    match child {
        Ok(output) if output.status.code() == Some(127) || output.status.code() == Some(126) => {
            eprintln!("SKIPPED: {} cannot be run by another user", me.display());
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => eprintln!("SKIPPED: `setpriv` does not start: {error}"),
    }
}
