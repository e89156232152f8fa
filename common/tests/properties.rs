//! Promises of the codec that hold for all bytes and all values, tried on many.

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

use proptest::collection::vec;
use proptest::prelude::*;
use weir_common::bucket::BucketTotals;
use weir_common::id::{ImpressionId, SHARD_BITS, Shard};
use weir_common::reason::{FILTERED_SLOTS, FIRST_FILTERED, Outcome, Reason};
use weir_common::row::{Row, Rows, length_prefix, row_flags};
use weir_common::wire::{
    AckHeader, Acks, CLICK_LEN, Click, Datagram, HEADER_LEN, Header, MAX_PRICE_MICROS, click_flags, extension,
};
use zerocopy::{FromBytes, IntoBytes};

/// A click and its extension as a sender builds them.
type Offered = (Click, Vec<u8>);

/// Any click that is sound: flags and the fields they govern agree.
fn sound_click() -> impl Strategy<Value = Click> {
    let numbers = (any::<[u8; 16]>(), any::<[u64; 5]>(), any::<[u32; 4]>());
    let place = (-90_000_000..=90_000_000_i32, -180_000_000..=180_000_000_i32, any::<u16>(), any::<u16>());
    let country = prop_oneof![Just([0, 0]), [b'A'..=b'Z', b'A'..=b'Z']];
    let octets = (any::<u8>(), any::<u8>(), any::<u8>(), 0..=click_flags::KNOWN);
    (numbers, place, country, octets).prop_map(|(numbers, place, country, octets)| {
        let (impression, [ad, price, tag, user, clicked_at], [campaign, creative, placement, publisher]) =
            numbers;
        let (device, os, ordinal, flags) = octets;
        let has = |flag: u8| flags & flag != 0;
        let (latitude, longitude) = if has(click_flags::POSITION) { (place.0, place.1) } else { (0, 0) };
        let (x, y) = if has(click_flags::POINT) { (place.2, place.3) } else { (0, 0) };
        Click {
            impression: ImpressionId(impression),
            ad: ad.into(),
            price_micros: (price % (MAX_PRICE_MICROS + 1)).into(),
            campaign: campaign.into(),
            creative: creative.into(),
            placement: placement.into(),
            publisher: publisher.into(),
            tag: if has(click_flags::FOREIGN) { 0 } else { tag }.into(),
            user_key: user.into(),
            clicked_at_ms: clicked_at.into(),
            latitude_e6: latitude.into(),
            longitude_e6: longitude.into(),
            x: x.into(),
            y: y.into(),
            country,
            device,
            os,
            ordinal,
            flags,
            ..Click::zeroed()
        }
    })
}

/// Any sound extension, short enough for many in a datagram.
fn sound_extension() -> impl Strategy<Value = Vec<u8>> {
    let value = |longest: usize| prop::option::weighted(0.3, vec(any::<u8>(), 0..=longest));
    (value(90), value(90), value(64), value(64)).prop_map(|(agent, referrer, session, conversion)| {
        let kinds = [extension::USER_AGENT, extension::REFERRER, extension::SESSION, extension::CONVERSION];
        let values = [agent, referrer, session, conversion];
        let mut bytes = Vec::new();
        for (kind, value) in kinds.into_iter().zip(values) {
            let Some(value) = value else { continue };
            bytes.push(kind);
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(value);
        }
        bytes
    })
}

fn offered() -> impl Strategy<Value = Offered> {
    (sound_click(), sound_extension()).prop_map(|(mut click, extension)| {
        click.extension_len = (extension.len() as u16).into();
        (click, extension)
    })
}

fn sound_header() -> impl Strategy<Value = Header> {
    (0..=SHARD_BITS as u8, 0..1024_u16, any::<u32>(), any::<u64>()).prop_map(
        |(shared_bits, shard, source_id, batch_id)| {
            let unshared = SHARD_BITS - u32::from(shared_bits);
            Header {
                shared_bits,
                shard: (shard >> unshared << unshared).into(),
                source_id: source_id.into(),
                batch_id: batch_id.into(),
                ..Header::new(0, 0)
            }
        },
    )
}

fn encode(mut header: Header, clicks: &[Offered]) -> Vec<u8> {
    let body: Vec<u8> =
        clicks.iter().flat_map(|(click, extension)| [click.as_bytes(), extension].concat()).collect();
    header.count = clicks.len() as u8;
    header.total_len = ((HEADER_LEN + body.len()) as u16).into();
    [header.as_bytes(), &body].concat()
}

/// A sound datagram.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    (sound_header(), vec(offered(), 1..16)).prop_map(|(header, clicks)| encode(header, &clicks))
}

/// A sound datagram with a few octets overwritten and, now and then, its end moved: bytes that
/// come far enough through the checks to reach each of them.
fn nearly_sound() -> impl Strategy<Value = Vec<u8>> {
    let faults = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let header_faults = vec((0..HEADER_LEN, 0..12_u8), 0..2);
    (payload(), faults, header_faults, prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(mut bytes, faults, header_faults, end)| {
            for (at, value) in faults {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            for (at, value) in header_faults {
                bytes[at] = value;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len() + 1));
                if let Some(total_len) = bytes.get(10..12).map(|_| bytes.len() as u16) {
                    bytes[10..12].copy_from_slice(&total_len.to_le_bytes());
                }
            }
            bytes
        },
    )
}

fn row() -> impl Strategy<Value = (Row, Vec<u8>)> {
    let outcome = prop::sample::select(&Outcome::ALL[..]);
    let slot = 0..FILTERED_SLOTS as u8;
    (offered(), outcome, slot, 0..=row_flags::KNOWN, any::<u64>(), any::<u32>()).prop_map(
        |((click, extension), outcome, slot, flags, received_at, minute)| {
            let filtered = outcome == Outcome::Filtered;
            let row = Row {
                received_at_ms: received_at.into(),
                minute: minute.into(),
                outcome: outcome as u8,
                reason: if filtered { FIRST_FILTERED + slot } else { 0 },
                flags,
                traffic: 0,
                click,
            };
            (row, extension)
        },
    )
}

fn body(rows: &[(Row, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (row, extension) in rows {
        let (prefix, len) = length_prefix(extension.len() as u16);
        bytes.extend_from_slice(row.as_bytes());
        bytes.extend_from_slice(&prefix[..len]);
        bytes.extend_from_slice(extension);
    }
    bytes
}

fn totals(rows: &[(Row, Vec<u8>)]) -> BucketTotals {
    let mut totals = BucketTotals::default();
    for (row, _) in rows {
        totals.count(row);
    }
    totals
}

fn merged(one: &BucketTotals, other: &BucketTotals) -> BucketTotals {
    let mut sum = *one;
    sum.merge(other);
    sum
}

proptest! {
    #[test]
    fn any_bytes_are_judged_as_by_the_reference(bytes in vec(any::<u8>(), 0..300)) {
        fuzz::datagram(&bytes);
    }

    #[test]
    fn nearly_sound_datagrams_are_judged_as_by_the_reference(bytes in nearly_sound()) {
        fuzz::datagram(&bytes);
    }

    #[test]
    fn what_is_encoded_is_read_back(header in sound_header(), clicks in vec(offered(), 1..16)) {
        let bytes = encode(header, &clicks);
        let datagram = Datagram::parse(&bytes).expect("it is sound");
        prop_assert_eq!(datagram.header().batch_id, header.batch_id);
        prop_assert_eq!(datagram.header().source_id, header.source_id);
        prop_assert_eq!(datagram.facts().shard, Shard(header.shard.get()));
        let read: Vec<Offered> = datagram.clicks().map(|(click, ext)| (*click, ext.to_vec())).collect();
        prop_assert_eq!(&read, &clicks);
        for (click, extension) in &read {
            prop_assert_eq!(click.check(extension), Ok(()));
        }
    }

    #[test]
    fn a_changed_header_bit_is_refused_or_changes_exactly_its_field(bytes in payload(), bit in 0..192_usize) {
        let before = Datagram::parse(&bytes).expect("it is sound");
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let after = Datagram::parse(&changed);
        let reason = |bad: Reason| after.err().map(|refused| refused.reason) == Some(bad);
        match bit / 8 {
            0..4 => prop_assert!(reason(Reason::BadMagic)),
            4 => prop_assert!(reason(Reason::BadVersion)),
            5 => prop_assert!(reason(Reason::BadFlags)),
            6 => prop_assert!(reason(Reason::BadCount) || reason(Reason::ClickCut)),
            10..12 => prop_assert!(reason(Reason::BadLength)),
            7..10 if after.is_err() => prop_assert!(reason(Reason::BadShard)),
            at => {
                // Free, or another shard hint that is sound: all else is as it was.
                let after = after.expect("a free field refuses nothing");
                let (mut undone, unchanged) = (*after.header(), *before.header());
                match at {
                    7 => undone.shared_bits = unchanged.shared_bits,
                    8..10 => undone.shard = unchanged.shard,
                    12..16 => undone.source_id = unchanged.source_id,
                    _ => undone.batch_id = unchanged.batch_id,
                }
                prop_assert_eq!(undone, unchanged);
                prop_assert!(after.clicks().eq(before.clicks()));
            }
        }
    }

    #[test]
    fn a_tag_answers_to_every_signed_bit_and_to_no_other(click in sound_click(), bit in 0..768_usize, key: [u8; 16]) {
        let key = weir_common::siphash::SipKey::from_bytes(key);
        let mut octets: [u8; CLICK_LEN] = click.as_bytes().try_into().expect("a click's octets");
        octets[bit / 8] ^= 1 << (bit % 8);
        let changed = Click::read_from_bytes(&octets).expect("a click's octets");
        prop_assert_eq!(changed.expected_tag(&key) != click.expected_tag(&key), bit < 8 * 48);
    }

    #[test]
    fn clicks_of_shards_that_share_bits_may_stand_under_the_masked_shard(one in 0..1024_u16, other in 0..1024_u16) {
        let bits = (one ^ other).leading_zeros().saturating_sub(6);
        prop_assert!(Shard(one).shares_leading(Shard(other), bits));
        prop_assert!(bits == SHARD_BITS || !Shard(one).shares_leading(Shard(other), bits + 1));
    }

    #[test]
    fn any_bytes_are_read_as_acks_as_by_the_reference(bytes in vec(any::<u8>(), 0..200)) {
        fuzz::acks(&bytes);
    }

    #[test]
    fn acks_survive_each_other_and_a_damaged_end(
        acks in vec((any::<u64>(), vec(0..4_u8, 0..256)), 0..8),
        at: prop::sample::Index,
        flip in 0..=255_u8,
    ) {
        let mut bytes: Vec<u8> = acks
            .iter()
            .flat_map(|(id, all)| [AckHeader::new(*id, all.len() as u8).as_bytes(), all].concat())
            .collect();
        let read: Vec<(u64, Vec<u8>)> = Acks::new(&bytes).map(|a| (a.batch_id, a.statuses.to_vec())).collect();
        prop_assert_eq!(read, acks);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        fuzz::acks(&bytes);
    }

    #[test]
    fn any_bytes_are_read_as_rows_as_by_the_reference(bytes in vec(any::<u8>(), 0..600)) {
        fuzz::rows(&bytes);
    }

    #[test]
    fn rows_are_read_back_and_a_damaged_body_as_by_the_reference(
        rows in vec(row(), 0..12),
        at: prop::sample::Index,
        flip: u8,
        end: prop::sample::Index,
    ) {
        let mut bytes = body(&rows);
        let mut reader = Rows::new(&bytes);
        let read: Vec<(Row, Vec<u8>)> = reader.by_ref().map(|(row, ext)| (*row, ext.to_vec())).collect();
        prop_assert_eq!(read, rows);
        prop_assert!(reader.rest().is_empty());
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            bytes.truncate(end.index(bytes.len() + 1));
        }
        fuzz::rows(&bytes);
    }

    #[test]
    fn shares_of_a_bucket_merge_in_any_order(
        a in vec(row(), 0..20), b in vec(row(), 0..20), c in vec(row(), 0..20),
    ) {
        let (x, y, z) = (totals(&a), totals(&b), totals(&c));
        prop_assert_eq!(merged(&x, &y), merged(&y, &x));
        prop_assert_eq!(merged(&merged(&x, &y), &z), merged(&x, &merged(&y, &z)));
        prop_assert_eq!(merged(&x, &BucketTotals::default()), x);
        prop_assert_eq!(merged(&merged(&x, &y), &z), totals(&[a, b, c].concat()));
    }

    #[test]
    fn totals_are_a_recount_of_the_rows(rows in vec(row(), 0..60)) {
        let totals = totals(&rows);
        let met = |outcome: Outcome| rows.iter().filter(move |(row, _)| row.outcome == outcome as u8);
        let number = |outcome: Outcome| met(outcome).count() as u64;
        prop_assert_eq!(totals.accepted.get(), number(Outcome::Accepted));
        prop_assert_eq!(totals.repeat.get(), number(Outcome::Repeat));
        prop_assert_eq!(totals.late.get(), number(Outcome::Late));
        let (unsigned, billable): (Vec<&Row>, Vec<&Row>) =
            met(Outcome::Accepted).map(|(row, _)| row).partition(|row| row.click.is_foreign());
        let cost = |rows: &[&Row]| rows.iter().map(|row| row.click.price_micros.get()).sum::<u64>();
        prop_assert_eq!((totals.unsigned.get(), totals.billable()), (unsigned.len() as u64, billable.len() as u64));
        prop_assert_eq!(totals.cost_micros.get(), cost(&billable));
        let marked: Vec<&Row> = billable.into_iter().filter(|row| row.flags & 4 != 0).collect();
        prop_assert_eq!(totals.marked.get(), marked.len() as u64);
        prop_assert_eq!(totals.marked_cost_micros.get(), cost(&marked));
        for slot in 0..FILTERED_SLOTS as u8 {
            let reason = FIRST_FILTERED + slot;
            let count = met(Outcome::Filtered).filter(|(row, _)| row.reason == reason).count() as u64;
            prop_assert_eq!(totals.filtered[usize::from(slot)].get(), count);
        }
        let has_row = [Outcome::Accepted, Outcome::Repeat, Outcome::Late, Outcome::Filtered];
        let suspect = has_row.into_iter().flat_map(met).filter(|(row, _)| row.flags & 1 != 0).count() as u64;
        prop_assert_eq!(totals.clock_suspect.get(), suspect);
        let gross = [Outcome::Accepted, Outcome::Repeat, Outcome::Filtered].into_iter().map(number).sum::<u64>();
        prop_assert_eq!(totals.gross(), gross);
    }
}

#[test]
fn totals_at_their_largest_neither_panic_nor_saturate() {
    let largest = BucketTotals::read_from_bytes(&[255; 128]).expect("totals are 128 octets");
    let mut sum = largest;
    sum.merge(&largest);
    // Modulo 2^64: ten terms of 2^64 - 1 are -10.
    assert_eq!(largest.gross(), 0_u64.wrapping_sub(10));
    assert_eq!(sum.accepted.get(), u64::MAX - 1);
}

#[test]
fn the_longest_datagram_a_header_can_state_is_read() {
    let mut click = Click::zeroed();
    click.extension_len = (u16::MAX - 24 - 96).into();
    let header = Header::new(1, usize::from(u16::MAX) - HEADER_LEN);
    let mut bytes = [header.as_bytes(), click.as_bytes()].concat();
    bytes.resize(usize::from(u16::MAX), 0);
    fuzz::datagram(&bytes);
    assert!(Datagram::parse(&bytes).is_ok());
    // 65,536 octets more look the same to a 16-bit length, and are not.
    bytes.resize(usize::from(u16::MAX) + 65_536, 0);
    fuzz::datagram(&bytes);
    assert_eq!(Datagram::parse(&bytes).err().map(|bad| bad.reason), Some(Reason::BadLength));
}
