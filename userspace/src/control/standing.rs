//! How a node stands with what it rests on, time and room, as the status says it.

use serde::{Deserialize, Serialize};

use super::status::{Latencies, Quantiles, WorkerStatus};
use crate::clock::{Doubt, NodeClock};
use crate::journal::spool::{Level, SpoolGauges};
use crate::stats::JournalHealth;

/// The node's time, and whether it can be relied on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// Whether it is uncertain: clicks are taken; nothing becomes final, or goes for its age.
    pub uncertain: bool,
    /// Why, as [`crate::clock::Doubt::name`].
    pub doubt: Option<String>,
    /// The same as a sentence.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The node's time, in ms since 1970.
    pub node_ms: u64,
    /// What the system clock showed at the last look, in ms since 1970.
    pub system_ms: u64,
}

impl From<&NodeClock> for TimeStatus {
    fn from(clock: &NodeClock) -> Self {
        let reading = clock.read();
        let text = |text: fn(Doubt) -> &'static str| reading.doubt.map(|it| text(it).to_owned());
        Self {
            uncertain: reading.doubt.is_some(),
            doubt: text(Doubt::name),
            cause: text(Doubt::cause),
            remedy: text(Doubt::remedy),
            node_ms: reading.time.0,
            system_ms: clock.system().0,
        }
    }
}

/// How full the journal is, as the buffer for a sink that is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// `ok`; `half`, `three_quarters`, `critical` (nine tenths): an alarm each.
    pub level: Level,
    /// Bytes of segments and digests.
    pub used_bytes: u64,
    /// Bytes there may be of them: `journal.max_size`, or what the device has room for.
    pub capacity_bytes: u64,
    /// The first as a fraction of the second.
    pub fraction: f64,
    /// Until it is full, at the rate of the last quarter of an hour; none when it does not fill.
    pub hours_to_full: Option<f64>,
}

impl From<&SpoolGauges> for SpoolStatus {
    fn from(gauges: &SpoolGauges) -> Self {
        let found = gauges.get();
        Self {
            level: found.level,
            used_bytes: found.used,
            capacity_bytes: found.capacity,
            fraction: found.per_mille as f64 / 1000.0,
            hours_to_full: found.seconds_to_full.map(|seconds| seconds as f64 / 3600.0),
        }
    }
}

/// The journals of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// The worst state of a worker's journal: `running`; `no_space`, when the next segment cannot
    /// be made and clicks will be refused; `halted`, when a worker takes none until a restart.
    pub state: JournalHealth,
    /// Writes, syncs and creations of segments that failed, want of space included.
    pub failures: u64,
    /// The last failure of the worker that is worst off, in words.
    pub last_failure: Option<String>,
    /// Blocks made durable.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From a group's write to its fdatasync's completion.
    pub commit_latency_ns: Quantiles,
}

impl JournalStatus {
    pub(super) fn of(workers: &[WorkerStatus], latencies: &Latencies) -> Self {
        // Of two that are as bad as each other, the one that can say why.
        let worst =
            workers.iter().max_by_key(|worker| (worker.journal_state, worker.journal_last_failure.is_some()));
        Self {
            state: worst.map_or(JournalHealth::Running, |worker| worker.journal_state),
            failures: workers.iter().map(|worker| worker.journal_failures).sum(),
            last_failure: worst.and_then(|worker| worker.journal_last_failure.clone()),
            blocks: workers.iter().map(|worker| worker.blocks).sum(),
            bytes: workers.iter().map(|worker| worker.journal_bytes).sum(),
            commit_latency_ns: Quantiles::from(&latencies.commit),
        }
    }
}
