//! Makes the sketches of unique users again, from the rows, and compares them with those of the
//! store. By the plainest means: it shares nothing with the fold but the library.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use datasketches::theta::ThetaSketchBuilder;
use weir_common::block::BlockHeader;
use weir_common::id::Incarnation;
use weir_common::row::Row;
use weir_common::time::Minute;

use super::report::{AuditFinding, AuditReport};
use crate::forward::embedded::{Store, StoreError};
use crate::forward::uniques::{LG_K, user_of};

/// The life of a journal, minute, ad.
type Key = (Incarnation, Minute, u64);

#[derive(Default)]
struct Sides {
    /// Of each row that counts, so many times.
    users: Vec<u64>,
    stored: Option<Vec<u8>>,
}

/// One pass over a share of the sketches.
pub(super) struct UsersRecount {
    pass: u64,
    passes: u64,
    sides: HashMap<Key, Sides>,
    // Without random keys: every pass must split alike.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl UsersRecount {
    pub(super) fn new((pass, passes): (u64, u64)) -> Self {
        Self { pass, passes, sides: HashMap::new(), hasher: BuildHasherDefault::default() }
    }

    fn is_in_pass(&self, key: Key) -> bool {
        self.passes == 1 || self.hasher.hash_one(key) % self.passes == self.pass
    }

    pub(super) fn row(&mut self, header: &BlockHeader, row: &Row) {
        let Some(user) = user_of(row) else { return };
        let key = (Incarnation(header.incarnation.get()), Minute(row.minute.get()), row.click.ad.get());
        if self.is_in_pass(key) {
            self.sides.entry(key).or_default().users.push(user);
        }
    }

    /// # Errors
    /// When the store cannot be read.
    pub(super) fn compare(mut self, store: &Store, report: &mut AuditReport) -> Result<(), StoreError> {
        for sketch in store.uniques() {
            let (incarnation, _, sketch) = sketch?;
            let key = (incarnation, sketch.minute, sketch.ad);
            if self.is_in_pass(key) {
                self.sides.entry(key).or_default().stored = Some(sketch.theta);
            }
        }
        let mut incomplete = HashSet::new();
        for minute in store.unsketched() {
            let (incarnation, minute) = minute?;
            incomplete.insert((incarnation, minute.minute));
        }
        report.unsketched_minutes = incomplete.len() as u64;
        let mut final_before: BTreeMap<Incarnation, Minute> = BTreeMap::new();
        for ((incarnation, minute, ad), sides) in self.sides {
            let final_before = match final_before.get(&incarnation) {
                Some(known) => *known,
                None => {
                    let read = store.checkpoint_of(incarnation)?.final_before;
                    *final_before.entry(incarnation).or_insert(read)
                }
            };
            let is_incomplete = incomplete.contains(&(incarnation, minute));
            report.sketches += u64::from(sides.stored.is_some());
            if let Some(fault) = sides.fault(minute < final_before, is_incomplete) {
                report.sketch_mismatches += 1;
                report.find(AuditFinding::Sketch { ad, minute: minute.0, fault: fault.to_owned() });
            }
        }
        Ok(())
    }
}

impl Sides {
    fn fault(&self, is_final: bool, is_incomplete: bool) -> Option<&'static str> {
        match &self.stored {
            None if is_final && !is_incomplete => Some("is missing, though its minute is final"),
            None => None,
            Some(_) if !is_final => Some("is there, though its minute is not final"),
            Some(stored) if *stored != sketch(&self.users) => Some("is not that of its rows"),
            Some(_) => None,
        }
    }
}

fn sketch(users: &[u64]) -> Vec<u8> {
    let builder = ThetaSketchBuilder::default().lg_k(LG_K);
    let mut sketch = builder.build().expect("lg_k 12 and the library's own seed are in its range");
    users.iter().for_each(|&user| sketch.update(user));
    sketch.trim();
    sketch.compact(true).serialize()
}
