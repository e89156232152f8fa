//! A node without sockets and without the ledger: workers that journal clicks, keep totals and
//! answer flushes, and sinks to forward to.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datasketches::theta::{ThetaSketch, ThetaSketchBuilder};
use weir::audit::{AuditConfig, AuditReport, RowIter, audit};
use weir::forward::embedded::Store;
use weir::forward::forwarder::StartError;
use weir::forward::{
    Batch, BatchBlocks, Checkpoint, Forwarder, ForwarderConfig, Mailbox, Now, Share, Sink, SinkError,
    Uniques, mailboxes,
};
use weir::journal::block::check_block;
use weir::journal::{DiskBudget, Folder, Recovery, recover};
use weir::stats::ForwardStats;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{BlockSeq, Incarnation};
use weir_common::row::{Row, Rows};
use weir_common::time::{Minute, UnixMs};

use crate::journal_fixture::{START, Writer, config, number, open};

pub(crate) struct Worker {
    pub(crate) writer: Writer,
    pub(crate) mailbox: Mailbox,
    totals: HashMap<BucketKey, BucketTotals>,
    changed: BTreeSet<BucketKey>,
    oldest: Option<UnixMs>,
    /// It has no place for what it counted, and says so.
    pub(crate) is_blocked: bool,
    flushed: BlockSeq,
    /// A share taken, waiting for its last block to be durable or for a place in the ring.
    share: Option<Share>,
}

impl Worker {
    fn count(&mut self, row: &Row) {
        let key = Dimensions::DEFAULT.key(row.minute.get(), &row.click, 1);
        self.totals.entry(key).or_default().count(row);
        self.changed.insert(key);
        let at = UnixMs(row.received_at_ms.get());
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }

    /// One block of these clicks, counted but not durable yet.
    pub(crate) fn submit(&mut self, at: UnixMs, clicks: &[u64]) {
        self.writer.submit(at, clicks.iter().copied());
        for &n in clicks {
            let row = crate::journal_fixture::row(at, n);
            self.count(&row);
        }
    }

    /// What a worker does of forwarding in each turn of its loop.
    pub(crate) fn turn(&mut self) {
        if self.share.is_none()
            && let Some(flush) = self.mailbox.requested()
        {
            if self.is_blocked {
                let held_back = self.changed.iter().map(|key| Minute(key.minute.get())).min();
                let (worker, upto) = (self.mailbox.worker(), self.flushed);
                let nothing =
                    Share { worker, flush, upto, changed: vec![], oldest_received_at: None, held_back };
                self.mailbox.answer(nothing).unwrap();
                return;
            }
            let changed = std::mem::take(&mut self.changed);
            self.share = Some(Share {
                worker: self.mailbox.worker(),
                flush,
                upto: self.writer.journal.submitted(),
                changed: changed.into_iter().map(|key| (key, self.totals[&key])).collect(),
                oldest_received_at: self.oldest.take(),
                held_back: None,
            });
        }
        if let Some(share) = self.share.take_if(|share| share.upto <= self.writer.journal.durable()) {
            self.flushed = share.upto;
            self.share = self.mailbox.answer(share).err();
        }
    }
}

pub(crate) struct Node<S> {
    pub(crate) folder: Folder,
    pub(crate) workers: Vec<Worker>,
    pub(crate) forwarder: Forwarder<S>,
    pub(crate) recovery: Recovery,
    pub(crate) stats: Arc<ForwardStats>,
    pub(crate) now: Now,
}

pub(crate) fn flush_config() -> ForwarderConfig {
    ForwarderConfig { part_bytes_max: 8 << 10, ..ForwarderConfig::default() }
}

impl<S: Sink> Node<S> {
    /// A start of the daemon with this many workers: refolds the journal and goes on.
    pub(crate) fn start(dir: &Path, workers: u16, sink: impl FnOnce(&Folder) -> S) -> Self {
        Self::try_start(dir, workers, flush_config(), sink).unwrap()
    }

    pub(crate) fn try_start(
        dir: &Path,
        workers: u16,
        flush: ForwarderConfig,
        sink: impl FnOnce(&Folder) -> S,
    ) -> Result<Self, StartError> {
        let folder = open(dir);
        let (boxes, forwarder_boxes) = mailboxes(workers);
        let budget = Arc::new(DiskBudget::new(u64::MAX, folder.bytes_used().unwrap()));
        let mut rows: Vec<Row> = Vec::new();
        let recovery = recover(&folder, |_, row, _| rows.push(*row)).unwrap();
        let mut workers: Vec<_> = boxes
            .into_iter()
            .map(|mailbox| Worker {
                writer: Writer::with(config(&folder, mailbox.worker().0), Arc::clone(&budget)),
                mailbox,
                totals: HashMap::new(),
                changed: BTreeSet::new(),
                oldest: None,
                is_blocked: false,
                flushed: BlockSeq(0),
                share: None,
            })
            .collect();
        let mut uniques = Uniques::new(flush.uniques_bytes_max);
        for row in &rows {
            uniques.row(row);
            let owner = number(&row.click) as usize % workers.len();
            workers[owner].count(row);
        }
        let stats = Arc::new(ForwardStats::default());
        let sink = sink(&folder);
        let given = (budget, Arc::clone(&stats));
        let mut forwarder = Forwarder::new(flush, &folder, &recovery, sink, forwarder_boxes, given)?;
        forwarder.go_on_with(uniques);
        let now = Now { ms: 0, wall: START, is_certain: true };
        Ok(Self { folder, workers, forwarder, recovery, stats, now })
    }

    /// Clicks of one owner, durable.
    pub(crate) fn write(&mut self, worker: usize, clicks: &[u64]) {
        let at = self.now.wall;
        self.workers[worker].submit(at, clicks);
        self.workers[worker].writer.commit();
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall.0 += ms;
    }

    /// Runs a whole flush.
    pub(crate) fn flush(&mut self) {
        self.forwarder.begin_flush(self.now);
        for _ in 0..1000 {
            self.workers.iter_mut().for_each(|worker| {
                worker.writer.commit();
                worker.turn();
            });
            if self.forwarder.is_idle() {
                return;
            }
            let wait_ms = self.forwarder.poll(self.now);
            self.pass_ms(wait_ms);
        }
        panic!("the flush does not end: {:?}", self.forwarder.last_error());
    }
}

pub(crate) type Blocks = Vec<Vec<u8>>;

/// What a commit is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is committed.
    Refuse,
    /// It is committed, but the answer is lost.
    LoseAnswer,
}

/// A sink in memory that keeps everything it was ever offered.
#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    pub(crate) committed: BTreeMap<(u64, u32), (Batch, Blocks)>,
    pub(crate) offered: Vec<(Batch, Blocks)>,
    pub(crate) faults: RefCell<Vec<Fault>>,
    pub(crate) checkpoint: Checkpoint,
}

impl Sink for MemorySink {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        Ok(self.checkpoint.clone())
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        let mut read = Vec::new();
        while let Some(block) = blocks.next_block()? {
            read.push(block.to_vec());
        }
        self.offered.push((batch.clone(), read.clone()));
        let fault = self.faults.get_mut().pop();
        if fault != Some(Fault::Refuse) {
            self.checkpoint = batch.checkpoint.clone();
            let key = (batch.flush.0, batch.part);
            let new = (batch.clone(), read);
            let old = self.committed.insert(key, new.clone());
            assert!(old.is_none_or(|old| old == new), "a batch came again with other bytes");
        }
        fault.map_or(Ok(()), |fault| Err(SinkError::Retry(format!("{fault:?}"))))
    }
}

impl MemorySink {
    /// The buckets as a consumer has them that keeps the highest revision.
    pub(crate) fn buckets(&self) -> BTreeMap<BucketKey, BucketTotals> {
        let batches = self.committed.values();
        batches.flat_map(|(batch, _)| batch.buckets.iter().map(|found| (found.key, found.totals))).collect()
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let blocks = self.committed.values().flat_map(|(_, blocks)| blocks);
        blocks.flat_map(|block| Rows::new(check_block(block).unwrap().1).map(|(row, _)| *row)).collect()
    }

    pub(crate) fn recount(&self) -> BTreeMap<BucketKey, BucketTotals> {
        let mut buckets: BTreeMap<BucketKey, BucketTotals> = BTreeMap::new();
        for row in self.rows() {
            let key = Dimensions::DEFAULT.key(row.minute.get(), &row.click, 1);
            buckets.entry(key).or_default().count(&row);
        }
        buckets
    }

    /// The sketches as a consumer has them that keeps the highest revision, by minute and ad.
    pub(crate) fn sketches(&self) -> BTreeMap<(u32, u64), Vec<u8>> {
        let sketches = self.committed.values().flat_map(|(batch, _)| &batch.uniques.sketches);
        sketches.map(|sketch| ((sketch.minute.0, sketch.ad), sketch.theta.clone())).collect()
    }

    /// The sketches that the rows of final minutes make.
    pub(crate) fn sketches_recounted(&self) -> BTreeMap<(u32, u64), Vec<u8>> {
        sketches_of(self.rows().iter(), self.checkpoint.final_before)
    }

    /// Every click of these once, and buckets and sketches that are their recount.
    pub(crate) fn check(&self, clicks: Vec<u64>) {
        self.check_buckets(clicks);
        assert_eq!(self.sketches(), self.sketches_recounted());
    }

    /// Every click of these once, and buckets that are their recount.
    pub(crate) fn check_buckets(&self, clicks: Vec<u64>) {
        self.check_rows(clicks);
        assert_eq!(self.buckets(), self.recount());
    }

    /// Every click of these once.
    pub(crate) fn check_rows(&self, mut clicks: Vec<u64>) {
        clicks.sort_unstable();
        let mut found: Vec<_> = self.rows().iter().map(|row| number(&row.click)).collect();
        found.sort_unstable();
        assert_eq!(found, clicks);
    }
}

/// The sketches of these rows, of minutes before this one, by the plainest means.
pub(crate) fn sketches_of<'a>(
    rows: impl Iterator<Item = &'a Row>,
    final_before: Minute,
) -> BTreeMap<(u32, u64), Vec<u8>> {
    let mut sketches = BTreeMap::new();
    for row in rows.filter(|row| row.minute.get() < final_before.0) {
        let is_counted = matches!(row.outcome, 0 | 1);
        if is_counted && row.click.user_key.get() != 0 {
            let key = (row.minute.get(), row.click.ad.get());
            let sketch = sketches
                .entry(key)
                .or_insert_with(|| ThetaSketchBuilder::default().lg_k(12).seed(9001).build().unwrap());
            sketch.update(row.click.user_key.get());
        }
    }
    let octets = |(key, mut sketch): (_, ThetaSketch)| {
        sketch.trim();
        (key, sketch.compact(true).serialize())
    };
    sketches.into_iter().map(octets).collect()
}

pub(crate) fn store_path(dir: &Path) -> PathBuf {
    dir.join("store")
}

pub(crate) fn store(dir: &Path) -> impl FnOnce(&Folder) -> Store {
    let path = store_path(dir);
    move |folder| Store::open(&path, folder.incarnation()).unwrap()
}

/// What the audit of a stopped node's store says, and the clicks in it, in order.
pub(crate) fn audited(dir: &Path) -> (AuditReport, Vec<u64>) {
    let store = Store::open(&store_path(dir), Incarnation(0)).unwrap();
    let report = audit(&store, &AuditConfig::default()).unwrap();
    let mut found: Vec<_> = RowIter::new(&store).unwrap().map(|(_, row)| number(&row.click)).collect();
    found.sort_unstable();
    (report, found)
}
