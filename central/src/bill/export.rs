//! A billed day as CSV (RFC 4180), for whoever writes invoices.

use std::io::Write;
use std::path::{Path, PathBuf};

use tokio_postgres::{Client, Row};

use super::database::DatabaseError;
use super::figures::Micros;

/// The columns, in order.
const COLUMNS: [&str; 15] = [
    "day",
    "campaign_id",
    "click_count",
    "gross",
    "net",
    "cost_micros",
    "cost",
    "adjustments",
    "adjusted_click_count",
    "adjusted_gross",
    "adjusted_net",
    "adjusted_cost_micros",
    "adjusted_cost",
    "closed",
    "run",
];

/// Why there is no export.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ExportError {
    /// {0} was never billed
    Unbilled(String),
    /// {0}
    Database(#[from] DatabaseError),
    /// the lines cannot be made: {0}
    Csv(#[from] csv::Error),
    /// {path} cannot be written: {source}
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<tokio_postgres::Error> for ExportError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What holds of a day, a line a campaign. One statement, so it is the books as they were at one moment.
///
/// # Errors
/// When the day was never billed, or the database refuses.
pub async fn export(client: &Client, day: &str) -> Result<Vec<u8>, ExportError> {
    // A day without clicks has a run and no lines: so the run is what is asked for.
    let ask = "SELECT run.name, EXISTS (SELECT FROM billing.days WHERE day = run.day), bills.campaign, \
               bills.click_count, bills.gross, bills.net, bills.cost_micros, bills.adjustments, \
               adjusted_click_count, adjusted_gross, adjusted_net, adjusted_cost_micros \
               FROM (SELECT day, name FROM billing.runs WHERE day = $1::text::date ORDER BY number DESC LIMIT 1) AS run \
               LEFT JOIN billing.bills ON bills.day = run.day ORDER BY campaign";
    let rows = client.query(ask, &[&day]).await?;
    if rows.is_empty() {
        return Err(ExportError::Unbilled(day.to_owned()));
    }
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for row in rows.iter().filter(|row| row.get::<_, Option<i64>>(2).is_some()) {
        writer.write_record(line(day, row))?;
    }
    writer.into_inner().map_err(|error| ExportError::Csv(error.into_error().into()))
}

fn line(day: &str, row: &Row) -> [String; COLUMNS.len()] {
    let whole = |column: usize| row.get::<_, i64>(column).to_string();
    let amount = |column: usize| Micros(row.get(column)).to_string();
    [
        day.to_owned(),
        whole(2),
        whole(3),
        whole(4),
        whole(5),
        whole(6),
        amount(6),
        whole(7),
        whole(8),
        whole(9),
        whole(10),
        whole(11),
        amount(11),
        row.get::<_, bool>(1).to_string(),
        row.get(0),
    ]
}

/// Writes a file whole or not at all, also if the machine fails meanwhile.
///
/// # Errors
/// When the disk does not take it; what was there before is there still.
pub fn write(path: &Path, octets: &[u8]) -> Result<(), ExportError> {
    let refused = |source| ExportError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(refused)?;
    file.write_all(octets).map_err(refused)?;
    file.as_file().sync_all().map_err(refused)?;
    file.persist(path).map_err(|error| refused(error.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.csv");
        write(&path, b"one").unwrap();
        // Whoever reads meanwhile reads all of one of them.
        let mut reader = std::fs::File::open(&path).unwrap();
        write(&path, b"two").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "one");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        // A folder cannot be replaced by a file.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(write(&taken, b"three").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "and nothing half-written stays");
    }
}
