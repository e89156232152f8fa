//! The records of a batch, as bytes: pure functions of what the batch holds, so that a batch
//! that is sent again is the same to the byte. `docs/kafka.md` lays them down.

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};
use weir_common::id::{Incarnation, NodeId};
use weir_common::record::{BucketRecord, NODE_HEADER, UNIQUES_RECORD_LEN, UniquesRecord};
use weir_common::time::Minute;
use zerocopy::{FromBytes, IntoBytes};

use super::super::batch::{Bucket, FlushNo};
use super::super::uniques::{self, Sketch, Unsketched};
use crate::journal::BlockIdentity;
use crate::rejects::Reject;

/// The headers of a rejects record, by name.
pub const REJECT_HEADERS: [&str; 7] =
    ["reason", "reason_number", "input", "source", "received_ms", NODE_HEADER, "cut"];

/// The values of a rejects record's headers, in the order of [`REJECT_HEADERS`].
#[must_use]
pub fn reject_headers(node: NodeId, reject: &Reject) -> [String; 7] {
    [
        reject.reason.name().to_owned(),
        (reject.reason as u8).to_string(),
        reject.input.name().to_owned(),
        reject.source.to_string(),
        reject.received_at.0.to_string(),
        node.0.to_string(),
        u8::from(reject.is_cut).to_string(),
    ]
}

/// A block's identity as the key of its record: incarnation, epoch, worker, sequence.
#[must_use]
pub fn block_key(header: &BlockHeader) -> String {
    let of = BlockIdentity::of(header);
    format!("{:016x}-{}-{}-{}", of.incarnation.0, of.epoch.0, of.worker.0, of.sequence.0)
}

/// A block as header and rows, when it is long enough to have a header.
#[must_use]
pub fn split_block(block: &[u8]) -> Option<(&BlockHeader, &[u8])> {
    let (header, rows) = block.split_at_checked(BLOCK_HEADER_LEN)?;
    Some((BlockHeader::ref_from_bytes(header).ok()?, rows))
}

/// The record of a bucket.
#[must_use]
pub fn bucket(node: NodeId, incarnation: Incarnation, revision: FlushNo, bucket: &Bucket) -> BucketRecord {
    BucketRecord {
        node: node.0.into(),
        incarnation: incarnation.0.into(),
        revision: revision.0.into(),
        key: bucket.key,
        totals: bucket.totals,
    }
}

/// The record of a sketch.
#[must_use]
pub fn sketch(node: NodeId, incarnation: Incarnation, revision: FlushNo, sketch: &Sketch) -> Vec<u8> {
    let columns = of_minute((node, incarnation, revision), sketch.minute);
    with_users(&UniquesRecord { ad: sketch.ad.into(), ..columns }, &sketch.theta)
}

/// The record that says of a minute that some of its ads have no sketch. Its own sketch is the
/// empty one: added to any other it changes nothing.
#[must_use]
pub fn unsketched(node: NodeId, incarnation: Incarnation, revision: FlushNo, minute: &Unsketched) -> Vec<u8> {
    let columns = of_minute((node, incarnation, revision), minute.minute);
    with_users(&UniquesRecord { unsketched: minute.clicks.into(), ..columns }, &uniques::empty())
}

fn of_minute((node, incarnation, revision): (NodeId, Incarnation, FlushNo), minute: Minute) -> UniquesRecord {
    UniquesRecord {
        node: node.0.into(),
        incarnation: incarnation.0.into(),
        revision: revision.0.into(),
        ad: 0.into(),
        minute: minute.0.into(),
        unsketched: 0.into(),
    }
}

fn with_users(columns: &UniquesRecord, theta: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UNIQUES_RECORD_LEN + 3 + theta.len());
    bytes.extend_from_slice(columns.as_bytes());
    let mut left = theta.len();
    while left > 0x7f {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(theta);
    bytes
}

#[cfg(test)]
mod tests {
    use weir_common::bucket::{BucketKey, BucketTotals};
    use zerocopy::byteorder::little_endian::{U32, U64};

    use super::*;

    #[test]
    fn a_bucket_is_its_columns_in_order() {
        let key = BucketKey { ad: U64::new(7), minute: U32::new(9), ..BucketKey::default() };
        let totals = BucketTotals { accepted: U64::new(5), ..BucketTotals::default() };
        let record = super::bucket(NodeId(3), Incarnation(0x0102), FlushNo(11), &Bucket { key, totals });
        let bytes = record.as_bytes();
        assert_eq!(bytes[..4], 3_u32.to_le_bytes());
        assert_eq!(bytes[4..12], 0x0102_u64.to_le_bytes());
        assert_eq!(bytes[12..20], 11_u64.to_le_bytes());
        assert_eq!(bytes[20..28], 7_u64.to_le_bytes());
        assert_eq!(bytes[28..32], 9_u32.to_le_bytes());
        assert_eq!(bytes[52..60], 5_u64.to_le_bytes());
        assert_eq!(BucketRecord::read_from_bytes(bytes), Ok(record));
    }

    #[test]
    fn a_sketch_is_its_columns_in_order_and_its_octets_behind_their_length() {
        for (octets, prefix) in
            [(8, vec![8]), (127, vec![127]), (816, vec![0xb0, 6]), (32_792, vec![0x98, 0x80, 2])]
        {
            let sketch = Sketch { minute: Minute(9), ad: 7, theta: vec![0xee; octets] };
            let bytes = super::sketch(NodeId(3), Incarnation(0x0102), FlushNo(11), &sketch);
            assert_eq!(bytes[..4], 3_u32.to_le_bytes());
            assert_eq!(bytes[4..12], 0x0102_u64.to_le_bytes());
            assert_eq!(bytes[12..20], 11_u64.to_le_bytes());
            assert_eq!(bytes[20..28], 7_u64.to_le_bytes());
            assert_eq!(bytes[28..32], 9_u32.to_le_bytes());
            assert_eq!(bytes[32..40], 0_u64.to_le_bytes());
            assert_eq!(bytes[40..40 + prefix.len()], prefix);
            let (columns, theta) = UniquesRecord::read(&bytes).unwrap();
            assert_eq!((columns.ad.get(), theta), (7, &sketch.theta[..]));
            assert_eq!(UniquesRecord::read(&bytes[..bytes.len() - 1]), None);
            assert_eq!(UniquesRecord::read(&[&bytes[..], b"x"].concat()), None);
        }
        let minute = Unsketched { minute: Minute(9), clicks: 5 };
        let bytes = super::unsketched(NodeId(3), Incarnation(1), FlushNo(11), &minute);
        let (columns, theta) = UniquesRecord::read(&bytes).unwrap();
        assert_eq!((columns.ad.get(), columns.minute.get(), columns.unsketched.get()), (0, 9, 5));
        assert_eq!(theta, [1, 3, 3, 0, 0, 0x1e, 0, 0]);
    }

    #[test]
    fn a_rejects_headers_say_all_but_the_bytes() {
        let reject = Reject {
            epoch: weir_common::id::Epoch(2),
            worker: weir_common::id::WorkerId(1),
            number: 9,
            received_at: weir_common::time::UnixMs(1_800_000_000_000),
            reason: weir_common::reason::Reason::BadMagic,
            input: crate::rejects::Input::Datagram,
            source: "203.0.113.0/24".parse().unwrap(),
            is_cut: false,
            bytes: b"bytes".to_vec(),
        };
        let values = reject_headers(NodeId(7), &reject);
        let named: Vec<_> = REJECT_HEADERS.iter().copied().zip(values.iter().map(String::as_str)).collect();
        assert_eq!(
            named,
            [
                ("reason", "bad_magic"),
                ("reason_number", "49"),
                ("input", "datagram"),
                ("source", "203.0.113.0/24"),
                ("received_ms", "1800000000000"),
                ("node", "7"),
                ("cut", "0"),
            ]
        );
    }

    #[test]
    fn a_blocks_key_is_its_identity() {
        let header = BlockHeader {
            incarnation: U64::new(0xab),
            epoch: U32::new(2),
            worker: 3.into(),
            sequence: U64::new(4),
            ..BlockHeader::read_from_bytes(&[0; BLOCK_HEADER_LEN]).unwrap()
        };
        assert_eq!(block_key(&header), "00000000000000ab-2-3-4");
        let block = [header.as_bytes(), b"rows"].concat();
        assert_eq!(split_block(&block), Some((&header, &b"rows"[..])));
        assert_eq!(split_block(&block[..100]), None);
    }

    /// The octets of a table's columns up to the first of no fixed width, and how many columns those are.
    fn widths_of(table: &str) -> (usize, usize) {
        let tables = include_str!("../../../../deploy/kafka/tables.sql");
        let (_, table) = tables.split_once(&format!("CREATE TABLE {table}\n(\n")).expect("the table");
        let (columns, _) = table.split_once("\n)").expect("its end");
        let fixed =
            columns.lines().map_while(|line| match line.trim().trim_end_matches(',').split_once(' ')?.1 {
                "UInt8" => Some(1),
                "UInt16" | "FixedString(2)" => Some(2),
                "UInt32" | "Int32" => Some(4),
                "UInt64" => Some(8),
                "FixedString(16)" => Some(16),
                _ => None,
            });
        fixed.fold((0, 0), |(octets, columns), width| (octets + width, columns + 1))
    }

    #[test]
    fn the_tables_of_deploy_are_as_wide_as_the_records() {
        assert_eq!(widths_of("weir_clicks"), (weir_common::row::ROW_LEN, 27));
        assert_eq!(widths_of("weir_buckets"), (size_of::<BucketRecord>(), 28));
        assert_eq!(widths_of("weir_uniques"), (size_of::<UniquesRecord>(), 6));
    }
}
