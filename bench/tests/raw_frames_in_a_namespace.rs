//! Raw and live frames over a veth pair between two namespaces, to a node without an XDP program:
//! what is wrapped arrives, what is broken or none of its business does not, and frames made in the
//! kernel carry ids of their own.
//!
//! Needs root and iproute2; without them it says so and tests nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use weir_bench::mock_edge::MockBooks;
use weir_bench::report::Report;

const BENCH: &str = env!("CARGO_BIN_EXE_weir-bench");

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split_whitespace()).stderr(Stdio::inherit()).status();
    status.is_ok_and(|status| status.success())
}

/// Two namespaces with a veth pair; gone when dropped.
struct Lab {
    node: String,
    sender: String,
}

impl Lab {
    fn new() -> Option<Self> {
        // Tests of one process run side by side.
        static LABS: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { node: format!("weir-bn{id}"), sender: format!("weir-bs{id}") };
        let (node, sender) = (&lab.node, &lab.sender);
        let made = ip(&format!("netns add {node}"))
            && ip(&format!("netns add {sender}"))
            && ip(&format!("link add clicks netns {node} type veth peer name sdk netns {sender}"))
            && ip(&format!("-n {node} addr add 10.78.0.1/24 dev clicks"))
            && ip(&format!("-n {sender} addr add 10.78.0.2/24 dev sdk"))
            && ip(&format!("-n {node} addr add fd78::1/64 dev clicks nodad"))
            && ip(&format!("-n {sender} addr add fd78::2/64 dev sdk nodad"))
            && ip(&format!("-n {node} link set clicks up"))
            && ip(&format!("-n {sender} link set sdk up"));
        made.then_some(lab)
    }

    /// Starts the mock node and waits until it listens.
    fn start_node(&self, listen: &str, key: &str, books: &str) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node, BENCH, "mock", "--listen", listen, "--key-file", key]);
        command.args(["--idle", "500ms", "--json", books]).stderr(Stdio::piped());
        let mut node = command.spawn().expect("ip runs");
        let mut line = String::new();
        let stderr = node.stderr.take().expect("piped");
        BufReader::new(stderr).read_line(&mut line).expect("the node says that it listens");
        assert!(line.starts_with("mock edge on "), "{line}");
        node
    }

    fn start(&self, namespace: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, BENCH]).args(arguments);
        command.spawn().expect("ip runs")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.node));
        ip(&format!("netns del {}", self.sender));
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn without_xdp_exactly_the_wrapped_clicks_arrive_beside_the_plain_ones() {
    let Some(lab) = Lab::new() else {
        println!("skipped: no network namespaces here (needs root and iproute2)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, books, report) = (path("key"), path("books"), path("report"));
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f").unwrap();
    // One socket for both families: a wildcard IPv6 socket takes IPv4 too.
    let mut node = lab.start_node("[::]:4500", &key, &books);
    let mut sender = lab.start(
        &lab.sender,
        &[
            "udp",
            "--target",
            "10.78.0.1:4500",
            "--target6",
            "[fd78::1]:4500",
            "--interface",
            "sdk",
            "--rate",
            "20000",
            "--duration",
            "1s",
            "--profile",
            "demo",
            "--key-file",
            &key,
            "--json",
            &report,
            "--late-bound",
            "5s",
            "--quiet",
        ],
    );
    assert!(sender.wait().unwrap().success());
    assert!(node.wait().unwrap().success());

    let (books, report): (MockBooks, Report) = (read(books.as_ref()), read(report.as_ref()));
    let mut expected = report.expected.clone();
    for (reason, count) in &expected.frames_or_clicks {
        *expected.clicks.outcomes.entry("malformed".to_owned()).or_default() += count;
        *expected.clicks.reasons.entry(reason.clone()).or_default() += count;
    }
    assert_eq!(books.reasons, expected.clicks.reasons);
    assert_eq!(books.outcomes, expected.clicks.outcomes);
    assert_eq!(books.cost_micros, expected.clicks.cost_micros);
    assert_eq!(books.datagrams_sound, expected.datagrams_delivered);
    let wrapped: Vec<_> = report.kinds.iter().filter(|kind| kind.stage == "wrapped").collect();
    assert_eq!(wrapped.len(), 6, "every wrapping was sent: {wrapped:?}");
    assert!(report.kinds.iter().filter(|kind| kind.stage == "frame").count() == 7);
    assert_eq!(report.send_failures, 0);
}

/// Sends 2,000 live frames of two clicks and gives what the node counted.
fn live_frames(vary: &str) -> Option<MockBooks> {
    let lab = Lab::new()?;
    let offload = Command::new("ip")
        .args(["netns", "exec", &lab.node, "ethtool", "-K", "clicks", "gro", "on"])
        .status();
    if !offload.is_ok_and(|status| status.success()) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, books) = (path("key"), path("books"));
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f").unwrap();
    let mut node = lab.start_node("10.78.0.1:4500", &key, &books);
    let sender = lab
        .start(
            &lab.sender,
            &[
                "frames",
                "--interface",
                "sdk",
                "--source",
                "10.78.0.2:7000",
                "--target",
                "10.78.0.1:4500",
                "--frames",
                "2000",
                "--clicks",
                "2",
                "--vary",
                vary,
            ],
        )
        .wait();
    assert!(node.wait().unwrap().success());
    assert!(sender.unwrap().success());
    Some(read(books.as_ref()))
}

#[test]
fn live_frames_carry_ids_of_their_own_or_are_all_the_same() {
    let (Some(varied), Some(same)) = (live_frames("id"), live_frames("nothing")) else {
        println!("skipped: no network namespaces here (needs root, iproute2 and ethtool)");
        return;
    };
    // A veth may drop at its ring; what arrived must be what was made.
    assert!(varied.datagrams > 100, "{varied:?}");
    assert_eq!(varied.datagrams_sound, varied.datagrams);
    assert_eq!(varied.outcomes, [("accepted".to_owned(), 2 * varied.datagrams)].into());
    assert!(same.datagrams > 100, "{same:?}");
    assert_eq!(same.outcomes["accepted"], 2);
    assert_eq!(same.outcomes["duplicate"], 2 * same.datagrams - 2);
}
