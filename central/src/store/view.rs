//! The store as it was at one moment, to answer from.

use std::collections::BTreeMap;

use fjall::{Readable, Snapshot};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::ordered;
use weir_common::time::Minute;
use zerocopy::FromBytes;

use super::keys::{self, BucketValue};
use super::{Spaces, StoreError};
use crate::span::Span;
use crate::users::Union;

/// Totals of one ad in one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summed {
    /// The first minute of the span.
    pub start: Minute,
    /// The totals.
    pub totals: BucketTotals,
}

/// The store at one moment. Cheap to make; what is read through it is consistent.
pub struct View {
    pub(super) snapshot: Snapshot,
    pub(super) spaces: Spaces,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

fn totals(value: &[u8], name: &'static str) -> Result<BucketTotals, StoreError> {
    BucketTotals::read_from_bytes(value).map_err(|_| StoreError::Damaged(name))
}

impl View {
    pub(super) const fn new(snapshot: Snapshot, spaces: Spaces) -> Self {
        Self { snapshot, spaces }
    }

    /// The sums of an ad that begin in these minutes, in order.
    pub fn sums(
        &self,
        span: Span,
        ad: u64,
        minutes: std::ops::Range<Minute>,
    ) -> impl Iterator<Item = Result<Summed, StoreError>> + '_ {
        let range = keys::sum(span, ad, minutes.start)..keys::sum(span, ad, minutes.end);
        self.snapshot.range(&self.spaces.sums, range).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let (_, start) = keys::read_sum(&key).ok_or(StoreError::Damaged("sums"))?;
            Ok(Summed { start, totals: totals(&value, "sums")? })
        })
    }

    /// The sums of all ads that begin in these minutes, span after span and ad after ad.
    pub fn tops(
        &self,
        span: Span,
        minutes: std::ops::Range<Minute>,
    ) -> impl Iterator<Item = Result<(u64, Summed), StoreError>> + '_ {
        let range = keys::top(span, minutes.start, 0)..keys::top(span, minutes.end, 0);
        self.snapshot.range(&self.spaces.tops, range).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let (ad, start) = keys::read_top(&key).ok_or(StoreError::Damaged("tops"))?;
            Ok((ad, Summed { start, totals: totals(&value, "tops")? }))
        })
    }

    /// What is counted of an ad by all dimensions, in spans that begin in these minutes. Of one key
    /// there may be several: a minute has one for each life of a node.
    pub fn splits(
        &self,
        span: Span,
        ad: u64,
        minutes: std::ops::Range<Minute>,
    ) -> Box<dyn Iterator<Item = Result<(BucketKey, BucketTotals), StoreError>> + '_> {
        let range = ordered::of_ad(ad, minutes.start)..ordered::of_ad(ad, minutes.end);
        if span == Span::Minute {
            return Box::new(self.snapshot.range(&self.spaces.buckets, range).map(|entry| {
                let (key, value) = entry.into_inner()?;
                let damaged = || StoreError::Damaged("buckets");
                let (key, _) = ordered::read_bucket(&key).ok_or_else(damaged)?;
                let value = BucketValue::read_from_bytes(&value).map_err(|_| damaged())?;
                Ok((key, value.totals))
            }));
        }
        let of = |start: &[u8]| [&[span as u8], start].concat();
        let range = of(&range.start)..of(&range.end);
        Box::new(self.snapshot.range(&self.spaces.splits, range).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let key = keys::read_split(&key).ok_or(StoreError::Damaged("splits"))?;
            Ok((key, totals(&value, "splits")?))
        }))
    }

    /// How many users clicked these ads in these minutes; none where no sketch is held of them. With `span`
    /// hour or day the minutes begin and end with one, and the union of each is held already.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn users(
        &self,
        span: Span,
        ads: &[u64],
        minutes: std::ops::Range<Minute>,
    ) -> Result<Option<f64>, StoreError> {
        let damaged = || StoreError::Damaged("users");
        let mut union = Union::default();
        for &ad in ads {
            if span == Span::Minute {
                let range = ordered::of_ad(ad, minutes.start)..ordered::of_ad(ad, minutes.end);
                for entry in self.snapshot.range(&self.spaces.users, range) {
                    let value = entry.value()?;
                    let (_, theta) = keys::read_users_value(&value).ok_or_else(damaged)?;
                    union.add(theta).ok_or_else(damaged)?;
                }
            } else {
                let range = keys::sum(span, ad, minutes.start)..keys::sum(span, ad, minutes.end);
                for entry in self.snapshot.range(&self.spaces.user_sums, range) {
                    union.add(&entry.value()?).ok_or_else(damaged)?;
                }
            }
        }
        Ok(union.users())
    }

    /// The minutes among these of which some ads have no sketch.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unsketched(&self, minutes: std::ops::Range<Minute>) -> Result<BTreeMap<Minute, u64>, StoreError> {
        let at = |minute: Minute| minute.0.to_be_bytes();
        let mut found = BTreeMap::new();
        for entry in self.snapshot.range(&self.spaces.unsketched, at(minutes.start)..at(minutes.end)) {
            let (key, value) = entry.into_inner()?;
            let damaged = || StoreError::Damaged("unsketched");
            let (minute, _) = ordered::read_unsketched(&key).ok_or_else(damaged)?;
            let clicks: [u8; 8] = value.as_ref().try_into().map_err(|_| damaged())?;
            *found.entry(minute).or_default() += u64::from_be_bytes(clicks);
        }
        Ok(found)
    }
}
