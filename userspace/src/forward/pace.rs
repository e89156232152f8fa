//! When the forwarder does what, and whose word it takes for the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_common::time::UnixMs;

use crate::ledger::remembered_ms;

/// How the forwarder works.
#[derive(Clone, Debug)]
pub struct ForwarderConfig {
    /// From one flush to the next.
    pub interval_ms: u64,
    /// Blocks of one part of a batch: bounds a transaction after a long outage.
    pub part_bytes_max: u64,
    /// A minute is closed this long after its end: the allowed lateness, and the most a sender's
    /// clock may be ahead, and slack. Its buckets are final then.
    pub close_after_ms: u64,
    /// How many minutes after the one it was received in a row may count: by as much a sender's
    /// clock may be ahead.
    pub minutes_ahead: u32,
    /// How long rows are needed for deduplication that no digest stands for.
    pub horizon_ms: u64,
    /// From one look for segments to trim to the next.
    pub trim_every_ms: u64,
}

impl Default for ForwarderConfig {
    fn default() -> Self {
        Self {
            interval_ms: 2000,
            part_bytes_max: 64 << 20,
            close_after_ms: 15 * 60_000,
            minutes_ahead: 1,
            horizon_ms: remembered_ms(24 * 3_600_000), // the default of the signature's lifetime
            trim_every_ms: 60_000,
        }
    }
}

/// Time as the forwarder sees it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub ms: u64,
    /// Wall clock.
    pub wall: UnixMs,
}

impl Now {
    /// The time when something begun now has taken this long.
    pub(super) const fn after(self, took: Duration) -> Self {
        let took_ms = took.as_millis() as u64;
        Self { ms: self.ms + took_ms, wall: UnixMs(self.wall.0 + took_ms) }
    }
}

/// How far the wall clock may run ahead of the monotonic one before it is no longer believed:
/// more than any slewing corrects, less than the allowed lateness.
const AHEAD_MAX_MS: u64 = 60_000;

/// Keeps a wall clock that jumps forward from closing minutes and horizons for good: what is
/// final never opens again. A jump back is harmless and taken as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SteadyClock {
    first: Option<Now>,
}

impl SteadyClock {
    /// `now`, its wall clock held to what the monotonic clock allows since the first call.
    pub(super) fn steady(&mut self, now: Now) -> Now {
        let first = *self.first.get_or_insert(now);
        let latest = first.wall.0 + now.ms.saturating_sub(first.ms) + AHEAD_MAX_MS;
        Now { wall: UnixMs(now.wall.0.min(latest)), ..now }
    }
}

/// The wall clock; 1970 when it is before that.
pub(super) fn wall_clock() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_ahead_is_held_and_one_that_runs_is_not() {
        let mut clock = SteadyClock::default();
        let mut steady = |ms, wall| clock.steady(Now { ms, wall: UnixMs(wall) }).wall.0;
        assert_eq!(steady(0, 1_000_000), 1_000_000);
        assert_eq!(steady(5000, 1_005_010), 1_005_010);
        assert_eq!(steady(6000, 9_000_000_000), 1_006_000 + AHEAD_MAX_MS);
        assert_eq!(steady(7000, 900_000), 900_000);
    }
}
