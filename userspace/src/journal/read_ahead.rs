//! Reads a file that does not change in large pieces: a scan asks for a header, a body and the
//! rest of a page at a time, and a journal of small groups has millions of those.
//!
//! Never for a segment that may still grow: what is kept here would hide what is written later.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::scan::ReadAt;
use super::segment::GROUP_ALIGN;

/// Bytes read at once: a disk's best, and little beside the tables a start fills.
const WINDOW: usize = 256 << 10;

/// A file, and the piece of it that was read last.
#[derive(Debug)]
pub struct ReadAhead {
    file: File,
    window: RefCell<Window>,
}

#[derive(Debug, Default)]
struct Window {
    offset: u64,
    bytes: Vec<u8>,
}

impl ReadAhead {
    /// Reads this file ahead.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, window: RefCell::default() }
    }
}

impl Window {
    /// What it has from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let start = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        start.and_then(|start| self.bytes.get(start..)).unwrap_or_default()
    }

    fn fill(&mut self, file: &File, offset: u64) -> io::Result<()> {
        self.offset = offset - offset % GROUP_ALIGN;
        self.bytes.resize(WINDOW, 0);
        let read = FileExt::read_at(file, &mut self.bytes, self.offset);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read.map(drop)
    }
}

impl ReadAt for ReadAhead {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut window = self.window.borrow_mut();
        if window.from(offset).is_empty() && window.fill(&self.file, offset).is_err() {
            // One bad page is to hide no more than itself.
            return FileExt::read_at(&self.file, buffer, offset);
        }
        let found = window.from(offset);
        let count = found.len().min(buffer.len());
        buffer[..count].copy_from_slice(&found[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn next_data(&self, offset: u64) -> u64 {
        self.file.next_data(offset)
    }
}

/// A segment as a stream reads it.
#[derive(Debug)]
pub(super) enum Source {
    /// May still grow.
    Live(File),
    /// Does not change any more.
    Closed(ReadAhead),
}

impl ReadAt for Source {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Live(file) => ReadAt::read_at(file, buffer, offset),
            Self::Closed(file) => file.read_at(buffer, offset),
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Live(file) => file.size(),
            Self::Closed(file) => file.size(),
        }
    }

    fn next_data(&self, offset: u64) -> u64 {
        match self {
            Self::Live(file) => file.next_data(offset),
            Self::Closed(file) => file.next_data(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_ahead_reads_what_reading_does(
            size in 0..3 * WINDOW,
            places in prop::collection::vec((0..4 * WINDOW as u64, 0..10_000_usize), 1..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let bytes: Vec<u8> = (0..size).map(|at| (at * 31 / 7) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let ahead = ReadAhead::new(File::open(&path).unwrap());
            for (offset, len) in places {
                let (mut buffer, mut done) = (vec![0; len], 0);
                while done < len {
                    match ahead.read_at(&mut buffer[done..], offset + done as u64).unwrap() {
                        0 => break,
                        count => done += count,
                    }
                }
                let start = (offset as usize).min(size);
                prop_assert_eq!(&buffer[..done], &bytes[start..size.min(start + len)]);
            }
        }
    }
}
