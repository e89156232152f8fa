//! Makes the digest of one closed segment.
//!
//! The file is written under another name, synced, named, and its folder synced: at any moment of
//! a crash it is not there, or there whole. Memory is bounded: a segment with more rows than
//! [`ENTRIES_MAX`] is read several times, some groups each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};
use weir_common::id::BlockSeq;
use weir_common::row::{ROW_LEN, Row, Rows};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::chunk::{ForeignEntry, IssuedEntry, encode_foreign, encode_issued};
use super::header::{
    DIGEST_HEADER_LEN, DigestHeader, GROUPS, UNFINISHED_SUFFIX, chunk_seed, digest_path, group_of,
};
use crate::journal::disk::sync_folder;
use crate::journal::read_ahead::ReadAhead;
use crate::journal::scan::{Damage, Found, ReadAt, SegmentScan};
use crate::journal::{Place, SegmentId};
use crate::ledger::RememberedState;

/// Impressions gathered before they are written: 24 to 40 bytes each, so some 80 MB at the most,
/// and three times what the default segment holds.
const ENTRIES_MAX: u64 = 1 << 21;

/// Why a segment has no digest.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum WriteError {
    /// cannot {doing} for the digest of {segment}: {source}; the segment stays until its impressions expire
    Io {
        /// What was tried.
        doing: &'static str,
        /// The segment.
        segment: SegmentId,
        /// The system's answer.
        source: io::Error,
    },
    /// the digest of {segment} was given up because the daemon ends; the next start writes it
    Stopped {
        /// The segment.
        segment: SegmentId,
    },
    /// {segment} was deleted before its digest was written: it held nothing that is still needed
    Gone {
        /// The segment.
        segment: SegmentId,
    },
    /// {segment} holds blocks that were written again to the next one after a failure, so it has no digest and stays until its impressions expire
    Repeated {
        /// The segment.
        segment: SegmentId,
    },
    /// {segment} has damage at {offset}, so it has no digest and stays until its impressions expire
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where.
        offset: u64,
    },
    /// {segment} does not hold its blocks up to {last} without a gap, so it has no digest and stays until its impressions expire
    Gap {
        /// The segment.
        segment: SegmentId,
        /// The last block it should have.
        last: u64,
    },
}

fn failed(doing: &'static str, segment: SegmentId) -> impl FnOnce(io::Error) -> WriteError {
    move |source| WriteError::Io { doing, segment, source }
}

/// As [`failed`], of the segment itself: the forwarder deletes an empty one without asking for a digest.
fn unread(doing: &'static str, segment: SegmentId) -> impl FnOnce(io::Error) -> WriteError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => WriteError::Gone { segment },
        _ => WriteError::Io { doing, segment, source },
    }
}

/// Writes the digest of a closed segment and makes it durable. One that is there already is
/// replaced. `last` is the last block the segment must hold, as the one after it says, and it may
/// hold none beyond; `None` when
/// its stream ends with it, and no sound block may follow damage then.
///
/// # Errors
/// The segment cannot be read whole, or the digest not be written; there is then no digest, or
/// the one from before.
pub fn write_digest(
    place: &Place,
    id: SegmentId,
    last: Option<BlockSeq>,
    stop: &AtomicBool,
) -> Result<DigestHeader, WriteError> {
    let unfinished = digest_path(place, id).with_extension(&UNFINISHED_SUFFIX[1..]);
    let written = write_unfinished(place, (id, last), stop, &unfinished);
    if written.is_err() {
        let _harmless_if_it_stays = fs::remove_file(&unfinished);
    }
    let header = written?;
    fs::rename(&unfinished, digest_path(place, id)).map_err(failed("name a file", id))?;
    sync_folder(&place.segments).map_err(failed("sync the folder", id))?;
    Ok(header)
}

/// Removes what a crash left of digests that were being written. Only before the first is.
///
/// # Errors
/// When the folder cannot be listed or the file not be removed.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(UNFINISHED_SUFFIX)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_unfinished(
    place: &Place,
    (id, last): (SegmentId, Option<BlockSeq>),
    stop: &AtomicBool,
    path: &Path,
) -> Result<DigestHeader, WriteError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let file = file.map_err(failed("create a file", id))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&[0; DIGEST_HEADER_LEN]).map_err(failed("write", id))?;
    let header = write_groups(place, (id, last), stop, &mut out)?;
    let file = out.into_inner().map_err(|error| failed("write", id)(error.into_error()))?;
    file.write_all_at(header.as_bytes(), 0).map_err(failed("write", id))?;
    file.sync_all().map_err(failed("sync a file", id))?;
    Ok(header)
}

/// Writes the chunks of all groups; the header that belongs before them.
fn write_groups(
    place: &Place,
    (id, last): (SegmentId, Option<BlockSeq>),
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Result<DigestHeader, WriteError> {
    let path = place.segments.join(id.file_name());
    let size = fs::metadata(&path).map_err(unread("look at the segment", id))?.len();
    let readings = (size / ROW_LEN as u64).div_ceil(ENTRIES_MAX).clamp(1, GROUPS as u64) as usize;
    let seed = chunk_seed(id, place.incarnation);
    let mut starts = [U64::new(DIGEST_HEADER_LEN as u64); GROUPS + 1];
    let (mut end, mut bytes) = (DIGEST_HEADER_LEN as u64, Vec::new());
    let mut header = DigestHeader::empty(id, place.incarnation, place.node);
    let (mut issued, mut foreign) = (0, 0);
    let groups: Vec<u8> = (0..GROUPS as u8).collect();
    for groups in groups.chunks(GROUPS.div_ceil(readings)) {
        let source = File::open(&path).map_err(unread("open the segment", id))?;
        let mut gathered = Gathered::new(groups, DigestHeader::empty(id, place.incarnation, place.node));
        gathered.read(ReadAhead::new(source), place, (id, last), stop)?;
        gathered.sort();
        (issued, foreign) = (issued + gathered.issued.len(), foreign + gathered.foreign.len());
        header = gathered.facts;
        for &group in groups {
            starts[usize::from(group)] = U64::new(end);
            bytes.clear();
            gathered.encode(group, seed, &mut bytes);
            out.write_all(&bytes).map_err(failed("write", id))?;
            end += bytes.len() as u64;
        }
    }
    starts[GROUPS] = U64::new(end);
    (header.starts, header.segment_bytes) = (starts, U64::new(size));
    (header.issued, header.foreign) = (U64::new(issued as u64), U64::new(foreign as u64));
    header.seal();
    Ok(header)
}

/// Whether a block comes after the last that its segment has to hold.
fn is_beyond(block: &[u8], last: Option<BlockSeq>) -> bool {
    let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else { return false };
    last.is_some_and(|last| header.sequence.get() > last.0)
}

/// What one reading of a segment gathers: some groups' impressions, and the facts of all rows.
struct Gathered<'a> {
    groups: &'a [u8],
    issued: Vec<IssuedEntry>,
    foreign: Vec<ForeignEntry>,
    facts: DigestHeader,
}

impl<'a> Gathered<'a> {
    const fn new(groups: &'a [u8], facts: DigestHeader) -> Self {
        Self { groups, issued: Vec::new(), foreign: Vec::new(), facts }
    }

    fn read(
        &mut self,
        source: impl ReadAt,
        place: &Place,
        (id, last): (SegmentId, Option<BlockSeq>),
        stop: &AtomicBool,
    ) -> Result<(), WriteError> {
        let scan = SegmentScan::new(source, id, place);
        let mut scan = scan.map_err(failed("look at the segment", id))?;
        let mut torn = None;
        while let Some(found) = scan.next_found() {
            if stop.load(Ordering::Relaxed) {
                return Err(WriteError::Stopped { segment: id });
            }
            match found {
                // What follows damage was acknowledged, so the damage may have been as well; unless
                // it is known that the blocks before it are all this segment has to hold.
                Found::Block(_) if let Some(Damage { offset, .. }) = torn => {
                    if last.is_none_or(|last| self.facts.last.get() < last.0) {
                        return Err(WriteError::Damaged { segment: id, offset });
                    }
                    return Ok(());
                }
                // Written here first, without success, and again in the segment after it: what is
                // here of it may be in the page cache alone. Each start looks which copy is sound.
                Found::Block(_) if is_beyond(scan.block(), last) => {
                    return Err(WriteError::Repeated { segment: id });
                }
                Found::Block(_) => self.block(scan.block(), id)?,
                Found::Damage(damage) if torn.is_none() => torn = Some(damage),
                Found::Damage(_) => {}
            }
        }
        match (last, torn) {
            (Some(last), Some(Damage { offset, .. })) if self.facts.last.get() < last.0 => {
                Err(WriteError::Damaged { segment: id, offset })
            }
            (Some(last), None) if self.facts.last.get() < last.0 => {
                Err(WriteError::Gap { segment: id, last: last.0 })
            }
            // Damage that nothing follows is a tail that a crash tore, never acknowledged.
            _ => Ok(()),
        }
    }

    fn block(&mut self, block: &[u8], id: SegmentId) -> Result<(), WriteError> {
        let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else { return Ok(()) };
        let (facts, sequence) = (&mut self.facts, header.sequence.get());
        if facts.blocks.get() > 0 && sequence != facts.last.get() + 1 {
            return Err(WriteError::Gap { segment: id, last: sequence - 1 });
        }
        if facts.blocks.get() == 0 {
            facts.first = header.sequence;
        }
        facts.last = header.sequence;
        facts.blocks = U64::new(facts.blocks.get() + 1);
        facts.rows = U64::new(facts.rows.get() + u64::from(header.rows.get()));
        facts.newest_ms = U64::new(facts.newest_ms.get().max(header.received_at_ms.get()));
        Rows::new(&block[BLOCK_HEADER_LEN..]).for_each(|(row, _)| self.row(row));
        Ok(())
    }

    fn row(&mut self, row: &Row) {
        let Some(state) = RememberedState::of_row(row) else { return };
        let (facts, received_at_ms) = (&mut self.facts, row.received_at_ms.get());
        let minute = row.minute.get();
        facts.first_minute = U32::new(facts.first_minute.get().min(minute));
        facts.last_minute = U32::new(facts.last_minute.get().max(minute));
        let (id, state) = (row.click.impression, state.bits());
        let group = group_of(row.click.shard());
        let is_wanted = self.groups.contains(&group);
        if row.click.is_foreign() {
            facts.newest_foreign_ms = U64::new(facts.newest_foreign_ms.get().max(received_at_ms));
            if is_wanted {
                self.foreign.push(ForeignEntry { group, received_at_ms, id: id.0, state });
            }
        } else {
            facts.newest_issued_s = U32::new(facts.newest_issued_s.get().max(id.issued_at_s()));
            if is_wanted {
                self.issued.push(IssuedEntry::new(id, state));
            }
        }
    }

    /// Makes one entry of all rows of an impression, and puts the entries in order.
    fn sort(&mut self) {
        self.issued.sort_unstable();
        self.issued.dedup_by(|next, kept| {
            let is_same = IssuedEntry { state: 0, ..*next } == IssuedEntry { state: 0, ..*kept };
            kept.state |= if is_same { next.state } else { 0 };
            is_same
        });
        self.foreign.sort_unstable_by_key(|entry| (entry.id, entry.received_at_ms));
        self.foreign.dedup_by(|next, kept| {
            let is_same = next.id == kept.id;
            kept.state |= if is_same { next.state } else { 0 };
            is_same
        });
        self.foreign.sort_unstable();
    }

    fn encode(&self, group: u8, seed: u32, out: &mut Vec<u8>) {
        let issued = self.issued.partition_point(|entry| entry.group < group)
            ..self.issued.partition_point(|entry| entry.group <= group);
        encode_issued(&self.issued[issued], seed, out);
        let foreign = self.foreign.partition_point(|entry| entry.group < group)
            ..self.foreign.partition_point(|entry| entry.group <= group);
        encode_foreign(&self.foreign[foreign], seed, out);
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Epoch, ImpressionId, Incarnation, Issuer, KeyId, NodeId, WorkerId};

    use super::*;
    use crate::journal::SegmentNo;

    #[test]
    fn all_rows_of_an_impression_become_one_entry_of_all_they_say_and_the_first_time() {
        let id = SegmentId { epoch: Epoch(1), worker: WorkerId(0), segment: SegmentNo(1) };
        let mut gathered = Gathered::new(&[], DigestHeader::empty(id, Incarnation(1), NodeId(1)));
        let issued =
            |sequence, state| IssuedEntry::new(ImpressionId::issued(Issuer(1), KeyId(1), 9, sequence), state);
        gathered.issued = vec![issued(64, 0b100), issued(0, 0x81), issued(64, 0b10), issued(64, 0x81)];
        let foreign =
            |id, received_at_ms, state| ForeignEntry { group: 0, received_at_ms, id: [id; 16], state };
        gathered.foreign = vec![foreign(7, 30, 0b10), foreign(8, 20, 0x81), foreign(7, 10, 0x81)];
        gathered.sort();
        assert_eq!(gathered.issued, [issued(0, 0x81), issued(64, 0x87)]);
        assert_eq!(gathered.foreign, [foreign(7, 10, 0x83), foreign(8, 20, 0x81)]);
    }
}
