//! A medium for tests that notes what is asked of it.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Medium;

/// Notes the calls, with the names they are about.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) calls: Vec<String>,
    /// Every sync of a file fails.
    pub(super) syncs_fail: bool,
}

impl Notes {
    fn note(&mut self, call: &str, path: &Path) {
        let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
        self.calls.push(format!("{call} {name}"));
    }
}

impl Medium for Notes {
    type File = PathBuf;

    fn create_new(&mut self, _: &Path) -> io::Result<PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&mut self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn allocate(&mut self, _: &PathBuf, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_all_at(&mut self, _: &PathBuf, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_all(&mut self, file: &PathBuf) -> io::Result<()> {
        self.note("sync", file);
        if self.syncs_fail { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }

    fn forget_cache(&mut self, file: &PathBuf) -> io::Result<()> {
        self.note("forget", file);
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.note("names", folder);
        Ok(())
    }

    fn remove_file(&mut self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
