//! Unique users by ad and minute, as mergeable sketches: a pure fold of the rows that are forwarded.
//!
//! Of each counted click (accepted or repeat) whose user key is known (not 0) the key is noted
//! under the minute and the ad its row counts in. What is noted is a set, so a row that is folded
//! twice, in whatever order, changes nothing: a start may read again what it read before. When a
//! minute is final its sketches leave, once, and it is forgotten.
//!
//! A sketch is an Apache DataSketches Theta sketch, lg_k 12, seed 9001, of the keys as 64-bit
//! integers (8 octets, little-endian): trimmed, compact, ordered, uncompressed. Its octets are a
//! function of the set of users alone: up to 4,096 of them exactly, of more the 4,096 smallest
//! hashes. So any engine that recounts the rows gets the same octets.
//!
//! Memory has a bound. What it has no room for gets no sketch, and the minute says so: a sketch
//! that is there is right, whatever happened.
//!
//! It reads no clock and does no I/O. Start reading at [`Uniques`].

mod users;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use weir_common::block::BLOCK_HEADER_LEN;
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::reason::Outcome;
use weir_common::row::{Row, Rows};
use weir_common::time::Minute;

pub use users::LG_K;
use users::{Room, Users, sketch_of};

/// Minutes that say at the most that they lack rows: a day. Longer a journal has no open minutes, but
/// after an outage of its sink.
const SPOILED_MAX: u32 = 24 * 60;

/// The users of one ad in one minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// The minute its clicks count in.
    pub minute: Minute,
    /// The ad.
    pub ad: u64,
    /// The octets of the Theta sketch: compact, ordered, uncompressed.
    pub theta: Vec<u8>,
}

/// A minute of which some ads have no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsketched {
    /// The minute.
    pub minute: Minute,
    /// Clicks that are in no sketch, as far as they are known; at least 1.
    pub clicks: u64,
}

/// What leaves when minutes become final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// By minute and ad.
    pub sketches: Vec<Sketch>,
    /// Minutes whose other ads are without.
    pub unsketched: Vec<Unsketched>,
    /// Sketches that stay here, for they have too few users.
    pub withheld: u64,
    /// Whether some of the minutes lack ads for another reason.
    pub lacks_rows: bool,
}

impl Closing {
    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sketches.is_empty() && self.unsketched.is_empty()
    }

    /// Octets of the sketches.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sketches.iter().map(|sketch| sketch.theta.len() as u64).sum()
    }
}

/// The octets of the sketch of nobody.
#[must_use]
pub fn empty() -> Vec<u8> {
    sketch_of(&[]).compact(true).serialize()
}

/// The user of a row that is to be in a sketch.
#[must_use]
pub fn user_of(row: &Row) -> Option<u64> {
    let is_counted = row.outcome == Outcome::Accepted as u8 || row.outcome == Outcome::Repeat as u8;
    let user = row.click.user_key.get();
    (is_counted && user != 0).then_some(user)
}

/// The users of the minutes that are not final yet.
#[derive(Debug, Default)]
pub struct Uniques {
    room: Room,
    minutes: BTreeMap<Minute, Ads>,
    /// Minutes before this one are final.
    open_from: Minute,
    /// Minutes before this one lack rows and get no sketch.
    spoiled_before: Minute,
    /// The last block of each stream that was folded.
    folded: BTreeMap<(Epoch, WorkerId), BlockSeq>,
}

/// One minute.
#[derive(Debug, Default)]
struct Ads {
    users: HashMap<u64, Users>,
    /// It takes no ad any more that it does not have: one it refused would come back with a part
    /// of its users.
    is_closed_to_others: bool,
    unsketched: u64,
}

impl Uniques {
    /// Nothing yet, and room for so many bytes. With room for nothing there are no sketches, and
    /// every minute with users says so.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { room: Room::new(bytes_max), ..Self::default() }
    }

    /// Folds the rows of a block; of one that was folded before, nothing.
    pub fn block(&mut self, writer: (Epoch, WorkerId), sequence: BlockSeq, block: &[u8]) {
        let folded = self.folded.entry(writer).or_default();
        if sequence <= *folded {
            return;
        }
        *folded = sequence;
        for (row, _) in Rows::new(block.get(BLOCK_HEADER_LEN..).unwrap_or_default()) {
            self.row(row);
        }
    }

    /// Folds a row.
    #[inline]
    pub fn row(&mut self, row: &Row) {
        if let Some(user) = user_of(row) {
            self.note(Minute(row.minute.get()), row.click.ad.get(), user);
        }
    }

    fn note(&mut self, minute: Minute, ad: u64, user: u64) {
        if minute < self.open_from {
            return;
        }
        let is_spoiled = minute < self.spoiled_before;
        let ads = self.minutes.entry(minute).or_default();
        ads.is_closed_to_others |= is_spoiled;
        let is_noted = match ads.users.entry(ad) {
            Entry::Occupied(mut held) => match held.get_mut().insert(user, &mut self.room) {
                Ok(()) => true,
                Err(_) => {
                    ads.unsketched += held.remove().give_up(&mut self.room);
                    false
                }
            },
            Entry::Vacant(_) if ads.is_closed_to_others => false,
            Entry::Vacant(place) => match Users::new(user, &mut self.room) {
                Ok(users) => {
                    place.insert(users);
                    true
                }
                Err(_) => false,
            },
        };
        if !is_noted {
            ads.unsketched += 1;
            ads.is_closed_to_others = true;
        }
    }

    /// Minutes before this one lack rows that the sink has, some perhaps all of them: no sketch of
    /// theirs would be right, and all of them say so.
    pub fn spoil(&mut self, before: Minute) {
        self.spoiled_before = self.spoiled_before.max(before);
        // When no minute was final yet, what is held tells where they begin.
        let held = self.minutes.keys().next().map_or(before.0, |minute| minute.0);
        let from = if self.open_from.0 > 0 { self.open_from.0 } else { held };
        for minute in from.max(before.0.saturating_sub(SPOILED_MAX))..before.0 {
            self.minutes.entry(Minute(minute)).or_default();
        }
        for (_, ads) in self.minutes.range_mut(..before) {
            ads.is_closed_to_others = true;
            ads.unsketched += ads.users.drain().map(|(_, users)| users.give_up(&mut self.room)).sum::<u64>();
        }
    }

    /// What leaves when the minutes before `closed` are final; and the first minute that is not:
    /// an earlier one where that is more than `bytes_max`, but always further than one minute
    /// that has anything. Sketches of fewer than `users_min` users stay here, and their minute says so.
    pub fn close(&mut self, closed: Minute, bytes_max: u64, users_min: usize) -> (Minute, Closing) {
        let (mut closing, mut bytes) = (Closing::default(), 0);
        for (&minute, ads) in self.minutes.range_mut(..closed) {
            if bytes > 0 && bytes + ads.bytes_about() > bytes_max {
                return (minute, closing);
            }
            let from = closing.sketches.len();
            let mut withheld = 0;
            for (&ad, users) in &mut ads.users {
                if users.are_fewer_than(users_min) {
                    withheld += 1;
                } else {
                    closing.sketches.push(Sketch { minute, ad, theta: users.theta() });
                }
            }
            closing.sketches[from..].sort_unstable_by_key(|sketch| sketch.ad);
            bytes += closing.sketches[from..].iter().map(|sketch| sketch.theta.len() as u64).sum::<u64>();
            if ads.is_closed_to_others || withheld > 0 {
                // At least one click a sketch that stays.
                closing.unsketched.push(Unsketched { minute, clicks: (ads.unsketched + withheld).max(1) });
            }
            closing.withheld += withheld;
            closing.lacks_rows |= ads.is_closed_to_others;
        }
        (closed, closing)
    }

    /// Minutes before this one are final at the sink.
    pub fn settle(&mut self, final_before: Minute) {
        self.open_from = self.open_from.max(final_before);
        while let Some(minute) = self.minutes.first_entry().filter(|minute| *minute.key() < self.open_from) {
            for (_, users) in minute.remove().users {
                users.give_up(&mut self.room);
            }
        }
    }

    /// Sketches held, and the bytes they take.
    #[must_use]
    pub fn held(&self) -> (u64, u64) {
        (self.minutes.values().map(|ads| ads.users.len() as u64).sum(), self.room.used())
    }

    /// Clicks of open minutes that are in no sketch.
    #[must_use]
    pub fn unsketched(&self) -> u64 {
        self.minutes.values().map(|ads| ads.unsketched).sum()
    }
}

impl Ads {
    /// No less than the octets of its sketches.
    fn bytes_about(&self) -> u64 {
        self.users.values().map(Users::theta_bytes_max).sum()
    }
}

#[cfg(test)]
mod tests;
