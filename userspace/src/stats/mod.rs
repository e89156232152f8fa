//! Counters and histograms: written by one worker each, read by the control side at any time.
//!
//! A worker adds with a plain load and store, since nobody else writes; a reader may be a few
//! events behind and never sees a torn number. No lock, no allocation, no read-modify-write on
//! behalf of a worker.

mod disk_health;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weir_common::reason::{OUTCOMES, Outcome, REASON_SLOTS, Reason};

pub use disk_health::{DiskFailure, DiskOperation, JournalHealth};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets the value of a gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sub-buckets of each power of two in a [`Histogram`]: 8 keep the error of a quantile below 7 %.
const SUB_BUCKETS: usize = 8;
/// Powers of two a [`Histogram`] covers: up to 2^40 ns is 18 minutes.
const POWERS: usize = 40;
/// Cells of a [`Histogram`].
pub const HISTOGRAM_CELLS: usize = POWERS * SUB_BUCKETS;

/// A log-linear histogram of nanoseconds, one writer, any reader.
#[derive(Debug)]
pub struct Histogram {
    cells: [Counter; HISTOGRAM_CELLS],
    sum_ns: Counter,
    max_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
            max_ns: Counter::default(),
        }
    }
}

impl Histogram {
    const fn cell(ns: u64) -> usize {
        if ns < SUB_BUCKETS as u64 {
            return ns as usize;
        }
        let power = ns.ilog2() as usize;
        let sub = (ns >> (power - SUB_BUCKETS.ilog2() as usize)) as usize & (SUB_BUCKETS - 1);
        let cell = (power - SUB_BUCKETS.ilog2() as usize + 1) * SUB_BUCKETS + sub;
        if cell < HISTOGRAM_CELLS { cell } else { HISTOGRAM_CELLS - 1 }
    }

    /// The least value that falls into `cell`.
    #[must_use]
    pub const fn cell_floor_ns(cell: usize) -> u64 {
        if cell < SUB_BUCKETS {
            return cell as u64;
        }
        let power = cell / SUB_BUCKETS + SUB_BUCKETS.ilog2() as usize - 1;
        ((SUB_BUCKETS + cell % SUB_BUCKETS) as u64) << (power - SUB_BUCKETS.ilog2() as usize)
    }

    /// Records `count` events of `ns` each.
    #[inline]
    pub fn record(&self, ns: u64, count: u64) {
        self.cells[Self::cell(ns)].add(count);
        self.sum_ns.add(ns.wrapping_mul(count));
        if ns > self.max_ns.get() {
            self.max_ns.set(ns);
        }
    }

    /// A copy to read quantiles from.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            cells: self.cells.iter().map(Counter::get).collect(),
            sum_ns: self.sum_ns.get(),
            max_ns: self.max_ns.get(),
        }
    }
}

/// A histogram at one moment; snapshots of several workers add up.
#[derive(Clone, Debug, Default)]
pub struct HistogramSnapshot {
    cells: Vec<u64>,
    /// Sum of all recorded values.
    pub sum_ns: u64,
    /// The largest recorded value.
    pub max_ns: u64,
}

impl HistogramSnapshot {
    /// Adds another worker's events.
    pub fn merge(&mut self, other: &Self) {
        self.cells.resize(HISTOGRAM_CELLS, 0);
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            *mine += theirs;
        }
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Events by cell; cell `n` holds values from [`Histogram::cell_floor_ns`] of `n`. Empty
    /// before anything was merged.
    #[must_use]
    pub fn cells(&self) -> &[u64] {
        &self.cells
    }

    /// Number of events.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// The value that a share `quantile` (0 to 1) of all events does not exceed, rounded up to
    /// its cell's upper end; 0 when there are none.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        for (cell, count) in self.cells.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Histogram::cell_floor_ns(cell + 1).min(self.max_ns);
            }
        }
        0
    }
}

/// What one worker did. Everything since the daemon started.
#[derive(Debug)]
#[repr(align(128))] // two lines: neighbouring workers must not share what the prefetcher pairs
pub struct WorkerStats {
    /// Datagrams read from the sockets.
    pub datagrams_received: Counter,
    /// Bytes of those datagrams.
    pub bytes_received: Counter,
    /// Clicks in them; a datagram whose header is unsound counts as one.
    pub clicks_received: Counter,
    /// Clicks by outcome, counted by the worker that decided it.
    pub outcomes: [Counter; OUTCOMES],
    /// Clicks by reason, where the outcome has one; and `unseen` reasons.
    pub reasons: [Counter; REASON_SLOTS],
    /// Malformed datagrams and clicks of which the forwarder got a copy.
    pub rejects_sampled: Counter,
    /// Those of which it got none.
    pub rejects_unsampled: Counter,
    /// Clicks given to other workers.
    pub clicks_handed_off: Counter,
    /// Clicks taken from other workers.
    pub clicks_taken_over: Counter,
    /// Users and addresses whose click was not counted as activity: another worker had their stripe.
    pub activity_missed: Counter,
    /// Users and addresses that lost their last minute's clicks to others.
    pub activity_pushed_out: Counter,
    /// Budgets that a click could not be charged to, for want of a place to note it.
    pub budgets_uncharged: Counter,
    /// Refractory windows that did not begin, for want of a place to note them.
    pub windows_missed: Counter,
    /// Clicks that were written without their user, for their day has no salt.
    pub users_unsalted: Counter,
    /// Acks sent (one a datagram of clicks).
    pub acks_sent: Counter,
    /// Datagrams those acks went out in.
    pub ack_datagrams_sent: Counter,
    /// Ack datagrams the kernel did not take; their senders will resend.
    pub ack_send_failures: Counter,
    /// Datagrams whose clicks wait for durability or for another worker.
    pub datagrams_waiting: Counter,
    /// Connections at the HTTP door now.
    pub connections_open: Counter,
    /// Connections accepted.
    pub connections_accepted: Counter,
    /// Connections closed at once, for want of room.
    pub connections_refused: Counter,
    /// Connections closed for taking too long.
    pub connections_timed_out: Counter,
    /// Connections that ended because what came was no TLS, or none the node speaks.
    pub tls_failures: Counter,
    /// Whole requests.
    pub requests_received: Counter,
    /// Requests refused as a whole.
    pub requests_refused: Counter,
    /// From reading a request with clicks to its response.
    pub request_latency: Histogram,
    /// Blocks made durable.
    pub blocks_committed: Counter,
    /// Bytes of those blocks.
    pub journal_bytes: Counter,
    /// How the journal stands, as [`JournalHealth`] numbers it.
    pub journal_health: Counter,
    /// Writes, syncs and creations of segments that failed, want of space included.
    pub journal_failures: Counter,
    /// The last of them, as [`DiskFailure::to_number`]; 0 before the first.
    pub journal_last_failure: Counter,
    /// From submitting a group's write to its fdatasync's completion.
    pub commit_latency: Histogram,
    /// From reading a datagram to handing its ack to the kernel.
    pub ack_latency: Histogram,
    /// Impressions held for dedupe.
    pub impressions_live: Counter,
    /// Buckets held.
    pub buckets_open: Counter,
    /// Times the loop went to sleep for want of work.
    pub sleeps: Counter,
    /// Turns of the loop: a worker that goes on makes one every few milliseconds, idle or not.
    pub turns: Counter,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            datagrams_received: Counter::default(),
            bytes_received: Counter::default(),
            clicks_received: Counter::default(),
            outcomes: std::array::from_fn(|_| Counter::default()),
            reasons: std::array::from_fn(|_| Counter::default()),
            rejects_sampled: Counter::default(),
            rejects_unsampled: Counter::default(),
            clicks_handed_off: Counter::default(),
            clicks_taken_over: Counter::default(),
            activity_missed: Counter::default(),
            activity_pushed_out: Counter::default(),
            budgets_uncharged: Counter::default(),
            windows_missed: Counter::default(),
            users_unsalted: Counter::default(),
            acks_sent: Counter::default(),
            ack_datagrams_sent: Counter::default(),
            ack_send_failures: Counter::default(),
            datagrams_waiting: Counter::default(),
            connections_open: Counter::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            connections_timed_out: Counter::default(),
            tls_failures: Counter::default(),
            requests_received: Counter::default(),
            requests_refused: Counter::default(),
            request_latency: Histogram::default(),
            blocks_committed: Counter::default(),
            journal_bytes: Counter::default(),
            journal_health: Counter::default(),
            journal_failures: Counter::default(),
            journal_last_failure: Counter::default(),
            commit_latency: Histogram::default(),
            ack_latency: Histogram::default(),
            impressions_live: Counter::default(),
            buckets_open: Counter::default(),
            sleeps: Counter::default(),
            turns: Counter::default(),
        }
    }
}

impl WorkerStats {
    /// Counts `clicks` clicks that met this outcome for this reason.
    #[inline]
    pub fn count(&self, outcome: Outcome, reason: Reason, clicks: u64) {
        self.outcomes[outcome as usize].add(clicks);
        if reason != Reason::None {
            self.reasons[reason as usize].add(clicks);
        }
    }

    /// Counts an operation of the journal that failed, and keeps why.
    pub fn note_disk_failure(&self, operation: DiskOperation, error: &std::io::Error) {
        self.journal_failures.add(1);
        self.journal_last_failure.set(DiskFailure::new(operation, error).to_number());
    }
}

/// One worker's own counters among those of all.
#[derive(Clone, Debug)]
pub struct OwnStats {
    all: Arc<[WorkerStats]>,
    index: usize,
}

impl OwnStats {
    /// The counters of worker number `index`, which must be one of `all`.
    #[must_use]
    pub fn new(all: Arc<[WorkerStats]>, index: usize) -> Self {
        assert!(index < all.len(), "there is one set of counters a worker");
        Self { all, index }
    }
}

impl std::ops::Deref for OwnStats {
    type Target = WorkerStats;

    #[inline]
    fn deref(&self) -> &WorkerStats {
        &self.all[self.index]
    }
}

/// Why something does not work, in words. For threads that may wait a moment for a lock: never for
/// a worker.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<String>>);

impl LastError {
    /// Says why, or that it works again.
    pub fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why, if it does not work.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the forwarder did. One writer: the forwarder.
#[derive(Debug, Default)]
pub struct ForwardStats {
    /// Flushes committed to the sink.
    pub flushes: Counter,
    /// Flushes that failed and will be tried again.
    pub flush_failures: Counter,
    /// Why the last flush has not reached the sink.
    pub last_error: LastError,
    /// Blocks committed to the sink.
    pub blocks: Counter,
    /// Rows committed to the sink.
    pub rows: Counter,
    /// Bytes of raw batches committed to the sink.
    pub raw_bytes: Counter,
    /// Bucket revisions committed to the sink.
    pub buckets: Counter,
    /// Bytes of those revisions.
    pub bucket_bytes: Counter,
    /// Samples of malformed input committed to the sink.
    pub rejects: Counter,
    /// Sketches of unique users committed to the sink.
    pub sketches: Counter,
    /// Bytes of those sketches.
    pub sketch_bytes: Counter,
    /// Minutes that went to the sink without the sketches of all their ads.
    pub unsketched_minutes: Counter,
    /// Sketches that stayed here for too few users.
    pub sketches_withheld: Counter,
    /// Clicks of those minutes that are in no sketch, as far as they are known.
    pub unsketched_clicks: Counter,
    /// Sets of users held, one for each ad and minute that is not final.
    pub sketches_held: Counter,
    /// Memory they take.
    pub sketches_held_bytes: Counter,
    /// How long one flush takes in the sink.
    pub flush_latency: Histogram,
    /// From the receive time of a flush's oldest row to its commit.
    pub click_to_bucket: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_starts_where_the_one_before_it_ends() {
        for cell in 1..HISTOGRAM_CELLS - 1 {
            let floor = Histogram::cell_floor_ns(cell);
            assert_eq!(Histogram::cell(floor), cell);
            assert_eq!(Histogram::cell(floor - 1), cell - 1);
        }
        assert_eq!(Histogram::cell(u64::MAX), HISTOGRAM_CELLS - 1);
    }

    #[test]
    fn quantiles_are_within_an_eighth_of_the_truth() {
        let histogram = Histogram::default();
        for value in 1..=10_000_u64 {
            histogram.record(value * 1000, 1);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 10_000);
        for (quantile, truth) in [(0.5, 5_000_000.0), (0.99, 9_900_000.0), (1.0, 10_000_000.0)] {
            let found = snapshot.quantile_ns(quantile) as f64;
            assert!(found >= truth && found <= truth * 1.125, "{quantile}: {found} for {truth}");
        }
    }

    #[test]
    fn merged_snapshots_count_the_events_of_both() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.record(10, 3);
        two.record(5_000, 2);
        let mut sum = HistogramSnapshot::default();
        sum.merge(&one.snapshot());
        sum.merge(&two.snapshot());
        assert_eq!((sum.count(), sum.sum_ns, sum.max_ns), (5, 10_030, 5_000));
    }
}
