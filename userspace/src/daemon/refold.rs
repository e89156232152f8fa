//! Brings the ledgers back: what they remember from the digests of closed segments, the rest from
//! the rows of segments that have none; every impression to the worker that owns its shard now,
//! whichever wrote it.
//!
//! Rows of digested segments are needed no more when their minutes are final. When they are not,
//! they are counted while the node runs: see [`super::past`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use weir_common::block::BlockHeader;
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::row::Row;
use weir_common::time::{MS_PER_MINUTE, Minute, UnixMs};

use super::heal::Healed;
use super::past::{Past, ends_of, part_of};
use super::recall::{RecallReport, recall};
use crate::digest::{DigestError, DigestHeader, Shelf};
use crate::forward::{Checkpoint, Uniques};
use crate::journal::folder::segment_ids;
use crate::journal::{
    BlockIdentity, Folder, FolderError, Part, Place, Recovery, SegmentId, SegmentSummary, recover_part,
};
use crate::ledger::{Agreement, Ledger, Owned, Settings};
use crate::worker::shard_map::ShardMap;
use crate::worker::unflushed::Unflushed;

/// Rows between two lines of progress.
const PROGRESS_ROWS: u64 = 5_000_000;

/// What a start begins with.
pub struct Refolded {
    /// The ledger of each worker, with the buckets it owes the sink.
    pub ledgers: Vec<(Ledger, Unflushed)>,
    /// What was found in the journal.
    pub recovery: Recovery,
    /// The digests that can be used.
    pub shelf: Shelf,
    /// Rows that are still to be counted.
    pub past: Option<Past>,
    /// The users of the rows of minutes that are not final at the sink, but for those of the past,
    /// which goes on with them.
    pub uniques: Uniques,
    /// The latest receive time of anything in segments and digests.
    pub latest: UnixMs,
}

/// The ledgers of all workers as journal and digests left them.
///
/// # Errors
/// When the journal folder cannot be read.
pub fn refold(
    folder: &Folder,
    shards: &ShardMap,
    settings: &Settings,
    uniques_bytes_max: u64,
    checkpoint: &Checkpoint,
) -> Result<Refolded, FolderError> {
    refold_healed(folder, shards, (settings, uniques_bytes_max), checkpoint, Healed::default())
}

/// As [`refold`], with the rows of blocks that were read back from the sink at their places.
///
/// # Errors
/// When the journal folder cannot be read.
pub(super) fn refold_healed(
    folder: &Folder,
    shards: &ShardMap,
    (settings, uniques_bytes_max): (&Settings, u64),
    checkpoint: &Checkpoint,
    mut healed: Healed,
) -> Result<Refolded, FolderError> {
    let place = folder.place();
    let workers = shards.iter().map(|owner| usize::from(owner.0) + 1).max().unwrap_or(1);
    let mut ledgers: Vec<_> =
        (0..workers).map(|worker| (ledger_of(worker, shards, settings), Unflushed::default())).collect();
    let (mut shelf, unusable) = Shelf::open(&place)?;
    let recalled = recall(&place, &shelf, shards, ledgers.iter_mut().map(|(ledger, _)| ledger));
    let present: BTreeSet<_> = segment_ids(&place.segments)?.into_iter().collect();
    tell_damage(&unusable, &recalled, &shelf, &present);
    // What of them was recalled before the damage is right, and read again does no harm.
    let compared_after = newest_digests(&shelf);
    for (id, _) in &recalled.damaged {
        shelf.remove(*id);
    }
    let plan = Plan::new(&present, &shelf, checkpoint);
    let known = plan.known.iter().map(|(id, summary)| (*id, *summary)).collect();
    let part = Part { known, until: None };
    let owed = owed_minutes(&place, &part, &plan, &healed, checkpoint)?;
    let mut uniques = Uniques::new(uniques_bytes_max);
    uniques.settle(checkpoint.final_before);
    let mut fold = Fold::new(shards, settings.lateness_ms, (ledgers, uniques), owed, compared_after);
    let mut recovery = recover_part(&place, &part, |header, row, _| {
        let of = BlockIdentity::of(header);
        healed.rows_before(of.epoch, row.received_at_ms.get(), |header, row| fold.row(header, row));
        fold.row(header, row);
    })?;
    healed.rows_before(Epoch(u32::MAX), u64::MAX, |header, row| fold.row(header, row));
    recovery.report.healed_blocks = healed.blocks();
    fold.report(&recalled, &recovery);
    let newest = recovery.report.received.map_or(UnixMs(0), |(_, latest)| latest);
    let (ledgers, mut uniques) = fold.finish();
    let past = (!plan.past.is_empty()).then(|| Past {
        part: part_of(&plan.known, &plan.past),
        ends: ends_of(&plan.known, &plan.past),
        last_minute: plan.minutes.last().copied().unwrap_or_default(),
        place,
        shards: shards.clone(),
        settings: settings.clone(),
        final_before: checkpoint.final_before,
        uniques: std::mem::take(&mut uniques),
    });
    let latest = shelf.iter().map(DigestHeader::newest).fold(newest, UnixMs::max);
    Ok(Refolded { ledgers, recovery, shelf, past, uniques, latest })
}

/// Which segments are read now, and which are not.
struct Plan {
    /// Digested segments, there or not, whose rows no ledger needs.
    known: BTreeMap<SegmentId, SegmentSummary>,
    /// Those of them that are there and whose rows still count.
    past: BTreeSet<SegmentId>,
    /// The minutes those count in.
    minutes: BTreeSet<Minute>,
}

impl Plan {
    fn new(present: &BTreeSet<SegmentId>, shelf: &Shelf, checkpoint: &Checkpoint) -> Self {
        let mut plan = Self { known: BTreeMap::new(), past: BTreeSet::new(), minutes: BTreeSet::new() };
        // Streams with a segment that has to be read: those that count and come after it are read
        // with it, so that a block that stands in two of them is counted in one.
        let mut read: BTreeSet<(Epoch, WorkerId)> = BTreeSet::new();
        let all: BTreeSet<_> = present.iter().copied().chain(shelf.iter().map(DigestHeader::id)).collect();
        for id in all {
            let stream = (id.epoch, id.worker);
            let Some(digest) = shelf.get(id) else {
                read.insert(stream);
                continue;
            };
            if !present.contains(&id) || is_settled(digest, checkpoint) {
                plan.known.insert(id, digest.summary());
            } else if !read.contains(&stream) {
                plan.known.insert(id, digest.summary());
                plan.past.insert(id);
                let minutes = digest.minutes();
                plan.minutes.extend((minutes.start.0..minutes.end.0).map(Minute));
            }
        }
        plan
    }
}

/// Whether the sink has all rows of a segment, and the last word on their minutes.
fn is_settled(digest: &DigestHeader, checkpoint: &Checkpoint) -> bool {
    let id = digest.id();
    digest.last.get() <= checkpoint.committed(id.epoch, id.worker).0
        && digest.minutes().end <= checkpoint.final_before.max(digest.minutes().start)
}

/// The last block of each stream that digests know.
fn newest_digests(shelf: &Shelf) -> BTreeMap<(Epoch, WorkerId), BlockSeq> {
    let mut newest: BTreeMap<_, BlockSeq> = BTreeMap::new();
    for digest in shelf.iter() {
        let last = newest.entry((digest.id().epoch, digest.id().worker)).or_default();
        *last = (*last).max(BlockSeq(digest.last.get()));
    }
    newest
}

fn tell_damage(
    unusable: &[(SegmentId, DigestError)],
    recalled: &RecallReport,
    shelf: &Shelf,
    present: &BTreeSet<SegmentId>,
) {
    for (id, error) in unusable.iter().chain(&recalled.damaged) {
        let name = id.digest_name();
        if present.contains(id) {
            tracing::warn!(name, %error, "a digest is damaged; its segment is here and is read instead");
            continue;
        }
        let (impressions, from_ms, to_ms) = shelf.get(*id).map_or((None, None, None), |header| {
            (Some(header.impressions()), Some(header.oldest_ms.get()), Some(header.newest_ms.get()))
        });
        tracing::error!(
            name,
            %error,
            impressions_at_most = impressions,
            from_ms,
            to_ms,
            "a digest is damaged and its segment is gone: a resend of a click received then would be counted again; all those clicks are forwarded and counted, none is lost"
        );
    }
}

/// The minutes with rows that the sink's buckets do not count. Worked out before the fold, for it
/// drops a worker's share of an old minute as soon as that minute is over, and a row of another
/// worker that makes the minute owed may come later.
///
/// # Errors
/// When the journal folder cannot be read.
fn owed_minutes(
    place: &Place,
    part: &Part,
    plan: &Plan,
    healed: &Healed,
    checkpoint: &Checkpoint,
) -> Result<BTreeSet<Minute>, FolderError> {
    let mut owed = plan.minutes.clone();
    let mut note = |header: &BlockHeader, row: &Row| {
        let block = BlockIdentity::of(header);
        let counted = checkpoint.counted.get(&(block.epoch, block.worker)).copied().unwrap_or_default();
        if block.sequence > counted.last {
            owed.insert(Minute(row.minute.get()));
        }
    };
    healed.each_row(&mut note);
    recover_part(place, part, |header, row, _| note(header, row))?;
    Ok(owed)
}

struct Fold<'a> {
    shards: &'a ShardMap,
    workers: Vec<(Ledger, Unflushed)>,
    /// Minutes with rows that the sink's buckets do not count: theirs are owed.
    owed: BTreeSet<Minute>,
    /// Rows up to these blocks meet states that know of later clicks.
    digested: BTreeMap<(Epoch, WorkerId), BlockSeq>,
    /// How long after its minute a row may come.
    lateness_ms: u64,
    /// The latest receive time of a row.
    newest: UnixMs,
    began: Instant,
    rows: u64,
    compared: u64,
    differing: u64,
    uniques: Uniques,
}

impl<'a> Fold<'a> {
    fn new(
        shards: &'a ShardMap,
        lateness_ms: u64,
        (workers, uniques): (Vec<(Ledger, Unflushed)>, Uniques),
        owed: BTreeSet<Minute>,
        digested: BTreeMap<(Epoch, WorkerId), BlockSeq>,
    ) -> Self {
        Self {
            shards,
            workers,
            owed,
            digested,
            lateness_ms,
            newest: UnixMs(0),
            began: Instant::now(),
            rows: 0,
            compared: 0,
            differing: 0,
            uniques,
        }
    }

    fn row(&mut self, header: &BlockHeader, row: &Row) {
        let is_comparable = self.is_comparable(&BlockIdentity::of(header));
        self.newest = self.newest.max(UnixMs(row.received_at_ms.get()));
        self.uniques.row(row);
        let owner = self.shards.owner(row.click.shard());
        let (ledger, unflushed) = &mut self.workers[usize::from(owner.0)];
        let owed = &self.owed;
        unflushed.take_each_minute(UnixMs(row.received_at_ms.get()), ledger, |minute| owed.contains(&minute));
        ledger.judge_by(header.rules());
        let agreement = ledger.remember(row);
        unflushed.count(row, ledger, |minute| owed.contains(&minute));
        self.compared += u64::from(is_comparable);
        self.differing += u64::from(is_comparable && agreement != Agreement::Same);
        self.rows += 1;
        if self.rows.is_multiple_of(PROGRESS_ROWS) {
            let (rows, seconds) = (self.rows, self.began.elapsed().as_secs());
            tracing::info!(rows, seconds, "refolding the rows that no digest has");
        }
    }

    /// Whether the state a row meets is that which its click met: no digest has told of later
    /// clicks. An impression stays with one worker as long as an epoch.
    fn is_comparable(&self, block: &BlockIdentity) -> bool {
        let newest = self.digested.last_key_value().map(|((epoch, _), _)| *epoch);
        let own = self.digested.get(&(block.epoch, block.worker));
        newest.is_none_or(|newest| newest <= block.epoch) && own.is_none_or(|&last| block.sequence > last)
    }

    fn report(&self, recalled: &RecallReport, recovery: &Recovery) {
        let (rows, compared, differing) = (self.rows, self.compared, self.differing);
        let RecallReport { digests, bytes, impressions, forgotten, damaged, took } = recalled;
        let (damaged, seconds) = (damaged.len(), took.as_secs_f64());
        tracing::info!(digests, bytes, impressions, forgotten, damaged, seconds, "the digests are recalled");
        let seconds = self.began.elapsed().as_secs_f64();
        tracing::info!(rows, compared, differing, seconds, "the rows that no digest has are refolded");
        for line in recovery.report.to_string().lines() {
            tracing::info!("{line}");
        }
        if differing > 0 {
            tracing::warn!(
                differing,
                "rows whose recorded outcome a recount does not give; the recorded one counts"
            );
        }
    }

    /// The forwarder knows nothing of the minutes that can still change: it gets all of them. Of
    /// older ones a worker whose last row is old may hold its share still, and others theirs no
    /// more: those go only where they are owed, and so are kept, by all.
    fn finish(mut self) -> (Vec<(Ledger, Unflushed)>, Uniques) {
        let can_change_ms = self.lateness_ms.saturating_add(MS_PER_MINUTE);
        let open_from = UnixMs(self.newest.0.saturating_sub(can_change_ms)).minute();
        for (ledger, unflushed) in &mut self.workers {
            ledger.mark_all_changed();
            unflushed.take(ledger, |minute| minute >= open_from || self.owed.contains(&minute));
        }
        (self.workers, self.uniques)
    }
}

fn ledger_of(worker: usize, shards: &ShardMap, settings: &Settings) -> Ledger {
    let owned = shards.of(WorkerId(worker as u16)).collect();
    Ledger::new(&Settings { owned: Owned::Only(owned), ..settings.clone() })
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
