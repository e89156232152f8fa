//! What the status socket says, to whom, and for how long.

mod control_fixture;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use control_fixture::Fixture;
use weir::clock::{Doubt, Time};
use weir::control::metrics::Format;
use weir::control::standing::TimeStatus;
use weir::control::{
    ClientError, Control, Drain, Error, FINAL_STATUS_NAME, SOCKET_NAME, State, Status, fetch, gather,
};
use weir::journal::spool::{Found, Level};
use weir::stats::{DiskOperation, JournalHealth};
use weir_common::reason::{Outcome, Reason};
use weir_common::time::UnixMs;

#[test]
fn at_rest_every_click_received_has_its_outcome() {
    let fixture = Fixture::new();
    let clicks = gather(&fixture.sources()).0.clicks;
    assert_eq!((clicks.received, clicks.residual), (10, 0));
    assert_eq!(clicks.outcomes.values().sum::<u64>(), 10);
    assert_eq!(clicks.outcomes.len(), Outcome::ALL.len());
    assert_eq!((clicks.handed_off, clicks.taken_over), (4, 4));
    assert_eq!(
        clicks.reasons.into_iter().collect::<Vec<_>>(),
        [("bad_tag".to_owned(), 1), ("prefetch".to_owned(), 4)]
    );
    assert_eq!(clicks.unseen.into_iter().collect::<Vec<_>>(), [("socket_overflow".to_owned(), 3)]);
}

#[test]
fn a_lost_click_is_a_positive_residual_and_one_counted_twice_a_negative() {
    let fixture = Fixture::new();
    fixture.workers[1].clicks_received.add(1);
    assert_eq!(gather(&fixture.sources()).0.clicks.residual, 1);
    fixture.workers[0].count(Outcome::Duplicate, Reason::None, 3);
    assert_eq!(gather(&fixture.sources()).0.clicks.residual, -2);
}

#[test]
fn a_journal_that_takes_nothing_and_a_flush_that_failed_stand_in_the_status_with_the_reason() {
    let fixture = Fixture::new();
    let status = || gather(&fixture.sources()).0;
    assert_eq!((status().journal.state, status().journal.failures), (JournalHealth::Running, 0));
    assert_eq!((status().journal.last_failure, status().forward.last_error), (None, None));
    let broken = std::io::Error::from_raw_os_error(5);
    fixture.workers[1].note_disk_failure(DiskOperation::Sync, &broken);
    fixture.workers[1].journal_health.set(JournalHealth::Halted as u64);
    fixture.workers[0].journal_health.set(JournalHealth::NoSpace as u64);
    fixture.forward.last_error.set(Some("the store takes nothing".to_owned()));
    let status = status();
    assert_eq!((status.journal.state, status.journal.failures), (JournalHealth::Halted, 1));
    let why = status.journal.last_failure.unwrap();
    assert_eq!(why, "fdatasync of a segment failed: Input/output error (os error 5)");
    assert_eq!(status.workers[0].journal_state, JournalHealth::NoSpace);
    assert_eq!(status.forward.last_error.as_deref(), Some("the store takes nothing"));
}

#[test]
fn a_doubt_about_the_time_stands_in_the_status_with_its_remedy() {
    let fixture = Fixture::new();
    let sources = fixture.sources();
    let now = sources.clock.read().time;
    let time = gather(&sources).0.time;
    assert!(!time.uncertain && time.doubt.is_none() && time.node_ms >= now.0);
    let doubted = Time { offset_ms: 0, floor: now, doubt: Some(Doubt::SteppedAhead) };
    sources.clock.set(doubted, UnixMs(now.0 + 3_600_000));
    let (status, latencies) = gather(&sources);
    assert_eq!((status.time.doubt.as_deref(), status.time.uncertain), (Some("stepped_ahead"), true));
    assert_eq!(status.time.remedy.as_deref(), Some(Doubt::SteppedAhead.remedy()));
    assert_eq!((status.time.node_ms, status.time.system_ms), (now.0, now.0 + 3_600_000));
    let metrics = weir::control::metrics::render(&status, &latencies, Format::Classic);
    assert!(metrics.contains("weir_time_uncertain{doubt=\"stepped_ahead\"} 1\n"), "{metrics}");
    assert!(metrics.contains("weir_time_uncertain{doubt=\"implausible\"} 0\n"), "{metrics}");
}

#[test]
fn how_full_the_journal_is_stands_in_status_and_metrics() {
    let sources = Fixture::new().sources();
    let spool = gather(&sources).0.spool;
    assert_eq!((spool.level, spool.hours_to_full), (Level::Ok, None));
    let found = Found {
        used: 30,
        capacity: 40,
        per_mille: 750,
        seconds_to_full: Some(5400),
        level: Level::ThreeQuarters,
    };
    sources.spool.set(&found);
    let (status, latencies) = gather(&sources);
    assert_eq!((status.spool.fraction, status.spool.hours_to_full), (0.75, Some(1.5)));
    let metrics = weir::control::metrics::render(&status, &latencies, Format::Classic);
    for line in [
        "weir_spool_bytes 30",
        "weir_spool_capacity_bytes 40",
        "weir_spool_seconds_to_full 5400",
        "weir_spool_level{level=\"three_quarters\"} 1",
        "weir_spool_level{level=\"critical\"} 0",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is not in {metrics}");
    }
}

#[test]
fn latencies_of_all_workers_are_one_distribution() {
    let status = gather(&Fixture::new().sources()).0;
    assert_eq!(status.ack_latency_ns.count, 3);
    assert_eq!(status.ack_latency_ns.max, 9_000_000);
    assert!((3_000_000..3_400_000).contains(&status.ack_latency_ns.p50), "{:?}", status.ack_latency_ns);
    assert_eq!(status.workers.iter().map(|worker| worker.core).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn the_socket_sends_what_was_gathered() {
    let fixture = Fixture::new();
    let _control = fixture.start();
    let sent = fetch(&fixture.settings().run_dir.join(SOCKET_NAME)).unwrap();
    let gathered = gather(&fixture.sources()).0;
    let timeless = |status| Status { uptime_s: 0.0, time: TimeStatus::default(), ..status };
    assert_eq!(timeless(sent), timeless(gathered));
}

#[test]
fn one_connection_may_ask_again_and_sees_the_counters_move() {
    let fixture = Fixture::new();
    let _control = fixture.start();
    let mut stream = UnixStream::connect(fixture.settings().run_dir.join(SOCKET_NAME)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut ask = |request: &str| {
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!(ask("status")["state"], "recovering");
    fixture.state.set(State::Running);
    fixture.workers[0].clicks_received.add(5);
    let second = ask("status");
    assert_eq!((&second["state"], &second["clicks"]["received"]), (&"running".into(), &15.into()));
    assert_eq!(ask("stop")["error"], "no such request: \"stop\"; ask for status");
}

#[test]
fn dropping_the_handle_closes_the_socket_and_frees_its_name() {
    let fixture = Fixture::new();
    let socket = fixture.settings().run_dir.join(SOCKET_NAME);
    drop(fixture.start());
    assert!(!socket.exists());
    assert!(matches!(fetch(&socket), Err(ClientError::Connect { .. })));
    let _again = fixture.start();
    assert!(fetch(&socket).is_ok());
}

#[test]
fn a_second_daemon_is_refused_and_the_rest_of_a_killed_one_replaced() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let drain = Drain {
        flag: fixture.drain.clone(),
        hands_over: Arc::default(),
        reload: Arc::default(),
        wake: Box::new(|| {}),
    };
    let second = Control::start(fixture.settings(), fixture.sources(), drain);
    assert!(matches!(second.err(), Some(Error::SocketTaken { .. })));
    drop(control);
    // What a killed daemon leaves: a socket file that nobody listens on.
    let socket = fixture.settings().run_dir.join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let _control = fixture.start();
    assert!(fetch(&socket).is_ok());
}

#[test]
fn the_final_status_is_the_last_one_and_whole() {
    let fixture = Fixture::new();
    let control = fixture.start();
    fixture.state.set(State::Draining);
    fixture.workers[0].clicks_received.add(1);
    fixture.workers[0].count(Outcome::Late, Reason::None, 1);
    let path = control.write_final_status().unwrap();
    assert_eq!(path, fixture.settings().run_dir.join(FINAL_STATUS_NAME));
    let written: Status = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((written.state, written.clicks.received, written.clicks.residual), (State::Draining, 11, 0));
    drop(control);
    assert!(path.exists());
}
