//! A door over a ring that is a list of what it was told.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_common::time::UnixMs;

use super::*;
use crate::admission::{self, KeyRing};
use crate::published::Published;
use crate::stats::WorkerStats;
use crate::withdrawal::Withdrawal;

const HEALTH: &[u8] = b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n";
const STREAM: StreamId = StreamId(0);
const LISTENER: ListenerId = ListenerId(0);
const LIMITS: Limits = Limits { head_bytes_max: 8192, body_bytes_max: 4096, decoded_bytes_max: 4096 };

/// What a door told its ring of one stream.
#[derive(Default)]
struct Ring {
    sent: Vec<u8>,
    is_finished: bool,
    is_closed: bool,
}

impl Streams for Ring {
    fn arm_listener(&mut self, _: ListenerId) {}
    fn stop_accepting(&mut self, _: ListenerId) {}
    fn arm_stream(&mut self, _: StreamId) {}
    fn pause_stream(&mut self, _: StreamId) {}
    fn arrived(&self, _: &StreamBuffer, _: usize) -> &[u8] {
        unreachable!("bytes are given to the connection")
    }
    fn recycle_stream(&mut self, _: StreamBuffer) {}
    fn send_stream(&mut self, _: StreamId, bytes: Vec<u8>) {
        self.sent = bytes;
    }
    fn finish_stream(&mut self, _: StreamId) {
        self.is_finished = true;
    }
    fn close_stream(&mut self, _: StreamId) {
        self.is_closed = true;
    }
    fn peer_of(&mut self, _: StreamId) -> Option<SocketAddr> {
        Some(([192, 0, 2, 1], 9).into())
    }
}

const fn at(monotonic_ns: u64) -> Now {
    Now { wall: UnixMs(0), doubt: None, monotonic_ns }
}

fn door(withdrawal: Withdrawal) -> Door {
    const LONG_NS: u64 = 3_600_000_000_000;
    let settings = Settings {
        limits: LIMITS,
        connections_max: 1,
        clicks_max: 100,
        head_ns_max: LONG_NS,
        body_ns_max: LONG_NS,
        idle_ns_max: LONG_NS,
        send_ns_max: LONG_NS,
        listeners: 1,
        tls: None,
    };
    let told = Arc::new(AtomicWithdrawal::default());
    told.set(withdrawal);
    let admission =
        Admission::new(admission::Settings::default(), KeyRing::new(&[]).expect("a ring without keys"));
    let stats = OwnStats::new([WorkerStats::default()].into(), 0);
    let (catalog, admission) = (Published::new(Catalog::default()), Published::new(admission));
    Door::new(settings, catalog.reader(), admission.reader(), told, stats)
}

fn accept(door: &mut Door, now: Now, ring: &mut Ring) {
    door.hear(now, StreamEvent::Accepted { listener: LISTENER, stream: Some(STREAM) }, ring);
}

/// Bytes of a connection come in; what is sent for them, once that is out.
fn ask(door: &mut Door, now: Now, ring: &mut Ring) -> String {
    door.get(STREAM).expect("a connection").feed(HEALTH).expect("no TLS");
    door.go_on(now, STREAM, ring);
    let bytes = std::mem::take(&mut ring.sent);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let result = Ok(bytes.len());
    door.hear(now, StreamEvent::Sent { stream: STREAM, bytes, result }, ring);
    text
}

#[test]
fn who_came_before_a_drain_and_has_not_asked_yet_is_answered_and_waited_for() {
    let (mut door, mut ring) = (door(Withdrawal::None), Ring::default());
    accept(&mut door, at(0), &mut ring);
    door.drain(at(0), &mut ring);
    assert!(!ring.is_closed && !door.is_settled(at(1)), "its request may be under way");
    let told = ask(&mut door, at(2), &mut ring);
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("Connection: close"), "{told}");
    assert!(ring.is_finished && door.is_settled(at(3)));
}

#[test]
fn who_was_accepted_when_a_drain_began_is_let_in_and_not_waited_for_for_ever() {
    let (mut door, mut ring) = (door(Withdrawal::None), Ring::default());
    door.drain(at(0), &mut ring);
    accept(&mut door, at(1), &mut ring);
    assert!(!ring.is_closed && !door.is_settled(at(LINGER_NS - 1)));
    assert!(door.is_settled(at(LINGER_NS)), "it takes its time");
    let told = ask(&mut door, at(LINGER_NS), &mut ring);
    assert!(told.contains("Connection: close"), "{told}");
}

#[test]
fn who_waits_between_requests_is_closed_by_a_drain_and_keeps_nobody_waiting() {
    let (mut door, mut ring) = (door(Withdrawal::None), Ring::default());
    accept(&mut door, at(0), &mut ring);
    let told = ask(&mut door, at(1), &mut ring);
    assert!(told.starts_with("HTTP/1.1 200") && !told.contains("Connection: close"), "{told}");
    door.drain(at(2), &mut ring);
    assert!(ring.is_closed && door.is_settled(at(2)));
}

#[test]
fn out_of_service_each_request_is_the_last_of_its_connection() {
    for withdrawal in [Withdrawal::Finishing, Withdrawal::Withdrawn] {
        let (mut door, mut ring) = (door(withdrawal), Ring::default());
        accept(&mut door, at(0), &mut ring);
        let told = ask(&mut door, at(1), &mut ring);
        assert!(told.starts_with("HTTP/1.1 200") && told.contains("Connection: close"), "{told}");
        assert!(ring.is_finished && !ring.is_closed, "its end is told, and the other side's waited for");
    }
}
