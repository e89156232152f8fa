//! Billing: a day's figures by campaign, from a reconciliation into PostgreSQL, in one transaction.
//!
//! ```text
//! day over and final -> reconciliation -> run -> step -> runs, lines, adjustments -> export
//! ```
//!
//! The same run again changes nothing, and a closed day only gets adjustments. [`books`] decides what is
//! entered and [`database`] has the tables, which hold the same rules by themselves. The report that a run rests on
//! is put into the archive before the run is committed. Start reading at [`books`].

pub mod books;
pub mod command;
pub mod database;
pub mod export;
pub mod figures;
pub mod ready;
pub mod run;
pub mod settings;

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::archive::place::{Place, PlaceError};
use books::{BooksError, Entries, Held, HeldRun, Step};
use database::DatabaseError;
use figures::Figures;
use run::{Run, Why, sha256};

/// Why a run is not billed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum BillError {
    /// {0}
    Books(#[from] BooksError),
    /// {0}
    Database(#[from] DatabaseError),
    /// {0}
    Place(#[from] PlaceError),
}

impl From<tokio_postgres::Error> for BillError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was billed before: nothing changed.
    Unchanged,
    /// It has the lines of its day.
    Lines,
    /// Its day was closed before: it added adjustments, if anything differed.
    Adjustments,
}

/// One adjustment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjusted {
    /// The campaign.
    pub campaign_id: u32,
    /// Why.
    pub cause: Why,
    /// By how much.
    #[serde(flatten)]
    pub change: Figures,
}

/// What was billed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Billed {
    /// The day.
    pub day: String,
    /// The run.
    pub run: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the day is closed now.
    pub closed: bool,
    /// Campaigns with figures.
    pub campaigns: usize,
    /// What was added to a closed day, or taken from it.
    pub adjustments: Vec<Adjusted>,
    /// All campaigns together.
    #[serde(flatten)]
    pub total: Figures,
}

/// For people.
impl std::fmt::Display for Billed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.closed { "closed" } else { "open" };
        let outcome = match self.outcome {
            Outcome::Unchanged => "was billed before: nothing changed".to_owned(),
            Outcome::Lines => format!("{} lines", self.campaigns),
            Outcome::Adjustments => format!("{} adjustments", self.adjustments.len()),
        };
        writeln!(f, "{}: {outcome}; {} is {state}", self.run, self.day)?;
        let Figures { click_count, net, cost_micros, .. } = self.total;
        writeln!(f, "{click_count} clicks, {net} billable, cost {cost_micros}")
    }
}

/// Where the report of a billed run stands in the archive. `reconcile` writes elsewhere, so it stays as it was billed.
#[must_use]
pub fn report_path(name: &str) -> String {
    format!("_billed/{name}.json")
}

/// Enters a run into the books, all of it or nothing.
///
/// # Errors
/// When it is not to be entered, or the database or the archive refuses.
pub async fn bill(
    client: &mut Client,
    place: &Place,
    (run, report): (&Run, &[u8]),
    closes: bool,
) -> Result<Billed, BillError> {
    // What is read after the day was taken is what others have left.
    let begun = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start();
    let transaction = begun.await?;
    transaction.execute("SELECT billing.take($1::text::date)", &[&run.day]).await?;
    let held = held(&transaction, &run.day).await?;
    let before = match held.runs.last() {
        Some(last) if held.is_closed => billed_before(place, last).await,
        _ => None,
    };
    let step = books::step(&held, run, before.as_ref(), closes)?;
    if step.entries != Entries::Nothing {
        place.put(&report_path(&run.name), report.to_vec()).await?;
        enter(&transaction, run, &step.entries).await?;
    }
    if step.closes {
        let close = "INSERT INTO billing.days (day, run) \
                     SELECT day, max(number) FROM billing.runs WHERE day = $1::text::date GROUP BY day";
        transaction.execute(close, &[&run.day]).await?;
    }
    transaction.commit().await?;
    Ok(billed(&held, run, step))
}

fn billed(held: &Held, run: &Run, step: Step) -> Billed {
    let (outcome, adjustments) = match step.entries {
        Entries::Nothing => (Outcome::Unchanged, BTreeMap::new()),
        Entries::Lines(_) => (Outcome::Lines, BTreeMap::new()),
        Entries::Adjustments(found) => (Outcome::Adjustments, found),
    };
    let adjusted = |((campaign_id, cause), change)| Adjusted { campaign_id, cause, change };
    Billed {
        day: run.day.clone(),
        run: run.name.clone(),
        outcome,
        closed: held.is_closed || step.closes,
        campaigns: run.campaigns.len(),
        adjustments: adjustments.into_iter().map(adjusted).collect(),
        total: run.total,
    }
}

/// The run as it was billed, if its report is still there and what it was.
async fn billed_before(place: &Place, last: &HeldRun) -> Option<Run> {
    let found = place.get(&report_path(&last.name)).await;
    let report = found.ok().filter(|report| sha256(report) == last.checksum);
    let run = report.and_then(|report| Run::read(&last.name, &report).ok());
    if run.is_none() {
        tracing::warn!(
            run = last.name,
            "its report is not in the archive as it was billed: causes are unknown"
        );
    }
    run
}

async fn held(transaction: &Transaction<'_>, day: &str) -> Result<Held, BillError> {
    let closed = "SELECT EXISTS (SELECT FROM billing.days WHERE day = $1::text::date)";
    let runs =
        "SELECT name, report_sha256, batches FROM billing.runs WHERE day = $1::text::date ORDER BY number";
    let bills =
        "SELECT campaign, click_count, gross, net, cost_micros FROM billing.bills WHERE day = $1::text::date";
    let is_closed = transaction.query_one(closed, &[&day]).await?.get(0);
    let runs = transaction.query(runs, &[&day]).await?;
    let run =
        |row: &tokio_postgres::Row| HeldRun { name: row.get(0), checksum: row.get(1), batches: row.get(2) };
    let mut figures = BTreeMap::new();
    for row in transaction.query(bills, &[&day]).await? {
        let refused = || DatabaseError::Refused("a campaign has a number that is none".to_owned());
        let campaign = u32::try_from(row.get::<_, i64>(0)).map_err(|_| refused())?;
        figures.insert(campaign, Figures::of([1, 2, 3, 4].map(|column| row.get(column))));
    }
    Ok(Held { is_closed, runs: runs.iter().map(run).collect(), figures })
}

/// Columns of figures, as arrays that a statement unrolls into rows.
fn columns(figures: &[Figures]) -> [Vec<i64>; 4] {
    [0, 1, 2, 3].map(|column| figures.iter().map(|figures| figures.values()[column]).collect())
}

/// Enters the run first: entries are refused without one of the same transaction.
async fn enter(transaction: &Transaction<'_>, run: &Run, entries: &Entries) -> Result<(), BillError> {
    let enter = "INSERT INTO billing.runs (day, name, rules, batches, report_sha256, click_count, gross, net, \
                 cost_micros) VALUES ($1::text::date, $2, $3, $4, $5, $6, $7, $8, $9)";
    let [clicks, gross, net, cost] = run.total.values();
    let Run { day, name, rules, batches, checksum, .. } = run;
    transaction.execute(enter, &[day, name, rules, batches, checksum, &clicks, &gross, &net, &cost]).await?;
    match entries {
        Entries::Nothing => {}
        Entries::Lines(lines) => {
            transaction.execute("DELETE FROM billing.lines WHERE day = $1::text::date", &[day]).await?;
            let insert = "INSERT INTO billing.lines (day, run, campaign, click_count, gross, net, cost_micros) \
                          SELECT day, number, entry.* FROM billing.runs, \
                          unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS entry \
                          WHERE name = $1";
            let campaigns: Vec<i64> = lines.keys().copied().map(i64::from).collect();
            let [clicks, gross, net, cost] = columns(&lines.values().copied().collect::<Vec<_>>());
            transaction.execute(insert, &[name, &campaigns, &clicks, &gross, &net, &cost]).await?;
        }
        Entries::Adjustments(found) => {
            let insert = "INSERT INTO billing.adjustments \
                          (day, run, campaign, cause, click_count, gross, net, cost_micros) \
                          SELECT day, number, entry.* FROM billing.runs, \
                          unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) \
                          AS entry WHERE name = $1";
            let campaigns: Vec<i64> = found.keys().map(|(campaign, _)| i64::from(*campaign)).collect();
            let causes: Vec<&str> = found.keys().map(|(_, why)| why.code()).collect();
            let [clicks, gross, net, cost] = columns(&found.values().copied().collect::<Vec<_>>());
            transaction.execute(insert, &[name, &campaigns, &causes, &clicks, &gross, &net, &cost]).await?;
        }
    }
    Ok(())
}
