//! The buckets of rows that no ledger was refolded with: their segments have digests, so dedupe
//! does not need them, but their minutes are not final at the sink yet.
//!
//! They are counted beside the running node, and the forwarder waits for them with its first
//! flush. A bucket is the sum of all shares, so the past is one more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::row::Row;
use weir_common::time::{Minute, UnixMs};

use super::DaemonError;
use crate::digest::digester::step_aside;
use crate::forward::{self, Counted, LostEnd, Uniques};
use crate::journal::{FolderError, Part, Place, Recovery, SegmentId, SegmentSummary, recover_part};
use crate::ledger::{Ledger, Settings};
use crate::worker::shard_map::ShardMap;
use crate::worker::unflushed::Unflushed;

/// What is to be counted, and how.
pub struct Past {
    pub(super) place: Place,
    pub(super) part: Part,
    pub(super) shards: ShardMap,
    pub(super) settings: Settings,
    /// Minutes the sink has the last word on.
    pub(super) final_before: Minute,
    /// The last block of each stream, as the digests of its segments say.
    pub(super) ends: BTreeMap<(Epoch, WorkerId), BlockSeq>,
    /// The last minute that a row of these counts in.
    pub(super) last_minute: Minute,
    /// The users of the rows that were refolded before.
    pub(super) uniques: Uniques,
}

const NAME: &str = "weir-past";
/// Clicks come first, but forwarding waits for this: about a tenth of a busy core.
const NICENESS: i32 = 10;

impl Past {
    /// Counts on a thread of its own, away from the `cores` of the workers where there are others.
    pub(super) fn start(self, cores: &[usize]) -> Result<forward::Past, DaemonError> {
        let (sender, counted) = sync_channel(1);
        let cores = cores.to_vec();
        let run = move || match self.count_aside(&cores) {
            Ok(counted) => drop(sender.send(counted)),
            Err(error) => {
                tracing::error!(%error, "the journal's past cannot be counted, so nothing is forwarded")
            }
        };
        let spawned = std::thread::Builder::new().name(NAME.to_owned()).spawn(run);
        spawned.map_err(|source| DaemonError::Thread { name: NAME.to_owned(), source })?;
        Ok(forward::Past { counted })
    }

    fn count_aside(self, cores: &[usize]) -> Result<Counted, FolderError> {
        step_aside(cores, NICENESS);
        self.count()
    }

    /// The totals of every bucket that these rows have a part in, and their users.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn count(mut self) -> Result<Counted, FolderError> {
        let began = Instant::now();
        let workers = self.shards.iter().map(|owner| usize::from(owner.0) + 1).max().unwrap_or(1);
        // The rows are in digests; what is wanted of these ledgers is their buckets.
        let settings = Settings { capacity_impressions: 0, ..self.settings.clone() };
        let mut ledgers: Vec<_> =
            (0..workers).map(|_| (Ledger::new(&settings), Unflushed::default())).collect();
        let mut uniques = std::mem::take(&mut self.uniques);
        let (mut rows, mut latest) = (0_u64, UnixMs(0));
        let found = recover_part(&self.place, &self.part, |header, row, _| {
            let owner = self.shards.owner(row.click.shard());
            let (ledger, unflushed) = &mut ledgers[usize::from(owner.0)];
            ledger.judge_by(header.rules());
            self.row(row, ledger, unflushed);
            uniques.row(row);
            latest = latest.max(UnixMs(row.received_at_ms.get()));
            rows += 1;
        })?;
        let lost_ends = self.lost_ends(&found);
        if found.report.lost_blocks > 0 || !lost_ends.is_empty() {
            tracing::error!(
                "segments of open minutes have lost blocks since their digests were written: buckets of those minutes are sent without them, and no unique users\n{}",
                found.report
            );
            uniques.spoil(Minute(self.last_minute.0.saturating_add(1)));
        }
        let mut totals: HashMap<BucketKey, BucketTotals> = HashMap::new();
        for (ledger, unflushed) in &mut ledgers {
            ledger.mark_all_changed();
            for (key, share) in unflushed.flush(latest, ledger) {
                if self.is_wanted(Minute(key.minute.get())) {
                    totals.entry(key).or_default().merge(&share);
                }
            }
        }
        let (buckets, seconds) = (totals.len(), began.elapsed().as_secs_f64());
        tracing::info!(rows, buckets, seconds, "the journal's past is counted; forwarding begins");
        Ok(Counted { totals: totals.into_iter().collect(), uniques, lost_ends })
    }

    fn row(&self, row: &Row, ledger: &mut Ledger, unflushed: &mut Unflushed) {
        let at = UnixMs(row.received_at_ms.get());
        unflushed.take_each_minute(at, ledger, |minute| self.is_wanted(minute));
        unflushed.count(row, ledger, |minute| self.is_wanted(minute));
    }

    /// The streams that end before the last block that was there when their segments were digested.
    fn lost_ends(&self, found: &Recovery) -> Vec<LostEnd> {
        let ends = self.ends.iter().map(|(&writer, &known)| {
            let left = found.ends.get(&writer).map_or(BlockSeq(0), |end| end.last);
            LostEnd { writer, known, left }
        });
        ends.filter(|end| end.left < end.known).collect()
    }

    fn is_wanted(&self, minute: Minute) -> bool {
        minute >= self.final_before
    }
}

/// The least that must be known of the streams to read these segments alone.
pub(super) fn part_of(all: &BTreeMap<SegmentId, SegmentSummary>, wanted: &BTreeSet<SegmentId>) -> Part {
    let known = all.iter().filter(|(id, _)| !wanted.contains(id)).map(|(id, summary)| (*id, *summary));
    let mut until = BTreeMap::new();
    for id in wanted {
        until.insert((id.epoch, id.worker), id.segment); // the last one stays: ids are in order
    }
    Part { known: known.collect(), until: Some(until) }
}

/// The last block of these segments, by stream.
pub(super) fn ends_of(
    all: &BTreeMap<SegmentId, SegmentSummary>,
    wanted: &BTreeSet<SegmentId>,
) -> BTreeMap<(Epoch, WorkerId), BlockSeq> {
    let mut ends: BTreeMap<_, BlockSeq> = BTreeMap::new();
    for summary in wanted.iter().filter_map(|id| all.get(id)) {
        let end = ends.entry((summary.id.epoch, summary.id.worker)).or_default();
        *end = (*end).max(summary.last);
    }
    ends
}
