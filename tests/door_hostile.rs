//! The HTTP door and those who mean it no good, or have a bad day: each is answered or closed, costs a
//! bounded amount, and counts nothing that is no click.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_labs::door::{Door, Reply, click_json};
use weir_labs::{FaultyDisk, Node};

/// Short patience, as lines of the config.
const HASTY: &str = "head_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"\n";
/// The longest a hasty door may take to lose its patience on a busy machine.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

fn started(door: &Door) -> Node<'_> {
    door.folder.start_ready().expect("ready")
}

fn received(node: &Node<'_>) -> u64 {
    node.status().expect("status")["clicks"]["received"].as_u64().expect("a number")
}

fn still_takes_clicks(door: &Door, number: u64) {
    let reply = door.post("application/json", click_json(number).as_bytes()).expect("curl");
    assert_eq!(reply.statuses(), ["created"], "{reply:?}");
}

/// A request with this framing, and the body as it stands.
fn request(fields: &str, body: &str) -> String {
    format!("POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn a_request_whose_end_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let (hidden, body) = (request("Content-Length: 70", &click_json(1)), click_json(2));
    let len = body.len();
    let framings = [
        format!("Content-Length: {len}\r\nTransfer-Encoding: chunked"),
        format!("Content-Length: {len}\r\nContent-Length: {}", len + 1),
        format!("Content-Length: {len}, {len}"),
        format!("Content-Length: +{len}"),
        "Transfer-Encoding: chunked, identity".to_owned(),
        "Transfer-Encoding: xchunked".to_owned(),
        "Transfer-Encoding : chunked".to_owned(),
        "Transfer-Encoding: chunked\r\n Content-Length: 0".to_owned(),
    ];
    for framing in framings {
        let answer = door.exchange(request(&framing, &format!("{body}{hidden}")).as_bytes()).expect("answer");
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 "),
            "{framing}: {answer}"
        );
        assert_eq!(answer.matches("Content-Length: ").count(), 1, "{framing}: {answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
    assert_eq!(received(&node), 0);
    still_takes_clicks(&door, 3);
}

#[test]
fn a_head_without_end_is_refused_at_its_bound() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let long = format!("GET /v1/health HTTP/1.1\r\nHost: a\r\nX-Long: {}", "a".repeat(9000));
    assert!(door.exchange(long.as_bytes()).expect("answer").starts_with("HTTP/1.1 431 "));
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    let many = format!("GET /v1/health HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let answer = door.exchange(many.as_bytes()).expect("answer");
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(received(&node), 0);
}

#[test]
fn who_sends_a_head_or_a_body_byte_by_byte_is_cut_off_and_others_are_served_meanwhile() {
    let door = Door::folder(HASTY).expect("folder");
    let node = started(&door);
    let (head, body) = (request("Content-Length: 70", ""), click_json(1));
    for (slow, is_told) in [(head.clone(), false), (format!("{head}{body}"), true)] {
        let mut stream = door.connect().expect("connect");
        let fast = if is_told { head.len() } else { 0 };
        stream.write_all(&slow.as_bytes()[..fast]).expect("write");
        let mut reader = stream.try_clone().expect("clone");
        let cut = std::thread::spawn(move || {
            let (began, mut answer) = (Instant::now(), Vec::new());
            let _whole_or_reset = reader.read_to_end(&mut answer);
            (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
        });
        for byte in &slow.as_bytes()[fast..fast + 40] {
            if stream.write_all(&[*byte]).is_err() || cut.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let (took, answer) = cut.join().expect("reader");
        assert!(took < PATIENCE_MAX, "{took:?}");
        assert_eq!(answer.starts_with("HTTP/1.1 408 "), is_told, "{answer}");
    }
    assert_eq!(received(&node), 0);
    still_takes_clicks(&door, 2);
    // Silence between requests is ended too.
    let mut idle = door.connect().expect("connect");
    assert_eq!(idle.read(&mut [0; 16]).expect("closed"), 0);
}

#[test]
fn who_sends_nothing_more_still_gets_the_answer_and_who_is_gone_costs_nothing() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let body = click_json(1);
    let whole = request(&format!("Content-Length: {}", body.len()), &body);
    let mut stream = door.connect().expect("connect");
    stream.write_all(whole.as_bytes()).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(answer.contains("\"created\":1"), "{answer}");
    for cut in [10, whole.len() - 5] {
        let mut stream = door.connect().expect("connect");
        stream.write_all(&whole.as_bytes()[..cut]).expect("write");
        // With bytes unread on both sides the end is a reset.
        drop(stream);
    }
    let mut unread = door.connect().expect("connect");
    let body = click_json(2);
    unread.write_all(request(&format!("Content-Length: {}", body.len()), &body).as_bytes()).expect("write");
    drop(unread);
    still_takes_clicks(&door, 3);
    node.drain().expect("drain");
    let status = door.folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0);
    assert!(
        (2..=3).contains(&status["clicks"]["received"].as_u64().expect("a number")),
        "{:#}",
        status["clicks"]
    );
}

#[test]
fn who_sends_too_long_a_body_can_read_why_it_is_refused() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let mut stream = door.connect().expect("connect");
    stream.write_all(request("Content-Length: 900000", "").as_bytes()).expect("write");
    // It goes on sending, as a client does that reads only at the end. A reset, of which a write tells, would take
    // the answer with it on some systems.
    for _ in 0..100 {
        stream.write_all(&[b'x'; 5000]).expect("what is sent is still taken");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer, and no reset");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(received(&node), 0);
}

#[test]
fn who_asks_and_does_not_read_the_answers_is_read_no_more() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let mut stream = door.connect().expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let before = node.resident_kib().expect("memory");
    let many = "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20_000);
    // The sockets of both sides hold some megabytes, and then nobody takes more.
    let taken = (0..100).take_while(|_| stream.write_all(many.as_bytes()).is_ok()).count();
    assert!(taken < 100, "{} MiB of requests were read", (taken * many.len()) >> 20);
    let grown = node.resident_kib().expect("memory").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    still_takes_clicks(&door, 1);
}

#[test]
fn the_limit_on_open_files_is_raised_to_what_the_connections_need() {
    let door = Door::folder("connections_per_worker = 1000\n").expect("folder");
    let mut node = door.folder.start_under(&["prlimit", "--nofile=256:4096"]).expect("start");
    node.wait_until_ready().expect("ready");
    let streams: Vec<_> = (0..500).map(|_| door.connect().expect("connect")).collect();
    node.wait_until("all are open", |status| {
        status["http"]["connections_open"].as_u64() == Some(streams.len() as u64)
    })
    .expect("room for all");
    still_takes_clicks(&door, 1);
}

#[test]
fn a_node_that_may_not_open_enough_files_does_not_start_and_says_what_to_do() {
    let door = Door::folder("connections_per_worker = 1000\n").expect("folder");
    let unprivileged = "--bounding-set=-sys_resource";
    let wrapper = ["setpriv", unprivileged, "prlimit", "--nofile=256:256"];
    let mut node = door.folder.start_under(&wrapper).expect("start");
    assert!(node.wait_until_ready().is_err(), "it is not to start");
    let log = door.folder.log_text();
    let is_told = ["is allowed 256", "LimitNOFILE=", "rx.http.connections_per_worker"];
    assert!(is_told.iter().all(|part| log.contains(part)), "{log}");
}

#[test]
fn connections_beyond_the_bound_are_closed_and_those_within_go_on() {
    let door = Door::folder("connections_per_worker = 4\n").expect("folder");
    let node = started(&door);
    let mut streams: Vec<_> = (0..40).map(|_| door.connect().expect("connect")).collect();
    let workers = node.status().expect("status")["workers"].as_array().map_or(0, Vec::len);
    let mut open = 0;
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        let sent = stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = [0; 256];
        open += usize::from(sent.is_ok() && stream.read(&mut answer).is_ok_and(|read| read > 0));
    }
    assert_eq!(open, 4 * workers);
    drop(streams);
    still_takes_clicks(&door, 1);
}

/// A door on a disk whose faults are ours, with room for a thousand clicks that wait; none where there is no such
/// disk, which is said.
fn door_on_a_faulty_disk() -> Option<(Door, FaultyDisk)> {
    if let Some(why) = FaultyDisk::unavailable() {
        println!("skipped: {why}");
        return None;
    }
    // One worker, so that all meet one bound.
    let mut door = Door::folder("clicks_waiting_max = 1000\n[workers]\ncores = [0]\n").expect("folder");
    let disk = FaultyDisk::of(&mut door.folder);
    Some((door, disk))
}

/// Starts the node, and from then on nothing becomes durable until the disk's rules are lifted.
fn started_and_slowed<'a>(door: &'a Door, disk: &FaultyDisk) -> Node<'a> {
    let node = started(door);
    disk.set("sync times 1000 delay 6000").expect("rules");
    node
}

fn unsigned_lines(numbers: Range<u64>) -> String {
    numbers.map(|number| click_json(number) + "\n").collect()
}

fn signed_lines(door: &Door, sequences: Range<u64>) -> String {
    let token = |sequence| door.token(sequence).expect("token");
    sequences.map(|sequence| format!("{{\"impression\":\"{}\"}}\n", token(sequence))).collect()
}

fn post_lines(door: &Door, lines: &str) -> Reply {
    door.post("application/x-ndjson", lines.as_bytes()).expect("curl")
}

fn wait_for_requests(node: &mut Node<'_>, requests: u64) {
    let has = |status: &Value| status["http"]["requests"].as_u64() >= Some(requests);
    node.wait_until("asked", has).expect("requests");
}

#[test]
fn when_the_disk_is_slow_requests_beyond_the_bound_are_told_to_retry_and_counted() {
    let Some((door, disk)) = door_on_a_faulty_disk() else { return };
    let mut node = started_and_slowed(&door, &disk);
    let unsigned = |from: u64| unsigned_lines(from..from + 400);
    let signed = |from: u64| signed_lines(&door, from..from + 400);
    let bodies = [unsigned(1 << 40), signed(1), unsigned(2 << 40), signed(10_000)];
    let post = |body: &str| post_lines(&door, body);
    std::thread::scope(|scope| {
        // 400 unsigned ones find room, and 400 signed ones beside them; then there is none for 400 more.
        let first = scope.spawn(|| post(&bodies[0]));
        wait_for_requests(&mut node, 1);
        let second = scope.spawn(|| post(&bodies[1]));
        wait_for_requests(&mut node, 2);
        let shed = post(&bodies[2]);
        assert_eq!(shed.status, 503, "{shed:?}");
        assert!(shed.field("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        assert_eq!(post(&bodies[3]).status, 503);
        disk.set("").expect("rules");
        for taken in [first, second] {
            let reply = taken.join().expect("post");
            assert_eq!((reply.status, reply.json()["created"].as_u64()), (202, Some(400)), "{reply:?}");
        }
    });
    node.drain().expect("drain");
    let clicks = &door.folder.final_status().expect("final status")["clicks"];
    assert_eq!((&clicks["received"], &clicks["residual"]), (&1600.into(), &0.into()), "{clicks:#}");
    assert_eq!(clicks["reasons"]["overloaded"], 800, "{clicks:#}");
}

#[test]
fn of_two_requests_at_half_the_bound_the_one_that_is_paid_for_is_taken() {
    let Some((door, disk)) = door_on_a_faulty_disk() else { return };
    let mut node = started_and_slowed(&door, &disk);
    let (filling, paid) = (signed_lines(&door, 1..451), signed_lines(&door, 10_000..10_100));
    let unpaid = unsigned_lines(3 << 40..(3 << 40) + 100);
    let post = |body: &str| post_lines(&door, body);
    std::thread::scope(|scope| {
        let filling = scope.spawn(|| post(&filling));
        wait_for_requests(&mut node, 1);
        assert_eq!(post(&unpaid).status, 503);
        let paid = scope.spawn(|| post(&paid));
        wait_for_requests(&mut node, 3);
        disk.set("").expect("rules");
        assert_eq!(filling.join().expect("post").status, 202);
        assert_eq!(paid.join().expect("post").status, 202);
    });
    node.drain().expect("drain");
}
