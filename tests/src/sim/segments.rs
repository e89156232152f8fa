//! Reads segments naively: wherever a sound block begins, there is one.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use weir::journal::SegmentId;
use weir_common::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::row::{Row, Rows};
use zerocopy::{FromBytes, IntoBytes};

use super::opener::{MAGIC, Opener};

/// Bytes in which no block begins, looked for at once.
const ZEROS: [u8; 512] = [0; 512];
/// The first bytes of a click: the impression, the ad and the price. No two clicks that are not of
/// one impression have the same.
const CLICK: usize = 32;

/// Epoch, worker and sequence of a block.
pub type BlockName = (u32, u16, u64);
/// The bytes a block takes, its name and its rows.
pub type Place = (Range<usize>, BlockName, Vec<Row>);

/// The segment a file is.
fn segment_of(path: &Path) -> Option<SegmentId> {
    SegmentId::parse(path.file_name()?.to_str()?)
}

/// The epoch and worker whose segment a file is.
#[must_use]
pub fn stream_of(path: &Path) -> Option<(u32, u16)> {
    segment_of(path).map(|id| (id.epoch.0, id.worker.0))
}

/// Whether a file is the first segment of its stream.
#[must_use]
pub fn is_first(path: &Path) -> bool {
    segment_of(path).is_some_and(|id| id.segment.0 == 1)
}

/// Where the digest of a segment is, if this is one and it has one.
#[must_use]
pub fn digest_of(path: &Path) -> Option<PathBuf> {
    segment_of(path).map(|id| path.with_file_name(id.digest_name()))
}

/// Reads the segments of a run.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// What opens them, where they are encrypted.
    pub opener: Option<Opener>,
}

impl Reader {
    /// The sound blocks of a segment. What strayed into it from another stream is none of them.
    #[must_use]
    pub fn blocks_of(&self, path: &Path, bytes: &[u8]) -> Vec<(BlockName, Vec<Row>)> {
        let places = self.places_in(path, 0, bytes).into_iter();
        let own = |&(epoch, worker, _): &BlockName| stream_of(path) == Some((epoch, worker));
        places.map(|(_, name, rows)| (name, rows)).filter(|(name, _)| own(name)).collect()
    }

    /// The sound blocks in bytes of a segment that begin at `offset` of it, and which of these bytes
    /// they take.
    #[must_use]
    pub fn places_in(&self, path: &Path, offset: usize, bytes: &[u8]) -> Vec<Place> {
        let Some(opener) = &self.opener else { return places_in(bytes) };
        let Some(segment) = segment_of(path) else { return Vec::new() };
        places(bytes, MAGIC, |at| {
            let opened = opener.open(segment, (offset + at) as u64, &bytes[at..])?;
            let (name, rows, len) = block_at(&opened.block)?;
            (len == opened.block.len()).then_some((name, rows, opened.len))
        })
    }

    /// Whether anything of these rows, or a block, stands in bytes of an encrypted segment as it is.
    #[must_use]
    pub fn shows(&self, bytes: &[u8], rows: &[Row]) -> bool {
        if self.opener.is_none() {
            return false;
        }
        let clicks: HashSet<&[u8]> = rows.iter().map(|row| &row.click.as_bytes()[..CLICK]).collect();
        let is_one = |window: &[u8]| window[0] != 0 && clicks.contains(window);
        !places_in(bytes).is_empty() || bytes.windows(CLICK).any(is_one)
    }
}

/// The sound blocks in plain bytes, wherever they begin.
#[must_use]
pub fn blocks_in(bytes: &[u8]) -> Vec<(BlockName, Vec<Row>)> {
    places_in(bytes).into_iter().map(|(_, name, rows)| (name, rows)).collect()
}

fn places_in(bytes: &[u8]) -> Vec<Place> {
    places(bytes, BLOCK_MAGIC, |at| block_at(&bytes[at..]))
}

/// Where `block_at` finds blocks that begin with this magic.
fn places(
    bytes: &[u8],
    magic: [u8; 4],
    block_at: impl Fn(usize) -> Option<(BlockName, Vec<Row>, usize)>,
) -> Vec<Place> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK_HEADER_LEN <= bytes.len() {
        // Most of a segment is empty.
        if bytes[at..].starts_with(&ZEROS) {
            at += ZEROS.len();
            continue;
        }
        if bytes[at..at + 4] != magic {
            at += 1;
            continue;
        }
        match block_at(at) {
            Some((name, rows, len)) => {
                found.push((at..at + len, name, rows));
                at += len;
            }
            None => at += 1,
        }
    }
    found
}

fn block_at(bytes: &[u8]) -> Option<(BlockName, Vec<Row>, usize)> {
    let (header, rest) = BlockHeader::ref_from_prefix(bytes).ok()?;
    if crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) != header.header_crc.get() {
        return None;
    }
    let body = rest.get(..header.body_len.get() as usize)?;
    if crc32c::crc32c(body) != header.body_crc.get() {
        return None;
    }
    let name = (header.epoch.get(), header.worker.get(), header.sequence.get());
    Some((name, Rows::new(body).map(|(row, _)| *row).collect(), BLOCK_HEADER_LEN + body.len()))
}
