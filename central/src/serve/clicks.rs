//! `GET /v1/clicks/{id}`: every archived row of one impression, for an audit. What is told is what a
//! click was counted as and why; what is of a user (his key, where he was, what he came with) is not.

use std::ops::Range;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_common::id::ImpressionId;
use weir_common::reason::{FIRST_FILTERED, Outcome, Reason};
use weir_common::row::row_flags;
use weir_common::time::MS_PER_MINUTE;
use weir_common::wire::click_flags;

use super::access::Auditor;
use super::query::{Format, QueryError, wrong};
use super::windows::moment;
use super::{Refused, Shared, respond, write};
use crate::archive::audit::Deletion;
use crate::archive::contents::Contents;
use crate::archive::day::Day;
use crate::archive::find::{self, Found, ROWS_MAX};
use crate::archive::impression;
use crate::archive::manifest::{Hour, ObjectEntry};
use crate::archive::place::PlaceError;
use crate::archive::ranged::RangedError;
use crate::reconcile::LIFETIME_HOURS;

/// The most objects that are looked into for one answer: each is two requests to the archive at the least.
const OBJECTS_MAX: usize = 1000;
const SECONDS_PER_HOUR: u64 = 3600;
const MINUTES_PER_HOUR: u32 = 60;

/// Why there is no answer.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub(super) enum ClicksError {
    /// {0}
    Query(#[from] QueryError),
    /// {objects} objects would have to be looked into, and 1000 may be; say start and end, nearer together
    TooWide { objects: usize },
    /// of what was received on {day} something {deletion}; say start and end for other hours
    Deleted { day: Day, deletion: Box<Deletion> },
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Object(#[from] RangedError),
}

/// The parameters as they came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClicksParameters {
    start: Option<String>,
    end: Option<String>,
}

#[derive(Debug, Serialize)]
struct Click {
    received_at: String,
    clicked_at: String,
    minute: String,
    node: i64,
    incarnation: String,
    epoch: i64,
    worker: i32,
    sequence: u64,
    row: i64,
    ordinal: i32,
    outcome: &'static str,
    reason: Option<&'static str>,
    traffic: Vec<&'static str>,
    signed: bool,
    marked: bool,
    ad_id: String,
    campaign_id: i64,
    creative_id: i64,
    placement_id: i64,
    publisher_id: i64,
    price_micros: u64,
    country: Option<String>,
    device: i32,
    os: i32,
    object: String,
}

#[derive(Debug, Serialize)]
struct Searched {
    start: String,
    end: String,
    objects: usize,
}

#[derive(Debug, Serialize)]
struct Archived {
    batches: usize,
    archived_until: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    impression: String,
    clicks: Vec<Click>,
    more: bool,
    searched: Searched,
    archive: Archived,
}

/// The hours in which clicks of this impression may have been received.
fn hours(parameters: &ClicksParameters, impression: ImpressionId) -> Result<Range<Hour>, QueryError> {
    match (&parameters.start, &parameters.end) {
        (Some(start), Some(end)) => {
            let (first, last) = (moment("start", start)?, moment("end", end)?);
            if first >= last {
                return Err(QueryError::Empty);
            }
            let hour = |minute: u32| Hour(u64::from(minute / MINUTES_PER_HOUR));
            Ok(hour(first.0)..Hour(hour(last.0 - 1).0 + 1))
        }
        (None, None) => {
            // An issued id says when it was made. A node's clock may be behind by some of an hour.
            let issued = u64::from(impression.issued_at_s()) / SECONDS_PER_HOUR;
            Ok(Hour(issued.saturating_sub(1))..Hour(issued + LIFETIME_HOURS + 1))
        }
        (Some(_), None) => Err(QueryError::Missing { name: "end" }),
        (None, Some(_)) => Err(QueryError::Missing { name: "start" }),
    }
}

/// Answers, and writes down who asked for what.
pub(super) async fn clicks(
    State(served): Shared,
    Extension(auditor): Extension<Auditor>,
    Path(id): Path<String>,
    parameters: Result<Query<ClicksParameters>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(parameters) = parameters?;
    let catalog = served.archive.as_ref().ok_or(Refused::NoArchive)?;
    let expected = "32 hexadecimal digits, or a UUID";
    let impression = impression::read(&id).ok_or_else(|| wrong("id", &id, expected))?;
    let text = impression::text(impression);
    let hours = hours(&parameters, impression)?;
    // Before it is answered: whatever becomes of the answer, that it was asked is written down.
    tracing::info!(target: "audit", key = %auditor.0, impression = %text, "a click is looked up");
    let refused = |error| Refused::Clicks(error);
    let contents = catalog.look().await.map_err(|error| refused(error.into()))?;
    let objects: Vec<_> = contents.objects(hours.clone()).cloned().collect();
    if objects.len() > OBJECTS_MAX {
        return Err(refused(ClicksError::TooWide { objects: objects.len() }));
    }
    are_all_there(&objects).map_err(refused)?;
    let found = match find::find(catalog.place(), &objects, impression).await {
        Err(RangedError::Place(error)) if error.is_missing() => {
            // Perhaps it was deleted since.
            let contents = catalog.look().await.map_err(|error| refused(error.into()))?;
            are_all_there(contents.objects(hours.clone())).map_err(refused)?;
            return Err(refused(error.into()));
        }
        found => found.map_err(|error| refused(error.into()))?,
    };
    let answer = answer(text, &hours, &objects, &contents, &found);
    Ok(respond(&write::json(&answer), Format::Json))
}

/// Refuses what was deleted in part: an answer without it would pass for the whole.
fn are_all_there<'a>(objects: impl IntoIterator<Item = &'a ObjectEntry>) -> Result<(), ClicksError> {
    let mut gone = objects.into_iter().filter_map(|object| Some((object.hour, object.deletion()?)));
    let deleted = |(hour, deletion): (Hour, &Deletion)| ClicksError::Deleted {
        day: Day::of(hour),
        deletion: Box::new(deletion.clone()),
    };
    gone.next().map_or(Ok(()), |found| Err(deleted(found)))
}

fn answer(
    impression: String,
    hours: &Range<Hour>,
    objects: &[ObjectEntry],
    contents: &Contents,
    found: &[Found],
) -> Answer {
    let hour = |hour: Hour| time((hour.0 * SECONDS_PER_HOUR * 1000).cast_signed());
    let archived_until = contents.read_until_ms().map(|ms| time(ms.cast_signed()));
    Answer {
        impression,
        clicks: found.iter().take(ROWS_MAX).map(click).collect(),
        more: found.len() > ROWS_MAX,
        searched: Searched { start: hour(hours.start), end: hour(hours.end), objects: objects.len() },
        archive: Archived { batches: contents.batches(), archived_until },
    }
}

/// A time as RFC 3339. What no calendar has is told as its last moment.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).to_string()
}

fn click(found: &Found) -> Click {
    let (incarnation, epoch, worker, sequence, row) = found.place;
    let [outcome, reason, traffic, row_flags, click_flags] = found.judged.map(|number| number as u8);
    let [campaign_id, creative_id, placement_id, publisher_id] = found.of;
    let held = (0..u8::BITS as u8).filter(|bit| traffic >> bit & 1 == 1);
    let named = |number| Reason::from_number(number).map(Reason::name);
    Click {
        received_at: time(found.received_at_ms),
        clicked_at: time(found.clicked_at_ms),
        minute: time(found.minute.saturating_mul(MS_PER_MINUTE.cast_signed())),
        node: found.node,
        incarnation: format!("{incarnation:016x}"),
        epoch,
        worker,
        sequence,
        row,
        ordinal: found.ordinal,
        outcome: Outcome::from_number(outcome).map_or("unknown", Outcome::name),
        reason: named(reason).filter(|_| reason != 0),
        traffic: held.filter_map(|bit| named(FIRST_FILTERED + bit)).collect(),
        signed: click_flags & click_flags::FOREIGN == 0,
        marked: row_flags & row_flags::MARKED != 0,
        ad_id: found.ad.to_string(),
        campaign_id,
        creative_id,
        placement_id,
        publisher_id,
        price_micros: found.price_micros,
        country: Some(found.country.clone()).filter(|country| !country.is_empty()),
        device: found.device[0],
        os: found.device[1],
        object: found.object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Issuer, KeyId};

    use super::*;

    fn asked(start: Option<&str>, end: Option<&str>) -> Result<Range<Hour>, QueryError> {
        let parameters = ClicksParameters { start: start.map(str::to_owned), end: end.map(str::to_owned) };
        hours(&parameters, ImpressionId::issued(Issuer(1), KeyId(1), 36_000, 1))
    }

    #[test]
    fn an_issued_id_is_looked_for_within_its_lifetime_and_any_id_in_the_hours_that_are_said() {
        assert_eq!(asked(None, None), Ok(Hour(9)..Hour(35)));
        assert_eq!(asked(Some("7200"), Some("10800")), Ok(Hour(2)..Hour(3)));
        assert_eq!(asked(Some("7200"), Some("10860")), Ok(Hour(2)..Hour(4)));
        assert_eq!(asked(Some("7200"), Some("7200")), Err(QueryError::Empty));
        assert_eq!(asked(Some("7200"), None), Err(QueryError::Missing { name: "end" }));
        assert_eq!(asked(None, Some("7200")), Err(QueryError::Missing { name: "start" }));
    }
}
