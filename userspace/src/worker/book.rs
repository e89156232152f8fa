//! The open block and the journal behind it: what was decided, and how far it is durable.

use weir_common::block::BLOCK_HEADER_LEN;
use weir_common::id::BlockSeq;
use weir_common::reason::Outcome;
use weir_common::row::MAX_ROW_LEN;
use weir_common::time::UnixMs;
use weir_common::wire::{CLICK_LEN, MAX_PAYLOAD};

use super::clock::Now;
use super::handoff::{TURN_BYTES, TURN_BYTES_MIN};
use crate::journal::{BlockBuilder, Journal, JournalState};
use crate::ledger::{Decision, Entry};

/// Datagrams decided in one batch: enough to overlap the cache misses of their lookups, few
/// enough that their rows fit half a block.
pub const BATCH_DATAGRAMS: usize = 64;
/// Bytes of a block. One batch fills at most half of it, so that a batch never needs more than
/// one block beyond the open one: the room [`Book::has_room`] promises.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// What a row may take beyond its click and extension: 16 bytes of columns, 2 of length.
const ROW_OVERHEAD: usize = 18;
/// The most bytes the rows of one datagram take.
const DATAGRAM_ROWS: usize = MAX_PAYLOAD + MAX_PAYLOAD / CLICK_LEN * ROW_OVERHEAD;
// A block of the usual size holds full batches; the least one holds a datagram, or a handed-off
// click with its record, in half of it.
const _: () = assert!(BATCH_DATAGRAMS * DATAGRAM_ROWS <= BLOCK_BYTES / 2 && TURN_BYTES <= BLOCK_BYTES / 2);
/// The smallest block a book can be kept in: a builder's own least, and the bounds below.
pub const BLOCK_BYTES_MIN: usize = 20 * 1024;
const _: () = assert!(BLOCK_HEADER_LEN + MAX_ROW_LEN <= BLOCK_BYTES_MIN);
const _: () = assert!(DATAGRAM_ROWS <= BLOCK_BYTES_MIN / 2 && TURN_BYTES_MIN <= BLOCK_BYTES_MIN / 2);

/// A worker's journal, with the block that is being filled.
pub struct Book {
    builder: BlockBuilder,
    block_bytes: usize,
    journal: Journal,
    opened_at_ns: u64,
    oldest_unflushed: Option<UnixMs>,
}

impl Book {
    /// A book that writes into `journal`, in blocks as large as that takes, [`BLOCK_BYTES_MIN`]
    /// at the least.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        let block_bytes = journal.block_bytes_max();
        debug_assert!(block_bytes >= BLOCK_BYTES_MIN, "a batch has to fit half a block");
        let builder = BlockBuilder::new(block_bytes);
        Self { builder, block_bytes, journal, opened_at_ns: 0, oldest_unflushed: None }
    }

    /// Datagrams that may be decided in one batch.
    #[must_use]
    pub fn batch_datagrams(&self) -> usize {
        (self.block_bytes / 2 / DATAGRAM_ROWS).clamp(1, BATCH_DATAGRAMS)
    }

    /// Bytes of handed-off clicks that may be taken over in one batch. Each carries more than its
    /// row does.
    #[must_use]
    pub fn turn_bytes(&self) -> usize {
        (self.block_bytes / 2).clamp(TURN_BYTES_MIN, TURN_BYTES)
    }

    /// The journal, for the shell that runs its operations.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Whether what is decided next stands in a block of its own: closes the open one, if it can be.
    pub fn begins_anew(&mut self) -> bool {
        self.seal();
        !self.builder.is_open() || self.builder.is_empty()
    }

    /// The blocks that begin from now on name this version of the traffic rules. Nothing was decided in the
    /// open one: see [`Book::begins_anew`].
    pub fn judge_by(&mut self, rules: u32) {
        self.builder.judge_by(rules);
    }

    /// Whether one more batch can be decided: its rows are sure to find room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    /// Records a decision whose outcome has a row.
    pub fn record(&mut self, now: Now, entry: &Entry<'_>, decision: &Decision, extension: &[u8]) {
        if !self.builder.has_room_for(extension.len()) {
            self.seal();
        }
        self.open(now);
        if self.builder.rows() == 0 {
            self.opened_at_ns = now.monotonic_ns;
        }
        let pushed = self.builder.push(entry.received_at, &entry.admitted, decision, entry.click, extension);
        debug_assert!(pushed.is_ok(), "an empty block has room for any row");
        let oldest = self.oldest_unflushed.get_or_insert(entry.received_at);
        *oldest = (*oldest).min(entry.received_at);
    }

    /// Counts clicks without rows.
    pub fn count(&mut self, now: Now, outcome: Outcome, clicks: u32) {
        self.open(now);
        self.builder.count(outcome, clicks);
    }

    fn open(&mut self, now: Now) {
        if !self.builder.is_open() {
            self.builder.begin(self.journal.next_identity(), now.wall);
        }
    }

    /// The block that must be durable before what was decided so far may be acknowledged; `None`
    /// when everything is. A block of counts alone holds no promise, so nothing waits for it.
    #[must_use]
    pub fn awaited(&self) -> Option<BlockSeq> {
        if self.builder.is_open() && self.builder.rows() > 0 {
            return Some(self.journal.next_identity().sequence);
        }
        (!self.journal.is_idle()).then(|| self.journal.submitted())
    }

    /// Everything up to this block is durable.
    #[must_use]
    pub fn durable(&self) -> BlockSeq {
        self.journal.durable()
    }

    /// The last block that was sealed.
    #[must_use]
    pub fn sealed(&self) -> BlockSeq {
        self.journal.submitted()
    }

    /// Rows in the open block, and since when the first of them waits.
    #[must_use]
    pub fn open_rows(&self) -> (u32, u64) {
        if self.builder.is_open() { (self.builder.rows(), self.opened_at_ns) } else { (0, 0) }
    }

    /// Closes the open block, if it says anything, and submits it to the journal. While the
    /// journal takes none, the block stays open.
    pub fn seal(&mut self) {
        if !self.builder.is_open() || self.builder.is_empty() || !self.journal.has_room() {
            return;
        }
        let Some(block) = self.builder.seal(self.journal.previous_crc()) else { return };
        let submitted = self.journal.submit(block);
        debug_assert!(submitted.is_ok(), "it said that it has room");
    }

    /// Whether the journal takes nothing until an operator helps or space comes back. When it is
    /// only busy, clicks are better kept waiting than refused.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        *self.journal.state() != JournalState::Running
    }

    /// Whether what is not durable waits for space or for an operator.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.journal.is_blocked()
    }

    /// Whether blocks can become durable.
    #[must_use]
    pub const fn state(&self) -> &JournalState {
        self.journal.state()
    }

    /// Takes back the buffers of durable blocks.
    pub fn reclaim(&mut self) {
        while let Some(buffer) = self.journal.reclaim() {
            self.builder.recycle(buffer);
        }
    }

    /// What was taken comes back: no flush carried it.
    pub fn put_back_oldest_unflushed(&mut self, oldest: Option<UnixMs>) {
        self.oldest_unflushed = self.oldest_unflushed.into_iter().chain(oldest).min();
    }

    /// The receive time of the oldest row since this was last asked.
    pub fn take_oldest_unflushed(&mut self) -> Option<UnixMs> {
        self.oldest_unflushed.take()
    }
}
