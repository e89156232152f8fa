//! What a node sends to Kafka, as bytes: the values of its records and the names around them. Nodes
//! write them, the central tier reads them; `docs/kafka.md` lays them down.
//!
//! Whatever comes may be anybody's bytes: reading bounds what it takes and never panics.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bucket::{BucketKey, BucketTotals};

/// The header of a raw record that has the block's 128 header bytes.
pub const BLOCK_HEADER: &str = "block";
/// The header that has the node's number, as decimal digits.
pub const NODE_HEADER: &str = "node";
/// The header that has the number of rows, as decimal digits.
pub const ROWS_HEADER: &str = "rows";

/// The topics of a cluster, each behind its prefix.
pub mod topic {
    /// Raw batches.
    pub const CLICKS: &str = "clicks.v1";
    /// Buckets with their totals so far.
    pub const BUCKETS: &str = "buckets.v1";
    /// Sketches of unique users.
    pub const UNIQUES: &str = "uniques.v1";
    /// How far nodes are.
    pub const CHECKPOINTS: &str = "checkpoints.v1";
    /// Samples of malformed input.
    pub const REJECTS: &str = "rejects.v1";
}

/// An ad's id as the key of its buckets and sketches: big-endian, as Kafka's `LongSerializer`
/// writes it.
#[must_use]
pub const fn ad_key(ad: u64) -> [u8; 8] {
    ad.to_be_bytes()
}

/// The value of a bucket's record: one row of ClickHouse `RowBinary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BucketRecord {
    /// The node, as the operator numbers it.
    pub node: U32,
    /// The life of its journal folder.
    pub incarnation: U64,
    /// The flush that wrote it: the highest one of a key is the truth.
    pub revision: U64,
    /// What it counts.
    pub key: BucketKey,
    /// The totals so far.
    pub totals: BucketTotals,
}

/// Bytes of a bucket's value.
pub const BUCKET_RECORD_LEN: usize = size_of::<BucketRecord>();
const _: () = assert!(BUCKET_RECORD_LEN == 180);

/// The fixed columns of a sketch's record. The last column, `users`, follows: its length in LEB128
/// and the octets of the sketch, which is ClickHouse's `AggregateFunction(uniqTheta, UInt64)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UniquesRecord {
    /// The node, as the operator numbers it.
    pub node: U32,
    /// The life of its journal folder.
    pub incarnation: U64,
    /// The flush that wrote it: the highest one of a key is the truth.
    pub revision: U64,
    /// The ad; 0 where `unsketched` is not.
    pub ad: U64,
    /// The minute.
    pub minute: U32,
    /// 0 in the record of a sketch. Else the record says of the minute that some ads have none, and
    /// how many clicks at least are in none.
    pub unsketched: U64,
}

/// Octets of a sketch's record before its last column.
pub const UNIQUES_RECORD_LEN: usize = size_of::<UniquesRecord>();
const _: () = assert!(UNIQUES_RECORD_LEN == 40);

impl UniquesRecord {
    /// The columns and the octets of the sketch of a record; `None` where it is anything else.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<(&Self, &[u8])> {
        let (columns, mut rest) = Self::ref_from_prefix(value).ok()?;
        let mut len = 0_usize;
        for shift in [0, 7, 14] {
            let (&octet, after) = rest.split_first()?;
            (len, rest) = (len | usize::from(octet & 0x7f) << shift, after);
            if octet & 0x80 == 0 {
                return (rest.len() == len).then_some((columns, rest));
            }
        }
        None
    }
}
