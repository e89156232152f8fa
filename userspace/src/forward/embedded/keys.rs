//! The bytes of keys and values, but for the keys that the central tier's store has too: those are in
//! [`weir_common::ordered`]. Keys are big-endian, so that their order is the order of their fields;
//! values are fixed little-endian structs.

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, Epoch, Incarnation, WorkerId};
use weir_common::ordered::{self, BucketId};
use weir_common::time::Minute;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::batch::FlushNo;
use super::raw::RawId;
use crate::journal::{Position, SegmentNo};

/// minute, ad, dimensions, incarnation: one minute is one range.
#[must_use]
pub fn by_minute(key: &BucketKey, incarnation: Incarnation) -> BucketId {
    let mut bytes = ordered::bucket(key, incarnation);
    bytes[..12].rotate_left(8);
    bytes
}

/// The key that stands in [`by_minute`] bytes.
#[must_use]
pub fn read_by_minute(bytes: &[u8]) -> Option<(BucketKey, Incarnation)> {
    let mut by_ad: BucketId = bytes.try_into().ok()?;
    by_ad[..12].rotate_right(8);
    ordered::read_bucket(&by_ad)
}

/// A bucket's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BucketValue {
    /// The flush that wrote it.
    pub revision: U64,
    /// The totals so far.
    pub totals: BucketTotals,
}

/// One raw batch in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ManifestValue {
    /// The life of the journal its blocks come from.
    pub incarnation: U64,
    /// Blocks in the file; 0 when the batch had none and there is no file.
    pub blocks: U64,
    /// Rows in them.
    pub rows: U64,
    /// Bytes of the file.
    pub bytes: U64,
    /// Buckets committed with it.
    pub buckets: U64,
    /// CRC-32C of the file.
    pub crc: U32,
}

/// The manifest's key.
#[must_use]
pub fn raw_id(id: RawId) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&id.flush.0.to_be_bytes());
    bytes[8..].copy_from_slice(&id.part.to_be_bytes());
    bytes
}

/// The raw batch that stands in [`raw_id`] bytes.
#[must_use]
pub fn read_raw_id(bytes: &[u8]) -> Option<RawId> {
    let (flush, part) = bytes.split_first_chunk::<8>()?;
    let part = u32::from_be_bytes(part.try_into().ok()?);
    Some(RawId { flush: FlushNo(u64::from_be_bytes(*flush)), part })
}

/// The key of a stream's position.
#[must_use]
pub fn stream(incarnation: Incarnation, epoch: Epoch, worker: WorkerId) -> [u8; 14] {
    let mut bytes = [0; 14];
    bytes[..8].copy_from_slice(&incarnation.0.to_be_bytes());
    bytes[8..12].copy_from_slice(&epoch.0.to_be_bytes());
    bytes[12..].copy_from_slice(&worker.0.to_be_bytes());
    bytes
}

/// The stream that stands in [`stream`] bytes.
#[must_use]
pub fn read_stream(bytes: &[u8]) -> Option<(Incarnation, Epoch, WorkerId)> {
    let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let worker = u16::from_be_bytes(rest.try_into().ok()?);
    let incarnation = Incarnation(u64::from_be_bytes(*incarnation));
    Some((incarnation, Epoch(u32::from_be_bytes(*epoch)), WorkerId(worker)))
}

/// How far a stream is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StreamValue {
    /// Its blocks.
    pub committed: PositionValue,
    /// The blocks that the buckets count.
    pub counted: PositionValue,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PositionValue {
    /// The last block.
    pub last: U64,
    /// Where it ended in its segment.
    pub offset: U64,
    /// Its segment.
    pub segment: U32,
}

impl From<Position> for PositionValue {
    fn from(position: Position) -> Self {
        Self {
            last: position.last.0.into(),
            offset: position.offset.into(),
            segment: position.segment.0.into(),
        }
    }
}

impl From<PositionValue> for Position {
    fn from(value: PositionValue) -> Self {
        Self {
            last: BlockSeq(value.last.get()),
            segment: SegmentNo(value.segment.get()),
            offset: value.offset.get(),
        }
    }
}

/// How far one life of the journal is; the key is its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LifeValue {
    /// The last flush.
    pub flush: U64,
    /// Buckets of minutes before this one are final.
    pub final_before: U32,
}

impl LifeValue {
    /// The first minute whose buckets may change.
    #[must_use]
    pub const fn final_before(&self) -> Minute {
        Minute(self.final_before.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_keys_sort_by_minute_and_come_back() {
        let key = BucketKey {
            ad: U64::new(0x0102_0304_0506_0708),
            minute: U32::new(0x1112_1314),
            publisher: U32::new(1),
            placement: U32::new(2),
            creative: U32::new(3),
            country: *b"PL",
            device: 4,
            os: 5,
            rules: U32::new(6),
        };
        let life = Incarnation(0xfedc_ba98_7654_3210);
        assert_eq!(read_by_minute(&by_minute(&key, life)), Some((key, life)));
        let later = BucketKey { minute: U32::new(key.minute.get() + 1), ..key };
        let other = BucketKey { ad: U64::new(key.ad.get() + 1), ..key };
        assert!(by_minute(&other, life) < by_minute(&later, life));
    }

    #[test]
    fn streams_and_raw_batches_come_back_from_their_keys() {
        let parts = (Incarnation(1), Epoch(2), WorkerId(3));
        assert_eq!(read_stream(&stream(parts.0, parts.1, parts.2)), Some(parts));
        let id = RawId { flush: FlushNo(9), part: 8 };
        assert_eq!(read_raw_id(&raw_id(id)), Some(id));
        assert_eq!(RawId::parse(&id.file_name()), Some(id));
    }
}
