//! Which segments may go: a decision over what is known of them, and the deletion.
//!
//! A segment goes when all of it is forwarded, no deduplication needs its rows (they are in a
//! [digest](crate::digest), or too old), and the minutes
//! its rows count in are final at the sink, so that a later refold without these rows can never
//! overwrite a bucket with less. A damaged segment never goes: what is in it was not forwarded.

use std::fs;
use std::io;
use std::path::Path;

use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::time::Minute;

use super::budget::DiskBudget;
use super::disk::sync_folder;
use super::segment::SegmentId;
use super::stream::SegmentSummary;

/// The segments that may go.
///
/// `committed` gives the last block of a stream that the sink holds. `is_open` says whether a
/// segment may still grow or a later one of its stream has not been seen. Buckets of minutes
/// before `final_before` never change again; the caller has made it durable at the sink, and a
/// row counts at most `minutes_ahead` after the minute of its receive time. `is_remembered` says
/// whether dedupe can do without the rows: they are in a digest, or too old to matter.
pub fn trimmable<'a>(
    segments: &'a [SegmentSummary],
    committed: impl Fn(Epoch, WorkerId) -> BlockSeq + 'a,
    is_open: impl Fn(SegmentId) -> bool + 'a,
    (final_before, minutes_ahead): (Minute, u32),
    is_remembered: impl Fn(&SegmentSummary) -> bool + 'a,
) -> impl Iterator<Item = &'a SegmentSummary> + 'a {
    segments.iter().filter(move |summary| {
        !is_open(summary.id)
            && !summary.damaged
            && summary.last <= committed(summary.id.epoch, summary.id.worker)
            && (summary.blocks == 0
                || (summary.last_minute(minutes_ahead) < final_before && is_remembered(summary)))
    })
}

/// Deletes segments and gives their bytes back to the budget. The number deleted.
///
/// # Errors
/// The first deletion that failed; the others before it are done. A file that is gone already
/// is no error.
pub fn trim<'a>(
    folder: &Path,
    budget: &DiskBudget,
    segments: impl Iterator<Item = &'a SegmentSummary>,
) -> io::Result<u64> {
    let mut count = 0;
    for summary in segments {
        match fs::remove_file(folder.join(summary.id.file_name())) {
            Ok(()) => {
                budget.release(summary.bytes);
                count += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if count > 0 {
        sync_folder(folder)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use weir_common::time::UnixMs;

    use super::super::operation::SegmentNo;
    use super::*;

    fn summary(segment: u32, last: u64, newest_minute: u32) -> SegmentSummary {
        SegmentSummary {
            id: SegmentId { epoch: Epoch(1), worker: WorkerId(0), segment: SegmentNo(segment) },
            bytes: 1,
            blocks: 1,
            first: BlockSeq(last),
            last: BlockSeq(last),
            newest: UnixMs(Minute(newest_minute).start().0),
            damaged: false,
        }
    }

    fn kept(segments: &[SegmentSummary]) -> Vec<u32> {
        let open = |id: SegmentId| id.segment == SegmentNo(9);
        let remembered = |found: &SegmentSummary| found.id.segment != SegmentNo(6);
        let going = trimmable(segments, |_, _| BlockSeq(20), open, (Minute(100), 1), remembered);
        let gone: Vec<_> = going.map(|found| found.id).collect();
        segments.iter().filter(|found| !gone.contains(&found.id)).map(|found| found.id.segment.0).collect()
    }

    #[test]
    fn only_what_is_forwarded_final_sound_closed_and_remembered_goes() {
        let forwarded = summary(1, 20, 98);
        assert_eq!(kept(&[forwarded]), [] as [u32; 0]);
        let unforwarded = summary(2, 21, 50);
        let not_final = summary(3, 10, 99);
        let damaged = SegmentSummary { damaged: true, ..summary(4, 10, 50) };
        let open = summary(9, 10, 50);
        let never_used = SegmentSummary { blocks: 0, ..summary(5, 0, 500) };
        let not_remembered = summary(6, 10, 50);
        let all = [unforwarded, not_final, damaged, open, never_used, not_remembered];
        assert_eq!(kept(&all), [2, 3, 4, 9, 6]);
    }
}
