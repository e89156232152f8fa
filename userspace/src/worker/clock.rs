//! The worker's clock: read once a turn, never backwards.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use weir_common::time::UnixMs;

/// One reading: all datagrams of a turn share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock; never less than in the turn before, whatever the system clock did.
    pub wall: UnixMs,
    /// Nanoseconds since the worker started; for latencies and timeouts.
    pub monotonic_ns: u64,
}

/// Reads the clocks.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    latest: UnixMs,
}

impl Clock {
    /// A clock that starts now and whose wall time is never before `floor`, the latest receive
    /// time in the journal.
    #[must_use]
    pub fn new(floor: UnixMs) -> Self {
        Self { started: Instant::now(), latest: floor }
    }

    /// Both clocks now.
    pub fn read(&mut self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.take(UnixMs(wall), self.started.elapsed().as_nanos() as u64)
    }

    /// What to make of a reading of the system's clocks.
    pub fn take(&mut self, wall: UnixMs, monotonic_ns: u64) -> Now {
        self.latest = self.latest.max(wall);
        Now { wall: self.latest, monotonic_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_never_falls_behind_the_journal() {
        let future = UnixMs(9_999_999_999_999);
        let mut clock = Clock::new(future);
        assert_eq!(clock.read().wall, future);
        let mut clock = Clock::new(UnixMs(0));
        let (first, second) = (clock.read(), clock.read());
        assert!(first.wall.0 > 1_600_000_000_000 && first.wall <= second.wall);
        assert!(first.monotonic_ns <= second.monotonic_ns);
    }
}
