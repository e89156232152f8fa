//! An object read by ranges: its footer first, then filters and columns of those groups that may have
//! what is looked for. Of a large object a look-up reads some hundred kilobytes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Buf, Bytes};
use parquet::bloom_filter::Sbbf;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;

use super::manifest::ObjectEntry;
use super::place::{Place, PlaceError, Version};
use super::read::{Object, Values};

/// What is read of an object's end at first: the footers of some forty groups fit.
const FOOTER_BYTES: u64 = 64 << 10;

/// Why an object gives no answer.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RangedError {
    /// {0}
    Place(#[from] PlaceError),
    /// {path}: {source}; the object is damaged, so what is missing has to be brought back first
    Damaged {
        /// The object.
        path: String,
        /// Why.
        source: ParquetError,
    },
}

/// The ranges of an object that were read.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    len: u64,
    parts: BTreeMap<u64, Bytes>,
}

impl Ranges {
    /// What was read of it from there on.
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let rest = |(at, part): (&u64, &Bytes)| {
            let skipped = usize::try_from(start - at).ok()?;
            (skipped < part.len()).then(|| part.slice(skipped..))
        };
        let found = self.parts.range(..=start).filter_map(rest).max_by_key(Bytes::len);
        found.ok_or_else(|| ParquetError::General(format!("octet {start} was not read")))
    }

    fn has(&self, range: &Range<u64>) -> bool {
        self.from(range.start).is_ok_and(|rest| rest.len() as u64 >= range.end - range.start)
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Ranges {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let found = self.from(start)?;
        if found.len() < length {
            return Err(ParquetError::General(format!("{length} octets from {start} on were not read")));
        }
        Ok(found.slice(..length))
    }
}

/// An object whose footer was read.
#[derive(Debug)]
pub struct Ranged<'a> {
    place: &'a Place,
    entry: &'a ObjectEntry,
    version: Version,
    metadata: ParquetMetaData,
    read: Ranges,
}

impl<'a> Ranged<'a> {
    /// Reads an object's footer.
    ///
    /// # Errors
    /// When it is not there, or no Parquet file.
    pub async fn open(place: &'a Place, entry: &'a ObjectEntry) -> Result<Self, RangedError> {
        let damaged = |source| RangedError::Damaged { path: entry.path.clone(), source };
        let mut tail = FOOTER_BYTES;
        let mut reader = ParquetMetaDataReader::new();
        loop {
            let (octets, version) = place.tail(&entry.path, tail).await?;
            match reader.try_parse_sized(&octets, version.bytes) {
                Err(ParquetError::NeedMoreData(needed)) if tail < version.bytes && needed as u64 > tail => {
                    tail = (needed as u64).min(version.bytes);
                }
                Err(source) => return Err(damaged(source)),
                Ok(()) => {
                    let metadata = reader.finish().map_err(damaged)?;
                    let start = version.bytes - octets.len() as u64;
                    let read = Ranges { len: version.bytes, parts: [(start, octets)].into() };
                    return Ok(Self { place, entry, version, metadata, read });
                }
            }
        }
    }

    fn damaged(&self, source: ParquetError) -> RangedError {
        RangedError::Damaged { path: self.entry.path.clone(), source }
    }

    fn column(&self, group: usize, name: &str) -> Option<&ColumnChunkMetaData> {
        let mut columns = self.metadata.row_group(group).columns().iter();
        columns.find(|column| column.column_path().string() == name)
    }

    /// How many groups of rows it has.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Reads these ranges, unless they were read: of a small object all came with the footer.
    async fn fetch(&mut self, ranges: impl Iterator<Item = Range<u64>>) -> Result<(), RangedError> {
        let ranges: Vec<_> = ranges.filter(|range| !self.read.has(range)).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let found = self.place.ranges(&self.entry.path, &self.version, &ranges).await?;
        self.read.parts.extend(ranges.iter().map(|range| range.start).zip(found));
        Ok(())
    }

    /// Whether a group may have a row with this value: by the least and greatest of the column.
    #[must_use]
    pub fn is_within(&self, group: usize, name: &str, value: i64) -> bool {
        let statistics = self.column(group, name).and_then(ColumnChunkMetaData::statistics);
        match statistics {
            Some(Statistics::Int64(of)) => {
                of.min_opt().is_none_or(|least| *least <= value)
                    && of.max_opt().is_none_or(|most| *most >= value)
            }
            _ => true,
        }
    }

    /// Whether a group may have a row with this value: by the column's filter, of which a hundredth of the
    /// values that are not there pass.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn passes(&mut self, group: usize, name: &str, value: i64) -> Result<bool, RangedError> {
        let Some(column) = self.column(group, name).cloned() else { return Ok(false) };
        let place = column.bloom_filter_offset().zip(column.bloom_filter_length());
        let place = place.and_then(|(at, len)| Some((u64::try_from(at).ok()?, u64::try_from(len).ok()?)));
        // An object without filters has to be looked into.
        let Some((at, len)) = place else { return Ok(true) };
        self.fetch(std::iter::once(at..at + len)).await?;
        let filter =
            Sbbf::read_from_column_chunk(&column, &self.read).map_err(|error| self.damaged(error))?;
        Ok(filter.is_none_or(|filter| filter.check(&value)))
    }

    /// These columns of a group.
    ///
    /// # Errors
    /// When there is no such column, or it cannot be read.
    pub async fn columns<const N: usize>(
        &mut self,
        group: usize,
        names: [&str; N],
    ) -> Result<[Values; N], RangedError> {
        let ranges = names.iter().filter_map(|name| {
            let (at, len) = self.column(group, name)?.byte_range();
            Some(at..at + len)
        });
        let ranges: Vec<_> = ranges.collect();
        self.fetch(ranges.into_iter()).await?;
        let object = Object::of(self.read.clone()).and_then(|object| object.columns(group, names));
        object.map_err(|source| self.damaged(source))
    }
}
