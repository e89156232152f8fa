//! The bytes of a segment file and its name.
//!
//! ```text
//! 0            128      4096                        8192
//! +------------+--------+----------------------------+--------------- - - -
//! | header     | zeros  | block | block | ... | zeros | block | ...    zeros
//! +------------+--------+----------------------------+--------------- - - -
//!                        one group commit             the next one
//! ```
//!
//! Every group begins on a page of its own, so that a torn write of one group cannot touch a
//! page that holds acknowledged blocks. Bytes that hold nothing are zero, which makes a flipped
//! bit there visible too.

use weir_common::id::{Epoch, Incarnation, NodeId, WorkerId};
use weir_common::time::UnixMs;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::operation::SegmentNo;
use super::seal::DayKeyId;

/// First eight bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"WEIRSEG\n";
/// The version of a segment with plain blocks.
pub const SEGMENT_VERSION: u16 = 1;
/// The version of an encrypted one: so that a build that knows only the other leaves it alone.
pub const SEALED_SEGMENT_VERSION: u16 = 2;
/// Bytes of the header's fields.
pub const SEGMENT_HEADER_LEN: usize = size_of::<SegmentHeader>();
const _: () = assert!(SEGMENT_HEADER_LEN == 128);
/// A group begins at a multiple of this: the page of the page cache, and the largest unit a
/// disk in common use writes as a whole.
pub const GROUP_ALIGN: u64 = 4096;
/// Where the first group begins.
pub const FIRST_GROUP: u64 = GROUP_ALIGN;
/// The default size. Large enough that creating one is rare (several seconds at full rate of a
/// worker), small enough that trimming gives space back soon.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// How a segment's name ends.
pub const SEGMENT_SUFFIX: &str = ".wseg";
/// How the name of a segment's digest ends ([`crate::digest`]).
pub const DIGEST_SUFFIX: &str = ".wdig";

const _: () = assert!(SEGMENT_BYTES_DEFAULT.is_multiple_of(GROUP_ALIGN));
const CRC_OFFSET: usize = SEGMENT_HEADER_LEN - 4;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// [`SEGMENT_VERSION`] or [`SEALED_SEGMENT_VERSION`].
    pub version: U16,
    /// The worker.
    pub worker: U16,
    /// The node.
    pub node: U32,
    /// The start of the daemon.
    pub epoch: U32,
    /// Counts the segments of this (epoch, worker) from 1.
    pub segment: U32,
    /// The life of the folder.
    pub incarnation: U64,
    /// When it was made ready, in ms since the Unix epoch.
    pub created_at_ms: U64,
    /// The day's key its blocks are encrypted with ([`DayKeyId`]); 0: they are not.
    pub key_id: U64,
    /// The file's full size.
    pub bytes: U64,
    /// Reserved, zero.
    pub reserved: [u8; 68],
    /// CRC-32C of the bytes before it.
    pub crc: U32,
}

/// Which file: the parts of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The start of the daemon.
    pub epoch: Epoch,
    /// The worker.
    pub worker: WorkerId,
    /// Its number within them.
    pub segment: SegmentNo,
}

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file_name())
    }
}

impl SegmentId {
    /// The name of the file in the journal folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.name_with(SEGMENT_SUFFIX)
    }

    /// The name of its digest.
    #[must_use]
    pub fn digest_name(&self) -> String {
        self.name_with(DIGEST_SUFFIX)
    }

    fn name_with(&self, suffix: &str) -> String {
        let (epoch, worker, segment) = (self.epoch.0, self.worker.0, self.segment.0);
        format!("{epoch:08}-{worker:04}-{segment:08}{suffix}")
    }

    /// The segment a file name stands for; `None` when it is no segment's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::parse_with(name, SEGMENT_SUFFIX)
    }

    /// The segment whose digest has this name; `None` when it is no digest's.
    #[must_use]
    pub fn parse_digest(name: &str) -> Option<Self> {
        Self::parse_with(name, DIGEST_SUFFIX)
    }

    fn parse_with(name: &str, suffix: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(suffix)?.split('-');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let id = Self {
            epoch: Epoch(number()?),
            worker: WorkerId(u16::try_from(number()?).ok()?),
            segment: SegmentNo(number()?),
        };
        // One name for each segment, so that two files can never claim to be the same one.
        (id.name_with(suffix) == name).then_some(id)
    }
}

impl SegmentHeader {
    /// The header of a new segment.
    #[must_use]
    pub fn new(
        id: SegmentId,
        incarnation: Incarnation,
        node: NodeId,
        created_at: UnixMs,
        bytes: u64,
    ) -> Self {
        let mut header = Self {
            magic: SEGMENT_MAGIC,
            version: U16::new(SEGMENT_VERSION),
            worker: U16::new(id.worker.0),
            node: U32::new(node.0),
            epoch: U32::new(id.epoch.0),
            segment: U32::new(id.segment.0),
            incarnation: U64::new(incarnation.0),
            created_at_ms: U64::new(created_at.0),
            bytes: U64::new(bytes),
            ..Self::new_zeroed()
        };
        header.crc = U32::new(crc32c::crc32c(&header.as_bytes()[..CRC_OFFSET]));
        header
    }

    /// The same header of a segment whose blocks are encrypted with this key.
    #[must_use]
    pub fn sealed(mut self, key: DayKeyId) -> Self {
        self.version = U16::new(SEALED_SEGMENT_VERSION);
        self.key_id = U64::new(key.0);
        self.crc = U32::new(crc32c::crc32c(&self.as_bytes()[..CRC_OFFSET]));
        self
    }

    /// The id its fields state.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        SegmentId {
            epoch: Epoch(self.epoch.get()),
            worker: WorkerId(self.worker.get()),
            segment: SegmentNo(self.segment.get()),
        }
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(bytes: &[u8], id: SegmentId, incarnation: Incarnation) -> Result<&Self, SegmentFault> {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(SegmentFault::HeaderCut);
        };
        if header.magic != SEGMENT_MAGIC {
            return Err(SegmentFault::Magic);
        }
        if crc32c::crc32c(&bytes[..CRC_OFFSET]) != header.crc.get() {
            return Err(SegmentFault::HeaderCrc);
        }
        let version = if header.key_id.get() == 0 { SEGMENT_VERSION } else { SEALED_SEGMENT_VERSION };
        if header.version.get() != version {
            return Err(SegmentFault::Version);
        }
        if header.id() != id || header.incarnation.get() != incarnation.0 {
            return Err(SegmentFault::Foreign);
        }
        Ok(header)
    }
}

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, displaydoc::Display, thiserror::Error)]
pub enum SegmentFault {
    /// the segment header is cut off
    HeaderCut,
    /// there is no segment magic
    Magic,
    /// the CRC of the segment header does not match
    HeaderCrc,
    /// the segment version is not one this build reads
    Version,
    /// the segment belongs to another folder or carries another segment's name
    Foreign,
}

/// The next place a group may begin at or after `offset`.
#[must_use]
pub const fn group_start(offset: u64) -> u64 {
    offset.next_multiple_of(GROUP_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_back_its_segment_and_strangers_are_none() {
        let id = SegmentId { epoch: Epoch(12), worker: WorkerId(3), segment: SegmentNo(123_456_789) };
        assert_eq!(SegmentId::parse(&id.file_name()), Some(id));
        assert_eq!(SegmentId::parse_digest(&id.digest_name()), Some(id));
        assert_eq!((SegmentId::parse(&id.digest_name()), SegmentId::parse_digest("lock")), (None, None));
        for stranger in
            ["lock", "1-1-1.wseg", "00000001-0001-00000001-1.wseg", "00000001-99999-00000001.wseg"]
        {
            assert_eq!(SegmentId::parse(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_renamed_segment_is_foreign() {
        let id = |segment| SegmentId { epoch: Epoch(1), worker: WorkerId(2), segment: SegmentNo(segment) };
        let header = SegmentHeader::new(id(3), Incarnation(4), NodeId(5), UnixMs(6), 8192);
        let check = |id, incarnation| SegmentHeader::check(header.as_bytes(), id, incarnation).map(|_| ());
        assert_eq!(check(id(3), Incarnation(4)), Ok(()));
        assert_eq!(check(id(4), Incarnation(4)), Err(SegmentFault::Foreign));
        assert_eq!(check(id(3), Incarnation(5)), Err(SegmentFault::Foreign));
    }
}
