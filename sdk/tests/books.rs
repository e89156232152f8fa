//! The sender against a network that loses, repeats, reorders and forges, and a node that takes
//! clicks by the protocol: the books close at every step, and a click is one click for ever.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use weir_common::id::{ImpressionId, Issuer, KeyId, Ordinal};
use weir_common::siphash::SipKey;
use weir_common::wire::{AckHeader, AckStatus, Click, Datagram, MAX_PAYLOAD};
use weir_sdk::{Config, Fate, Minter, Offer, Sender, Ticket};
use zerocopy::IntoBytes;

type ClickId = (bool, ImpressionId, Ordinal);

fn id_of(click: &Click) -> ClickId {
    (click.is_foreign(), click.impression, Ordinal(click.ordinal))
}

/// What may happen in one step.
#[derive(Clone, Debug)]
enum Step {
    /// Offer so many fresh clicks, with extensions of this length.
    Offer(u8, u16),
    /// Let so many milliseconds pass.
    Wait(u16),
    /// Deliver the n-th datagram under way to the node; the node answers `retry` to every k-th click.
    Deliver(prop::sample::Index, u8),
    /// Deliver it and keep it under way.
    Repeat(prop::sample::Index),
    /// Lose it.
    Lose(prop::sample::Index),
    /// Deliver the n-th ack.
    Ack(prop::sample::Index),
    /// Deliver it and keep it under way.
    RepeatAck(prop::sample::Index),
    /// Lose it.
    LoseAck(prop::sample::Index),
    /// An ack that nobody of ours sent.
    Forge(u64, u8, u8),
    /// An ack for a batch under way, with one status too many.
    Misfit(prop::sample::Index),
    /// Bytes that are no ack.
    Noise(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (1_u8..40, prop_oneof![Just(0_u16), 0_u16..1352, 1300_u16..1400]).prop_map(|(n, len)| Step::Offer(n, len)),
        4 => (0_u16..400).prop_map(Step::Wait),
        6 => (index(), 0_u8..5).prop_map(|(at, retry)| Step::Deliver(at, retry)),
        1 => index().prop_map(Step::Repeat),
        2 => index().prop_map(Step::Lose),
        6 => index().prop_map(Step::Ack),
        1 => index().prop_map(Step::RepeatAck),
        2 => index().prop_map(Step::LoseAck),
        1 => (any::<u64>(), 1_u8..15, 0_u8..4).prop_map(|(id, n, status)| Step::Forge(id, n, status)),
        1 => index().prop_map(Step::Misfit),
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Step::Noise),
    ];
    prop::collection::vec(step, 1..200)
}

/// The sender, the wire and the node.
struct World {
    now_ns: u64,
    sender: Sender,
    minter: Minter,
    /// The id each ticket was offered with.
    offered: HashMap<Ticket, ClickId>,
    datagrams: Vec<Vec<u8>>,
    acks: Vec<Vec<u8>>,
    /// What the node holds.
    node: HashSet<ClickId>,
    settled: HashMap<Ticket, Fate>,
}

impl World {
    fn new(group_bits: u32, batches: usize) -> Self {
        let config = Config { group_bits, batches, attempts_max: 4, seed: 7, ..Config::default() };
        let now_ns = 1 << 50;
        Self {
            now_ns,
            sender: Sender::new(config, now_ns).unwrap(),
            minter: Minter::new(Issuer(1), KeyId(1), SipKey { k0: 1, k1: 2 }, 0),
            offered: HashMap::new(),
            datagrams: Vec::new(),
            acks: Vec::new(),
            node: HashSet::new(),
            settled: HashMap::new(),
        }
    }

    fn offer(&mut self, count: u8, extension_len: u16) {
        for _ in 0..count {
            let mut click = self.minter.mint(&Offer { ad: 5, ..Offer::default() }, 1_000);
            click.ordinal = (click.impression.sequence() % 3) as u8;
            // A referrer: one field, so that any length but 1 and 2 is a sound extension.
            let len = if extension_len < 3 { 0 } else { extension_len.min(1024 + 3) };
            let mut extension = vec![b'x'; len as usize];
            if len >= 3 {
                extension[0] = weir_common::wire::extension::REFERRER;
                extension[1..3].copy_from_slice(&(len - 3).to_le_bytes());
            }
            if let Ok(ticket) = self.sender.offer(self.now_ns, &click, &extension) {
                assert!(self.offered.insert(ticket, id_of(&click)).is_none(), "a ticket given twice");
            }
        }
    }

    /// Moves time and puts what the sender hands out under way.
    fn turn(&mut self, wait_ns: u64) {
        self.now_ns += wait_ns;
        let (offered, settled) = (&self.offered, &mut self.settled);
        self.sender.advance(self.now_ns, |gone| {
            assert_eq!(gone.fate, Fate::GaveUp);
            assert_eq!(offered[&gone.ticket], id_of(gone.click));
            assert!(settled.insert(gone.ticket, gone.fate).is_none(), "settled twice");
        });
        while let Some(transmit) = self.sender.poll_transmit(self.now_ns) {
            let bytes = self.sender.datagram(transmit);
            assert!(bytes.len() <= MAX_PAYLOAD);
            let datagram = Datagram::parse(bytes).expect("what is sent is well formed");
            let facts = datagram.facts();
            let tickets = self.sender.tickets(transmit);
            assert_eq!(tickets.len(), datagram.clicks().len());
            for (ticket, (click, extension)) in tickets.iter().zip(datagram.clicks()) {
                assert_eq!(self.offered[ticket], id_of(click), "a click changed its id");
                assert!(click.shard().shares_leading(facts.shard, facts.shared_bits.into()));
                assert_eq!(click.check(extension), Ok(()));
            }
            self.datagrams.push(bytes.to_vec());
        }
    }

    /// The node's part: takes what it does not say `retry` to, and answers.
    fn deliver(&mut self, bytes: &[u8], retry_every: u8) {
        let datagram = Datagram::parse(bytes).expect("what arrives is what was sent");
        let mut ack =
            AckHeader::new(datagram.header().batch_id.get(), datagram.facts().count).as_bytes().to_vec();
        for (index, (click, _)) in datagram.clicks().enumerate() {
            let status = if retry_every > 0 && index % usize::from(retry_every) == 0 {
                AckStatus::Retry
            } else if click.impression.sequence() % 17 == 0 {
                AckStatus::Malformed
            } else if self.node.insert(id_of(click)) {
                AckStatus::Created
            } else {
                AckStatus::Exists
            };
            ack.push(status as u8);
        }
        self.acks.push(ack);
    }

    fn receive(&mut self, bytes: &[u8]) {
        let (offered, settled, node) = (&self.offered, &mut self.settled, &self.node);
        self.sender.on_datagram(self.now_ns, bytes, |gone| {
            assert_eq!(offered[&gone.ticket], id_of(gone.click));
            if matches!(gone.fate, Fate::Created | Fate::Exists) {
                assert!(node.contains(&id_of(gone.click)), "acked, but the node does not hold it");
            }
            assert!(settled.insert(gone.ticket, gone.fate).is_none(), "settled twice");
        });
    }

    fn take(&mut self, acks: bool, at: &prop::sample::Index, keep: bool) -> Option<Vec<u8>> {
        let under_way = if acks { &mut self.acks } else { &mut self.datagrams };
        if under_way.is_empty() {
            return None;
        }
        let at = at.index(under_way.len());
        Some(if keep { under_way[at].clone() } else { under_way.swap_remove(at) })
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Offer(count, extension_len) => self.offer(*count, *extension_len),
            Step::Wait(ms) => self.turn(u64::from(*ms) * 1_000_000),
            Step::Deliver(at, retry) => {
                if let Some(bytes) = self.take(false, at, false) {
                    self.deliver(&bytes, *retry);
                }
            }
            Step::Repeat(at) => {
                if let Some(bytes) = self.take(false, at, true) {
                    self.deliver(&bytes, 0);
                }
            }
            Step::Lose(at) => drop(self.take(false, at, false)),
            Step::Ack(at) | Step::RepeatAck(at) => {
                if let Some(bytes) = self.take(true, at, matches!(step, Step::RepeatAck(_))) {
                    self.receive(&bytes);
                }
            }
            Step::LoseAck(at) => drop(self.take(true, at, false)),
            Step::Forge(batch_id, count, status) => {
                let mut bytes = AckHeader::new(*batch_id, *count).as_bytes().to_vec();
                bytes.resize(bytes.len() + usize::from(*count), *status);
                self.receive(&bytes);
            }
            Step::Misfit(at) => {
                if let Some(bytes) = self.take(false, at, true) {
                    let header = *Datagram::parse(&bytes).unwrap().header();
                    let mut ack = AckHeader::new(header.batch_id.get(), header.count + 1).as_bytes().to_vec();
                    ack.resize(ack.len() + usize::from(header.count) + 1, AckStatus::Created as u8);
                    self.receive(&ack);
                }
            }
            Step::Noise(bytes) => self.receive(bytes),
        }
        let ledger = self.sender.ledger();
        assert!(ledger.closes(), "{ledger:?}");
        assert_eq!(ledger.queued, self.sender.recount_queued());
        assert_eq!(ledger.queued as usize, self.offered.len() - self.settled.len());
    }
}

proptest! {
    #[test]
    fn the_books_close_whatever_the_network_does(steps in steps(), group_bits in 0_u32..4, spare in 1_usize..40) {
        let mut world = World::new(group_bits, (1 << group_bits) + spare);
        for step in &steps {
            world.step(step);
        }
    }

    #[test]
    fn everything_is_settled_once_the_network_recovers(steps in steps(), group_bits in 0_u32..4) {
        let mut world = World::new(group_bits, 64);
        for step in &steps {
            world.step(step);
        }
        // Deliver all, or let the attempts run out: bounded by attempts times the longest wait.
        world.sender.flush();
        for _ in 0..64 {
            world.turn(11_000_000_000);
            for bytes in std::mem::take(&mut world.datagrams) {
                world.deliver(&bytes, 0);
            }
            for bytes in std::mem::take(&mut world.acks) {
                world.receive(&bytes);
            }
        }
        prop_assert!(world.sender.is_idle());
        prop_assert_eq!(world.sender.next_timeout_ns(), None);
        prop_assert_eq!(world.offered.len(), world.settled.len());
        prop_assert!(world.sender.ledger().closes());
    }
}
