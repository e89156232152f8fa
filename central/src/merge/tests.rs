use std::convert::Infallible;

use proptest::prelude::*;
use weir_common::id::{Incarnation, NodeId};
use weir_common::ordered;
use zerocopy::byteorder::little_endian::{U32, U64};

use super::*;
use crate::record::Life;

/// Everything that was applied, in memory.
#[derive(Debug, Default, PartialEq)]
struct Memory {
    buckets: BTreeMap<BucketId, BucketValue>,
    sums: BTreeMap<SumId, BucketTotals>,
    splits: BTreeMap<SplitId, BucketTotals>,
}

impl Held for Memory {
    type Error = Infallible;

    fn bucket(&self, id: &BucketId) -> Result<Option<BucketValue>, Infallible> {
        Ok(self.buckets.get(id).copied())
    }

    fn sketch(&self, _: &UsersId) -> Result<Option<Revision>, Infallible> {
        Ok(None)
    }
}

impl Memory {
    fn apply(&mut self, words: &[Word]) {
        let mut changes = Changes::default();
        for word in words {
            changes.take(self, word.clone()).unwrap();
        }
        self.buckets.extend(changes.buckets);
        for (id, difference) in changes.sums {
            self.sums.entry(id).or_default().merge(&difference);
        }
        for (id, difference) in changes.splits {
            self.splits.entry(id).or_default().merge(&difference);
        }
    }

    /// The sums, by the plainest means.
    fn recounted(&self) -> (BTreeMap<SumId, BucketTotals>, BTreeMap<SplitId, BucketTotals>) {
        let (mut sums, mut splits) = (BTreeMap::new(), BTreeMap::new());
        for (id, value) in &self.buckets {
            let (key, _) = ordered::read_bucket(id).unwrap();
            let minute = Minute(key.minute.get());
            for span in Span::ALL {
                let id = keys::sum(span, key.ad.get(), span.start_of(minute));
                sums.entry(id).or_insert_with(BucketTotals::default).merge(&value.totals);
            }
            for span in SPLIT_SPANS {
                let key = BucketKey { minute: span.start_of(minute).0.into(), ..key };
                splits
                    .entry(keys::split(span, &key))
                    .or_insert_with(BucketTotals::default)
                    .merge(&value.totals);
            }
        }
        (sums, splits)
    }
}

fn bucket(incarnation: u64, revision: u64, ad: u64, minute: u32, accepted: u64) -> Word {
    let key = BucketKey { ad: U64::new(ad), minute: U32::new(minute), ..BucketKey::default() };
    let totals = BucketTotals { accepted: U64::new(accepted), ..BucketTotals::default() };
    let life = Life { node: NodeId(1), incarnation: Incarnation(incarnation) };
    Word::Bucket { life, revision: Revision(revision), key, totals }
}

fn accepted(memory: &Memory, span: Span, ad: u64, minute: u32) -> u64 {
    memory.sums[&keys::sum(span, ad, span.start_of(Minute(minute)))].accepted.get()
}

#[test]
fn a_later_revision_replaces_an_earlier_one_and_is_never_added_to_it() {
    let mut memory = Memory::default();
    memory.apply(&[bucket(1, 1, 7, 100, 10), bucket(1, 2, 7, 100, 15)]);
    assert_eq!(accepted(&memory, Span::Hour, 7, 100), 15);
    memory.apply(&[bucket(1, 3, 7, 100, 16)]);
    memory.apply(&[bucket(1, 2, 7, 100, 15), bucket(1, 3, 7, 100, 16)]);
    assert_eq!(accepted(&memory, Span::Day, 7, 100), 16);
}

#[test]
fn shares_of_two_lives_are_added_up() {
    let mut memory = Memory::default();
    memory.apply(&[bucket(1, 9, 7, 100, 10), bucket(2, 1, 7, 100, 5), bucket(2, 2, 7, 101, 1)]);
    assert_eq!(accepted(&memory, Span::Minute, 7, 100), 15);
    assert_eq!(accepted(&memory, Span::Hour, 7, 100), 16);
}

#[test]
fn a_revision_with_fewer_clicks_takes_away() {
    // A disk that lost blocks: the next start counts again from what is left.
    let mut memory = Memory::default();
    memory.apply(&[bucket(1, 1, 7, 100, 10)]);
    memory.apply(&[bucket(1, 2, 7, 100, 4)]);
    assert_eq!(accepted(&memory, Span::Hour, 7, 100), 4);
}

prop_compose! {
    fn any_word()(
        incarnation in 1_u64..4, revision in 1_u64..9, ad in 1_u64..3, minute in 55_u32..65,
    ) -> Word {
        // What a revision says is a function of it: two records of one revision are the same.
        bucket(incarnation, revision, ad, minute, revision * 10 + incarnation)
    }
}

proptest! {
    #[test]
    fn whatever_comes_twice_or_out_of_order_the_end_is_the_same(
        words in prop::collection::vec(any_word(), 0..80),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        cuts in prop::collection::vec(1_usize..9, 1..20),
    ) {
        let mut in_order = words.clone();
        in_order.sort_by_key(|word| match word {
            Word::Bucket { revision, .. } => *revision,
            _ => Revision(0),
        });
        let mut straight = Memory::default();
        straight.apply(&in_order);
        let mut all = words.clone();
        if !words.is_empty() {
            all.extend(again.iter().map(|index| index.get(&words).clone()));
        }
        let mut crooked = Memory::default();
        let mut rest = &all[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            crooked.apply(now);
            rest = later;
        }
        prop_assert_eq!(&crooked, &straight);
        prop_assert_eq!((crooked.sums.clone(), crooked.splits.clone()), crooked.recounted());
    }
}
