//! The thread that writes digests, and what its reader knows of them.
//!
//! It looks into the folder now and then, by itself: a segment may be digested once it is closed,
//! and that stands on the disk. One of an earlier start is; one of this start is as soon as a
//! later segment of its worker holds a block, because a journal writes to one segment at a time
//! and never goes back. So no worker has to tell anybody anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::CpuSet;
use weir_common::block::BlockHeader;
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::time::UnixMs;
use zerocopy::FromBytes;

use super::header::DigestHeader;
use super::shelf::Shelf;
use super::write::{WriteError, remove_unfinished, write_digest};
use crate::journal::folder::segment_ids;
use crate::journal::scan::{Found, SegmentScan};
use crate::journal::{DiskBudget, FolderError, Place, Position, SegmentId};

/// From one look into the folder to the next: a worker at full rate fills a segment in about as
/// long.
const LOOK: Duration = Duration::from_secs(5);
/// How nice the thread is: as nice as can be, for nobody waits for it.
const NICENESS: i32 = 19;
/// Headers that may wait for the forwarder to take them; the thread pauses when they are more.
const WAITING_MAX: usize = 1024;

/// Finds the closed segments without a digest.
#[derive(Debug)]
pub struct Lookout {
    place: Place,
    epoch: Epoch,
    /// Where the streams of earlier starts ended, when this one began.
    ends: BTreeMap<(Epoch, WorkerId), Position>,
    /// Digested, or given up for this run.
    done: BTreeSet<SegmentId>,
}

impl Lookout {
    /// A lookout in this start of the daemon, over a folder with these digests, in which the streams
    /// of earlier starts end here.
    #[must_use]
    pub fn new(
        place: Place,
        epoch: Epoch,
        shelf: &Shelf,
        ends: BTreeMap<(Epoch, WorkerId), Position>,
    ) -> Self {
        Self { place, epoch, ends, done: shelf.iter().map(DigestHeader::id).collect() }
    }

    /// The segments that are closed and not done, oldest first, each with the last block it must
    /// have, where a later segment says so.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn look(&mut self) -> Result<Vec<(SegmentId, Option<BlockSeq>)>, FolderError> {
        let ids = segment_ids(&self.place.segments)?;
        self.done.retain(|id| ids.binary_search(id).is_ok());
        let mut closed = Vec::new();
        for (at, &id) in ids.iter().enumerate() {
            if self.done.contains(&id) {
                continue;
            }
            let is_next = |next: &&SegmentId| next.epoch == id.epoch && next.worker == id.worker;
            let after = ids[at + 1..].iter().take_while(is_next).find_map(|&next| self.first_block(next));
            match after {
                Some(next) => closed.push((id, Some(BlockSeq(next.0.saturating_sub(1))))),
                None if id.epoch < self.epoch => closed.push((id, self.end_in(id))),
                None => {}
            }
        }
        Ok(closed)
    }

    /// The last block of a segment that none with blocks follows, as the start has seen it. What is
    /// damaged since is no torn tail.
    fn end_in(&self, id: SegmentId) -> Option<BlockSeq> {
        let end = self.ends.get(&(id.epoch, id.worker))?;
        // A later segment may hold the last blocks once more, after a failure here.
        (end.segment == id.segment).then_some(end.last)
    }

    /// The first block of a segment, if there is one yet.
    fn first_block(&self, id: SegmentId) -> Option<BlockSeq> {
        let file = File::open(self.place.segments.join(id.file_name())).ok()?;
        let mut scan = SegmentScan::new(file, id, &self.place).ok()?;
        // Where the first block is to be, or nowhere: an empty segment is not read through.
        match scan.next_found()? {
            Found::Block(_) => {
                let (header, _) = BlockHeader::ref_from_prefix(scan.block()).ok()?;
                Some(BlockSeq(header.sequence.get()))
            }
            Found::Damage(_) => None,
        }
    }

    /// Digests one of them. `None` when the daemon ends.
    ///
    /// # Errors
    /// Why it has none and gets none in this run.
    pub fn digest(
        &mut self,
        (id, last): (SegmentId, Option<BlockSeq>),
        stop: &AtomicBool,
    ) -> Option<Result<DigestHeader, WriteError>> {
        let written = write_digest(&self.place, id, last, stop);
        if matches!(written, Err(WriteError::Stopped { .. })) {
            return None;
        }
        self.done.insert(id);
        Some(written)
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Digester {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Digester {
    /// Starts the thread, away from the `cores` of the workers where there are others. It gives
    /// the header of each digest that is durable.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(lookout: Lookout, cores: &[usize]) -> io::Result<(Self, Receiver<DigestHeader>)> {
        let (sender, written) = sync_channel(WAITING_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let (told, cores) = (Arc::clone(&stop), cores.to_vec());
        let run = move || {
            step_aside(&cores, NICENESS);
            digest_all(lookout, &sender, &told);
        };
        let thread = std::thread::Builder::new().name("weir-digest".to_owned()).spawn(run)?;
        Ok((Self { stop, thread }, written))
    }

    /// Ends the thread; a digest in work is given up.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that writes digests panicked: this is a defect; nothing is lost by it"
            );
        }
    }
}

/// Leaves the workers' cores to them, and any core to whoever wants it.
pub(crate) fn step_aside(cores: &[usize], niceness: i32) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let mut others = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu) && !cores.contains(&cpu))
        .for_each(|cpu| others.set(cpu));
    let moved = if others.count() > 0 { rustix::thread::sched_setaffinity(None, &others) } else { Ok(()) };
    if let Err(error) = moved.and_then(|()| rustix::process::nice(niceness).map(drop)) {
        tracing::warn!(%error, "a thread beside the workers keeps its cores and priority");
    }
}

fn digest_all(mut lookout: Lookout, sender: &SyncSender<DigestHeader>, stop: &AtomicBool) {
    if let Err(error) = remove_unfinished(&lookout.place.segments) {
        tracing::warn!(%error, "what a crash left of unfinished digests could not be removed; it is harmless");
    }
    while !stop.load(Ordering::Acquire) {
        match lookout.look() {
            Ok(closed) => {
                for wanted in closed {
                    let Some(written) = lookout.digest(wanted, stop) else { return };
                    match written {
                        Ok(header) => tell(header, sender, stop),
                        Err(error @ WriteError::Gone { .. }) => tracing::debug!("{error}"),
                        Err(error) => tracing::warn!("{error}"),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "no digests are written"),
        }
        std::thread::park_timeout(LOOK);
    }
}

fn tell(header: DigestHeader, sender: &SyncSender<DigestHeader>, stop: &AtomicBool) {
    let mut waiting = header;
    while let Err(TrySendError::Full(back)) = sender.try_send(waiting) {
        if stop.load(Ordering::Acquire) {
            return;
        }
        waiting = back;
        std::thread::park_timeout(LOOK);
    }
}

/// What the forwarder knows of digests: those that are durable, and where new ones come from.
#[derive(Debug)]
pub struct Digests {
    place: Place,
    shelf: Shelf,
    written: Receiver<DigestHeader>,
    lifetime_ms: u64,
    digester: Option<Digester>,
}

impl Digests {
    /// The digests of a folder, of impressions that live this long, and where the headers of new
    /// ones come from.
    #[must_use]
    pub const fn new(place: Place, shelf: Shelf, lifetime_ms: u64, written: Receiver<DigestHeader>) -> Self {
        Self { place, shelf, written, lifetime_ms, digester: None }
    }

    /// The same, and the thread that writes them, to be ended with them.
    #[must_use]
    pub fn by(self, digester: Digester) -> Self {
        Self { digester: Some(digester), ..self }
    }

    /// Takes note of new digests. Their bytes are charged even to a full budget: a digest makes
    /// room for more than it takes.
    pub fn collect(&mut self, budget: &DiskBudget) {
        for header in self.written.try_iter() {
            budget.charge(header.bytes());
            self.shelf.put(header);
        }
    }

    /// Those known of.
    #[must_use]
    pub const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Deletes the digests in which nothing matters at `now` any more, of segments that are gone.
    ///
    /// # Errors
    /// The first deletion that failed.
    pub fn delete_expired(
        &mut self,
        now: UnixMs,
        budget: &DiskBudget,
        is_gone: impl Fn(SegmentId) -> bool,
    ) -> io::Result<u64> {
        let ids: Vec<_> = self.shelf.expired(now, self.lifetime_ms).filter(|&id| is_gone(id)).collect();
        self.shelf.delete(&self.place, budget, &ids)
    }

    /// Ends the thread behind them.
    pub fn finish(&mut self) {
        if let Some(digester) = self.digester.take() {
            digester.finish();
            self.written.try_iter().for_each(|header| self.shelf.put(header));
        }
    }
}
