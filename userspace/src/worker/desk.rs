//! Where a worker decides: datagrams in, decisions journaled, acks that wait or are ready.
//!
//! No sockets, no descriptors, no clock: the loop passes in what arrived and the time, and takes
//! out what is ready. So everything between the wire and the disk can be tested without either.

mod doubt;
mod parts;
mod rules;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use weir_common::id::{BlockSeq, WorkerId};
use weir_common::reason::{Outcome, Reason};
use weir_common::wire::{AckStatus, Datagram, HeaderFacts};
use zerocopy::IntoBytes;

use super::book::Book;
use super::clock::Now;
use super::handoff::{HandedOff, Port, Reply, handed_off};
use super::reply::{ReplyTo, Ticket, Waiting, WaitingTable, status_of};
use super::shard_map::ShardMap;
use crate::admission::{Admission, Arrival, Judgement};
use crate::clock::NodeClock;
use crate::ledger::{Decision, Entry, Ledger};
use crate::limits::{Limits, Refractory};
use crate::pseudonym::Pseudonyms;
use crate::published::Shared;
use crate::rejects::{Input, Sampler};
use crate::stats::OwnStats;
use crate::traffic::{Facts, Judge};
use crate::uring::{self, ReceiverId};

/// Where a click stands in its datagram.
#[derive(Clone, Copy, Debug)]
struct Origin {
    ticket: Ticket,
    index: u8,
}

/// What a worker decides with.
pub struct Desk {
    worker: WorkerId,
    shards: ShardMap,
    admission: Shared<Admission>,
    judge: Judge,
    limits: Option<Arc<Limits>>,
    refractory: Option<Arc<Refractory>>,
    pseudonyms: Shared<Pseudonyms>,
    /// The worker's share of the ledger.
    pub ledger: Ledger,
    /// The open block and the journal behind it.
    pub book: Book,
    /// The rings to the other workers.
    pub port: Port,
    waiting: WaitingTable,
    /// Datagrams whose clicks stand in a block that is not durable yet, oldest first.
    awaiting_own: VecDeque<(BlockSeq, Ticket)>,
    /// Statuses of other workers' clicks that stand in a block that is not durable yet.
    awaiting_others: VecDeque<(BlockSeq, WorkerId, Reply)>,
    /// Datagrams whose acks may go out now.
    pub ready: Vec<Waiting>,
    stats: OwnStats,
    clock: Arc<NodeClock>,
    rejects: Sampler,
    scratch: Scratch,
}

/// Vectors that keep their memory from turn to turn.
#[derive(Default)]
struct Scratch {
    arrivals: Vec<Arrival<'static>>,
    entries: Vec<Entry<'static>>,
    extensions: Vec<&'static [u8]>,
    facts: Vec<Facts<'static>>,
    sources: Vec<Option<IpAddr>>,
    origins: Vec<Origin>,
    own_origins: Vec<Origin>,
    tickets: Vec<Ticket>,
    judgements: Vec<Judgement>,
    decisions: Vec<Decision>,
    handed_off: Vec<u8>,
}

/// Clicks that are decided together.
struct Batch<'a> {
    arrivals: Vec<Arrival<'a>>,
    /// Where each stands.
    origins: Vec<Origin>,
    tickets: Vec<Ticket>,
}

impl<'a> Batch<'a> {
    fn add(&mut self, ticket: Ticket, clicks: impl Iterator<Item = Arrival<'a>>) {
        self.tickets.push(ticket);
        for (index, arrival) in clicks.enumerate() {
            self.arrivals.push(arrival);
            self.origins.push(Origin { ticket, index: index as u8 });
        }
    }
}

/// Empties a vector and lends its memory to elements of another lifetime.
fn reuse<A, B>(mut vector: Vec<A>) -> Vec<B> {
    vector.clear();
    // The standard library collects in place when the layouts agree, as they do here.
    vector.into_iter().filter_map(|_| None).collect()
}

/// What a desk is made of.
pub struct Parts {
    /// This worker.
    pub worker: WorkerId,
    /// Who owns which shard.
    pub shards: ShardMap,
    /// The rules of admission.
    pub admission: Shared<Admission>,
    /// What flags invalid traffic.
    pub judge: Judge,
    /// The budgets of the node, if there are any.
    pub limits: Option<Arc<Limits>>,
    /// Who clicked which ad moments ago, where unsigned clicks are taken.
    pub refractory: Option<Arc<Refractory>>,
    /// How users' keys are written.
    pub pseudonyms: Shared<Pseudonyms>,
    /// This worker's ledger, refolded from the journal.
    pub ledger: Ledger,
    /// This worker's journal.
    pub book: Book,
    /// The rings to the other workers.
    pub port: Port,
    /// How many datagrams may wait for their acks.
    pub waiting_capacity: u32,
    /// Where it counts.
    pub stats: OwnStats,
    /// Whom it tells what signed clicks say of the time.
    pub clock: Arc<NodeClock>,
    /// What takes copies of malformed input.
    pub rejects: Sampler,
}

impl Desk {
    /// A desk at which nothing has happened yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let rules = parts.judge.rules();
        let mut desk = Self {
            worker: parts.worker,
            shards: parts.shards,
            admission: parts.admission,
            judge: parts.judge,
            limits: parts.limits,
            refractory: parts.refractory,
            pseudonyms: parts.pseudonyms,
            ledger: parts.ledger,
            book: parts.book,
            port: parts.port,
            waiting: WaitingTable::new(parts.waiting_capacity),
            awaiting_own: VecDeque::with_capacity(parts.waiting_capacity as usize),
            awaiting_others: VecDeque::new(),
            ready: Vec::new(),
            stats: parts.stats,
            clock: parts.clock,
            rejects: parts.rejects,
            scratch: Scratch::default(),
        };
        desk.book.judge_by(rules);
        desk.ledger.judge_by(rules);
        desk
    }

    /// Decides a batch of datagrams that arrived together.
    pub fn take_in<'a>(
        &mut self,
        now: Now,
        datagrams: impl Iterator<Item = (ReceiverId, uring::Datagram<'a>)>,
    ) {
        let mut batch = self.begin();
        for (receiver, datagram) in datagrams {
            self.stats.datagrams_received.add(1);
            self.stats.bytes_received.add(datagram.payload.len() as u64);
            if let Some((ticket, clicks)) = self.open(now, receiver, &datagram) {
                batch.add(ticket, clicks.clicks().map(|(click, extension)| Arrival { click, extension }));
            }
        }
        self.finish(now, batch);
    }

    /// An empty batch, with the memory of the last.
    fn begin<'a>(&mut self) -> Batch<'a> {
        self.follow_rules();
        Batch {
            arrivals: reuse(std::mem::take(&mut self.scratch.arrivals)),
            origins: std::mem::take(&mut self.scratch.origins),
            tickets: std::mem::take(&mut self.scratch.tickets),
        }
    }

    /// Decides a batch, and lets what it came with wait for its block.
    fn finish(&mut self, now: Now, mut batch: Batch<'_>) {
        self.decide(now, &batch.arrivals, &batch.origins);
        self.let_wait(&batch.tickets);
        batch.origins.clear();
        batch.tickets.clear();
        (self.scratch.origins, self.scratch.tickets) = (batch.origins, batch.tickets);
        self.scratch.arrivals = reuse(batch.arrivals);
    }

    /// Reads the structure of a datagram and enters it into the waiting table. What cannot be
    /// taken is counted and answered here.
    fn open<'a>(
        &mut self,
        now: Now,
        receiver: ReceiverId,
        datagram: &uring::Datagram<'a>,
    ) -> Option<(Ticket, Datagram<'a>)> {
        let to = |batch_id| ReplyTo::Datagram { peer: datagram.peer(receiver), batch_id };
        let parsed = match Datagram::parse(datagram.payload) {
            Ok(parsed) if !datagram.truncated => parsed,
            Ok(_) => {
                self.sample(now, Reason::BadLength, datagram);
                self.count(now, Outcome::Malformed, Reason::BadLength, 1);
                return None;
            }
            Err(bad) => {
                self.sample(now, bad.reason, datagram);
                self.count(now, Outcome::Malformed, bad.reason, u32::from(bad.clicks));
                if let Some(batch_id) = bad.batch_id {
                    self.answer_all(now, to(batch_id), bad.clicks, AckStatus::Malformed);
                }
                return None;
            }
        };
        let HeaderFacts { count, .. } = parsed.facts();
        let ticket = self.enter(now, to(parsed.header().batch_id.get()), count)?;
        Some((ticket, parsed))
    }

    /// Enters clicks that came together into the waiting table; without room they are counted and
    /// answered here.
    fn enter(&mut self, now: Now, to: ReplyTo, clicks: u8) -> Option<Ticket> {
        if let Some(ticket) =
            self.book.has_room().then(|| self.waiting.enter(to, now.monotonic_ns, clicks)).flatten()
        {
            self.stats.clicks_received.add(u64::from(clicks));
            return Some(ticket);
        }
        self.count(now, Outcome::Refused, Reason::JournalFull, u32::from(clicks));
        self.answer_all(now, to, clicks, AckStatus::Retry);
        None
    }

    /// Lets a malformed datagram be sampled.
    #[cold]
    fn sample(&mut self, now: Now, reason: Reason, datagram: &uring::Datagram<'_>) {
        let parts = [datagram.payload, &[]];
        let (at, from) = ((now.wall, now.monotonic_ns), datagram.from);
        let is_taken = self.rejects.offer(at, reason, Input::Datagram, from, parts, datagram.truncated);
        self.count_sample(is_taken);
    }

    /// Lets a malformed click of a sound datagram be sampled.
    #[cold]
    fn sample_click(&mut self, now: Now, reason: Reason, origin: Origin, arrival: &Arrival<'_>) {
        let Some(from) = self.waiting.sender(origin.ticket) else { return };
        let parts = [arrival.click.as_bytes(), arrival.extension];
        let at = (now.wall, now.monotonic_ns);
        let is_taken = self.rejects.offer(at, reason, Input::Click, from, parts, false);
        self.count_sample(is_taken);
    }

    fn count_sample(&self, is_taken: bool) {
        let counter = if is_taken { &self.stats.rejects_sampled } else { &self.stats.rejects_unsampled };
        counter.add(1);
    }

    /// Counts clicks that end here without having been admitted.
    fn count(&mut self, now: Now, outcome: Outcome, reason: Reason, clicks: u32) {
        self.stats.clicks_received.add(u64::from(clicks));
        self.stats.count(outcome, reason, u64::from(clicks));
        self.book.count(now, outcome, clicks);
    }

    /// Answers clicks of which none was taken; the answer needs no place to wait in.
    fn answer_all(&mut self, now: Now, to: ReplyTo, clicks: u8, status: AckStatus) {
        self.ready.push(Waiting::answered(to, now.monotonic_ns, clicks, status));
    }

    /// Judges clicks, hands off what others own, decides the rest.
    fn decide<'a>(&mut self, now: Now, arrivals: &[Arrival<'a>], origins: &[Origin]) {
        let mut judgements = std::mem::take(&mut self.scratch.judgements);
        let mut entries: Vec<Entry<'a>> = reuse(std::mem::take(&mut self.scratch.entries));
        let mut extensions: Vec<&'a [u8]> = reuse(std::mem::take(&mut self.scratch.extensions));
        let mut own_origins = std::mem::take(&mut self.scratch.own_origins);
        judgements.clear();
        self.admission.get().judge(now.wall, arrivals, &mut judgements);
        let (mut signed_in_time, is_hearing) = (0, self.clock.is_hearing());
        for ((arrival, origin), judgement) in arrivals.iter().zip(origins).zip(&judgements) {
            let judgement = match (now.doubt, *judgement) {
                (Some(doubt), judgement) => self.judge_in_doubt(doubt, arrival, judgement, is_hearing),
                (None, judgement) => {
                    if matches!(judgement, Judgement::Reject(_, Reason::NotYetIssued)) {
                        let _for_the_clock_alone = self.witness(arrival, Reason::NotYetIssued, is_hearing);
                    }
                    judgement
                }
            };
            let admitted = match judgement {
                Judgement::Admit(admitted) => {
                    signed_in_time += u64::from(is_hearing && !arrival.click.is_foreign());
                    admitted
                }
                Judgement::Reject(outcome, reason) => {
                    if outcome == Outcome::Malformed {
                        self.sample_click(now, reason, *origin, arrival);
                    }
                    self.reject(now, *origin, outcome, reason);
                    continue;
                }
            };
            if self.is_over_budget(now, *origin, arrival.click) {
                continue;
            }
            let owner = self.shards.owner(arrival.click.shard());
            if owner == self.worker {
                entries.push(Entry { received_at: now.wall, admitted, click: arrival.click });
                extensions.push(arrival.extension);
                own_origins.push(*origin);
                continue;
            }
            let Origin { ticket, index } = *origin;
            let (click, extension) = (arrival.click, arrival.extension);
            let source = self.source_of(ticket);
            if self.port.hand_off(
                owner,
                &HandedOff { ticket, index, received_at: now.wall, admitted, source, click, extension },
            ) {
                self.waiting.hold(ticket);
                self.stats.clicks_handed_off.add(1);
            } else {
                self.reject(now, *origin, Outcome::Refused, Reason::HandoffFull);
            }
        }
        if signed_in_time > 0 {
            self.clock.note_in_time(signed_in_time);
        }
        self.settle_own(now, &mut entries, &extensions, &own_origins);
        own_origins.clear();
        (self.scratch.judgements, self.scratch.own_origins) = (judgements, own_origins);
        self.scratch.entries = reuse(entries);
        self.scratch.extensions = reuse(extensions);
    }

    fn reject(&mut self, now: Now, origin: Origin, outcome: Outcome, reason: Reason) {
        self.stats.count(outcome, reason, 1);
        self.book.count(now, outcome, 1);
        self.waiting.set_status(origin.ticket, origin.index, status_of(outcome, reason) as u8);
    }

    /// Gives this worker's own clicks their outcomes and journals them.
    fn settle_own<'a>(
        &mut self,
        now: Now,
        entries: &mut [Entry<'a>],
        extensions: &[&'a [u8]],
        origins: &[Origin],
    ) {
        self.flag(now, entries, extensions, |desk, nth| desk.source_of(origins[nth].ticket));
        let mut decisions = std::mem::take(&mut self.scratch.decisions);
        decisions.clear();
        self.ledger.apply(entries, &mut decisions);
        for (((entry, extension), origin), decision) in
            entries.iter().zip(extensions).zip(origins).zip(&decisions)
        {
            self.record(now, entry, decision, extension);
            let status = status_of(decision.outcome, decision.reason);
            self.waiting.set_status(origin.ticket, origin.index, status as u8);
        }
        self.scratch.decisions = decisions;
    }

    /// Enters datagrams into the queue for the block that must be durable before their ack.
    fn let_wait(&mut self, tickets: &[Ticket]) {
        let awaited = self.book.awaited();
        for &ticket in tickets {
            match awaited {
                Some(sequence) => self.awaiting_own.push_back((sequence, ticket)),
                None => self.ready.extend(self.waiting.settle(ticket)),
            }
        }
    }

    /// Takes over the clicks other workers handed off to this one.
    pub fn take_over(&mut self, now: Now) {
        let mut bytes = std::mem::take(&mut self.scratch.handed_off);
        for from in 0..self.port.workers() {
            self.port.fetch(from, self.book.turn_bytes(), &mut bytes);
            if !bytes.is_empty() {
                self.decide_for(WorkerId(from as u16), now, &bytes);
            }
        }
        self.scratch.handed_off = bytes;
    }

    /// Decides the clicks of one other worker.
    fn decide_for(&mut self, from: WorkerId, now: Now, bytes: &[u8]) {
        let mut entries: Vec<Entry<'_>> = reuse(std::mem::take(&mut self.scratch.entries));
        let mut extensions: Vec<&[u8]> = reuse(std::mem::take(&mut self.scratch.extensions));
        let mut origins = std::mem::take(&mut self.scratch.own_origins);
        self.follow_rules();
        let mut sources = std::mem::take(&mut self.scratch.sources);
        sources.clear();
        for HandedOff { ticket, index, received_at, admitted, source, click, extension } in handed_off(bytes)
        {
            entries.push(Entry { received_at, admitted, click });
            extensions.push(extension);
            sources.push(source);
            origins.push(Origin { ticket, index });
        }
        self.stats.clicks_taken_over.add(entries.len() as u64);
        let mut decisions = std::mem::take(&mut self.scratch.decisions);
        decisions.clear();
        if self.book.has_room() {
            self.flag(now, &mut entries, &extensions, |_, nth| sources[nth]);
            self.ledger.apply(&entries, &mut decisions);
        } else {
            let full = Decision { outcome: Outcome::Refused, reason: Reason::JournalFull };
            decisions.resize(entries.len(), full);
        }
        for ((entry, extension), decision) in entries.iter().zip(&extensions).zip(&decisions) {
            self.record(now, entry, decision, extension);
        }
        let awaited = self.book.awaited();
        for (Origin { ticket, index }, decision) in origins.iter().zip(&decisions) {
            let status = status_of(decision.outcome, decision.reason) as u8;
            let reply = Reply { ticket: *ticket, index: *index, status };
            match awaited {
                Some(sequence) => self.awaiting_others.push_back((sequence, from, reply)),
                None => self.port.reply(from, reply),
            }
        }
        origins.clear();
        (self.scratch.own_origins, self.scratch.decisions) = (origins, decisions);
        self.scratch.sources = sources;
        self.scratch.entries = reuse(entries);
        self.scratch.extensions = reuse(extensions);
    }

    /// Moves on everything that waited for blocks up to the durable mark, and the replies of
    /// other workers.
    pub fn settle(&mut self) {
        let durable = self.book.durable();
        while let Some(&(_, ticket)) = self.awaiting_own.front().filter(|(sequence, _)| *sequence <= durable)
        {
            self.awaiting_own.pop_front();
            self.ready.extend(self.waiting.settle(ticket));
        }
        while let Some(&(_, to, reply)) =
            self.awaiting_others.front().filter(|(sequence, ..)| *sequence <= durable)
        {
            self.awaiting_others.pop_front();
            self.port.reply(to, reply);
        }
        let (waiting, ready) = (&mut self.waiting, &mut self.ready);
        self.port.replies(|reply| {
            waiting.set_status(reply.ticket, reply.index, reply.status);
            ready.extend(waiting.settle(reply.ticket));
        });
    }

    /// This worker's number.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many datagrams wait for their ack.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing of anybody waits here.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
            && self.awaiting_others.is_empty()
            && self.port.all_back()
            && !self.port.has_work()
    }
}

#[cfg(test)]
mod tests;
