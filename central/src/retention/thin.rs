//! An object without what is of a user: the same rows, columns and groups, with the values of some columns taken out.
//!
//! What stays is what a click is counted, billed and told apart by. Values are taken out as a click that came without them
//! has them, so an engine meets nothing new.

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use weir_common::wire::click_flags;

use crate::archive::read::{Object, Values};
use crate::archive::spool;

/// What is of a user: who he is, where he was, where he pointed, what he came with. Country, class of device and operating
/// system stay: clicks are counted by them.
pub const OF_A_USER: [&str; 6] = ["user_key", "latitude_e6", "longitude_e6", "x", "y", "extension"];
/// The bits that say that he was somewhere and pointed somewhere.
const FLAGS: i32 = (click_flags::POSITION | click_flags::POINT) as i32;

/// An object's octets without it. The same octets give the same, as long as the program is the same.
///
/// # Errors
/// When they are no object of an archive.
pub fn thinned(octets: Bytes) -> Result<Vec<u8>> {
    let object = Object::of(octets)?;
    let schema = object.metadata().file_metadata().schema_descr().root_schema_ptr();
    let names: Vec<_> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, spool::properties().into())?;
    for group in 0..object.groups() {
        let mut into = writer.next_row_group()?;
        for name in &names {
            let [values] = object.columns(group, [name])?;
            let next = into.next_column()?;
            let mut next = next.ok_or_else(|| ParquetError::General(format!("{name} has no column")))?;
            write(&without(name, values), &mut next)?;
            next.close()?;
        }
        into.close()?;
    }
    writer.into_inner()
}

/// A column without what is of a user.
fn without(name: &str, values: Values) -> Values {
    match values {
        Values::Ints(values) if name == "click_flags" => {
            Values::Ints(values.into_iter().map(|flags| flags & !FLAGS).collect())
        }
        values if !OF_A_USER.contains(&name) => values,
        Values::Ints(values) => Values::Ints(vec![0; values.len()]),
        Values::Longs(values) => Values::Longs(vec![0; values.len()]),
        Values::Octets(values) => Values::Octets(vec![ByteArray::from(Vec::new()); values.len()]),
    }
}

fn write(values: &Values, into: &mut SerializedColumnWriter<'_>) -> Result<()> {
    match values {
        Values::Ints(values) => into.typed::<Int32Type>().write_batch(values, None, None)?,
        Values::Longs(values) => into.typed::<Int64Type>().write_batch(values, None, None)?,
        Values::Octets(values) => into.typed::<ByteArrayType>().write_batch(values, None, None)?,
    };
    Ok(())
}
