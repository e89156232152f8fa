//! Retention: what the archive has of a user goes after some time, and all of it after a longer one; holds keep days as they
//! are; and whatever is done leaves lines in the [`audit`].
//!
//! ```text
//! manifest, audit, reports, policy, today -> plan -> line: about to -> objects -> line: done
//! ```
//!
//! A line is put under the number after the last one that its plan was made from, where there is none: so of two who act
//! at the same time one makes a new plan, from what the other did. What is left in the middle is open in the audit, and the next
//! run ends it. It never touches what a hold covers, what was not reconciled, and any count. Start reading at [`plan`].

pub mod command;
pub mod plan;
mod reports;
pub mod thin;

use parquet::errors::ParquetError;

use crate::archive::audit::{self, Act, Change, Ended, Line, Size};
use crate::archive::contents::{Catalog, Contents};
use crate::archive::day::Day;
use crate::archive::manifest::{Hour, ObjectEntry};
use crate::archive::place::{Place, PlaceError};
use plan::{Archive, Hold, Plan, Policy, Refusal, Step, What};
use reports::Reports;

/// How often a line is tried under the next number: so many others may act at the same time.
const LINES_MAX: usize = 100;
/// Steps of one run: a thousand objects each, and a day has some hundred. What is left the next run does.
const STEPS_MAX: usize = 10_000;

/// Why something is not done.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RetentionError {
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Refused(#[from] Refusal),
    /// {path}: {source}; the object is damaged, so it stays as it is
    Object {
        /// The object.
        path: String,
        /// Why.
        source: ParquetError,
    },
    /// {path} is not what manifest and audit say, so it stays as it is
    Checksum {
        /// The object.
        path: String,
    },
    /// there is a hold {0:?} already: release it, or take another name
    Held(String),
    /// there is no hold {0:?}; `weir-central holds` lists those there are
    NoHold(String),
    /// others write to the audit all the time; try it again
    Contended,
}

/// Who acts, and by which clock.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// Who.
    pub by: &'a str,
    /// Milliseconds since 1970.
    pub now_ms: &'a dyn Fn() -> u64,
}

impl std::fmt::Debug for Actor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Actor<'_> {
    fn line(&self, number: usize, reason: &str, act: Act) -> Line {
        let (by, reason) = (self.by.to_owned(), reason.to_owned());
        Line { number: number as u64, at_ms: (self.now_ms)(), by, reason, act }
    }

    fn today(&self) -> Day {
        Day::of(Hour::of((self.now_ms)()))
    }
}

/// Somebody at an archive.
#[derive(Debug)]
pub struct Keeper<'a> {
    catalog: Catalog,
    actor: Actor<'a>,
}

impl<'a> Keeper<'a> {
    /// This one, at this archive.
    #[must_use]
    pub fn of(place: Place, actor: Actor<'a>) -> Self {
        Self { catalog: Catalog::of(place), actor }
    }

    const fn place(&self) -> &Place {
        self.catalog.place()
    }

    /// What a policy wants done today.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub async fn plan(&self, policy: &Policy) -> Result<Plan, RetentionError> {
        let contents = self.catalog.look().await?;
        self.plan_of(&contents, policy, &mut Reports::default()).await
    }

    async fn plan_of(
        &self,
        contents: &Contents,
        policy: &Policy,
        reports: &mut Reports,
    ) -> Result<Plan, RetentionError> {
        let archive = Archive::of(contents.entries(), contents.lines());
        let today = self.actor.today();
        let reconciled = reports.of(self.place(), archive.asks_for(policy, today)).await?;
        Ok(archive.plan(policy, today, reconciled))
    }

    /// Does what a policy wants done today: ends what was left in the middle, then begins. What it says is what is left to do,
    /// which is only what has to stay.
    ///
    /// # Errors
    /// When the archive fails, or has what it should not. What was begun the next run ends.
    pub async fn retain(&self, policy: &Policy) -> Result<Plan, RetentionError> {
        let mut reports = Reports::default();
        for _ in 0..STEPS_MAX {
            let contents = self.catalog.look().await?;
            let plan = self.plan_of(&contents, policy, &mut reports).await?;
            let Some(step) = plan.steps.first() else { return Ok(plan) };
            let days = |days: Option<std::num::NonZeroU32>| days.map_or(0, std::num::NonZeroU32::get);
            let reason = match step {
                Step::Begin { what: What::Thin, .. } => {
                    format!("policy: full_days = {}", days(policy.full_days))
                }
                _ => format!("policy: billed_days = {}", days(policy.billed_days)),
            };
            self.take(&contents, step, &reason).await?;
        }
        self.plan(policy).await
    }

    /// Deletes days by hand. A refusal leaves a line too.
    ///
    /// # Errors
    /// When one of them has to stay, or the archive fails.
    pub async fn forget(&self, range: std::ops::Range<Day>, reason: &str) -> Result<(), RetentionError> {
        let mut reports = Reports::default();
        let mut has_begun = false;
        for _ in 0..STEPS_MAX {
            let contents = self.catalog.look().await?;
            if let Some(left) = audit::open(contents.lines()).next() {
                // Perhaps by a run like this one.
                has_begun |= left.intent().is_some_and(|(day, _)| range.contains(&day));
                self.finish(left.number).await?;
                continue;
            }
            let archive = Archive::of(contents.entries(), contents.lines());
            let reconciled = reports.of(self.place(), archive.asks_for_by_hand(range.clone())).await?;
            match archive.by_hand(range.clone(), self.actor.today(), reconciled) {
                Ok(steps) => {
                    if let Some(step) = steps.first() {
                        has_begun |= self.take(&contents, step, reason).await?;
                    }
                }
                Err(Refusal::Nothing) if has_begun => return Ok(()),
                Err(refusal) => {
                    let act = Act::Refused { start: range.start, end: range.end };
                    self.write(&format!("{reason}: {refusal}"), |_| Ok(Some(act.clone()))).await?;
                    return Err(refusal.into());
                }
            }
        }
        Err(RetentionError::Contended)
    }

    /// Lets nothing touch these days until they are released: from the moment at which this returns, but for the one object that
    /// somebody else is about to change just then.
    ///
    /// # Errors
    /// When there is such a hold already.
    pub async fn hold(
        &self,
        name: &str,
        range: std::ops::Range<Day>,
        reason: &str,
    ) -> Result<(), RetentionError> {
        let act = Act::Held { name: name.to_owned(), start: range.start, end: range.end };
        let unless_held = |lines: &[Line]| {
            let is_held = plan::holds(lines).contains_key(name);
            if is_held { Err(RetentionError::Held(name.to_owned())) } else { Ok(Some(act.clone())) }
        };
        self.write(reason, unless_held).await
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn release(&self, name: &str, reason: &str) -> Result<(), RetentionError> {
        let act = Act::Released { name: name.to_owned() };
        let if_held = |lines: &[Line]| {
            let is_held = plan::holds(lines).contains_key(name);
            if is_held { Ok(Some(act.clone())) } else { Err(RetentionError::NoHold(name.to_owned())) }
        };
        self.write(reason, if_held).await
    }

    /// The holds that nobody has released.
    ///
    /// # Errors
    /// When the audit cannot be read.
    pub async fn holds(&self) -> Result<Vec<Hold>, RetentionError> {
        Ok(plan::holds(self.catalog.look().await?.lines()).into_values().collect())
    }

    /// All that was done, in order.
    ///
    /// # Errors
    /// When the audit cannot be read.
    pub async fn audit(&self) -> Result<Vec<Line>, RetentionError> {
        Ok(self.catalog.look().await?.lines().to_vec())
    }

    /// Writes a line of what is still wanted once all lines before it are known; where that is nothing, none.
    async fn write(
        &self,
        reason: &str,
        wanted: impl Fn(&[Line]) -> Result<Option<Act>, RetentionError>,
    ) -> Result<(), RetentionError> {
        for _ in 0..LINES_MAX {
            let contents = self.catalog.look().await?;
            let Some(act) = wanted(contents.lines())? else { return Ok(()) };
            if self.place().append(&self.actor.line(contents.lines().len(), reason, act)).await? {
                return Ok(());
            }
        }
        Err(RetentionError::Contended)
    }

    /// Takes one step of a plan that was made from this. False when somebody else has written a line since: then that plan is
    /// none any more.
    async fn take(&self, contents: &Contents, step: &Step, reason: &str) -> Result<bool, RetentionError> {
        match step {
            Step::Finish { line } => self.finish(*line).await?,
            Step::Begin { what, day, objects } => {
                let named = contents.entries().iter().flat_map(|entry| &entry.objects);
                let mut changes = Vec::with_capacity(objects.len());
                for object in named.filter(|object| objects.contains(&object.path)) {
                    changes.push(self.change(*what, object).await?);
                }
                let (day, objects) = (*day, changes);
                let act = match what {
                    What::Thin => Act::Thinning { day, objects },
                    What::Delete => Act::Deleting { day, objects },
                };
                let line = self.actor.line(contents.lines().len(), reason, act);
                if !self.place().append(&line).await? {
                    return Ok(false);
                }
                tracing::info!(line = line.number, ?what, %day, "begun");
                self.finish(line.number).await?;
            }
        }
        Ok(true)
    }

    /// What becomes of an object.
    async fn change(&self, what: What, object: &ObjectEntry) -> Result<Change, RetentionError> {
        let after = match what {
            What::Delete => None,
            What::Thin => {
                let octets = self.place().get(&object.path).await?;
                if crc32c::crc32c(&octets) != object.crc32c {
                    return Err(RetentionError::Checksum { path: object.path.clone() });
                }
                Some(size(&thinned(&object.path, octets)?, object.rows))
            }
        };
        Ok(Change { path: object.path.clone(), before: object.size(), after })
    }

    /// Does what a line said was about to be done, as far as no hold forbids it, and writes how far that was. Doing it again
    /// changes nothing; so it does not matter what was done of it before.
    async fn finish(&self, number: u64) -> Result<(), RetentionError> {
        let mut done: Vec<Change> = Vec::new();
        let mut stop: Option<String> = None;
        let Some((reason, day, objects)) = self.still_open(number).await? else { return Ok(()) };
        for change in &objects {
            // Each time: a hold that comes while this is under way keeps what is left.
            let contents = self.catalog.look().await?;
            stop = stop.or_else(|| Some(format!("it is held by {:?}", plan::held(contents.lines(), day)?)));
            if stop.is_none() {
                stop = self.make(change).await?;
            }
            if stop.is_none() || self.is_done(change).await? {
                done.push(change.clone());
            }
        }
        let ended = Ended { of: number, day, objects: done };
        let is_thinning = objects.iter().any(|change| change.after.is_some());
        let act = match &stop {
            Some(_) => Act::Stopped(ended),
            None if is_thinning => Act::Thinned(ended),
            None => Act::Deleted(ended),
        };
        let if_open =
            |lines: &[Line]| Ok(audit::open(lines).any(|line| line.number == number).then(|| act.clone()));
        self.write(stop.as_ref().unwrap_or(&reason), if_open).await
    }

    /// What a line said was about to be done, unless it has been ended.
    async fn still_open(&self, number: u64) -> Result<Option<(String, Day, Vec<Change>)>, RetentionError> {
        let contents = self.catalog.look().await?;
        let line = audit::open(contents.lines()).find(|line| line.number == number);
        Ok(line.and_then(|line| {
            let (day, objects) = line.intent()?;
            Some((line.reason.clone(), day, objects.to_vec()))
        }))
    }

    /// Whether an object is what a line wanted it to be.
    async fn is_done(&self, change: &Change) -> Result<bool, RetentionError> {
        let Some(after) = change.after else { return Ok(!self.place().has(&change.path).await?) };
        Ok(crc32c::crc32c(&self.place().get(&change.path).await?) == after.crc32c)
    }

    /// Makes an object what a line wanted it to be, if it is not; or says why that cannot be.
    async fn make(&self, change: &Change) -> Result<Option<String>, RetentionError> {
        let Some(after) = change.after else {
            self.place().remove(&change.path).await?;
            return Ok(None);
        };
        let octets = self.place().get(&change.path).await?;
        let crc = crc32c::crc32c(&octets);
        if crc == after.crc32c {
            return Ok(None);
        }
        if crc != change.before.crc32c {
            return Err(RetentionError::Checksum { path: change.path.clone() });
        }
        let octets = thinned(&change.path, octets)?;
        if size(&octets, change.before.rows) != after {
            return Ok(Some("this program writes other octets than the one that began".to_owned()));
        }
        self.place().replace(&change.path, octets).await?;
        Ok(None)
    }
}

fn thinned(path: &str, octets: bytes::Bytes) -> Result<Vec<u8>, RetentionError> {
    thin::thinned(octets).map_err(|source| RetentionError::Object { path: path.to_owned(), source })
}

fn size(octets: &[u8], rows: u64) -> Size {
    Size { rows, bytes: octets.len() as u64, crc32c: crc32c::crc32c(octets) }
}
