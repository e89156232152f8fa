//! Files with a secret in them that the node makes by itself: whole and durable under their name or not there,
//! nobody else's to read, and overwritten before they go. Each call may block on a disk: never on a worker.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::journal::disk::{create_folder, sync_folder};

/// Who may do what: the node's user all, others nothing.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// More than any such file has.
const BYTES_MAX: u64 = 256;

/// Why a secret is not kept, or not destroyed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum SecretFileError {
    /// cannot {doing} {path}: {source}
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// {path} has mode {mode:o}, so others may read the secrets in it; run `chmod 700` on it
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::Io { doing, path, source }
}

/// Makes sure of a folder that only its owner can look into, and of its name.
///
/// # Errors
/// When it cannot be made, or others may look into it.
pub fn private_folder(path: &Path) -> Result<(), SecretFileError> {
    if !path.is_dir() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        create_folder(parent).map_err(failed("create", parent))?;
        DirBuilder::new().mode(FOLDER_MODE).create(path).map_err(failed("create", path))?;
        sync_folder(parent).map_err(failed("sync", parent))?;
    }
    let mode = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 { Err(SecretFileError::Open { path: path.to_owned(), mode }) } else { Ok(()) }
}

/// The name under which a file is written before it has its own: nobody takes it for one.
fn fresh_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Whether a file is what a crash left of one that was being written.
#[must_use]
pub fn is_left_over(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "new")
}

/// Writes a new file: when this returns it is durable, and so is its name. What fails leaves no file, and a file that is
/// there already stays as it is.
///
/// # Errors
/// When the disk does not take it, or has one of this name.
pub fn write(path: &Path, text: &str) -> Result<(), SecretFileError> {
    let fresh = fresh_name(path);
    let written = write_fresh(&fresh, text).and_then(|()| {
        let renamed = renameat_with(CWD, &fresh, CWD, path, RenameFlags::NOREPLACE);
        renamed.map_err(|error| failed("rename", &fresh)(error.into()))
    });
    if written.is_err() {
        let _not_there_or_harmless = fs::remove_file(fresh);
        return written;
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    sync_folder(folder).map_err(|error| {
        // It may be gone after a crash: what was made under it could not be read then.
        let _not_there_or_harmless = fs::remove_file(path);
        failed("sync", folder)(error)
    })
}

fn write_fresh(fresh: &Path, text: &str) -> Result<(), SecretFileError> {
    // What a crash left has whatever is in it, and whatever mode.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", fresh)(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut file = options.open(fresh).map_err(failed("create", fresh))?;
    file.write_all(text.as_bytes()).map_err(failed("write", fresh))?;
    file.sync_all().map_err(failed("sync", fresh))
}

/// Overwrites a file, as far as the medium overwrites anything in place, and takes its name away.
///
/// # Errors
/// When the disk does not take that; the file may be there still.
pub fn destroy(path: &Path) -> Result<(), SecretFileError> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed("open", path))?;
    let len = file.metadata().map_err(failed("look at", path))?.len();
    let zeros = vec![0; len.min(BYTES_MAX) as usize];
    file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(failed("overwrite", path))?;
    fs::remove_file(path).map_err(failed("remove", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    sync_folder(folder).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_whole_and_private_or_not_there_and_overwritten_before_it_goes() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("of").join("secrets");
        private_folder(&folder).unwrap();
        let path = folder.join("one.key");
        // What a crash left, as anybody's to read.
        fs::write(fresh_name(&path), "half").unwrap();
        write(&path, "secret").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode(&path), mode(&folder)),
            ("secret", 0o600, 0o700)
        );
        assert!(!fresh_name(&path).exists() && is_left_over(&fresh_name(&path)) && !is_left_over(&path));
        // A second name shows what was done to the file itself.
        let other = parent.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        destroy(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(&other).unwrap(), [0; 6]);
    }

    #[test]
    fn a_folder_that_others_may_look_into_keeps_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = private_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("750") && error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn what_is_there_stays_as_it_is_and_what_cannot_be_written_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.key");
        write(&path, "secret").unwrap();
        let refused = write(&path, "another").unwrap_err().to_string();
        assert!(refused.starts_with("cannot rename") && refused.contains("File exists"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert!(!fresh_name(&path).exists());
    }
}
