//! The XDP program and the socket chooser from one process to the next, on a veth pair. Needs root, as `xdp_veth.rs`.

mod veth_lab;
mod xdp_lab;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use veth_lab::*;
use weir::steer::{Mode, Rung, Settings, Steering, Switches};
use weir_common::reason::Reason;
use xdp_lab::*;

/// A veth pair, where programs can be loaded; or `None`, having said why the test is skipped.
fn lab() -> Option<Lab> {
    let lab = Lab::new()?;
    load(Switches::default(), &policy()).map(|_| lab)
}

/// A BPF file system of this test's own.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn mounted() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).status().unwrap();
        assert!(mounted.success());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn settings(pins: &Bpffs) -> Settings {
    let pin_dir = Some(pins.path().to_owned());
    Settings {
        mode: Mode::Auto,
        interface: "w0".to_owned(),
        policy: policy(),
        switches: Switches::default(),
        pin_dir,
    }
}

/// Ends what runs until this is so, whatever becomes of the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The number of the program on the interface.
fn program() -> Option<String> {
    let shown = ip("link show w0");
    let (_, behind) = shown.split_once("prog/xdp id ")?;
    behind.split_whitespace().next().map(str::to_owned)
}

#[test]
fn a_pinned_program_stays_without_its_process_and_the_next_takes_its_place_without_a_loss() {
    let Some(lab) = lab() else { return };
    let pins = Bpffs::mounted();
    let sockets = group("192.0.2.10", 1);
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&sockets[0], 64 << 20).unwrap();
    let first = Steering::attach(&settings(&pins)).unwrap();
    assert_eq!(first.status().rung, Rung::Native, "{:?}", first.status());
    let old = program().expect("a program");
    let is_over = AtomicBool::new(false);
    let (second, sent) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            lab.sender.enter();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                socket.send_to(&clicks(1, 0, 0), ("192.0.2.10", OUR_PORT)).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let over = Over(&is_over);
        std::thread::sleep(Duration::from_millis(300));
        drop(first);
        assert_eq!(program().as_ref(), Some(&old), "it stays");
        std::thread::sleep(Duration::from_millis(300));
        let second = Steering::attach(&settings(&pins)).unwrap();
        assert_eq!(second.status().rung, Rung::Native);
        std::thread::sleep(Duration::from_millis(300));
        drop(over);
        (second, load.join().unwrap())
    });
    assert!(program().is_some_and(|new| new != old), "another program is in its place");
    assert_eq!(shards_received(&sockets[0], sent).len(), sent);
    let frames = second.frames().unwrap();
    let counted = frames.iter().find(|frame| frame.reason == Reason::Local).unwrap().packets as usize;
    assert!(0 < counted && counted < sent, "{counted}: it counts what it has seen itself");
    let mut second = second;
    second.unpin();
    drop(second);
    assert_eq!(program(), None);
}

#[test]
fn a_link_that_came_to_nothing_is_no_reason_not_to_attach() {
    let Some(_lab) = lab() else { return };
    let pins = Bpffs::mounted();
    drop(Steering::attach(&settings(&pins)).unwrap());
    // The interface goes, and another one comes under its name.
    ip("link del w0");
    ip("link add w0 type veth peer name w2");
    ip("addr add 192.0.2.10/24 dev w0");
    ip("link set w0 up");
    assert_eq!(program(), None);
    let mut next = Steering::attach(&settings(&pins)).unwrap();
    assert_eq!(next.status().rung, Rung::Native, "{:?}", next.status());
    assert!(program().is_some());
    next.unpin();
}

#[test]
fn sockets_that_go_on_get_the_chooser_of_the_next_process_in_all_their_groups() {
    let Some(lab) = lab() else { return };
    // Two groups share a program and its array of sockets, as IPv4 and IPv6 do.
    let groups = [("192.0.2.10", false), ("192.0.2.11", true)];
    let sockets = groups.map(|(address, _)| group(address, 2));
    let none = Settings { mode: Mode::None, pin_dir: None, ..settings(&Bpffs::mounted()) };
    for process in 0..3 {
        let mut steering = Steering::attach(&none).unwrap();
        steering.release_groups(sockets.iter().map(|group| group[0].as_fd()));
        for (group, (_, is_ipv6)) in sockets.iter().zip(groups) {
            let borrowed: Vec<_> = group.iter().map(AsFd::as_fd).collect();
            assert!(steering.attach_reuseport(is_ipv6, &borrowed, &by_turns()).unwrap());
        }
        lab.as_sender(|| send_each_shard("192.0.2.10"));
        for (worker, socket) in sockets[0].iter().enumerate() {
            let shards = shards_received(socket, 50);
            assert!(shards.iter().all(|shard| usize::from(shard % 2) == worker), "{process}: {shards:?}");
        }
    }
}
