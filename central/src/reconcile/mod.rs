//! Reconciliation: a day's clicks from the archive alone, deduplicated over all nodes and counted again,
//! and held against what was counted.
//!
//! ```text
//! manifest -> clicks, part by part -> recount -> differences -> report
//! ```
//!
//! The report is put into the archive. It never edits a count: what is to change stands in it as
//! adjustments, each with its cause. What no cause explains is told apart and makes the run fail.

pub mod clicks;
pub mod counted;
pub mod difference;
pub mod recount;
pub mod report;
pub mod rules;

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use parquet::errors::ParquetError;
use weir_common::bucket::BucketTotals;
use weir_common::time::Minute;

use crate::archive::audit::Deletion;
use crate::archive::manifest::{Entry, Hour};
use crate::archive::place::{Place, PlaceError};
use clicks::{CLICKS_MAX, Part};
use counted::CountedError;
use difference::{Cell, Differences};
use report::Report;
use rules::{Rules, RulesError};

/// Hours before and after a day in which clicks of its impressions may have been received: the lifetime of
/// a signature.
pub const LIFETIME_HOURS: u64 = 24;
const HOURS_PER_DAY: u64 = 24;
const MINUTES_PER_HOUR: u64 = 60;

/// Why a day is not reconciled.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ReconcileError {
    /// {0:?} is no day; expected one as 2026-01-31
    Day(String),
    /// {0}
    Rules(#[from] RulesError),
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Counted(#[from] CountedError),
    /// {path}: {source}; the object is damaged, so what is missing has to be brought back first
    Object {
        /// The object.
        path: String,
        /// Why.
        source: ParquetError,
    },
    /// {path} is not what the manifest says: its checksum differs
    Checksum {
        /// The object.
        path: String,
    },
    /// it cannot be counted again: of what was received on {day} something {deletion}
    Deleted {
        /// The day.
        day: crate::archive::day::Day,
        /// Which line deleted it, when and why.
        deletion: Box<Deletion>,
    },
}

/// A day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    date: Date,
    first: Hour,
}

impl Day {
    /// The day of this name.
    ///
    /// # Errors
    /// When it is none, or before 1970.
    pub fn read(name: &str) -> Result<Self, ReconcileError> {
        let day = || ReconcileError::Day(name.to_owned());
        let date: Date = name.parse().map_err(|_| day())?;
        let start = date.to_zoned(TimeZone::UTC).map_err(|_| day())?.timestamp().as_second();
        let first = u64::try_from(start / 3600).ok().filter(|_| start >= 0).ok_or_else(day)?;
        Ok(Self { date, first: Hour(first) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.date.to_string()
    }

    /// Its minutes.
    #[must_use]
    pub fn minutes(&self) -> std::ops::Range<Minute> {
        let minute = |hour: u64| Minute(u32::try_from(hour * MINUTES_PER_HOUR).unwrap_or(u32::MAX));
        minute(self.first.0)..minute(self.first.0 + HOURS_PER_DAY)
    }
}

/// The hours in which what matters to these minutes may have been received.
#[must_use]
pub fn hours_around(minutes: &std::ops::Range<Minute>) -> std::ops::Range<Hour> {
    let (start, end) = (u64::from(minutes.start.0), u64::from(minutes.end.0));
    let first = (start / MINUTES_PER_HOUR).saturating_sub(LIFETIME_HOURS);
    Hour(first)..Hour(end.div_ceil(MINUTES_PER_HOUR) + LIFETIME_HOURS)
}

/// Counts minutes again, from the archive alone, by each of these rules.
///
/// # Errors
/// When an object is missing, damaged or deleted.
pub async fn differences<const N: usize>(
    place: &Place,
    manifest: &[Entry],
    minutes: &std::ops::Range<Minute>,
    rules: [&Rules; N],
) -> Result<[Differences; N], ReconcileError> {
    let hours = hours_around(minutes);
    clicks::are_all_there(manifest, hours.clone())?;
    let rows: u64 = clicks::objects(manifest, hours.clone()).map(|object| object.rows).sum();
    let parts = rows.div_ceil(CLICKS_MAX).max(1);
    let mut differences = std::array::from_fn(|_| Differences::default());
    for number in 0..parts {
        let mut found = Vec::new();
        for object in clicks::objects(manifest, hours.clone()) {
            let octets = clicks::octets(place, object).await?;
            let damaged = |source| ReconcileError::Object { path: object.path.clone(), source };
            clicks::read(octets, Part { number, of: parts }, &mut found).map_err(damaged)?;
        }
        tracing::info!(part = number + 1, of = parts, clicks = found.len(), "recounting");
        for (differences, rules) in differences.iter_mut().zip(rules) {
            recount::recount(&mut found, rules, |click, recounted| {
                differences.take(click, recounted, minutes);
            });
        }
    }
    Ok(differences)
}

/// What was recorded and what was counted, where they are not the same.
#[must_use]
pub fn unexplained(
    differences: &Differences,
    counted: &BTreeMap<(u64, Minute), BucketTotals>,
) -> BTreeMap<(u64, Minute), (BucketTotals, BucketTotals)> {
    let mut recorded: BTreeMap<(u64, Minute), BucketTotals> = BTreeMap::new();
    for (Cell { ad, minute, .. }, totals) in &differences.recorded {
        recorded.entry((*ad, *minute)).or_default().merge(totals);
    }
    let keys: std::collections::BTreeSet<_> = recorded.keys().chain(counted.keys()).copied().collect();
    let pair = |key: &(u64, Minute)| {
        let of = |totals: &BTreeMap<_, BucketTotals>| totals.get(key).copied().unwrap_or_default();
        (of(&recorded), of(counted))
    };
    let differs = |key: &(u64, Minute)| {
        let (recorded, counted) = pair(key);
        recorded != counted
    };
    keys.into_iter().filter(differs).map(|key| (key, pair(&key))).collect()
}

/// Reconciles a day.
///
/// # Errors
/// When archive or counts cannot be read.
pub async fn report(
    place: &Place,
    (address, key): (std::net::SocketAddr, Option<&str>),
    day: &Day,
    rules: &Rules,
) -> Result<Report, ReconcileError> {
    let manifest = place.manifest().await?;
    let [differences] = differences(place, &manifest, &day.minutes(), [rules]).await?;
    let counted = counted::counted(address, key, day.minutes()).await?;
    Ok(Report::of(day, rules, manifest.len() as u64, &differences, &unexplained(&differences, &counted)))
}

/// Reconciles a day and puts the report into the archive, under a name that says what it rests on: so a
/// second run over the same puts the same.
///
/// # Errors
/// When archive or counts cannot be read, or the report is not taken.
pub async fn reconcile(
    place: &Place,
    asked: (std::net::SocketAddr, Option<&str>),
    day: &Day,
    rules: &Rules,
) -> Result<Report, ReconcileError> {
    let report = report(place, asked, day, rules).await?;
    place.put(&report.path(), report.to_json()).await?;
    Ok(report)
}
