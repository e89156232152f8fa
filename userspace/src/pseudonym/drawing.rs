//! Salts that a node draws by itself: today's and tomorrow's, and away with those of days that are over.
//!
//! For a node whose users are counted by itself alone; nodes that draw apart see one user as several. Control side: it
//! waits for the disk.

use std::fs;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use weir_common::time::UnixMs;
use zeroize::Zeroizing;

use super::{SaltsError, day_of, file_of};
use crate::day::Day;
use crate::secret_file::{self, private_folder};

const SALT_LEN: usize = 16;

/// Draws the salts of today and tomorrow where they are missing, and destroys those of days that ended longer ago
/// than `keep_ms`; whether there was anything to do.
pub(super) fn tend(folder: &Path, now: UnixMs, keep_ms: u64) -> Result<bool, SaltsError> {
    private_folder(folder)?;
    let today = Day::of(now);
    let unreadable = |source| SaltsError::Folder { folder: folder.to_owned(), source };
    let mut has_changed = false;
    for day in [today, today.next()] {
        let path = file_of(folder, day);
        let is_there = path.try_exists().map_err(&unreadable)?;
        if !is_there {
            secret_file::write(&path, &drawn()?)?;
            tracing::info!(%day, "a salt is drawn for the users of a day");
            has_changed = true;
        }
    }
    for entry in fs::read_dir(folder).map_err(&unreadable)? {
        let path = entry.map_err(&unreadable)?.path();
        let is_over = |day: &Day| day.end().0.saturating_add(keep_ms) <= now.0;
        if let Some(day) = day_of(&path).filter(is_over) {
            secret_file::destroy(&path)?;
            tracing::info!(%day, "a salt is destroyed: no click of its day can come any more");
            has_changed = true;
        }
    }
    Ok(has_changed)
}

fn drawn() -> Result<Zeroizing<String>, SaltsError> {
    let mut salt = Zeroizing::new([0_u8; SALT_LEN]);
    SystemRandom::new().fill(&mut *salt).map_err(|_| SaltsError::Random)?;
    Ok(Zeroizing::new(format!("{:032x}\n", u128::from_be_bytes(*salt))))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::PermissionsExt;

    use super::super::Pseudonyms;
    use super::*;
    use crate::config::Salting;

    const HOUR_MS: u64 = 3_600_000;

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64)
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_node_has_the_salts_of_two_days_and_destroys_those_of_days_that_are_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("salts");
        assert!(tend(&folder, at("2026-11-22T10:00:00Z"), HOUR_MS).unwrap());
        assert_eq!(names(&folder), ["2026-11-22.hex", "2026-11-23.hex"]);
        let drawn = fs::read(folder.join("2026-11-23.hex")).unwrap();
        assert_ne!(fs::read(folder.join("2026-11-22.hex")).unwrap(), drawn);
        assert!(!tend(&folder, at("2026-11-22T23:59:59Z"), HOUR_MS).unwrap(), "all is there");
        assert!(tend(&folder, at("2026-11-23T00:00:00Z"), HOUR_MS).unwrap());
        assert_eq!(
            names(&folder),
            ["2026-11-22.hex", "2026-11-23.hex", "2026-11-24.hex"],
            "late clicks may come"
        );
        assert!(tend(&folder, at("2026-11-23T01:00:00Z"), HOUR_MS).unwrap());
        assert_eq!(names(&folder), ["2026-11-23.hex", "2026-11-24.hex"]);
        assert_eq!(fs::read(folder.join("2026-11-23.hex")).unwrap(), drawn, "a day keeps its salt");
        assert_eq!(Pseudonyms::load(&Salting::Drawn(folder.clone())).unwrap().days(), 2);
    }

    #[test]
    fn salts_that_are_there_are_used_though_the_time_is_in_doubt_and_a_folder_to_come_is_no_fault() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("salts");
        let none = Pseudonyms::load(&Salting::Drawn(folder.clone())).unwrap();
        assert_eq!((none.are_salted(), none.days()), (true, 0), "and nobody is written as he came");
        assert!(
            Pseudonyms::load(&Salting::Brought(folder.clone())).is_err(),
            "an operator's folder is a promise"
        );
        tend(&folder, at("2026-11-22T10:00:00Z"), HOUR_MS).unwrap();
        assert_eq!(Pseudonyms::load(&Salting::Drawn(folder.clone())).unwrap().days(), 2);
    }

    #[test]
    fn what_a_crash_left_half_written_is_no_salt_and_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.path().join("2026-11-22.new"), "00").unwrap();
        assert!(tend(folder.path(), at("2026-11-22T10:00:00Z"), HOUR_MS).unwrap());
        assert_eq!(Pseudonyms::load(&Salting::Drawn(folder.path().to_owned())).unwrap().days(), 2);
    }
}
