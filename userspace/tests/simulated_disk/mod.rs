//! A disk whose every operation can be made to fail, and that can lose its power.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use weir::journal::KeyError;
use weir::journal::operation::{Completion, Operation, SegmentNo};

/// A disk in memory that keeps apart what was synced and what was only written. A failed sync
/// loses what it should have synced, as the kernel may, and later syncs of that file succeed.
#[derive(Default)]
pub(crate) struct SimulatedDisk {
    pub(crate) files: BTreeMap<SegmentNo, File>,
    /// Segments of which an operation failed: none may be used again.
    pub(crate) failed: BTreeSet<SegmentNo>,
}

#[derive(Default)]
pub(crate) struct File {
    path: PathBuf,
    durable: Vec<u8>,
    /// Where and what, since the last sync.
    pub(crate) written: Vec<(usize, Vec<u8>)>,
}

pub(crate) fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

pub(crate) fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl SimulatedDisk {
    /// Does one operation, or fails it with `error`.
    pub(crate) fn run(&mut self, operation: Operation, error: Option<io::Error>) -> Option<Completion> {
        match operation {
            Operation::TakeKey { keys, day } => {
                let failed =
                    |source| KeyError::Io { doing: "create", path: keys.folder().to_owned(), source };
                let result = error.map_or_else(|| keys.take(day), |error| Err(failed(error)));
                Some(Completion::KeyTaken { result })
            }
            Operation::CreateSegment { segment, path, bytes, header } => {
                let result = error.map_or(Ok(()), Err);
                if result.is_ok() {
                    let mut durable = header;
                    durable.resize(bytes as usize, 0);
                    let earlier = self.files.insert(segment, File { path, durable, written: vec![] });
                    assert!(earlier.is_none(), "{segment:?} is created twice");
                }
                Some(Completion::Created { segment, result })
            }
            Operation::Write { segment, offset, buffer, from } => {
                let file = self.sound(segment);
                let result = match error {
                    None => {
                        file.written.push((offset as usize, buffer[from..].to_vec()));
                        Ok(buffer.len() - from)
                    }
                    Some(error) => {
                        self.failed.insert(segment);
                        Err(error)
                    }
                };
                Some(Completion::Written { segment, offset, buffer, result })
            }
            Operation::Sync { segment } => {
                let file = self.sound(segment);
                let written = std::mem::take(&mut file.written);
                let result = match error {
                    None => {
                        for (at, bytes) in written {
                            file.durable[at..at + bytes.len()].copy_from_slice(&bytes);
                        }
                        Ok(())
                    }
                    Some(error) => {
                        self.failed.insert(segment);
                        Err(error)
                    }
                };
                Some(Completion::Synced { segment, result })
            }
            Operation::Close { segment } => {
                assert!(self.files.contains_key(&segment));
                None
            }
            Operation::Remove { segment, .. } => {
                let file = self.files.remove(&segment).unwrap();
                assert!(file.durable[4096..].iter().all(|&byte| byte == 0), "a durable block was removed");
                None
            }
        }
    }

    pub(crate) fn sound(&mut self, segment: SegmentNo) -> &mut File {
        assert!(!self.failed.contains(&segment), "{segment:?} failed before and is used again");
        self.files.get_mut(&segment).unwrap()
    }

    /// The power goes: of what was not synced any part may have reached the disk, and the page
    /// on which a write broke off holds garbage.
    pub(crate) fn crash(&self, mut survives: impl FnMut() -> u8) {
        for file in self.files.values() {
            let mut bytes = file.durable.clone();
            for (at, written) in &file.written {
                let part = written.len() * (survives() as usize % 5) / 4;
                bytes[*at..at + part].copy_from_slice(&written[..part]);
                if part < written.len() && survives().is_multiple_of(2) {
                    let page = (at + part) / 4096 * 4096;
                    bytes[page..page + 4096].fill(0xa5);
                }
            }
            std::fs::write(&file.path, bytes).unwrap();
        }
    }
}
