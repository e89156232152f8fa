//! Blocks that the journal has lost and the sink has: what a start reads back is less than what
//! was forwarded.

use std::ops::RangeInclusive;

use weir_common::id::{Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};

use super::batch::Checkpoint;
use crate::journal::{Finding, Recovery, SegmentSummary};

/// Blocks of one stream.
pub type Lost = (Epoch, WorkerId, RangeInclusive<u64>);

/// What a start found to be gone, as far as the journal tells.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Until the sink says how far it is; with the last minute that their rows were received in.
    ranges: Vec<(Lost, Minute)>,
    /// Blocks of them that were read back from the sink.
    healed: u64,
    /// Rows that are at the sink are missing here.
    is_known: bool,
}

impl Losses {
    pub(super) fn of(recovery: &Recovery) -> Self {
        // A damaged segment stays for a day, and every start finds it again.
        let newest = |(_, _, range): &Lost, epoch, worker| {
            let follows = |summary: &&SegmentSummary| {
                let id = summary.id;
                (id.epoch, id.worker) == (epoch, worker) && summary.last.0 > *range.end()
            };
            let next = recovery.segments.iter().filter(follows).map(|summary| summary.newest).min();
            next.map_or(Minute(u32::MAX), UnixMs::minute)
        };
        let ranges = lost(recovery).map(|lost| {
            let minute = newest(&lost, lost.0, lost.1);
            (lost, minute)
        });
        Self { ranges: ranges.collect(), healed: recovery.report.healed_blocks, is_known: false }
    }

    /// The sink is as far as this. A row counts at most so many minutes after the one it was
    /// received in.
    pub(super) fn hold_against(&mut self, checkpoint: &Checkpoint, minutes_ahead: u32) {
        let ranges = std::mem::take(&mut self.ranges);
        let is_open = |minute: Minute| minute.0.saturating_add(minutes_ahead) >= checkpoint.final_before.0;
        let open = ranges.iter().filter(|(_, minute)| is_open(*minute)).map(|(lost, _)| lost.clone());
        let matters = !held(open, checkpoint).is_empty();
        let lost = count(&held(ranges.into_iter().map(|(lost, _)| lost), checkpoint));
        self.is_known |= matters && lost > self.healed;
    }

    /// Whether rows are missing that the sink has; says so once.
    pub(super) const fn take(&mut self) -> bool {
        std::mem::replace(&mut self.is_known, false)
    }
}

/// The blocks that recovery found to be gone and that are committed to the sink.
#[must_use]
pub fn lost_and_held(recovery: &Recovery, checkpoint: &Checkpoint) -> Vec<Lost> {
    held(lost(recovery), checkpoint)
}

fn lost(recovery: &Recovery) -> impl Iterator<Item = Lost> {
    let named = recovery.report.findings.iter().filter_map(|finding| match finding {
        Finding::Damaged { segment, lost: Some((first, last)), .. }
        | Finding::Missing { segment, first, last } => {
            Some((segment.epoch, segment.worker, first.0..=last.0))
        }
        _ => None,
    });
    // Of a stream's end nothing tells how far it went, but the sink's checkpoint.
    let cut = recovery.ends.iter().map(|(&(epoch, worker), end)| (epoch, worker, end.last.0 + 1..=u64::MAX));
    named.chain(cut)
}

fn held(lost: impl Iterator<Item = Lost>, checkpoint: &Checkpoint) -> Vec<Lost> {
    let held = lost.map(|(epoch, worker, range)| {
        let last = checkpoint.committed(epoch, worker).0;
        (epoch, worker, *range.start()..=(*range.end()).min(last))
    });
    held.filter(|(_, _, range)| !range.is_empty()).collect()
}

/// How many blocks these are.
#[must_use]
pub fn count(lost: &[Lost]) -> u64 {
    lost.iter().map(|(_, _, range)| range.end() - range.start() + 1).sum()
}

#[cfg(test)]
mod tests {
    use weir_common::id::BlockSeq;

    use super::*;
    use crate::journal::{Position, SegmentId, SegmentNo};

    fn checkpoint(last: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        let position = Position { last: BlockSeq(last), ..Position::default() };
        checkpoint.positions.insert((Epoch(1), WorkerId(0)), position);
        checkpoint
    }

    #[test]
    fn only_what_is_gone_and_was_committed_is_asked_for() {
        let segment = SegmentId { epoch: Epoch(1), worker: WorkerId(0), segment: SegmentNo(1) };
        let mut recovery = Recovery::default();
        let end = Position { last: BlockSeq(20), ..Position::default() };
        recovery.ends.insert((Epoch(1), WorkerId(0)), end);
        assert_eq!(lost_and_held(&recovery, &checkpoint(20)), []);
        let missing = Finding::Missing { segment, first: BlockSeq(5), last: BlockSeq(9) };
        recovery.report.findings.push(missing);
        let of = |range| (Epoch(1), WorkerId(0), range);
        assert_eq!(lost_and_held(&recovery, &checkpoint(20)), [of(5..=9)]);
        // The tail that was cut off, as far as the sink has it.
        assert_eq!(lost_and_held(&recovery, &checkpoint(23)), [of(5..=9), of(21..=23)]);
        assert_eq!(count(&lost_and_held(&recovery, &checkpoint(23))), 8);
        assert_eq!(lost_and_held(&recovery, &checkpoint(7)), [of(5..=7)]);
        assert_eq!(lost_and_held(&recovery, &Checkpoint::default()), []);
    }

    #[test]
    fn losses_that_the_sink_has_are_told_once_unless_they_were_read_back() {
        let mut recovery = Recovery::default();
        let end = Position { last: BlockSeq(20), ..Position::default() };
        recovery.ends.insert((Epoch(1), WorkerId(0)), end);
        for (committed, healed, is_known) in [(20, 0, false), (23, 0, true), (23, 2, true), (23, 3, false)] {
            recovery.report.healed_blocks = healed;
            let mut losses = Losses::of(&recovery);
            losses.hold_against(&checkpoint(committed), 1);
            assert_eq!((losses.take(), losses.take()), (is_known, false), "{committed}, {healed}");
        }
    }

    #[test]
    fn losses_of_minutes_that_are_final_do_not_matter() {
        let segment = SegmentId { epoch: Epoch(1), worker: WorkerId(0), segment: SegmentNo(1) };
        let mut recovery = Recovery::default();
        recovery.ends.insert((Epoch(1), WorkerId(0)), Position { last: BlockSeq(20), ..Position::default() });
        let missing = Finding::Missing { segment, first: BlockSeq(5), last: BlockSeq(9) };
        recovery.report.findings.push(missing);
        let newest = Minute(100).start();
        let (first, last) = (BlockSeq(1), BlockSeq(20));
        let summary =
            SegmentSummary { id: segment, bytes: 0, blocks: 15, first, last, newest, damaged: true };
        recovery.segments.push(summary);
        for (final_before, is_known) in [(99, true), (101, true), (102, false)] {
            let mut losses = Losses::of(&recovery);
            let checkpoint = Checkpoint { final_before: Minute(final_before), ..checkpoint(20) };
            losses.hold_against(&checkpoint, 1);
            assert_eq!(losses.take(), is_known, "{final_before}");
        }
    }
}
