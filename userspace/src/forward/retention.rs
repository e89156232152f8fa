//! How long the journal keeps what was forwarded: rows until their buckets are final and a digest
//! stands for them, digests until their impressions expire.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use weir_common::id::{Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};

use super::batch::Checkpoint;
use super::pace::ForwarderConfig;
use crate::day::Day;
use crate::digest::Digests;
use crate::journal::trim::{trim, trimmable};
use crate::journal::{BlockStream, DiskBudget, Place, SegmentId, SegmentSummary};

/// What is known of the segments and digests in the folder.
#[derive(Debug)]
pub(super) struct Retention {
    epoch: Epoch,
    /// Of earlier starts.
    old: Vec<SegmentSummary>,
    /// Of this one, as far as they were read.
    live: BTreeMap<(Epoch, WorkerId), Vec<SegmentSummary>>,
    digests: Option<Digests>,
    /// The day of the latest key when keys were destroyed last.
    keys_of: Option<Day>,
}

impl Retention {
    pub(super) const fn new(old: Vec<SegmentSummary>, epoch: Epoch) -> Self {
        Self { epoch, old, live: BTreeMap::new(), digests: None, keys_of: None }
    }

    pub(super) fn keep_digests(&mut self, digests: Digests) {
        self.digests = Some(digests);
    }

    /// Takes note of the segments a stream has read.
    pub(super) fn note(&mut self, writer: (Epoch, WorkerId), stream: &mut BlockStream) {
        if writer.0 != self.epoch {
            return;
        }
        let known = self.live.entry(writer).or_default();
        for summary in stream.take_summaries() {
            match known.iter_mut().find(|known| known.id == summary.id) {
                // A stream that was opened anew saw only the end of its first segment.
                Some(known) => {
                    known.blocks = known.blocks.max(summary.blocks);
                    known.last = known.last.max(summary.last);
                    known.newest = known.newest.max(summary.newest);
                    known.damaged |= summary.damaged;
                }
                None => known.push(summary),
            }
        }
    }

    /// Whether rows that are kept count in these minutes, as far as is known: they may go when those are final.
    pub(super) fn waits_for(&self, minutes: &Range<Minute>, minutes_ahead: u32) -> bool {
        let mut known = self.old.iter().chain(self.live.values().flatten());
        known.any(|summary| summary.blocks > 0 && minutes.contains(&summary.last_minute(minutes_ahead)))
    }

    /// Deletes what may go at `now`. Returns how many segments that were.
    pub(super) fn trim(
        &mut self,
        place: &Place,
        budget: &DiskBudget,
        checkpoint: &Checkpoint,
        config: &ForwarderConfig,
        now: UnixMs,
    ) -> io::Result<u64> {
        if let Some(digests) = &mut self.digests {
            digests.collect(budget);
        }
        let committed = |epoch, worker| checkpoint.committed(epoch, worker);
        // The last segment seen of a live stream may still grow.
        let last: Vec<_> =
            self.live.values().filter_map(|known| known.last()).map(|known| known.id).collect();
        let mut known = self.old.clone();
        known.extend(self.live.values().flatten());
        let final_before = (checkpoint.final_before, config.minutes_ahead);
        let is_remembered = |summary: &SegmentSummary| {
            let is_old = summary.newest.0.saturating_add(config.horizon_ms) < now.0;
            is_old || self.is_digested(summary)
        };
        let going: Vec<_> =
            trimmable(&known, committed, |id| last.contains(&id), final_before, is_remembered)
                .copied()
                .collect();
        let folder = place.segments.as_path();
        let count = trim(folder, budget, going.iter())?;
        let stays = |summary: &SegmentSummary| !going.iter().any(|gone| gone.id == summary.id);
        self.old.retain(stays);
        self.live.values_mut().for_each(|known| known.retain(stays));
        self.delete_digests(folder, budget, now)?;
        self.destroy_keys(place, count > 0);
        Ok(count)
    }

    /// Whether a digest has every block of this segment that was ever read.
    fn is_digested(&self, summary: &SegmentSummary) -> bool {
        let digest = self.digests.as_ref().and_then(|digests| digests.shelf().get(summary.id));
        digest.is_some_and(|digest| digest.last.get() >= summary.last.0)
    }

    fn delete_digests(&mut self, folder: &Path, budget: &DiskBudget, now: UnixMs) -> io::Result<()> {
        let Some(digests) = &mut self.digests else { return Ok(()) };
        let is_gone = |id: SegmentId| !folder.join(id.file_name()).exists();
        digests.delete_expired(now, budget, is_gone).map(drop)
    }

    /// Destroys the keys that nothing needs any more, when there may be such: segments went, or a
    /// later day has begun. A key that cannot be destroyed now is tried again with the next segment.
    fn destroy_keys(&mut self, place: &Place, segments_went: bool) {
        let Some(keys) = &place.keys else { return };
        let newest = keys.newest();
        if std::mem::replace(&mut self.keys_of, newest) == newest && !segments_went {
            return;
        }
        if let Err(error) = keys.destroy_unneeded(place) {
            tracing::error!(%error, "a key of the journal that nothing needs any more is not destroyed yet");
        }
    }

    /// Ends the thread that writes digests.
    pub(super) fn finish(&mut self) {
        if let Some(digests) = &mut self.digests {
            digests.finish();
        }
    }
}
