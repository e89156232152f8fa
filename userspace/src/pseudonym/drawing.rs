//! Salts that a node draws by itself: today's and tomorrow's, and away with those of days that are over.
//!
//! For a node whose users are counted by itself alone; nodes that draw apart see one user as several. Control side: it
//! waits for the disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use weir_common::time::UnixMs;
use zeroize::Zeroizing;

use super::{Day, SaltsError, day_of, is_hidden};
use crate::journal::disk::sync_folder;

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
const SALT_LEN: usize = 16;

impl Day {
    const fn of(at: UnixMs) -> Self {
        Self((at.0 / MS_PER_DAY) as u32)
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    const fn end(self) -> UnixMs {
        UnixMs((self.0 as u64 + 1) * MS_PER_DAY)
    }

    fn file_name(self) -> Option<String> {
        let date = jiff::Timestamp::from_second(i64::from(self.0) * 86_400).ok()?;
        Some(format!("{}.hex", date.to_zoned(jiff::tz::TimeZone::UTC).date()))
    }
}

/// Draws the salts of today and tomorrow where they are missing, and destroys those of days that ended longer ago
/// than `keep_ms`; whether there was anything to do. Call it only where the time is certain.
///
/// # Errors
/// When the disk or the system's random source does not give what it takes; what was done stays done.
pub(super) fn tend(folder: &Path, now: UnixMs, keep_ms: u64) -> Result<bool, SaltsError> {
    let failed = |source| SaltsError::Folder { folder: folder.to_owned(), source };
    make_folder(folder).map_err(failed)?;
    let today = Day::of(now);
    let mut has_changed = false;
    for name in [today, today.next()].into_iter().filter_map(Day::file_name) {
        if !folder.join(&name).exists() {
            draw(folder, &name).map_err(failed)?;
            has_changed = true;
        }
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let is_over = |day: Day| day.end().0.saturating_add(keep_ms) <= now.0;
        if !is_hidden(&file) && day_of(&file).is_some_and(is_over) {
            destroy(&file).map_err(failed)?;
            has_changed = true;
        }
    }
    if has_changed {
        sync_folder(folder).map_err(failed)?;
    }
    Ok(has_changed)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Whole under its name, or not there.
fn draw(folder: &Path, name: &str) -> io::Result<()> {
    let mut salt = Zeroizing::new([0_u8; SALT_LEN]);
    SystemRandom::new()
        .fill(&mut *salt)
        .map_err(|_| io::Error::other("the system's random source gave nothing"))?;
    let text = Zeroizing::new(format!("{:032x}\n", u128::from_be_bytes(*salt)));
    let fresh = folder.join(format!(".{name}.new"));
    // What a crash left has whatever mode it has.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(name))?;
    tracing::info!(salt = name, "a salt is drawn for the users of its day");
    Ok(())
}

/// Overwritten as far as the medium overwrites anything in place, then away.
fn destroy(file: &Path) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).open(file)?;
    let len = open.metadata()?.len().min(256);
    open.write_all(&vec![0; len as usize])?;
    open.sync_all()?;
    fs::remove_file(file)?;
    tracing::info!(salt = %file.display(), "a salt is destroyed: no click of its day can come any more");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Pseudonyms;
    use super::*;

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
        assert_eq!(Pseudonyms::load(Some(&folder)).unwrap().days(), 2);
    }

    #[test]
    fn what_a_crash_left_half_written_is_no_salt_and_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".2026-11-22.hex.new"), "00").unwrap();
        assert!(tend(folder.path(), at("2026-11-22T10:00:00Z"), HOUR_MS).unwrap());
        assert_eq!(Pseudonyms::load(Some(folder.path())).unwrap().days(), 2);
    }
}
