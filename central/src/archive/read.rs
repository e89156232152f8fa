//! Reads objects back: the columns somebody needs, group by group.

use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};

/// The values of one column in one group of rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of 32 bits.
    Ints(Vec<i32>),
    /// Of 64 bits.
    Longs(Vec<i64>),
    /// Octets.
    Octets(Vec<ByteArray>),
}

impl Values {
    /// 64-bit values; none of another column.
    #[must_use]
    pub fn longs(&self) -> &[i64] {
        match self {
            Self::Longs(values) => values,
            _ => &[],
        }
    }

    /// 32-bit values; none of another column.
    #[must_use]
    pub fn ints(&self) -> &[i32] {
        match self {
            Self::Ints(values) => values,
            _ => &[],
        }
    }
}

/// An object that is read: its octets, or those of its ranges that are needed.
pub struct Object<R: ChunkReader = Bytes> {
    reader: SerializedFileReader<R>,
}

impl<R: ChunkReader + 'static> std::fmt::Debug for Object<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("groups", &self.groups()).finish()
    }
}

impl<R: ChunkReader + 'static> Object<R> {
    /// An object of these octets.
    ///
    /// # Errors
    /// When they are no Parquet file.
    pub fn of(octets: R) -> Result<Self> {
        Ok(Self { reader: SerializedFileReader::new(octets)? })
    }

    /// What it says of itself.
    #[must_use]
    pub fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    /// How many groups of rows it has.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    /// These columns of a group, each with as many values as the group has rows.
    ///
    /// # Errors
    /// When there is no such column, or it cannot be read.
    pub fn columns<const N: usize>(&self, group: usize, names: [&str; N]) -> Result<[Values; N]> {
        let reader = self.reader.get_row_group(group)?;
        let rows = usize::try_from(reader.metadata().num_rows()).unwrap_or(0);
        let schema = reader.metadata().schema_descr_ptr();
        let mut found = Vec::with_capacity(N);
        for name in names {
            let index = schema.columns().iter().position(|column| column.name() == name);
            let index = index.ok_or_else(|| ParquetError::General(format!("there is no column {name}")))?;
            let column = reader.get_column_reader(index)?;
            let (values, read) = match schema.column(index).physical_type() {
                Physical::INT32 => {
                    let mut values = Vec::with_capacity(rows);
                    let mut reader = get_typed_column_reader::<Int32Type>(column);
                    let (_, read, _) = reader.read_records(rows, None, None, &mut values)?;
                    (Values::Ints(values), read)
                }
                Physical::INT64 => {
                    let mut values = Vec::with_capacity(rows);
                    let mut reader = get_typed_column_reader::<Int64Type>(column);
                    let (_, read, _) = reader.read_records(rows, None, None, &mut values)?;
                    (Values::Longs(values), read)
                }
                _ => {
                    let mut values = Vec::with_capacity(rows);
                    let mut reader = get_typed_column_reader::<ByteArrayType>(column);
                    let (_, read, _) = reader.read_records(rows, None, None, &mut values)?;
                    (Values::Octets(values), read)
                }
            };
            if read != rows {
                return Err(ParquetError::General(format!("{name} has {read} values in a group of {rows}")));
            }
            found.push(values);
        }
        found.try_into().map_err(|_| ParquetError::General("columns are missing".to_owned()))
    }
}
