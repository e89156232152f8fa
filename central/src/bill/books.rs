//! What a run enters into the books of a day: a function over what they have and what it found.
//!
//! An open day has lines, and a newer run has them replaced. A closed day keeps its lines for good: a newer
//! run adds what its figures are more, or less, than lines and adjustments so far. So the books of a
//! day are always the figures of its last run.

use std::collections::{BTreeMap, BTreeSet};

use super::figures::{Figures, Overflow};
use super::run::{Run, Why, sum};

/// Why a run is not entered.
#[derive(Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum BooksError {
    /// {name} was billed before from another report: its rules are not what they were under that name, or the archive
    /// is another. Nothing was changed; give changed rules another version
    Changed {
        /// The run.
        name: String,
    },
    /// {name} was billed before, and {last} after it, which holds. Nothing was changed; to go back, bill once another
    /// batch is archived, or by rules of another version
    Superseded {
        /// The run.
        name: String,
        /// The one after it.
        last: String,
    },
    /// {name} rests on fewer batches of the archive than {last}, which was billed before. Nothing was changed; look
    /// whether the archive is the right one
    OutOfDate {
        /// The run.
        name: String,
        /// The one that was billed.
        last: String,
    },
    /// {0}
    Overflow(#[from] Overflow),
}

/// A run that was billed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRun {
    /// What names it.
    pub name: String,
    /// SHA-256 of its report.
    pub checksum: String,
    /// How many batches it rests on.
    pub batches: i64,
}

/// What the books have of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whether it is closed.
    pub is_closed: bool,
    /// The runs that were billed, in order.
    pub runs: Vec<HeldRun>,
    /// Lines and adjustments so far, by campaign.
    pub figures: BTreeMap<u32, Figures>,
}

/// What is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entries {
    /// Nothing: this run was entered before.
    Nothing,
    /// The run, and lines in place of those there are.
    Lines(BTreeMap<u32, Figures>),
    /// The run, and adjustments beside what there is.
    Adjustments(BTreeMap<(u32, Why), Figures>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is entered.
    pub entries: Entries,
    /// Whether the day is closed then, and was not before.
    pub closes: bool,
}

/// What a run enters. `before` is the last run that was billed, where its report is still known: it says why
/// figures differ.
///
/// # Errors
/// When the run is not to be entered.
pub fn step(held: &Held, run: &Run, before: Option<&Run>, closes: bool) -> Result<Step, BooksError> {
    let closes = closes && !held.is_closed;
    let name = || run.name.clone();
    if let Some(same) = held.runs.iter().find(|held| held.name == run.name)
        && same.checksum != run.checksum
    {
        return Err(BooksError::Changed { name: name() });
    }
    let Some(last) = held.runs.last() else {
        return Ok(Step { entries: Entries::Lines(lines(run)), closes });
    };
    if last.name == run.name {
        return Ok(Step { entries: Entries::Nothing, closes });
    }
    if held.runs.iter().any(|held| held.name == run.name) {
        return Err(BooksError::Superseded { name: name(), last: last.name.clone() });
    }
    if run.batches < last.batches {
        return Err(BooksError::OutOfDate { name: name(), last: last.name.clone() });
    }
    let entries = match held.is_closed {
        false => Entries::Lines(lines(run)),
        true => Entries::Adjustments(adjustments(held, run, before)?),
    };
    Ok(Step { entries, closes })
}

fn lines(run: &Run) -> BTreeMap<u32, Figures> {
    run.campaigns.iter().map(|(id, campaign)| (*id, campaign.figures)).collect()
}

fn adjustments(
    held: &Held,
    run: &Run,
    before: Option<&Run>,
) -> Result<BTreeMap<(u32, Why), Figures>, Overflow> {
    let campaigns: BTreeSet<u32> = held.figures.keys().chain(run.campaigns.keys()).copied().collect();
    let mut found = BTreeMap::new();
    for id in campaigns {
        let figures = run.campaigns.get(&id).map_or_else(Figures::default, |campaign| campaign.figures);
        let change = figures.less(held.figures.get(&id).copied().unwrap_or_default())?;
        if change.is_zero() {
            continue;
        }
        let parts = before.map(|before| parts(id, run, before)).transpose()?;
        // What the reports say of causes is only told where it is the whole difference.
        let parts = match parts {
            Some(parts) if sum(parts.values())? == change => parts,
            _ => BTreeMap::from([(Why::Unknown, change)]),
        };
        found.extend(parts.into_iter().map(|(why, part)| ((id, why), part)));
    }
    Ok(found)
}

/// By how much each cause counts for more in one run than in the other.
fn parts(campaign: u32, run: &Run, before: &Run) -> Result<BTreeMap<Why, Figures>, Overflow> {
    let causes = [run, before].into_iter().filter_map(|run| run.campaigns.get(&campaign));
    let causes: BTreeSet<Why> = causes.flat_map(|found| found.parts.keys().copied()).collect();
    let mut found = BTreeMap::new();
    for why in causes {
        let part = run.part(campaign, why).less(before.part(campaign, why))?;
        if !part.is_zero() {
            found.insert(why, part);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
