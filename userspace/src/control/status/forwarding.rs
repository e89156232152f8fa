//! What became of the flushes to the sink.

use serde::{Deserialize, Serialize};

use super::{Latencies, Quantiles};
use crate::stats::ForwardStats;

/// What the forwarder did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Flushes committed to the sink.
    pub flushes: u64,
    /// Flushes that failed and are tried again.
    pub flush_failures: u64,
    /// Why the last flush has not reached the sink; none when it has.
    pub last_error: Option<String>,
    /// Blocks committed.
    pub blocks: u64,
    /// Rows committed.
    pub rows: u64,
    /// Bytes of raw batches committed.
    pub raw_bytes: u64,
    /// Bucket revisions committed.
    pub buckets: u64,
    /// Bytes of those revisions.
    pub bucket_bytes: u64,
    /// Samples of malformed input committed.
    #[serde(default)]
    pub rejects: u64,
    /// Unique users.
    pub uniques: UniquesStatus,
    /// How long one flush takes in the sink.
    pub flush_latency_ns: Quantiles,
    /// From the receive time of a flush's oldest row to its commit.
    pub click_to_bucket_ns: Quantiles,
}

impl ForwardStatus {
    pub(super) fn of(stats: &ForwardStats, latencies: &Latencies) -> Self {
        Self {
            flushes: stats.flushes.get(),
            flush_failures: stats.flush_failures.get(),
            last_error: stats.last_error.get(),
            blocks: stats.blocks.get(),
            rows: stats.rows.get(),
            raw_bytes: stats.raw_bytes.get(),
            buckets: stats.buckets.get(),
            bucket_bytes: stats.bucket_bytes.get(),
            rejects: stats.rejects.get(),
            uniques: UniquesStatus {
                sketches: stats.sketches.get(),
                sketch_bytes: stats.sketch_bytes.get(),
                unsketched_minutes: stats.unsketched_minutes.get(),
                withheld: stats.sketches_withheld.get(),
                unsketched_clicks: stats.unsketched_clicks.get(),
                held: stats.sketches_held.get(),
                held_bytes: stats.sketches_held_bytes.get(),
            },
            flush_latency_ns: Quantiles::from(&latencies.flush),
            click_to_bucket_ns: Quantiles::from(&latencies.click_to_bucket),
        }
    }
}

/// What became of the unique users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniquesStatus {
    /// Sketches committed.
    pub sketches: u64,
    /// Bytes of those sketches.
    pub sketch_bytes: u64,
    /// Minutes committed without the sketches of all their ads.
    pub unsketched_minutes: u64,
    /// Sketches that stayed here for too few users.
    #[serde(default)]
    pub withheld: u64,
    /// Clicks of those minutes that are in no sketch, as far as they are known.
    pub unsketched_clicks: u64,
    /// Sets of users held, one for each ad and minute that is not final.
    pub held: u64,
    /// Memory they take.
    pub held_bytes: u64,
}
