//! Runs operations with blocking calls: for tests, tools and the worker's helper thread.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::operation::{Completion, Operation, SegmentNo};
use super::writer::Journal;

/// Creates a segment file that will survive a crash: allocates it, writes its header, syncs the
/// file and its folder. Leaves nothing behind when it fails, as far as the disk lets it.
///
/// # Errors
/// The first call that failed; `AlreadyExists` when there is such a file.
pub fn create_segment(path: &Path, bytes: u64, header: &[u8]) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let filled = || -> io::Result<()> {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    if let Err(error) = filled() {
        drop(file);
        let _harmless_if_it_stays = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// As the calls fail.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
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
            Operation::CreateSegment { segment, path, bytes, header } => {
                let result =
                    create_segment(&path, bytes, &header).map(|file| drop(self.files.insert(segment, file)));
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
