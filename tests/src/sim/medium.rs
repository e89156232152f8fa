//! The calls of a creation, on the simulated disk: each may fail, and at each the node may die.

use std::io;
use std::path::Path;

use weir::journal::disk::Medium;

use super::chance::Chance;
use super::disk::{Disk, FileNo, Trouble};

/// The disk as a creation sees it.
pub struct FaultyMedium<'a> {
    /// What every call fails with, if the disk is full or cannot be written.
    pub trouble: Option<Trouble>,
    /// Calls of a thousand that fail for no such reason.
    pub share: u64,
    /// Calls until the node dies.
    pub calls_left: Option<u64>,
    /// The disk.
    pub disk: &'a mut Disk,
    /// Decides.
    pub chance: &'a mut Chance,
}

impl FaultyMedium<'_> {
    fn call(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.calls_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(Trouble::Broken.error());
            }
        }
        if let Some(trouble) = self.trouble {
            return Err(trouble.error());
        }
        if self.chance.per_mille(self.share) {
            return Err(self.chance.pick(&[Trouble::Broken, Trouble::Full]).error());
        }
        Ok(())
    }
}

impl Medium for FaultyMedium<'_> {
    type File = FileNo;

    fn create_new(&mut self, path: &Path) -> io::Result<FileNo> {
        self.call()?;
        self.disk.create(path)
    }

    fn open(&mut self, path: &Path) -> io::Result<FileNo> {
        self.disk.open(path)
    }

    fn forget_cache(&mut self, &file: &FileNo) -> io::Result<()> {
        self.disk.forget_cache(file)
    }

    fn allocate(&mut self, &file: &FileNo, bytes: u64) -> io::Result<()> {
        self.call()?;
        self.disk.allocate(file, bytes)
    }

    fn write_all_at(&mut self, &file: &FileNo, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call()?;
        self.disk.write(file, offset as usize, bytes)
    }

    fn sync_all(&mut self, &file: &FileNo) -> io::Result<()> {
        if let Err(error) = self.call() {
            if self.calls_left != Some(0) {
                self.disk.fail_sync(file, self.chance)?;
            }
            return Err(error);
        }
        self.disk.sync(file).map(drop)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.sync_folder(folder);
        Ok(())
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.remove(path)
    }
}
