//! The columns of an archived row: one table, from which files are written and read.
//!
//! Ids and hashes are signed 64-bit integers with the bits of the unsigned ones: engines without
//! unsigned types (Spark) read those as decimals, which costs them twice the time. `docs/central.md` lays
//! the columns down.

use std::sync::{Arc, LazyLock};

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::writer::SerializedColumnWriter;
use parquet::schema::types::{Type, TypePtr};
use weir_common::block::BlockHeader;
use weir_common::row::Row;

/// A row, and where it stands in the log of its node.
#[derive(Clone, Copy, Debug)]
pub struct Archived<'a> {
    /// Its block.
    pub block: &'a BlockHeader,
    /// Its place in the block, from 0.
    pub index: u32,
    /// The row.
    pub row: &'a Row,
    /// Its extension.
    pub extension: &'a [u8],
}

/// What a column has of a row.
#[derive(Clone, Copy)]
enum Cell {
    Int(fn(&Archived<'_>) -> i32),
    Long(fn(&Archived<'_>) -> i64),
    Text(fn(&Archived<'_>) -> Vec<u8>),
    Octets(fn(&Archived<'_>) -> Vec<u8>),
}

/// A column: its name and what it has.
#[derive(Clone, Copy)]
pub struct Column {
    /// The name in the file.
    pub name: &'static str,
    cell: Cell,
}

const fn int(name: &'static str, cell: fn(&Archived<'_>) -> i32) -> Column {
    Column { name, cell: Cell::Int(cell) }
}

const fn long(name: &'static str, cell: fn(&Archived<'_>) -> i64) -> Column {
    Column { name, cell: Cell::Long(cell) }
}

/// All columns, in order: the row's identity, what the node said of the click, the click.
pub const COLUMNS: [Column; 35] = [
    long("incarnation", |of| of.block.incarnation.get().cast_signed()),
    long("node", |of| of.block.node.get().into()),
    long("epoch", |of| of.block.epoch.get().into()),
    int("worker", |of| of.block.worker.get().into()),
    long("sequence", |of| of.block.sequence.get().cast_signed()),
    long("row", |of| of.index.into()),
    long("rules", |of| of.block.rules().into()),
    long("received_at_ms", |of| of.row.received_at_ms.get().cast_signed()),
    long("minute", |of| of.row.minute.get().into()),
    int("outcome", |of| of.row.outcome.into()),
    int("reason", |of| of.row.reason.into()),
    int("row_flags", |of| of.row.flags.into()),
    int("traffic", |of| of.row.traffic.into()),
    long("impression_low", |of| of.row.click.impression.words()[0].cast_signed()),
    long("impression_high", |of| of.row.click.impression.words()[1].cast_signed()),
    int("ordinal", |of| of.row.click.ordinal.into()),
    int("click_flags", |of| of.row.click.flags.into()),
    long("ad", |of| of.row.click.ad.get().cast_signed()),
    long("campaign", |of| of.row.click.campaign.get().into()),
    long("creative", |of| of.row.click.creative.get().into()),
    long("placement", |of| of.row.click.placement.get().into()),
    long("publisher", |of| of.row.click.publisher.get().into()),
    long("price_micros", |of| of.row.click.price_micros.get().cast_signed()),
    long("tag", |of| of.row.click.tag.get().cast_signed()),
    long("user_key", |of| of.row.click.user_key.get().cast_signed()),
    long("clicked_at_ms", |of| of.row.click.clicked_at_ms.get().cast_signed()),
    int("latitude_e6", |of| of.row.click.latitude_e6.get()),
    int("longitude_e6", |of| of.row.click.longitude_e6.get()),
    int("x", |of| of.row.click.x.get().into()),
    int("y", |of| of.row.click.y.get().into()),
    Column { name: "country", cell: Cell::Text(country) },
    int("device", |of| of.row.click.device.into()),
    int("os", |of| of.row.click.os.into()),
    long("click_reserved", |of| of.row.click.reserved.get().into()),
    Column { name: "extension", cell: Cell::Octets(|of| of.extension.to_vec()) },
];

/// The country as text; empty when unknown, or when it is none.
fn country(of: &Archived<'_>) -> Vec<u8> {
    let country = of.row.click.country;
    if country.iter().all(u8::is_ascii_uppercase) { country.to_vec() } else { Vec::new() }
}

/// The schema of a file.
pub static SCHEMA: LazyLock<TypePtr> = LazyLock::new(|| {
    let field = |column: &Column| {
        let (physical, converted) = match column.cell {
            Cell::Int(_) => (Physical::INT32, ConvertedType::NONE),
            Cell::Long(_) => (Physical::INT64, ConvertedType::NONE),
            Cell::Text(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
            Cell::Octets(_) => (Physical::BYTE_ARRAY, ConvertedType::NONE),
        };
        let field = Type::primitive_type_builder(column.name, physical);
        let built = field.with_repetition(Repetition::REQUIRED).with_converted_type(converted).build();
        Arc::new(built.expect("a primitive type with a name"))
    };
    let fields = COLUMNS.iter().map(field).collect();
    let schema = Type::group_type_builder("click").with_fields(fields).build();
    Arc::new(schema.expect("a group of fields"))
});

impl Column {
    /// Writes this column of some rows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, rows: &[Archived<'_>], into: &mut SerializedColumnWriter<'_>) -> Result<()> {
        match self.cell {
            Cell::Int(cell) => {
                let values: Vec<i32> = rows.iter().map(cell).collect();
                into.typed::<Int32Type>().write_batch(&values, None, None)?;
            }
            Cell::Long(cell) => {
                let values: Vec<i64> = rows.iter().map(cell).collect();
                into.typed::<Int64Type>().write_batch(&values, None, None)?;
            }
            Cell::Text(cell) | Cell::Octets(cell) => {
                let values: Vec<ByteArray> = rows.iter().map(|row| cell(row).into()).collect();
                into.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
        }
        Ok(())
    }
}
