use datasketches::theta::ThetaSketchBuilder;
use weir_common::bucket::BucketKey;
use weir_common::id::{Incarnation, NodeId};
use zerocopy::byteorder::little_endian::{U32, U64};

use super::*;
use crate::record::Word;

const LIFE: Life = Life { node: NodeId(1), incarnation: Incarnation(9) };

fn bucket(revision: u64, ad: u64, minute: u32, country: [u8; 2], accepted: u64) -> Word {
    let key = BucketKey { ad: U64::new(ad), minute: U32::new(minute), country, ..BucketKey::default() };
    let totals = BucketTotals { accepted: U64::new(accepted), ..BucketTotals::default() };
    Word::Bucket { life: LIFE, revision: Revision(revision), key, totals }
}

fn sketch(revision: u64, ad: u64, minute: u32, users: std::ops::Range<u64>) -> Word {
    let mut sketch = ThetaSketchBuilder::default().lg_k(12).build().unwrap();
    users.for_each(|user| sketch.update(user));
    sketch.trim();
    let users = Users::read(&sketch.compact(true).serialize()).unwrap();
    Word::Sketch { life: LIFE, revision: Revision(revision), ad, minute: Minute(minute), users }
}

fn apply(store: &Store, words: Vec<Word>, offset: i64) {
    let mut changes = Changes::default();
    for word in words {
        changes.take(store, word).unwrap();
    }
    let offsets = [((0, 3), offset)].into();
    store.apply(&changes, &["weir.buckets.v1".to_owned()], &offsets, &[]).unwrap();
}

fn accepted(store: &Store, span: Span, ad: u64, minutes: std::ops::Range<u32>) -> Vec<(u32, u64)> {
    let view = store.view();
    let minutes = Minute(minutes.start)..Minute(minutes.end);
    let sums = view.sums(span, ad, minutes).map(Result::unwrap);
    sums.map(|sum| (sum.start.0, sum.totals.accepted.get())).collect()
}

#[test]
fn sums_follow_their_buckets_by_minute_hour_and_day_and_by_ad_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let day = 29_000_160; // begins at midnight
    apply(&store, vec![bucket(1, 7, day, *b"PL", 2), bucket(1, 7, day + 61, *b"PL", 3)], 5);
    apply(
        &store,
        vec![bucket(2, 7, day, *b"PL", 4), bucket(2, 7, day, *b"DE", 1), bucket(2, 8, day, *b"DE", 9)],
        9,
    );
    assert_eq!(accepted(&store, Span::Minute, 7, day..day + 1440), [(day, 5), (day + 61, 3)]);
    assert_eq!(accepted(&store, Span::Hour, 7, day..day + 1440), [(day, 5), (day + 60, 3)]);
    assert_eq!(accepted(&store, Span::Day, 7, day..day + 1440), [(day, 8)]);
    let view = store.view();
    let tops: Vec<_> = view.tops(Span::Hour, Minute(day)..Minute(day + 60)).map(Result::unwrap).collect();
    assert_eq!(
        tops.iter().map(|(ad, sum)| (*ad, sum.totals.accepted.get())).collect::<Vec<_>>(),
        [(7, 5), (8, 9)]
    );
    for span in [Span::Minute, Span::Hour, Span::Day] {
        let splits: Vec<_> = view.splits(span, 7, Minute(day)..Minute(day + 1)).map(Result::unwrap).collect();
        let by_country: Vec<_> =
            splits.iter().map(|(key, totals)| (key.country, totals.accepted.get())).collect();
        let of_pl = if span == Span::Day { 7 } else { 4 };
        assert_eq!(by_country, [(*b"DE", 1), (*b"PL", of_pl)], "{span:?}");
    }
}

#[test]
fn users_are_counted_once_over_minutes_and_resends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let day = 29_000_160;
    apply(&store, vec![sketch(1, 7, day, 0..100), sketch(1, 7, day + 1, 50..150)], 1);
    apply(&store, vec![sketch(1, 7, day, 0..100), sketch(2, 7, day + 70, 0..20)], 2);
    let view = store.view();
    let users = |span, from: u32, to: u32| view.users(span, &[7], Minute(from)..Minute(to)).unwrap();
    assert_eq!(users(Span::Minute, day, day + 1), Some(100.0));
    assert_eq!(users(Span::Minute, day, day + 2), Some(150.0));
    assert_eq!(users(Span::Hour, day, day + 60), Some(150.0));
    assert_eq!(users(Span::Hour, day + 60, day + 120), Some(20.0));
    assert_eq!(users(Span::Day, day, day + 1440), Some(150.0));
    assert_eq!(users(Span::Minute, day + 5, day + 9), None);
}

#[test]
fn a_view_sees_nothing_of_what_is_written_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    apply(&store, vec![bucket(1, 7, 600, *b"PL", 2)], 1);
    let view = store.view();
    apply(&store, vec![bucket(2, 7, 600, *b"PL", 5)], 2);
    let sums: Vec<_> = view.sums(Span::Hour, 7, Minute(600)..Minute(660)).map(Result::unwrap).collect();
    assert_eq!(sums[0].totals.accepted.get(), 2);
}

#[test]
fn a_store_that_is_opened_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { flush: 7, counted_until: Some(UnixMs(5)), ..Told::default() };
    let state = NodeState { told, reached: None };
    {
        let store = Store::open(dir.path()).unwrap();
        apply(&store, vec![bucket(1, 7, 600, *b"PL", 2)], 11);
        store.apply(&Changes::default(), &[], &Offsets::new(), &[(LIFE, state.clone())]).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.offset("weir.buckets.v1", 3).unwrap(), Some(11));
    assert_eq!(store.offset("weir.buckets.v1", 4).unwrap(), None);
    assert_eq!(store.nodes().unwrap(), [(LIFE, state)].into());
    assert_eq!(accepted(&store, Span::Hour, 7, 600..660), [(600, 2)]);
}
