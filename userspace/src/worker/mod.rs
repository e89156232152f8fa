//! The pinned loop that ties the rooms together: gather, decide, journal, reply.
//!
//! One worker per core. It owns a ring, its sockets, a share of the shards with their ledger, and
//! a journal; nothing of it is shared but counters and the single-producer rings of
//! [`handoff`]. It never waits for anything but its own ring.
//!
//! Start reading at [`Worker::run`]. What is decided stands in [`desk`], what is written in
//! [`book`], what is answered in [`reply`].

pub mod book;
pub mod clock;
pub mod commit;
pub mod desk;
pub mod drain;
pub mod handoff;
pub mod phase;
pub mod reply;
pub mod shard_map;
pub mod unflushed;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use weir_common::reason::Reason;
use weir_common::time::UnixMs;

use crate::forward::{FlushNo, Mailbox, Share};
use crate::rx::udp::socket_drops;
use crate::stats::{OwnStats, WorkerStats};
use crate::uring::{self, BufferId, Completion, Peer, ReceiverId, SLOT_PAYLOAD, SlotId, Uring, UringError};

use book::BATCH_DATAGRAMS;
use clock::{Clock, Now};
use commit::JournalShell;
use desk::{Desk, Parts};
use drain::{Drain, Step, View};
use phase::Phase;
use reply::{AckPacker, SendSlots};
use unflushed::Unflushed;

/// The longest sleep: how soon a worker sees a flush or a drain asked for by another thread.
const IDLE_TICK: Duration = Duration::from_millis(10);
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
    /// The core it is pinned to; `None` leaves it where the scheduler puts it.
    pub core: Option<usize>,
    /// How long the first row of a block waits for company.
    pub commit_window: Duration,
    /// The ring's size.
    pub ring: uring::Settings,
    /// The latest receive time in the journal.
    pub clock_floor: UnixMs,
}

/// One of a worker's sockets.
struct Socket {
    /// A second descriptor, to read counters from; the first is the ring's.
    socket: OwnedFd,
    receiver: ReceiverId,
    armed: bool,
    drops_seen: u32,
}

/// A flush that was asked for and waits for its last block to be durable.
type PendingFlush = Option<Share>;

/// A worker. Built and run on its own thread.
pub struct Worker {
    settings: Settings,
    uring: Uring,
    sockets: Vec<Socket>,
    desk: Desk,
    shell: JournalShell,
    clock: Clock,
    acks: AckPacker,
    received: VecDeque<(ReceiverId, BufferId, usize)>,
    completions: Vec<Completion>,
    last_datagram_ns: u64,
    flushes: Mailbox,
    flush: PendingFlush,
    unflushed: Unflushed,
    drain: Drain,
    phase: Arc<Phase>,
    stats: OwnStats,
}

impl Worker {
    /// Sets a worker up on the thread that will run it.
    ///
    /// # Errors
    /// When the kernel refuses the ring, a thread or a descriptor.
    pub fn new(
        settings: Settings,
        sockets: Vec<OwnedFd>,
        parts: Parts,
        flushes: Mailbox,
        unflushed: Unflushed,
        phase: Arc<Phase>,
    ) -> Result<Self, WorkerError> {
        let worker = parts.worker;
        if let Some(core) = settings.core
            && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
        {
            tracing::warn!(
                worker = worker.0,
                core,
                "the worker could not be pinned; is the core online and allowed?"
            );
        }
        let start = |operation| move |source| WorkerError::Start { worker: worker.0, operation, source };
        let mut uring = Uring::new(settings.ring)?;
        parts.port.bell().hang(uring.raw_fd());
        let mut kept = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let second = socket.try_clone().map_err(start("duplicate a socket"))?;
            let receiver = uring.add_receiver(socket);
            kept.push(Socket { socket: second, receiver, armed: true, drops_seen: 0 });
        }
        let shell = JournalShell::start(worker).map_err(start("start its segment thread"))?;
        Ok(Self {
            settings,
            uring,
            sockets: kept,
            stats: parts.stats.clone(),
            desk: Desk::new(parts),
            shell,
            clock: Clock::new(settings.clock_floor),
            acks: AckPacker::default(),
            received: VecDeque::with_capacity(usize::from(settings.ring.receive_buffers)),
            completions: Vec::with_capacity(usize::from(settings.ring.receive_buffers)),
            last_datagram_ns: 0,
            flushes,
            flush: None,
            unflushed,
            drain: Drain::default(),
            phase,
        })
    }

    /// Runs until the drain is over.
    ///
    /// # Errors
    /// When the ring fails; what was acknowledged is in the journal.
    pub fn run(mut self) -> Result<(), WorkerError> {
        while !self.phase.is_stopped() {
            self.gather()?;
            self.decide();
            self.journal();
            self.reply();
            self.answer_flush();
            self.follow_drain();
        }
        Ok(())
    }

    /// Sleeps until something happens, then sorts what did.
    fn gather(&mut self) -> Result<(), WorkerError> {
        let uring = &mut self.uring;
        self.desk.port.wake_sleepers(|ring| uring.wake(ring));
        self.desk.port.bell().doze();
        let timeout = self.sleep();
        self.stats.sleeps.add(u64::from(!timeout.is_zero()));
        let waited = self.uring.wait(timeout, &mut self.completions);
        self.desk.port.bell().rise();
        waited?;
        let now = self.clock.read();
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.sort(now, completion);
        }
        self.completions = completions;
        Ok(())
    }

    /// How long the loop may sleep; looked at after the bell was set to doze.
    fn sleep(&mut self) -> Duration {
        if self.desk.port.has_work() || (!self.received.is_empty() && self.desk.book.has_room()) {
            return Duration::ZERO;
        }
        let tick = if self.drain.has_begun() { DRAIN_TICK } else { IDLE_TICK };
        let (rows, since_ns) = self.desk.book.open_rows();
        if rows == 0 || !self.desk.book.journal().is_idle() {
            return tick; // the journal's completion wakes us
        }
        let waited = Duration::from_nanos(self.clock.read().monotonic_ns.saturating_sub(since_ns));
        tick.min(self.settings.commit_window.saturating_sub(waited))
    }

    fn sort(&mut self, now: Now, completion: Completion) {
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
            Completion::Sent(Err(_)) => self.stats.ack_send_failures.add(1),
            Completion::Written { tag, offset, buffer, result } => {
                self.shell.written(&mut self.desk.book, tag, offset, buffer, result);
            }
            Completion::Synced { tag, result } => {
                self.shell.synced(now, &mut self.desk.book, tag, result, &self.stats);
            }
        }
    }

    /// Decides what was received, a batch at a time, as long as the journal has room for it.
    fn decide(&mut self) {
        let now = self.clock.read();
        self.unflushed.take_each_minute(now.wall, &mut self.desk.ledger, |_| true);
        while !self.received.is_empty() && (self.desk.book.has_room() || self.desk.book.is_stuck()) {
            let now = self.clock.read();
            let batch = self.received.len().min(BATCH_DATAGRAMS);
            let (uring, sockets, stats) = (&self.uring, &mut self.sockets, &self.stats);
            let datagrams = self.received.iter().take(batch).filter_map(|(receiver, buffer, filled)| {
                let datagram = uring.datagram(buffer, *filled)?;
                if let Some(drops) = datagram.socket_drops {
                    sockets[usize::from(receiver.0)].note_drops(drops, stats);
                }
                Some((*receiver, datagram))
            });
            self.desk.take_in(now, datagrams);
            for (_, buffer, _) in self.received.drain(..batch) {
                self.uring.recycle(buffer);
            }
        }
        let now = self.clock.read();
        self.desk.take_over(now);
        if self.drain.is_reading() {
            for socket in self.sockets.iter_mut().filter(|socket| !socket.armed) {
                self.uring.arm(socket.receiver);
                socket.armed = true;
            }
        }
    }

    /// Closes the open block when its time has come, and keeps the journal busy.
    fn journal(&mut self) {
        let now = self.clock.read();
        let (rows, since_ns) = self.desk.book.open_rows();
        let waited = Duration::from_nanos(now.monotonic_ns.saturating_sub(since_ns));
        if rows > 0 && self.desk.book.journal().is_idle() && waited >= self.settings.commit_window {
            self.desk.book.seal();
        }
        self.shell.run(now, &mut self.desk.book, &mut self.uring);
    }

    /// Sends the acks of everything that has become durable.
    fn reply(&mut self) {
        self.desk.settle();
        let mut ready = std::mem::take(&mut self.desk.ready);
        if !ready.is_empty() {
            let now = self.clock.read();
            for waiting in ready.drain(..) {
                self.acks.add(&mut self.uring, &waiting.peer, waiting.batch_id, waiting.statuses());
                self.stats.ack_latency.record(now.monotonic_ns.saturating_sub(waiting.received_ns), 1);
            }
            self.acks.flush(&mut self.uring);
            self.acks.count_into(&self.stats);
        }
        self.desk.ready = ready;
        self.stats.datagrams_waiting.set(self.desk.waiting() as u64);
    }

    /// Answers a flush: what changed up to a block, once that block is durable.
    fn answer_flush(&mut self) {
        if self.flush.is_none()
            && let Some(flush) = self.flushes.requested()
        {
            self.begin_flush(flush);
        }
        if let Some(share) = self.flush.take() {
            if share.upto > self.desk.book.durable() {
                self.flush = Some(share);
            } else if let Err(share) = self.flushes.answer(share) {
                self.flush = Some(share);
            }
        }
    }

    fn begin_flush(&mut self, flush: FlushNo) {
        self.desk.book.seal();
        let (rows, _) = self.desk.book.open_rows();
        if rows > 0 {
            // The journal takes no block now; what changed must not run ahead of the rows.
            return;
        }
        let now = self.clock.read();
        let changed = self.unflushed.flush(now.wall, &mut self.desk.ledger);
        self.stats.impressions_live.set(self.desk.ledger.impressions_live() as u64);
        self.stats.buckets_open.set(self.desk.ledger.buckets_open() as u64);
        self.flush = Some(Share {
            worker: self.desk.worker(),
            flush,
            upto: self.desk.book.sealed(),
            changed,
            oldest_received_at: self.desk.book.take_oldest_unflushed(),
        });
    }

    fn follow_drain(&mut self) {
        let now = self.clock.read();
        let view = View {
            now_ns: now.monotonic_ns,
            last_datagram_ns: self.last_datagram_ns,
            receivers_armed: self.sockets.iter().filter(|socket| socket.armed).count() + self.received.len(),
            settled: self.desk.is_settled(),
        };
        match self.drain.step(&self.phase, view) {
            Step::None => {}
            Step::StopReceiving => {
                for socket in &self.sockets {
                    self.uring.stop_receiving(socket.receiver);
                }
            }
            Step::SealLast => {
                self.desk.book.seal();
                for socket in &mut self.sockets {
                    if let Some(drops) = socket_drops(socket.as_fd()) {
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
        let new = drops.wrapping_sub(self.drops_seen);
        if new < u32::MAX / 2 {
            stats.reasons[Reason::SocketOverflow as usize].add(u64::from(new));
            self.drops_seen = drops;
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SendSlots for Uring {
    fn free_slot(&mut self) -> Option<SlotId> {
        Self::free_slot(self)
    }

    fn payload(&mut self, slot: &SlotId) -> &mut [u8; SLOT_PAYLOAD] {
        self.slot_payload(slot)
    }

    fn send(&mut self, slot: SlotId, len: usize, to: &Peer) {
        Self::send(self, slot, len, to);
    }
}
