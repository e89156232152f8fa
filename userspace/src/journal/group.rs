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
    /// Its bytes are with the shell while the write runs, unless others are written for them.
    block: SealedBlock,
    /// What is written in its place, where the segment is encrypted.
    sealed: Vec<u8>,
    is_sealed: bool,
    len: usize,
    offset: u64,
    from: usize,
    state: WriteState,
}

impl Placed {
    /// The bytes that go to the file.
    fn written_bytes(&mut self) -> &mut Vec<u8> {
        if self.is_sealed { &mut self.sealed } else { &mut self.block.bytes }
    }
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

    /// Adds a block at its place in the file, and what is written there in its place if that is
    /// not empty.
    pub(super) fn place(&mut self, block: SealedBlock, sealed: Vec<u8>, offset: u64) {
        let is_sealed = !sealed.is_empty();
        let len = if is_sealed { sealed.len() } else { block.bytes.len() };
        let state = WriteState::Wanted;
        self.blocks.push(Placed { block, sealed, is_sealed, len, offset, from: 0, state });
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

    /// Its blocks in order, each with the buffer of what was written in its place.
    pub(super) fn into_blocks(self) -> impl DoubleEndedIterator<Item = (SealedBlock, Vec<u8>)> {
        self.blocks.into_iter().map(|placed| (placed.block, placed.sealed))
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
            buffer: std::mem::take(placed.written_bytes()),
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
        *placed.written_bytes() = buffer;
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
