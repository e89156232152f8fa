//! The pinned loop that ties the rooms together: gather, decide, journal, reply.
//!
//! One worker per core. It owns a ring, its sockets, a share of the shards with their ledger, and
//! a journal; nothing of it is shared but counters and the single-producer rings of
//! [`handoff`]. It never waits for anything but its own ring.
//!
//! Start reading at [`Worker::turn`]. What is decided stands in [`desk`], what is written in
//! [`book`], what is answered in [`reply`]; what carries it out is a [`host`].

pub mod book;
pub mod clock;
pub mod commit;
pub mod desk;
mod disk_faults;
pub mod drain;
pub mod handoff;
pub mod host;
pub mod kernel;
pub mod phase;
pub mod reply;
pub mod shard_map;
pub mod unflushed;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::BlockSeq;
use weir_common::reason::Reason;

use crate::forward::{FlushNo, Mailbox, Share};
use crate::rx::http::door::Door;
use crate::stats::{OwnStats, WorkerStats};
use crate::uring::{Completion, ReceiverId, UringError};

use clock::Now;
use commit::JournalShell;
use desk::{Desk, Parts};
use drain::{Drain, Step, View};
use host::Host;
use phase::Phase;
use reply::{AckPacker, ReplyTo};
use unflushed::Unflushed;

/// The longest sleep: how soon a worker sees a flush or a drain asked for by another thread.
const IDLE_TICK: Duration = Duration::from_millis(10);
/// How long a start waits for a worker's first segment: many times what a healthy disk takes.
const PREPARED_WITHIN: Duration = Duration::from_secs(2);
/// The sleep during a drain, whose steps others wait for.
const DRAIN_TICK: Duration = Duration::from_millis(1);

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The ring failed.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// A thread or descriptor could not be had.
    #[error("worker {worker} cannot {operation}: {source}; raise the limits on threads and open files")]
    Start {
        /// Which worker.
        worker: u16,
        /// What it wanted.
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a worker is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the first row of a block waits for company.
    pub commit_window: Duration,
    /// Datagrams that may have been read and not been decided.
    pub receive_buffers: u16,
}

/// One of a worker's sockets.
struct Socket {
    receiver: ReceiverId,
    armed: bool,
    /// Datagrams it has dropped that are counted, modulo 2^32.
    drops_counted: u32,
}

/// A flush that was asked for and waits for its last block to be durable.
type PendingFlush = Option<Share>;

/// Pins the calling thread to a core; a core that cannot be had costs speed and nothing else.
pub fn pin(core: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        tracing::warn!(core, "the worker could not be pinned; is the core online and allowed?");
    }
}

/// A worker on its host. Built and run on its own thread.
pub struct Worker<H: Host> {
    settings: Settings,
    host: H,
    sockets: Vec<Socket>,
    door: Option<Door>,
    desk: Desk,
    shell: JournalShell<H::File>,
    acks: AckPacker<H::Slot>,
    received: VecDeque<(ReceiverId, H::Buffer, usize)>,
    completions: Vec<Completion<H::Buffer>>,
    last_datagram_ns: u64,
    flushes: Mailbox,
    flush: PendingFlush,
    /// The last block that a flush covered.
    flushed: BlockSeq,
    /// What the refold left. It goes first and alone: its rows are durable, so it has to wait for
    /// nothing, and until all workers have sent it a bucket would go out with the shares of some.
    first_share: Option<Vec<(BucketKey, BucketTotals)>>,
    unflushed: Unflushed,
    drain: Drain,
    phase: Arc<Phase>,
    stats: OwnStats,
}

impl<H: Host> Worker<H> {
    /// A worker that has done nothing yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        host: H,
        parts: Parts,
        flushes: Mailbox,
        mut unflushed: Unflushed,
        phase: Arc<Phase>,
    ) -> Self {
        parts.port.bell().hang(host.bell());
        let socket = |number| Socket { receiver: ReceiverId(number as u16), armed: true, drops_counted: 0 };
        Self {
            settings,
            sockets: (0..host.receivers()).map(socket).collect(),
            host,
            door: None,
            shell: JournalShell::new(parts.stats.clone()),
            stats: parts.stats.clone(),
            desk: Desk::new(parts),
            acks: AckPacker::default(),
            received: VecDeque::with_capacity(usize::from(settings.receive_buffers)),
            completions: Vec::with_capacity(usize::from(settings.receive_buffers)),
            last_datagram_ns: 0,
            flushes,
            flush: None,
            flushed: BlockSeq(0),
            first_share: Some(unflushed.drain()),
            unflushed,
            drain: Drain::default(),
            phase,
        }
    }

    /// Opens a door for requests, on the listeners that its host has.
    #[must_use]
    pub fn with_door(mut self, door: Option<Door>) -> Self {
        self.door = door;
        self
    }

    /// Waits for the first segment, so that a node that says it is ready has no click come again. A disk
    /// that gives none in [`PREPARED_WITHIN`] is no reason not to start.
    ///
    /// # Errors
    /// When the host fails.
    pub fn prepare(&mut self) -> Result<(), WorkerError> {
        let began_ns = self.host.now().monotonic_ns;
        while !self.desk.book.has_room() && !self.desk.book.is_stuck() {
            let waited = Duration::from_nanos(self.host.now().monotonic_ns.saturating_sub(began_ns));
            if waited >= PREPARED_WITHIN {
                break;
            }
            self.journal();
            self.gather()?;
        }
        Ok(())
    }

    /// Begins to count what its sockets drop from here: of each, in their order, what is counted already.
    #[must_use]
    pub fn with_drops_counted(mut self, counted: &[u32]) -> Self {
        for (socket, &counted) in self.sockets.iter_mut().zip(counted) {
            socket.drops_counted = counted;
        }
        self
    }

    /// Runs until the drain is over. Returns what is counted then of the drops of each socket.
    ///
    /// # Errors
    /// When the ring fails; what was acknowledged is in the journal.
    pub fn run(mut self) -> Result<Vec<u32>, WorkerError> {
        while !self.phase.is_stopped() {
            self.turn()?;
        }
        Ok(self.sockets.iter().map(|socket| socket.drops_counted).collect())
    }

    /// One turn of the loop.
    ///
    /// # Errors
    /// When the host fails; what was acknowledged is in the journal.
    pub fn turn(&mut self) -> Result<(), WorkerError> {
        self.stats.turns.add(1);
        self.gather()?;
        self.decide();
        self.journal();
        self.reply();
        self.answer_flush();
        self.follow_drain();
        Ok(())
    }

    /// Where it decides, to look at.
    #[must_use]
    pub const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// What it stands on.
    pub const fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// Sleeps until something happens, then sorts what did.
    fn gather(&mut self) -> Result<(), WorkerError> {
        let host = &mut self.host;
        self.desk.port.wake_sleepers(|bell| host.wake(bell));
        self.desk.port.bell().doze();
        let timeout = self.sleep();
        self.stats.sleeps.add(u64::from(!timeout.is_zero()));
        let waited = self.host.wait(timeout, &mut self.completions);
        self.desk.port.bell().rise();
        waited?;
        let now = self.host.now();
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.sort(now, completion);
        }
        self.completions = completions;
        Ok(())
    }

    /// How long the loop may sleep; looked at after the bell was set to doze.
    fn sleep(&mut self) -> Duration {
        let waits = !self.received.is_empty() || self.door.as_ref().is_some_and(Door::has_undecided);
        if self.desk.port.has_work() || (waits && self.desk.book.has_room()) {
            return Duration::ZERO;
        }
        let tick = if self.drain.has_begun() { DRAIN_TICK } else { IDLE_TICK };
        let (rows, since_ns) = self.desk.book.open_rows();
        if rows == 0 || !self.desk.book.journal().is_idle() {
            return tick; // the journal's completion wakes us
        }
        let waited = Duration::from_nanos(self.host.now().monotonic_ns.saturating_sub(since_ns));
        tick.min(self.settings.commit_window.saturating_sub(waited))
    }

    fn sort(&mut self, now: Now, completion: Completion<H::Buffer>) {
        match completion {
            Completion::Received { receiver, buffer, filled } => {
                self.last_datagram_ns = now.monotonic_ns;
                self.received.push_back((receiver, buffer, filled));
            }
            Completion::ReceiverStopped { receiver, error } => {
                let socket = &mut self.sockets[usize::from(receiver.0)];
                socket.armed = false;
                let expected = [libc::ENOBUFS, libc::ECANCELED];
                let code = error.as_ref().and_then(io::Error::raw_os_error);
                if let Some(error) = error.filter(|_| code.is_some_and(|code| !expected.contains(&code))) {
                    tracing::warn!(receiver = receiver.0, %error, "receiving stopped; it is started again");
                }
            }
            Completion::Sent(Ok(())) | Completion::Woken => {}
            Completion::Stream(event) => {
                if let Some(door) = &mut self.door {
                    door.hear(now, event, &mut self.host);
                }
            }
            Completion::Sent(Err(_)) => self.stats.ack_send_failures.add(1),
            Completion::Written { tag, offset, buffer, result } => {
                self.shell.written(&mut self.desk.book, tag, offset, buffer, result);
            }
            Completion::Synced { tag, result } => {
                self.shell.synced(now, &mut self.desk.book, tag, result);
            }
        }
    }

    /// Decides what was received, a batch at a time, as long as the journal has room for it.
    fn decide(&mut self) {
        let now = self.host.now();
        self.unflushed.take_each_minute(now.wall, &mut self.desk.ledger, |_| true);
        while !self.received.is_empty() && (self.desk.book.has_room() || self.desk.book.is_stuck()) {
            let now = self.host.now();
            let batch = self.received.len().min(self.desk.book.batch_datagrams());
            let (host, sockets, stats) = (&self.host, &mut self.sockets, &self.stats);
            let datagrams = self.received.iter().take(batch).filter_map(|(receiver, buffer, filled)| {
                let datagram = host.datagram(buffer, *filled)?;
                if let Some(drops) = datagram.socket_drops {
                    sockets[usize::from(receiver.0)].note_drops(drops, stats);
                }
                Some((*receiver, datagram))
            });
            self.desk.take_in(now, datagrams);
            for (_, buffer, _) in self.received.drain(..batch) {
                self.host.recycle(buffer);
            }
        }
        let now = self.host.now();
        if let Some(door) = &mut self.door {
            door.decide(now, &mut self.desk);
        }
        self.desk.take_over(now);
        if self.drain.is_reading() {
            for socket in self.sockets.iter_mut().filter(|socket| !socket.armed) {
                self.host.arm(socket.receiver);
                socket.armed = true;
            }
        }
    }

    /// Closes the open block when its time has come, and keeps the journal busy.
    fn journal(&mut self) {
        let now = self.host.now();
        let (rows, since_ns) = self.desk.book.open_rows();
        let waited = Duration::from_nanos(now.monotonic_ns.saturating_sub(since_ns));
        if rows > 0 && self.desk.book.journal().is_idle() && waited >= self.settings.commit_window {
            self.desk.book.seal();
        }
        self.shell.run(now, &mut self.desk.book, &mut self.host);
    }

    /// Sends the acks of everything that has become durable.
    fn reply(&mut self) {
        self.desk.settle();
        let mut ready = std::mem::take(&mut self.desk.ready);
        let now = self.host.now();
        if !ready.is_empty() {
            for waiting in ready.drain(..) {
                match waiting.to {
                    ReplyTo::Datagram { peer, batch_id } => {
                        self.acks.add(&mut self.host, &peer, waiting.ack(batch_id), waiting.statuses());
                        self.stats
                            .ack_latency
                            .record(now.monotonic_ns.saturating_sub(waiting.received_ns), 1);
                    }
                    ReplyTo::Request { request, first, .. } => {
                        if let Some(door) = &mut self.door {
                            door.settled(now, request, first, &waiting);
                        }
                    }
                }
            }
            self.acks.flush(&mut self.host);
            self.acks.count_into(&self.stats);
        }
        self.desk.ready = ready;
        if let Some(door) = &mut self.door {
            door.reply(now, &mut self.host);
            door.sweep(now, &mut self.host);
        }
        self.stats.datagrams_waiting.set(self.desk.waiting() as u64);
    }

    /// Answers a flush: what changed up to a block, once that block is durable.
    fn answer_flush(&mut self) {
        if self.flush.is_none()
            && let Some(flush) = self.flushes.requested()
        {
            self.begin_flush(flush);
        }
        let Some(share) = self.flush.take() else { return };
        self.flush = if share.upto <= self.desk.book.durable() {
            let upto = share.upto;
            let answered = self.flushes.answer(share);
            if answered.is_ok() {
                self.flushed = upto;
            }
            answered.err()
        } else if self.desk.book.is_blocked() {
            Some(self.take_back(share))
        } else {
            Some(share)
        };
    }

    fn begin_flush(&mut self, flush: FlushNo) {
        if let Some(changed) = self.first_share.take() {
            // What changed since the start goes with the next flush; its minutes stay open till then.
            self.flush = Some(Share { changed, ..self.nothing_new(flush) });
            return;
        }
        self.desk.book.seal();
        let (rows, _) = self.desk.book.open_rows();
        if rows > 0 {
            // The journal takes no block now; what changed must not run ahead of the rows.
            if self.desk.book.is_blocked() {
                self.flush = Some(self.nothing_new(flush));
            }
            return;
        }
        self.stats.impressions_live.set(self.desk.ledger.impressions_live() as u64);
        self.stats.buckets_open.set(self.desk.ledger.buckets_open() as u64);
        let now = self.host.now();
        self.flush = Some(Share {
            worker: self.desk.worker(),
            flush,
            upto: self.desk.book.sealed(),
            changed: self.unflushed.flush(now.wall, &mut self.desk.ledger),
            oldest_received_at: self.desk.book.take_oldest_unflushed(),
            held_back: None,
        });
    }

    /// Takes a share back that cannot become durable before there is space. The flush must not
    /// wait for it: trimming, which makes space, waits for the flush.
    fn take_back(&mut self, share: Share) -> Share {
        self.unflushed.put_back(share.changed);
        self.desk.book.put_back_oldest_unflushed(share.oldest_received_at);
        self.nothing_new(share.flush)
    }

    /// A share with nothing beyond the last one.
    fn nothing_new(&mut self, flush: FlushNo) -> Share {
        self.unflushed.take(&mut self.desk.ledger, |_| true);
        Share {
            worker: self.desk.worker(),
            flush,
            upto: self.flushed,
            changed: Vec::new(),
            oldest_received_at: None,
            held_back: self.unflushed.oldest_minute(),
        }
    }

    fn follow_drain(&mut self) {
        let now = self.host.now();
        let view = View {
            now_ns: now.monotonic_ns,
            last_datagram_ns: self.last_datagram_ns,
            receivers_armed: self.sockets.iter().filter(|socket| socket.armed).count() + self.received.len(),
            settled: self.desk.is_settled() && self.door.as_ref().is_none_or(|door| door.is_settled(now)),
        };
        match self.drain.step(&self.phase, view) {
            Step::None => {}
            Step::StopReceiving => {
                for socket in &self.sockets {
                    self.host.stop_receiving(socket.receiver);
                }
                if let Some(door) = &mut self.door {
                    door.drain(now, &mut self.host);
                }
            }
            Step::SealLast => {
                self.desk.book.seal();
                for socket in &mut self.sockets {
                    if let Some(drops) = self.host.socket_drops(socket.receiver) {
                        socket.note_drops(drops, &self.stats);
                    }
                }
            }
        }
    }
}

impl Socket {
    fn note_drops(&mut self, drops: u32, stats: &WorkerStats) {
        // The kernel's counter wraps; a counter read later than a newer one would run backwards,
        // which as a difference is a number near 2^32.
        let new = drops.wrapping_sub(self.drops_counted);
        if new < u32::MAX / 2 {
            stats.reasons[Reason::SocketOverflow as usize].add(u64::from(new));
            self.drops_counted = drops;
        }
    }
}
