//! Acks: datagrams that wait for their clicks to be durable, and the answers on their way out.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;

use weir_common::reason::{Outcome, Reason};
use weir_common::wire::{ACK_HEADER_LEN, AckHeader, AckStatus, CLICK_LEN, HEADER_LEN};
use zerocopy::IntoBytes;

use crate::limits::RETRY_AFTER_MS;
use crate::stats::WorkerStats;
use crate::uring::{Peer, SLOT_PAYLOAD};

/// The most clicks a datagram that fits a receive buffer can carry.
pub const MAX_CLICKS: usize = (2048 - HEADER_LEN) / CLICK_LEN;

/// What the sender is told of a click. It learns whether to send again, and nothing of how its
/// traffic was judged.
#[must_use]
pub const fn status_of(outcome: Outcome, reason: Reason) -> AckStatus {
    match (outcome, reason) {
        (Outcome::Accepted | Outcome::Repeat | Outcome::Late | Outcome::Filtered, _) => AckStatus::Created,
        (Outcome::Duplicate, _) => AckStatus::Exists,
        (
            Outcome::Refused,
            Reason::TableFull
            | Reason::JournalFull
            | Reason::HandoffFull
            | Reason::Draining
            | Reason::TimeUncertain
            | Reason::OverBudget,
        ) => AckStatus::Retry,
        (Outcome::Refused | Outcome::Malformed, _) => AckStatus::Malformed,
    }
}

/// A place in the waiting table. The generation tells a late reply for a former tenant apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which slot.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// A request at the HTTP door. The generation tells a late answer for a former one apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Which place.
    pub slot: u32,
    /// Which tenant of it.
    pub generation: u32,
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// The sender of a datagram.
    Datagram {
        /// Where it is.
        peer: Peer,
        /// Its own number for the datagram.
        batch_id: u64,
    },
    /// A request, for as many of its clicks as fit a datagram.
    Request {
        /// Which.
        request: RequestId,
        /// The first of these clicks.
        first: u16,
        /// Who sent it.
        from: SocketAddr,
    },
}

impl ReplyTo {
    /// Who sent the clicks.
    #[must_use]
    pub const fn sender(&self) -> SocketAddr {
        match self {
            Self::Datagram { peer, .. } => peer.address,
            Self::Request { from, .. } => *from,
        }
    }
}

/// A datagram, or as much of a request, whose answer is not out yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Where the answer goes.
    pub to: ReplyTo,
    /// When it was read, on the worker's monotonic clock.
    pub received_ns: u64,
    /// Status bytes by click.
    statuses: [u8; MAX_CLICKS],
    count: u8,
    /// Clicks that somebody's budget had no room for.
    over_budget: u8,
    /// What it still waits for: its clicks at other workers, and once for its own journal.
    pending: u8,
    generation: u32,
}

impl Waiting {
    /// Clicks of which all have the same status, and which wait for nothing.
    #[must_use]
    pub fn answered(to: ReplyTo, received_ns: u64, count: u8, status: AckStatus) -> Self {
        let count = count.min(MAX_CLICKS as u8);
        let statuses = [status as u8; MAX_CLICKS];
        Self { to, received_ns, statuses, count, over_budget: 0, pending: 0, generation: 0 }
    }

    /// How many of its clicks a budget had no room for.
    #[must_use]
    pub const fn over_budget(&self) -> u8 {
        self.over_budget
    }

    /// The header of its ack; with how long to wait where a budget is spent.
    #[must_use]
    pub const fn ack(&self, batch_id: u64) -> AckHeader {
        let header = AckHeader::new(batch_id, self.count);
        if self.over_budget > 0 { header.with_retry_after(RETRY_AFTER_MS) } else { header }
    }

    /// The status bytes of its clicks.
    #[must_use]
    pub fn statuses(&self) -> &[u8] {
        &self.statuses[..usize::from(self.count)]
    }
}

/// All datagrams of a worker that wait. Bounded; a slot is reused once its ack is out.
#[derive(Debug)]
pub struct WaitingTable {
    slots: Vec<Option<Waiting>>,
    free: Vec<u32>,
    generation: u32,
}

impl WaitingTable {
    /// A table of `capacity` datagrams.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { slots: vec![None; capacity as usize], free: (0..capacity).rev().collect(), generation: 0 }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a datagram of `count` clicks, all `retry` until told otherwise, that waits for one
    /// thing: [`WaitingTable::settle`] by its reader. `None` when the table is full.
    pub fn enter(&mut self, to: ReplyTo, received_ns: u64, count: u8) -> Option<Ticket> {
        let slot = self.free.pop()?;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let statuses = [AckStatus::Retry as u8; MAX_CLICKS];
        let count = count.min(MAX_CLICKS as u8);
        self.slots[slot as usize] =
            Some(Waiting { to, received_ns, statuses, count, over_budget: 0, pending: 1, generation });
        Some(Ticket { slot, generation })
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        self.slots
            .get_mut(ticket.slot as usize)?
            .as_mut()
            .filter(|waiting| waiting.generation == ticket.generation)
    }

    /// Whom the ack of a datagram goes to.
    #[must_use]
    pub fn sender(&self, ticket: Ticket) -> Option<SocketAddr> {
        let waiting = self.slots.get(ticket.slot as usize)?.as_ref()?;
        (waiting.generation == ticket.generation).then(|| waiting.to.sender())
    }

    /// Sets the status of one click.
    pub fn set_status(&mut self, ticket: Ticket, index: u8, status: u8) {
        if let Some(cell) = self.get(ticket).and_then(|waiting| waiting.statuses.get_mut(usize::from(index)))
        {
            *cell = status;
        }
    }

    /// A budget has no room for one of its clicks.
    pub fn limit(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.get(ticket) {
            waiting.over_budget += 1;
        }
    }

    /// The datagram waits for one thing more.
    pub fn hold(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.get(ticket) {
            waiting.pending += 1;
        }
    }

    /// One thing it waited for has come. When it was the last, the datagram leaves the table.
    pub fn settle(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.get(ticket)?;
        waiting.pending = waiting.pending.saturating_sub(1);
        if waiting.pending > 0 {
            return None;
        }
        self.free.push(ticket.slot);
        self.slots[ticket.slot as usize].take()
    }
}

/// What the packer needs from the layer that sends.
pub trait SendSlots {
    /// Names a slot that was taken and not yet sent.
    type Slot;
    /// A free slot, if there is one.
    fn free_slot(&mut self) -> Option<Self::Slot>;
    /// A slot's bytes.
    fn payload(&mut self, slot: &Self::Slot) -> &mut [u8; SLOT_PAYLOAD];
    /// Sends a slot's first `len` bytes.
    fn send(&mut self, slot: Self::Slot, len: usize, to: &Peer);
}

/// Bins of the packer: as many senders as are likely answered in one turn.
const BINS: usize = 256;

/// Gathers acks that go to one sender into one datagram. Each ack is no larger than its request,
/// so neither is their sum.
#[derive(Debug)]
pub struct AckPacker<S> {
    bins: Vec<Option<Open<S>>>,
    used: Vec<usize>,
    hasher: BuildHasherDefault<DefaultHasher>,
    tally: AckTally,
}

/// What the packer did since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AckTally {
    /// Ack datagrams given to the kernel.
    datagrams_sent: u64,
    /// Acks in them.
    acks_sent: u64,
    /// Acks dropped because every slot was on its way out; their senders will resend.
    acks_dropped: u64,
}

#[derive(Debug)]
struct Open<S> {
    peer: Peer,
    slot: S,
    len: usize,
}

impl<S> Default for AckPacker<S> {
    fn default() -> Self {
        Self {
            bins: (0..BINS).map(|_| None).collect(),
            used: Vec::with_capacity(BINS),
            hasher: BuildHasherDefault::default(),
            tally: AckTally::default(),
        }
    }
}

impl<S> AckPacker<S> {
    /// Adds the ack of a batch to what goes to `peer`.
    pub fn add(
        &mut self,
        slots: &mut impl SendSlots<Slot = S>,
        peer: &Peer,
        header: AckHeader,
        statuses: &[u8],
    ) {
        debug_assert_eq!(usize::from(header.count), statuses.len());
        let bin = self.hasher.hash_one(peer) as usize % BINS;
        let len = ACK_HEADER_LEN + statuses.len();
        if self.bins[bin].as_ref().is_some_and(|open| open.peer != *peer || open.len + len > SLOT_PAYLOAD) {
            self.close(slots, bin);
        }
        if self.bins[bin].is_none() {
            let Some(slot) = slots.free_slot() else {
                self.tally.acks_dropped += 1;
                return;
            };
            self.bins[bin] = Some(Open { peer: *peer, slot, len: 0 });
            self.used.push(bin);
        }
        let Some(open) = &mut self.bins[bin] else { return };
        let space = &mut slots.payload(&open.slot)[open.len..open.len + len];
        let (head, tail) = space.split_at_mut(ACK_HEADER_LEN);
        head.copy_from_slice(header.as_bytes());
        tail.copy_from_slice(statuses);
        open.len += len;
        self.tally.acks_sent += 1;
    }

    fn close(&mut self, slots: &mut impl SendSlots<Slot = S>, bin: usize) {
        if let Some(open) = self.bins[bin].take() {
            slots.send(open.slot, open.len, &open.peer);
            self.tally.datagrams_sent += 1;
        }
    }

    /// Moves what was done into the worker's counters.
    pub fn count_into(&mut self, stats: &WorkerStats) {
        let AckTally { datagrams_sent, acks_sent, acks_dropped } = std::mem::take(&mut self.tally);
        stats.ack_datagrams_sent.add(datagrams_sent);
        stats.acks_sent.add(acks_sent);
        stats.ack_send_failures.add(acks_dropped);
    }

    /// Sends everything gathered.
    pub fn flush(&mut self, slots: &mut impl SendSlots<Slot = S>) {
        while let Some(bin) = self.used.pop() {
            self.close(slots, bin);
        }
    }
}

#[cfg(test)]
mod tests;
