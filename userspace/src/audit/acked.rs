//! Holds a sender's log of acknowledged clicks against the rows of a store: each must be there.

use std::collections::HashSet;
use std::io::BufRead;

use serde::Serialize;
use weir_common::id::ImpressionId;
use weir_common::row::Row;

use super::RowIter;
use crate::forward::embedded::{Store, StoreError};

/// Missing clicks that are shown.
const SHOWN: usize = 10;

/// Why a log cannot be held against a store.
#[derive(Debug, thiserror::Error)]
pub enum AckedError {
    /// The log cannot be read.
    #[error("the log of acknowledged clicks cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not one of its lines.
    #[error("line {0} of the log of acknowledged clicks is not `issued|foreign HEX ORDINAL`")]
    Line(usize),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A click as a log names it: whether its id is foreign, the id, the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AckedClick {
    is_foreign: bool,
    impression: ImpressionId,
    ordinal: u8,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AckedReport {
    /// Distinct clicks in the log.
    pub acknowledged: u64,
    /// Those without a row.
    pub missing: u64,
    /// The first of those.
    pub examples: Vec<String>,
}

/// Compares. Holds the log's clicks in memory, about 40 bytes each; duplicates of a click that
/// was acknowledged as `exists` have the row of their original.
///
/// # Errors
/// When either cannot be read.
pub fn compare(store: &Store, log: impl BufRead) -> Result<AckedReport, AckedError> {
    let mut clicks = HashSet::new();
    for (number, line) in log.lines().enumerate() {
        clicks.insert(AckedClick::parse(&line?).ok_or(AckedError::Line(number + 1))?);
    }
    let acknowledged = clicks.len() as u64;
    for (_, row) in RowIter::new(store)? {
        clicks.remove(&AckedClick::of(&row));
    }
    let examples = clicks.iter().take(SHOWN).map(|click| format!("{click:?}")).collect();
    Ok(AckedReport { acknowledged, missing: clicks.len() as u64, examples })
}

impl AckedClick {
    fn of(row: &Row) -> Self {
        let click = &row.click;
        Self { is_foreign: click.is_foreign(), impression: click.impression, ordinal: click.ordinal }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let is_foreign = match words.next()? {
            "foreign" => true,
            "issued" => false,
            _ => return None,
        };
        let id = u128::from_str_radix(words.next()?, 16).ok()?;
        let ordinal = words.next()?.parse().ok()?;
        let impression = ImpressionId(id.to_be_bytes());
        words.next().is_none().then_some(Self { is_foreign, impression, ordinal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_kind_id_in_wire_order_and_ordinal() {
        let click = AckedClick::parse("foreign 000102030405060708090a0b0c0d0e0f 3").expect("a line");
        assert_eq!(click.impression.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(click.is_foreign && click.ordinal == 3);
        for bad in ["", "issued", "issued zz 1", "other 00 1", "issued 00", "issued 00 256", "issued 00 1 2"]
        {
            assert_eq!(AckedClick::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_click_without_a_row_is_missing() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), weir_common::id::Incarnation(1)).expect("store");
        let log = "issued 00000000000000000000000000000001 0\nissued 00000000000000000000000000000001 0\n";
        let report = compare(&store, log.as_bytes()).expect("both can be read");
        assert_eq!((report.acknowledged, report.missing, report.examples.len()), (1, 1, 1));
        assert!(matches!(compare(&store, &b"nonsense\n"[..]), Err(AckedError::Line(1))));
    }
}
