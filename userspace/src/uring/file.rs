//! Writes and syncs in flight: they keep their file open and their buffer alive.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::token::{Kind, Token};

/// A write to be done.
#[derive(Debug)]
pub struct Write {
    /// Where in the file.
    pub offset: u64,
    /// The bytes.
    pub buffer: Vec<u8>,
    /// Where in them to begin.
    pub from: usize,
    /// The caller's own number.
    pub tag: u64,
}

/// An operation in flight, and what is left of it afterwards.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    file: Option<Arc<File>>,
    pub(super) offset: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) tag: u64,
}

/// All file operations in flight on a ring.
#[derive(Debug, Default)]
pub(super) struct FileOperations {
    slots: Vec<Option<InFlight>>,
}

impl FileOperations {
    pub(super) fn write_entry(&mut self, file: &Arc<File>, write: Write) -> squeue::Entry {
        let Write { offset, buffer, from, tag } = write;
        // `from` past the end would be a pointer past the end: then there is nothing to write.
        let bytes = buffer.get(from..).unwrap_or_default();
        let (pointer, len) = (bytes.as_ptr(), bytes.len() as u32);
        // Moving the vector into its slot does not move its heap bytes.
        let index = self.insert(InFlight { file: Some(Arc::clone(file)), offset, buffer, tag });
        opcode::Write::new(types::Fd(file.as_raw_fd()), pointer, len)
            .offset(offset)
            .build()
            .user_data(Token::new(Kind::Write, index).user_data())
    }

    pub(super) fn sync_entry(&mut self, file: &Arc<File>, tag: u64) -> squeue::Entry {
        let index = self.insert(InFlight { file: Some(Arc::clone(file)), tag, ..InFlight::default() });
        opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(Token::new(Kind::Sync, index).user_data())
    }

    /// Ends an operation: its file may close, its buffer goes back to the caller.
    pub(super) fn finish(&mut self, index: u64) -> InFlight {
        let mut done = self.slots.get_mut(index as usize).and_then(Option::take).unwrap_or_default();
        done.file = None;
        done
    }

    pub(super) fn leak(&mut self) {
        std::mem::take(&mut self.slots).into_iter().for_each(std::mem::forget);
    }

    // A worker has a handful of file operations in flight, so a scan beats a free list.
    fn insert(&mut self, operation: InFlight) -> u64 {
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[free] = Some(operation);
        free as u64
    }
}
