//! An edge node in one thread: takes clicks by the rules of the protocol, keeps the same books, and
//! does to datagrams and acks what a bad network does. For tests, and to see the generator's own
//! ceiling. It stores nothing and knows no journal.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use weir_common::id::{ImpressionId, Issuer, KeyId, ORDINALS};
use weir_common::reason::{Outcome, Reason};
use weir_common::siphash::SipKey;
use weir_common::wire::{AckHeader, AckStatus, Click, Datagram, click_flags};
use zerocopy::IntoBytes;

const LATENESS_MS: u64 = 10 * 60_000;
const AHEAD_MS: u64 = 60_000;
/// Issue times are whole seconds.
const GRACE_MS: u64 = 1000;
const LIFETIME_S: u64 = 24 * 3600;
const BUFFER: usize = 2048;
/// Who waits for a load waits this long at most: a generator that failed must not leave it behind.
pub const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// How long the thread waits for a datagram before it looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// What goes wrong, each in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Datagrams lost before the node saw them.
    pub lose_datagrams: u32,
    /// Acks lost.
    pub lose_acks: u32,
    /// Acks sent twice.
    pub repeat_acks: u32,
    /// Acks held back behind the next eight.
    pub delay_acks: u32,
    /// Clicks answered with `retry` and not taken.
    pub retry: u32,
}

/// What the node counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MockBooks {
    /// Datagrams it saw.
    pub datagrams: u64,
    /// Of these, those with a sound header.
    pub datagrams_sound: u64,
    /// Datagrams lost on purpose, not in the others.
    pub datagrams_lost: u64,
    /// Clicks by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Clicks by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Sum of the prices of billable clicks.
    pub cost_micros: u64,
    /// Clicks with an implausible clock.
    pub clock_suspect: u64,
}

/// The node's state.
pub struct MockEdge {
    keys: Vec<(Issuer, KeyId, SipKey)>,
    faults: Faults,
    rng: SmallRng,
    /// Ordinals seen, and whether one was counted.
    impressions: HashMap<(bool, ImpressionId), (u8, bool)>,
    delayed: VecDeque<(u64, Vec<u8>, SocketAddr)>,
    /// What it counted.
    pub books: MockBooks,
}

impl MockEdge {
    /// A node that holds these keys.
    #[must_use]
    pub fn new(keys: Vec<(Issuer, KeyId, SipKey)>, faults: Faults, seed: u64) -> Self {
        Self {
            keys,
            faults,
            rng: SmallRng::seed_from_u64(seed),
            impressions: HashMap::new(),
            delayed: VecDeque::new(),
            books: MockBooks::default(),
        }
    }

    /// Serves a socket until told to stop.
    pub fn serve(&mut self, socket: &UdpSocket, stop: &AtomicBool) {
        self.serve_until(socket, |_| stop.load(Ordering::Relaxed));
    }

    /// Serves a socket until no datagram has come for so long, once there was one; without any it
    /// ends after [`FIRST_WITHIN`].
    pub fn serve_while_busy(&mut self, socket: &UdpSocket, idle: Duration) {
        let started = Instant::now();
        self.serve_until(socket, |last| match last {
            Some(last) => last.elapsed() > idle,
            None => started.elapsed() > FIRST_WITHIN,
        });
    }

    fn serve_until(&mut self, socket: &UdpSocket, stop: impl Fn(Option<Instant>) -> bool) {
        socket.set_read_timeout(Some(PATIENCE)).expect("a read timeout can be set");
        let mut buffer = [0; BUFFER];
        let mut last = None;
        while !stop(last) {
            match socket.recv_from(&mut buffer) {
                Ok((len, sender)) => {
                    last = Some(Instant::now());
                    self.on_datagram(socket, &buffer[..len], sender);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.release(socket, 0);
                }
                Err(_) => {}
            }
        }
    }

    fn on_datagram(&mut self, socket: &UdpSocket, bytes: &[u8], sender: SocketAddr) {
        if self.chance(self.faults.lose_datagrams) {
            self.books.datagrams_lost += 1;
            return;
        }
        self.books.datagrams += 1;
        self.release(socket, 8);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let Some(ack) = self.answer(now_ms, bytes) else { return };
        if self.chance(self.faults.lose_acks) {
            return;
        }
        if self.chance(self.faults.delay_acks) {
            self.delayed.push_back((self.books.datagrams, ack, sender));
            return;
        }
        let times = 1 + u32::from(self.chance(self.faults.repeat_acks));
        for _ in 0..times {
            // The sender may be gone: its business.
            let _gone = socket.send_to(&ack, sender);
        }
    }

    /// Sends acks that were held back for at least so many datagrams.
    fn release(&mut self, socket: &UdpSocket, behind: u64) {
        while let Some((at, ack, sender)) = self.delayed.front() {
            if at + behind > self.books.datagrams {
                return;
            }
            let _gone = socket.send_to(ack, *sender);
            self.delayed.pop_front();
        }
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_range(0..1000) < thousandths
    }

    /// Takes one datagram and gives its ack, if it can have one.
    pub fn answer(&mut self, now_ms: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let datagram = match Datagram::parse(bytes) {
            Ok(datagram) => datagram,
            Err(bad) => {
                self.books.datagrams_sound += u64::from(bad.batch_id.is_some());
                self.books.count(Outcome::Malformed, bad.reason, bad.clicks.into());
                let mut ack = AckHeader::new(bad.batch_id?, bad.clicks).as_bytes().to_vec();
                ack.resize(ack.len() + usize::from(bad.clicks), AckStatus::Malformed as u8);
                return Some(ack);
            }
        };
        self.books.datagrams_sound += 1;
        let mut ack =
            AckHeader::new(datagram.header().batch_id.get(), datagram.facts().count).as_bytes().to_vec();
        for (click, extension) in datagram.clicks() {
            ack.push(self.take(now_ms, click, extension) as u8);
        }
        Some(ack)
    }

    fn take(&mut self, now_ms: u64, click: &Click, extension: &[u8]) -> AckStatus {
        if let Err(reason) = click.check(extension) {
            self.books.count(Outcome::Malformed, reason, 1);
            return AckStatus::Malformed;
        }
        if self.chance(self.faults.retry) {
            self.books.count(Outcome::Refused, Reason::TableFull, 1);
            return AckStatus::Retry;
        }
        let reason = self.refusal(now_ms, click);
        if reason != Reason::None {
            self.books.count(Outcome::Refused, reason, 1);
            return AckStatus::Malformed; // refused for good: not to be sent again
        }
        let (outcome, reason) = self.decide(now_ms, click);
        self.books.count(outcome, reason, 1);
        if outcome == Outcome::Duplicate { AckStatus::Exists } else { AckStatus::Created }
    }

    fn refusal(&self, now_ms: u64, click: &Click) -> Reason {
        if click.ordinal >= ORDINALS {
            return Reason::OrdinalLimit;
        }
        if click.is_foreign() {
            return Reason::None;
        }
        let id = click.impression;
        let (issued_s, now_s) = (u64::from(id.issued_at_s()), now_ms / 1000);
        if issued_s + LIFETIME_S < now_s {
            return Reason::Expired;
        }
        if issued_s > now_s + AHEAD_MS / 1000 {
            return Reason::NotYetIssued;
        }
        let key = self.keys.iter().find(|(issuer, key, _)| (*issuer, *key) == (id.issuer(), id.key()));
        let Some((_, _, key)) = key else { return Reason::UnknownKey };
        if click.tag.get() == click.expected_tag(key) { Reason::None } else { Reason::BadTag }
    }

    fn decide(&mut self, now_ms: u64, click: &Click) -> (Outcome, Reason) {
        let bit = 1 << click.ordinal;
        let (seen, counted) = self.impressions.entry((click.is_foreign(), click.impression)).or_default();
        if *seen & bit != 0 {
            return (Outcome::Duplicate, Reason::None);
        }
        *seen |= bit;
        let clicked_ms = click.clicked_at_ms.get();
        let issued_ms = if click.is_foreign() { 0 } else { u64::from(click.impression.issued_at_s()) * 1000 };
        let suspect = clicked_ms + GRACE_MS < issued_ms
            || clicked_ms > now_ms + AHEAD_MS
            || clicked_ms + LIFETIME_S * 1000 < now_ms;
        self.books.clock_suspect += u64::from(suspect);
        if !suspect && clicked_ms + LATENESS_MS < now_ms {
            return (Outcome::Late, Reason::None);
        }
        if click.flags & click_flags::TEST != 0 {
            return (Outcome::Filtered, Reason::TestTraffic);
        }
        if click.flags & click_flags::PREFETCH != 0 {
            return (Outcome::Filtered, Reason::Prefetch);
        }
        if std::mem::replace(counted, true) {
            return (Outcome::Repeat, Reason::None);
        }
        if !click.is_foreign() {
            self.books.cost_micros += click.price_micros.get();
        }
        (Outcome::Accepted, Reason::None)
    }
}

impl MockBooks {
    fn count(&mut self, outcome: Outcome, reason: Reason, clicks: u64) {
        *self.outcomes.entry(outcome.name().to_owned()).or_default() += clicks;
        if reason != Reason::None {
            *self.reasons.entry(reason.name().to_owned()).or_default() += clicks;
        }
    }
}
