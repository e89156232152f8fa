//! The bytes of a digest file.
//!
//! ```text
//! 0         1024
//! +---------+-----------------+-----------------+- - -+------------------+
//! | header  | chunks, group 0 | chunks, group 1 |     | chunks, group 63 |
//! +---------+-----------------+-----------------+- - -+------------------+
//! ```
//!
//! A group holds the impressions whose shards share their six leading bits, so that each worker
//! reads one stretch of a file, its own, however many workers there are. The header's CRC covers
//! the header, each chunk's CRC the chunk and whose digest it is of, so that no chunk can pass for
//! one of another file.

use std::ops::Range;
use std::path::PathBuf;

use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, SHARD_BITS, Shard, WorkerId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::journal::stream::SegmentSummary;
use crate::journal::{Place, SegmentId, SegmentNo};

/// First eight bytes of a digest.
pub const DIGEST_MAGIC: [u8; 8] = *b"WEIRDIG\n";
/// The version this build writes.
pub const DIGEST_VERSION: u16 = 1;
/// Leading bits of the shard that make the group.
pub const GROUP_BITS: u32 = 6;
/// Groups of a digest: enough that a worker reads little that is not its own, few enough that the
/// runs of consecutive impressions stay long.
pub const GROUPS: usize = 1 << GROUP_BITS;
const _: () = assert!(GROUP_BITS < SHARD_BITS);
/// Bytes of the header.
pub const DIGEST_HEADER_LEN: usize = size_of::<DigestHeader>();
const _: () = assert!(DIGEST_HEADER_LEN == 1024);
const CRC_OFFSET: usize = DIGEST_HEADER_LEN - 4;
/// How the name of one that is being written ends; left over by a crash, it means nothing.
pub const UNFINISHED_SUFFIX: &str = ".wdig-unfinished";

/// The header of a digest. Times are facts of the rows and not an expiry, because the lifetime
/// is the config's and may change between two starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DigestHeader {
    /// [`DIGEST_MAGIC`].
    pub magic: [u8; 8],
    /// [`DIGEST_VERSION`].
    pub version: U16,
    /// The worker of the segment.
    pub worker: U16,
    /// The node.
    pub node: U32,
    /// The start of the daemon that wrote the segment.
    pub epoch: U32,
    /// The segment.
    pub segment: U32,
    /// The life of the folder.
    pub incarnation: U64,
    /// The key its chunks are encrypted with; 0: they are not. Reserved for encryption at rest.
    pub key_id: U64,
    /// Bytes of the segment's file.
    pub segment_bytes: U64,
    /// Blocks of the segment.
    pub blocks: U64,
    /// The first of them; 0 when there are none.
    pub first: U64,
    /// The last of them; 0 when there are none.
    pub last: U64,
    /// The latest receive time of its blocks, in ms since the Unix epoch.
    pub newest_ms: U64,
    /// The earliest receive time of its rows; `newest_ms` when there are none.
    pub oldest_ms: U64,
    /// The latest receive time of a first click on a foreign impression in it; 0 for none.
    pub newest_foreign_ms: U64,
    /// The latest issue time of an issued impression in it, in seconds; 0 for none.
    pub newest_issued_s: U32,
    /// The earliest minute its rows count in.
    pub first_minute: U32,
    /// The latest minute its rows count in; before `first_minute` when there are no rows.
    pub last_minute: U32,
    /// Reserved, zero.
    pub reserved: U32,
    /// Rows of the segment.
    pub rows: U64,
    /// Issued impressions.
    pub issued: U64,
    /// Foreign impressions.
    pub foreign: U64,
    /// Where in the file the chunks of each group begin; the last one is the end of the file.
    pub starts: [U64; GROUPS + 1],
    /// Reserved, zero.
    pub padding: [u8; 364],
    /// CRC-32C of the bytes before it.
    pub crc: U32,
}

/// Where the digest of a segment is.
#[must_use]
pub fn digest_path(place: &Place, id: SegmentId) -> PathBuf {
    place.segments.join(id.digest_name())
}

/// The group of a shard.
#[inline]
#[must_use]
pub const fn group_of(shard: Shard) -> u8 {
    (shard.0 >> (SHARD_BITS - GROUP_BITS)) as u8
}

/// The shards of a group.
#[must_use]
pub const fn shards_of(group: usize) -> Range<usize> {
    let shards = 1 << (SHARD_BITS - GROUP_BITS);
    group * shards..(group + 1) * shards
}

/// What the CRCs of a digest's chunks begin with: whose they are.
#[must_use]
pub fn chunk_seed(id: SegmentId, incarnation: Incarnation) -> u32 {
    let seed = crc32c::crc32c(&incarnation.0.to_le_bytes());
    crc32c::crc32c_append(seed, id.file_name().as_bytes())
}

/// What is wrong with a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum DigestFault {
    /// the header is cut off
    HeaderCut,
    /// there is no digest magic
    Magic,
    /// the CRC of the header does not match
    HeaderCrc,
    /// the digest version is not one this build reads
    Version,
    /// the digest is encrypted, and this build has no keys
    Encrypted,
    /// the digest belongs to another folder or carries another segment's name
    Foreign,
    /// the file is not as long as its header says
    Length,
    /// the CRC of a chunk does not match
    ChunkCrc,
    /// a chunk does not hold what it says
    Chunk,
}

impl DigestHeader {
    /// A header that says nothing yet.
    #[must_use]
    pub fn empty(id: SegmentId, incarnation: Incarnation, node: NodeId) -> Self {
        Self {
            magic: DIGEST_MAGIC,
            version: U16::new(DIGEST_VERSION),
            worker: U16::new(id.worker.0),
            node: U32::new(node.0),
            epoch: U32::new(id.epoch.0),
            segment: U32::new(id.segment.0),
            incarnation: U64::new(incarnation.0),
            first_minute: U32::new(u32::MAX),
            ..Self::new_zeroed()
        }
    }

    /// Makes the CRC that of the other fields.
    pub fn seal(&mut self) {
        self.crc = U32::new(crc32c::crc32c(&self.as_bytes()[..CRC_OFFSET]));
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(bytes: &[u8], id: SegmentId, incarnation: Incarnation) -> Result<&Self, DigestFault> {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(DigestFault::HeaderCut);
        };
        if header.magic != DIGEST_MAGIC {
            return Err(DigestFault::Magic);
        }
        if crc32c::crc32c(&bytes[..CRC_OFFSET]) != header.crc.get() {
            return Err(DigestFault::HeaderCrc);
        }
        if header.version.get() != DIGEST_VERSION {
            return Err(DigestFault::Version);
        }
        if header.key_id.get() != 0 {
            return Err(DigestFault::Encrypted);
        }
        if header.id() != id || header.incarnation.get() != incarnation.0 {
            return Err(DigestFault::Foreign);
        }
        let starts = header.starts.map(|start| start.get());
        if starts[0] != DIGEST_HEADER_LEN as u64 || !starts.is_sorted() {
            return Err(DigestFault::Length);
        }
        Ok(header)
    }

    /// The segment.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        SegmentId {
            epoch: Epoch(self.epoch.get()),
            worker: WorkerId(self.worker.get()),
            segment: SegmentNo(self.segment.get()),
        }
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.starts[GROUPS].get()
    }

    /// Impressions in it.
    #[must_use]
    pub const fn impressions(&self) -> u64 {
        self.issued.get() + self.foreign.get()
    }

    /// The latest receive time of the segment.
    #[must_use]
    pub const fn newest(&self) -> UnixMs {
        UnixMs(self.newest_ms.get())
    }

    /// The minutes its rows count in; empty without rows.
    #[must_use]
    pub const fn minutes(&self) -> Range<Minute> {
        Minute(self.first_minute.get())..Minute(self.last_minute.get().saturating_add(1))
    }

    /// The segment as a reader of it would sum it up.
    #[must_use]
    pub const fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            id: self.id(),
            bytes: self.segment_bytes.get(),
            blocks: self.blocks.get(),
            first: BlockSeq(self.first.get()),
            last: BlockSeq(self.last.get()),
            newest: self.newest(),
            damaged: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(segment: u32) -> SegmentId {
        SegmentId { epoch: Epoch(12), worker: WorkerId(3), segment: SegmentNo(segment) }
    }

    #[test]
    fn the_groups_share_the_shards_out() {
        for group in 0..GROUPS {
            assert!(shards_of(group).all(|shard| usize::from(group_of(Shard(shard as u16))) == group));
        }
        assert_eq!(shards_of(GROUPS - 1).end, 1 << SHARD_BITS);
    }

    #[test]
    fn a_header_of_another_segment_folder_or_version_is_refused() {
        let mut header = DigestHeader::empty(id(1), Incarnation(4), NodeId(5));
        header.starts = [U64::new(DIGEST_HEADER_LEN as u64); GROUPS + 1];
        let check = |mut header: DigestHeader, id, incarnation| {
            header.seal();
            DigestHeader::check(header.as_bytes(), id, incarnation).map(|_| ())
        };
        assert_eq!(check(header, id(1), Incarnation(4)), Ok(()));
        assert_eq!(check(header, id(2), Incarnation(4)), Err(DigestFault::Foreign));
        assert_eq!(check(header, id(1), Incarnation(9)), Err(DigestFault::Foreign));
        let newer = DigestHeader { version: U16::new(2), ..header };
        assert_eq!(check(newer, id(1), Incarnation(4)), Err(DigestFault::Version));
        let encrypted = DigestHeader { key_id: U64::new(1), ..header };
        assert_eq!(check(encrypted, id(1), Incarnation(4)), Err(DigestFault::Encrypted));
    }
}
