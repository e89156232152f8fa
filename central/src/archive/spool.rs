//! A batch in the making: rows go to one staged file an hour, until the batch is large or old enough.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use weir_common::block::BlockHeader;
use weir_common::row::Rows;

use super::audit::Since;
use super::column::{Archived, COLUMNS, SCHEMA};
use super::manifest::{Hour, ObjectEntry, object_path};

/// Rows of a group: what a reader has in memory of a column at once. Some 20 MB of rows here.
const GROUP_ROWS: usize = 100_000;
/// Hours of one batch: rows of nodes whose clocks agree come from one or two.
pub const HOURS_MAX: usize = 48;

/// Why rows cannot be staged.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum SpoolError {
    /// {path}: {source}
    Io {
        /// The staged file or its folder.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// a staged file cannot be written: {0}
    Parquet(#[from] ParquetError),
}

/// A block whose rows wait for their group.
struct Held {
    header: BlockHeader,
    body: Vec<u8>,
}

struct Open {
    staged: PathBuf,
    path: String,
    writer: SerializedFileWriter<File>,
    held: Vec<Held>,
    held_rows: usize,
    rows: u64,
}

/// The staged files of a batch.
pub struct Spool {
    folder: PathBuf,
    properties: WriterPropertiesPtr,
    hours: BTreeMap<Hour, Open>,
    blocks: u64,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// How objects are written, whoever writes them.
pub(crate) fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    // One click is found by its impression without reading the others.
    let impression = ColumnPath::from("impression_high");
    let properties = properties.set_column_bloom_filter_enabled(impression.clone(), true);
    properties.set_column_bloom_filter_max_ndv(impression, GROUP_ROWS as u64).build()
}

impl Spool {
    /// An empty one; what an earlier one left in the folder is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or emptied.
    pub fn new(folder: &Path) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Io { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|suffix| suffix == "parquet") {
                fs::remove_file(&path).map_err(|source| SpoolError::Io { path, source })?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            properties: Arc::new(properties()),
            hours: BTreeMap::new(),
            blocks: 0,
        })
    }

    /// Takes the rows of a sound block.
    ///
    /// # Errors
    /// When the disk fails. The batch is to be thrown away then.
    pub fn take(&mut self, header: &BlockHeader, body: &[u8]) -> Result<(), SpoolError> {
        self.blocks += 1;
        for (hour, rows) in by_hour(body) {
            let open = match self.hours.entry(hour) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    let staged = self.folder.join(format!("{}.parquet", hour.0));
                    let failed = |source| SpoolError::Io { path: staged.clone(), source };
                    let file = File::create(&staged).map_err(failed)?;
                    let writer = SerializedFileWriter::new(file, SCHEMA.clone(), self.properties.clone())?;
                    let path = object_path(hour, header);
                    vacant.insert(Open { staged, path, writer, held: Vec::new(), held_rows: 0, rows: 0 })
                }
            };
            open.held.push(Held { header: *header, body: body.to_vec() });
            open.held_rows += rows;
            if open.held_rows >= GROUP_ROWS {
                open.write_group(hour)?;
            }
        }
        Ok(())
    }

    /// Octets of all files so far; those of open groups are not among them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.hours.values().map(|open| open.writer.bytes_written() as u64).sum()
    }

    /// Whether one more block may need an hour too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.hours.len() >= HOURS_MAX
    }

    /// Blocks that were taken.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Closes the files and makes them durable: what each is, and where it is staged.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(&mut self) -> Result<Vec<(ObjectEntry, PathBuf)>, SpoolError> {
        let mut objects = Vec::new();
        for (hour, mut open) in std::mem::take(&mut self.hours) {
            open.write_group(hour)?;
            let failed = |source| SpoolError::Io { path: open.staged.clone(), source };
            let file = open.writer.into_inner()?;
            file.sync_all().map_err(failed)?;
            let (bytes, crc32c) = checksum(&open.staged).map_err(failed)?;
            let entry =
                ObjectEntry { path: open.path, hour, rows: open.rows, bytes, crc32c, since: Since::Whole };
            objects.push((entry, open.staged));
        }
        self.blocks = 0;
        Ok(objects)
    }
}

/// The hours that a block has rows of, and how many. Nearly always one.
fn by_hour(body: &[u8]) -> BTreeMap<Hour, usize> {
    let mut hours = BTreeMap::new();
    for (row, _) in Rows::new(body) {
        *hours.entry(Hour::of(row.received_at_ms.get())).or_default() += 1;
    }
    hours
}

impl Open {
    fn write_group(&mut self, hour: Hour) -> Result<(), SpoolError> {
        let held = std::mem::take(&mut self.held);
        let rows: Vec<_> = held.iter().flat_map(|held| of_hour(held, hour)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &COLUMNS {
            let Some(mut writer) = group.next_column()? else { break };
            column.write(&rows, &mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows += rows.len() as u64;
        self.held_rows = 0;
        Ok(())
    }
}

fn of_hour(held: &Held, hour: Hour) -> impl Iterator<Item = Archived<'_>> {
    let row =
        |(index, (row, extension))| Archived { block: &held.header, index: index as u32, row, extension };
    let rows = Rows::new(&held.body).enumerate().map(row);
    rows.filter(move |of| Hour::of(of.row.received_at_ms.get()) == hour)
}

fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, crc));
        }
        bytes += count as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..count]);
    }
}
