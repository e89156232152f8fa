//! What is known of the digests in a folder, and which of them may go.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use weir_common::time::UnixMs;

use super::header::{DigestHeader, digest_path};
use super::read::{Digest, DigestError};
use crate::journal::disk::sync_folder;
use crate::journal::folder::digest_ids;
use crate::journal::{DiskBudget, FolderError, Place, SegmentId};
use crate::ledger::remembered_ms;

/// The headers of all digests in a folder that are sound as far as those say.
#[derive(Debug, Default)]
pub struct Shelf {
    digests: BTreeMap<SegmentId, DigestHeader>,
}

impl Shelf {
    /// Reads the headers of all digests in a folder; those that cannot be used, and why.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(place: &Place) -> Result<(Self, Vec<(SegmentId, DigestError)>), FolderError> {
        let (mut shelf, mut broken) = (Self::default(), Vec::new());
        for id in digest_ids(&place.segments)? {
            match Digest::open(place, id) {
                Ok(digest) => drop(shelf.digests.insert(id, *digest.header())),
                Err(error) => broken.push((id, error)),
            }
        }
        Ok((shelf, broken))
    }

    /// The digest of a segment, if there is one.
    #[must_use]
    pub fn get(&self, id: SegmentId) -> Option<&DigestHeader> {
        self.digests.get(&id)
    }

    /// All of them, by epoch, worker and segment.
    pub fn iter(&self) -> impl Iterator<Item = &DigestHeader> {
        self.digests.values()
    }

    /// Number of digests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Takes note of one that is durable.
    pub fn put(&mut self, header: DigestHeader) {
        self.digests.insert(header.id(), header);
    }

    /// Forgets one that turned out to be damaged.
    pub fn remove(&mut self, id: SegmentId) -> Option<DigestHeader> {
        self.digests.remove(&id)
    }

    /// The digests in which no impression matters any more at `now`.
    pub fn expired(&self, now: UnixMs, lifetime_ms: u64) -> impl Iterator<Item = SegmentId> + '_ {
        let is_over = move |header: &&DigestHeader| {
            let newest_ms =
                (u64::from(header.newest_issued_s.get()) * 1000).max(header.newest_foreign_ms.get());
            newest_ms.saturating_add(remembered_ms(lifetime_ms)) < now.0
        };
        self.iter().filter(is_over).map(DigestHeader::id)
    }

    /// Deletes these digests and gives their bytes back to the budget. The number deleted.
    ///
    /// # Errors
    /// The first deletion that failed; the others before it are done. A file that is gone already
    /// is no error.
    pub fn delete(&mut self, place: &Place, budget: &DiskBudget, ids: &[SegmentId]) -> io::Result<u64> {
        let mut count = 0;
        for &id in ids {
            match fs::remove_file(digest_path(place, id)) {
                Ok(()) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if let Some(header) = self.digests.remove(&id) {
                budget.release(header.bytes());
            }
        }
        if count > 0 {
            sync_folder(&place.segments)?;
        }
        Ok(count)
    }
}
