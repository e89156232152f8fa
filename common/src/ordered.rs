//! Keys of stores as octets: big-endian, so that they sort by their fields. The store of a node and that
//! of the central tier have the same, for they keep the same things.
//!
//! Never a value: those are each store's own.

use crate::bucket::{BUCKET_KEY_LEN, BucketKey};
use crate::id::Incarnation;
use crate::time::Minute;

/// ad, minute, dimensions, incarnation: the key of a bucket.
pub type BucketId = [u8; BUCKET_KEY_LEN + 8];
/// ad, minute, incarnation: the key of a sketch.
pub type UsersId = [u8; 20];
/// minute, incarnation: the key of a minute of which some ads have no sketch.
pub type UnsketchedId = [u8; 12];

/// The key of a bucket: one ad's history is one range.
#[must_use]
pub fn bucket(key: &BucketKey, incarnation: Incarnation) -> BucketId {
    let mut octets = [0; BUCKET_KEY_LEN + 8];
    octets[..BUCKET_KEY_LEN].copy_from_slice(&key.ordered());
    octets[BUCKET_KEY_LEN..].copy_from_slice(&incarnation.0.to_be_bytes());
    octets
}

/// What stands in [`bucket`] octets.
#[must_use]
pub fn read_bucket(octets: &[u8]) -> Option<(BucketKey, Incarnation)> {
    let (key, incarnation) = octets.split_first_chunk()?;
    Some((BucketKey::from_ordered(key), read_incarnation(incarnation)?))
}

/// Where an ad's buckets and sketches of a minute begin, and those of all later minutes go on.
#[must_use]
pub fn of_ad(ad: u64, minute: Minute) -> [u8; 12] {
    let mut octets = [0; 12];
    octets[..8].copy_from_slice(&ad.to_be_bytes());
    octets[8..].copy_from_slice(&minute.0.to_be_bytes());
    octets
}

/// The key of a sketch.
#[must_use]
pub fn users(ad: u64, minute: Minute, incarnation: Incarnation) -> UsersId {
    let mut octets = [0; 20];
    octets[..12].copy_from_slice(&of_ad(ad, minute));
    octets[12..].copy_from_slice(&incarnation.0.to_be_bytes());
    octets
}

/// What stands in [`users`] octets: ad, minute, incarnation.
#[must_use]
pub fn read_users(octets: &[u8]) -> Option<(u64, Minute, Incarnation)> {
    let (ad, rest) = octets.split_first_chunk()?;
    let (minute, incarnation) = read_unsketched(rest)?;
    Some((u64::from_be_bytes(*ad), minute, incarnation))
}

/// The key of a minute of which some ads have no sketch.
#[must_use]
pub fn unsketched(minute: Minute, incarnation: Incarnation) -> UnsketchedId {
    let mut octets = [0; 12];
    octets[..4].copy_from_slice(&minute.0.to_be_bytes());
    octets[4..].copy_from_slice(&incarnation.0.to_be_bytes());
    octets
}

/// What stands in [`unsketched`] octets.
#[must_use]
pub fn read_unsketched(octets: &[u8]) -> Option<(Minute, Incarnation)> {
    let (minute, incarnation) = octets.split_first_chunk()?;
    Some((Minute(u32::from_be_bytes(*minute)), read_incarnation(incarnation)?))
}

fn read_incarnation(octets: &[u8]) -> Option<Incarnation> {
    Some(Incarnation(u64::from_be_bytes(octets.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::byteorder::little_endian::{U32, U64};

    #[test]
    fn keys_come_back_and_sort_by_their_fields() {
        let key = BucketKey {
            ad: U64::new(0x0102_0304_0506_0708),
            minute: U32::new(0x1112_1314),
            country: *b"PL",
            rules: U32::new(6),
            ..BucketKey::default()
        };
        let life = Incarnation(0xfedc_ba98_7654_3210);
        assert_eq!(read_bucket(&bucket(&key, life)), Some((key, life)));
        assert!(bucket(&key, life).starts_with(&of_ad(key.ad.get(), Minute(key.minute.get()))));
        let later = BucketKey { minute: U32::new(key.minute.get() + 1), ..key };
        let other = BucketKey { ad: U64::new(key.ad.get() + 1), ..key };
        assert!(bucket(&key, life) < bucket(&later, life) && bucket(&later, life) < bucket(&other, life));

        let of = users(7, Minute(5), Incarnation(6));
        assert_eq!(read_users(&of), Some((7, Minute(5), Incarnation(6))));
        assert!(of < users(7, Minute(6), Incarnation(0)) && of < users(8, Minute(0), Incarnation(0)));
        let minute = unsketched(Minute(5), Incarnation(6));
        assert_eq!(read_unsketched(&minute), Some((Minute(5), Incarnation(6))));
        assert_eq!((read_users(&of[1..]), read_unsketched(&of), read_bucket(&of)), (None, None, None));
    }
}
