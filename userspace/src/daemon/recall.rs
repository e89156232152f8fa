//! Fills the ledgers from the digests: a thread for each worker, each reading only its own part.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use weir_common::id::{Shard, WorkerId};

use crate::digest::header::{DigestHeader, GROUPS, shards_of};
use crate::digest::read::Scratch;
use crate::digest::{Digest, DigestError, Shelf};
use crate::journal::{Place, SegmentId};
use crate::ledger::{Ledger, Recalled};
use crate::worker::shard_map::ShardMap;

/// From one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct RecallReport {
    /// Digests read.
    pub(super) digests: usize,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// Impressions in them; one may stand in several.
    pub(super) impressions: u64,
    /// Of those, too old to be remembered, or without room.
    pub(super) forgotten: u64,
    /// Digests that turned out to be damaged, and how.
    pub(super) damaged: Vec<(SegmentId, DigestError)>,
    /// How long it took.
    pub(super) took: Duration,
}

/// What all threads have done so far.
#[derive(Debug, Default)]
struct Done {
    bytes: AtomicU64,
    impressions: AtomicU64,
    forgotten: AtomicU64,
}

/// Lets each ledger, that of its worker, recall every impression in the digests that is the
/// worker's now, whoever wrote it.
pub(super) fn recall<'a>(
    place: &Place,
    shelf: &Shelf,
    shards: &ShardMap,
    ledgers: impl Iterator<Item = &'a mut Ledger>,
) -> RecallReport {
    let began = Instant::now();
    let digests = in_order(shelf);
    let total: u64 = digests.iter().map(|header| header.bytes() - header.starts[0].get()).sum();
    let done = Done::default();
    let mut damaged = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = ledgers
            .enumerate()
            .map(|(number, ledger)| {
                let own = Own::new(shards, WorkerId(number as u16));
                let (digests, done) = (&digests, &done);
                scope.spawn(move || own.recall(place, digests, ledger, done))
            })
            .collect();
        tell_progress(&threads, &done, total, began);
        for thread in threads {
            damaged.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    damaged.sort_by_key(|(id, _)| *id);
    damaged.dedup_by_key(|(id, _)| *id);
    RecallReport {
        digests: digests.len(),
        bytes: done.bytes.into_inner(),
        impressions: done.impressions.into_inner(),
        forgotten: done.forgotten.into_inner(),
        damaged,
        took: began.elapsed(),
    }
}

/// By epoch and time: an impression belongs to one worker within an epoch, so its clicks come in
/// their order.
fn in_order(shelf: &Shelf) -> Vec<&DigestHeader> {
    let mut digests: Vec<_> = shelf.iter().collect();
    digests.sort_by_key(|header| (header.id().epoch, header.newest(), header.id()));
    digests
}

fn tell_progress<T>(threads: &[ScopedJoinHandle<'_, T>], done: &Done, total: u64, began: Instant) {
    let mut told = began;
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(5));
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let bytes = done.bytes.load(Ordering::Relaxed);
            tracing::info!(
                percent = bytes * 100 / total.max(1),
                bytes,
                impressions = done.impressions.load(Ordering::Relaxed),
                seconds = began.elapsed().as_secs(),
                "recalling impressions from their digests"
            );
        }
    }
}

/// The part of every digest that is one worker's.
struct Own<'a> {
    shards: &'a ShardMap,
    worker: WorkerId,
    groups: Range<usize>,
    /// No shard of these groups is another worker's.
    is_all: bool,
}

impl<'a> Own<'a> {
    fn new(shards: &'a ShardMap, worker: WorkerId) -> Self {
        let is_own = |shard: usize| shards.owner(Shard(shard as u16)) == worker;
        let first = (0..GROUPS).find(|&group| shards_of(group).any(is_own)).unwrap_or(0);
        let last = (0..GROUPS).rfind(|&group| shards_of(group).any(is_own));
        let groups = first..last.map_or(first, |last| last + 1);
        let is_all = groups.clone().all(|group| shards_of(group).all(is_own));
        Self { shards, worker, groups, is_all }
    }

    fn recall(
        &self,
        place: &Place,
        digests: &[&DigestHeader],
        ledger: &mut Ledger,
        done: &Done,
    ) -> Vec<(SegmentId, DigestError)> {
        let (mut scratch, mut own, mut damaged) = (Scratch::default(), Vec::new(), Vec::new());
        for header in digests {
            let id = header.id();
            let on_chunk = |chunk: &[Recalled]| {
                let chunk = if self.is_all { chunk } else { self.pick(chunk, &mut own) };
                let forgotten = ledger.recall(chunk);
                done.impressions.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                done.forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
            };
            let read = Digest::open(place, id)
                .and_then(|digest| digest.read(self.groups.clone(), &mut scratch, on_chunk));
            match read {
                Ok(bytes) => drop(done.bytes.fetch_add(bytes, Ordering::Relaxed)),
                Err(error) => damaged.push((id, error)),
            }
        }
        damaged
    }

    fn pick<'b>(&self, chunk: &[Recalled], own: &'b mut Vec<Recalled>) -> &'b [Recalled] {
        let shard = |entry: &Recalled| {
            if entry.is_foreign { entry.id.foreign_shard() } else { entry.id.issued_shard() }
        };
        own.clear();
        own.extend(chunk.iter().filter(|entry| self.shards.owner(shard(entry)) == self.worker));
        own
    }
}
