//! Runs the journal's operations on the worker's host: writes, syncs, the creation of segments.

use std::io;
use std::sync::Arc;

use super::book::Book;
use super::clock::Now;
use super::host::{Creation, Host};
use crate::journal::writer::is_no_space;
use crate::journal::{Completion, Journal, JournalState, KeyError, Operation, SegmentNo};
use crate::stats::{DiskFailure, DiskOperation, JournalHealth, OwnStats};
use crate::uring::Write;

/// The journal's shell.
pub struct JournalShell<F> {
    files: Vec<(SegmentNo, F)>,
    group_began_ns: Option<u64>,
    group_bytes: u64,
    /// What log and status were last told of the journal.
    told: JournalState,
    stats: OwnStats,
}

impl<F: Clone> JournalShell<F> {
    /// A shell without open files.
    #[must_use]
    pub const fn new(stats: OwnStats) -> Self {
        let told = JournalState::Running;
        Self { files: Vec::new(), group_began_ns: None, group_bytes: 0, told, stats }
    }

    /// Starts everything the journal asks for.
    pub fn run(&mut self, now: Now, book: &mut Book, host: &mut impl Host<File = F>) {
        while let Some((segment, result)) = host.created() {
            let result = result.map(|file| self.files.push((segment, file)));
            if let Err(error) = &result {
                // Want of space comes again every second; the change of state is logged once.
                if !is_no_space(error) {
                    tracing::error!(segment = segment.0, %error, "a segment could not be made; it is tried again");
                }
                self.stats.note_disk_failure(DiskOperation::Create, error);
            }
            book.journal().complete(Completion::Created { segment, result });
        }
        while let Some(result) = host.key_taken() {
            if let Err(error) = &result {
                tracing::error!(%error, "no key for today's segments; it is asked for again, meanwhile they are under the last day's key");
            }
            book.journal().complete(Completion::KeyTaken { result });
        }
        while let Some(operation) = book.journal().next_operation(now.monotonic_ns / 1_000_000) {
            self.start_one(now, operation, book, host);
        }
        book.reclaim();
        self.tell(book.journal());
    }

    /// Says when the journal stops taking blocks, and when it goes on: in the log and the status.
    fn tell(&mut self, journal: &Journal) {
        let state = journal.state();
        if *state == self.told {
            return;
        }
        if *state == JournalState::NoSpace && journal.is_at_bound() {
            let failure = DiskFailure { operation: DiskOperation::Bound, os_error: 0 };
            self.stats.journal_last_failure.set(failure.to_number());
        }
        match state {
            JournalState::Running => tracing::info!("the journal takes blocks again"),
            JournalState::NoSpace => tracing::error!(
                "no space for the next segment: once the last one is full clicks are refused (journal_full) until some is free; see `journal.max_size` and the disk"
            ),
            JournalState::Halted(why) => tracing::error!(
                why,
                "the journal is halted: clicks are refused (journal_full); check the disk, then restart the node"
            ),
        }
        self.stats.journal_health.set(JournalHealth::from(state) as u64);
        self.told = state.clone();
    }

    fn start_one(&mut self, now: Now, operation: Operation, book: &mut Book, host: &mut impl Host<File = F>) {
        match operation {
            Operation::TakeKey { keys, day } => {
                if let Err(source) = host.take_key(Arc::clone(&keys), day) {
                    let error =
                        KeyError::Io { doing: "ask for a key in", path: keys.folder().to_owned(), source };
                    book.journal().complete(Completion::KeyTaken { result: Err(error) });
                }
            }
            Operation::CreateSegment { segment, path, bytes, header } => {
                if let Err(error) = host.create(Creation { segment, path, bytes, header }) {
                    book.journal().complete(Completion::Created { segment, result: Err(error) });
                }
            }
            Operation::Write { segment, offset, buffer, from } => {
                self.group_began_ns.get_or_insert(now.monotonic_ns);
                match self.file(segment) {
                    Some(file) => {
                        host.write(&file, Write { offset, buffer, from, tag: u64::from(segment.0) })
                    }
                    None => {
                        let result = Err(not_open());
                        book.journal().complete(Completion::Written { segment, offset, buffer, result });
                    }
                }
            }
            Operation::Sync { segment } => match self.file(segment) {
                Some(file) => host.sync_data(&file, u64::from(segment.0)),
                None => book.journal().complete(Completion::Synced { segment, result: Err(not_open()) }),
            },
            Operation::Close { segment } => self.files.retain(|(number, _)| *number != segment),
            Operation::Remove { segment, path } => {
                self.files.retain(|(number, _)| *number != segment);
                if let Err(error) = host.remove(&path) {
                    tracing::warn!(path = %path.display(), %error, "an empty segment could not be removed; it is harmless");
                }
            }
        }
    }

    fn file(&self, segment: SegmentNo) -> Option<F> {
        self.files.iter().find(|(number, _)| *number == segment).map(|(_, file)| file.clone())
    }

    /// A full disk is met again and again until there is space; the log has it once.
    fn note_failed_group(&self, operation: DiskOperation, segment: u64, error: &io::Error) {
        let is_known = is_no_space(error) && self.told == JournalState::NoSpace;
        if !is_known {
            tracing::error!(segment, ?operation, %error, "a segment is given up and its group is written to another");
        }
        self.stats.note_disk_failure(operation, error);
    }

    /// A write ended.
    pub fn written(
        &mut self,
        book: &mut Book,
        tag: u64,
        offset: u64,
        buffer: Vec<u8>,
        result: io::Result<usize>,
    ) {
        self.group_bytes += result.as_ref().map_or(0, |&written| written as u64);
        if let Err(error) = &result {
            self.note_failed_group(DiskOperation::Write, tag, error);
        }
        book.journal().complete(Completion::Written {
            segment: SegmentNo(tag as u32),
            offset,
            buffer,
            result,
        });
    }

    /// A sync ended: the group it belongs to is durable, or failed.
    pub fn synced(&mut self, now: Now, book: &mut Book, tag: u64, result: io::Result<()>) {
        let before = book.durable();
        if let Err(error) = &result {
            self.note_failed_group(DiskOperation::Sync, tag, error);
        }
        book.journal().complete(Completion::Synced { segment: SegmentNo(tag as u32), result });
        self.stats.blocks_committed.add(book.durable().0 - before.0);
        let bytes = std::mem::take(&mut self.group_bytes);
        if book.durable() > before {
            self.stats.journal_bytes.add(bytes);
        }
        if let Some(began_ns) = self.group_began_ns.take() {
            self.stats.commit_latency.record(now.monotonic_ns - began_ns, 1);
        }
    }
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the segment is not open")
}
