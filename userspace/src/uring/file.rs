//! Writes and syncs in flight: they keep their file open and their buffer alive.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::token::{Kind, Token};

/// An operation in flight.
#[derive(Debug)]
struct InFlight {
    file: Arc<File>,
    buffer: Vec<u8>,
    tag: u64,
}

/// All file operations in flight on a ring.
#[derive(Debug, Default)]
pub(super) struct FileOperations {
    slots: Vec<Option<InFlight>>,
}

impl FileOperations {
    pub(super) fn write_entry(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        buffer: Vec<u8>,
        tag: u64,
    ) -> squeue::Entry {
        let (pointer, len) = (buffer.as_ptr(), buffer.len() as u32);
        // Moving the vector into its slot does not move its heap bytes.
        let index = self.insert(InFlight { file: Arc::clone(file), buffer, tag });
        opcode::Write::new(types::Fd(file.as_raw_fd()), pointer, len)
            .offset(offset)
            .build()
            .user_data(Token::new(Kind::Write, index).user_data())
    }

    pub(super) fn sync_entry(&mut self, file: &Arc<File>, tag: u64) -> squeue::Entry {
        let index = self.insert(InFlight { file: Arc::clone(file), buffer: Vec::new(), tag });
        opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(Token::new(Kind::Sync, index).user_data())
    }

    pub(super) fn finish_write(&mut self, index: u64) -> (u64, Vec<u8>) {
        self.remove(index).map_or((0, Vec::new()), |done| (done.tag, done.buffer))
    }

    pub(super) fn finish_sync(&mut self, index: u64) -> u64 {
        self.remove(index).map_or(0, |done| done.tag)
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

    fn remove(&mut self, index: u64) -> Option<InFlight> {
        let done = self.slots.get_mut(index as usize)?.take();
        debug_assert!(done.as_ref().is_some_and(|operation| operation.file.as_raw_fd() >= 0));
        done
    }
}
