//! What the words of nodes change: a function over values.
//!
//! A bucket is set and never added: of two revisions the higher one is the truth, whichever came first
//! and however often. What is summed up beforehand follows by the difference between the totals that
//! were held and those that came, so sums are those of the buckets at every moment, and no word that
//! comes again, late or out of order can make one wrong.

use std::collections::BTreeMap;

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::ordered::{self, BucketId, UnsketchedId, UsersId};
use weir_common::time::Minute;

use crate::record::{Revision, Word};
use crate::span::Span;
use crate::store::keys::{self, BucketValue, SplitId, SumId};
use crate::users::Users;

/// The spans that are summed up by dimensions; of a minute the buckets themselves say it.
pub const SPLIT_SPANS: [Span; 2] = [Span::Hour, Span::Day];

/// What is held already.
pub trait Held {
    /// Why it cannot be read.
    type Error;

    /// A bucket.
    ///
    /// # Errors
    /// When it cannot be read.
    fn bucket(&self, id: &BucketId) -> Result<Option<BucketValue>, Self::Error>;

    /// The revision of a sketch.
    ///
    /// # Errors
    /// When it cannot be read.
    fn sketch(&self, id: &UsersId) -> Result<Option<Revision>, Self::Error>;
}

/// What is to change. Applied whole or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Buckets, to be set.
    pub buckets: BTreeMap<BucketId, BucketValue>,
    /// What is to be added to the sums of ads, modulo 2^64.
    pub sums: BTreeMap<SumId, BucketTotals>,
    /// What is to be added to the sums by dimensions, modulo 2^64.
    pub splits: BTreeMap<SplitId, BucketTotals>,
    /// Sketches, to be set; and to be united with those of their hour and day.
    pub users: BTreeMap<UsersId, (Revision, Users)>,
    /// Minutes of which some ads have no sketch, and how many clicks at least are in none; to be set.
    pub unsketched: BTreeMap<UnsketchedId, u64>,
    /// The oldest minute that changes.
    pub oldest: Option<Minute>,
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    /// Takes one word.
    ///
    /// # Errors
    /// When what is held cannot be read.
    pub fn take<H: Held>(&mut self, held: &H, word: Word) -> Result<(), H::Error> {
        match word {
            Word::Bucket { life, revision, key, totals } => {
                let value = BucketValue { revision: revision.0.into(), node: life.node.0.into(), totals };
                self.take_bucket(held, &key, ordered::bucket(&key, life.incarnation), value)
            }
            Word::Sketch { life, revision, ad, minute, users } => {
                let id = ordered::users(ad, minute, life.incarnation);
                self.take_sketch(held, id, minute, (revision, users))
            }
            Word::Unsketched { life, minute, clicks } => {
                self.unsketched.insert(ordered::unsketched(minute, life.incarnation), clicks);
                self.note(minute);
                Ok(())
            }
            Word::Told { .. } | Word::Nothing => Ok(()),
        }
    }

    fn take_bucket<H: Held>(
        &mut self,
        held: &H,
        key: &BucketKey,
        id: BucketId,
        value: BucketValue,
    ) -> Result<(), H::Error> {
        let before = match self.buckets.get(&id) {
            Some(before) => Some(*before),
            None => held.bucket(&id)?,
        };
        if before.is_some_and(|before| before.revision.get() >= value.revision.get()) {
            return Ok(());
        }
        let before = before.map_or_else(BucketTotals::default, |before| before.totals);
        self.add(key, &value.totals.since(&before));
        self.buckets.insert(id, value);
        self.note(Minute(key.minute.get()));
        Ok(())
    }

    /// Adds a difference to every sum that has this bucket in it.
    fn add(&mut self, key: &BucketKey, difference: &BucketTotals) {
        let minute = Minute(key.minute.get());
        for span in Span::ALL {
            let id = keys::sum(span, key.ad.get(), span.start_of(minute));
            self.sums.entry(id).or_default().merge(difference);
        }
        for span in SPLIT_SPANS {
            let key = BucketKey { minute: span.start_of(minute).0.into(), ..*key };
            self.splits.entry(keys::split(span, &key)).or_default().merge(difference);
        }
    }

    fn take_sketch<H: Held>(
        &mut self,
        held: &H,
        id: UsersId,
        minute: Minute,
        (revision, users): (Revision, Users),
    ) -> Result<(), H::Error> {
        let before = match self.users.get(&id) {
            Some((before, _)) => Some(*before),
            None => held.sketch(&id)?,
        };
        if before.is_none_or(|before| before < revision) {
            self.users.insert(id, (revision, users));
            self.note(minute);
        }
        Ok(())
    }

    fn note(&mut self, minute: Minute) {
        self.oldest = self.oldest.into_iter().chain([minute]).min();
    }
}

#[cfg(test)]
mod tests;
