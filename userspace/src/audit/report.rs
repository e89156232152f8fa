//! What an audit says: one screen for people, JSON for programs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;
use weir_common::reason::{OUTCOMES, Outcome};

/// Findings kept in full; more are only counted.
const FINDINGS_MAX: usize = 1000;
/// Findings printed one by one.
const FINDINGS_SHOWN: usize = 10;
/// Ads in the list of the busiest.
const BUSIEST: usize = 10;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, displaydoc::Display)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum AuditFinding {
    /// raw batch {batch}: {fault}
    Raw {
        /// The file.
        batch: String,
        /// What is wrong with it.
        fault: String,
    },
    /// raw batch {batch}: block {sequence} of worker {worker} in epoch {epoch} is there, but {expected} should come
    Sequence {
        /// The file.
        batch: String,
        /// The start of the daemon.
        epoch: u32,
        /// The worker.
        worker: u16,
        /// The block that is there.
        sequence: u64,
        /// The block that should be.
        expected: u64,
    },
    /// raw batch {batch}: rows and counts of block {sequence} of worker {worker} in epoch {epoch} disagree
    Counts {
        /// The file.
        batch: String,
        /// The start of the daemon.
        epoch: u32,
        /// The worker.
        worker: u16,
        /// The block.
        sequence: u64,
    },
    /// click {ordinal} on impression {impression} is counted again by block {sequence} of worker {worker} in epoch {epoch}
    ClickTwice {
        /// The impression id, in hex.
        impression: String,
        /// The ordinal.
        ordinal: u8,
        /// The start of the daemon.
        epoch: u32,
        /// The worker.
        worker: u16,
        /// The second block.
        sequence: u64,
    },
    /// bucket of ad {ad}, minute {minute} ({key}): the store has {stored}, the rows make {recounted}
    Bucket {
        /// The ad.
        ad: u64,
        /// The minute.
        minute: u32,
        /// The whole key.
        key: String,
        /// The totals in the store.
        stored: String,
        /// The totals of the rows.
        recounted: String,
    },
    /// the sketch of unique users of ad {ad} in minute {minute} {fault}
    Sketch {
        /// The ad.
        ad: u64,
        /// The minute.
        minute: u32,
        /// What is wrong with it.
        fault: String,
    },
}

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whether everything is as it must be.
    pub sound: bool,
    /// Raw batches.
    pub batches: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Rows in those.
    pub rows: u64,
    /// Bytes of the raw batches.
    pub bytes: u64,
    /// Clicks by outcome, as the block headers count them.
    pub outcomes: [u64; OUTCOMES],
    /// Buckets compared.
    pub buckets: u64,
    /// Accepted clicks that nobody signed, so that nobody pays for them.
    pub unsigned: u64,
    /// Billable clicks that a model marked.
    pub marked: u64,
    /// The price of all billable clicks, in micros.
    pub cost_micros: u64,
    /// The price of those that are marked, in micros.
    pub marked_cost_micros: u64,
    /// Rows that were to be scored while there was no model.
    pub unscored: u64,
    /// Blocks that recovery reported as lost.
    pub known_lost_blocks: u64,
    /// Raw files that no transaction named; they do not count.
    pub orphans: u64,
    /// Blocks that are there twice or out of order, or missing.
    pub sequence_faults: u64,
    /// Clicks that are there twice.
    pub clicks_twice: u64,
    /// Buckets that are not the recount of their rows.
    pub bucket_mismatches: u64,
    /// Sketches of unique users compared.
    pub sketches: u64,
    /// Sketches that are not those of their rows, or missing.
    pub sketch_mismatches: u64,
    /// Minutes of which the store says itself that some ads have no sketch.
    pub unsketched_minutes: u64,
    /// Ads with the most gross clicks.
    pub busiest: Vec<(u64, u64)>,
    /// Gross clicks by the version of the traffic rules that judged them.
    pub gross_by_rules: BTreeMap<u32, u64>,
    /// How often all rows were read.
    pub passes: u64,
    /// What is wrong, the first of it.
    pub findings: Vec<AuditFinding>,
    /// How much is wrong.
    pub findings_total: u64,
    #[serde(skip)]
    pub(super) ads: HashMap<u64, u64>,
}

impl AuditReport {
    pub(super) fn find(&mut self, finding: AuditFinding) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    pub(super) fn finish(&mut self) {
        let mut ads: Vec<_> = std::mem::take(&mut self.ads).into_iter().collect();
        ads.sort_unstable_by_key(|&(ad, gross)| (std::cmp::Reverse(gross), ad));
        ads.truncate(BUSIEST);
        self.busiest = ads;
        self.sound = self.findings_total == 0;
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.sound { "sound" } else { "NOT SOUND" };
        writeln!(f, "audit: {verdict}, {} findings", self.findings_total)?;
        let Self { batches, blocks, rows, bytes, passes, .. } = self;
        writeln!(
            f,
            "raw: {rows} rows in {blocks} blocks, {batches} batches, {bytes} bytes, {passes} passes"
        )?;
        for outcome in Outcome::ALL {
            write!(f, "{} {}  ", outcome.name(), self.outcomes[outcome as usize])?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "blocks lost before forwarding (reported at recovery): {}; orphaned raw files: {}",
            self.known_lost_blocks, self.orphans
        )?;
        writeln!(
            f,
            "clicks counted twice: {}; sequence faults: {}",
            self.clicks_twice, self.sequence_faults
        )?;
        writeln!(
            f,
            "buckets: {} compared, {} differ; cost {} micros",
            self.buckets, self.bucket_mismatches, self.cost_micros
        )?;
        writeln!(
            f,
            "accepted and unsigned, so not billable: {}; billable and marked by a model: {}, cost {} micros; \
             not scored: {}",
            self.unsigned, self.marked, self.marked_cost_micros, self.unscored
        )?;
        writeln!(
            f,
            "sketches of unique users: {} compared, {} differ; minutes not complete: {}",
            self.sketches, self.sketch_mismatches, self.unsketched_minutes
        )?;
        for (ad, gross) in &self.busiest {
            writeln!(f, "  ad {ad}: {gross} gross")?;
        }
        for finding in self.findings.iter().take(FINDINGS_SHOWN) {
            writeln!(f, "  {finding}")?;
        }
        let more = self.findings_total.saturating_sub(FINDINGS_SHOWN as u64);
        if more > 0 { writeln!(f, "  and {more} more") } else { Ok(()) }
    }
}
