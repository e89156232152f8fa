//! The shadow table: a Parquet file a day, a row an ad, campaign and minute, with the counts by the other rules
//! and those that stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use parquet::basic::{Compression, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::Int64Type;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::comparison::Pair;
use crate::reconcile::difference::Cell;
use crate::serve::answer::COUNT_COLUMNS;

/// Rows of a group.
const GROUP_ROWS: usize = 100_000;

/// A row: ad, campaign, minute, the counts of the shadow, the counts that stand. Ids are signed as in the archive.
const COLUMNS: usize = 3 + 2 * COUNT_COLUMNS.len();

fn names() -> impl Iterator<Item = String> {
    let counts = |prefix: &'static str| COUNT_COLUMNS.iter().map(move |name| format!("{prefix}{name}"));
    let key = ["ad", "campaign", "minute"].into_iter().map(str::to_owned);
    key.chain(counts("")).chain(counts("standing_"))
}

fn row((cell, pair): (&Cell, &Pair)) -> [i64; COLUMNS] {
    let key = [cell.ad.cast_signed(), cell.campaign.into(), cell.minute.0.into()];
    let counts = [pair.shadow.values(), pair.standing.values()].concat();
    let mut row = key.into_iter().chain(counts.into_iter().map(u64::cast_signed));
    std::array::from_fn(|_| row.next().unwrap_or_default())
}

/// The table of a day, as a file.
pub(super) fn table(cells: &BTreeMap<Cell, Pair>) -> Result<Vec<u8>> {
    let field = |name: String| {
        let field = Type::primitive_type_builder(&name, Physical::INT64);
        Ok(Arc::new(field.with_repetition(Repetition::REQUIRED).build()?))
    };
    let fields = names().map(field).collect::<Result<_>>()?;
    let schema = Arc::new(Type::group_type_builder("cell").with_fields(fields).build()?);
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let rows: Vec<_> = cells.iter().map(row).collect();
    for rows in rows.chunks(GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        for column in 0..COLUMNS {
            let values: Vec<i64> = rows.iter().map(|row| row[column]).collect();
            let next = group.next_column()?;
            let mut next = next.ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?;
            next.typed::<Int64Type>().write_batch(&values, None, None)?;
            next.close()?;
        }
        group.close()?;
    }
    writer.into_inner()
}
