//! What a sink must do.

use super::batch::{Batch, BatchBlocks, BlocksError, Checkpoint};

/// Why a batch was not committed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum SinkError {
    /// the sink did not commit the batch and may do so later: {0}
    Retry(String),
    /// the sink cannot go on until it is opened again: {0}
    Fatal(String),
    /// {0}
    Blocks(#[from] BlocksError),
}

/// A place that takes each batch as a whole or not at all.
///
/// After an error the forwarder offers the same batch again, byte for byte, for as long as the
/// error is [`SinkError::Retry`]. A sink that cannot know whether a commit went through (a
/// broker that did not answer) must find out before it takes the batch again, or take it in such
/// a way that twice is the same as once.
pub trait Sink {
    /// How far this sink is. A transactional sink fences its older self first, so that what it
    /// reads here stays true.
    ///
    /// # Errors
    /// When it cannot be read; there is no forwarding without it. After [`SinkError::Retry`] it is
    /// asked for again, while the node takes clicks.
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError>;

    /// Commits the blocks, the buckets and the checkpoint, durably and all at once.
    ///
    /// # Errors
    /// Nothing is committed, or it is not known.
    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError>;
}

impl Sink for Box<dyn Sink + Send> {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        (**self).checkpoint()
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        (**self).commit(batch, blocks)
    }
}
