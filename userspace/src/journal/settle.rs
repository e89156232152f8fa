//! Makes sure, before a start reads the journal, that what it will read is on the medium.
//!
//! When a process dies and the machine lives on, the page cache still holds what was written and
//! never synced, and, after a failed sync, pages that the kernel took for clean and that no later
//! sync will write. Read back, their rows would count as durable: they would be forwarded, and
//! resends of them answered with `exists`. The next power cut would take them away again. So the
//! ends of the streams are synced, and then dropped from the cache: what is read after that is
//! what a power cut leaves.

use std::collections::BTreeMap;

use weir_common::id::WorkerId;

use super::disk::Medium;
use super::folder::{Folder, FolderError, segment_ids};
use super::segment::SegmentId;
use super::stream::GIVEN_UP_MAX;

/// Segments at the end of a stream that may hold what is not on the medium: those given up one
/// after the other, the one written to, and the one made ahead. What an earlier one holds of a
/// group that failed stands, durable, in a later one.
const UNSETTLED_MAX: usize = GIVEN_UP_MAX + 2;

/// Settles the streams of the last start before this one; earlier starts were settled by it.
///
/// # Errors
/// When the folder cannot be listed or its names cannot be made durable. A segment that cannot be
/// synced is no error: what the medium has of it is what counts.
pub fn settle<M: Medium>(medium: &mut M, folder: &Folder) -> Result<(), FolderError> {
    let failed = |doing, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| FolderError::Io { doing, path, source }
    };
    let ids = segment_ids(folder.segments())?;
    let last = ids.iter().map(|id| id.epoch).max();
    let mut streams: BTreeMap<WorkerId, Vec<SegmentId>> = BTreeMap::new();
    for id in ids.into_iter().filter(|id| Some(id.epoch) == last) {
        streams.entry(id.worker).or_default().push(id);
    }
    for id in streams.values().flat_map(|stream| stream.iter().rev().take(UNSETTLED_MAX)) {
        let path = folder.segments().join(id.file_name());
        let file = match medium.open(&path) {
            Ok(file) => file,
            // Nothing of ours: recovery says what it is.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => continue,
            Err(error) => return Err(failed("open", &path)(error)),
        };
        if let Err(error) = medium.sync_all(&file) {
            tracing::warn!(path = %path.display(), %error, "a segment cannot be synced; what the disk has of it counts");
        }
        medium.forget_cache(&file).map_err(failed("drop the cache of", &path))?;
    }
    medium.sync_folder(folder.segments()).map_err(failed("sync", folder.segments()))
}

#[cfg(test)]
mod tests {
    use weir_common::id::NodeId;

    use super::super::noted::Notes;
    use super::*;

    #[test]
    fn the_end_of_each_stream_of_the_last_start_is_synced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), NodeId(1)).unwrap();
        let names =
            ["00000001-0000-00000001.wseg", "00000002-0000-00000001.wseg", "00000002-0001-00000003.wseg"];
        for name in names {
            std::fs::write(folder.segments().join(name), []).unwrap();
        }
        let mut notes = Notes { syncs_fail: true, ..Notes::default() };
        settle(&mut notes, &folder).unwrap();
        let expected = [
            "sync 00000002-0000-00000001.wseg",
            "forget 00000002-0000-00000001.wseg",
            "sync 00000002-0001-00000003.wseg",
            "forget 00000002-0001-00000003.wseg",
            "names journal",
        ];
        assert_eq!(notes.calls, expected);
    }

    #[test]
    fn no_more_is_settled_than_can_be_unsettled() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), NodeId(1)).unwrap();
        for segment in 1..40 {
            std::fs::write(folder.segments().join(format!("00000001-0000-{segment:08}.wseg")), []).unwrap();
        }
        let mut notes = Notes { syncs_fail: true, ..Notes::default() };
        settle(&mut notes, &folder).unwrap();
        assert_eq!(notes.calls.len(), 2 * UNSETTLED_MAX + 1);
        assert_eq!(notes.calls[0], "sync 00000001-0000-00000039.wseg");
    }
}
