//! How a start and a drain go through all workers: shared by them and the main thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The steps of a drain. A worker only ever waits for these numbers by looking at them in its
/// loop.
///
/// 1. `drain` is set: each worker reads what its sockets still hold, stops reading, says so. One that hands over stops
///    reading at once.
/// 2. All stopped: no click can come in any more; each worker finishes what waits and says so.
/// 3. All settled: no click is between two workers. The forwarder makes its last flush.
/// 4. `stop` is set: the workers return.
#[derive(Debug)]
pub struct Phase {
    workers: usize,
    drain: AtomicBool,
    hands_over: AtomicBool,
    stopped_reading: AtomicUsize,
    settled: AtomicUsize,
    stop: AtomicBool,
}

impl Phase {
    /// Running.
    #[must_use]
    pub const fn new(workers: usize) -> Self {
        Self {
            workers,
            drain: AtomicBool::new(false),
            hands_over: AtomicBool::new(false),
            stopped_reading: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Begins the drain.
    pub fn drain(&self) {
        self.drain.store(true, Ordering::Release);
    }

    /// Begins a drain that leaves what waits in the sockets to the next process, which takes them over.
    pub fn hand_over(&self) {
        self.hands_over.store(true, Ordering::Release);
        self.drain();
    }

    /// Whether the next process takes the sockets over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.hands_over.load(Ordering::Acquire)
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    /// A worker reads no more. Called once by each.
    pub fn stopped_reading(&self) {
        self.stopped_reading.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no worker reads any more.
    #[must_use]
    pub fn all_stopped_reading(&self) -> bool {
        self.stopped_reading.load(Ordering::Acquire) == self.workers
    }

    /// A worker has nothing waiting any more. Called once by each, after all stopped reading.
    pub fn settled(&self) {
        self.settled.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no worker has anything waiting.
    #[must_use]
    pub fn all_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) == self.workers
    }

    /// Lets the workers return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the workers may return.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
