//! Group commit: the rules by which sealed blocks become durable, without any I/O.
//!
//! - One group is in flight: all its writes, then one `fdatasync`, then it is durable. The next
//!   group gathers meanwhile. A second group is not written under a running sync: whether that
//!   sync covers its pages is undefined, so its own sync could not be saved, and a failure of
//!   the first would leave it unknown which pages of the second the kernel gave up on.
//! - A block is only taken when its place on the disk is already allocated: [`Journal::has_room`]
//!   looks at the segments that exist, never at hope. So a full disk refuses clicks before they
//!   are counted, and cannot lose one after.
//! - The next segment is asked for when the current one is half full.
//! - After a failed write or sync the kernel may have dropped the pages and marked them clean
//!   (Rebello et al., USENIX ATC 2020): the segment is closed, and the group is written again,
//!   byte for byte, to another. After several failures in a row the journal halts.
//! - No space is not a failure: the journal takes nothing more, and asks again by and by.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use weir_common::id::BlockSeq;
use weir_common::time::UnixMs;
use zerocopy::IntoBytes;

use super::block::{BlockIdentity, SealedBlock};
use super::budget::DiskBudget;
use super::config::{JournalConfig, JournalState};
use super::group::{GROUP_BLOCKS_MAX, Group};
use super::keys::KeyError;
use super::operation::{Completion, Operation, SegmentNo};
use super::seal::{SealingKey, SegmentCipher};
use super::sealer::Sealer;
use super::segment::{FIRST_GROUP, GROUP_ALIGN, SegmentHeader, SegmentId, group_start};
use crate::day::Day;

#[derive(Debug)]
struct OpenSegment {
    number: SegmentNo,
    /// Where the next group may begin, before alignment.
    used: u64,
    holds_durable: bool,
    /// What its blocks are sealed with, and the day of the key.
    cipher: Option<SegmentCipher>,
    day: Option<Day>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextSegment {
    Absent,
    /// The key to make it with is asked for.
    TakingKey,
    Creating(SegmentNo),
    Ready(SegmentNo),
}

/// The journal of one worker.
#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    budget: Arc<DiskBudget>,
    next_sequence: BlockSeq,
    previous_crc: u32,
    newest: UnixMs,
    durable: BlockSeq,
    queue: VecDeque<SealedBlock>,
    queue_bytes: usize,
    group: Option<Group>,
    active: Option<OpenSegment>,
    next: NextSegment,
    last_number: SegmentNo,
    farewells: VecDeque<Operation>,
    failures: u32,
    now_ms: u64,
    retry_at_ms: u64,
    at_bound: bool,
    /// A group met a full disk and has not been written elsewhere yet: that a segment could be
    /// made does not show that there is space, on a device that promises more than it has.
    is_unproven: bool,
    state: JournalState,
    spares: Vec<Vec<u8>>,
    sealer: Sealer,
}

impl Journal {
    /// The journal of a worker that has written nothing in this epoch yet.
    #[must_use]
    pub fn new(config: JournalConfig, budget: Arc<DiskBudget>) -> Self {
        let config = config.sound();
        Self {
            next_sequence: BlockSeq(1),
            newest: config.started_at,
            sealer: Sealer::new(config.keys.clone()),
            config,
            budget,
            previous_crc: 0,
            durable: BlockSeq(0),
            queue: VecDeque::with_capacity(2 * GROUP_BLOCKS_MAX),
            queue_bytes: 0,
            group: None,
            active: None,
            next: NextSegment::Absent,
            last_number: SegmentNo(0),
            farewells: VecDeque::new(),
            failures: 0,
            now_ms: 0,
            retry_at_ms: 0,
            at_bound: false,
            is_unproven: false,
            state: JournalState::Running,
            spares: Vec::new(),
        }
    }

    /// The largest block it takes.
    #[must_use]
    pub const fn block_bytes_max(&self) -> usize {
        self.config.block_bytes_max
    }

    /// The identity the next block must have.
    #[must_use]
    pub const fn next_identity(&self) -> BlockIdentity {
        BlockIdentity { sequence: self.next_sequence, ..self.config.writer }
    }

    /// The CRC the next block must chain to.
    #[must_use]
    pub const fn previous_crc(&self) -> u32 {
        self.previous_crc
    }

    /// The last block that is durable with all before it; 0 at first.
    #[must_use]
    pub const fn durable(&self) -> BlockSeq {
        self.durable
    }

    /// The last block submitted; 0 at first.
    #[must_use]
    pub const fn submitted(&self) -> BlockSeq {
        BlockSeq(self.next_sequence.0 - 1)
    }

    /// Whether everything submitted is durable.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.durable.0 == self.submitted().0
    }

    /// Whether what was submitted waits for space or for an operator: nothing of it is on its way.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.state != JournalState::Running && self.group.is_none() && !self.has_room()
    }

    /// Whether blocks can become durable.
    #[must_use]
    pub const fn state(&self) -> &JournalState {
        &self.state
    }

    /// Whether it was the journal's own bound that left no room for the segment asked for last.
    #[must_use]
    pub const fn is_at_bound(&self) -> bool {
        self.at_bound
    }

    /// Whether one more block of any size can be taken. While this is false every click is to be
    /// refused with `journal_full` before it is decided.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let wanted = self.queue_bytes + self.config.block_bytes_max;
        !matches!(self.state, JournalState::Halted(_))
            && self.queue.len() < GROUP_BLOCKS_MAX
            && wanted <= self.config.queue_bytes_max
            && self.has_place_for(wanted as u64)
    }

    /// Whether all that waits and one more block has its place allocated. Two groups may be
    /// formed before the last of it is placed, and each begins on a new page.
    fn has_place_for(&self, bytes: u64) -> bool {
        let seals = (self.queue.len() + 1) * self.sealer.overhead();
        let bytes = bytes + 2 * GROUP_ALIGN + seals as u64;
        let fits_active =
            self.active.as_ref().is_some_and(|active| active.used + bytes <= self.config.segment_bytes);
        let fits_next =
            matches!(self.next, NextSegment::Ready(_)) && FIRST_GROUP + bytes <= self.config.segment_bytes;
        fits_active || fits_next
    }

    /// Takes a sealed block.
    ///
    /// # Errors
    /// The block, when there is no room for it or it does not continue the sequence.
    pub fn submit(&mut self, block: SealedBlock) -> Result<(), SealedBlock> {
        let continues = block.sequence == self.next_sequence && block.previous_crc == self.previous_crc;
        debug_assert!(continues, "block {:?} does not follow {:?}", block.sequence, self.submitted());
        if !continues || block.bytes.len() > self.config.block_bytes_max || !self.has_room() {
            return Err(block);
        }
        self.next_sequence.0 += 1;
        self.previous_crc = block.header_crc;
        self.newest = self.newest.max(block.received_at);
        self.queue_bytes += block.bytes.len();
        self.queue.push_back(block);
        Ok(())
    }

    /// The buffer of a durable block, to build another in.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.spares.pop()
    }

    /// The next thing to do, if there is one. `now_ms` is monotonic and only paces retries.
    ///
    /// Call it until it yields nothing, after each completion and submission and at least every
    /// [`JournalConfig::retry_ms`].
    pub fn next_operation(&mut self, now_ms: u64) -> Option<Operation> {
        self.now_ms = now_ms;
        if let Some(operation) = self.farewells.pop_front() {
            return Some(operation);
        }
        if matches!(self.state, JournalState::Halted(_)) {
            return None;
        }
        if self.wants_segment()
            && let Some(operation) = self.create_segment()
        {
            return Some(operation);
        }
        if self.group.is_none() && !self.queue.is_empty() {
            self.form_group();
            // Rotating may have left a segment to close, and a next one to prepare.
            if let Some(operation) = self.farewells.pop_front() {
                return Some(operation);
            }
        }
        self.group.as_mut().and_then(Group::next_operation)
    }

    fn wants_segment(&self) -> bool {
        let half_full =
            self.active.as_ref().is_none_or(|active| active.used >= self.config.segment_bytes / 2);
        let is_wanted = half_full || self.is_outdated();
        self.next == NextSegment::Absent && is_wanted && self.now_ms >= self.retry_at_ms
    }

    fn today(&self) -> Day {
        Day::of(self.newest)
    }

    /// Whether what comes now is to stand under another key than what came before.
    fn is_outdated(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| self.sealer.is_outdated(active.day, self.today(), self.now_ms))
    }

    fn create_segment(&mut self) -> Option<Operation> {
        if let Some(operation) = self.sealer.ask(self.today(), self.now_ms) {
            self.next = NextSegment::TakingKey;
            return Some(operation);
        }
        if !self.sealer.can_make_segments() {
            return None;
        }
        self.at_bound = !self.budget.reserve(self.config.segment_bytes);
        if self.at_bound {
            self.no_space();
            return None;
        }
        // A number is never used twice, not even after a failed creation: whatever that left
        // behind cannot be mistaken for this one.
        self.last_number.0 += 1;
        let segment = self.last_number;
        self.next = NextSegment::Creating(segment);
        let id = self.id(segment);
        let writer = &self.config.writer;
        let header =
            SegmentHeader::new(id, writer.incarnation, writer.node, self.newest, self.config.segment_bytes);
        let header = self.sealer.key_id().map_or(header, |key| header.sealed(key));
        Some(Operation::CreateSegment {
            segment,
            path: self.path(segment),
            bytes: self.config.segment_bytes,
            header: header.as_bytes().to_vec(),
        })
    }

    const fn id(&self, segment: SegmentNo) -> SegmentId {
        SegmentId { epoch: self.config.writer.epoch, worker: self.config.writer.worker, segment }
    }

    fn path(&self, segment: SegmentNo) -> PathBuf {
        self.config.folder.join(self.id(segment).file_name())
    }

    fn no_space(&mut self) {
        self.state = JournalState::NoSpace;
        self.retry_at_ms = self.now_ms.saturating_add(self.config.retry_ms);
    }

    /// There is a segment to go on with.
    fn has_space(&mut self) {
        if self.state == JournalState::NoSpace && !self.is_unproven {
            self.state = JournalState::Running;
        }
    }

    /// Places as much of the queue as fits into one segment.
    fn form_group(&mut self) {
        let Some(first) = self.queue.front() else { return };
        let first_len = (first.bytes.len() + self.sealer.overhead()) as u64;
        let fits = |used: u64| group_start(used) + first_len <= self.config.segment_bytes;
        let goes_on = self.active.as_ref().is_some_and(|active| fits(active.used));
        // What came before midnight stays under its day's key, however long it waited.
        let is_of_later_day =
            self.active.as_ref().is_some_and(|active| active.day < Some(Day::of(first.received_at)));
        let stays = goes_on && !(is_of_later_day && self.is_outdated());
        if !stays && !self.rotate() && !goes_on {
            return;
        }
        let Some(active) = self.active.as_mut() else { return };
        let mut offset = group_start(active.used);
        let mut group = Group::new(active.number, self.queue.len());
        while group.len() < GROUP_BLOCKS_MAX {
            let Some(block) = self.queue.pop_front() else { break };
            let len = block.bytes.len();
            let end = offset + (len + self.sealer.overhead()) as u64;
            if end > self.config.segment_bytes {
                self.queue.push_front(block);
                break;
            }
            self.queue_bytes -= len;
            let mut sealed = Vec::new();
            if let Some(cipher) = &active.cipher {
                sealed = self.sealer.buffer();
                cipher.seal(offset, &block.bytes, &mut sealed);
            }
            group.place(block, sealed, offset);
            offset = end;
        }
        active.used = offset;
        self.group = Some(group);
    }

    /// Goes on to the next segment, if it is ready.
    fn rotate(&mut self) -> bool {
        let NextSegment::Ready(number) = self.next else { return false };
        if let Some(full) = self.active.take() {
            self.farewells.push_back(Operation::Close { segment: full.number });
        }
        self.next = NextSegment::Absent;
        self.has_space();
        let cipher = self.sealer.cipher(self.config.writer.incarnation, self.id(number));
        let day = self.sealer.day();
        self.active = Some(OpenSegment { number, used: FIRST_GROUP, holds_durable: false, cipher, day });
        true
    }

    /// Takes the end of an operation.
    pub fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::KeyTaken { result } => self.key_taken(result),
            Completion::Created { segment, result } => self.created(segment, result),
            Completion::Written { offset, buffer, result, segment } => {
                self.written(segment, offset, buffer, result);
            }
            Completion::Synced { segment, result } => self.synced(segment, result),
        }
    }

    fn key_taken(&mut self, result: Result<SealingKey, KeyError>) {
        if self.next != NextSegment::TakingKey {
            debug_assert!(false, "no key was asked for");
            return;
        }
        self.next = NextSegment::Absent;
        match result {
            Ok(key) => self.sealer.took(key),
            Err(error) => {
                self.sealer.failed(self.now_ms.saturating_add(self.config.retry_ms));
                // With an earlier day's key the journal goes on; without any it cannot.
                if !self.sealer.can_make_segments() {
                    let next = SegmentNo(self.last_number.0 + 1);
                    self.failed("taking the key for", next, &io::Error::other(error));
                }
            }
        }
    }

    fn created(&mut self, segment: SegmentNo, result: io::Result<()>) {
        if self.next != NextSegment::Creating(segment) {
            debug_assert!(false, "{segment:?} was not being created");
            return;
        }
        match result {
            Ok(()) => {
                self.next = NextSegment::Ready(segment);
                self.has_space();
            }
            Err(error) => {
                self.next = NextSegment::Absent;
                self.budget.release(self.config.segment_bytes);
                self.failed("creating", segment, &error);
            }
        }
    }

    fn written(&mut self, segment: SegmentNo, offset: u64, buffer: Vec<u8>, result: io::Result<usize>) {
        let Some(group) = self.group.as_mut().filter(|group| group.segment() == segment) else {
            debug_assert!(false, "no group is being written to {segment:?}");
            return;
        };
        group.written(offset, buffer, result);
        self.abandon_failed_group();
    }

    fn synced(&mut self, segment: SegmentNo, result: io::Result<()>) {
        let Some(mut group) = self.group.take_if(|group| group.is_syncing(segment)) else {
            debug_assert!(false, "{segment:?} was not being synced");
            return;
        };
        if let Err(error) = result {
            group.fail(error);
            self.group = Some(group);
            self.abandon_failed_group();
            return;
        }
        self.failures = 0;
        if std::mem::take(&mut self.is_unproven) {
            self.has_space();
        }
        if let Some(active) = self.active.as_mut() {
            active.holds_durable = true;
        }
        for (block, sealed) in group.into_blocks() {
            self.durable = block.sequence;
            self.sealer.recycle(sealed);
            if self.spares.len() < GROUP_BLOCKS_MAX {
                self.spares.push(block.bytes);
            }
        }
    }

    /// Gives up the segment of a group that failed, once none of its writes is still running;
    /// the group waits for another segment, before everything submitted later.
    fn abandon_failed_group(&mut self) {
        let Some(mut group) = self.group.take_if(|group| group.has_failed()) else { return };
        let (segment, error) = (group.segment(), group.take_failure());
        for (block, sealed) in group.into_blocks().rev() {
            self.sealer.recycle(sealed);
            self.queue_bytes += block.bytes.len();
            self.queue.push_front(block);
        }
        if let Some(active) = self.active.take() {
            // Without a durable block nothing acknowledged is in it, and on a full disk an
            // empty file for each attempt would keep the disk full.
            if is_no_space(&error) && !active.holds_durable {
                self.budget.release(self.config.segment_bytes);
                self.farewells.push_back(Operation::Remove { segment, path: self.path(segment) });
            } else {
                self.farewells.push_back(Operation::Close { segment });
            }
        }
        self.is_unproven |= is_no_space(&error);
        self.failed("writing", segment, &error);
    }

    fn failed(&mut self, doing: &str, segment: SegmentNo, error: &io::Error) {
        if is_no_space(error) {
            self.no_space();
            return;
        }
        self.failures += 1;
        self.retry_at_ms = self.now_ms.saturating_add(self.config.retry_ms);
        if self.failures >= self.config.failures_max {
            let path = self.path(segment);
            self.state = JournalState::Halted(format!(
                "{doing} {} failed: {error}. It was failure {} in a row, and nothing acknowledged is \
                 lost. Check the disk (dmesg, smartctl), then start the daemon again.",
                path.display(),
                self.failures,
            ));
        }
    }
}

/// Whether an error says that the disk or a quota is full.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
