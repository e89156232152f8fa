use std::collections::BTreeMap;

use datasketches::theta::{CompactThetaSketch, ThetaSketchBuilder, ThetaUnionBuilder};
use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;

const PLENTY: u64 = 1 << 30;
const NEVER: Minute = Minute(u32::MAX);

fn row(minute: u32, ad: u64, user: u64) -> Row {
    let mut row = Row::new_zeroed();
    row.minute = minute.into();
    row.click.ad = ad.into();
    row.click.user_key = user.into();
    row
}

/// The sketch of these users, straight from the library.
fn direct(users: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut sketch = ThetaSketchBuilder::default().lg_k(12).seed(9001).build().unwrap();
    users.into_iter().for_each(|user| sketch.update(user));
    sketch.trim();
    sketch.compact(true).serialize()
}

fn closed(uniques: &mut Uniques) -> BTreeMap<(u32, u64), Vec<u8>> {
    let (_, closing) = uniques.close(NEVER, u64::MAX, 1);
    closing.sketches.into_iter().map(|sketch| ((sketch.minute.0, sketch.ad), sketch.theta)).collect()
}

fn estimate(theta: &[u8]) -> f64 {
    CompactThetaSketch::deserialize(theta).unwrap().estimate()
}

/// Spreads numbers over all keys, as users' keys are.
const fn key(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn only_counted_clicks_of_known_users_are_in_a_sketch() {
    let mut uniques = Uniques::new(PLENTY);
    for (outcome, user) in [
        (Outcome::Accepted, 1),
        (Outcome::Repeat, 2),
        (Outcome::Late, 3),
        (Outcome::Filtered, 4),
        (Outcome::Accepted, 0),
        (Outcome::Accepted, 1),
    ] {
        uniques.row(&Row { outcome: outcome as u8, ..row(5, 7, user) });
    }
    assert_eq!(closed(&mut uniques), BTreeMap::from([((5, 7), direct([1, 2]))]));
}

#[test]
fn a_sketch_has_the_octets_of_a_direct_one_whatever_its_size_and_order() {
    for users in [1, 2, 3, 4, 5, 100, 3071, 3072, 3073, 4095, 4096, 4097, 7679, 7681, 8193, 20_000, 100_000] {
        let mut there = Uniques::new(PLENTY);
        (0..users).chain(0..users / 2).for_each(|n| there.row(&row(1, 1, key(n))));
        let mut back = Uniques::new(PLENTY);
        (0..users).rev().for_each(|n| back.row(&row(1, 1, key(n))));
        let expected = BTreeMap::from([((1, 1), direct((0..users).map(key)))]);
        assert_eq!((closed(&mut there), closed(&mut back)), (expected.clone(), expected), "{users}");
    }
}

#[test]
fn a_user_is_hashed_as_eight_octets_little_endian_with_the_seed_of_the_library() {
    // MurmurHash3 x64 128 of the octets of 1 with seed 9001, halved: as C++ and Java hash a long.
    let mut uniques = Uniques::new(PLENTY);
    uniques.row(&row(1, 1, 1));
    let theta = &closed(&mut uniques)[&(1, 1)];
    let hash = u64::from_le_bytes(theta[8..].try_into().unwrap());
    assert_eq!((theta.len(), hash), (16, murmur3(1, 9001) >> 1));
    assert_eq!(&theta[..8], [1, 3, 3, 0, 0, 0x1a, 0xcc, 0x93]);
}

/// The first half of MurmurHash3 x64 128 of eight octets (Appleby, 2011).
const fn murmur3(value: u64, seed: u64) -> u64 {
    const fn mix(mut k: u64) -> u64 {
        k = (k ^ k >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        k = (k ^ k >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ k >> 33
    }
    let k = value.wrapping_mul(0x87c3_7b91_1142_53d5).rotate_left(31).wrapping_mul(0x4cf5_ad43_2745_937f);
    let (h1, h2) = ((seed ^ k) ^ 8, seed ^ 8);
    let h1 = h1.wrapping_add(h2);
    let h2 = h2.wrapping_add(h1);
    mix(h1).wrapping_add(mix(h2))
}

#[test]
fn the_octets_are_those_of_the_library_in_cpp() {
    // `update_theta_sketch(12)`, `trim()`, `compact(True).serialize()` of datasketches 5.2.0 for Python.
    for (users, octets, crc) in [
        (1, 16, 0xa0a8_ebb5),
        (2, 32, 0xcf12_3924),
        (100, 816, 0x3073_0f54),
        (4096, 32_784, 0xa1dd_0d9f),
        (4097, 32_792, 0xc9ac_b0a9),
        (20_000, 32_792, 0x8306_d7bf),
    ] {
        let mut uniques = Uniques::new(PLENTY);
        (0..users).for_each(|n| uniques.row(&row(1, 1, key(n))));
        let theta = &closed(&mut uniques)[&(1, 1)];
        assert_eq!((theta.len(), crc32c::crc32c(theta)), (octets, crc), "{users}");
    }
}

#[test]
fn the_union_of_sketches_is_the_sketch_of_all() {
    for users in [10, 3000, 9000, 60_000] {
        let mut union = ThetaUnionBuilder::default().lg_k(12).build().unwrap();
        for part in 0..3 {
            let mut uniques = Uniques::new(PLENTY);
            // Some users click at two nodes.
            let of_part = (0..users).filter(|n| n % 3 == part || n % 5 == part);
            of_part.for_each(|n| uniques.row(&row(1, 1, key(n))));
            union.update(&CompactThetaSketch::deserialize(&closed(&mut uniques)[&(1, 1)]).unwrap()).unwrap();
        }
        assert_eq!(union.to_sketch(true).serialize(), direct((0..users).map(key)), "{users}");
    }
}

#[test]
fn minutes_leave_when_they_are_final_and_not_before_and_are_forgotten_when_settled() {
    let mut uniques = Uniques::new(PLENTY);
    for (minute, ad) in [(3, 9), (1, 9), (1, 2), (2, 9)] {
        uniques.row(&row(minute, ad, 1));
    }
    let (from, closing) = uniques.close(Minute(3), u64::MAX, 1);
    let left: Vec<_> = closing.sketches.iter().map(|sketch| (sketch.minute.0, sketch.ad)).collect();
    assert_eq!((from, left), (Minute(3), vec![(1, 2), (1, 9), (2, 9)]));
    assert_eq!(uniques.close(Minute(3), u64::MAX, 1).1, closing, "as often as it takes");
    uniques.settle(Minute(3));
    uniques.row(&row(2, 9, 5));
    assert_eq!(uniques.held().0, 1);
    uniques.settle(NEVER);
    assert_eq!(uniques.held(), (0, 0), "all room is given back");
}

#[test]
fn more_than_fits_a_batch_leaves_with_the_next_minute_by_minute() {
    let mut uniques = Uniques::new(PLENTY);
    for minute in 1..=3 {
        (0..100).for_each(|n| uniques.row(&row(minute, 1, n + 1)));
    }
    let mut ends = Vec::new();
    for bytes_max in [0, 1000, 2000] {
        let (from, closing) = uniques.close(Minute(9), bytes_max, 1);
        ends.push((from.0, closing.sketches.len()));
    }
    assert_eq!(ends, [(2, 1), (2, 1), (3, 2)], "always one minute");
    uniques.settle(Minute(3));
    assert_eq!(uniques.close(Minute(9), 0, 1).0, Minute(9));
}

#[test]
fn a_block_folded_again_changes_nothing() {
    let mut uniques = Uniques::new(0);
    let mut block = vec![0; BLOCK_HEADER_LEN];
    block.extend_from_slice(zerocopy::IntoBytes::as_bytes(&row(1, 1, 1)));
    block.push(0);
    let writer = (Epoch(1), WorkerId(0));
    for sequence in [1, 2, 1, 2] {
        uniques.block(writer, BlockSeq(sequence), &block);
    }
    assert_eq!(uniques.unsketched(), 2);
}

#[test]
fn with_room_for_nothing_there_is_no_sketch_and_each_minute_says_so() {
    let mut uniques = Uniques::new(0);
    (1..=3).for_each(|user| uniques.row(&row(1, 1, user)));
    let (_, closing) = uniques.close(NEVER, u64::MAX, 1);
    let expected = vec![Unsketched { minute: Minute(1), clicks: 3 }];
    assert_eq!((closing.sketches, closing.unsketched), (vec![], expected));
}

#[test]
fn minutes_that_lack_rows_give_up_their_sketches_and_get_no_new_ones() {
    let mut uniques = Uniques::new(PLENTY);
    uniques.row(&row(1, 1, 1));
    uniques.row(&row(3, 1, 1));
    uniques.spoil(Minute(3));
    uniques.row(&row(2, 1, 1));
    uniques.row(&row(1, 1, 2));
    let (_, closing) = uniques.close(NEVER, u64::MAX, 1);
    let expected = [Unsketched { minute: Minute(1), clicks: 2 }, Unsketched { minute: Minute(2), clicks: 1 }];
    assert_eq!(closing.unsketched, expected);
    assert_eq!(closing.sketches, [Sketch { minute: Minute(3), ad: 1, theta: direct([1]) }]);
    // Of minutes whose rows are all gone nothing is known, and they say so too.
    let mut uniques = Uniques::new(PLENTY);
    uniques.settle(Minute(7));
    uniques.spoil(Minute(10));
    let minutes: Vec<_> =
        uniques.close(NEVER, u64::MAX, 1).1.unsketched.iter().map(|at| at.minute.0).collect();
    assert_eq!(minutes, [7, 8, 9]);
}

proptest! {
    #[test]
    fn whatever_the_bound_a_sketch_that_leaves_is_right_and_a_minute_without_says_so(
        bytes_max in 0..20_000_u64,
        rows in prop::collection::vec((0..4_u32, 0..20_u64, 0..400_u64), 0..4000),
    ) {
        let mut uniques = Uniques::new(bytes_max);
        let mut users: BTreeMap<(u32, u64), Vec<u64>> = BTreeMap::new();
        for &(minute, ad, user) in &rows {
            uniques.row(&row(minute, ad, user + 1));
            users.entry((minute, ad)).or_default().push(user + 1);
            prop_assert!(uniques.held().1 <= bytes_max);
        }
        let (_, closing) = uniques.close(NEVER, u64::MAX, 1);
        let incomplete: Vec<_> = closing.unsketched.iter().map(|minute| minute.minute.0).collect();
        let sketches: BTreeMap<_, _> =
            closing.sketches.iter().map(|sketch| ((sketch.minute.0, sketch.ad), &sketch.theta)).collect();
        for (key, users) in users {
            match sketches.get(&key) {
                Some(theta) => prop_assert_eq!(*theta, &direct(users)),
                None => prop_assert!(incomplete.contains(&key.0)),
            }
        }
        for theta in sketches.values() {
            prop_assert!(estimate(theta) >= 1.0);
        }
        uniques.settle(NEVER);
        prop_assert_eq!(uniques.held(), (0, 0));
    }
}

#[test]
fn a_sketch_of_few_users_stays_here_and_its_minute_says_so() {
    let mut uniques = Uniques::new(PLENTY);
    for user in 1..=10 {
        uniques.row(&row(1, 100, user));
        uniques.row(&row(1, 100, user));
    }
    (1..=9).for_each(|user| uniques.row(&row(1, 200, user)));
    uniques.row(&row(2, 300, 1));
    uniques.row(&row(2, 300, 1));
    (1..=10).for_each(|user| uniques.row(&row(3, 400, user)));
    let (_, closing) = uniques.close(NEVER, u64::MAX, 10);
    let left: Vec<_> = closing.sketches.iter().map(|sketch| (sketch.minute.0, sketch.ad)).collect();
    assert_eq!(left, [(1, 100), (3, 400)]);
    let incomplete: Vec<_> = closing.unsketched.iter().map(|at| (at.minute.0, at.clicks)).collect();
    assert_eq!(incomplete, [(1, 1), (2, 1)]);
    assert_eq!((closing.withheld, closing.lacks_rows), (2, false));
}
