//! The engine against the mock node on loopback: what the report expects is what the node counted.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_bench::kind::Profile;
use weir_bench::mock_edge::{Faults, MockBooks, MockEdge};
use weir_bench::plan::Plan;
use weir_bench::report::Report;
use weir_bench::udp::{self, Options};
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_sdk::Config;

const KEY: SipKey = SipKey { k0: 11, k1: 12 };

fn plan() -> Plan {
    Plan {
        duration: Duration::from_millis(700),
        profile: Profile::Demo,
        issuer: Issuer(3),
        key_id: KeyId(4),
        key: KEY,
        seed: 5,
        threads: 2,
        cores: Vec::new(),
        acked_log: None,
        // Other work may share the machine: what is tested is the books, not the pace.
        late_bound: Duration::from_secs(5),
        drain_max: Duration::from_secs(20),
        ads: 100,
        unsigned: true,
    }
}

fn options(plan: Plan) -> Options {
    Options {
        plan,
        targets: Vec::new(),
        link: None,
        rate: 20_000.0,
        sender: Config {
            group_bits: 1,
            ack_timeout_ns: 100_000_000,
            backoff_base_ns: 10_000_000,
            attempts_max: u16::MAX,
            ..Config::default()
        },
        progress: false,
    }
}

/// Settings under which every click is new.
fn clean() -> Options {
    options(Plan { profile: Profile::Clean, ..plan() })
}

fn run(faults: Faults, mut options: Options) -> (Report, MockBooks) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20).unwrap();
    options.targets = vec![socket.local_addr().unwrap()];
    let stop = AtomicBool::new(false);
    let mut edge = MockEdge::new(vec![(Issuer(3), KeyId(4), KEY)], faults, 9);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| edge.serve(&socket, &stop));
        let report = udp::run(&options).unwrap();
        stop.store(true, Ordering::Relaxed);
        report
    });
    (report, edge.books)
}

#[test]
fn with_a_sound_network_the_node_counts_exactly_what_is_expected() {
    let (report, books) = run(Faults::default(), options(plan()));
    assert!(report.valid, "{:?}", report.invalid_reason);
    let mut expected = report.expected.clone();
    // Without an XDP program unsound headers are clicks.
    for (reason, count) in &expected.frames_or_clicks {
        *expected.clicks.outcomes.entry("malformed".to_owned()).or_default() += count;
        *expected.clicks.reasons.entry(reason.clone()).or_default() += count;
    }
    assert_eq!(books.outcomes, expected.clicks.outcomes);
    assert_eq!(books.reasons, expected.clicks.reasons);
    assert_eq!(books.cost_micros, expected.clicks.cost_micros);
    assert_eq!(books.clock_suspect, expected.clicks.clock_suspect);
    assert_eq!(books.datagrams, expected.datagrams_sent_total);
    assert_eq!(books.datagrams_sound, expected.datagrams_delivered);
    assert!(expected.clicks.outcomes.len() == 7, "all outcomes occur: {:?}", expected.clicks.outcomes);
    assert!(report.sdk_ledger.closes);
    // Every datagram with a sound header was answered, those made by hand too.
    let answered = |outcome: &str| report.expected.clicks.outcomes[outcome];
    let created = ["accepted", "repeat", "late", "filtered"].map(answered).iter().sum::<u64>();
    assert_eq!((report.acks.created, report.acks.exists), (created, answered("duplicate")));
    assert_eq!(report.acks.malformed, answered("refused") + answered("malformed"));
}

#[test]
fn lost_late_and_repeated_acks_cost_duplicates_and_the_books_still_agree() {
    let faults = Faults { lose_acks: 100, repeat_acks: 50, delay_acks: 50, ..Faults::default() };
    let (report, books) = run(faults, options(Plan { profile: Profile::Duplicates, ..plan() }));
    assert!(report.valid, "{:?}", report.invalid_reason);
    assert!(report.sdk_ledger.datagrams_resent > 0);
    assert_eq!(books.outcomes, report.expected.clicks.outcomes);
    assert_eq!(books.cost_micros, report.expected.clicks.cost_micros);
}

#[test]
fn lost_datagrams_are_sent_again_until_every_click_is_counted_once() {
    let faults = Faults { lose_datagrams: 200, ..Faults::default() };
    let (report, books) = run(faults, clean());
    assert!(report.valid, "{:?}", report.invalid_reason);
    assert!(books.datagrams_lost > 0);
    assert_eq!(books.outcomes["accepted"], report.expected.clicks.outcomes["accepted"]);
    assert_eq!(report.sdk_ledger.acked_created, report.sdk_ledger.created);
}

#[test]
fn clicks_answered_with_retry_are_counted_once_in_the_end() {
    let faults = Faults { retry: 50, ..Faults::default() };
    let (report, books) = run(faults, clean());
    assert!(report.valid, "{:?}", report.invalid_reason);
    assert_eq!(books.outcomes["accepted"], report.expected.clicks.outcomes["accepted"]);
    assert_eq!(books.outcomes["refused"], report.expected.clicks.retried);
    assert_eq!(books.outcomes.get("duplicate"), report.expected.clicks.outcomes.get("duplicate"));
}

#[test]
fn every_stored_and_acknowledged_click_is_in_the_acked_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acked");
    let mut options = clean();
    options.plan.acked_log = Some(path.clone());
    let (report, _) = run(Faults::default(), options);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: std::collections::HashSet<&str> = text.lines().collect();
    assert_eq!(lines.len() as u64, report.sdk_ledger.created);
    assert!(lines.iter().all(|line| line.starts_with("issued ") && line.ends_with(" 0")));
}

#[test]
fn a_node_that_is_away_is_survived_and_found_again() {
    // Nobody listens for the first half: every send earns an ICMP error.
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stop = AtomicBool::new(false);
    let mut edge = MockEdge::new(vec![(Issuer(3), KeyId(4), KEY)], Faults::default(), 9);
    let options = Options { targets: vec![address], ..clean() };
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            let socket = UdpSocket::bind(address).unwrap();
            edge.serve(&socket, &stop);
        });
        let report = udp::run(&options).unwrap();
        stop.store(true, Ordering::Relaxed);
        report
    });
    assert!(report.valid, "{:?}", report.invalid_reason);
    assert!(report.sdk_ledger.datagrams_resent > 0);
    assert_eq!(edge.books.outcomes["accepted"], report.sdk_ledger.created);
}

#[test]
fn a_node_that_never_answers_makes_the_run_invalid() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let plan = Plan { duration: Duration::from_millis(200), drain_max: Duration::from_millis(300), ..plan() };
    let options = Options { targets: vec![silent.local_addr().unwrap()], ..options(plan) };
    let report = udp::run(&options).unwrap();
    assert!(!report.valid);
    assert!(report.sdk_ledger.closes && report.sdk_ledger.queued > 0);
}
