//! Puts planned batches into the place, as often as it takes, and ends what an earlier run had planned.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::manifest::{Entry, OffsetEntry};
use super::place::{Place, PlaceError};
use super::plan::Plan;
use super::{ArchiveError, Counters};
use crate::again::rest;

/// How long to wait before a place that failed is tried again, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Puts batches into one place.
#[derive(Debug)]
pub(super) struct Putter<'a> {
    place: Place,
    folder: PathBuf,
    runtime: Runtime,
    next: u64,
    offsets: Vec<OffsetEntry>,
    counters: &'a Counters,
    stop: &'a AtomicBool,
}

impl<'a> Putter<'a> {
    pub(super) fn open(
        place: Place,
        folder: &Path,
        (counters, stop): (&'a Counters, &'a AtomicBool),
    ) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Io { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let manifest = runtime.block_on(place.manifest_from(0))?;
        let offsets = manifest.last().map(|entry| entry.offsets.clone()).unwrap_or_default();
        let next = manifest.len() as u64;
        Ok(Self { place, folder: folder.to_owned(), runtime, next, offsets, counters, stop })
    }

    /// Ends what was planned. Where its files are gone the batch is made anew, of other blocks perhaps: so
    /// what was put of it goes first.
    pub(super) fn resume(&mut self) -> Result<(), ArchiveError> {
        let Some(plan) = Plan::read(&self.folder).map_err(|source| self.failed(source))? else {
            return Ok(());
        };
        if plan.entry.batch == self.next && plan.is_staged() {
            return self.put(&plan);
        }
        if plan.entry.batch == self.next {
            for object in &plan.entry.objects {
                self.runtime.block_on(self.place.remove(&object.path))?;
            }
        }
        plan.remove(&self.folder).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> ArchiveError {
        ArchiveError::Io { path: self.folder.clone(), source }
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn offset(&self, partition: i32) -> Option<i64> {
        self.offsets.iter().find(|entry| entry.partition == partition).map(|entry| entry.next)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Keeps records that are no blocks. False when told to stop before.
    pub(super) fn put_unreadable(&self, records: Vec<(String, Vec<u8>)>) -> Result<bool, ArchiveError> {
        for (path, octets) in records {
            if !self.until_put(async |place| place.put(&path, octets.clone()).await)? {
                return Ok(false);
            }
            self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Plans a batch and puts it. When told to stop meanwhile the plan stays, for the next run.
    pub(super) fn put_planned(&mut self, plan: &Plan) -> Result<(), ArchiveError> {
        plan.write(&self.folder).map_err(|source| self.failed(source))?;
        self.put(plan)
    }

    fn put(&mut self, plan: &Plan) -> Result<(), ArchiveError> {
        for (object, staged) in plan.entry.objects.iter().zip(&plan.staged) {
            if !self.until_put(async |place| place.put_file(staged, &object.path).await)? {
                return Ok(());
            }
        }
        let entry = serde_json::to_vec(&plan.entry).unwrap_or_default(); // numbers and names: JSON has them
        let path = Entry::path(plan.entry.batch);
        if !self.until_put(async |place| place.put(&path, entry.clone()).await)? {
            return Ok(());
        }
        self.next += 1;
        self.offsets.clone_from(&plan.entry.offsets);
        self.counters.rows.fetch_add(plan.entry.rows, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        plan.remove(&self.folder).map_err(|source| self.failed(source))
    }

    /// Tries until the place has taken it; false when told to stop before. The log keeps what waits.
    fn until_put(&self, put: impl AsyncFn(&Place) -> Result<(), PlaceError>) -> Result<bool, ArchiveError> {
        let mut wait = RETRY.0;
        while !self.is_stopped() {
            match self.runtime.block_on(put(&self.place)) {
                Ok(()) => return Ok(true),
                Err(error @ PlaceError::Object { .. }) => {
                    if self.counters.retries.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                        tracing::warn!(%error, "archiving waits");
                    }
                }
                Err(error) => return Err(error.into()),
            }
            rest(self.stop, wait);
            wait = (wait * 2).min(RETRY.1);
        }
        Ok(false)
    }
}
