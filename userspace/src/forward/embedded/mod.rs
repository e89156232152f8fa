//! The embedded sink: a node, or a small installation, without Kafka.
//!
//! Buckets, sketches, manifest and checkpoint are keyspaces of one fjall database and change in one atomic
//! write; the raw batches are files beside it. A raw file is durable under its name before the
//! transaction that names it in the manifest, so the manifest never names what is not there; a
//! file that no manifest entry names does not count.
//!
//! ```text
//! <store>/
//!   db/    fjall: buckets, minutes, uniques, unsketched, manifest, gaps, streams, lives, rejects
//!   raw/   <flush>-<part>.wraw
//! ```

pub mod keys;
pub mod raw;
mod rejects;

use std::fs;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, Epoch, Incarnation, WorkerId};
use weir_common::ordered;
use weir_common::time::Minute;
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::batch::{Batch, BatchBlocks, Bucket, Checkpoint, FlushNo, Gap};
use super::sink::{Sink, SinkError};
use super::uniques::{Sketch, Unsketched};
use crate::journal::disk::{create_folder, sync_folder};
use crate::rejects::Reject;
use keys::{BucketValue, LifeValue, ManifestValue, StreamValue};
use raw::{RawBlocks, RawError, RawId, RawSummary};

/// Why the store cannot be opened or read.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum StoreError {
    /// the store {path} is in use; stop the daemon first, because one process at a time can have it open
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// the store {path} cannot be opened: {source}
    Open {
        /// The store's folder.
        path: PathBuf,
        /// Why.
        source: fjall::Error,
    },
    /// the store cannot be read: {0}
    Read(#[from] fjall::Error),
    /// {path}: {source}
    Io {
        /// The folder of raw batches.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// an entry of keyspace {0} is damaged
    Damaged(&'static str),
    /// a raw batch: {0}
    Raw(#[from] RawError),
}

/// A raw batch that no transaction named, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The file.
    pub id: RawId,
    /// Whether it was deleted: the journal still has all its blocks, so nothing is lost.
    pub removed: bool,
}

/// The embedded store.
pub struct Store {
    db: Database,
    buckets: Keyspace,
    minutes: Keyspace,
    uniques: Keyspace,
    unsketched: Keyspace,
    manifest: Keyspace,
    gaps: Keyspace,
    streams: Keyspace,
    lives: Keyspace,
    rejects: Keyspace,
    raw: PathBuf,
    /// Whose checkpoint is asked for.
    incarnation: Incarnation,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("raw", &self.raw).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `path`, or creates it there. As a sink it works for the journal of
    /// this incarnation; a reader may give any.
    ///
    /// # Errors
    /// When another process has it open, or the disk fails.
    pub fn open(path: &Path, incarnation: Incarnation) -> Result<Self, StoreError> {
        let raw = path.join("raw");
        let io_error = |source| StoreError::Io { path: raw.clone(), source };
        create_folder(&raw).map_err(io_error)?;
        let opened = Database::builder(path.join("db")).open();
        let db = opened.map_err(|source| match source {
            fjall::Error::Locked => StoreError::InUse { path: path.to_owned() },
            source => StoreError::Open { path: path.to_owned(), source },
        })?;
        sync_folder(path).map_err(io_error)?; // the name of the database's own folder
        let keyspace = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Self {
            buckets: keyspace("buckets")?,
            minutes: keyspace("minutes")?,
            uniques: keyspace("uniques")?,
            unsketched: keyspace("unsketched")?,
            manifest: keyspace("manifest")?,
            gaps: keyspace("gaps")?,
            streams: keyspace("streams")?,
            lives: keyspace("lives")?,
            rejects: keyspace("rejects")?,
            db,
            raw,
            incarnation,
        })
    }

    /// Opens the store in `path` after a write to it failed. A failed sync leaves pages in the cache
    /// that pass for clean and are not on the disk; they are dropped first, so that what is read
    /// back is what the disk has.
    ///
    /// # Errors
    /// As [`Store::open`], and when its files cannot be listed.
    pub fn reopen(path: &Path, incarnation: Incarnation) -> Result<Self, StoreError> {
        let db = path.join("db");
        drop_cached(&db).map_err(|source| StoreError::Io { path: db, source })?;
        Self::open(path, incarnation)
    }

    /// All buckets with their revisions, ad after ad.
    pub fn buckets(&self) -> impl Iterator<Item = Result<(Incarnation, FlushNo, Bucket), StoreError>> + '_ {
        self.buckets.iter().map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("buckets");
            let (key, incarnation) = ordered::read_bucket(&key).ok_or_else(damaged)?;
            let value = BucketValue::read_from_bytes(&value).map_err(|_| damaged())?;
            Ok((incarnation, FlushNo(value.revision.get()), Bucket { key, totals: value.totals }))
        })
    }

    /// The buckets of one minute, ad after ad.
    pub fn minute(
        &self,
        minute: Minute,
    ) -> impl Iterator<Item = Result<(Incarnation, Bucket), StoreError>> + '_ {
        self.minutes.prefix(minute.0.to_be_bytes()).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("minutes");
            let (key, incarnation) = keys::read_by_minute(&key).ok_or_else(damaged)?;
            let value = BucketValue::read_from_bytes(&value).map_err(|_| damaged())?;
            Ok((incarnation, Bucket { key, totals: value.totals }))
        })
    }

    /// The totals of one bucket.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn bucket(
        &self,
        key: &BucketKey,
        incarnation: Incarnation,
    ) -> Result<Option<BucketTotals>, StoreError> {
        let Some(value) = self.buckets.get(ordered::bucket(key, incarnation))? else { return Ok(None) };
        let value = BucketValue::read_from_bytes(&value).map_err(|_| StoreError::Damaged("buckets"))?;
        Ok(Some(value.totals))
    }

    /// The sketches of unique users with their revisions, ad after ad.
    pub fn uniques(&self) -> impl Iterator<Item = Result<(Incarnation, FlushNo, Sketch), StoreError>> + '_ {
        self.uniques.iter().map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("uniques");
            let (ad, minute, incarnation) = ordered::read_users(&key).ok_or_else(damaged)?;
            let (revision, theta) = value.split_first_chunk::<8>().ok_or_else(damaged)?;
            let revision = FlushNo(u64::from_le_bytes(*revision));
            Ok((incarnation, revision, Sketch { minute, ad, theta: theta.to_vec() }))
        })
    }

    /// The minutes of which some ads have no sketch.
    pub fn unsketched(&self) -> impl Iterator<Item = Result<(Incarnation, Unsketched), StoreError>> + '_ {
        self.unsketched.iter().map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("unsketched");
            let (minute, incarnation) = ordered::read_unsketched(&key).ok_or_else(damaged)?;
            let clicks = value.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| damaged())?;
            Ok((incarnation, Unsketched { minute, clicks }))
        })
    }

    /// The raw batches in the order they were committed.
    pub fn batches(&self) -> impl Iterator<Item = Result<(RawId, ManifestValue), StoreError>> + '_ {
        self.manifest.iter().map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("manifest");
            let id = keys::read_raw_id(&key).ok_or_else(damaged)?;
            Ok((id, ManifestValue::read_from_bytes(&value).map_err(|_| damaged())?))
        })
    }

    /// The blocks of a raw batch.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn blocks(&self, id: RawId) -> Result<RawBlocks, RawError> {
        RawBlocks::open(self.raw.join(id.file_name()))
    }

    /// Blocks that were lost before they could be forwarded, as recovery reported them.
    pub fn gaps(&self) -> impl Iterator<Item = Result<(Incarnation, Gap), StoreError>> + '_ {
        self.gaps.iter().map(|entry| {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("gaps");
            let (stream, first) = key.split_last_chunk::<8>().ok_or_else(damaged)?;
            let (incarnation, epoch, worker) = keys::read_stream(stream).ok_or_else(damaged)?;
            let last = value.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| damaged())?;
            let first = BlockSeq(u64::from_be_bytes(*first));
            Ok((incarnation, Gap { epoch, worker, first, last: BlockSeq(last) }))
        })
    }

    /// How far this store is with one life of the journal.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn checkpoint_of(&self, incarnation: Incarnation) -> Result<Checkpoint, StoreError> {
        let mut checkpoint = Checkpoint::default();
        // Flush numbers name raw batches, so they rise over all lives.
        if let Some(last) = self.manifest.last_key_value() {
            let id = keys::read_raw_id(&last.key()?).ok_or(StoreError::Damaged("manifest"))?;
            checkpoint.flush = id.flush;
        }
        if let Some(life) = self.lives.get(incarnation.0.to_be_bytes())? {
            let life = LifeValue::read_from_bytes(&life).map_err(|_| StoreError::Damaged("lives"))?;
            checkpoint.final_before = life.final_before();
        }
        for entry in self.streams.prefix(incarnation.0.to_be_bytes()) {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("streams");
            let (_, epoch, worker) = keys::read_stream(&key).ok_or_else(damaged)?;
            let value = StreamValue::read_from_bytes(&value).map_err(|_| damaged())?;
            checkpoint.positions.insert((epoch, worker), value.committed.into());
            checkpoint.counted.insert((epoch, worker), value.counted.into());
        }
        Ok(checkpoint)
    }

    /// The raw files that no transaction named.
    ///
    /// # Errors
    /// When the store or the folder cannot be read.
    pub fn orphans(&self) -> Result<Vec<RawId>, StoreError> {
        let io_error = |source| StoreError::Io { path: self.raw.clone(), source };
        let mut orphans = Vec::new();
        for id in raw::list(&self.raw).map_err(io_error)? {
            if !self.manifest.contains_key(keys::raw_id(id))? {
                orphans.push(id);
            }
        }
        Ok(orphans)
    }

    /// Looks at the raw files that no transaction named. One is deleted when `is_kept` says that
    /// the journal still has its blocks; else it may be the only copy, and stays.
    ///
    /// # Errors
    /// When the store or the folder cannot be read.
    pub fn resolve_orphans(
        &self,
        mut is_kept: impl FnMut(Incarnation, Epoch, WorkerId, BlockSeq) -> bool,
    ) -> Result<Vec<Orphan>, StoreError> {
        let io_error = |source| StoreError::Io { path: self.raw.clone(), source };
        raw::remove_leftovers(&self.raw).map_err(io_error)?;
        let mut orphans = Vec::new();
        for id in self.orphans()? {
            let removed = self.is_in_journal(id, &mut is_kept);
            if removed {
                fs::remove_file(self.raw.join(id.file_name())).map_err(io_error)?;
            }
            orphans.push(Orphan { id, removed });
        }
        Ok(orphans)
    }

    fn is_in_journal(
        &self,
        id: RawId,
        is_kept: &mut impl FnMut(Incarnation, Epoch, WorkerId, BlockSeq) -> bool,
    ) -> bool {
        let Ok(mut blocks) = self.blocks(id) else { return false };
        loop {
            match blocks.next_block() {
                Ok(Some((header, _))) => {
                    let of = crate::journal::BlockIdentity::of(header);
                    if !is_kept(of.incarnation, of.epoch, of.worker, of.sequence) {
                        return false;
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// The samples of malformed input, oldest first.
    pub fn rejects(&self) -> impl Iterator<Item = Result<(Incarnation, Reject), StoreError>> + '_ {
        self.rejects.iter().map(|entry| {
            let (_, value) = entry.into_inner()?;
            rejects::read(&value).ok_or(StoreError::Damaged("rejects"))
        })
    }

    fn transact(&self, batch: &Batch, id: RawId, raw: &RawSummary) -> fjall::Result<()> {
        let mut transaction = self.db.batch().durability(Some(PersistMode::SyncAll));
        let revision = U64::new(batch.flush.0);
        for bucket in &batch.buckets {
            let value = BucketValue { revision, totals: bucket.totals };
            let by_ad = ordered::bucket(&bucket.key, batch.incarnation);
            let by_minute = keys::by_minute(&bucket.key, batch.incarnation);
            transaction.insert(&self.buckets, by_ad, value.as_bytes());
            transaction.insert(&self.minutes, by_minute, value.as_bytes());
        }
        for sketch in &batch.uniques.sketches {
            let key = ordered::users(sketch.ad, sketch.minute, batch.incarnation);
            let value = [revision.as_bytes(), &sketch.theta].concat();
            transaction.insert(&self.uniques, key, value);
        }
        for Unsketched { minute, clicks } in &batch.uniques.unsketched {
            transaction.insert(
                &self.unsketched,
                ordered::unsketched(*minute, batch.incarnation),
                clicks.to_le_bytes(),
            );
        }
        for gap in &batch.gaps {
            let mut key = keys::stream(batch.incarnation, gap.epoch, gap.worker).to_vec();
            key.extend_from_slice(&gap.first.0.to_be_bytes());
            transaction.insert(&self.gaps, key, gap.last.0.to_be_bytes());
        }
        for key in rejects::surplus(&self.rejects, batch.rejects.len())? {
            transaction.remove(&self.rejects, key);
        }
        for (index, reject) in batch.rejects.iter().enumerate() {
            let value = rejects::value(batch.incarnation, reject);
            transaction.insert(&self.rejects, rejects::key(id, index as u32), value);
        }
        for (&(epoch, worker), &position) in &batch.checkpoint.positions {
            let counted = batch.checkpoint.counted.get(&(epoch, worker)).copied().unwrap_or_default();
            let value = StreamValue { committed: position.into(), counted: counted.into() };
            transaction.insert(
                &self.streams,
                keys::stream(batch.incarnation, epoch, worker),
                value.as_bytes(),
            );
        }
        let manifest = ManifestValue {
            incarnation: batch.incarnation.0.into(),
            blocks: raw.blocks.into(),
            rows: raw.rows.into(),
            bytes: raw.bytes.into(),
            buckets: (batch.buckets.len() as u64).into(),
            crc: raw.crc.into(),
        };
        transaction.insert(&self.manifest, keys::raw_id(id), manifest.as_bytes());
        let life = LifeValue { flush: revision, final_before: batch.checkpoint.final_before.0.into() };
        transaction.insert(&self.lives, batch.incarnation.0.to_be_bytes(), life.as_bytes());
        transaction.commit()
    }
}

/// Drops the clean pages of all files below a folder from the page cache.
fn drop_cached(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_cached(&entry.path())?;
        } else {
            rustix::fs::fadvise(fs::File::open(entry.path())?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

impl Sink for Store {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        self.checkpoint_of(self.incarnation).map_err(|error| SinkError::Fatal(error.to_string()))
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        let id = RawId { flush: batch.flush, part: batch.part };
        let raw = raw::write(&self.raw, id, blocks)?;
        self.transact(batch, id, &raw).map_err(|error| match error {
            // After a failed sync the database cannot know what of it is on the disk.
            fjall::Error::Poisoned => SinkError::Fatal(format!(
                "a write to the store failed ({error}), so it takes no more until it is opened again; \
                 check the disk"
            )),
            error => SinkError::Retry(error.to_string()),
        })
    }
}
