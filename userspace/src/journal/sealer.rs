//! What a journal knows of encryption: which key it seals with, and when it wants the next one.
//! Without I/O, like the journal; without keys it does nothing.

use std::sync::Arc;

use weir_common::id::Incarnation;

use super::group::GROUP_BLOCKS_MAX;
use super::keys::DayKeys;
use super::operation::Operation;
use super::seal::{DayKeyId, SEAL_OVERHEAD, SealingKey, SegmentCipher};
use super::segment::SegmentId;
use crate::day::Day;

#[derive(Debug)]
pub(super) struct Sealer {
    keys: Option<Arc<DayKeys>>,
    current: Option<SealingKey>,
    /// Asking for a key failed; it is asked for again from then on.
    retry_at_ms: Option<u64>,
    spares: Vec<Vec<u8>>,
}

impl Sealer {
    pub(super) const fn new(keys: Option<Arc<DayKeys>>) -> Self {
        Self { keys, current: None, retry_at_ms: None, spares: Vec::new() }
    }

    /// How much longer a block is in the file.
    pub(super) const fn overhead(&self) -> usize {
        if self.keys.is_some() { SEAL_OVERHEAD } else { 0 }
    }

    /// The day of the key that segments are made with; `None` when they are not encrypted.
    pub(super) fn day(&self) -> Option<Day> {
        self.current.as_ref().map(|current| current.key.id().day())
    }

    /// The key that segments are made with.
    pub(super) fn key_id(&self) -> Option<DayKeyId> {
        self.current.as_ref().map(|current| current.key.id())
    }

    /// Asks for the key of `day`, if there is none as late and it is time to ask.
    pub(super) fn ask(&self, day: Day, now_ms: u64) -> Option<Operation> {
        let keys = self.keys.as_ref()?;
        let is_wanted = self.day().is_none_or(|current| current < day);
        let is_time = self.retry_at_ms.is_none_or(|at| now_ms >= at);
        (is_wanted && is_time).then(|| Operation::TakeKey { keys: Arc::clone(keys), day })
    }

    /// Whether a segment can be made: a key is there, be it an earlier day's, or none is wanted.
    pub(super) const fn can_make_segments(&self) -> bool {
        self.keys.is_none() || self.current.is_some()
    }

    pub(super) fn took(&mut self, key: SealingKey) {
        self.current = Some(key);
        self.retry_at_ms = None;
    }

    pub(super) const fn failed(&mut self, retry_at_ms: u64) {
        self.retry_at_ms = Some(retry_at_ms);
    }

    /// Whether a segment under the key of `used` is to be left for one under a later key: that key
    /// is there, or can be asked for once the segment that was made ahead is used.
    pub(super) fn is_outdated(&self, used: Option<Day>, day: Day, now_ms: u64) -> bool {
        let outdated = used.is_some_and(|used| used < day);
        outdated && (self.day() > used || self.retry_at_ms.is_none_or(|at| now_ms >= at))
    }

    pub(super) fn cipher(&self, incarnation: Incarnation, segment: SegmentId) -> Option<SegmentCipher> {
        self.current.as_ref().map(|current| current.segment(incarnation, segment))
    }

    /// A buffer to seal into.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.spares.len() < GROUP_BLOCKS_MAX {
            self.spares.push(buffer);
        }
    }
}
