//! The core: clicks in, datagrams out, acks in, fates out. No I/O and no clock.
//!
//! A batch is one datagram. It is born open, becomes ready when full or old enough, is in flight
//! once handed out, and ends when an ack settles all its clicks or its attempts are used up. Clicks
//! answered with `retry` stay in the slot under a new batch id, so one id always names one sequence
//! of clicks and an ack is used at most once.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weir_common::id::SHARD_BITS;
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::wire::{Ack, AckStatus, Acks, CLICK_LEN, Click};

use crate::batch::{EXTENSION_MAX, Pool, State};
use crate::batch_id::BatchIds;
use crate::config::{Config, ConfigError};
use crate::ledger::{Ledger, Traffic};
use crate::wheel::Wheel;

const NS_PER_MS: u64 = 1_000_000;

/// Names a click to the caller: what [`Sender::offer`] counted or [`Sender::offer_as`] was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The final word on a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Taken and durable.
    Created,
    /// It was there before; durable.
    Exists,
    /// The node will never take it: malformed, or refused for good; dropped.
    Malformed,
    /// No final answer after the last attempt; dropped.
    GaveUp,
}

/// A click that left the sender.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// The caller's name for it.
    pub ticket: Ticket,
    /// The click as it was sent.
    pub click: &'a Click,
    /// Its extension.
    pub extension: &'a [u8],
    /// What became of it.
    pub fate: Fate,
}

/// Why a click was not taken. It is counted in the ledger and not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum Refused {
    /// every datagram the sender may hold is in use: wait for acks, or raise `batches`
    Full,
    /// the node would call this click malformed ({0:?}): correct its fields
    Malformed(Reason),
    /// an extension of {0} bytes fits no datagram: shorten it
    TooLong(usize),
}

/// A datagram to be sent now. Good until the next call that takes an ack or the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    slot: u32,
    /// Which send of these clicks this is, from 1.
    pub attempt: u16,
}

/// Batches clicks by shard, resends until acknowledged, keeps the books. See the crate's page.
pub struct Sender {
    config: Config,
    pool: Pool,
    /// The open batch of each group.
    open: Vec<Option<u32>>,
    /// Slots to be sent, each with the batch id it had when it got ready. An entry whose id is
    /// gone is skipped. Two a slot suffice: a batch that was never sent cannot be acknowledged, so
    /// a slot leaves a dead entry behind only once before the queue is drained past it.
    ready: VecDeque<(u32, u64)>,
    wheel: Wheel,
    ids: BatchIds,
    rng: SmallRng,
    ledger: Ledger,
    traffic: Traffic,
}

impl Sender {
    /// A sender with all its memory. `now_ns` starts its clock: any monotonic nanoseconds.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(config: Config, now_ns: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let key = SipKey { k0: rng.random(), k1: rng.random() };
        let mut wheel = Wheel::new(config.batches);
        // An empty wheel starts at the caller's time.
        let nothing_due = wheel.pop_due(now_ns);
        debug_assert_eq!(nothing_due, None);
        Ok(Self {
            pool: Pool::new(config.batches),
            open: vec![None; config.groups()],
            ready: VecDeque::with_capacity(2 * config.batches),
            wheel,
            ids: BatchIds::new(key),
            rng,
            ledger: Ledger::default(),
            traffic: Traffic::default(),
            config,
        })
    }

    /// Offers a click; its ticket is its number among all clicks offered, from 0.
    ///
    /// # Errors
    /// Why the click was not taken.
    pub fn offer(&mut self, now_ns: u64, click: &Click, extension: &[u8]) -> Result<Ticket, Refused> {
        let ticket = Ticket(self.ledger.created);
        self.offer_as(now_ns, click, extension, ticket).map(|()| ticket)
    }

    /// Offers a click under the caller's own ticket. `extension_len` of the click is ignored.
    ///
    /// # Errors
    /// Why the click was not taken.
    pub fn offer_as(
        &mut self,
        now_ns: u64,
        click: &Click,
        extension: &[u8],
        ticket: Ticket,
    ) -> Result<(), Refused> {
        self.ledger.created += 1;
        if extension.len() > EXTENSION_MAX {
            self.ledger.refused_too_long += 1;
            return Err(Refused::TooLong(extension.len()));
        }
        if let Err(reason) = click.check(extension) {
            self.ledger.refused_malformed += 1;
            return Err(Refused::Malformed(reason));
        }
        let group = click.shard().0 >> (SHARD_BITS - self.config.group_bits);
        let Some(slot) = self.slot_for(now_ns, group, CLICK_LEN + extension.len()) else {
            self.ledger.refused_full += 1;
            return Err(Refused::Full);
        };
        self.pool.append(slot, click, extension, ticket);
        self.ledger.queued += 1;
        if self.pool.room(slot) < CLICK_LEN {
            self.seal(slot);
        }
        Ok(())
    }

    /// The group's open batch with room for `len` bytes; a new one if need be.
    fn slot_for(&mut self, now_ns: u64, group: u16, len: usize) -> Option<u32> {
        if let Some(slot) = self.open[usize::from(group)] {
            if self.pool.room(slot) >= len {
                return Some(slot);
            }
            self.seal(slot);
        }
        let slot = self.pool.take()?;
        let id = self.ids.next(slot);
        self.pool.open(slot, id, self.config.source_id, group, self.config.group_bits);
        self.open[usize::from(group)] = Some(slot);
        self.wheel.set(slot, now_ns + self.config.flush_after_ns);
        Some(slot)
    }

    /// An open batch takes no more clicks and gets in line to be sent.
    fn seal(&mut self, slot: u32) {
        let group = self.pool.batches[slot as usize].group;
        self.open[usize::from(group)] = None;
        self.wheel.clear(slot);
        self.pool.seal(slot);
        self.make_ready(slot);
    }

    fn make_ready(&mut self, slot: u32) {
        let batch = &mut self.pool.batches[slot as usize];
        batch.state = State::Ready;
        self.ready.push_back((slot, batch.id));
    }

    /// Ends the wait of every open batch.
    pub fn flush(&mut self) {
        for group in 0..self.open.len() {
            if let Some(slot) = self.open[group] {
                self.seal(slot);
            }
        }
    }

    /// Acts on the time: flushes old batches, lines up resends, gives up. `settled` hears of every
    /// click that was given up.
    pub fn advance(&mut self, now_ns: u64, mut settled: impl FnMut(Settled<'_>)) {
        // At most one round for each batch held.
        while let Some(slot) = self.wheel.pop_due(now_ns) {
            let batch = &self.pool.batches[slot as usize];
            match batch.state {
                State::Open => self.seal(slot),
                State::InFlight | State::Backoff if batch.attempts >= self.config.attempts_max => {
                    self.give_up(slot, &mut settled);
                }
                State::InFlight | State::Backoff => self.make_ready(slot),
                State::Free | State::Ready => debug_assert!(false, "no deadline in this state"),
            }
        }
    }

    /// The next datagram to send, if any; counts it as sent. Its bytes: [`Self::datagram`].
    pub fn poll_transmit(&mut self, now_ns: u64) -> Option<Transmit> {
        while let Some((slot, id)) = self.ready.pop_front() {
            let batch = &mut self.pool.batches[slot as usize];
            if batch.id != id || batch.state != State::Ready {
                continue;
            }
            batch.state = State::InFlight;
            batch.attempts += 1;
            let attempt = batch.attempts;
            self.traffic.datagrams += 1;
            self.traffic.datagrams_resent += u64::from(attempt > 1);
            self.traffic.clicks += u64::from(batch.count);
            let wait_ns = self.config.ack_timeout_ns + self.backoff_ns(attempt);
            self.wheel.set(slot, now_ns + wait_ns);
            return Some(Transmit { slot, attempt });
        }
        None
    }

    /// The bytes of a datagram that [`Self::poll_transmit`] handed out.
    #[must_use]
    pub fn datagram(&self, transmit: Transmit) -> &[u8] {
        self.pool.datagram(transmit.slot)
    }

    /// The tickets of its clicks, in order.
    #[must_use]
    pub fn tickets(&self, transmit: Transmit) -> &[Ticket] {
        let batch = &self.pool.batches[transmit.slot as usize];
        &batch.tickets[..usize::from(batch.count)]
    }

    /// Full jitter: anything from 0 to the bound, which doubles with each attempt up to the cap.
    fn backoff_ns(&mut self, attempt: u16) -> u64 {
        let doublings = u32::from(attempt - 1).min(32);
        let bound_ns = self.config.backoff_base_ns.saturating_mul(1 << doublings);
        self.rng.random_range(0..=bound_ns.min(self.config.backoff_cap_ns))
    }

    /// Takes a datagram from the node. `settled` hears of every click whose fate it decided.
    pub fn on_datagram(&mut self, now_ns: u64, bytes: &[u8], mut settled: impl FnMut(Settled<'_>)) {
        let mut acks = Acks::new(bytes);
        for ack in acks.by_ref() {
            if self.expects(&ack) {
                self.traffic.acks += 1;
                self.on_ack(now_ns, &ack, &mut settled);
            } else {
                self.traffic.acks_unmatched += 1;
            }
        }
        self.traffic.garbage_datagrams += u64::from(!acks.rest().is_empty() || bytes.is_empty());
    }

    /// Whether the ack answers a batch that was sent and is still held, with one status a click.
    fn expects(&self, ack: &Ack<'_>) -> bool {
        self.pool.batches.get(BatchIds::slot(ack.batch_id)).is_some_and(|batch| {
            let sent = match batch.state {
                State::InFlight | State::Ready => batch.attempts > 0,
                State::Free | State::Open | State::Backoff => false,
            };
            sent && batch.id == ack.batch_id && usize::from(batch.count) == ack.statuses.len()
        })
    }

    fn on_ack(&mut self, now_ns: u64, ack: &Ack<'_>, settled: &mut impl FnMut(Settled<'_>)) {
        let slot = BatchIds::slot(ack.batch_id) as u32;
        let ledger = &mut self.ledger;
        self.pool.retain(slot, |index, ticket, click, extension| {
            let (fate, place) = match AckStatus::from_number(ack.statuses[index]) {
                Some(AckStatus::Created) => (Fate::Created, &mut ledger.acked_created),
                Some(AckStatus::Exists) => (Fate::Exists, &mut ledger.acked_exists),
                Some(AckStatus::Malformed) => (Fate::Malformed, &mut ledger.dropped_malformed),
                Some(AckStatus::Retry) | None => return true,
            };
            *place += 1;
            ledger.queued -= 1;
            settled(Settled { ticket, click, extension, fate });
            false
        });
        self.wheel.clear(slot);
        let batch = &mut self.pool.batches[slot as usize];
        if batch.count == 0 {
            self.pool.release(slot);
            return;
        }
        self.traffic.retry_statuses += u64::from(batch.count);
        // A new id: another ack for the old one must not be taken for an answer to the next send.
        batch.id = self.ids.next(slot);
        batch.state = State::Backoff;
        let attempt = batch.attempts;
        self.pool.seal(slot);
        // A node that says how long knows it; the random time still keeps a fleet out of step.
        let asked_ns = u64::from(ack.retry_after_ms) * NS_PER_MS;
        let wait_ns = asked_ns + self.backoff_ns(attempt);
        self.wheel.set(slot, now_ns + wait_ns);
    }

    fn give_up(&mut self, slot: u32, settled: &mut impl FnMut(Settled<'_>)) {
        let ledger = &mut self.ledger;
        self.pool.retain(slot, |_, ticket, click, extension| {
            ledger.dropped_gave_up += 1;
            ledger.queued -= 1;
            settled(Settled { ticket, click, extension, fate: Fate::GaveUp });
            false
        });
        self.pool.release(slot);
    }

    /// When [`Self::advance`] or [`Self::poll_transmit`] next have work; `None` while nothing is
    /// held. A moment in the past means now.
    #[must_use]
    pub fn next_timeout_ns(&self) -> Option<u64> {
        if self.ready.is_empty() { self.wheel.next_ns() } else { Some(0) }
    }

    /// Whether no click is held.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.ledger.queued == 0
    }

    /// How many more datagrams could be begun now.
    #[must_use]
    pub fn free_batches(&self) -> usize {
        self.pool.free_batches()
    }

    /// The books.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What went over the wire.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The clicks held, counted one by one: equals `ledger().queued`, unless the books are wrong.
    #[must_use]
    pub fn recount_queued(&self) -> u64 {
        let held = self.pool.batches.iter().filter(|batch| batch.state != State::Free);
        held.map(|batch| u64::from(batch.count)).sum()
    }
}
