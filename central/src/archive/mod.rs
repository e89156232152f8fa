//! The archive: every block of `clicks.v1` once, as rows of Parquet files by the hour they were received.
//!
//! ```text
//! read -> stage (files on disk) -> plan -> put objects -> put the manifest's entry
//! ```
//!
//! The entry is what makes a batch part of the archive, and says how far the topic is archived: so the
//! archive itself knows where to go on. Between plan and entry a crash is followed by the same puts of
//! the same files under the same names, and before the plan nothing was put. What becomes of objects afterwards
//! stands in the [`audit`], and is done by [`crate::retention`].

pub mod audit;
pub mod column;
pub mod contents;
pub mod day;
pub mod find;
pub mod impression;
pub mod manifest;
pub mod place;
mod plan;
mod put;
pub mod ranged;
pub mod read;
pub mod spool;
mod until;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::record::{BLOCK_HEADER, topic};
use weir_common::row::Rows;
use zerocopy::{FromBytes, IntoBytes};

use crate::campaigns::Campaigns;
use crate::clock;
use crate::kafka::{ClusterSettings, Delivered, Ends, KafkaError, Source};
use crate::store::{Store, StoreError};
use crate::watermark::Offsets;
use manifest::{Entry, ObjectEntry, OffsetEntry};
use place::{Place, PlaceError};
use plan::Plan;
use put::Putter;
use spool::{Spool, SpoolError};
use until::ReadUntil;

/// Records of one poll.
const POLL_RECORDS_MAX: usize = 1000;
/// Octets of one poll: 32 blocks of the largest kind.
const POLL_BYTES_MAX: usize = 32 << 20;
const POLL: Duration = Duration::from_millis(200);

/// Why archiving ended.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ArchiveError {
    /// {0}
    Kafka(#[from] KafkaError),
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Spool(#[from] SpoolError),
    /// {0}
    Store(#[from] StoreError),
    /// {path}: {source}
    Io {
        /// The plan, or its folder.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
}

/// When a batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Its files have this many octets.
    pub object_bytes: u64,
    /// Its first block came this long ago.
    pub close_after: Duration,
}

/// Counters of the archiving thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows that are in the archive since the start.
    pub rows: AtomicU64,
    /// Batches.
    pub batches: AtomicU64,
    /// Records that are no block.
    pub unreadable: AtomicU64,
    /// Puts that failed and were tried again.
    pub retries: AtomicU64,
}

/// Archives one topic.
#[derive(Debug)]
pub struct Archiver<'a> {
    putter: Putter<'a>,
    limits: Limits,
    spool: Spool,
    campaigns: Option<Campaigns>,
    unreadable: Vec<(String, Vec<u8>)>,
    began: Option<Instant>,
    until: ReadUntil,
}

impl<'a> Archiver<'a> {
    /// Goes on where the archive is: ends what an earlier run had planned.
    ///
    /// # Errors
    /// When place or folder cannot be used.
    pub fn open(
        place: Place,
        folder: &Path,
        limits: Limits,
        (counters, stop): (&'a Counters, &'a AtomicBool),
    ) -> Result<Self, ArchiveError> {
        let mut putter = Putter::open(place, folder, (counters, stop))?;
        putter.resume()?;
        // Only now: it removes staged files, and a plan needs them.
        let spool = Spool::new(&folder.join("staged"))?;
        Ok(Self {
            putter,
            limits,
            spool,
            campaigns: None,
            unreadable: Vec::new(),
            began: None,
            until: ReadUntil::default(),
        })
    }

    /// Lets campaigns be learned from what it takes.
    #[must_use]
    pub fn teaching(self, campaigns: Campaigns) -> Self {
        Self { campaigns: Some(campaigns), ..self }
    }

    /// The first record of a partition that is not archived.
    #[must_use]
    pub fn offset(&self, partition: i32) -> Option<i64> {
        self.putter.offset(partition)
    }

    /// Reads and archives until told to stop. What is open then is read again by the next run.
    ///
    /// # Errors
    /// When records are missing from the log, or this machine's disk fails.
    pub fn run(mut self, source: &mut Source, ends: &Ends) -> Result<(), ArchiveError> {
        while !self.putter.is_stopped() {
            if let Some(ends) = ends.answer() {
                self.until.ends(ends);
            }
            if self.until.asks(clock::now().0) {
                ends.ask(source.offsets().keys().copied());
            }
            for record in source.poll((POLL_RECORDS_MAX, POLL_BYTES_MAX), POLL)? {
                self.take(&record)?;
            }
            self.until.read_to(source.read_to());
            let is_old = self.began.is_some_and(|began| began.elapsed() >= self.limits.close_after);
            let is_large = self.spool.bytes() >= self.limits.object_bytes || self.spool.is_full();
            if is_old || is_large {
                self.close(source.offsets())?;
            }
        }
        Ok(())
    }

    /// Takes a record into the open batch.
    ///
    /// # Errors
    /// When this machine's disk fails.
    pub fn take(&mut self, record: &Delivered) -> Result<(), ArchiveError> {
        self.began.get_or_insert_with(Instant::now);
        match block(record) {
            Some(header) => {
                if let Some(campaigns) = &mut self.campaigns {
                    campaigns.learn(Rows::new(&record.value).map(|(row, _)| row))?;
                }
                self.spool.take(&header, &record.value)?;
            }
            None => {
                let (partition, offset) = (record.partition, record.offset);
                tracing::warn!(partition, offset, "a record of clicks is no block; it is kept as it came");
                let path = format!("{}/{partition}-{offset}.bin", manifest::UNREADABLE);
                self.unreadable.push((path, record.value.clone()));
            }
        }
        Ok(())
    }

    /// Closes the open batch: stages, plans and puts what was taken, as often as it takes. With it the topic
    /// is archived up to these offsets.
    ///
    /// # Errors
    /// When this machine's disk fails.
    pub fn close(&mut self, offsets: &Offsets) -> Result<(), ArchiveError> {
        self.began = None;
        let blocks = self.spool.blocks();
        let (objects, staged): (Vec<_>, Vec<_>) = self.spool.finish()?.into_iter().unzip();
        let offsets =
            offsets.iter().map(|(&(_, partition), &next)| OffsetEntry { partition, next }).collect();
        let rows = objects.iter().map(|object: &ObjectEntry| object.rows).sum();
        let unreadable = std::mem::take(&mut self.unreadable);
        let count = unreadable.len() as u64;
        if !self.putter.put_unreadable(unreadable)? {
            return Ok(()); // told to stop: all of it is read again
        }
        let (batch, read_until_ms) = (self.putter.next(), self.until.reached_ms());
        let entry = Entry { batch, objects, offsets, blocks, rows, unreadable: count, read_until_ms };
        self.putter.put_planned(&Plan { entry, staged })
    }
}

/// The header of a record that is a sound block: both its checksums hold, and its rows are all there.
fn block(record: &Delivered) -> Option<BlockHeader> {
    let octets: &[u8; BLOCK_HEADER_LEN] = record.header(BLOCK_HEADER)?.try_into().ok()?;
    let header = BlockHeader::read_from_bytes(octets).ok()?;
    let is_header = crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_OFFSET]) == header.header_crc.get();
    let is_body = header.body_crc.get() == crc32c::crc32c(&record.value);
    let mut rows = Rows::new(&record.value);
    let count = rows.by_ref().count();
    let is_whole = rows.rest().is_empty() && count == header.rows.get() as usize;
    (is_header && is_body && is_whole).then_some(header)
}

/// Archives the raw batches of a cluster until told to stop.
///
/// # Errors
/// When records are missing from the log, or this machine's disk fails.
pub fn archive(
    (cluster, prefix): (&ClusterSettings, &str),
    (place, folder, limits): (&Place, &Path, Limits),
    store: &Store,
    (counters, stop): (&Counters, &AtomicBool),
) -> Result<(), ArchiveError> {
    let topics = [format!("{prefix}{}", topic::CLICKS)];
    let once = || {
        let archiver = Archiver::open(place.clone(), folder, limits, (counters, stop))?;
        let archiver = archiver.teaching(Campaigns::new(store.clone()));
        let from = |_: &str, partition| Ok::<_, ArchiveError>(archiver.offset(partition));
        let mut source = Source::open(cluster, &topics, from)?;
        archiver.run(&mut source, &Ends::of(cluster, &topics)?)
    };
    let passes = |error: &ArchiveError| match error {
        ArchiveError::Kafka(error) => error.may_pass(),
        ArchiveError::Place(PlaceError::Object { .. }) => true,
        _ => false,
    };
    crate::again::again_while(stop, "archiving waits", passes, once)
}
