//! Runs the journal's operations: writes and syncs on the worker's ring, creation of segments on
//! a helper thread, because that one blocks.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use weir_common::id::WorkerId;

use super::book::Book;
use super::clock::Now;
use crate::journal::disk::create_segment;
use crate::journal::{Completion, JournalState, Operation, SegmentNo};
use crate::stats::WorkerStats;
use crate::uring::{Uring, Write};

/// Segments a journal may have asked for and not got yet: it asks for one at a time.
const CREATIONS: usize = 2;

struct Creation {
    segment: SegmentNo,
    path: PathBuf,
    bytes: u64,
    header: Vec<u8>,
}

/// The thread that creates segments. It ends when its worker drops this.
struct Creator {
    wanted: SyncSender<Creation>,
    created: Receiver<(SegmentNo, io::Result<File>)>,
}

impl Creator {
    fn start(worker: WorkerId) -> io::Result<Self> {
        let (wanted, to_create) = sync_channel::<Creation>(CREATIONS);
        let (done, created) = sync_channel(CREATIONS);
        std::thread::Builder::new().name(format!("weir-segment-{}", worker.0)).spawn(move || {
            for Creation { segment, path, bytes, header } in to_create {
                let result = create_segment(&path, bytes, &header);
                if done.send((segment, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, created })
    }
}

/// The journal's shell.
pub struct JournalShell {
    files: Vec<(SegmentNo, Arc<File>)>,
    creator: Creator,
    group_began_ns: Option<u64>,
    group_bytes: u64,
    /// What the log was last told of the journal.
    told: JournalState,
}

impl JournalShell {
    /// A shell without open files.
    ///
    /// # Errors
    /// When the helper thread cannot be started.
    pub fn start(worker: WorkerId) -> io::Result<Self> {
        Ok(Self {
            files: Vec::new(),
            creator: Creator::start(worker)?,
            group_began_ns: None,
            group_bytes: 0,
            told: JournalState::Running,
        })
    }

    /// Starts everything the journal asks for.
    pub fn run(&mut self, now: Now, book: &mut Book, uring: &mut Uring) {
        while let Ok((segment, result)) = self.creator.created.try_recv() {
            let result = result.map(|file| self.files.push((segment, Arc::new(file))));
            book.journal().complete(Completion::Created { segment, result });
        }
        while let Some(operation) = book.journal().next_operation(now.monotonic_ns / 1_000_000) {
            self.start_one(now, operation, book, uring);
        }
        book.reclaim();
        self.tell(book.journal().state());
    }

    /// Logs when the journal stops taking blocks, and when it goes on.
    fn tell(&mut self, state: &JournalState) {
        if *state == self.told {
            return;
        }
        match state {
            JournalState::Running => tracing::info!("the journal takes blocks again"),
            JournalState::NoSpace => tracing::error!(
                "the journal has no space: clicks are refused (journal_full) until some is free; see `journal.max_size` and the disk"
            ),
            JournalState::Halted(why) => tracing::error!(
                why,
                "the journal is halted: clicks are refused (journal_full); check the disk, then restart the node"
            ),
        }
        self.told = state.clone();
    }

    fn start_one(&mut self, now: Now, operation: Operation, book: &mut Book, uring: &mut Uring) {
        match operation {
            Operation::CreateSegment { segment, path, bytes, header } => {
                if self.creator.wanted.try_send(Creation { segment, path, bytes, header }).is_err() {
                    let result = Err(io::Error::other("the thread that creates segments is gone"));
                    book.journal().complete(Completion::Created { segment, result });
                }
            }
            Operation::Write { segment, offset, buffer, from } => {
                self.group_began_ns.get_or_insert(now.monotonic_ns);
                match self.file(segment) {
                    Some(file) => {
                        uring.write(&file, Write { offset, buffer, from, tag: u64::from(segment.0) })
                    }
                    None => {
                        let result = Err(not_open());
                        book.journal().complete(Completion::Written { segment, offset, buffer, result });
                    }
                }
            }
            Operation::Sync { segment } => match self.file(segment) {
                Some(file) => uring.sync_data(&file, u64::from(segment.0)),
                None => book.journal().complete(Completion::Synced { segment, result: Err(not_open()) }),
            },
            Operation::Close { segment } => self.files.retain(|(number, _)| *number != segment),
            Operation::Remove { segment, path } => {
                self.files.retain(|(number, _)| *number != segment);
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "an empty segment could not be removed; it is harmless");
                }
            }
        }
    }

    fn file(&self, segment: SegmentNo) -> Option<Arc<File>> {
        self.files.iter().find(|(number, _)| *number == segment).map(|(_, file)| Arc::clone(file))
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
        book.journal().complete(Completion::Written {
            segment: SegmentNo(tag as u32),
            offset,
            buffer,
            result,
        });
    }

    /// A sync ended: the group it belongs to is durable, or failed.
    pub fn synced(
        &mut self,
        now: Now,
        book: &mut Book,
        tag: u64,
        result: io::Result<()>,
        stats: &WorkerStats,
    ) {
        let before = book.durable();
        if let Err(error) = &result {
            tracing::error!(segment = tag, %error, "fdatasync failed; the segment is given up and its group rewritten");
        }
        book.journal().complete(Completion::Synced { segment: SegmentNo(tag as u32), result });
        stats.blocks_committed.add(book.durable().0 - before.0);
        let bytes = std::mem::take(&mut self.group_bytes);
        if book.durable() > before {
            stats.journal_bytes.add(bytes);
        }
        if let Some(began_ns) = self.group_began_ns.take() {
            stats.commit_latency.record(now.monotonic_ns - began_ns, 1);
        }
    }
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the segment is not open")
}
