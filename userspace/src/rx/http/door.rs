//! The door: a worker's connections and the requests on them, between its ring and its desk.
//!
//! Bytes that arrive become requests, requests become clicks, and these wait here in the order they came
//! until the journal has room for them. The desk decides them like those of datagrams; when the last
//! click of a request is durable its response goes out. Every connection has a deadline, whatever it
//! waits for, and everything is bounded by [`Settings`]; what is beyond the bounds is refused and counted.
//!
//! Start reading at [`Door::hear`], then [`Door::decide`], then [`Door::settled`].

mod desk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use weir_common::reason::{Outcome, Reason};

use super::catalog::Catalog;
use super::connection::{Connection, Next, Waits};
use super::head::Limits;
use super::intake::Decoding;
use super::problem::Problem;
use super::requests::{Part, Requests};
use super::tls::Session;
use crate::admission::Admission;
use crate::published::Shared;
use crate::stats::OwnStats;
use crate::uring::{ListenerId, StreamBuffer, StreamEvent, StreamId};
use crate::withdrawal::AtomicWithdrawal;
use crate::worker::clock::Now;
use crate::worker::reply::RequestId;

/// How long a connection that ends is read on: a few round trips of any network.
const LINGER_NS: u64 = 1_000_000_000;
/// How often deadlines are looked at: well below the shortest of them.
const SWEEP_NS: u64 = 250_000_000;

/// What a door is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What one request may be.
    pub limits: Limits,
    /// Connections at once.
    pub connections_max: u32,
    /// Clicks at once that wait for their decision or their block.
    pub clicks_max: usize,
    /// How long a head may take, from its first byte, and a handshake.
    pub head_ns_max: u64,
    /// How long a body may take.
    pub body_ns_max: u64,
    /// How long a connection may be silent between requests.
    pub idle_ns_max: u64,
    /// How long a response may take to go out.
    pub send_ns_max: u64,
    /// How many listeners there are.
    pub listeners: u16,
    /// What TLS is spoken with, and the first listener where it is; those before are plain.
    pub tls: Option<(ListenerId, Arc<ServerConfig>)>,
}

/// What carries a door's bytes: the ring of its worker.
pub trait Streams {
    /// Starts a stopped listener again.
    fn arm_listener(&mut self, listener: ListenerId);
    /// Stops accepting.
    fn stop_accepting(&mut self, listener: ListenerId);
    /// Reads a stream, until it stops.
    fn arm_stream(&mut self, stream: StreamId);
    /// Reads a stream no more.
    fn pause_stream(&mut self, stream: StreamId);
    /// Bytes that arrived.
    fn arrived(&self, buffer: &StreamBuffer, filled: usize) -> &[u8];
    /// Gives a buffer back.
    fn recycle_stream(&mut self, buffer: StreamBuffer);
    /// Sends bytes; one send at a time.
    fn send_stream(&mut self, stream: StreamId, bytes: Vec<u8>);
    /// Says that nothing more comes.
    fn finish_stream(&mut self, stream: StreamId);
    /// Closes a stream.
    fn close_stream(&mut self, stream: StreamId);
    /// Whom a stream leads to.
    fn peer_of(&mut self, stream: StreamId) -> Option<SocketAddr>;
}

/// A copy of what was malformed, on its way to the desk.
struct BodySample {
    reason: Reason,
    from: SocketAddr,
    bytes: Vec<u8>,
    is_cut: bool,
}

/// Samples of one turn: more than a second of them are kept.
const SAMPLES_MAX: usize = 16;

/// A worker's door.
pub struct Door {
    settings: Settings,
    catalog: Shared<Catalog>,
    admission: Shared<Admission>,
    withdrawal: Arc<AtomicWithdrawal>,
    connections: Vec<Option<Connection>>,
    open: usize,
    next_generation: u32,
    requests: Requests,
    /// Requests with clicks to decide, oldest first.
    undecided: VecDeque<RequestId>,
    /// Listeners whose accept failed.
    stopped: Vec<ListenerId>,
    /// Since when it drains.
    draining_since_ns: Option<u64>,
    /// Whether the journal takes clicks, as far as is known.
    is_taking: bool,
    swept_ns: u64,
    /// Connections that have a response to send.
    answered: Vec<StreamId>,
    /// Clicks to be counted that are none to decide on.
    owed: Vec<(Outcome, Reason, u32)>,
    /// The bytes of some that were malformed.
    samples: Vec<BodySample>,
    parts: Vec<Part>,
    decoding: Decoding,
    /// A response as it is made: memory for the next.
    response: Vec<u8>,
    date: (u64, Option<String>),
    stats: OwnStats,
}

impl Door {
    /// A door at which nobody has knocked yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        catalog: Shared<Catalog>,
        admission: Shared<Admission>,
        withdrawal: Arc<AtomicWithdrawal>,
        stats: OwnStats,
    ) -> Self {
        Self {
            connections: (0..settings.connections_max).map(|_| None).collect(),
            settings,
            catalog,
            admission,
            withdrawal,
            open: 0,
            next_generation: 0,
            requests: Requests::default(),
            undecided: VecDeque::new(),
            stopped: Vec::new(),
            draining_since_ns: None,
            is_taking: true,
            swept_ns: 0,
            answered: Vec::new(),
            owed: Vec::new(),
            samples: Vec::new(),
            parts: Vec::new(),
            decoding: Decoding::default(),
            response: Vec::new(),
            date: (0, None),
            stats,
        }
    }

    /// Takes note of what the ring says of listeners and streams.
    pub fn hear(&mut self, now: Now, event: StreamEvent, host: &mut impl Streams) {
        match event {
            StreamEvent::Accepted { stream: None, .. } => self.stats.connections_refused.add(1),
            StreamEvent::Accepted { stream: Some(stream), listener } => {
                self.welcome(now, stream, listener, host);
            }
            StreamEvent::AcceptStopped { listener, error } => {
                self.stopped_accepting(listener, error, host);
            }
            StreamEvent::Arrived { stream, buffer, filled } => {
                let read = self.get(stream).map(|connection| connection.feed(host.arrived(&buffer, filled)));
                host.recycle_stream(buffer);
                match read {
                    Some(Ok(())) => self.go_on(now, stream, host),
                    Some(Err(error)) => self.end_session(now, stream, &error, host),
                    None => {}
                }
            }
            StreamEvent::Stopped { stream, error } => self.stopped_reading(stream, error, host),
            StreamEvent::Sent { stream, bytes, result } => self.sent(now, stream, bytes, result, host),
        }
    }

    fn get(&mut self, stream: StreamId) -> Option<&mut Connection> {
        self.connections.get_mut(stream.0 as usize)?.as_mut()
    }

    fn welcome(&mut self, now: Now, stream: StreamId, listener: ListenerId, host: &mut impl Streams) {
        let tls = self.settings.tls.as_ref().filter(|(first, _)| first.0 <= listener.0);
        let session = tls.map(|(_, settings)| Session::new(settings)).transpose();
        let (Some(peer), Ok(session)) = (host.peer_of(stream), session) else {
            host.close_stream(stream);
            return;
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        let mut connection = Connection::new(self.next_generation, peer, session);
        connection.is_armed = true;
        self.connections[stream.0 as usize] = Some(connection);
        self.watch(now, stream);
        self.open += 1;
        self.stats.connections_accepted.add(1);
        self.stats.connections_open.set(self.open as u64);
        host.arm_stream(stream);
    }

    fn close(&mut self, stream: StreamId, host: &mut impl Streams) {
        if self.connections.get_mut(stream.0 as usize).and_then(Option::take).is_some() {
            self.open -= 1;
            self.stats.connections_open.set(self.open as u64);
            host.close_stream(stream);
        }
    }

    /// What came is no TLS: its alert goes out, and the connection ends.
    fn end_session(&mut self, now: Now, stream: StreamId, error: &rustls::Error, host: &mut impl Streams) {
        tracing::debug!(stream = stream.0, %error, "a connection is refused");
        self.stats.tls_failures.add(1);
        if let Some(connection) = self.get(stream) {
            connection.respond(&[], false);
        }
        self.flush(now, stream, host);
    }

    fn stopped_accepting(&mut self, listener: ListenerId, error: Option<io::Error>, host: &mut impl Streams) {
        match error {
            _ if self.is_draining() => {}
            None => host.arm_listener(listener),
            // What fails at once would fail at once again: it waits for the next sweep.
            Some(error) => {
                tracing::warn!(listener = listener.0, %error, "accepting stopped; it is started again");
                self.stopped.push(listener);
            }
        }
    }

    fn stopped_reading(&mut self, stream: StreamId, error: Option<io::Error>, host: &mut impl Streams) {
        let Some(connection) = self.get(stream) else { return };
        connection.is_armed = false;
        match error.map(|error| error.raw_os_error()) {
            // Out of buffers, or paused: it goes on when there is room.
            Some(Some(libc::ENOBUFS | libc::ECANCELED)) => self.arm(stream, host),
            Some(_) => self.close(stream, host),
            None => {
                connection.end_of_input();
                // Who has said all may still wait for the answer.
                self.close_if_done(stream, host);
            }
        }
    }

    fn sent(
        &mut self,
        now: Now,
        stream: StreamId,
        bytes: Vec<u8>,
        result: io::Result<usize>,
        host: &mut impl Streams,
    ) {
        let Some(connection) = self.get(stream) else { return };
        connection.is_sending = false;
        if !result.is_ok_and(|sent| sent == bytes.len()) {
            self.close(stream, host);
            return;
        }
        connection.recycle(bytes);
        self.go_on(now, stream, host);
    }

    /// Closes a connection whose other side sends nothing more and waits for nothing.
    fn close_if_done(&mut self, stream: StreamId, host: &mut impl Streams) {
        let is_done = |one: &mut Connection| one.has_ended() && !one.is_deciding() && !one.is_sending;
        if self.get(stream).is_some_and(is_done) {
            self.close(stream, host);
        }
    }

    /// Reads on where there is room, and is told to stop where there is none.
    fn arm(&mut self, stream: StreamId, host: &mut impl Streams) {
        let Some(connection) = self.get(stream) else { return };
        let wants = !connection.is_full() && !connection.has_ended();
        if wants && !connection.is_armed {
            connection.is_armed = true;
            host.arm_stream(stream);
        } else if !wants && connection.is_armed && connection.is_full() {
            host.pause_stream(stream);
        }
    }

    fn flush(&mut self, now: Now, stream: StreamId, host: &mut impl Streams) {
        let send_ns_max = self.settings.send_ns_max;
        let Some(connection) = self.get(stream) else { return };
        if let Some(bytes) = connection.take_output() {
            connection.is_sending = true;
            // Each send has its own time, also one that follows another.
            connection.wait(Waits::Send, now.monotonic_ns.saturating_add(send_ns_max));
            host.send_stream(stream, bytes);
        } else if connection.is_over() {
            connection.linger();
            host.finish_stream(stream);
        }
        self.watch(now, stream);
    }

    /// Takes what requests there are on a connection, until one has to be decided.
    fn go_on(&mut self, now: Now, stream: StreamId, host: &mut impl Streams) {
        let limits = self.settings.limits;
        while let Some(connection) = self.get(stream) {
            match connection.next(&limits) {
                Next::Nothing => break,
                Next::Request => self.request(now, stream),
                Next::Refused(problem) => self.refuse_stream(now, stream, problem),
            }
        }
        self.flush(now, stream, host);
        self.arm(stream, host);
        self.close_if_done(stream, host);
    }

    /// Sets the deadline when what a connection waits for has changed.
    fn watch(&mut self, now: Now, stream: StreamId) {
        let Settings { head_ns_max, body_ns_max, idle_ns_max, send_ns_max, .. } = self.settings;
        let Some(connection) = self.get(stream) else { return };
        let waits = connection.waits_for();
        if waits == connection.waits() {
            return;
        }
        let within_ns = match waits {
            Waits::Idle => idle_ns_max,
            Waits::Head => head_ns_max,
            Waits::Body => body_ns_max,
            Waits::Send => send_ns_max,
            Waits::Linger => LINGER_NS,
            // The journal answers in its own time, or refuses.
            Waits::Decision => u64::MAX,
        };
        connection.wait(waits, now.monotonic_ns.saturating_add(within_ns));
    }

    /// Closes what has waited too long, and accepts again where that failed, now and then.
    pub fn sweep(&mut self, now: Now, host: &mut impl Streams) {
        if now.monotonic_ns.saturating_sub(self.swept_ns) < SWEEP_NS {
            return;
        }
        self.swept_ns = now.monotonic_ns;
        self.stopped.drain(..).for_each(|listener| host.arm_listener(listener));
        if self.open == 0 {
            return;
        }
        for place in 0..self.connections.len() {
            let stream = StreamId(place as u32);
            let is_late = |one: &&mut Connection| one.deadline_ns() <= now.monotonic_ns;
            let Some(waits) = self.get(stream).filter(is_late).map(|connection| connection.waits()) else {
                continue;
            };
            self.stats.connections_timed_out.add(u64::from(waits != Waits::Linger));
            match waits {
                // Who has begun is told; it has no long time to read it.
                Waits::Body => {
                    self.refuse_stream(now, stream, Problem::Timeout);
                    self.flush(now, stream, host);
                }
                _ => self.close(stream, host),
            }
        }
    }

    /// No new connections and requests; what is under way is finished.
    pub fn drain(&mut self, now: Now, host: &mut impl Streams) {
        self.draining_since_ns = Some(now.monotonic_ns);
        self.stopped.clear();
        for listener in 0..self.settings.listeners {
            host.stop_accepting(ListenerId(listener));
        }
        for place in 0..self.connections.len() {
            let stream = StreamId(place as u32);
            if self.get(stream).is_some_and(|one| one.waits_for() == Waits::Idle) {
                self.close(stream, host);
            }
        }
    }

    /// Whether clicks wait for the desk.
    #[must_use]
    pub fn has_undecided(&self) -> bool {
        !self.undecided.is_empty() || !self.owed.is_empty()
    }

    fn is_draining(&self) -> bool {
        self.draining_since_ns.is_some()
    }

    /// Whether no request waits for anything. Responses under way are waited for too, and requests on connections that
    /// had none yet, but not for senders that take their time.
    #[must_use]
    pub fn is_settled(&self, now: Now) -> bool {
        // Asked at each turn, so not before a drain are all connections looked at.
        let Some(since_ns) = self.draining_since_ns else { return self.requests.is_empty() };
        let is_patient = now.monotonic_ns.saturating_sub(since_ns) < LINGER_NS;
        let is_busy = |one: &Connection| !matches!(one.waits_for(), Waits::Idle | Waits::Linger);
        self.requests.is_empty() && !(is_patient && self.connections.iter().flatten().any(is_busy))
    }
}
