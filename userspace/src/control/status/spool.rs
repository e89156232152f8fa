//! How full the journal is.

use serde::{Deserialize, Serialize};

use crate::journal::spool::{Level, SpoolGauges};

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
