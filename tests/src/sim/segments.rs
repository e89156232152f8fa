//! Reads segments naively: wherever a sound block begins, there is one.

use std::path::{Path, PathBuf};

use weir::journal::SegmentId;
use weir_common::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::row::{Row, Rows};
use zerocopy::FromBytes;

/// Bytes in which no block begins, looked for at once.
const ZEROS: [u8; 512] = [0; 512];

/// Epoch, worker and sequence of a block.
pub type BlockName = (u32, u16, u64);
/// The bytes a block takes, its name and its rows.
pub type Place = (std::ops::Range<usize>, BlockName, Vec<Row>);

/// The epoch and worker whose segment a file is.
#[must_use]
pub fn stream_of(path: &Path) -> Option<(u32, u16)> {
    let id = SegmentId::parse(path.file_name()?.to_str()?)?;
    Some((id.epoch.0, id.worker.0))
}

/// Where the digest of a segment is, if this is one and it has one.
#[must_use]
pub fn digest_of(path: &Path) -> Option<PathBuf> {
    let id = SegmentId::parse(path.file_name()?.to_str()?)?;
    Some(path.with_file_name(id.digest_name()))
}

/// The sound blocks of a segment. What strayed into it from another stream is none of them.
#[must_use]
pub fn blocks_of(path: &Path, bytes: &[u8]) -> Vec<(BlockName, Vec<Row>)> {
    let mut blocks = blocks_in(bytes);
    blocks.retain(|((epoch, worker, _), _)| stream_of(path) == Some((*epoch, *worker)));
    blocks
}

/// The sound blocks in bytes of a segment, wherever they begin.
#[must_use]
pub fn blocks_in(bytes: &[u8]) -> Vec<(BlockName, Vec<Row>)> {
    places_in(bytes).into_iter().map(|(_, name, rows)| (name, rows)).collect()
}

/// The sound blocks in bytes of a segment, and which bytes they take.
#[must_use]
pub fn places_in(bytes: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK_HEADER_LEN <= bytes.len() {
        // Most of a segment is empty.
        if bytes[at..].starts_with(&ZEROS) {
            at += ZEROS.len();
            continue;
        }
        if bytes[at..at + 4] != BLOCK_MAGIC {
            at += 1;
            continue;
        }
        match block_at(&bytes[at..]) {
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
