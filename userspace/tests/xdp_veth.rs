//! The XDP program on real interfaces: veth pairs between network namespaces.
//!
//! ```text
//!   namespace "sender"                     namespace "receiver" (this thread)
//!   w1 192.0.2.1/24  ---- veth pair ----   w0 192.0.2.10/24, the program is attached here
//! ```
//!
//! Needs root and `ip` of iproute2; each test says so when it is skipped.

mod veth_lab;
mod xdp_lab;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use veth_lab::*;
use weir::steer::{Mode, Policy, Prefix, Rung, Settings, SteerError, Steering, Switches};
use weir_common::id::SHARDS;
use weir_common::maps::NO_CPU;
use weir_common::reason::Reason;
use xdp_lab::*;

fn settings(mode: Mode, interface: &str, policy: Policy) -> Settings {
    Settings { mode, interface: interface.to_owned(), policy, switches: Switches::default(), pin_dir: None }
}

/// Attaches; or `None`, having said why the test is skipped.
fn attach(settings: &Settings) -> Option<Steering> {
    load(Switches::default(), &policy())?;
    Some(Steering::attach(settings).unwrap())
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
