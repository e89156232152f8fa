//! What is to be done to an archive today: a function over what is in it, what was done before, the policy and the day.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::archive::audit::{self, Act, Line, Since};
use crate::archive::day::Day;
use crate::archive::manifest::{Entry, ObjectEntry};

/// Objects of one line of the audit: one is some 200 octets, and a line is to stay one small object.
pub const OBJECTS_MAX: usize = 1000;
/// Days after a day's end before it may go by hand: only then is a count of it over that reads a signature's lifetime.
const OVER_DAYS: u64 = 1;

/// `[archive.retention]`: how long what is kept, counted from the end of the day on which it was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Days for which everything is kept; then what is of a user goes. For ever without it.
    pub full_days: Option<NonZeroU32>,
    /// Days for which anything is kept. For ever without it.
    pub billed_days: Option<NonZeroU32>,
}

impl Policy {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When it says nothing, or cannot be.
    pub fn check(&self) -> Result<(), String> {
        match (self.full_days, self.billed_days) {
            (None, None) => {
                Err("full_days, billed_days, or both; without the section all is kept for ever".to_owned())
            }
            (Some(full), Some(billed)) if full >= billed => {
                Err(format!("full_days is {full} and has to be less than billed_days, which is {billed}"))
            }
            _ => Ok(()),
        }
    }

    /// What it says becomes of a day that ended so many days ago, the most first: what may not be deleted is at
    /// least thinned.
    fn due(&self, ended_days_ago: u64) -> impl Iterator<Item = What> + use<> {
        let is_over = |days: Option<NonZeroU32>| days.is_some_and(|days| ended_days_ago >= days.get().into());
        let delete = is_over(self.billed_days).then_some(What::Delete);
        delete.into_iter().chain(is_over(self.full_days).then_some(What::Thin))
    }
}

/// What becomes of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What is of a user goes.
    Thin,
    /// All of it goes.
    Delete,
}

/// Days that nothing touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Its name.
    pub name: String,
    /// The first day.
    pub start: Day,
    /// The first one behind it.
    pub end: Day,
    /// Why.
    pub reason: String,
    /// Who holds.
    pub by: String,
    /// Since when, ms since 1970.
    pub at_ms: u64,
    /// The line that says so.
    pub line: u64,
}

/// The holds that nobody has released, by name.
#[must_use]
pub fn holds(lines: &[Line]) -> BTreeMap<String, Hold> {
    let mut holds = BTreeMap::new();
    for line in lines {
        match &line.act {
            Act::Held { name, start, end } => {
                let (reason, by) = (line.reason.clone(), line.by.clone());
                let (start, end, at_ms, line) = (*start, *end, line.at_ms, line.number);
                let hold = Hold { name: name.clone(), start, end, reason, by, at_ms, line };
                holds.insert(name.clone(), hold);
            }
            Act::Released { name } => {
                holds.remove(name);
            }
            _ => {}
        }
    }
    holds
}

/// The hold that a day is under, if it is under one. A held day is one that can be counted again, so what was received on the day
/// before and the day after is held with it.
#[must_use]
pub fn held(lines: &[Line], day: Day) -> Option<String> {
    let covers = |hold: &Hold| day.around().any(|day| (hold.start..hold.end).contains(&day));
    holds(lines).into_values().find(covers).map(|hold| hold.name)
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// End what a line said was about to be done: do it, or as much as no hold forbids.
    Finish {
        /// The line.
        line: u64,
    },
    /// Begin with objects of a day.
    Begin {
        /// What becomes of them.
        what: What,
        /// The day.
        day: Day,
        /// The objects.
        objects: Vec<String>,
    },
}

/// Why a day that is due stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, displaydoc::Display)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// it is held by {0:?}
    Held(String),
    /// {0} has not been reconciled with all that the archive has of it: `weir-central reconcile --day {0}` does that
    NotReconciled(Day),
    /// something of it came after a day beside it was deleted, so nobody can count it again: `weir-central forget` deletes it by hand
    Late,
}

/// A day that is due and stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The day.
    pub day: Day,
    /// What would have become of it.
    pub what: What,
    /// Why it does not.
    pub why: Why,
}

/// What is to be done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What to do.
    pub steps: Vec<Step>,
    /// What is due and not done.
    pub kept: Vec<Kept>,
}

/// Why days are not deleted by hand.
#[derive(Clone, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum Refusal {
    /// there is nothing of these days in the archive
    Nothing,
    /// {day} has only begun, or ended less than a day ago, and clicks of it may still come
    New {
        /// The day.
        day: Day,
    },
    /// {day} stays: {why}
    Kept {
        /// The day.
        day: Day,
        /// Why.
        why: Why,
    },
}

/// What is known of one day.
#[derive(Debug, Default)]
struct Holding<'a> {
    objects: Vec<&'a ObjectEntry>,
    /// The last batch that has something of it.
    last: u64,
    /// Something of it is deleted.
    is_deleted: bool,
}

/// An archive by the day on which its clicks were received.
#[derive(Debug)]
pub struct Archive<'a> {
    days: BTreeMap<Day, Holding<'a>>,
    lines: &'a [Line],
}

impl<'a> Archive<'a> {
    /// What manifest and audit say.
    #[must_use]
    pub fn of(entries: &'a [Entry], lines: &'a [Line]) -> Self {
        let mut days: BTreeMap<_, Holding<'_>> = BTreeMap::new();
        for entry in entries {
            for object in &entry.objects {
                let holding = days.entry(Day::of(object.hour)).or_default();
                holding.last = holding.last.max(entry.batch);
                holding.is_deleted |= object.deletion().is_some();
                holding.objects.push(object);
            }
        }
        Self { days, lines }
    }

    /// The days whose reports [`Archive::plan`] asks for.
    #[must_use]
    pub fn asks_for(&self, policy: &Policy, today: Day) -> BTreeSet<Day> {
        let due =
            self.due(policy, today).into_iter().filter(|(day, what)| !self.of_what(*day, *what).is_empty());
        due.flat_map(|(day, _)| day.around()).collect()
    }

    /// The days whose reports [`Archive::by_hand`] asks for.
    #[must_use]
    pub fn asks_for_by_hand(&self, range: std::ops::Range<Day>) -> BTreeSet<Day> {
        self.days.range(range).flat_map(|(day, _)| day.around()).collect()
    }

    /// What is due, by day, the most first.
    fn due(&self, policy: &Policy, today: Day) -> Vec<(Day, What)> {
        let of = |day: Day| policy.due(ended_days_ago(day, today)).map(move |what| (day, what));
        self.days.keys().copied().flat_map(of).collect()
    }

    /// The objects of a day to which this can still be done.
    fn of_what(&self, day: Day, what: What) -> Vec<&'a ObjectEntry> {
        let is_left = |object: &&&ObjectEntry| match object.since {
            Since::Whole => true,
            Since::Thinned => what == What::Delete,
            // A line is about to do it; that is ended first.
            Since::Thinning(_) | Since::Deleted(_) => false,
        };
        let holding = self.days.get(&day);
        holding.map_or_else(Vec::new, |holding| holding.objects.iter().filter(is_left).copied().collect())
    }

    /// Why a day stays as it is, if it does. `reconciled` has how many batches each day was last reconciled from.
    fn forbids(&self, day: Day, what: What, reconciled: &BTreeMap<Day, u64>) -> Option<Why> {
        if let Some(name) = held(self.lines, day) {
            return Some(Why::Held(name));
        }
        let last = |day: &Day| self.days.get(day).map(|holding| holding.last);
        let own = last(&day)?;
        // Nothing that a count reads changes when it is thinned. What is deleted is missing from the counts of the days
        // beside it too, so those have to be over.
        let counted = day.around().filter(|beside| what == What::Delete || *beside == day);
        for beside in counted {
            let Some(last) = last(&beside) else { continue };
            if reconciled.get(&beside).is_some_and(|batches| *batches > last.max(own)) {
                continue;
            }
            let is_closed = |day: Day| self.days.get(&day).is_some_and(|holding| holding.is_deleted);
            let is_late = beside.around().any(is_closed);
            return Some(if is_late { Why::Late } else { Why::NotReconciled(beside) });
        }
        None
    }

    /// What is to be done by a policy.
    #[must_use]
    pub fn plan(&self, policy: &Policy, today: Day, reconciled: &BTreeMap<Day, u64>) -> Plan {
        let mut plan = Plan::default();
        plan.steps.extend(audit::open(self.lines).map(|line| Step::Finish { line: line.number }));
        let mut begun = None;
        for (day, what) in self.due(policy, today) {
            let objects = self.of_what(day, what);
            if objects.is_empty() || begun == Some(day) {
                continue;
            }
            match self.forbids(day, what, reconciled) {
                None => {
                    plan.steps.extend(begin(what, day, &objects));
                    begun = Some(day);
                }
                Some(why) if plan.kept.last().is_some_and(|kept| kept.day == day && kept.why == why) => {}
                Some(why) => plan.kept.push(Kept { day, what, why }),
            }
        }
        plan
    }

    /// What is to be done to delete days by hand.
    ///
    /// # Errors
    /// When one of them has to stay.
    pub fn by_hand(
        &self,
        range: std::ops::Range<Day>,
        today: Day,
        reconciled: &BTreeMap<Day, u64>,
    ) -> Result<Vec<Step>, Refusal> {
        let mut steps = Vec::new();
        for day in self.days.range(range).map(|(day, _)| *day) {
            let objects = self.of_what(day, What::Delete);
            if objects.is_empty() {
                continue;
            }
            if ended_days_ago(day, today) < OVER_DAYS {
                return Err(Refusal::New { day });
            }
            match self.forbids(day, What::Delete, reconciled) {
                None | Some(Why::Late) => steps.extend(begin(What::Delete, day, &objects)),
                Some(why) => return Err(Refusal::Kept { day, why }),
            }
        }
        if steps.is_empty() { Err(Refusal::Nothing) } else { Ok(steps) }
    }
}

const fn ended_days_ago(day: Day, today: Day) -> u64 {
    today.0.saturating_sub(day.0.saturating_add(1))
}

fn begin(what: What, day: Day, objects: &[&ObjectEntry]) -> Vec<Step> {
    let step = |objects: &[&ObjectEntry]| {
        let objects = objects.iter().map(|object| object.path.clone()).collect();
        Step::Begin { what, day, objects }
    };
    objects.chunks(OBJECTS_MAX).map(step).collect()
}
