//! A user's key as it may leave memory: keyed by the salt of its day, so that nobody can follow a user from one day
//! to the next, and nobody can find him in old rows once the salt is destroyed.
//!
//! Salts come from a folder, one file a day, the same on all nodes whose users are counted together; whoever made
//! them destroys them, an operator or the node itself. The day is that of the minute a click counts in, so a
//! minute has one salt, and at midnight those of both days are live. A click whose day has no salt is one of an
//! unknown user: what was promised to be keyed never leaves as it came.
//!
//! It keys what is written and nothing else: activity, budgets and windows know users in memory alone, each
//! under a secret of its own that nothing outlives. Start reading at [`Pseudonyms::of`].

mod drawing;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weir_common::siphash::{SipKey, siphash24};
use weir_common::time::{Minute, UnixMs};

use crate::config::{Salting, read_secret};
use crate::day::Day;
use crate::secret_file::{SecretFileError, is_left_over};

/// How a salt's file name ends.
const SUFFIX: &str = ".hex";
/// A month of days to come, and as many that somebody forgot to destroy.
const SALTS_MAX: usize = 64;

/// How users' keys are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pseudonyms {
    /// As their senders made them.
    #[default]
    AsSent,
    /// Under the salt of their day.
    Salted(Salts),
}

/// Salts by day.
#[derive(Clone, PartialEq, Eq)]
pub struct Salts(Vec<(Day, SipKey)>);

impl core::fmt::Debug for Salts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Never a salt itself.
        f.debug_tuple("Salts").field(&self.0.iter().map(|(day, _)| day).collect::<Vec<_>>()).finish()
    }
}

/// Why salts cannot be used.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum SaltsError {
    /// the folder of salts {folder} cannot be read: {source}; make it, or set privacy.salts = "drawn" for salts that the node makes by itself
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// {file} is no salt: name it by its day, as 2026-11-22.hex, or remove it
    Name {
        /// The file.
        file: PathBuf,
    },
    /// the salt {file} {reason}
    Salt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// {0}
    File(#[from] SecretFileError),
    /// the system's random source gave nothing for a salt; it is tried again
    Random,
    /// {folder} has more than 64 salts; destroy those of days that are over
    TooMany {
        /// The folder.
        folder: PathBuf,
    },
}

impl Pseudonyms {
    /// Reads all salts of the folder, if there is one. A folder that the node draws them into may be still to come:
    /// until then nobody's user is written.
    ///
    /// # Errors
    /// When one of its files is no salt: a salt that was meant and is missed would cost a day of users.
    pub fn load(salting: &Salting) -> Result<Self, SaltsError> {
        let loaded = match salting {
            Salting::None => return Ok(Self::AsSent),
            Salting::Brought(folder) | Salting::Drawn(folder) => Salts::load(folder),
        };
        match (salting, loaded) {
            (Salting::Drawn(_), Err(SaltsError::Folder { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(Self::Salted(Salts(Vec::new())))
            }
            (_, loaded) => loaded.map(Self::Salted),
        }
    }

    /// Draws the salts of today and tomorrow where they are missing, and destroys those of days that ended longer ago
    /// than `keep_ms`; whether the folder is to be read again. Call it only where the time is certain.
    ///
    /// # Errors
    /// When the disk or the system's random source does not give what it takes.
    pub fn tend(folder: &Path, now: UnixMs, keep_ms: u64) -> Result<bool, SaltsError> {
        drawing::tend(folder, now, keep_ms)
    }

    /// The key under which the user of a click that counts in `minute` is written; 0 is nobody known.
    #[inline]
    #[must_use]
    pub fn of(&self, minute: Minute, user_key: u64) -> u64 {
        match self {
            Self::AsSent => user_key,
            Self::Salted(_) if user_key == 0 => 0,
            // 0 says that there is no user.
            Self::Salted(salts) => salts.of(minute).map_or(0, |salt| siphash24(salt, &[user_key]).max(1)),
        }
    }

    /// Whether what is written differs from what was sent.
    #[must_use]
    pub const fn are_salted(&self) -> bool {
        matches!(self, Self::Salted(_))
    }

    /// How many days have a salt.
    #[must_use]
    pub fn days(&self) -> usize {
        match self {
            Self::AsSent => 0,
            Self::Salted(salts) => salts.0.len(),
        }
    }
}

impl Salts {
    fn load(folder: &Path) -> Result<Self, SaltsError> {
        let unreadable = |source| SaltsError::Folder { folder: folder.to_owned(), source };
        let mut salts = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            if is_left_over(&file) {
                continue;
            }
            let day = day_of(&file).ok_or_else(|| SaltsError::Name { file: file.clone() })?;
            let secret = read_secret(&file).map_err(|reason| SaltsError::Salt { file, reason })?;
            if salts.len() == SALTS_MAX {
                return Err(SaltsError::TooMany { folder: folder.to_owned() });
            }
            salts.push((day, SipKey::from_bytes(secret.0)));
        }
        salts.sort_unstable_by_key(|(day, _)| *day);
        Ok(Self(salts))
    }

    fn of(&self, minute: Minute) -> Option<&SipKey> {
        let day = Day::of_minute(minute);
        self.0.binary_search_by_key(&day, |(day, _)| *day).ok().map(|at| &self.0[at].1)
    }
}

/// The day that a file's name says.
fn day_of(file: &Path) -> Option<Day> {
    file.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The file of a day's salt.
fn file_of(folder: &Path, day: Day) -> PathBuf {
    folder.join(format!("{day}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn brought(folder: &Path) -> Result<Pseudonyms, SaltsError> {
        Pseudonyms::load(&Salting::Brought(folder.to_owned()))
    }

    const ONE: &str = "000102030405060708090a0b0c0d0e0f\n";
    const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f";

    fn minute(of: &str) -> Minute {
        Minute((of.parse::<jiff::Timestamp>().unwrap().as_second() / 60) as u32)
    }

    #[test]
    fn a_user_has_another_key_each_day_and_the_same_within_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "2026-11-22.hex", ONE);
        write(folder.path(), "2026-11-23.hex", OTHER);
        let pseudonyms = brought(folder.path()).unwrap();
        let (first, last) = (minute("2026-11-22T00:00:00Z"), minute("2026-11-22T23:59:00Z"));
        let next = minute("2026-11-23T00:00:00Z");
        let today = pseudonyms.of(first, 7);
        assert_eq!(pseudonyms.of(last, 7), today);
        let others = [pseudonyms.of(next, 7), pseudonyms.of(first, 8), 7, 0];
        assert!(!others.contains(&today), "{today} {others:?}");
        assert_eq!(pseudonyms.of(first, 0), 0, "nobody stays nobody");
        assert_eq!(pseudonyms.days(), 2);
    }

    #[test]
    fn a_day_without_salt_has_no_users_and_none_leaves_as_he_came() {
        let folder = tempfile::tempdir().unwrap();
        let pseudonyms = brought(folder.path()).unwrap();
        assert_eq!(pseudonyms.of(minute("2026-11-22T12:00:00Z"), 7), 0);
        assert_eq!(Pseudonyms::load(&Salting::None).unwrap().of(Minute(1), 7), 7, "nothing was promised");
    }

    #[test]
    fn what_is_no_salt_is_named_and_no_salt_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "2026-11-22.hex", ONE);
        let shown = format!("{:?}", brought(folder.path()).unwrap());
        assert!(!shown.contains("506097522914230528") && !shown.contains("0102"), "{shown}");
        for (name, text, told) in [
            ("2026-13-01.hex", ONE, "is no salt"),
            ("2026-1-1.hex", ONE, "is no salt"),
            ("notes", ONE, "is no salt"),
            ("2026-11-23.hex", "short", "holds no key"),
        ] {
            write(folder.path(), name, text);
            let error = brought(folder.path()).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains(name) && !error.contains("0102"), "{error}");
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let nowhere = brought(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("privacy.salts = "), "{nowhere}");
    }
}
