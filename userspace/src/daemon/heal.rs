//! Blocks that are gone from the journal and that the embedded store still has: read back for the
//! refold. With Kafka as the sink nothing is read back; they are only told of.
//!
//! Without their rows a node would count a resend of their clicks again, and send buckets of open
//! minutes that are too low over those the store has. The journal's files stay as they are.
//!
//! Start reading at [`Healed`]; which blocks these are says [`crate::forward::losses`].

use std::collections::VecDeque;

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};
use weir_common::id::{Epoch, Incarnation};
use weir_common::row::{Row, Rows};
use zerocopy::FromBytes;

use crate::forward::embedded::{Store, StoreError};
use crate::forward::losses::Lost;
use crate::journal::BlockIdentity;

/// Blocks that were read back, with their rows in the order of their receive times.
#[derive(Debug, Default)]
pub(super) struct Healed {
    blocks: Vec<Vec<u8>>,
    /// Epoch and receive time of a row, the block it is in, and where.
    rows: VecDeque<(Epoch, u64, usize, usize)>,
}

impl Healed {
    /// Reads these blocks from the store. What it does not have stays lost.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn read_back(
        store: &Store,
        incarnation: Incarnation,
        lost: &[Lost],
    ) -> Result<Self, StoreError> {
        let is_lost = |of: &BlockIdentity| {
            of.incarnation == incarnation
                && lost.iter().any(|(epoch, worker, range)| {
                    *epoch == of.epoch && *worker == of.worker && range.contains(&of.sequence.0)
                })
        };
        let mut healed = Self::default();
        for batch in store.batches() {
            let (id, manifest) = batch?;
            if manifest.blocks.get() == 0 || manifest.incarnation.get() != incarnation.0 {
                continue;
            }
            let mut blocks = store.blocks(id)?;
            while let Some((header, _)) = blocks.next_block()? {
                if is_lost(&BlockIdentity::of(header)) {
                    healed.add(blocks.block().to_vec());
                }
            }
        }
        healed.rows.make_contiguous().sort_by_key(|&(epoch, received_ms, ..)| (epoch, received_ms));
        Ok(healed)
    }

    fn add(&mut self, block: Vec<u8>) {
        let Ok((header, body)) = BlockHeader::ref_from_prefix(&block) else { return };
        let epoch = Epoch(header.epoch.get());
        let mut rows = Rows::new(body);
        loop {
            let at = block.len() - rows.rest().len();
            let Some((row, _)) = rows.next() else { break };
            self.rows.push_back((epoch, row.received_at_ms.get(), self.blocks.len(), at));
        }
        self.blocks.push(block);
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Shows every row.
    pub(super) fn each_row(&self, mut on_row: impl FnMut(&BlockHeader, &Row)) {
        self.rows.iter().for_each(|&(_, _, block, offset)| self.show(block, offset, &mut on_row));
    }

    /// Hands out the rows that come before one of this epoch and receive time.
    pub(super) fn rows_before(
        &mut self,
        epoch: Epoch,
        received_ms: u64,
        mut on_row: impl FnMut(&BlockHeader, &Row),
    ) {
        while let Some(&(of, at_ms, block, offset)) = self.rows.front() {
            if (of, at_ms) > (epoch, received_ms) {
                return;
            }
            self.rows.pop_front();
            self.show(block, offset, &mut on_row);
        }
    }

    fn show(&self, block: usize, offset: usize, on_row: &mut impl FnMut(&BlockHeader, &Row)) {
        let block = &self.blocks[block];
        let header = BlockHeader::ref_from_prefix(&block[..BLOCK_HEADER_LEN]);
        let row = Row::ref_from_prefix(&block[offset..]);
        if let (Ok((header, _)), Ok((row, _))) = (header, row) {
            on_row(header, row);
        }
    }
}
