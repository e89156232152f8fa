//! What the status says of the start: the report of the journal's recovery, which fits a screen.

use serde::{Deserialize, Serialize};

use crate::journal::RecoveryReport;

/// What the start found in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// Rows that were refolded.
    pub rows: u64,
    /// Sound blocks they stood in.
    pub blocks: u64,
    /// Segment files.
    pub segments: u64,
    /// Places where a crash cut off what was never acknowledged.
    pub torn_tails: u64,
    /// Everything that was not as written, torn tails included.
    pub findings: u64,
    /// Blocks that are gone.
    pub lost_blocks: u64,
    /// Blocks that are gone from the journal and were read back from the sink.
    pub healed_blocks: u64,
    /// The whole report, as the log has it; it fits a screen.
    pub report: Vec<String>,
}

impl From<&RecoveryReport> for RecoveryStatus {
    fn from(report: &RecoveryReport) -> Self {
        Self {
            rows: report.rows,
            blocks: report.blocks,
            segments: report.segments,
            torn_tails: report.torn_tails,
            findings: report.findings_total,
            lost_blocks: report.lost_blocks,
            healed_blocks: report.healed_blocks,
            report: report.to_string().lines().map(str::to_owned).collect(),
        }
    }
}
