//! Metrics and health as a scraper sees them.

mod control_fixture;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use control_fixture::Fixture;
use weir::control::{ControlHandle, SOCKET_NAME, State, Status, fetch};
use weir::stats::JournalHealth;
use weir_common::reason::{Class, Reason};

/// The status line and the body of one request.
fn request(control: &ControlHandle, line: &str) -> (String, String) {
    let mut stream = TcpStream::connect(control.http().unwrap()).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: weir\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn readiness_follows_the_state_and_liveness_does_not() {
    let fixture = Fixture::new();
    let control = fixture.start();
    for (state, ready, body) in [
        (State::Recovering, "503 Service Unavailable", "not ready: recovering\n"),
        (State::Running, "200 OK", "ok: running\n"),
        (State::Draining, "503 Service Unavailable", "not ready: draining\n"),
    ] {
        fixture.state.set(state);
        assert_eq!(request(&control, "GET /readyz"), (format!("HTTP/1.1 {ready}"), body.to_owned()));
        assert_eq!(request(&control, "GET /livez").0, "HTTP/1.1 200 OK");
    }
}

#[test]
fn a_node_that_refuses_clicks_is_not_ready_and_says_why() {
    let fixture = Fixture::new();
    let control = fixture.start();
    fixture.state.set(State::Running);
    for (health, answer) in [
        (JournalHealth::NoSpace, ("503 Service Unavailable", "not ready: the journal is full\n")),
        (JournalHealth::Halted, ("503 Service Unavailable", "not ready: a journal is halted\n")),
        (JournalHealth::Running, ("200 OK", "ok: running\n")),
    ] {
        fixture.workers[1].journal_health.set(health as u64);
        let (status, body) = request(&control, "GET /readyz");
        assert_eq!((status.as_str(), body.as_str()), (format!("HTTP/1.1 {}", answer.0).as_str(), answer.1));
    }
}

#[test]
fn who_asks_verbosely_is_told_of_every_check() {
    let fixture = Fixture::new();
    let control = fixture.start();
    fixture.state.set(State::Running);
    let (ok, lines) = request(&control, "GET /readyz?verbose");
    assert_eq!(
        (ok.as_str(), lines.as_str()),
        ("HTTP/1.1 200 OK", "[+] state: ok\n[+] operator: ok\n[+] journal: ok\n[+] time: ok\n")
    );
    fixture.workers[1].journal_health.set(JournalHealth::Halted as u64);
    let (unready, lines) = request(&control, "GET /readyz?verbose");
    assert_eq!(unready, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(lines, "[+] state: ok\n[+] operator: ok\n[-] journal: a journal is halted\n[+] time: ok\n");
}

#[test]
fn the_status_of_the_socket_is_served_over_http_too() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let (code, body) = request(&control, "GET /status");
    let mut served: Status = serde_json::from_str(&body).expect("a status");
    let mut fetched = fetch(&fixture.settings().run_dir.join(SOCKET_NAME)).expect("a status");
    (served.uptime_s, fetched.uptime_s) = (0.0, 0.0);
    (served.time.node_ms, fetched.time.node_ms) = (0, 0);
    assert_eq!((code.as_str(), served), ("HTTP/1.1 200 OK", fetched));
    assert_eq!(request(&control, "GET /config").1, "[node]\nid = 7\n");
    assert_eq!(request(&control, "GET /version").1, concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn what_is_not_served_is_refused() {
    let fixture = Fixture::new();
    let control = fixture.start();
    assert_eq!(request(&control, "GET /").0, "HTTP/1.1 404 Not Found");
    assert_eq!(request(&control, "POST /metrics").0, "HTTP/1.1 405 Method Not Allowed");
}

#[test]
fn metrics_carry_the_counters_by_the_names_of_the_table() {
    let fixture = Fixture::new();
    let control = fixture.start();
    fixture.state.set(State::Running);
    let (status, text) = request(&control, "GET /metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "weir_clicks_total{outcome=\"accepted\"} 5",
        "weir_clicks_total{outcome=\"duplicate\"} 0",
        "weir_clicks_by_reason_total{reason=\"bad_tag\",outcome=\"refused\"} 1",
        "weir_frames_total{reason=\"bad_magic\",class=\"malformed\"} 3",
        "weir_frame_bytes_total{reason=\"steered\",class=\"delivered\"} 7000",
        "weir_received_clicks_total{worker=\"0\"} 10",
        "weir_unseen_datagrams_total{reason=\"socket_overflow\"} 3",
        "weir_ledger_residual_clicks 0",
        "weir_state{state=\"running\"} 1",
        "weir_steering{rung=\"generic\"} 1",
        "weir_ack_latency_seconds_count 3",
        "weir_ack_latency_seconds_bucket{le=\"0.004194304\"} 2",
        "weir_ack_latency_seconds_bucket{le=\"+Inf\"} 3",
        "weir_ack_latency_seconds_sum 0.015",
        "weir_forward_flushes_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for reason in Reason::ALL.iter().filter(|reason| reason.class() == Class::Refused) {
        assert!(text.contains(&format!("reason=\"{}\"", reason.name())), "{reason:?}");
    }
    assert!(text.contains("# TYPE weir_clicks_total counter\n") && !text.contains("# EOF"), "{text}");
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let accept =
        "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\nX: ";
    let (_, text) = request(&control, accept);
    assert!(text.contains("# TYPE weir_clicks counter\n") && text.ends_with("# EOF\n"), "{text}");
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let uptime = |line: &String| !line.starts_with("weir_uptime_seconds");
    let classic =
        samples(&request(&control, "GET /metrics").1).into_iter().filter(uptime).collect::<Vec<_>>();
    assert_eq!(samples(&text).into_iter().filter(uptime).collect::<Vec<_>>(), classic);
}

/// The rules of `promtool check metrics`, as far as names and helps go.
#[test]
fn every_metric_has_a_clean_name_and_a_help() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let (_, text) = request(&control, "GET /metrics");
    let mut seen = BTreeSet::new();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, kind) in kinds {
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("weir_"), "{name}");
        let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} "))).unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(help.len() > "# HELP  ".len() + name.len() + 8, "{help}");
        let bad = ["_ms", "_ns", "_milliseconds", "_kib", "_count", "_sum", "_bucket", "_counter", "_gauge"];
        assert!(!bad.iter().any(|bad| name.ends_with(bad)), "{name}");
        assert_eq!(
            kind == "histogram",
            name.ends_with("_seconds") && name != "weir_uptime_seconds",
            "{name}"
        );
    }
    assert!(seen.len() >= 35, "{seen:?}");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 500, "{series} series with two workers");
}

#[test]
fn promtool_has_nothing_to_say() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let (_, text) = request(&control, "GET /metrics");
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = match promtool.stderr(Stdio::piped()).spawn() {
        Ok(promtool) => promtool,
        Err(error) => {
            return println!("skipped: promtool does not start ({error}); it is in Debian's prometheus");
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
