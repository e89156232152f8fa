//! What one flush commits: blocks, buckets and a checkpoint.

use std::collections::BTreeMap;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};
use weir_common::time::{Minute, UnixMs};

use super::uniques::Closing;
use crate::journal::block::check_header;
use crate::journal::{BlockStream, Finding, FolderError, Position};
use crate::rejects::Reject;

/// The number of a flush: the revision of its buckets. Rises over restarts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushNo(pub u64);

/// A bucket as the node knows it: all workers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// What it counts.
    pub key: BucketKey,
    /// The totals so far.
    pub totals: BucketTotals,
}

/// Blocks that are known to be gone and will never be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The start of the daemon.
    pub epoch: Epoch,
    /// The worker.
    pub worker: WorkerId,
    /// The first block that is gone.
    pub first: BlockSeq,
    /// The last one.
    pub last: BlockSeq,
}

/// How far the sink is with one life of the journal. Committed with every batch; a start
/// resumes from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last flush.
    pub flush: FlushNo,
    /// Buckets of minutes before this one are final. Rises only.
    pub final_before: Minute,
    /// How far each stream is.
    pub positions: BTreeMap<(Epoch, WorkerId), Position>,
    /// How far the committed buckets count each stream. Behind `positions` after a part of a flush
    /// that is not the last: should the node die there, its next start owes the buckets of the
    /// blocks between the two.
    pub counted: BTreeMap<(Epoch, WorkerId), Position>,
}

impl Checkpoint {
    /// The last block of a stream that is committed; 0 for none.
    #[must_use]
    pub fn committed(&self, epoch: Epoch, worker: WorkerId) -> BlockSeq {
        self.positions.get(&(epoch, worker)).map_or(BlockSeq(0), |position| position.last)
    }
}

/// One transaction. The blocks are read while it is committed: see [`BatchBlocks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The node.
    pub node: NodeId,
    /// The life of its journal folder.
    pub incarnation: Incarnation,
    /// The flush, and the revision of the buckets.
    pub flush: FlushNo,
    /// A flush with many blocks comes in parts, from 0; only the last has buckets and sketches.
    pub part: u32,
    /// Buckets that changed.
    pub buckets: Vec<Bucket>,
    /// The unique users of minutes that are final with this batch. Set as buckets are: a sketch
    /// that comes again has all its users.
    pub uniques: Closing,
    /// Blocks that are gone, among those before this checkpoint.
    pub gaps: Vec<Gap>,
    /// Samples of malformed input; in the last part.
    pub rejects: Vec<Reject>,
    /// How far the sink is with this batch.
    pub checkpoint: Checkpoint,
    /// The node's time before which every acknowledged click is in the buckets with this batch;
    /// none where that is not known.
    pub counted_until: Option<UnixMs>,
}

/// Why the blocks of a batch cannot be read.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum BlocksError {
    /// the journal cannot be read: {0}
    Folder(#[from] FolderError),
    /// block {sequence} of worker {worker} in epoch {epoch} was durable and cannot be read back; {finding}
    Unreadable {
        /// The start of the daemon.
        epoch: u32,
        /// The worker.
        worker: u16,
        /// The block.
        sequence: u64,
        /// What is wrong with the journal there.
        finding: String,
    },
}

/// The blocks between two checkpoints, stream after stream, read from the journal one at a
/// time: what a batch takes in memory does not depend on its size. A second reading yields the
/// same bytes, because blocks never change.
#[derive(Debug)]
pub struct BatchBlocks {
    streams: Vec<(BlockStream, BlockSeq)>,
    gaps: Vec<Gap>,
    at: usize,
    blocks: u64,
    rows: u64,
    bytes: u64,
}

impl BatchBlocks {
    pub(super) const fn new(streams: Vec<(BlockStream, BlockSeq)>, gaps: Vec<Gap>) -> Self {
        Self { streams, gaps, at: 0, blocks: 0, rows: 0, bytes: 0 }
    }

    pub(super) const fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// The next block, header and rows; `None` after the last.
    ///
    /// # Errors
    /// When a block of the batch is not there. Nothing of the batch may be committed then.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, BlocksError> {
        while let Some((stream, upto)) = self.streams.get_mut(self.at) {
            if stream.position().last >= *upto {
                self.at += 1;
                continue;
            }
            if let Some(gap) = read_block(stream, *upto)? {
                // The plan of the batch knew of every gap, or it was made of another journal.
                if !self.gaps.contains(&gap) {
                    return Err(unreadable(stream, gap.first));
                }
            }
            let block = self.streams[self.at].0.block();
            self.blocks += 1;
            self.bytes += block.len() as u64;
            self.rows += rows_of(block);
            return Ok(Some(block));
        }
        Ok(None)
    }

    /// Blocks, rows and bytes read so far.
    #[must_use]
    pub const fn read(&self) -> (u64, u64, u64) {
        (self.blocks, self.rows, self.bytes)
    }
}

/// Reads the next block of a stream that reaches to `upto`; the gap before it, if there is one.
pub(super) fn read_block(stream: &mut BlockStream, upto: BlockSeq) -> Result<Option<Gap>, BlocksError> {
    let (epoch, worker) = stream.writer();
    let expected = BlockSeq(stream.position().last.0 + 1);
    if !stream.next_block()? || stream.position().last > upto {
        return Err(unreadable(stream, expected));
    }
    let found = stream.position().last;
    let gap = Gap { epoch, worker, first: expected, last: BlockSeq(found.0 - 1) };
    Ok((found > expected).then_some(gap))
}

/// The error for a block that is not there.
pub(super) fn unreadable(stream: &mut BlockStream, sequence: BlockSeq) -> BlocksError {
    let (epoch, worker) = stream.writer();
    let finding = stream.take_findings().first().map(Finding::to_string);
    BlocksError::Unreadable {
        epoch: epoch.0,
        worker: worker.0,
        sequence: sequence.0,
        finding: finding.unwrap_or_else(|| "there is nothing where it should be".to_owned()),
    }
}

/// The number of rows a block says it has.
pub(super) fn rows_of(block: &[u8]) -> u64 {
    check_header(block).map_or(0, |header| u64::from(header.rows.get()))
}
