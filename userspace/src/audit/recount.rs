//! Counts rows again and compares with the buckets of the store.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

use weir_common::block::BlockHeader;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{ImpressionId, Incarnation};
use weir_common::row::{Row, row_flags};

use super::report::{AuditFinding, AuditReport};
use crate::forward::Bucket;
use crate::journal::BlockIdentity;

/// One click, as deduplication tells them apart: life of the journal (by order of appearance),
/// impression, ordinal, and whether the id is foreign.
type ClickKey = (u16, ImpressionId, u8, bool);

/// A bucket of a life of the journal.
type Counted = (u16, BucketKey);

#[derive(Default)]
struct Sides {
    recounted: BucketTotals,
    stored: BucketTotals,
}

/// One pass over a share of ids and buckets.
pub(super) struct Recount {
    dimensions: Dimensions,
    pass: u64,
    passes: u64,
    lives: Vec<Incarnation>,
    clicks: HashSet<ClickKey>,
    buckets: HashMap<Counted, Sides>,
    // Without random keys: every pass must split alike.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Recount {
    pub(super) fn new(dimensions: Dimensions, (pass, passes): (u64, u64)) -> Self {
        Self {
            dimensions,
            pass,
            passes,
            lives: Vec::new(),
            clicks: HashSet::new(),
            buckets: HashMap::new(),
            hasher: BuildHasherDefault::default(),
        }
    }

    fn is_in_pass(&self, key: impl Hash) -> bool {
        self.passes == 1 || self.hasher.hash_one(key) % self.passes == self.pass
    }

    fn life(&mut self, incarnation: Incarnation) -> u16 {
        let known = self.lives.iter().position(|&life| life == incarnation);
        known.unwrap_or_else(|| {
            self.lives.push(incarnation);
            self.lives.len() - 1
        }) as u16
    }

    pub(super) fn row(&mut self, header: &BlockHeader, row: &Row, report: &mut AuditReport) {
        let life = self.life(Incarnation(header.incarnation.get()));
        let click = (life, row.click.impression, row.click.ordinal, row.click.is_foreign());
        if self.is_in_pass(click) && !self.clicks.insert(click) {
            let of = BlockIdentity::of(header);
            report.clicks_twice += 1;
            report.find(AuditFinding::ClickTwice {
                impression: format!("{:032x}", u128::from_be_bytes(row.click.impression.0)),
                ordinal: row.click.ordinal,
                epoch: of.epoch.0,
                worker: of.worker.0,
                sequence: of.sequence.0,
            });
        }
        let key = (life, self.dimensions.key(row.minute.get(), &row.click, header.rules()));
        if self.is_in_pass(key) {
            report.unscored += u64::from(row.flags & row_flags::UNSCORED != 0);
            self.buckets.entry(key).or_default().recounted.count(row);
        }
    }

    pub(super) fn stored(&mut self, incarnation: Incarnation, bucket: &Bucket) {
        let life = self.life(incarnation);
        let key = (life, bucket.key);
        if self.is_in_pass(key) {
            self.buckets.entry(key).or_default().stored.merge(&bucket.totals);
        }
    }

    pub(super) fn compare(self, report: &mut AuditReport) {
        for ((_, key), sides) in self.buckets {
            report.buckets += 1;
            report.unsigned += sides.recounted.unsigned.get();
            report.marked += sides.recounted.marked.get();
            report.cost_micros += sides.recounted.cost_micros.get();
            report.marked_cost_micros += sides.recounted.marked_cost_micros.get();
            *report.gross_by_rules.entry(key.rules.get()).or_default() += sides.recounted.gross();
            *report.ads.entry(key.ad.get()).or_default() += sides.recounted.gross();
            if sides.recounted != sides.stored {
                report.bucket_mismatches += 1;
                report.find(AuditFinding::Bucket {
                    ad: key.ad.get(),
                    minute: key.minute.get(),
                    key: format!("{key:?}"),
                    stored: text(&sides.stored),
                    recounted: text(&sides.recounted),
                });
            }
        }
    }
}

fn text(totals: &BucketTotals) -> String {
    format!(
        "gross {} accepted {} unsigned {} marked {} repeat {} late {} cost {}",
        totals.gross(),
        totals.accepted,
        totals.unsigned,
        totals.marked,
        totals.repeat,
        totals.late,
        totals.cost_micros
    )
}
