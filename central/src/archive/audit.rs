//! What has become of archived objects since they were put, and who did it: numbered lines, each put where none was.
//!
//! A line that says what is about to be done names the objects and what becomes of each; one that follows names those
//! it was done to. So the manifest is never rewritten: whoever reads it reads these lines with it. What a line is about
//! to delete is gone for readers already, for nothing but a hold keeps it from being deleted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::day::Day;
use super::manifest::{Entry, ObjectEntry};

/// The folder of lines. Engines pass over names that begin so.
pub const FOLDER: &str = "_audit";

/// What an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Octets.
    pub bytes: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where it stands.
    pub path: String,
    /// What it had.
    pub before: Size,
    /// What it has then; nothing when it is deleted.
    pub after: Option<Size>,
}

/// What was done, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Act {
    /// From now on nothing touches these days.
    Held {
        /// The hold.
        name: String,
        /// The first day.
        start: Day,
        /// The first one behind it.
        end: Day,
    },
    /// A hold is no more.
    Released {
        /// The hold.
        name: String,
    },
    /// Somebody wanted these days deleted and was refused.
    Refused {
        /// The first day.
        start: Day,
        /// The first one behind it.
        end: Day,
    },
    /// Objects of a day are about to lose what is of a user.
    Thinning {
        /// The day.
        day: Day,
        /// Its objects.
        objects: Vec<Change>,
    },
    /// Objects of a day are about to be deleted.
    Deleting {
        /// The day.
        day: Day,
        /// Its objects.
        objects: Vec<Change>,
    },
    /// They have lost it.
    Thinned(Ended),
    /// They are deleted.
    Deleted(Ended),
    /// What was about to be done is not done any further.
    Stopped(Ended),
}

/// How far something was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The line that said what was about to be done.
    pub of: u64,
    /// The day.
    pub day: Day,
    /// The objects it was done to.
    pub objects: Vec<Change>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 0 without gaps.
    pub number: u64,
    /// When, ms since 1970, by the clock of who did it.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What.
    #[serde(flatten)]
    pub act: Act,
}

impl Line {
    /// The day and the objects of one that says what is about to be done.
    #[must_use]
    pub fn intent(&self) -> Option<(Day, &[Change])> {
        match &self.act {
            Act::Thinning { day, objects } | Act::Deleting { day, objects } => Some((*day, objects)),
            _ => None,
        }
    }

    /// What an earlier line wanted, and how far it was done.
    #[must_use]
    pub const fn end(&self) -> Option<&Ended> {
        match &self.act {
            Act::Thinned(ended) | Act::Deleted(ended) | Act::Stopped(ended) => Some(ended),
            _ => None,
        }
    }
}

/// The lines that say what is about to be done and that none has ended yet.
pub fn open(lines: &[Line]) -> impl Iterator<Item = &Line> {
    let ended: BTreeSet<_> = lines.iter().filter_map(Line::end).map(|ended| ended.of).collect();
    lines.iter().filter(move |line| line.intent().is_some() && !ended.contains(&line.number))
}

/// Which line deleted an object, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The line.
    pub line: u64,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
}

/// What has become of an object since it was put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// It is as it was put.
    #[default]
    Whole,
    /// It is about to lose what is of a user, and has this then.
    Thinning(Size),
    /// It has lost it.
    Thinned,
    /// It is gone.
    Deleted(Deletion),
}

/// Tells the manifest's objects what has become of them.
pub fn apply(entries: &mut [Entry], lines: &[Line]) {
    let ended = lines.iter().filter_map(|line| Some((line, line.end()?.objects.as_slice(), true)));
    let begun = open(lines).filter_map(|line| Some((line, line.intent()?.1, false)));
    let mut all: Vec<_> = ended.chain(begun).collect();
    all.sort_unstable_by_key(|(line, ..)| line.number);
    let mut found = BTreeMap::new();
    for (line, objects, is_done) in all {
        found.extend(objects.iter().map(|change| (change.path.as_str(), (line, change, is_done))));
    }
    for object in entries.iter_mut().flat_map(|entry| &mut entry.objects) {
        match found.get(object.path.as_str()) {
            Some((line, change, is_done)) => object.become_as(line, change, *is_done),
            // A line that was about to change it was ended before it came to that.
            None => object.since = Since::Whole,
        }
    }
}

impl ObjectEntry {
    fn become_as(&mut self, line: &Line, change: &Change, is_done: bool) {
        self.since = match change.after {
            None => {
                let (at_ms, reason) = (line.at_ms, line.reason.clone());
                Since::Deleted(Deletion { line: line.number, at_ms, reason })
            }
            Some(after) if is_done => {
                (self.bytes, self.crc32c) = (after.bytes, after.crc32c);
                Since::Thinned
            }
            Some(after) => Since::Thinning(after),
        };
    }

    /// What it has.
    #[must_use]
    pub const fn size(&self) -> Size {
        Size { rows: self.rows, bytes: self.bytes, crc32c: self.crc32c }
    }

    /// Whether these octets are its own, as they are or as they are about to become.
    #[must_use]
    pub fn is(&self, octets: &[u8]) -> bool {
        let crc = crc32c::crc32c(octets);
        crc == self.crc32c || matches!(self.since, Since::Thinning(after) if after.crc32c == crc)
    }

    /// Who deleted it, if it is gone.
    #[must_use]
    pub const fn deletion(&self) -> Option<&Deletion> {
        if let Since::Deleted(deletion) = &self.since { Some(deletion) } else { None }
    }
}

impl std::fmt::Display for Deletion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let day = Day::of(super::manifest::Hour::of(self.at_ms));
        write!(f, "was deleted on {day} ({}), line {} of the audit", self.reason, self.line)
    }
}
