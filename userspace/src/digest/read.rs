//! Reads a digest, some groups of it, a chunk at a time.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use weir_common::id::Incarnation;

use super::chunk::{CHUNK_BODY_MAX, CHUNK_HEADER_LEN, chunk_len, decode};
use super::header::{DIGEST_HEADER_LEN, DigestFault, DigestHeader, chunk_seed, digest_path};
use crate::journal::{Place, SegmentId};
use crate::ledger::Recalled;

/// Bytes read at once: always room for a whole chunk.
const BUFFER: usize = 256 << 10;
const _: () = assert!(CHUNK_HEADER_LEN + CHUNK_BODY_MAX <= BUFFER);

/// Why a digest cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum DigestError {
    /// {0}
    Fault(#[from] DigestFault),
    /// it cannot be read: {0}
    Io(#[from] io::Error),
}

/// An open digest whose header is sound.
#[derive(Debug)]
pub struct Digest {
    file: File,
    header: DigestHeader,
    seed: u32,
}

/// The memory that reading takes, used for one digest after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    buffer: Vec<u8>,
    entries: Vec<Recalled>,
}

impl Digest {
    /// Opens the digest of a segment and checks its header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(place: &Place, id: SegmentId) -> Result<Self, DigestError> {
        let file = File::open(digest_path(place, id))?;
        let mut bytes = [0; DIGEST_HEADER_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DigestError::Fault(DigestFault::HeaderCut),
            _ => DigestError::Io(error),
        })?;
        let header = *DigestHeader::check(&bytes, id, place.incarnation)?;
        if file.metadata()?.len() != header.bytes() {
            return Err(DigestFault::Length.into());
        }
        Ok(Self { file, header, seed: seed_of(&header) })
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &DigestHeader {
        &self.header
    }

    /// Hands out the impressions of these groups, a chunk at a time; bytes read.
    ///
    /// # Errors
    /// What is wrong with it. Chunks before the fault were handed out.
    pub fn read(
        &self,
        groups: Range<usize>,
        scratch: &mut Scratch,
        mut on_chunk: impl FnMut(&[Recalled]),
    ) -> Result<u64, DigestError> {
        let starts = self.header.starts.map(|start| start.get());
        let Scratch { buffer, entries } = scratch;
        buffer.clear();
        let mut next_read = starts[groups.start];
        let mut used = 0;
        for group in groups.clone() {
            let mut left = starts[group + 1] - starts[group];
            while left > 0 {
                let want = (CHUNK_HEADER_LEN + CHUNK_BODY_MAX).min(left as usize);
                if buffer.len() - used < want {
                    buffer.drain(..used);
                    used = 0;
                    let more = BUFFER.min((starts[groups.end] - next_read) as usize + buffer.len());
                    let kept = buffer.len();
                    buffer.resize(more, 0);
                    self.file.read_exact_at(&mut buffer[kept..], next_read)?;
                    next_read += (more - kept) as u64;
                }
                let rest = &buffer[used..];
                let len = chunk_len(rest).filter(|&len| len as u64 <= left && len <= rest.len());
                let len = len.ok_or(DigestFault::Chunk)?;
                decode(&rest[..len], self.seed, group as u8, self.header.newest(), entries)?;
                on_chunk(entries);
                used += len;
                left -= len as u64;
            }
        }
        Ok(starts[groups.end] - starts[groups.start])
    }
}

fn seed_of(header: &DigestHeader) -> u32 {
    chunk_seed(header.id(), Incarnation(header.incarnation.get()))
}
