//! The octets of keys and values, but for the keys that a node's store has too: those are in
//! [`weir_common::ordered`]. Keys are big-endian, so that their order is that of their fields.

use weir_common::bucket::{BUCKET_KEY_LEN, BucketKey, BucketTotals};
use weir_common::id::{Incarnation, NodeId};
use weir_common::ordered::of_ad;
use weir_common::time::Minute;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::campaigns::Known;
use crate::record::{Life, Revision};
use crate::span::Span;

/// span, ad, start: the key of a sum.
pub type SumId = [u8; 13];
/// span, ad, start, dimensions: the key of a sum by dimensions.
pub type SplitId = [u8; 1 + BUCKET_KEY_LEN];
/// node, incarnation: the key of a node's state.
pub type LifeId = [u8; 12];

/// A bucket's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BucketValue {
    /// The flush that wrote it.
    pub revision: U64,
    /// Who counted.
    pub node: U32,
    /// The totals so far.
    pub totals: BucketTotals,
}

/// The key of an ad's sum.
#[must_use]
pub fn sum(span: Span, ad: u64, start: Minute) -> SumId {
    let mut bytes = [0; 13];
    bytes[0] = span as u8;
    bytes[1..].copy_from_slice(&of_ad(ad, start));
    bytes
}

/// The start of the span whose sum has this key.
#[must_use]
pub fn read_sum(bytes: &[u8]) -> Option<(u64, Minute)> {
    let (_, rest) = bytes.split_first()?;
    let (ad, start) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*ad), Minute(u32::from_be_bytes(start.try_into().ok()?))))
}

/// The key of the same sum where a span's ads stand side by side.
#[must_use]
pub fn top(span: Span, start: Minute, ad: u64) -> SumId {
    let mut bytes = sum(span, ad, start);
    bytes[1..].rotate_left(8);
    bytes
}

/// What stands in [`top`] octets.
#[must_use]
pub fn read_top(bytes: &[u8]) -> Option<(u64, Minute)> {
    let mut bytes: SumId = bytes.try_into().ok()?;
    bytes[1..].rotate_right(8);
    read_sum(&bytes)
}

/// The key of a sum by dimensions; `key` has the start of the span for its minute.
#[must_use]
pub fn split(span: Span, key: &BucketKey) -> SplitId {
    let mut bytes = [0; 1 + BUCKET_KEY_LEN];
    bytes[0] = span as u8;
    bytes[1..].copy_from_slice(&key.ordered());
    bytes
}

/// What stands in [`split`] octets.
#[must_use]
pub fn read_split(bytes: &[u8]) -> Option<BucketKey> {
    let (_, key) = bytes.split_first()?;
    Some(BucketKey::from_ordered(key.try_into().ok()?))
}

/// A sketch's value: the flush that wrote it, and its octets.
#[must_use]
pub fn users_value(revision: Revision, theta: &[u8]) -> Vec<u8> {
    [&revision.0.to_le_bytes(), theta].concat()
}

/// What stands in [`users_value`] octets.
#[must_use]
pub fn read_users_value(bytes: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, theta) = bytes.split_first_chunk()?;
    Some((Revision(u64::from_le_bytes(*revision)), theta))
}

/// The key of a node's state.
#[must_use]
pub fn life(life: Life) -> LifeId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&life.node.0.to_be_bytes());
    bytes[4..].copy_from_slice(&life.incarnation.0.to_be_bytes());
    bytes
}

/// What stands in [`life`] octets.
#[must_use]
pub fn read_life(bytes: &[u8]) -> Option<Life> {
    let (node, incarnation) = bytes.split_first_chunk()?;
    let incarnation = Incarnation(u64::from_be_bytes(incarnation.try_into().ok()?));
    Some(Life { node: NodeId(u32::from_be_bytes(*node)), incarnation })
}

/// The key of what is known of an ad.
#[must_use]
pub const fn ad(ad: u64) -> [u8; 8] {
    ad.to_be_bytes()
}

/// What is known of an ad, as a value: the campaign, since when, whether a signature said so.
#[must_use]
pub fn known(known: Known) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[..4].copy_from_slice(&known.campaign.to_le_bytes());
    bytes[4..12].copy_from_slice(&known.since_ms.to_le_bytes());
    bytes[12] = u8::from(known.is_signed);
    bytes
}

/// What stands in [`known`] octets.
#[must_use]
pub fn read_known(bytes: &[u8]) -> Option<Known> {
    let (campaign, rest) = bytes.split_first_chunk()?;
    let (since_ms, rest) = rest.split_first_chunk()?;
    let [is_signed @ (0 | 1)] = rest else { return None };
    let (campaign, since_ms) = (u32::from_le_bytes(*campaign), u64::from_le_bytes(*since_ms));
    Some(Known { campaign, is_signed: *is_signed == 1, since_ms })
}

/// The key of an ad among those of its campaign.
#[must_use]
pub fn campaign_ad(campaign: u32, ad: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&campaign.to_be_bytes());
    bytes[4..].copy_from_slice(&ad.to_be_bytes());
    bytes
}

/// The ad in [`campaign_ad`] octets.
#[must_use]
pub fn read_campaign_ad(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(4..)?.try_into().ok()?))
}

/// The key of a partition's offset: the topic, and the partition in four octets.
#[must_use]
pub fn offset(topic: &str, partition: i32) -> Vec<u8> {
    [topic.as_bytes(), &partition.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_sort_by_their_fields() {
        let key = BucketKey {
            ad: U64::new(0x0102_0304_0506_0708),
            minute: U32::new(0x1112_1314),
            country: *b"PL",
            rules: U32::new(6),
            ..BucketKey::default()
        };
        let incarnation = Incarnation(0xfedc_ba98_7654_3210);
        assert_eq!(read_split(&split(Span::Hour, &key)), Some(key));
        let start = Minute(60);
        assert_eq!(read_sum(&sum(Span::Hour, 7, start)), Some((7, start)));
        assert_eq!(read_top(&top(Span::Hour, start, 7)), Some((7, start)));
        assert!(sum(Span::Hour, 7, Minute(120)) < sum(Span::Hour, 8, start));
        assert!(top(Span::Hour, start, 8) < top(Span::Hour, Minute(120), 7));
        let of = Life { node: NodeId(3), incarnation };
        assert_eq!(read_life(&life(of)), Some(of));
        let campaign = Known { campaign: 9, is_signed: true, since_ms: 1 << 40 };
        assert_eq!(read_known(&known(campaign)), Some(campaign));
        assert_eq!(read_campaign_ad(&campaign_ad(9, 7)), Some(7));
        assert!(campaign_ad(9, u64::MAX) < campaign_ad(10, 0));
        assert_eq!(read_users_value(&users_value(Revision(9), b"abc")), Some((Revision(9), &b"abc"[..])));
    }
}
