//! The unique users of the rows at the sink, and the sketches it was given of them.

use std::collections::{BTreeMap, BTreeSet};

use datasketches::theta::ThetaSketchBuilder;
use weir::forward::{Batch, Sketch};
use weir_common::reason::Outcome;
use weir_common::row::Row;

use super::{Verdict, hold};

/// A minute and an ad.
type Key = (u32, u64);

/// What the rows say, and what the node said of them.
#[derive(Debug, Default)]
pub(super) struct UsersAtSink {
    users: BTreeMap<Key, BTreeSet<u64>>,
    sketches: BTreeMap<Key, (u64, Vec<u8>)>,
    /// Minutes of which the node said that some ads have no sketch.
    incomplete: BTreeSet<u32>,
    /// What the disk destroyed rows of.
    destroyed: BTreeSet<Key>,
    final_before: u32,
}

impl UsersAtSink {
    /// A row came to the sink.
    pub(super) fn note(&mut self, row: &Row) {
        let is_counted = [Outcome::Accepted as u8, Outcome::Repeat as u8].contains(&row.outcome);
        let user = row.click.user_key.get();
        if is_counted && user != 0 {
            self.users.entry((row.minute.get(), row.click.ad.get())).or_default().insert(user);
        }
    }

    /// The disk destroyed a row.
    pub(super) fn destroyed(&mut self, row: &Row) {
        self.destroyed.insert((row.minute.get(), row.click.ad.get()));
    }

    /// A batch came to the sink, after its rows.
    pub(super) fn take(&mut self, batch: &Batch) -> Verdict {
        let (before, now) = (self.final_before, batch.checkpoint.final_before.0);
        hold!(before <= now, "minutes were final before {before}, and now only before {now}");
        self.final_before = now;
        for Sketch { minute, ad, theta } in &batch.uniques.sketches {
            let key = (minute.0, *ad);
            hold!(
                (before..now).contains(&minute.0),
                "the sketch of {key:?} comes when {before} to {now} become final"
            );
            let old = self.sketches.insert(key, (batch.flush.0, theta.clone()));
            hold!(old.is_none(), "the sketch of {key:?} came again");
        }
        self.incomplete.extend(batch.uniques.unsketched.iter().map(|minute| minute.minute.0));
        self.of_minutes_are_the_recount(before, now)
    }

    /// Whether every sketch is that of the rows at the sink, and none is missing without a word.
    pub(super) fn are_the_recount(&self) -> Verdict {
        for key in self.sketches.keys() {
            hold!(self.users.contains_key(key), "there is a sketch of {key:?}, and no row");
        }
        self.of_minutes_are_the_recount(0, self.final_before)
    }

    fn of_minutes_are_the_recount(&self, from: u32, before: u32) -> Verdict {
        for (key, users) in self.users.range((from, 0)..(before, 0)) {
            match self.sketches.get(key) {
                Some((_, theta)) => {
                    // What was destroyed after a start had read it is counted, as in the bucket.
                    hold!(
                        *theta == sketch(users) || self.destroyed.contains(key),
                        "the sketch of {key:?} is not that of its users {users:?}"
                    );
                }
                // A start that finds no row of a minute, for the disk destroyed them, and no minute
                // final, cannot know of it.
                None => hold!(
                    self.incomplete.contains(&key.0) || self.destroyed.contains(key),
                    "there is no sketch of {key:?}"
                ),
            }
        }
        Ok(())
    }

    pub(super) fn sketches(&self) -> u64 {
        self.sketches.len() as u64
    }
}

fn sketch(users: &BTreeSet<u64>) -> Vec<u8> {
    let mut sketch = ThetaSketchBuilder::default().lg_k(12).seed(9001).build().expect("a sketch");
    users.iter().for_each(|&user| sketch.update(user));
    sketch.trim();
    sketch.compact(true).serialize()
}
