//! When the forwarder does what, and what it knows of the time.

use std::time::Duration;

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
    /// A flush that has nothing to bring goes to the sink all the same, once, and again when the last
    /// that went is this long ago: so who reads there can tell a node without clicks from one that
    /// is gone.
    pub idle_ms: Option<u64>,
    /// From one look for segments to trim to the next.
    pub trim_every_ms: u64,
    /// Memory of the unique users of all open minutes.
    pub uniques_bytes_max: u64,
    /// Sketches of fewer users stay here: they could tell who clicked.
    pub uniques_users_min: usize,
}

impl Default for ForwarderConfig {
    fn default() -> Self {
        Self {
            interval_ms: 2000,
            part_bytes_max: 64 << 20,
            close_after_ms: 15 * 60_000,
            minutes_ahead: 1,
            horizon_ms: remembered_ms(24 * 3_600_000), // the default of the signature's lifetime
            idle_ms: None,
            trim_every_ms: 60_000,
            uniques_bytes_max: 1 << 30,
            uniques_users_min: 1,
        }
    }
}

/// Time as the forwarder sees it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub ms: u64,
    /// The node's time.
    pub wall: UnixMs,
    /// Whether that can be relied on. While it cannot, nothing becomes final, and nothing goes for
    /// its age: neither can be taken back.
    pub is_certain: bool,
}

impl Now {
    /// The time when something begun now has taken this long.
    pub(super) const fn after(self, took: Duration) -> Self {
        let took_ms = took.as_millis() as u64;
        Self { ms: self.ms + took_ms, wall: UnixMs(self.wall.0 + took_ms), ..self }
    }
}
