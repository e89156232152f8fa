//! The blocks of one (epoch, worker) in order, over all its segments.
//!
//! Recovery reads whole streams with it; the forwarder follows a live one, never past what is
//! durable.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Bound;

use weir_common::block::BlockHeader;
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::FromBytes;

use super::folder::{FolderError, Place, segment_ids};
use super::group::GROUP_BLOCKS_MAX;
use super::operation::SegmentNo;
use super::read_ahead::{ReadAhead, Source};
use super::scan::{Damage, Fault, Found, SegmentScan};
use super::seal::{DayKeyId, SealFault};
use super::segment::SegmentId;

/// Blocks whose CRCs are remembered, to tell a block written twice from another with its number:
/// what one failed segment can hold of blocks that were written again.
const REMEMBERED: usize = 2 * GROUP_BLOCKS_MAX;

/// Segments that can be given up one after the other before a group is durable: the journal
/// halts after fewer failures.
pub const GIVEN_UP_MAX: usize = 8;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A range of a segment is damaged.
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// The range, and what is wrong.
        damage: Damage,
        /// First and last block that are gone with it; `None` when no block is missing.
        lost: Option<(BlockSeq, BlockSeq)>,
    },
    /// Nothing follows a damaged range: the writes that a crash interrupted, before they could
    /// be acknowledged.
    TornTail {
        /// The segment.
        segment: SegmentId,
        /// The range, and what is wrong.
        damage: Damage,
    },
    /// Blocks are missing where nothing is damaged: a segment is gone.
    Missing {
        /// The segment before whose block they are missing.
        segment: SegmentId,
        /// The first one.
        first: BlockSeq,
        /// The last one.
        last: BlockSeq,
    },
    /// A block stands twice under one number, with different bytes. The first one counts.
    Conflict {
        /// The segment of the second.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
        /// The number.
        sequence: BlockSeq,
    },
    /// A sound block does not chain to the one before it. It counts.
    ChainBroken {
        /// The segment.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
        /// The block.
        sequence: BlockSeq,
    },
    /// The key of an encrypted segment is not there: what is in it cannot be read.
    KeyMissing {
        /// The segment.
        segment: SegmentId,
        /// The key.
        key: DayKeyId,
    },
    /// A segment cannot be opened.
    Unopened {
        /// The segment.
        segment: SegmentId,
        /// Why.
        error: String,
    },
}

/// What is known of one segment that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The segment.
    pub id: SegmentId,
    /// Bytes of the file.
    pub bytes: u64,
    /// Sound blocks in it.
    pub blocks: u64,
    /// The first of them; 0 when there are none.
    pub first: BlockSeq,
    /// The last of them; 0 when there are none.
    pub last: BlockSeq,
    /// The newest receive time in it.
    pub newest: UnixMs,
    /// Part of it could not be read as blocks, and more follows.
    pub damaged: bool,
}

impl SegmentSummary {
    /// The last minute that a row in it can count in: as much as this after the minute it was received in.
    pub(crate) const fn last_minute(&self, minutes_ahead: u32) -> Minute {
        Minute(self.newest.minute().0.saturating_add(minutes_ahead))
    }
}

/// A place in a stream: where the block after the last one begins, or its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last block before it; 0 at the start.
    pub last: BlockSeq,
    /// The segment it is in; 0 before the first.
    pub segment: SegmentNo,
    /// Where that block ended.
    pub offset: u64,
}

/// The number of a worker's first segment in an epoch.
const FIRST_SEGMENT: SegmentNo = SegmentNo(1);

/// The blocks of one (epoch, worker).
#[derive(Debug)]
pub struct BlockStream {
    place: Place,
    epoch: Epoch,
    worker: WorkerId,
    scan: Option<SegmentScan<Source>>,
    is_over: bool,
    last_segment: SegmentNo,
    resume_at: Option<u64>,
    position: Position,
    first_known: bool,
    recent: VecDeque<(BlockSeq, u32)>,
    pending: Vec<(SegmentId, Damage)>,
    findings: Vec<Finding>,
    summaries: Vec<SegmentSummary>,
    known: BTreeMap<SegmentNo, SegmentSummary>,
    until: SegmentNo,
}

impl BlockStream {
    /// The stream after `position`, which is the default for all of it.
    #[must_use]
    pub fn new(place: &Place, (epoch, worker): (Epoch, WorkerId), position: Position) -> Self {
        Self {
            place: place.clone(),
            epoch,
            worker,
            scan: None,
            is_over: false,
            last_segment: SegmentNo(position.segment.0.saturating_sub(1)),
            resume_at: (position.offset > 0).then_some(position.offset),
            position,
            first_known: position.last.0 > 0,
            recent: VecDeque::with_capacity(REMEMBERED),
            pending: Vec::new(),
            findings: Vec::new(),
            summaries: Vec::new(),
            known: BTreeMap::new(),
            until: SegmentNo(u32::MAX),
        }
    }

    /// The same stream without reading these segments, there or not: what they hold is known.
    #[must_use]
    pub fn knowing(self, known: BTreeMap<SegmentNo, SegmentSummary>) -> Self {
        Self { known, ..self }
    }

    /// The same stream, which will not be written to any more.
    #[must_use]
    pub fn over(self) -> Self {
        Self { is_over: true, ..self }
    }

    /// The same stream, ending after this segment.
    #[must_use]
    pub fn until(self, until: SegmentNo) -> Self {
        Self { until, ..self }
    }

    /// Whose blocks these are.
    #[must_use]
    pub const fn writer(&self) -> (Epoch, WorkerId) {
        (self.epoch, self.worker)
    }

    /// The place after the block read last.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The block read last.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        self.scan.as_ref().map_or(&[], SegmentScan::block)
    }

    /// What was not as written, since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// What is known of the segments read since the last call. The one that is being read comes
    /// again at the next call, with more.
    pub fn take_summaries(&mut self) -> Vec<SegmentSummary> {
        let summaries = self.summaries.clone();
        let unfinished = usize::from(self.scan.is_some());
        self.summaries.drain(..summaries.len().saturating_sub(unfinished));
        summaries
    }

    /// Reads the next block; `false` at the end of what is on the disk.
    ///
    /// # Errors
    /// When the folder cannot be listed. What is wrong with segments becomes findings.
    pub fn next_block(&mut self) -> Result<bool, FolderError> {
        loop {
            if self.scan.is_none() && !self.open_next()? {
                self.end();
                return Ok(false);
            }
            let Some(scan) = self.scan.as_mut() else { continue };
            match scan.next_found() {
                Some(Found::Block(offset)) => {
                    if self.take_block(offset) {
                        return Ok(true);
                    }
                }
                Some(Found::Damage(damage)) => {
                    let id = scan.id();
                    self.note_damage(id, damage);
                }
                None => self.scan = None,
            }
        }
    }

    /// Without its key all of a segment is there and nothing of it can be read: that is no torn
    /// tail, and the segment has to stay.
    fn note_damage(&mut self, segment: SegmentId, damage: Damage) {
        if let Fault::Seal(SealFault::KeyMissing(key)) = damage.fault {
            if let Some(summary) = self.summaries.last_mut() {
                summary.damaged = true;
            }
            self.findings.push(Finding::KeyMissing { segment, key });
        } else {
            self.pending.push((segment, damage));
        }
    }

    /// Opens the segment with the next higher number that is to be read.
    fn open_next(&mut self) -> Result<bool, FolderError> {
        let ids = segment_ids(&self.place.segments)?;
        let own = |id: &&SegmentId| id.epoch == self.epoch && id.worker == self.worker;
        let there: Vec<_> = ids.iter().filter(own).map(|id| id.segment).collect();
        let (last, known) = (self.last_segment, &self.known);
        let next = there.iter().copied().find(|no| *no > last && !known.contains_key(no));
        let before = next.map_or(Bound::Unbounded, Bound::Excluded);
        let passed: Vec<_> =
            known.range((Bound::Excluded(last), before)).map(|(_, summary)| *summary).collect();
        let until = self.until;
        for summary in passed.into_iter().filter(|summary| summary.id.segment <= until) {
            self.last_segment = summary.id.segment;
            self.pass_over(summary, there.contains(&summary.id.segment));
        }
        let Some(segment) = next.filter(|&no| no <= self.until) else { return Ok(false) };
        let id = SegmentId { epoch: self.epoch, worker: self.worker, segment };
        self.last_segment = segment;
        let source =
            |file| if self.is_over { Source::Closed(ReadAhead::new(file)) } else { Source::Live(file) };
        let opened = File::open(self.place.segments.join(id.file_name()))
            .and_then(|file| SegmentScan::new(source(file), id, &self.place));
        match opened {
            Ok(mut scan) => {
                if let Some(offset) = self.resume_at.take().filter(|_| id.segment == self.position.segment) {
                    scan.seek(offset);
                }
                self.summaries.push(SegmentSummary {
                    id,
                    bytes: scan.size(),
                    blocks: 0,
                    first: BlockSeq(0),
                    last: BlockSeq(0),
                    newest: UnixMs(0),
                    damaged: false,
                });
                self.scan = Some(scan);
                // Streams begin here with block 1. Where this segment is gone, they were trimmed.
                self.first_known |= id.segment == FIRST_SEGMENT;
            }
            Err(error) => {
                self.findings.push(Finding::Unopened { segment: id, error: io_text(&error) });
            }
        }
        Ok(true)
    }

    /// Takes what is known of a segment for having read it.
    fn pass_over(&mut self, summary: SegmentSummary, is_there: bool) {
        if is_there {
            self.summaries.push(summary);
        }
        if summary.blocks == 0 {
            return;
        }
        let expected = BlockSeq(self.position.last.0 + 1);
        let gap = self.first_known && summary.first > expected;
        self.settle(summary.id, gap.then(|| (expected, BlockSeq(summary.first.0 - 1))));
        self.recent.clear();
        self.first_known = true;
        if summary.last > self.position.last {
            self.position =
                Position { last: summary.last, segment: summary.id.segment, offset: summary.bytes };
        }
    }

    /// Judges the block just found; whether it is to be handed out.
    fn take_block(&mut self, offset: u64) -> bool {
        let Some(scan) = self.scan.as_ref() else { return false };
        let (id, end) = (scan.id(), scan.position());
        let Ok((header, _)) = BlockHeader::ref_from_prefix(scan.block()) else { return false };
        let sequence = BlockSeq(header.sequence.get());
        let (crc, previous_crc) = (header.header_crc.get(), header.previous_crc.get());
        let newest = UnixMs(header.received_at_ms.get());
        if let Some(summary) = self.summaries.last_mut() {
            summary.blocks += 1;
            if summary.first.0 == 0 {
                summary.first = sequence;
            }
            summary.last = summary.last.max(sequence);
            summary.newest = summary.newest.max(newest);
        }
        let last = self.position.last;
        if self.first_known && sequence <= last {
            let known = self.recent.iter().find(|(known, _)| *known == sequence);
            if known.is_some_and(|&(_, known_crc)| known_crc != crc) {
                self.findings.push(Finding::Conflict { segment: id, offset, sequence });
            }
            return false;
        }
        // Without a position, the first block of a stream whose older segments are trimmed says
        // where it begins.
        let is_first = !self.first_known && id.segment.0 > 1;
        let expected = BlockSeq(last.0 + 1);
        if (is_first || sequence > expected) && self.is_written_again(expected, sequence) {
            // This segment was given up with a group in it of which only a part arrived.
            self.scan = None;
            return false;
        }
        let gap = (!is_first && sequence > expected).then(|| (expected, BlockSeq(sequence.0 - 1)));
        self.settle(id, gap);
        if gap.is_none() && !is_first {
            let chained = self.recent.back().map(|&(_, known_crc)| known_crc);
            let expected = if last.0 == 0 { Some(0) } else { chained };
            if expected.is_some_and(|expected| expected != previous_crc) {
                self.findings.push(Finding::ChainBroken { segment: id, offset, sequence });
            }
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((sequence, crc));
        self.first_known = true;
        self.position = Position { last: sequence, segment: id.segment, offset: end };
        true
    }

    /// Whether one of the next segments begins with blocks from `first` to before `end`: then
    /// this one was given up, and what is found of that group here is not to be used, or the
    /// whole group there would pass for a repetition.
    fn is_written_again(&self, first: BlockSeq, end: BlockSeq) -> bool {
        let Ok(ids) = segment_ids(&self.place.segments) else { return false };
        let later = ids.into_iter().filter(|id| {
            id.epoch == self.epoch && id.worker == self.worker && id.segment > self.last_segment
        });
        later.take(GIVEN_UP_MAX).any(|id| {
            let Ok(file) = File::open(self.place.segments.join(id.file_name())) else { return false };
            let Ok(mut scan) = SegmentScan::new(file, id, &self.place) else { return false };
            (0..GROUP_BLOCKS_MAX)
                .map_while(|_| scan.next_found().map(|found| (found, sequence_of(scan.block()))))
                .any(|(found, sequence)| {
                    matches!(found, Found::Block(_)) && first <= sequence && sequence < end
                })
        })
    }

    /// Says of damage before this block what it cost.
    fn settle(&mut self, segment: SegmentId, gap: Option<(BlockSeq, BlockSeq)>) {
        let last = self.pending.len().wrapping_sub(1);
        if let (Some((first, last)), true) = (gap, self.pending.is_empty()) {
            self.findings.push(Finding::Missing { segment, first, last });
        }
        for (index, (segment, damage)) in self.pending.drain(..).enumerate() {
            // Which of several damaged places held which block nobody can know.
            let lost = if index == last { gap } else { None };
            if let Some(summary) = self.summaries.iter_mut().find(|summary| summary.id == segment) {
                summary.damaged |= lost.is_some();
            }
            self.findings.push(Finding::Damaged { segment, damage, lost });
        }
    }

    /// Says of damage that nothing follows that it is the torn tail; damage to a segment's own
    /// header is never that.
    fn end(&mut self) {
        for (segment, damage) in self.pending.drain(..) {
            self.findings.push(match damage.fault {
                Fault::Segment(_) => Finding::Damaged { segment, damage, lost: None },
                Fault::Block(_) | Fault::Seal(_) | Fault::Stray | Fault::Unreadable => {
                    Finding::TornTail { segment, damage }
                }
            });
        }
    }
}

fn sequence_of(block: &[u8]) -> BlockSeq {
    BlockHeader::ref_from_prefix(block).map_or(BlockSeq(0), |(header, _)| BlockSeq(header.sequence.get()))
}

fn io_text(error: &io::Error) -> String {
    error.to_string()
}
