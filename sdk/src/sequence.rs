//! Sequence numbers that no two impressions get, over restarts, crashes and processes side by side.
//!
//! A file has the next number that nobody was given. Numbers are taken from it in runs: the file says that a run
//! is gone, durably, before the first number of the run is used. So a crash skips numbers and repeats none, and
//! processes that share the file, under its lock, share the numbers.
//!
//! A file that is new begins at the clock: 2^20 numbers for each millisecond since 1970. Nobody mints so many, so a
//! file that was lost begins above all that it ever gave, unless the clock went back too. One file is for one issuer
//! and key number on one host: hosts that sign under the same key number would not know of each other. Give each its
//! own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Numbers for each millisecond, for a file that is new.
const PER_MS: u64 = 1 << 20;
/// The number twice, in a fixed width, so that half of a write is never taken for a number.
const FILE_BYTES: u64 = 42;

/// A file of sequence numbers.
#[derive(Debug)]
pub struct SequenceFile {
    file: File,
    path: PathBuf,
}

/// Why there is no number.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum SequenceError {
    /// the sequence file {path} cannot be opened, locked, read or written: {source}; correct its path or its rights
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// {path} is no sequence file, or a damaged one; remove it when its name is right: a new one begins above all numbers that it gave
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// the numbers of {path} are used up; sign under another key number, with a sequence file of its own
    UsedUp {
        /// The file.
        path: PathBuf,
    },
}

impl SequenceFile {
    /// Opens a file, or makes it; only its owner may read it then.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(path: &Path) -> Result<Self, SequenceError> {
        let io = |source| SequenceError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(io)?;
        // Its name must survive a crash as well as what it says.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes the next `count` numbers; when it returns, nobody else is given them any more. `now_ms` is where a new
    /// file begins, in ms since 1970.
    ///
    /// # Errors
    /// When the file is none, or what is taken cannot be made durable; then no number is given.
    pub fn take(&mut self, count: u64, now_ms: u64) -> Result<Range<u64>, SequenceError> {
        self.file.lock().map_err(|source| self.io(source))?;
        let taken = self.take_locked(count, now_ms);
        let unlocked = self.file.unlock().map_err(|source| self.io(source));
        let taken = taken?;
        unlocked.map(|()| taken)
    }

    fn take_locked(&mut self, count: u64, now_ms: u64) -> Result<Range<u64>, SequenceError> {
        let path = || self.path.clone();
        let used_up = || SequenceError::UsedUp { path: path() };
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(|source| self.io(source))?;
        (&self.file).take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|source| self.io(source))?;
        let first = match text.as_str() {
            "" => now_ms.checked_mul(PER_MS).ok_or_else(used_up)?,
            text => number(text).ok_or_else(|| SequenceError::Damaged { path: path() })?,
        };
        let next = first.checked_add(count).ok_or_else(used_up)?;
        self.write(next).map_err(|source| self.io(source))?;
        Ok(first..next)
    }

    fn write(&mut self, next: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{next:020} {next:020}\n").as_bytes())?;
        self.file.sync_data()
    }

    fn io(&self, source: io::Error) -> SequenceError {
        SequenceError::Io { path: self.path.clone(), source }
    }
}

/// The number of a sound file.
fn number(text: &str) -> Option<u64> {
    let (one, two) = text.strip_suffix('\n')?.split_once(' ')?;
    let is_whole = one == two && one.len() == 20 && one.bytes().all(|digit| digit.is_ascii_digit());
    if is_whole { one.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn open(folder: &tempfile::TempDir) -> SequenceFile {
        SequenceFile::open(&folder.path().join("sequence")).expect("opened")
    }

    #[test]
    fn a_restart_goes_on_after_what_was_taken_though_it_was_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let first = open(&folder).take(3, NOW_MS).expect("taken");
        assert_eq!(first, NOW_MS * PER_MS..NOW_MS * PER_MS + 3);
        // The clock went back meanwhile, and it does not matter.
        let second = open(&folder).take(1000, NOW_MS - 5).expect("taken");
        assert_eq!((second.start, second.end), (first.end, first.end + 1000));
        assert_eq!(open(&folder).take(1, 0).expect("taken").start, second.end);
    }

    #[test]
    fn a_file_that_was_lost_begins_above_what_it_gave() {
        let folder = tempfile::tempdir().expect("folder");
        let before = open(&folder).take(PER_MS, NOW_MS).expect("taken");
        std::fs::remove_file(folder.path().join("sequence")).expect("removed");
        assert!(open(&folder).take(1, NOW_MS + 1).expect("taken").start >= before.end);
    }

    #[test]
    fn processes_side_by_side_never_take_the_same_number() {
        let folder = tempfile::tempdir().expect("folder");
        let seen = std::thread::scope(|scope| {
            let take = || {
                // A lock belongs to what was opened, so each thread is as a process of its own.
                let mut file = open(&folder);
                (0..50).flat_map(|_| file.take(3, NOW_MS).expect("taken")).collect::<Vec<u64>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<u64>>()
        });
        let different: HashSet<u64> = seen.iter().copied().collect();
        assert_eq!((seen.len(), different.len()), (600, 600));
        assert_eq!(
            seen.iter().max().expect("some") - seen.iter().min().expect("some"),
            599,
            "and none is skipped"
        );
    }

    #[test]
    fn what_is_no_sequence_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("sequence");
        let sound = format!("{0:020} {0:020}\n", 7);
        let other = format!("{:020} {:020}\n", 7, 8);
        for text in ["key\n", &sound[..41], &sound[1..], &format!("{sound}x"), &other, "\n"] {
            std::fs::write(&path, text).expect("written");
            let error = open(&folder).take(1, NOW_MS).expect_err(text);
            assert!(matches!(error, SequenceError::Damaged { .. }), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
        std::fs::write(&path, &sound).expect("written");
        assert_eq!(open(&folder).take(2, NOW_MS).expect("taken"), 7..9);
        let error = open(&folder).take(u64::MAX, NOW_MS).expect_err("too many");
        assert!(matches!(error, SequenceError::UsedUp { .. }), "{error}");
        assert_eq!(open(&folder).take(1, NOW_MS).expect("taken"), 9..10);
    }
}
