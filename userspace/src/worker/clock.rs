//! The worker's clock: the node's, read once a turn, never backwards.

use std::sync::Arc;

use weir_common::time::UnixMs;

use crate::clock::{Doubt, NodeClock};

/// One reading: all datagrams of a turn share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The node's time; never less than in the turn before, whatever the system clock did.
    pub wall: UnixMs,
    /// Why it cannot be relied on, if it cannot.
    pub doubt: Option<Doubt>,
    /// Nanoseconds since the node's clock was made; for latencies and timeouts.
    pub monotonic_ns: u64,
}

/// Reads the node's clock.
#[derive(Debug)]
pub struct Clock {
    node: Arc<NodeClock>,
    latest: UnixMs,
}

impl Clock {
    /// A reader of the node's clock.
    #[must_use]
    pub const fn new(node: Arc<NodeClock>) -> Self {
        Self { node, latest: UnixMs(0) }
    }

    /// Both clocks now.
    pub fn read(&mut self) -> Now {
        self.at(self.node.monotonic_ns())
    }

    /// Both clocks when the monotonic one shows this.
    pub fn at(&mut self, monotonic_ns: u64) -> Now {
        let reading = self.node.at(monotonic_ns);
        self.latest = self.latest.max(reading.time);
        Now { wall: self.latest, doubt: reading.doubt, monotonic_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    #[test]
    fn a_workers_time_never_runs_backwards_whatever_is_decided() {
        let node = Arc::new(NodeClock::default());
        let mut clock = Clock::new(Arc::clone(&node));
        node.set(Time { offset_ms: 5000, floor: UnixMs(0), doubt: None }, UnixMs(5000));
        assert_eq!(clock.at(1_000_000).wall, UnixMs(5001));
        node.set(Time { offset_ms: 10, floor: UnixMs(0), doubt: Some(Doubt::SteppedBack) }, UnixMs(10));
        let now = clock.at(2_000_000);
        assert_eq!((now.wall, now.doubt), (UnixMs(5001), Some(Doubt::SteppedBack)));
        let (first, second) = (clock.read(), clock.read());
        assert!(first.monotonic_ns <= second.monotonic_ns && first.wall <= second.wall);
    }
}
