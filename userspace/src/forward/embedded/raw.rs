//! Raw batches as files: blocks one after the other, nothing else. The bytes are those of the
//! journal.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader};

use super::super::batch::{BatchBlocks, FlushNo};
use super::super::sink::SinkError;
use crate::journal::block::{BlockFault, check_block, check_header};
use crate::journal::disk::sync_folder;

/// How a raw batch's name ends.
pub const RAW_SUFFIX: &str = ".wraw";
/// Bytes written or read at once.
const CHUNK: usize = 1 << 20;

/// Which raw batch: the parts of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawId {
    /// The flush.
    pub flush: FlushNo,
    /// The part of it.
    pub part: u32,
}

impl RawId {
    /// The name of the file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:016}-{:06}{RAW_SUFFIX}", self.flush.0, self.part)
    }

    /// The raw batch a file name stands for.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (flush, part) = name.strip_suffix(RAW_SUFFIX)?.split_once('-')?;
        let id = Self { flush: FlushNo(flush.parse().ok()?), part: part.parse().ok()? };
        (id.file_name() == name).then_some(id)
    }
}

/// What was written to a raw file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawSummary {
    /// Blocks in it.
    pub blocks: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// CRC-32C of the file.
    pub crc: u32,
}

/// Writes the blocks of a batch to its file, durably, its name included. Written beside and
/// renamed, so that doing it again never damages what is there.
pub(super) fn write(folder: &Path, id: RawId, blocks: &mut BatchBlocks) -> Result<RawSummary, SinkError> {
    let path = folder.join(id.file_name());
    let fresh = path.with_extension("new");
    let failed = |doing: &str, path: &Path, error: &io::Error| {
        SinkError::Retry(format!("{doing} {} failed: {error}; free space or check the disk", path.display()))
    };
    // After a failed sync another file, and not the same one again: of its pages nobody knows.
    let _there_is_none = fs::remove_file(&fresh);
    let file = File::create_new(&fresh).map_err(|error| failed("creating", &fresh, &error))?;
    let mut out = BufWriter::with_capacity(CHUNK, file);
    let mut crc = 0;
    while let Some(block) = blocks.next_block()? {
        crc = crc32c::crc32c_append(crc, block);
        out.write_all(block).map_err(|error| failed("writing", &fresh, &error))?;
    }
    let synced = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    synced.map_err(|error| failed("syncing", &fresh, &error))?;
    fs::rename(&fresh, &path).map_err(|error| failed("renaming", &fresh, &error))?;
    sync_folder(folder).map_err(|error| failed("syncing", folder, &error))?;
    let (blocks, rows, bytes) = blocks.read();
    Ok(RawSummary { blocks, rows, bytes, crc })
}

/// The raw files in a folder, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<RawId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(RawId::parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes the leftovers of interrupted writes: they never had a name that counts.
pub(super) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Why a raw file cannot be read to its end.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RawError {
    /// {path}: {source}
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// {path} at {offset}: {fault}
    Block {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        fault: BlockFault,
    },
}

/// The blocks of a raw file, one at a time.
#[derive(Debug)]
pub struct RawBlocks {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    crc: u32,
    block: Vec<u8>,
}

impl RawBlocks {
    /// Opens a raw file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: PathBuf) -> Result<Self, RawError> {
        match File::open(&path) {
            Ok(file) => Ok(Self {
                path,
                file: BufReader::with_capacity(CHUNK, file),
                offset: 0,
                crc: 0,
                block: Vec::new(),
            }),
            Err(source) => Err(RawError::Io { path, source }),
        }
    }

    /// The next block, checked; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are not a block, or cannot be read. Nothing after that can be trusted.
    pub fn next_block(&mut self) -> Result<Option<(&BlockHeader, &[u8])>, RawError> {
        let offset = self.offset;
        let fault = |path: &Path, fault| RawError::Block { path: path.to_owned(), offset, fault };
        let count = self.read(0, BLOCK_HEADER_LEN)?;
        if count == 0 {
            return Ok(None);
        }
        let header = check_header(&self.block[..count]).map_err(|found| fault(&self.path, found))?;
        let body_len = header.body_len.get() as usize;
        let count = self.read(BLOCK_HEADER_LEN, body_len)?;
        self.block.truncate(BLOCK_HEADER_LEN + count);
        self.offset += self.block.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        check_block(&self.block).map(Some).map_err(|found| fault(&self.path, found))
    }

    /// The block read last, header and rows.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Bytes read so far and their CRC-32C.
    #[must_use]
    pub const fn read_so_far(&self) -> (u64, u32) {
        (self.offset, self.crc)
    }

    /// Reads `len` bytes to `at` in the block buffer; fewer at the end of the file. Reads no
    /// further ahead than the file reaches, whatever a damaged length says.
    fn read(&mut self, at: usize, len: usize) -> Result<usize, RawError> {
        self.block.truncate(at);
        let io_error = |source| RawError::Io { path: self.path.clone(), source };
        (&mut self.file).take(len as u64).read_to_end(&mut self.block).map_err(io_error)
    }
}
