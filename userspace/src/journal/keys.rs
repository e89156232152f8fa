//! The folder of day keys: makes them, finds them, destroys them.
//!
//! ```text
//! <journal.keys_dir>/                          0700
//!   <incarnation, 16 hex digits>/              0700, one for each journal folder's life
//!     2026-11-22-00005123c0ffee01.key          0600, a line of text
//! ```
//!
//! A key is drawn from the system's random source when the first segment of its day is wanted, and
//! is durable, file and name, before anything is sealed with it. It is destroyed when nothing can
//! need it any more: a later day's key is in use, no journal seals with it, and no segment names
//! it. Until then it is never touched, for without it acknowledged clicks are lost.
//!
//! Everything here may block on a disk: never call it on a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use weir_common::block::BLOCK_HEADER_LEN;
use weir_common::id::Incarnation;
use zeroize::{Zeroize, Zeroizing};

use super::block::check_header;
use super::disk::{Medium, System};
use super::folder::{FolderError, Place, segment_ids};
use super::seal::{DayKey, DayKeyId, ENVELOPE_LEN, Envelope, SALT_LEN, SECRET_LEN, SealingKey};
use super::segment::{FIRST_GROUP, SegmentHeader, SegmentId};
use crate::day::Day;
use crate::secret_file::{self, SecretFileError, private_folder};

/// How a key's file name ends.
pub const KEY_SUFFIX: &str = ".key";
/// Longer than the text of a key; a file with more is none.
const TEXT_MAX: u64 = 256;

/// Why a key cannot be had, or a journal not be read.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum KeyError {
    /// cannot {doing} {path}: {source}
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// {0}
    File(#[from] SecretFileError),
    /// the system's random source gave nothing for a key; nothing is written without one
    Random,
    /// {path} is missing; put the key's file back
    Missing {
        /// Where the key's file has to be.
        path: PathBuf,
    },
    /// {path} does not hold the key it is named after; put the right file back
    Damaged {
        /// The key's file.
        path: PathBuf,
    },
    /// {segment} is encrypted, and so are {more} other segments, but `journal.keys_dir` is not set: set it to the folder of their keys (the one wanted here is {key}); nothing of the segments was changed
    NoKeysDir {
        /// The first such segment.
        segment: PathBuf,
        /// How many more there are.
        more: usize,
        /// The key it is encrypted with.
        key: DayKeyId,
    },
    /// {segment} and {more} other segments cannot be read without their keys: {source}. If the key is gone for good, so are the clicks in these segments: move them out of the folder to start without them; nothing of them was changed
    Locked {
        /// The first such segment.
        segment: PathBuf,
        /// How many more there are.
        more: usize,
        /// What is wrong with its key.
        source: Box<KeyError>,
    },
    /// {0}
    Folder(FolderError),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { doing, path, source }
}

/// The keys of one journal folder.
#[derive(Debug)]
pub struct DayKeys {
    folder: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    keys: BTreeMap<DayKeyId, Arc<DayKey>>,
    /// The latest day a key was taken for in this run. Keys of earlier days may be destroyed.
    newest: Option<Day>,
}

impl DayKeys {
    /// Opens the keys of this journal folder, and creates their folder if there is none.
    ///
    /// # Errors
    /// When a folder cannot be made or others may read it.
    pub fn open(keys_dir: &Path, incarnation: Incarnation) -> Result<Self, KeyError> {
        let folder = keys_dir.join(format!("{:016x}", incarnation.0));
        for path in [keys_dir, &folder] {
            private_folder(path)?;
        }
        Ok(Self { folder, held: Mutex::default() })
    }

    /// Where the keys are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a key.
    #[must_use]
    pub fn path(&self, id: DayKeyId) -> PathBuf {
        self.folder.join(format!("{id}{KEY_SUFFIX}"))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing between lock and unlock leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest day a key was taken for in this run.
    #[must_use]
    pub fn newest(&self) -> Option<Day> {
        self.held().newest
    }

    /// Nothing will be sealed any more: every key may go as soon as no segment names it.
    pub fn retire(&self) {
        self.held().newest = Some(Day(u32::MAX));
    }

    /// The key of `day` to seal with, made if there is none, and durable; with a salt of its own.
    ///
    /// # Errors
    /// When it cannot be made or not be made durable.
    pub fn take(&self, day: Day) -> Result<SealingKey, KeyError> {
        self.take_from(&mut System, day)
    }

    fn take_from(&self, medium: &mut impl Medium, day: Day) -> Result<SealingKey, KeyError> {
        let mut salt = [0; SALT_LEN];
        random(&mut salt)?;
        let mut held = self.held();
        let of_day = DayKeyId(u64::from(day.0) << 32)..=DayKeyId(u64::from(day.0) << 32 | 0xffff_ffff);
        let known = held.keys.range(of_day).next().map(|(_, key)| Arc::clone(key));
        let key = match known {
            Some(key) => key,
            None => match self.find_durable(medium, day)? {
                Some(key) => key,
                None => self.make(day)?,
            },
        };
        held.keys.insert(key.id(), Arc::clone(&key));
        held.newest = held.newest.max(Some(day));
        Ok(SealingKey { key, salt })
    }

    /// The key of this name.
    ///
    /// # Errors
    /// When it is missing, or what its file holds is not it.
    pub fn get(&self, id: DayKeyId) -> Result<Arc<DayKey>, KeyError> {
        let mut held = self.held();
        if let Some(key) = held.keys.get(&id) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(self.read(id)?);
        held.keys.insert(id, Arc::clone(&key));
        Ok(key)
    }

    /// The keys in the folder, by their names.
    fn list(&self) -> Result<BTreeSet<DayKeyId>, KeyError> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let name = entry.map_err(failed("list", &self.folder))?.file_name();
            ids.extend(name.to_str().and_then(parse_name));
        }
        Ok(ids)
    }

    fn read(&self, id: DayKeyId) -> Result<DayKey, KeyError> {
        let path = self.path(id);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.clone() },
            _ => failed("open", &path)(error),
        })?;
        let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX as usize));
        match file.take(TEXT_MAX).read_to_string(&mut text) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(failed("read", &path)(error)),
            Ok(_) | Err(_) => parse(&text, id).ok_or(KeyError::Damaged { path }),
        }
    }

    /// A sound key of `day` that an earlier start made. It may have died before the key was
    /// durable: so it is synced, and read from the medium.
    fn find_durable(&self, medium: &mut impl Medium, day: Day) -> Result<Option<Arc<DayKey>>, KeyError> {
        for id in self.list()?.into_iter().filter(|id| id.day() == day) {
            let path = self.path(id);
            let file = medium.open(&path).map_err(failed("open", &path))?;
            medium.sync_all(&file).map_err(failed("sync", &path))?;
            medium.forget_cache(&file).map_err(failed("drop the cache of", &path))?;
            medium.sync_folder(&self.folder).map_err(failed("sync", &self.folder))?;
            match self.read(id) {
                Ok(key) => return Ok(Some(Arc::new(key))),
                Err(error) => tracing::warn!(%error, "a key of today is passed over, and another is made"),
            }
        }
        Ok(None)
    }

    fn make(&self, day: Day) -> Result<Arc<DayKey>, KeyError> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        random(&mut *secret)?;
        let key = DayKey::new(day, secret).ok_or(KeyError::Random)?;
        // What failed to become durable is never used: the next try is another key.
        secret_file::write(&self.path(key.id()), &text_of(&key))?;
        tracing::info!(key = %key.id(), "a key for the journal is made");
        Ok(Arc::new(key))
    }

    /// Destroys the keys that nothing can need any more, and says which: those of days before the
    /// latest one taken that no journal holds and no segment in `place` names. As long as a
    /// segment does not say its key, none is.
    ///
    /// # Errors
    /// When a folder cannot be read or a key not be destroyed; those before it are.
    pub fn destroy_unneeded(&self, place: &Place) -> Result<Vec<DayKeyId>, KeyError> {
        self.destroy_unneeded_on(&mut System, place)
    }

    fn destroy_unneeded_on(
        &self,
        medium: &mut impl Medium,
        place: &Place,
    ) -> Result<Vec<DayKeyId>, KeyError> {
        let mut held = self.held();
        let Some(newest) = held.newest else { return Ok(Vec::new()) };
        let is_held = |id: &DayKeyId| held.keys.get(id).is_some_and(|key| Arc::strong_count(key) > 1);
        let mut going: BTreeSet<_> =
            self.list()?.into_iter().filter(|id| id.day() < newest && !is_held(id)).collect();
        if going.is_empty() {
            return Ok(Vec::new());
        }
        // After asking who holds it: a journal that let go of a key has all its segments made.
        for id in segment_ids(&place.segments).map_err(KeyError::Folder)? {
            match key_of(place, id)? {
                KeyOf::Key(key) => drop(going.remove(&key)),
                KeyOf::None => {}
                KeyOf::Unknown => {
                    tracing::warn!(segment = %id, "a segment does not say its key, so no key is destroyed as long as it is there");
                    return Ok(Vec::new());
                }
            }
        }
        if !going.is_empty() {
            // A segment that is gone may come back with a power cut, as one that a journal made and
            // gave up empty; without its key no node would start on it.
            medium.sync_folder(&place.segments).map_err(failed("sync", &place.segments))?;
        }
        for id in &going {
            held.keys.remove(id);
            secret_file::destroy(&self.path(*id))?;
            tracing::info!(key = %id, "a key of the journal is destroyed: nothing needs it any more");
        }
        Ok(going.into_iter().collect())
    }
}

/// Makes sure that every encrypted segment has its key, before anything of the journal is read.
///
/// # Errors
/// Which segment has none, and what to do.
pub fn check_keys(place: &Place) -> Result<(), KeyError> {
    let mut locked: Option<KeyError> = None;
    let mut more = 0;
    for id in segment_ids(&place.segments).map_err(KeyError::Folder)? {
        let KeyOf::Key(key) = key_of(place, id)? else { continue };
        let segment = place.segments.join(id.file_name());
        let error = match place.keys.as_ref().map(|keys| keys.get(key)) {
            Some(Ok(_)) => continue,
            Some(Err(source)) => KeyError::Locked { segment, more: 0, source: Box::new(source) },
            None => KeyError::NoKeysDir { segment, more: 0, key },
        };
        match &locked {
            None => locked = Some(error),
            Some(_) => more += 1,
        }
    }
    match locked {
        None => Ok(()),
        Some(KeyError::Locked { segment, source, .. }) => Err(KeyError::Locked { segment, more, source }),
        Some(KeyError::NoKeysDir { segment, key, .. }) => Err(KeyError::NoKeysDir { segment, more, key }),
        Some(other) => Err(other),
    }
}

/// What a segment says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyOf {
    /// It has none.
    None,
    /// This one.
    Key(DayKeyId),
    /// Neither its header nor its first block can be read.
    Unknown,
}

/// Asks a segment's header, or where that is damaged its first block. A segment that is gone
/// has no key.
fn key_of(place: &Place, id: SegmentId) -> Result<KeyOf, KeyError> {
    const { assert!(BLOCK_HEADER_LEN >= ENVELOPE_LEN) };
    let path = place.segments.join(id.file_name());
    let mut bytes = Vec::with_capacity(FIRST_GROUP as usize + BLOCK_HEADER_LEN);
    let wanted = FIRST_GROUP + BLOCK_HEADER_LEN as u64;
    match File::open(&path).map(|file| file.take(wanted).read_to_end(&mut bytes)) {
        // Read or not: a bad page leaves what was read before it.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeyOf::None),
        Err(error) => return Err(failed("open", &path)(error)),
    }
    if let Ok(header) = SegmentHeader::check(&bytes, id, place.incarnation) {
        let number = header.key_id.get();
        return Ok(if number == 0 { KeyOf::None } else { KeyOf::Key(DayKeyId(number)) });
    }
    let first = bytes.get(FIRST_GROUP as usize..).unwrap_or_default();
    if let Ok(envelope) = Envelope::check(first, place.incarnation) {
        return Ok(KeyOf::Key(envelope.key()));
    }
    Ok(if check_header(first).is_ok() { KeyOf::None } else { KeyOf::Unknown })
}

/// Whether two folders are on one device, so that who has one has the other; `false` where that
/// cannot be told.
#[must_use]
pub fn share_a_device(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(one).is_some_and(|found| device(other) == Some(found))
}

fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    SystemRandom::new().fill(bytes).map_err(|_| KeyError::Random)
}

fn text_of(key: &DayKey) -> Zeroizing<String> {
    let mut secret = HEXLOWER.encode(key.secret());
    let text = Zeroizing::new(format!("weir journal key 1 id {:016x} secret {secret}\n", key.id().0));
    secret.zeroize();
    text
}

/// The key in this text, if it is the one of this name.
fn parse(text: &str, id: DayKeyId) -> Option<DayKey> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["weir", "journal", "key", "1", "id", _, "secret", secret] = words[..] else { return None };
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    if HEXLOWER.decode_len(secret.len()) != Ok(SECRET_LEN) {
        return None;
    }
    HEXLOWER.decode_mut(secret.as_bytes(), &mut *bytes).ok()?;
    DayKey::new(id.day(), bytes).filter(|key| key.id() == id && *text_of(key) == text)
}

/// The key a file name stands for.
fn parse_name(name: &str) -> Option<DayKeyId> {
    let (_, number) = name.strip_suffix(KEY_SUFFIX)?.rsplit_once('-')?;
    let id = DayKeyId(u64::from_str_radix(number, 16).ok()?);
    (format!("{id}{KEY_SUFFIX}") == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use weir_common::id::NodeId;

    use super::super::folder::Folder;
    use super::super::noted::Notes;
    use super::*;

    const TODAY: Day = Day(20_000);

    fn folder_with_keys(dir: &Path) -> (Folder, DayKeys) {
        let folder = Folder::open(dir, NodeId(1)).unwrap();
        let keys = DayKeys::open(&dir.join("keys"), folder.incarnation()).unwrap();
        (folder, keys)
    }

    #[test]
    fn a_key_of_an_earlier_start_is_on_the_medium_before_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, keys) = folder_with_keys(dir.path());
        let made = keys.take(TODAY).unwrap().key;
        drop(keys);
        let later = DayKeys::open(&dir.path().join("keys"), folder.incarnation()).unwrap();
        let file = later.path(made.id()).file_name().unwrap().to_str().unwrap().to_owned();
        let own = later.folder().file_name().unwrap().to_str().unwrap().to_owned();
        let mut notes = Notes { syncs_fail: true, ..Notes::default() };
        assert!(matches!(later.take_from(&mut notes, TODAY), Err(KeyError::Io { doing: "sync", .. })));
        let mut notes = Notes::default();
        assert_eq!(later.take_from(&mut notes, TODAY).unwrap().key.id(), made.id());
        assert_eq!(notes.calls, [format!("sync {file}"), format!("forget {file}"), format!("names {own}")]);
    }

    #[test]
    fn no_segment_can_come_back_whose_key_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, keys) = folder_with_keys(dir.path());
        let place = folder.place();
        let mut notes = Notes::default();
        drop(keys.take(TODAY).unwrap());
        assert_eq!(keys.destroy_unneeded_on(&mut notes, &place).unwrap(), []);
        assert_eq!(notes.calls, [""; 0], "nothing goes, so nothing is to be made sure of");
        keys.take(TODAY.next()).unwrap();
        assert_eq!(keys.destroy_unneeded_on(&mut notes, &place).unwrap().len(), 1);
        assert_eq!(notes.calls, ["names journal"]);
    }

    #[test]
    fn keys_of_days_and_of_folders_have_nothing_in_common() {
        let mut secrets = BTreeSet::from([[0; SECRET_LEN]]);
        for _ in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let (_folder, keys) = folder_with_keys(dir.path());
            for day in [TODAY, TODAY.next()] {
                assert!(secrets.insert(*keys.take(day).unwrap().key.secret()));
            }
        }
    }
}
