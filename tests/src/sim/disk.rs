//! A disk that keeps apart what was written and what is durable, and fails in every way a disk
//! may.
//!
//! What a running node sees of its files (the page cache) stands in real files, so that the
//! daemon's own code reads them. What would survive a crash stands in memory: content, size and
//! name, each for itself. [`Disk::crash`] makes the one out of the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::chance::Chance;

/// The least a disk writes as a whole.
const SECTOR: usize = 512;
/// The page of the page cache.
const PAGE: usize = 4096;

/// Names an open file of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNo(u64);

/// What an operation fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// EIO
    Broken,
    /// ENOSPC
    Full,
    /// EROFS
    ReadOnly,
}

impl Trouble {
    /// As Linux says it.
    #[must_use]
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Broken => 5,
            Self::Full => 28,
            Self::ReadOnly => 30,
        })
    }
}

/// One file.
#[derive(Debug)]
struct Inode {
    path: PathBuf,
    /// The node's page cache.
    live: File,
    size: usize,
    /// Bytes on the medium.
    durable: Vec<u8>,
    /// Where and what, since the last sync, in order.
    written: Vec<(usize, Vec<u8>)>,
    /// Whether the name is there now.
    is_named: bool,
    /// Whether the name would be there after a crash.
    name_is_durable: bool,
    /// Whether the page cache differs from the medium for another reason than `written`.
    cache_differs: bool,
}

/// Bytes that became durable.
#[derive(Debug)]
pub struct Synced {
    /// The file.
    pub path: PathBuf,
    /// Where in it `bytes` begin.
    pub offset: usize,
    /// What is on the medium around what was written.
    pub bytes: Vec<u8>,
}

/// The disk under a node.
#[derive(Debug, Default)]
pub struct Disk {
    inodes: BTreeMap<FileNo, Inode>,
    last: u64,
}

impl Disk {
    /// Creates an empty file. Neither its name nor anything of it is durable.
    ///
    /// # Errors
    /// When there is such a file.
    pub fn create(&mut self, path: &Path) -> io::Result<FileNo> {
        let live = File::options().read(true).write(true).create_new(true).open(path)?;
        self.last += 1;
        let inode = Inode {
            path: path.to_owned(),
            live,
            size: 0,
            durable: Vec::new(),
            written: Vec::new(),
            is_named: true,
            name_is_durable: false,
            cache_differs: false,
        };
        self.inodes.insert(FileNo(self.last), inode);
        Ok(FileNo(self.last))
    }

    /// Takes over a file that was written and synced past the disk, with its name.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn adopt(&mut self, path: &Path) -> io::Result<()> {
        let live = File::options().read(true).write(true).open(path)?;
        let durable = fs::read(path)?;
        self.last += 1;
        let inode = Inode {
            path: path.to_owned(),
            live,
            size: durable.len(),
            durable,
            written: Vec::new(),
            is_named: true,
            name_is_durable: true,
            cache_differs: false,
        };
        self.inodes.insert(FileNo(self.last), inode);
        Ok(())
    }

    /// Finds a file by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(&self, path: &Path) -> io::Result<FileNo> {
        let named = |(_, inode): &(&FileNo, &Inode)| inode.is_named && inode.path == path;
        let found = self.inodes.iter().find(named);
        found.map(|(&number, _)| number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Drops the page cache of a file: what the medium has is what is read.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn forget_cache(&mut self, file: FileNo) -> io::Result<()> {
        let inode = self.inode(file)?;
        // The kernel keeps what it still has to write.
        if inode.written.is_empty() && inode.cache_differs {
            inode.live.set_len(inode.durable.len() as u64)?;
            inode.live.write_all_at(&inode.durable, 0)?;
            inode.size = inode.durable.len();
            inode.cache_differs = false;
        }
        Ok(())
    }

    /// Gives the file `bytes` zeros. That is not durable.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn allocate(&mut self, file: FileNo, bytes: u64) -> io::Result<()> {
        let inode = self.inode(file)?;
        inode.size = bytes as usize;
        inode.live.set_len(bytes)
    }

    /// Writes into the page cache.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn write(&mut self, file: FileNo, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode(file)?;
        inode.live.write_all_at(bytes, offset as u64)?;
        inode.size = inode.size.max(offset + bytes.len());
        inode.written.push((offset, bytes.to_vec()));
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn sync(&mut self, file: FileNo) -> io::Result<Option<Synced>> {
        let inode = self.inode(file)?;
        inode.durable.resize(inode.size, 0);
        let written = std::mem::take(&mut inode.written);
        let begin = written.iter().map(|(at, _)| *at).min();
        let end = written.iter().map(|(at, bytes)| at + bytes.len()).max();
        for (at, bytes) in written {
            inode.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let around = begin.zip(end).map(|(begin, end)| Synced {
            path: inode.path.clone(),
            offset: begin,
            bytes: inode.durable[begin..end].to_vec(),
        });
        Ok(around)
    }

    /// A sync that fails: of what was written any part is on the medium, the rest never will be,
    /// and the kernel takes it for clean (Rebello et al., USENIX ATC 2020).
    ///
    /// # Errors
    /// When there is no such file.
    pub fn fail_sync(&mut self, file: FileNo, chance: &mut Chance) -> io::Result<()> {
        let inode = self.inode(file)?;
        inode.lose_some(chance);
        inode.cache_differs = true;
        Ok(())
    }

    /// Makes the names in a folder durable.
    pub fn sync_folder(&mut self, folder: &Path) {
        for inode in self.inodes.values_mut().filter(|inode| inode.path.parent() == Some(folder)) {
            inode.name_is_durable = inode.is_named;
        }
        self.inodes.retain(|_, inode| inode.is_named || inode.name_is_durable);
    }

    /// Takes a name away; it may come back with a crash.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        for inode in self.inodes.values_mut().filter(|inode| inode.path == path) {
            inode.is_named = false;
        }
        Ok(())
    }

    /// Takes note of files that the node's own code deleted, past the disk; their bytes.
    pub fn note_deleted(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut deleted = Vec::new();
        for inode in self.inodes.values_mut().filter(|inode| inode.is_named && !inode.path.exists()) {
            inode.is_named = false;
            deleted.push((inode.path.clone(), inode.durable.clone()));
        }
        deleted
    }

    /// The power goes, and comes back: every file is what the medium has of it.
    ///
    /// # Errors
    /// When the simulation's own files fail.
    pub fn crash(&mut self, chance: &mut Chance) -> io::Result<()> {
        for inode in self.inodes.values_mut() {
            inode.crash(chance)?;
        }
        self.inodes.retain(|_, inode| inode.is_named);
        Ok(())
    }

    /// The names that are there, with the bytes on the medium.
    pub fn durable(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.inodes.values().filter(|inode| inode.is_named).map(|inode| (&*inode.path, &*inode.durable))
    }

    /// Flips one bit of what a file holds on the medium, and in the page cache.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn rot(&mut self, path: &Path, chance: &mut Chance) -> io::Result<()> {
        let Some(inode) = self.inodes.values_mut().find(|inode| inode.is_named && inode.path == path) else {
            return Ok(());
        };
        let written: Vec<_> = (0..inode.durable.len()).filter(|&at| inode.durable[at] != 0).collect();
        if written.is_empty() {
            return Ok(());
        }
        let at = chance.pick(&written);
        inode.durable[at] ^= 1 << chance.below(8);
        inode.live.write_all_at(&inode.durable[at..=at], at as u64)
    }

    /// Replaces bytes on the medium and in the page cache: a write that went elsewhere, or nowhere.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn replace(&mut self, path: &Path, at: usize, bytes: &[u8]) -> io::Result<()> {
        let named = |inode: &&mut Inode| inode.is_named && inode.path == path;
        let Some(inode) = self.inodes.values_mut().find(named) else { return Ok(()) };
        if let Some(place) = inode.durable.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            inode.live.write_all_at(bytes, at as u64)?;
        }
        Ok(())
    }

    fn inode(&mut self, file: FileNo) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Inode {
    /// Brings any part of what was not synced to the medium; the rest is gone.
    fn lose_some(&mut self, chance: &mut Chance) {
        if self.durable.len() < self.size && chance.one_in(2) {
            self.durable.resize(self.size, 0);
        }
        for (at, bytes) in std::mem::take(&mut self.written) {
            if at + bytes.len() <= self.durable.len() {
                tear(&mut self.durable, at, &bytes, chance);
            }
        }
    }

    fn crash(&mut self, chance: &mut Chance) -> io::Result<()> {
        let is_dirty = self.cache_differs || !self.written.is_empty() || self.durable.len() < self.size;
        self.lose_some(chance);
        // A name that was not synced may have reached the medium, or gone from it, all the same.
        let survives = if self.is_named == self.name_is_durable { self.is_named } else { chance.one_in(2) };
        if survives && !self.is_named {
            self.live =
                File::options().read(true).write(true).create(true).truncate(true).open(&self.path)?;
        } else if !survives && self.is_named {
            fs::remove_file(&self.path)?;
        }
        if survives && (is_dirty || !self.is_named) {
            self.live.set_len(self.durable.len() as u64)?;
            self.live.write_all_at(&self.durable, 0)?;
        }
        self.size = self.durable.len();
        self.cache_differs = false;
        (self.is_named, self.name_is_durable) = (survives, survives);
        Ok(())
    }
}

/// Brings any part of one write to the medium: nothing, all, a beginning, or any of its sectors
/// or pages; a unit that did not arrive may be garbage.
fn tear(durable: &mut [u8], at: usize, bytes: &[u8], chance: &mut Chance) {
    let unit = if chance.one_in(2) { SECTOR } else { PAGE };
    let way = chance.below(5);
    let cut = chance.below(bytes.len() as u64 + 1) as usize;
    let mut from = 0;
    while from < bytes.len() {
        // Units as the medium counts them, not from where the write begins.
        let to = ((at + from) / unit * unit + unit - at).min(bytes.len());
        let arrives = match way {
            0 => false,
            1 => true,
            2 => to <= cut,
            _ => chance.one_in(2),
        };
        if arrives {
            durable[at + from..at + to].copy_from_slice(&bytes[from..to]);
        } else if chance.one_in(8) {
            durable[at + from..at + to].fill(0xa5);
        }
        from = to;
    }
}
