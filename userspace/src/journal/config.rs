//! How one worker's journal is kept, and what it says of itself.

use std::path::PathBuf;
use std::sync::Arc;

use weir_common::time::UnixMs;

use super::block::BlockIdentity;
use super::group::GROUP_BLOCKS_MAX;
use super::keys::DayKeys;
use super::seal::SEAL_OVERHEAD;
use super::segment::{GROUP_ALIGN, SEGMENT_BYTES_DEFAULT, group_start};
use super::stream::GIVEN_UP_MAX;

/// How one worker's journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Where the segments are.
    pub folder: PathBuf,
    /// Who writes; its sequence is that of the first block, 1.
    pub writer: BlockIdentity,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// The largest block that will be submitted.
    pub block_bytes_max: usize,
    /// Bytes of sealed blocks that may wait while a group is in flight.
    pub queue_bytes_max: usize,
    /// Failures in a row before the journal halts.
    pub failures_max: u32,
    /// How long to wait before asking for a segment again when there was no space.
    pub retry_ms: u64,
    /// When the daemon started: the least creation time of a segment.
    pub started_at: UnixMs,
    /// The keys that segments are encrypted with, if they are.
    pub keys: Option<Arc<DayKeys>>,
}

/// What encryption adds to all blocks that can wait and be in a group.
const SEALS_BYTES_MAX: u64 = (2 * GROUP_BLOCKS_MAX * SEAL_OVERHEAD) as u64;

impl JournalConfig {
    /// The defaults for this writer and folder.
    #[must_use]
    pub const fn new(folder: PathBuf, writer: BlockIdentity) -> Self {
        Self {
            folder,
            writer,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            block_bytes_max: 256 << 10,
            queue_bytes_max: 4 << 20,
            failures_max: 3,
            retry_ms: 1000,
            started_at: UnixMs(0),
            keys: None,
        }
    }

    /// Corrects what cannot work: a segment must hold several times what can wait, or a
    /// group that has to be written again might not fit the next one. Less may wait where
    /// segments are small; two blocks can always.
    pub(super) fn sound(mut self) -> Self {
        self.failures_max = self.failures_max.clamp(1, GIVEN_UP_MAX as u32);
        let half = self.segment_bytes.saturating_sub(4 * GROUP_ALIGN) / 2;
        let fitting = (half.saturating_sub(self.block_bytes_max as u64) / 2) as usize;
        self.queue_bytes_max = self.queue_bytes_max.min(fitting).max(2 * self.block_bytes_max);
        let waiting = (2 * self.queue_bytes_max + self.block_bytes_max) as u64;
        let seals = if self.keys.is_some() { SEALS_BYTES_MAX } else { 0 };
        self.segment_bytes = group_start(self.segment_bytes.max(2 * waiting + 4 * GROUP_ALIGN + seals));
        self
    }
}

/// Whether blocks can become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// As it should be.
    Running,
    /// The next segment cannot be created: the disk or the journal's bound is full. The journal
    /// goes on by itself when there is space.
    NoSpace,
    /// Too many failures in a row; nothing more will become durable until the daemon is
    /// started again. Why, for the operator.
    Halted(String),
}
