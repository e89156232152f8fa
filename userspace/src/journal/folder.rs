//! The journal folder: who may use it, which life and which start of the daemon this is.
//!
//! ```text
//! <data>/
//!   lock            held by the running daemon (flock)
//!   incarnation     drawn once: node and a random number, with a CRC
//!   epoch           number of the last start
//!   journal/        the segments
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};

use super::block::BlockIdentity;
use super::disk::create_folder;
use super::keys::DayKeys;
use super::segment::SegmentId;
use crate::state_file::{self, StateFileError};

/// Why a folder cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum FolderError {
    /// cannot {doing} {path}: {source}
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// {path} is in use by another weir daemon; stop that one, or give this one a folder of its own
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// {path} belongs to node {found}, but the config says node {wanted}; correct `node`, or give this node a folder of its own
    OtherNode {
        /// The incarnation file.
        path: PathBuf,
        /// Whose folder it is.
        found: u32,
        /// Who asks.
        wanted: u32,
    },
    /// {path} is missing or damaged while segments are there; restore it, or move the whole folder aside and start with an empty one
    NoIncarnation {
        /// The incarnation file.
        path: PathBuf,
    },
    /// {path} is missing, damaged or too low, and an epoch must never come twice; write the highest epoch ever used into it (the checkpoint of the sink names it)
    NoEpoch {
        /// The epoch file.
        path: PathBuf,
    },
    /// {path} has had as many starts as can be counted; move the folder aside after its blocks are forwarded
    EpochsUsedUp {
        /// The epoch file.
        path: PathBuf,
    },
}

impl From<StateFileError> for FolderError {
    fn from(StateFileError { doing, path, source }: StateFileError) -> Self {
        Self::Io { doing, path, source }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { doing, path, source }
}

/// Where the segments of a node are, and whose they are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder of the segments.
    pub segments: PathBuf,
    /// The node.
    pub node: NodeId,
    /// The life of the folder.
    pub incarnation: Incarnation,
    /// The keys of its encrypted segments, if it has such.
    pub keys: Option<Arc<DayKeys>>,
}

/// A journal folder, locked as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    segments: PathBuf,
    node: NodeId,
    incarnation: Incarnation,
    epoch: Epoch,
    keys: Option<Arc<DayKeys>>,
    encrypts: bool,
    _lock: File,
}

impl Folder {
    /// Opens the folder for a new start of the daemon, and creates it if there is none. The new
    /// epoch is durable before this returns.
    ///
    /// # Errors
    /// See [`FolderError`]; each says what to do.
    pub fn open(path: &Path, node: NodeId) -> Result<Self, FolderError> {
        let segments = path.join("journal");
        create_folder(path).map_err(failed("create", path))?;
        create_folder(&segments).map_err(failed("create", &segments))?;
        let lock = lock(&path.join("lock"))?;
        // A digest outlives its segment, and belongs to this folder's life as much.
        let newest = segment_ids(&segments)?.last().max(digest_ids(&segments)?.last()).map(|id| id.epoch);
        let found = find_incarnation(&path.join("incarnation"), node, newest.is_some())?;
        // The epoch comes first, so that a folder with an incarnation always has one.
        let epoch = next_epoch(&path.join("epoch"), newest.unwrap_or_default(), found.is_some())?;
        let incarnation = match found {
            Some(incarnation) => incarnation,
            None => draw_incarnation(&path.join("incarnation"), node)?,
        };
        Ok(Self { segments, node, incarnation, epoch, keys: None, encrypts: false, _lock: lock })
    }

    /// The same folder, whose new segments are encrypted, with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Arc<DayKeys>) -> Self {
        Self { keys: Some(keys), encrypts: true, ..self }
    }

    /// The same folder, whose encrypted segments are read with these keys; new ones are plain, so
    /// each key goes with the last segment under it.
    #[must_use]
    pub fn reading_with(self, keys: Arc<DayKeys>) -> Self {
        keys.retire();
        Self { keys: Some(keys), encrypts: false, ..self }
    }

    /// The keys of its encrypted segments, if it has any.
    #[must_use]
    pub const fn day_keys(&self) -> Option<&Arc<DayKeys>> {
        self.keys.as_ref()
    }

    /// The keys its new segments are encrypted with, if they are.
    #[must_use]
    pub fn sealing_keys(&self) -> Option<Arc<DayKeys>> {
        self.keys.clone().filter(|_| self.encrypts)
    }

    /// Where the segments are.
    #[must_use]
    pub fn segments(&self) -> &Path {
        &self.segments
    }

    /// Where its segments are, for who does not need the lock.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            segments: self.segments.clone(),
            node: self.node,
            incarnation: self.incarnation,
            keys: self.keys.clone(),
        }
    }

    /// The node it belongs to.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Its life.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// This start of the daemon.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The identity of the first block of a worker in this epoch.
    #[must_use]
    pub const fn writer(&self, worker: WorkerId) -> BlockIdentity {
        BlockIdentity {
            incarnation: self.incarnation,
            node: self.node,
            epoch: self.epoch,
            worker,
            sequence: BlockSeq(1),
        }
    }

    /// Bytes of all segments and digests in it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn bytes_used(&self) -> Result<u64, FolderError> {
        let size = |path: &Path| fs::metadata(path).map(|found| found.len()).map_err(failed("look at", path));
        let segments = segment_ids(&self.segments)?.into_iter().map(|id| id.file_name());
        let digests = digest_ids(&self.segments)?.into_iter().map(|id| id.digest_name());
        segments.chain(digests).map(|name| size(&self.segments.join(name))).sum()
    }
}

/// The segments in a folder, in order.
///
/// # Errors
/// When it cannot be read.
pub fn segment_ids(segments: &Path) -> Result<Vec<SegmentId>, FolderError> {
    ids(segments, SegmentId::parse)
}

/// The segments in a folder that have a digest, there or not, in order.
///
/// # Errors
/// When it cannot be read.
pub fn digest_ids(segments: &Path) -> Result<Vec<SegmentId>, FolderError> {
    ids(segments, SegmentId::parse_digest)
}

fn ids(segments: &Path, parse: fn(&str) -> Option<SegmentId>) -> Result<Vec<SegmentId>, FolderError> {
    let entries = fs::read_dir(segments).map_err(failed("list", segments))?;
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", segments))?.file_name();
        ids.extend(name.to_str().and_then(parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn lock(path: &Path) -> Result<File, FolderError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path).map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
    }
}

fn read(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn incarnation_text(node: NodeId, incarnation: Incarnation) -> String {
    let line = format!("weir journal 1 node {} incarnation {:016x}", node.0, incarnation.0);
    format!("{line} crc {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn parse_incarnation(text: &str) -> Option<(NodeId, Incarnation)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["weir", "journal", "1", "node", node, "incarnation", incarnation, "crc", _] = words[..] else {
        return None;
    };
    let node = NodeId(node.parse().ok()?);
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
    (text == incarnation_text(node, incarnation)).then_some((node, incarnation))
}

fn find_incarnation(
    path: &Path,
    node: NodeId,
    has_segments: bool,
) -> Result<Option<Incarnation>, FolderError> {
    let text = read(path)?;
    match text.as_deref().map(parse_incarnation) {
        Some(Some((found, incarnation))) if found == node => Ok(Some(incarnation)),
        Some(Some((found, _))) => {
            Err(FolderError::OtherNode { path: path.to_owned(), found: found.0, wanted: node.0 })
        }
        None if !has_segments => Ok(None),
        None | Some(None) => Err(FolderError::NoIncarnation { path: path.to_owned() }),
    }
}

fn draw_incarnation(path: &Path, node: NodeId) -> Result<Incarnation, FolderError> {
    let mut random = [0; 8];
    let source = Path::new("/dev/urandom");
    let mut file = File::open(source).map_err(failed("open", source))?;
    file.read_exact(&mut random).map_err(failed("read", source))?;
    let incarnation = Incarnation(u64::from_le_bytes(random));
    state_file::replace(path, &incarnation_text(node, incarnation))?;
    Ok(incarnation)
}

/// One more than the last start.
fn next_epoch(path: &Path, newest_segment: Epoch, is_born: bool) -> Result<Epoch, FolderError> {
    let stated = match read(path)? {
        Some(text) => text.trim().parse::<u32>().ok().filter(|&epoch| epoch >= newest_segment.0),
        None if !is_born => Some(0),
        None => None,
    };
    let Some(last) = stated else { return Err(FolderError::NoEpoch { path: path.to_owned() }) };
    if last >= EPOCH_MAX {
        return Err(FolderError::EpochsUsedUp { path: path.to_owned() });
    }
    state_file::replace(path, &format!("{}\n", last + 1))?;
    Ok(Epoch(last + 1))
}

/// The last epoch there can be: segment names carry eight digits.
const EPOCH_MAX: u32 = 99_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_one_epoch_later_in_the_same_life() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path(), NodeId(1)).unwrap();
        let (epoch, incarnation) = (first.epoch(), first.incarnation());
        drop(first);
        let second = Folder::open(dir.path(), NodeId(1)).unwrap();
        assert_eq!((epoch, second.epoch()), (Epoch(1), Epoch(2)));
        assert_eq!(incarnation, second.incarnation());
    }

    #[test]
    fn two_daemons_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Folder::open(dir.path(), NodeId(1)).unwrap();
        let error = Folder::open(dir.path(), NodeId(1)).unwrap_err();
        assert!(matches!(error, FolderError::InUse { .. }), "{error}");
    }

    #[test]
    fn another_nodes_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path(), NodeId(1)).unwrap());
        let error = Folder::open(dir.path(), NodeId(2)).unwrap_err();
        assert!(matches!(error, FolderError::OtherNode { found: 1, wanted: 2, .. }), "{error}");
    }

    #[test]
    fn an_epoch_never_comes_twice_even_when_its_file_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epoch");
        let open = || Folder::open(dir.path(), NodeId(1));
        let segment = open().unwrap().segments().join("00000041-0000-00000001.wseg");
        for text in [None, Some("garbage"), Some("-1")] {
            fs::remove_file(&path).unwrap();
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            assert!(matches!(open().unwrap_err(), FolderError::NoEpoch { .. }), "{text:?}");
            fs::write(&path, "40").unwrap();
        }
        fs::write(segment, []).unwrap();
        assert!(matches!(open().unwrap_err(), FolderError::NoEpoch { .. }));
        fs::write(&path, "41").unwrap();
        assert_eq!(open().unwrap().epoch(), Epoch(42));
    }

    #[test]
    fn segments_without_their_incarnation_are_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), NodeId(1)).unwrap();
        fs::write(folder.segments().join("00000001-0000-00000001.wseg"), []).unwrap();
        drop(folder);
        let path = dir.path().join("incarnation");
        let mut text = fs::read_to_string(&path).unwrap();
        text = text.replace("node 1 ", "node 2 ");
        fs::write(&path, text).unwrap();
        for _ in 0..2 {
            let error = Folder::open(dir.path(), NodeId(1)).unwrap_err();
            assert!(matches!(error, FolderError::NoIncarnation { .. }), "{error}");
            let _gone = fs::remove_file(&path);
        }
    }
}
