//! Hand-off: a click that arrived at the wrong worker goes to its owner, its status comes back.
//!
//! Between each pair of workers run two single-producer single-consumer rings: clicks one way as
//! bytes, replies the other way. A worker may have at most [`CREDITS`] clicks out at each other
//! worker; the reply ring holds as many, so a reply always finds room and no owner ever waits.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};
use weir_common::id::WorkerId;
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::{CLICK_LEN, Click, MAX_EXTENSION};
use zerocopy::byteorder::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reply::Ticket;
use crate::admission::Admitted;
use crate::traffic::Flags;

/// Clicks one worker may have out at another: a commit's time (5 ms) of 3 M clicks/s.
pub const CREDITS: usize = 16_384;
/// Bytes of the ring between two workers: as many plain clicks as there are credits.
const RING_BYTES: usize = CREDITS * (RECORD_LEN + CLICK_LEN);
/// The most bytes taken over in one turn, so that clicks of one's own are not kept waiting.
pub const TURN_BYTES: usize = 96 * 1024;
/// The least: one click with the longest extension.
pub const TURN_BYTES_MIN: usize = RECORD_LEN + CLICK_LEN + MAX_EXTENSION;

/// What goes before a handed-off click. In-process only: native byte order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Record {
    extension_len: U16,
    index: u8,
    row_flags: u8,
    traffic: u8,
    late: u8,
    reserved: [u8; 2],
    slot: U32,
    generation: U32,
    minute: U32,
    reserved_too: U32,
    received_at_ms: U64,
    /// As IPv6, an IPv4 address mapped; unspecified for none.
    source: [u8; 16],
}

const RECORD_LEN: usize = size_of::<Record>();
const _: () = assert!(RECORD_LEN == 48);
const _: () = assert!(TURN_BYTES > TURN_BYTES_MIN);

/// A click on its way to its owner.
#[derive(Clone, Copy, Debug)]
pub struct HandedOff<'a> {
    /// The datagram that waits for its status.
    pub ticket: Ticket,
    /// The click's place in that datagram.
    pub index: u8,
    /// When it was read.
    pub received_at: UnixMs,
    /// What admission found.
    pub admitted: Admitted,
    /// Who sent it, if that is known; kept in memory alone.
    pub source: Option<IpAddr>,
    /// The click.
    pub click: &'a Click,
    /// Its extension.
    pub extension: &'a [u8],
}

/// A status on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The datagram that waits for it.
    pub ticket: Ticket,
    /// The click's place in it.
    pub index: u8,
    /// A [`weir_common::wire::AckStatus`].
    pub status: u8,
}

/// How to wake a worker that sleeps in its ring.
#[derive(Debug)]
pub struct Bell {
    asleep: AtomicBool,
    ring: AtomicI32,
}

impl Bell {
    /// Names the ring to wake. Called once by the owner before it first sleeps.
    pub fn hang(&self, ring: RawFd) {
        self.ring.store(ring, Ordering::Release);
    }

    /// The owner is about to sleep; it must look at its inboxes once more after this.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        // Pairs with the fence in `ring_to_wake`: either we see the click, or the producer sees
        // that we sleep.
        fence(Ordering::SeqCst);
    }

    /// The owner is awake.
    pub fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The ring to wake, if its owner sleeps and nobody else woke it. Called after pushing.
    #[must_use]
    pub fn ring_to_wake(&self) -> Option<RawFd> {
        fence(Ordering::SeqCst);
        let sleeping = self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst);
        let ring = self.ring.load(Ordering::Acquire);
        (sleeping && ring >= 0).then_some(ring)
    }
}

/// The way to one other worker.
#[derive(Debug)]
struct Outbox {
    clicks: Producer<u8>,
    replies: Consumer<Reply>,
    credits: usize,
    rang: bool,
}

/// The way from one other worker.
#[derive(Debug)]
struct Inbox {
    clicks: Consumer<u8>,
    replies: Producer<Reply>,
    rang: bool,
}

/// One worker's end of the rings to all others.
#[derive(Debug)]
pub struct Port {
    worker: WorkerId,
    outboxes: Vec<Option<Outbox>>,
    inboxes: Vec<Option<Inbox>>,
    bells: Arc<[Bell]>,
}

/// The ports of `workers` workers, in worker order.
#[must_use]
pub fn mesh(workers: usize) -> Vec<Port> {
    let bells: Arc<[Bell]> =
        (0..workers).map(|_| Bell { asleep: AtomicBool::new(false), ring: AtomicI32::new(-1) }).collect();
    let port = |worker| Port {
        worker: WorkerId(worker as u16),
        outboxes: (0..workers).map(|_| None).collect(),
        inboxes: (0..workers).map(|_| None).collect(),
        bells: Arc::clone(&bells),
    };
    let mut ports: Vec<Port> = (0..workers).map(port).collect();
    for from in 0..workers {
        for to in (0..workers).filter(|&to| to != from) {
            let (clicks_in, clicks_out) = RingBuffer::new(RING_BYTES);
            let (replies_in, replies_out) = RingBuffer::new(CREDITS);
            ports[from].outboxes[to] =
                Some(Outbox { clicks: clicks_in, replies: replies_out, credits: CREDITS, rang: true });
            ports[to].inboxes[from] = Some(Inbox { clicks: clicks_out, replies: replies_in, rang: true });
        }
    }
    ports
}

impl Port {
    /// This worker's own bell.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.bells[usize::from(self.worker.0)]
    }

    /// Hands a click to its owner. `false` when the owner has as many as it may have, or its ring
    /// has no room: the click is then still the caller's.
    pub fn hand_off(&mut self, owner: WorkerId, click: &HandedOff<'_>) -> bool {
        let Some(outbox) = self.outboxes.get_mut(usize::from(owner.0)).and_then(Option::as_mut) else {
            return false;
        };
        let len = RECORD_LEN + CLICK_LEN + click.extension.len();
        if outbox.credits == 0 || outbox.clicks.slots() < len {
            return false;
        }
        let pushed = outbox.clicks.push_entire_slice(click.record().as_bytes()).is_ok()
            && outbox.clicks.push_entire_slice(click.click.as_bytes()).is_ok()
            && outbox.clicks.push_entire_slice(click.extension).is_ok();
        debug_assert!(pushed, "room was checked, and nobody else pushes");
        outbox.credits -= 1;
        outbox.rang = false;
        pushed
    }

    /// Replaces `bytes` by a turn's worth of clicks from one other worker, all whole and
    /// [`TURN_BYTES_MIN`] to [`TURN_BYTES`] at the most; read them with [`handed_off`].
    pub fn fetch(&mut self, from: usize, turn_bytes: usize, bytes: &mut Vec<u8>) {
        bytes.clear();
        let Some(inbox) = self.inboxes.get_mut(from).and_then(Option::as_mut) else { return };
        let available = inbox.clicks.slots().min(turn_bytes);
        let Ok(chunk) = inbox.clicks.read_chunk(available) else { return };
        let (first, second) = chunk.as_slices();
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
        let mut whole = handed_off(bytes);
        whole.by_ref().for_each(drop);
        let used = bytes.len() - whole.rest.len();
        bytes.truncate(used);
        chunk.commit(used);
    }

    /// Number of workers, this one included.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// Sends the status of a click back to the worker it came from.
    pub fn reply(&mut self, to: WorkerId, reply: Reply) {
        if let Some(inbox) = self.inboxes.get_mut(usize::from(to.0)).and_then(Option::as_mut) {
            let pushed = inbox.replies.push(reply).is_ok();
            debug_assert!(pushed, "there are no more clicks out than the ring holds replies");
            inbox.rang = false;
        }
    }

    /// Passes every status that came back to `take`.
    pub fn replies(&mut self, mut take: impl FnMut(Reply)) {
        for outbox in self.outboxes.iter_mut().flatten() {
            while let Ok(reply) = outbox.replies.pop() {
                outbox.credits += 1;
                take(reply);
            }
        }
    }

    /// Whether anything waits to be taken over or replied.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.inboxes.iter().flatten().any(|inbox| !inbox.clicks.is_empty())
            || self.outboxes.iter().flatten().any(|outbox| !outbox.replies.is_empty())
    }

    /// Whether no click of ours is out at another worker.
    #[must_use]
    pub fn all_back(&self) -> bool {
        self.outboxes.iter().flatten().all(|outbox| outbox.credits == CREDITS)
    }

    /// Passes to `wake` the ring of every sleeping worker that was given something.
    pub fn wake_sleepers(&mut self, mut wake: impl FnMut(RawFd)) {
        let given = self.outboxes.iter_mut().map(|outbox| outbox.as_mut().map(|outbox| &mut outbox.rang));
        let replied = self.inboxes.iter_mut().map(|inbox| inbox.as_mut().map(|inbox| &mut inbox.rang));
        for ((given, replied), bell) in given.zip(replied).zip(self.bells.iter()) {
            let mut quiet = true;
            for rang in [given, replied].into_iter().flatten() {
                quiet &= std::mem::replace(rang, true);
            }
            if !quiet && let Some(ring) = bell.ring_to_wake() {
                wake(ring);
            }
        }
    }
}

impl<'a> HandedOff<'a> {
    fn record(&self) -> Record {
        Record {
            extension_len: U16::new(self.extension.len() as u16),
            index: self.index,
            row_flags: self.admitted.row_flags,
            traffic: self.admitted.traffic.bits(),
            late: u8::from(self.admitted.late),
            reserved: [0; 2],
            slot: U32::new(self.ticket.slot),
            generation: U32::new(self.ticket.generation),
            minute: U32::new(self.admitted.minute.0),
            reserved_too: U32::ZERO,
            received_at_ms: U64::new(self.received_at.0),
            source: match self.source {
                Some(IpAddr::V4(source)) => source.to_ipv6_mapped().octets(),
                Some(IpAddr::V6(source)) => source.octets(),
                None => Ipv6Addr::UNSPECIFIED.octets(),
            },
        }
    }

    /// The first click of `bytes`, if it is there whole, and what follows it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (record, rest) = Record::ref_from_prefix(bytes).ok()?;
        let (click, rest) = Click::ref_from_prefix(rest).ok()?;
        let (extension, rest) = rest.split_at_checked(usize::from(record.extension_len.get()))?;
        let admitted = Admitted {
            minute: Minute(record.minute.get()),
            row_flags: record.row_flags,
            traffic: Flags::from_bits(record.traffic),
            late: record.late != 0,
        };
        let ticket = Ticket { slot: record.slot.get(), generation: record.generation.get() };
        let received_at = UnixMs(record.received_at_ms.get());
        let source = Ipv6Addr::from(record.source);
        let source = (!source.is_unspecified()).then(|| source.to_canonical());
        Some((Self { ticket, index: record.index, received_at, admitted, source, click, extension }, rest))
    }
}

/// The clicks in bytes that [`Port::fetch`] filled.
#[derive(Debug)]
pub struct HandedOffClicks<'a> {
    rest: &'a [u8],
}

/// Reads the clicks in bytes that [`Port::fetch`] filled.
#[must_use]
pub fn handed_off(bytes: &[u8]) -> HandedOffClicks<'_> {
    HandedOffClicks { rest: bytes }
}

impl<'a> Iterator for HandedOffClicks<'a> {
    type Item = HandedOff<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (click, rest) = HandedOff::read(self.rest)?;
        self.rest = rest;
        Some(click)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::reason::Reason;

    use super::*;

    const ADMITTED: Admitted = Admitted {
        minute: Minute(77),
        row_flags: 1,
        traffic: Flags::NONE.with(Reason::Prefetch, true),
        late: true,
    };

    const SOURCE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

    fn sample<'a>(index: u8, click: &'a Click, extension: &'a [u8]) -> HandedOff<'a> {
        let ticket = Ticket { slot: 9, generation: 4 };
        HandedOff {
            ticket,
            index,
            received_at: UnixMs(1_234_567),
            admitted: ADMITTED,
            source: SOURCE,
            click,
            extension,
        }
    }

    #[test]
    fn a_handed_off_click_arrives_whole_and_its_status_comes_back() {
        let mut ports = mesh(3);
        let mut click = Click::zeroed();
        click.ordinal = 5;
        assert!(ports[0].hand_off(WorkerId(2), &sample(3, &click, b"agent")));
        assert!(!ports[0].all_back() && ports[2].has_work() && !ports[1].has_work());

        let mut bytes = Vec::new();
        ports[2].fetch(0, TURN_BYTES, &mut bytes);
        let arrived: Vec<_> = handed_off(&bytes).collect();
        assert_eq!(arrived.len(), 1);
        assert_eq!((arrived[0].click, arrived[0].extension, arrived[0].index), (&click, &b"agent"[..], 3));
        assert_eq!((arrived[0].received_at, arrived[0].admitted), (UnixMs(1_234_567), ADMITTED));
        assert_eq!(arrived[0].source, SOURCE);
        let reply = Reply { ticket: Ticket { slot: 9, generation: 4 }, index: 3, status: 1 };
        ports[2].reply(WorkerId(0), reply);
        let mut came_back = Vec::new();
        ports[0].replies(|reply| came_back.push(reply));
        assert_eq!(came_back, [reply]);
        assert!(ports[0].all_back() && !ports[2].has_work());
    }

    #[test]
    fn no_more_clicks_go_out_than_replies_have_room() {
        let mut ports = mesh(2);
        let click = Click::zeroed();
        let mut sent = 0;
        while ports[0].hand_off(WorkerId(1), &sample(0, &click, &[])) {
            sent += 1;
        }
        assert_eq!(sent, CREDITS);
        let (mut taken, mut bytes) = (0, Vec::new());
        while taken < sent {
            ports[1].fetch(0, TURN_BYTES, &mut bytes);
            taken += handed_off(&bytes).count();
        }
        for _ in 0..sent {
            ports[1]
                .reply(WorkerId(0), Reply { ticket: Ticket { slot: 0, generation: 0 }, index: 0, status: 0 });
        }
        let mut back = 0;
        ports[0].replies(|_| back += 1);
        assert_eq!(back, sent);
    }

    #[test]
    fn clicks_survive_the_end_of_the_ring_in_order() {
        let mut ports = mesh(2);
        let click = Click::zeroed();
        let (mut next, mut bytes) = (0_u8, Vec::new());
        for round in 0..20_000_usize {
            let extension = vec![round as u8; round * 7 % 200];
            assert!(ports[0].hand_off(WorkerId(1), &sample(round as u8, &click, &extension)));
            ports[1].fetch(0, TURN_BYTES, &mut bytes);
            for arrived in handed_off(&bytes) {
                assert_eq!(arrived.index, next);
                assert!(arrived.extension.iter().all(|&byte| byte == next));
                next = next.wrapping_add(1);
            }
            ports[1]
                .reply(WorkerId(0), Reply { ticket: Ticket { slot: 0, generation: 0 }, index: 0, status: 0 });
            ports[0].replies(|_| {});
        }
    }

    #[test]
    fn only_a_sleeper_that_was_given_something_is_woken_and_once() {
        let mut ports = mesh(3);
        for (number, port) in ports.iter().enumerate() {
            port.bell().hang(100 + number as RawFd);
        }
        let click = Click::zeroed();
        ports[1].bell().doze();
        ports[2].bell().doze();
        assert!(ports[0].hand_off(WorkerId(1), &sample(0, &click, &[])));
        let mut woken = Vec::new();
        ports[0].wake_sleepers(|ring| woken.push(ring));
        ports[0].wake_sleepers(|ring| woken.push(ring));
        assert_eq!(woken, [101]);
    }

    #[test]
    fn a_worker_has_no_way_to_itself() {
        let mut ports = mesh(1);
        assert!(!ports[0].hand_off(WorkerId(0), &sample(0, &Click::zeroed(), &[])));
    }
}
