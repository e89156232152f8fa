//! What the journal asks its shell to do, and what the shell reports back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::keys::{DayKeys, KeyError};
use super::seal::SealingKey;
use crate::day::Day;

/// Counts the segments of one (epoch, worker) from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u32);

/// One thing to do. Operations may run in any order and at the same time, except that
/// [`Operation::Close`] and [`Operation::Remove`] come after all others on their segment.
#[derive(Debug)]
pub enum Operation {
    /// Take the key of a day, to make segments with. Blocking: for a helper thread. Answer with
    /// [`Completion::KeyTaken`]. Asked for only where segments are encrypted.
    TakeKey {
        /// Where from.
        keys: Arc<DayKeys>,
        /// Of which day.
        day: Day,
    },
    /// Create the file (it must not exist), allocate `bytes` for it, write `header` at its
    /// start, fsync the file and then its folder. Blocking: for a helper thread. Answer with
    /// [`Completion::Created`] when all of it is done.
    CreateSegment {
        /// The segment.
        segment: SegmentNo,
        /// The file.
        path: PathBuf,
        /// Its full size.
        bytes: u64,
        /// Its first bytes.
        header: Vec<u8>,
    },
    /// Write `buffer[from..]` at `offset`. Answer with [`Completion::Written`].
    Write {
        /// The segment.
        segment: SegmentNo,
        /// Where in the file.
        offset: u64,
        /// One sealed block.
        buffer: Vec<u8>,
        /// What of it is already written.
        from: usize,
    },
    /// `fdatasync` the file. Answer with [`Completion::Synced`].
    Sync {
        /// The segment.
        segment: SegmentNo,
    },
    /// Close the descriptor; nothing more will be asked of it. No answer.
    Close {
        /// The segment.
        segment: SegmentNo,
    },
    /// Close the descriptor and delete the file: no durable block is in it. No answer; a file
    /// that cannot be deleted is harmless.
    Remove {
        /// The segment.
        segment: SegmentNo,
        /// The file.
        path: PathBuf,
    },
}

/// How an [`Operation`] ended.
#[derive(Debug)]
pub enum Completion {
    /// [`Operation::TakeKey`] ended.
    KeyTaken {
        /// The key, durable.
        result: Result<SealingKey, KeyError>,
    },
    /// [`Operation::CreateSegment`] ended.
    Created {
        /// The segment.
        segment: SegmentNo,
        /// Whether it is there to stay.
        result: io::Result<()>,
    },
    /// [`Operation::Write`] ended.
    Written {
        /// The segment.
        segment: SegmentNo,
        /// The offset that was asked for.
        offset: u64,
        /// The buffer that was given.
        buffer: Vec<u8>,
        /// Bytes written, beginning at `offset`.
        result: io::Result<usize>,
    },
    /// [`Operation::Sync`] ended.
    Synced {
        /// The segment.
        segment: SegmentNo,
        /// Whether all writes before it are durable.
        result: io::Result<()>,
    },
}
