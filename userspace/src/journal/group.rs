//! One group commit: where each block of it goes, and how far its writes and its sync are.

use std::io;

use super::block::SealedBlock;
use super::operation::{Operation, SegmentNo};

/// Blocks of one group at the most: what a ring can hold of writes without waiting.
pub const GROUP_BLOCKS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteState {
    Wanted,
    Running,
    Done,
}

#[derive(Debug)]
struct Placed {
    /// Its bytes are with the shell while the write runs.
    block: SealedBlock,
    len: usize,
    offset: u64,
    from: usize,
    state: WriteState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Writing,
    SyncWanted,
    Syncing,
}

#[derive(Debug)]
pub(super) struct Group {
    segment: SegmentNo,
    blocks: Vec<Placed>,
    phase: Phase,
    failure: Option<io::Error>,
}

impl Group {
    /// An empty group for this segment, with room for some blocks.
    pub(super) fn new(segment: SegmentNo, blocks: usize) -> Self {
        let blocks = Vec::with_capacity(blocks.min(GROUP_BLOCKS_MAX));
        Self { segment, blocks, phase: Phase::Writing, failure: None }
    }

    /// Adds a block at its place in the file.
    pub(super) fn place(&mut self, block: SealedBlock, offset: u64) {
        let len = block.bytes.len();
        self.blocks.push(Placed { block, len, offset, from: 0, state: WriteState::Wanted });
    }

    pub(super) const fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) const fn segment(&self) -> SegmentNo {
        self.segment
    }

    pub(super) fn is_syncing(&self, segment: SegmentNo) -> bool {
        self.segment == segment && self.phase == Phase::Syncing
    }

    pub(super) fn fail(&mut self, error: io::Error) {
        self.failure = Some(error);
    }

    /// Whether it failed and the shell has nothing of it any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some() && self.blocks.iter().all(|placed| placed.state != WriteState::Running)
    }

    pub(super) fn take_failure(&mut self) -> io::Error {
        self.failure.take().unwrap_or_else(|| io::ErrorKind::Other.into())
    }

    /// Its blocks in order.
    pub(super) fn into_blocks(self) -> impl DoubleEndedIterator<Item = SealedBlock> {
        self.blocks.into_iter().map(|placed| placed.block)
    }

    /// The next thing to do for it.
    pub(super) fn next_operation(&mut self) -> Option<Operation> {
        if self.failure.is_some() {
            return None;
        }
        if self.phase == Phase::SyncWanted {
            self.phase = Phase::Syncing;
            return Some(Operation::Sync { segment: self.segment });
        }
        let wanted = |placed: &&mut Placed| placed.state == WriteState::Wanted;
        let placed = self.blocks.iter_mut().find(wanted)?;
        placed.state = WriteState::Running;
        Some(Operation::Write {
            segment: self.segment,
            offset: placed.offset + placed.from as u64,
            buffer: std::mem::take(&mut placed.block.bytes),
            from: placed.from,
        })
    }

    /// Takes the end of a write.
    pub(super) fn written(&mut self, offset: u64, buffer: Vec<u8>, result: io::Result<usize>) {
        let asked = |placed: &&mut Placed| {
            placed.state == WriteState::Running && placed.offset + placed.from as u64 == offset
        };
        let Some(placed) = self.blocks.iter_mut().find(asked) else {
            debug_assert!(false, "no write at {offset} was running");
            return;
        };
        debug_assert_eq!(buffer.len(), placed.len, "the buffer that was given comes back");
        placed.block.bytes = buffer;
        placed.state = WriteState::Wanted;
        match result {
            Ok(count) if count > 0 && count <= placed.len - placed.from => {
                // A short write is no failure: the kernel took these bytes. Each one makes the
                // rest smaller, so this ends.
                placed.from += count;
                if placed.from == placed.len {
                    placed.state = WriteState::Done;
                }
            }
            Ok(_) => self.failure = Some(io::ErrorKind::WriteZero.into()),
            Err(error) => self.failure = Some(error),
        }
        if self.failure.is_none() && self.blocks.iter().all(|placed| placed.state == WriteState::Done) {
            self.phase = Phase::SyncWanted;
        }
    }
}
