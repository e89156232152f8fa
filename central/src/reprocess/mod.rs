//! Reprocessing: any range counted again by other rules into a table beside the archive, and held against what
//! stands. The same code as a [reconciliation](crate::reconcile); it changes no count and bills nothing.
//!
//! ```text
//! archive -> recount by the standing rules, and by the others -> shadow table, comparison
//! ```

mod comparison;
mod shadow;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parquet::errors::ParquetError;
use weir_common::time::Minute;

use crate::archive::place::{Place, PlaceError};
use crate::reconcile::rules::Rules;
use crate::reconcile::{self, ReconcileError};
pub use comparison::{Comparison, ShadowObject};

const MINUTES_PER_DAY: u32 = 1440;
/// Days of one run: a year and a leap day. Each is read by itself, so the bound is the patience of who waits.
const DAYS_MAX: u32 = 366;
/// The longest name of a table.
const NAME_LEN_MAX: usize = 64;

/// Why nothing is reprocessed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ReprocessError {
    /// {0:?} is no time; expected a day as 2026-01-31, or a time as 2026-01-31T12:00:00Z
    Time(String),
    /// the range is empty, or longer than 366 days
    Range,
    /// {0:?} is no name for a table: 1 to 64 lower-case letters, digits, - and _
    Name(String),
    /// {0}
    Reconcile(#[from] ReconcileError),
    /// {0}
    Place(#[from] PlaceError),
    /// the table cannot be written: {0}
    Table(#[from] ParquetError),
}

/// What to reprocess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    name: String,
    minutes: std::ops::Range<Minute>,
}

/// A day's first minute, or the minute of a time.
fn minute(text: &str) -> Result<Minute, ReprocessError> {
    let none = || ReprocessError::Time(text.to_owned());
    let time = match text.parse::<Date>() {
        Ok(day) if text.len() == "2026-01-31".len() => {
            day.to_zoned(TimeZone::UTC).map_err(|_| none())?.timestamp()
        }
        _ => text.parse::<Timestamp>().map_err(|_| none())?,
    };
    u32::try_from(time.as_second().div_euclid(60)).map(Minute).map_err(|_| none())
}

impl Asked {
    /// A range under a name; the end is not in it.
    ///
    /// # Errors
    /// When it is no range or no name.
    pub fn read(name: &str, start: &str, end: &str) -> Result<Self, ReprocessError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.chars().all(is_plain) {
            return Err(ReprocessError::Name(name.to_owned()));
        }
        let minutes = minute(start)?..minute(end)?;
        if minutes.is_empty() || minutes.end.0 - minutes.start.0 > DAYS_MAX * MINUTES_PER_DAY {
            return Err(ReprocessError::Range);
        }
        Ok(Self { name: name.to_owned(), minutes })
    }

    /// The range, cut at midnight: what is in memory at once is a day's.
    fn days(&self) -> impl Iterator<Item = std::ops::Range<Minute>> + '_ {
        let (start, end) = (self.minutes.start.0, self.minutes.end.0);
        let first = start - start % MINUTES_PER_DAY;
        let days = (first..end).step_by(MINUTES_PER_DAY as usize);
        days.map(move |day| Minute(day.max(start))..Minute((day + MINUTES_PER_DAY).min(end)))
    }
}

/// Counts a range again by other rules and puts the table and the comparison into the archive, the comparison
/// last: it names what belongs to the table. The same again puts the same.
///
/// # Errors
/// When the archive cannot be read, or does not take it.
pub async fn reprocess(place: &Place, asked: &Asked, rules: &Rules) -> Result<Comparison, ReprocessError> {
    let manifest = place.manifest().await?;
    let mut comparison = Comparison::of(&asked.name, &asked.minutes, rules, manifest.len() as u64);
    let standing = Rules::recorded();
    for minutes in asked.days() {
        let [stands, other] = reconcile::differences(place, &manifest, &minutes, [&standing, rules]).await?;
        let cells = comparison::paired(stands.recounted, other.recounted);
        if !cells.is_empty() {
            let object = ShadowObject::of(&asked.name, minutes.start, cells.len() as u64);
            place.put(&object.path, shadow::table(&cells)?).await?;
            comparison.objects.push(object);
        }
        cells.iter().for_each(|(cell, pair)| comparison.take(cell, pair));
        other.clicks.into_iter().for_each(|(cause, clicks)| comparison.note(cause, clicks));
        tracing::info!(minute = minutes.start.0, cells = cells.len(), "reprocessed");
    }
    place.put(&comparison.path(), comparison.to_json()).await?;
    Ok(comparison)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_midnight_and_has_every_minute_once() {
        let asked = Asked::read("a", "2026-11-22T23:30:00Z", "2026-11-24T00:01:00Z").unwrap();
        let days: Vec<_> = asked.days().map(|minutes| minutes.end.0 - minutes.start.0).collect();
        assert_eq!(days, [30, 1440, 1]);
        let asked = Asked::read("a", "2026-11-22", "2026-11-23").unwrap();
        assert_eq!(asked.days().count(), 1);
    }

    #[test]
    fn what_is_no_range_or_no_name_is_refused() {
        let why = |name, start, end| Asked::read(name, start, end).unwrap_err().to_string();
        assert!(why("../x", "2026-11-22", "2026-11-23").contains("name"));
        assert!(why("", "2026-11-22", "2026-11-23").contains("name"));
        assert!(why("a", "2026-11-23", "2026-11-23").contains("empty"));
        assert!(why("a", "2024-11-22", "2026-11-23").contains("366"));
        assert!(why("a", "yesterday", "2026-11-23").contains("yesterday"));
        assert!(why("a", "1969-12-31", "2026-11-23").contains("1969"));
    }
}
