//! How forwarder and workers talk: a number one way, a small ring the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, WorkerId};
use weir_common::time::{Minute, UnixMs};

use super::batch::FlushNo;

/// Shares that may wait in one worker's ring. One flush is asked for at a time; the second place
/// is for an answer to a flush that was given up.
const SHARES_WAITING_MAX: usize = 2;

/// A worker's answer to a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who answers.
    pub worker: WorkerId,
    /// The flush that was asked for.
    pub flush: FlushNo,
    /// The last block whose rows the buckets count; it is durable. 0 when there is none yet.
    pub upto: BlockSeq,
    /// Buckets that changed since the last share, with this worker's totals so far.
    pub changed: Vec<(BucketKey, BucketTotals)>,
    /// The receive time of the oldest row that is new in them.
    pub oldest_received_at: Option<UnixMs>,
    /// The oldest minute of which the worker has changes that it cannot share yet, because its
    /// journal has no place for their rows. Until it can, that minute stays open.
    pub held_back: Option<Minute>,
}

/// The worker's side.
#[derive(Debug)]
pub struct Mailbox {
    worker: WorkerId,
    requested: Arc<AtomicU64>,
    answered: u64,
    shares: Producer<Share>,
}

impl Mailbox {
    /// The flush that waits for this worker's answer, if one does. One relaxed load.
    #[inline]
    #[must_use]
    pub fn requested(&self) -> Option<FlushNo> {
        let requested = self.requested.load(Ordering::Relaxed);
        (requested > self.answered).then_some(FlushNo(requested))
    }

    /// The worker it belongs to.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Answers a flush.
    ///
    /// # Errors
    /// The share, when the ring is full: keep it, and answer later with the same.
    pub fn answer(&mut self, share: Share) -> Result<(), Share> {
        let flush = share.flush.0;
        match self.shares.push(share) {
            Ok(()) => {
                self.answered = flush;
                Ok(())
            }
            Err(PushError::Full(share)) => Err(share),
        }
    }
}

/// The forwarder's side.
#[derive(Debug)]
pub struct Mailboxes {
    requested: Arc<AtomicU64>,
    shares: Vec<Consumer<Share>>,
}

impl Mailboxes {
    /// Number of workers.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.shares.len()
    }

    /// Asks every worker for a flush.
    pub fn request(&self, flush: FlushNo) {
        self.requested.store(flush.0, Ordering::Relaxed);
    }

    /// Takes the share of worker number `index`, if it is there.
    pub fn take(&mut self, index: usize) -> Option<Share> {
        self.shares.get_mut(index)?.pop().ok()
    }

    /// Whether worker number `index` is gone and will never answer again.
    #[must_use]
    pub fn is_gone(&self, index: usize) -> bool {
        self.shares.get(index).is_none_or(|ring| ring.is_abandoned() && ring.is_empty())
    }
}

/// Mailboxes for workers 0 to `workers - 1`.
#[must_use]
pub fn mailboxes(workers: u16) -> (Vec<Mailbox>, Mailboxes) {
    let requested = Arc::new(AtomicU64::new(0));
    let mut shares = Vec::new();
    let workers = (0..workers).map(WorkerId).map(|worker| {
        let (producer, consumer) = RingBuffer::new(SHARES_WAITING_MAX);
        shares.push(consumer);
        Mailbox { worker, requested: Arc::clone(&requested), answered: 0, shares: producer }
    });
    (workers.collect(), Mailboxes { requested, shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(flush: FlushNo) -> Share {
        Share {
            worker: WorkerId(0),
            flush,
            upto: BlockSeq(0),
            changed: vec![],
            oldest_received_at: None,
            held_back: None,
        }
    }

    #[test]
    fn a_flush_is_asked_for_until_it_is_answered_and_then_no_more() {
        let (mut workers, mut forwarder) = mailboxes(1);
        let worker = &mut workers[0];
        assert_eq!(worker.requested(), None);
        forwarder.request(FlushNo(5));
        assert_eq!(worker.requested(), Some(FlushNo(5)));
        worker.answer(share(FlushNo(5))).unwrap();
        assert_eq!(worker.requested(), None);
        assert_eq!(forwarder.take(0).map(|share| share.flush), Some(FlushNo(5)));
        assert_eq!(forwarder.take(0), None);
    }

    #[test]
    fn a_full_ring_gives_the_share_back_and_the_flush_stays_asked_for() {
        let (mut workers, forwarder) = mailboxes(1);
        let worker = &mut workers[0];
        for flush in 1..=SHARES_WAITING_MAX as u64 {
            worker.answer(share(FlushNo(flush))).unwrap();
        }
        forwarder.request(FlushNo(9));
        assert_eq!(worker.answer(share(FlushNo(9))), Err(share(FlushNo(9))));
        assert_eq!(worker.requested(), Some(FlushNo(9)));
    }

    #[test]
    fn a_worker_that_ended_is_gone_only_after_its_last_share() {
        let (mut workers, mut forwarder) = mailboxes(1);
        workers[0].answer(share(FlushNo(1))).unwrap();
        drop(workers);
        assert!(!forwarder.is_gone(0));
        assert!(forwarder.take(0).is_some() && forwarder.is_gone(0));
    }
}
