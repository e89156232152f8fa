//! Small files in which the node keeps what it must know after a crash: each has the old text or the new one, never a
//! part of it, and what was said when a call here returned is so after a loss of power. Each call may block on a disk:
//! never on a worker.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::journal::disk::sync_folder;

/// cannot {doing} {path}: {source}
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub struct StateFileError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// How it failed.
    pub source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateFileError {
    let path = path.to_owned();
    move |source| StateFileError { doing, path, source }
}

/// Puts this text in the place of the file's, or makes the file.
///
/// # Errors
/// When the disk does not take it. The file has its old text then, unless only its folder could not be synced: then it
/// may have either after a crash.
pub fn replace(path: &Path, text: &str) -> Result<(), StateFileError> {
    // Under another name first: half of it would be another text.
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(failed("create", &fresh))?;
    file.write_all(text.as_bytes()).map_err(failed("write", &fresh))?;
    file.sync_all().map_err(failed("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("rename", &fresh))?;
    sync_name(path)
}

/// Takes the file away, if there is one.
///
/// # Errors
/// When the disk does not take that; the file may be there again after a crash.
pub fn remove(path: &Path) -> Result<(), StateFileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_name(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

fn sync_name(path: &Path) -> Result<(), StateFileError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(folder).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_replaced_whole_and_what_a_crash_left_half_written_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(path.with_extension("new"), "half of something longer").unwrap();
        for text in ["one\n", "", "two\n"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else stays");
        for _ in 0..2 {
            remove(&path).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_disk_that_does_not_take_it_keeps_the_old_text_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        replace(&path, "old\n").unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        let error = replace(&path, "new\n").unwrap_err().to_string();
        assert!(error.starts_with("cannot create ") && error.contains("state.new"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    }
}
