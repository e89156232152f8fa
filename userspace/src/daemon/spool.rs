//! Looks how full the journal is while a node runs, and gives up what is not needed as it fills.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::journal::DiskBudget;
use crate::journal::spool::{Level, Measured, SpoolWatch};
use crate::rejects::Gate;

/// How often the main thread looks how full the journal is: a segment takes longer to fill.
const SPOOL_TICK: Duration = Duration::from_secs(1);

/// Looks how full the journal is, and lets go of what is not needed as it fills.
pub(super) struct SpoolGuard {
    watch: SpoolWatch,
    budget: Arc<DiskBudget>,
    journal: PathBuf,
    gate: Gate,
    started: Instant,
    looked_at: Option<Instant>,
}

impl SpoolGuard {
    pub(super) fn new(watch: SpoolWatch, budget: Arc<DiskBudget>, journal: PathBuf, gate: Gate) -> Self {
        Self { watch, budget, journal, gate, started: Instant::now(), looked_at: None }
    }

    pub(super) fn look_now_and_then(&mut self) {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now.duration_since(at) < SPOOL_TICK) {
            return;
        }
        self.looked_at = Some(now);
        // What the kernel holds in memory; it does not wait for the disk.
        let device = rustix::fs::statvfs(&self.journal);
        let device_free = device.map_or(u64::MAX, |device| device.f_bavail.saturating_mul(device.f_frsize));
        let measured = Measured { used: self.budget.used(), bytes_max: self.budget.bytes_max(), device_free };
        let since_start = now.duration_since(self.started);
        let level = self.watch.look(since_start.as_millis() as u64, measured);
        self.gate.set_closed(level >= Level::ThreeQuarters);
    }
}
