//! Reads the journal back at a start: every row once, in the order of its receive time, and a
//! report of what was found.
//!
//! Nothing is written and nothing is deleted. A torn tail is not cut off: the epoch is over, no
//! block will ever be appended to it, and what reads the stream later stops at the same place.
//! Memory is one block for each worker of an epoch.

use std::collections::BTreeMap;
use std::fmt;

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::row::{Row, Rows};
use weir_common::time::UnixMs;
use zerocopy::FromBytes;

use super::folder::{Folder, FolderError, Place, segment_ids};
use super::operation::SegmentNo;
use super::scan::Damage;
use super::segment::SegmentId;
use super::stream::{BlockStream, Finding, Position, SegmentSummary};

/// Findings kept in full; more are only counted. A disk with more is beyond reading one by one.
pub const FINDINGS_MAX: usize = 1000;
/// Findings that the printed report names one by one, so that it fits a screen.
const FINDINGS_SHOWN: usize = 12;

/// What was found, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Starts of the daemon that left blocks.
    pub epochs: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Sound blocks.
    pub blocks: u64,
    /// Rows in them.
    pub rows: u64,
    /// The oldest and newest receive time of a block.
    pub received: Option<(UnixMs, UnixMs)>,
    /// Ends of streams that a crash tore.
    pub torn_tails: u64,
    /// Blocks that are known to be gone.
    pub lost_blocks: u64,
    /// Blocks that are gone here and were read back from the sink, which has them.
    pub healed_blocks: u64,
    /// What is not as it was written, torn tails included; the first [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many findings there were.
    pub findings_total: u64,
}

/// What a start needs to know of the journal.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// For the operator.
    pub report: RecoveryReport,
    /// What is known of each segment, for trimming.
    pub segments: Vec<SegmentSummary>,
    /// Where each stream ends.
    pub ends: BTreeMap<(Epoch, WorkerId), Position>,
}

/// Which segments are to be read.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Segments whose rows are not needed, there or not, and what they hold.
    pub known: BTreeMap<SegmentId, SegmentSummary>,
    /// Where to end in each stream, and no other streams; `None` for all to their ends.
    pub until: Option<BTreeMap<(Epoch, WorkerId), SegmentNo>>,
}

impl Part {
    fn stream(&self, place: &Place, writer: (Epoch, WorkerId)) -> Option<BlockStream> {
        let until = match &self.until {
            Some(until) => *until.get(&writer)?,
            None => SegmentNo(u32::MAX),
        };
        let id = |segment| SegmentId { epoch: writer.0, worker: writer.1, segment };
        let known = self.known.range(id(SegmentNo(0))..=id(SegmentNo(u32::MAX)));
        let known = known.map(|(id, summary)| (id.segment, *summary)).collect();
        let stream = BlockStream::new(place, writer, Position::default());
        Some(stream.over().knowing(known).until(until))
    }
}

/// Reads all blocks in the folder and hands every row to `on_row`, with its block's header and
/// its extension: epoch after epoch, within one by receive time over all workers.
///
/// # Errors
/// When the folder cannot be listed. What is wrong with files becomes findings.
pub fn recover(
    folder: &Folder,
    on_row: impl FnMut(&BlockHeader, &Row, &[u8]),
) -> Result<Recovery, FolderError> {
    recover_part(&folder.place(), &Part::default(), on_row)
}

/// As [`recover`], of a part of the segments.
///
/// # Errors
/// As those of [`recover`].
pub fn recover_part(
    place: &Place,
    part: &Part,
    mut on_row: impl FnMut(&BlockHeader, &Row, &[u8]),
) -> Result<Recovery, FolderError> {
    let mut recovery = Recovery::default();
    let mut epochs: BTreeMap<Epoch, Vec<WorkerId>> = BTreeMap::new();
    for id in segment_ids(&place.segments)? {
        let workers = epochs.entry(id.epoch).or_default();
        if workers.last() != Some(&id.worker) {
            workers.push(id.worker);
        }
    }
    for (epoch, workers) in epochs {
        recovery.report.epochs += 1;
        let streams = workers.into_iter().filter_map(|worker| part.stream(place, (epoch, worker)));
        let mut cursors = Vec::new();
        for stream in streams {
            let mut cursor = Cursor { stream, at: 0, head: None };
            cursor.next_block(&mut recovery)?;
            cursors.push(cursor);
        }
        merge(&mut cursors, &mut recovery, &mut on_row)?;
    }
    Ok(recovery)
}

/// Runs the cursors of one epoch together.
fn merge(
    cursors: &mut [Cursor],
    recovery: &mut Recovery,
    on_row: &mut impl FnMut(&BlockHeader, &Row, &[u8]),
) -> Result<(), FolderError> {
    let head = |cursor: &Cursor| cursor.head.unwrap_or(u64::MAX);
    loop {
        let earliest = cursors.iter().enumerate().filter(|(_, cursor)| cursor.head.is_some());
        let Some(best) = earliest.min_by_key(|(_, cursor)| head(cursor)).map(|(index, _)| index) else {
            return Ok(());
        };
        let others = cursors.iter().enumerate().filter(|&(index, _)| index != best);
        let limit = others.map(|(_, cursor)| head(cursor)).min().unwrap_or(u64::MAX);
        let cursor = &mut cursors[best];
        // The cursor goes on alone while it is the earliest: most of the time a whole block.
        cursor.emit_until(limit, recovery, on_row)?;
    }
}

struct Cursor {
    stream: BlockStream,
    /// Where in the block the head row begins.
    at: usize,
    /// The receive time of the head row; `None` at the end.
    head: Option<u64>,
}

impl Cursor {
    /// Hands out the rows of this block that were received at `limit` or before, up to the
    /// first later one; then goes on to the next block, if there is none.
    fn emit_until(
        &mut self,
        limit: u64,
        recovery: &mut Recovery,
        on_row: &mut impl FnMut(&BlockHeader, &Row, &[u8]),
    ) -> Result<(), FolderError> {
        let block = self.stream.block();
        let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else { return Ok(()) };
        let mut rows = Rows::new(&block[self.at..]);
        loop {
            let at = block.len() - rows.rest().len();
            let Some((row, extension)) = rows.next() else { break };
            if row.received_at_ms.get() > limit {
                (self.at, self.head) = (at, Some(row.received_at_ms.get()));
                return Ok(());
            }
            on_row(header, row, extension);
            recovery.report.rows += 1;
        }
        self.next_block(recovery)
    }

    fn look(&mut self) {
        let block = self.stream.block();
        let row = block.get(self.at..).and_then(|rest| Rows::new(rest).next());
        self.head = row.map(|(row, _)| row.received_at_ms.get());
    }

    /// Goes on to the next block that has rows.
    fn next_block(&mut self, recovery: &mut Recovery) -> Result<(), FolderError> {
        self.head = None;
        while self.head.is_none() {
            let more = self.stream.next_block()?;
            recovery.note_findings(self.stream.take_findings());
            if !more {
                recovery.note_end(&mut self.stream);
                return Ok(());
            }
            recovery.note_block(self.stream.block());
            self.at = BLOCK_HEADER_LEN;
            self.look();
        }
        Ok(())
    }
}

impl Recovery {
    /// Whether the journal certainly has this block: a segment without damage spans it.
    #[must_use]
    pub fn has_block(&self, epoch: Epoch, worker: WorkerId, sequence: BlockSeq) -> bool {
        self.segments.iter().any(|found| {
            let of_stream = found.id.epoch == epoch && found.id.worker == worker;
            of_stream
                && !found.damaged
                && found.blocks > 0
                && found.first <= sequence
                && sequence <= found.last
        })
    }

    fn note_block(&mut self, block: &[u8]) {
        let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else { return };
        let at = UnixMs(header.received_at_ms.get());
        let report = &mut self.report;
        report.blocks += 1;
        let (oldest, newest) = report.received.unwrap_or((at, at));
        report.received = Some((oldest.min(at), newest.max(at)));
    }

    fn note_findings(&mut self, findings: Vec<Finding>) {
        let report = &mut self.report;
        for finding in findings {
            report.findings_total += 1;
            match &finding {
                Finding::TornTail { .. } => report.torn_tails += 1,
                Finding::Damaged { lost: Some((first, last)), .. } | Finding::Missing { first, last, .. } => {
                    report.lost_blocks += last.0 - first.0 + 1;
                }
                Finding::Damaged { lost: None, .. }
                | Finding::Conflict { .. }
                | Finding::ChainBroken { .. }
                | Finding::KeyMissing { .. }
                | Finding::Unopened { .. } => {}
            }
            if report.findings.len() < FINDINGS_MAX {
                report.findings.push(finding);
            }
        }
    }

    fn note_end(&mut self, stream: &mut BlockStream) {
        let summaries = stream.take_summaries();
        self.report.segments += summaries.len() as u64;
        self.report.bytes += summaries.iter().map(|summary| summary.bytes).sum::<u64>();
        self.segments.extend(summaries);
        self.ends.insert(stream.writer(), stream.position());
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { segment, damage, lost } => {
                write!(
                    f,
                    "{segment} at {}: {}; {} bytes damaged, ",
                    damage.offset, damage.fault, damage.bytes
                )?;
                match lost {
                    Some((first, last)) => write!(f, "blocks {} to {} LOST", first.0, last.0),
                    None => write!(f, "no block lost"),
                }
            }
            Self::TornTail { segment, damage } => {
                let Damage { offset, bytes, fault } = damage;
                write!(f, "{segment} at {offset}: torn tail of {bytes} bytes ({fault}), never acknowledged")
            }
            Self::Missing { segment, first, last } => {
                write!(f, "{segment}: blocks {} to {} before it are MISSING", first.0, last.0)
            }
            Self::Conflict { segment, offset, sequence } => {
                write!(f, "{segment} at {offset}: block {} stands here again with other bytes", sequence.0)
            }
            Self::ChainBroken { segment, offset, sequence } => {
                write!(f, "{segment} at {offset}: block {} does not chain to the one before it", sequence.0)
            }
            Self::KeyMissing { segment, key } => write!(
                f,
                "{segment} is encrypted and its key {key} is MISSING: nothing of it is read, changed or deleted; put the key's file back into `journal.keys_dir` and start again"
            ),
            Self::Unopened { segment, error } => write!(f, "{segment} cannot be opened: {error}"),
        }
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, segments, bytes, blocks, rows, .. } = self;
        writeln!(
            f,
            "journal: {rows} rows in {blocks} blocks, {segments} segments, {bytes} bytes, {epochs} epochs"
        )?;
        if let Some((oldest, newest)) = self.received {
            writeln!(f, "received: {} to {} ms since the Unix epoch", oldest.0, newest.0)?;
        }
        let (torn, lost, all) = (self.torn_tails, self.lost_blocks, self.findings_total);
        writeln!(f, "findings: {all}, of which {torn} torn tails; blocks lost: {lost}")?;
        if self.healed_blocks > 0 {
            writeln!(f, "blocks read back from the sink, which has them: {}", self.healed_blocks)?;
        }
        for finding in self.findings.iter().take(FINDINGS_SHOWN) {
            writeln!(f, "  {finding}")?;
        }
        let more = all.saturating_sub(FINDINGS_SHOWN as u64);
        if more > 0 { writeln!(f, "  and {more} more") } else { Ok(()) }
    }
}
