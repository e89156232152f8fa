//! The rows of a store, one after the other.

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};
use weir_common::row::{Row, Rows};
use zerocopy::FromBytes;

use crate::forward::embedded::raw::{RawBlocks, RawId};
use crate::forward::embedded::{Store, StoreError};

/// All rows in the order they were forwarded, each with the header of its block. A raw batch
/// that is damaged ends at the damage: the structure check has reported it.
#[derive(Debug)]
pub struct RowIter<'a> {
    store: &'a Store,
    batches: std::vec::IntoIter<RawId>,
    blocks: Option<RawBlocks>,
    at: usize,
}

impl<'a> RowIter<'a> {
    /// The rows of `store`.
    ///
    /// # Errors
    /// When the manifest cannot be read.
    pub fn new(store: &'a Store) -> Result<Self, StoreError> {
        let mut batches = Vec::new();
        for batch in store.batches() {
            let (id, entry) = batch?;
            if entry.blocks.get() > 0 {
                batches.push(id);
            }
        }
        Ok(Self { store, batches: batches.into_iter(), blocks: None, at: 0 })
    }

    /// The next row of the block in work.
    fn row(&mut self) -> Option<(BlockHeader, Row)> {
        let block = self.blocks.as_ref()?.block();
        let (header, _) = BlockHeader::read_from_prefix(block).ok()?;
        let mut rows = Rows::new(block.get(self.at..)?);
        let (row, _) = rows.next()?;
        self.at = block.len() - rows.rest().len();
        Some((header, *row))
    }

    /// Goes on to the next block; `false` after the last.
    fn next_block(&mut self) -> bool {
        self.at = BLOCK_HEADER_LEN;
        loop {
            if let Some(blocks) = self.blocks.as_mut() {
                if matches!(blocks.next_block(), Ok(Some(_))) {
                    return true;
                }
                self.blocks = None;
            }
            let Some(id) = self.batches.next() else { return false };
            self.blocks = self.store.blocks(id).ok();
        }
    }
}

impl Iterator for RowIter<'_> {
    type Item = (BlockHeader, Row);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.row() {
                return Some(row);
            }
            if !self.next_block() {
                return None;
            }
        }
    }
}
