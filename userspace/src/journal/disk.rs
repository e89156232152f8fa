//! Runs operations with blocking calls: for tests, tools and the worker's helper thread.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::operation::{Completion, Operation, SegmentNo};
use super::writer::Journal;

/// Zeros written at once.
const ZEROS: usize = 1 << 20;

/// The calls that make a file and its name survive a crash: the system's, or those of a simulated
/// disk.
pub trait Medium {
    /// An open file.
    type File;

    /// Creates a file that is not there yet, and opens it.
    ///
    /// # Errors
    /// As the system fails; `AlreadyExists` when there is such a file.
    fn create_new(&mut self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// As the system fails.
    fn open(&mut self, path: &Path) -> io::Result<Self::File>;

    /// Reserves `bytes` of the disk for the file, as zeros.
    ///
    /// # Errors
    /// As the system fails.
    fn allocate(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As the system fails.
    fn write_all_at(&mut self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's content and size durable, not its name.
    ///
    /// # Errors
    /// As the system fails.
    fn sync_all(&mut self, file: &Self::File) -> io::Result<()>;

    /// Drops what the page cache holds of a synced file, so that the next read is of the medium.
    ///
    /// # Errors
    /// As the system fails.
    fn forget_cache(&mut self, file: &Self::File) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the system fails.
    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;

    /// Takes a file's name away.
    ///
    /// # Errors
    /// As the system fails.
    fn remove_file(&mut self, path: &Path) -> io::Result<()>;
}

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Medium for System {
    type File = File;

    fn create_new(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        // For writing: a disk that can only be read is to be found out now.
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn allocate(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        allocate(file, bytes)
    }

    fn forget_cache(&mut self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    fn write_all_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(file, bytes, offset)
    }

    fn sync_all(&mut self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// A step of [`create_segment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreationStep {
    /// The name appears.
    Create,
    /// The file gets its blocks.
    Allocate,
    /// The header is written.
    Header,
    /// The file is synced.
    FileSync,
    /// The folder is synced.
    FolderSync,
}

/// The operating system for [`create_segment`], which asks first whether a step may be done; an
/// error from there counts as the step's own.
#[derive(Debug)]
pub struct Stepwise<F>(pub F);

impl<F: FnMut(CreationStep) -> io::Result<()>> Medium for Stepwise<F> {
    type File = File;

    fn create_new(&mut self, path: &Path) -> io::Result<File> {
        (self.0)(CreationStep::Create)?;
        System.create_new(path)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        System.open(path)
    }

    fn allocate(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        (self.0)(CreationStep::Allocate)?;
        System.allocate(file, bytes)
    }

    fn write_all_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.0)(CreationStep::Header)?;
        System.write_all_at(file, bytes, offset)
    }

    fn sync_all(&mut self, file: &File) -> io::Result<()> {
        (self.0)(CreationStep::FileSync)?;
        System.sync_all(file)
    }

    fn forget_cache(&mut self, file: &File) -> io::Result<()> {
        System.forget_cache(file)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        (self.0)(CreationStep::FolderSync)?;
        System.sync_folder(folder)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        System.remove_file(path)
    }
}

/// Creates a segment file that will survive a crash: allocates it, writes its header, syncs the
/// file and its folder. Leaves nothing behind when it fails, as far as the disk lets it.
///
/// # Errors
/// The first call that failed; `AlreadyExists` when there is such a file.
pub fn create_segment<M: Medium>(
    medium: &mut M,
    path: &Path,
    bytes: u64,
    header: &[u8],
) -> io::Result<M::File> {
    let file = medium.create_new(path)?;
    let mut filled = || -> io::Result<()> {
        medium.allocate(&file, bytes)?;
        medium.write_all_at(&file, header, 0)?;
        medium.sync_all(&file)?;
        medium.sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    if let Err(error) = filled() {
        drop(file);
        let _harmless_if_it_stays = medium.remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Reserves the file's blocks on the disk, as zeros: with `fallocate` where the filesystem has it,
/// else by writing them.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        result => Ok(result?),
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    for offset in (0..bytes).step_by(ZEROS) {
        let len = (bytes - offset).min(ZEROS as u64) as usize;
        file.write_all_at(&zeros[..len], offset)?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
///
/// # Errors
/// As the calls fail.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder with all above it that are missing, and makes their names durable: each new
/// folder's and, since an earlier start may have ended before it could, the last one's in any case.
///
/// # Errors
/// As the calls fail.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.is_dir()).collect();
    std::fs::create_dir_all(path)?;
    let parent = |folder: &Path| match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").to_owned(),
        parent => parent.unwrap_or(Path::new("/")).to_owned(),
    };
    for folder in missing.iter().rev().chain(missing.is_empty().then_some(&path)) {
        if !folder.as_os_str().is_empty() {
            sync_folder(&parent(folder))?;
        }
    }
    Ok(())
}

/// Runs operations one after the other.
#[derive(Debug, Default)]
pub struct Disk {
    files: HashMap<SegmentNo, File>,
}

impl Disk {
    /// Runs one operation and says how it ended, where the journal wants to know.
    pub fn run(&mut self, operation: Operation) -> Option<Completion> {
        match operation {
            Operation::TakeKey { keys, day } => Some(Completion::KeyTaken { result: keys.take(day) }),
            Operation::CreateSegment { segment, path, bytes, header } => {
                let result = create_segment(&mut System, &path, bytes, &header)
                    .map(|file| drop(self.files.insert(segment, file)));
                Some(Completion::Created { segment, result })
            }
            Operation::Write { segment, offset, buffer, from } => {
                let rest = &buffer[from..];
                let write = |file: &File| file.write_all_at(rest, offset).map(|()| rest.len());
                let result = self.file(segment).and_then(write);
                Some(Completion::Written { segment, offset, buffer, result })
            }
            Operation::Sync { segment } => {
                let result = self.file(segment).and_then(File::sync_data);
                Some(Completion::Synced { segment, result })
            }
            Operation::Close { segment } => {
                self.files.remove(&segment);
                None
            }
            Operation::Remove { segment, path } => {
                self.files.remove(&segment);
                let _harmless_if_it_stays = std::fs::remove_file(path);
                None
            }
        }
    }

    fn file(&self, segment: SegmentNo) -> io::Result<&File> {
        self.files.get(&segment).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "segment is not open"))
    }

    /// Runs everything the journal asks for now. Returns how many operations that were.
    pub fn drive(&mut self, journal: &mut Journal, now_ms: u64) -> usize {
        let mut operations = 0;
        while let Some(operation) = journal.next_operation(now_ms) {
            operations += 1;
            if let Some(completion) = self.run(operation) {
                journal.complete(completion);
            }
        }
        operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_zeros_are_as_many_as_allocated_ones() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, 1, 4096, ZEROS as u64 + 5] {
            let path = dir.path().join(bytes.to_string());
            let file = File::create(&path).unwrap();
            write_zeros(&file, bytes).unwrap();
            let found = std::fs::read(&path).unwrap();
            assert_eq!(found.len() as u64, bytes);
            assert!(found.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_segment_is_never_created_over_another_and_a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        create_segment(&mut System, &path, 8192, b"first").unwrap();
        let error = create_segment(&mut System, &path, 8192, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((&bytes[..5], bytes.len()), (&b"first"[..], 8192));
        let too_large = dir.path().join("large");
        assert!(create_segment(&mut System, &too_large, 1 << 62, b"").is_err());
        assert!(!too_large.exists());
    }

    #[test]
    fn whichever_step_of_making_a_segment_fails_there_is_no_segment() {
        use CreationStep::{Allocate, Create, FileSync, FolderSync, Header};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let mut order = Vec::new();
        for failing in [Create, Allocate, Header, FileSync, FolderSync] {
            let failed =
                create_segment(
                    &mut Stepwise(|step| {
                        if step == failing { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
                    }),
                    &path,
                    8192,
                    b"header",
                );
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(5), "{failing:?}");
            assert!(!path.exists(), "{failing:?}");
        }
        let note = |step| {
            order.push(step);
            Ok(())
        };
        create_segment(&mut Stepwise(note), &path, 8192, b"header").unwrap();
        // The folder comes last: its sync says that a whole file has a name.
        assert_eq!(order, [Create, Allocate, Header, FileSync, FolderSync]);
    }
}
