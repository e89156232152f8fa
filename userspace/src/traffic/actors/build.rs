//! Builds the file of a filter from a list, offline, in bounded memory.
//!
//! First the list is read once; each actor's hash goes, by its leading bits, to one of 128
//! partitions of a spill file that has no name any more. Then partitions are read back shard by
//! shard, sorted, freed of what stands twice, built and written. So memory is that of one shard
//! of about two million keys, whatever the list's size: below 128 MiB.
//!
//! The file is written beside its place under another name, synced, and renamed. So the place
//! holds the old filter or the new one at any moment, also after a crash.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use weir_common::time::UnixMs;
use zerocopy::IntoBytes;

use super::file::{ACTORS_MAX, FILTER_BYTES_MAX, HEADER_LEN, Header, SHARDS_MAX};
use super::fuse::{self, FILE_KEY, Scratch, Shard};
use super::key::ActorKey;
use crate::journal::disk::sync_folder;
use crate::traffic::source::{
    LINE_BYTES_MAX, ListError, ListProblems, VERSION_LEN_MAX, entry, line_text, said_version,
};

/// Partitions of the spill: as many as there can be shards.
const PARTITIONS: usize = SHARDS_MAX as usize;
/// The most lines of a list that name an actor: well above [`ACTORS_MAX`], since lists that were
/// merged name many twice.
const LINES_MAX: u64 = 1 << 28;
/// About as many lines as a shard is built of.
const SHARD_LINES: u64 = 1 << 21;
/// Hashes of a partition that are written to the spill at once: 64 KiB.
const CHUNK_HASHES: usize = 8192;
/// Problems after which a list is not read any further.
const PROBLEMS_MAX: usize = 100;
/// How often progress is told while a list is read.
const TOLD_LINES: u64 = 1 << 20;

const _: () = assert!(LINES_MAX / PARTITIONS as u64 <= SHARD_LINES);

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Reading the list.
    Read {
        /// Lines so far.
        lines: u64,
    },
    /// Building.
    Built {
        /// Shards that are done.
        shards: u32,
        /// Of how many.
        of: u32,
    },
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Lines that named an actor.
    pub lines: u64,
    /// Different actors.
    pub actors: u64,
    /// Octets of the file.
    pub bytes: u64,
}

/// Why no filter was built. What was in its place still is.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum BuildError {
    /// {0}
    List(#[from] ListError),
    /// cannot write {path}: {source}; see whether the folder can be written to and has room for 8 octets a line of the list and 180 MB
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// another build is writing {path}; wait for it, or end it
    Busy {
        /// The file it writes.
        path: PathBuf,
    },
    /// the filter would have {bytes} octets, more than 180,000,000; give it fewer actors
    TooLarge {
        /// How many.
        bytes: u64,
    },
    /// no seed was found for shard {shard}; this is a defect of the program, please report it with the list
    Unbuildable {
        /// Which.
        shard: u32,
    },
}

/// Builds a filter from a list and puts it in its place.
///
/// # Errors
/// With the place as it was before.
pub fn build(
    list: &Path,
    out: &Path,
    built_at: UnixMs,
    told: &mut dyn FnMut(Progress),
) -> Result<Summary, BuildError> {
    build_in_shards(list, out, built_at, told, SHARD_LINES)
}

/// The same with another size of shards.
pub(super) fn build_in_shards(
    list: &Path,
    out: &Path,
    built_at: UnixMs,
    told: &mut dyn FnMut(Progress),
    shard_lines: u64,
) -> Result<Summary, BuildError> {
    let partial = Partial::create(out)?;
    let mut spill = Spill::create(out, shard_lines)?;
    let read = read_list(list, &mut spill, told)?;
    spill.flush()?;
    let mut header = Header::new();
    header.built_at_ms = built_at.0.into();
    header.list_crc = read.crc32c.into();
    let version = read.version.as_bytes();
    let len = version.len().min(VERSION_LEN_MAX);
    header.list_version[..len].copy_from_slice(&version[..len]);
    let summary = write_filter(&partial, &mut spill, header, told);
    let summary = summary.map_err(|error| error.about(list, &partial.path))?;
    partial.put_in_place(out)?;
    Ok(summary)
}

/// What is written, until it is whole.
struct Partial {
    file: File,
    path: PathBuf,
    /// Whether the name is another file's by now.
    placed: bool,
}

impl Partial {
    /// Opens the one name beside `out` that builds write to; what a killed one left is overwritten.
    fn create(out: &Path) -> Result<Self, BuildError> {
        let path = beside(out, ".partial");
        let failed = |source| BuildError::Write { path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(BuildError::Busy { path }),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A build that ended between the two calls has given this very file its place.
        let (ours, named) =
            (file.metadata().map_err(failed)?.ino(), fs::metadata(&path).map(|named| named.ino()));
        if named.ok() != Some(ours) {
            return Err(BuildError::Busy { path });
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self { file, path, placed: false })
    }

    fn put_in_place(mut self, out: &Path) -> Result<(), BuildError> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |source| BuildError::Write { path: out.to_owned(), source };
        self.file.sync_all().and_then(|()| fs::rename(&self.path, out)).map_err(failed)?;
        self.placed = true;
        sync_folder(folder).map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.placed {
            // What is left is overwritten by the next build.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(ending);
    name.into()
}

/// Hashes on their way to their shards: a file without a name, in chunks of one partition each.
struct Spill {
    file: File,
    path: PathBuf,
    /// Hashes of each partition that are not written yet.
    open: Vec<Vec<u64>>,
    /// Where each partition's chunks begin in the file, and how many hashes they have.
    chunks: Vec<Vec<(u64, usize)>>,
    len: u64,
    lines: u64,
    /// About as many lines go into a shard.
    shard_lines: u64,
}

impl Spill {
    fn create(out: &Path, shard_lines: u64) -> Result<Self, BuildError> {
        let path = beside(out, ".spill");
        let failed = |source| BuildError::Write { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(failed)?;
        // Without a name it is gone with the process, however that ends.
        fs::remove_file(&path).map_err(failed)?;
        let open = (0..PARTITIONS).map(|_| Vec::with_capacity(CHUNK_HASHES)).collect();
        Ok(Self { file, path, open, chunks: vec![Vec::new(); PARTITIONS], len: 0, lines: 0, shard_lines })
    }

    fn add(&mut self, hash: u64) -> Result<(), BuildError> {
        let partition = (hash >> (u64::BITS - PARTITIONS.ilog2())) as usize;
        self.lines += 1;
        self.open[partition].push(hash);
        if self.open[partition].len() == CHUNK_HASHES { self.write(partition) } else { Ok(()) }
    }

    fn write(&mut self, partition: usize) -> Result<(), BuildError> {
        let hashes = &mut self.open[partition];
        let written = self.file.write_all_at(hashes.as_bytes(), self.len);
        written.map_err(|source| BuildError::Write { path: self.path.clone(), source })?;
        self.chunks[partition].push((self.len, hashes.len()));
        self.len += size_of_val(&**hashes) as u64;
        hashes.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BuildError> {
        for partition in 0..PARTITIONS {
            if !self.open[partition].is_empty() {
                self.write(partition)?;
            }
        }
        Ok(())
    }

    /// Into how many shards the lines go: a power of two, so that a shard is whole partitions.
    fn shards(&self) -> usize {
        let wanted = self.lines.div_ceil(self.shard_lines).max(1) as usize;
        wanted.next_power_of_two().min(PARTITIONS)
    }

    /// All different hashes of a shard, in order.
    fn read(&self, shard: usize, of: usize, hashes: &mut Vec<u64>) -> io::Result<()> {
        hashes.clear();
        // When so many are gathered, those that stand twice are thrown out.
        let gathered_max = 2 * self.shard_lines as usize;
        let each = PARTITIONS / of;
        for &(start, len) in self.chunks[shard * each..][..each].iter().flatten() {
            if hashes.len() + len > gathered_max {
                hashes.sort_unstable();
                hashes.dedup();
            }
            let before = hashes.len();
            hashes.resize(before + len, 0);
            self.file.read_exact_at(hashes[before..].as_mut_bytes(), start)?;
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(())
    }
}

/// What was read of a list, beside its actors.
struct ReadList {
    crc32c: u32,
    version: String,
}

fn read_list(list: &Path, spill: &mut Spill, told: &mut dyn FnMut(Progress)) -> Result<ReadList, BuildError> {
    let refused = |source: io::Error| ListError::Read { path: list.to_owned(), source: source.into() };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(list).map_err(refused)?);
    let mut read = ReadList { crc32c: 0, version: String::new() };
    let (mut problems, mut bytes, mut at) = (ListProblems::default(), Vec::with_capacity(LINE_BYTES_MAX), 0);
    while problems.first.len() < PROBLEMS_MAX {
        bytes.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if io::Read::take(&mut reader, limit).read_until(b'\n', &mut bytes).map_err(refused)? == 0 {
            break;
        }
        at += 1;
        read.crc32c = crc32c::crc32c_append(read.crc32c, &bytes);
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match line_text(line).and_then(|line| read_line(line, &mut read.version)) {
            Ok(Some(actor)) => spill.add(actor.hash(&FILE_KEY))?,
            Ok(None) => {}
            Err(wrong) => problems.note(at, wrong),
        }
        if line.len() > LINE_BYTES_MAX {
            break;
        }
        if spill.lines > LINES_MAX {
            let (entries, max) = (spill.lines, LINES_MAX);
            return Err(ListError::TooMany { path: list.to_owned(), entries, max }.into());
        }
        if (at as u64).is_multiple_of(TOLD_LINES) {
            told(Progress::Read { lines: at as u64 });
        }
    }
    told(Progress::Read { lines: at as u64 });
    if problems.is_empty() {
        Ok(read)
    } else {
        Err(ListError::Invalid { path: list.to_owned(), problems }.into())
    }
}

/// The actor in one line, if there is one.
fn read_line(line: &str, version: &mut String) -> Result<Option<ActorKey>, String> {
    if version.is_empty() {
        *version = said_version(line).unwrap_or_default();
    }
    let entry = entry(line);
    if entry.is_empty() { Ok(None) } else { ActorKey::read(entry).map(Some) }
}

/// Why a filter could not be written, before the files have names.
enum WriteError {
    Io(io::Error),
    TooMany(u64),
    Other(BuildError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl WriteError {
    fn about(self, list: &Path, out: &Path) -> BuildError {
        match self {
            Self::Io(source) => BuildError::Write { path: out.to_owned(), source },
            Self::TooMany(entries) => {
                BuildError::List(ListError::TooMany { path: list.to_owned(), entries, max: ACTORS_MAX })
            }
            Self::Other(error) => error,
        }
    }
}

fn write_filter(
    partial: &Partial,
    spill: &mut Spill,
    mut header: Header,
    told: &mut dyn FnMut(Progress),
) -> Result<Summary, WriteError> {
    let shards = spill.shards();
    let mut table: Vec<Shard> = Vec::with_capacity(shards);
    let mut writer = BufWriter::new(&partial.file);
    let data_at = HEADER_LEN + shards * size_of::<Shard>();
    writer.seek(io::SeekFrom::Start(data_at as u64))?;
    let (mut scratch, mut hashes, mut packed) = (Scratch::default(), Vec::new(), Vec::new());
    let (mut actors, mut slots, mut data_crc) = (0, 0, 0);
    for number in 0..shards {
        spill.read(number, shards, &mut hashes)?;
        actors += hashes.len() as u64;
        if actors > ACTORS_MAX {
            return Err(WriteError::TooMany(actors));
        }
        let unbuildable = || WriteError::Other(BuildError::Unbuildable { shard: number as u32 });
        let (shard, fingerprints) = fuse::build(&hashes, slots, &mut scratch).ok_or_else(unbuildable)?;
        packed.clear();
        fuse::pack(fingerprints, &mut packed);
        data_crc = crc32c::crc32c_append(data_crc, &packed);
        writer.write_all(&packed)?;
        slots += shard.slots();
        table.push(shard);
        told(Progress::Built { shards: number as u32 + 1, of: shards as u32 });
    }
    let bytes = data_at as u64 + fuse::packed_len(slots);
    if bytes > FILTER_BYTES_MAX {
        return Err(WriteError::Other(BuildError::TooLarge { bytes }));
    }
    header.actors = actors.into();
    header.slots = slots.into();
    header.shards = (shards as u32).into();
    header.data_crc = data_crc.into();
    header.head_crc = header.crc(&table).into();
    writer.seek(io::SeekFrom::Start(0))?;
    writer.write_all(header.as_bytes())?;
    writer.write_all(table.as_bytes())?;
    writer.flush()?;
    Ok(Summary { lines: spill.lines, actors, bytes })
}
