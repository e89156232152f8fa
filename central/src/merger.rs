//! The merging thread: reads, folds and writes, and lets others see how far it is. What becomes of a
//! record is decided in [`merge`](crate::merge).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_common::id::NodeId;
use weir_common::record::topic;
use weir_common::time::Minute;

use crate::again::again_while;
use crate::kafka::{ClusterSettings, Delivered, Ends, KafkaError, Source};
use crate::merge::Changes;
use crate::record::{self, Life, RecordError, Word};
use crate::store::{Store, StoreError};
use crate::watermark::{NodeState, Progress, Watermarks};

/// Records of one write: enough to make its cost small, few enough for an answer to be seconds old.
const BATCH_RECORDS_MAX: usize = 20_000;
/// Octets of one write's records: bounds its memory, where sketches come.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How long to wait for a first record.
const POLL: Duration = Duration::from_millis(100);
/// How often what was written is synced. What a crash takes away is read again.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Why merging ended.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum MergeError {
    /// {0}
    Kafka(#[from] KafkaError),
    /// {0}
    Store(#[from] StoreError),
}

/// What others may see of the merging thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How complete and how fresh the store is.
    pub progress: Progress,
    /// Rises with each write.
    pub writes: u64,
    /// Rises when a minute that was final changes all the same: a node that was long away has come back.
    pub rewrites: u64,
}

/// Counters of the merging thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that were read.
    pub records: AtomicU64,
    /// Records that say nothing a node would say.
    pub unreadable: AtomicU64,
    /// Buckets that were set.
    pub buckets: AtomicU64,
    /// Sketches that were set.
    pub sketches: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Brings what nodes say from Kafka into the store.
#[derive(Debug)]
pub struct Merger {
    store: Store,
    source: Source,
    ends: Ends,
    marks: Watermarks,
    retired: Vec<NodeId>,
    seen: watch::Sender<Seen>,
    counters: Arc<Counters>,
    sync_at: Instant,
}

/// Which topic a record is of, by its place in the list.
const BUCKETS: usize = 0;
const UNIQUES: usize = 1;

impl Merger {
    /// Goes on where the store is.
    ///
    /// # Errors
    /// When the store cannot be read, or Kafka does not answer.
    pub fn open(
        store: Store,
        (cluster, prefix): (&ClusterSettings, &str),
        retired: Vec<NodeId>,
        (seen, counters): (watch::Sender<Seen>, Arc<Counters>),
    ) -> Result<Self, MergeError> {
        let topics =
            [topic::BUCKETS, topic::UNIQUES, topic::CHECKPOINTS].map(|name| format!("{prefix}{name}"));
        let source = Source::open(cluster, &topics, |topic, partition| {
            store.offset(topic, partition).map_err(MergeError::from)
        })?;
        let ends = Ends::of(cluster, &topics)?;
        let marks = Watermarks::of(store.nodes()?);
        let merger = Self {
            store,
            source,
            ends,
            marks,
            retired,
            seen,
            counters,
            sync_at: Instant::now() + SYNC_EVERY,
        };
        merger.publish(|_| ());
        Ok(merger)
    }

    fn publish(&self, also: impl FnOnce(&mut Seen)) {
        let progress = self.marks.progress(&self.retired);
        self.seen.send_if_modified(|seen| {
            let before = seen.clone();
            seen.progress = progress;
            also(seen);
            *seen != before
        });
    }

    /// Reads, folds and writes until told to stop.
    ///
    /// # Errors
    /// When records are missing from the log, or the store fails. The store is sound in either case.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), MergeError> {
        while !stop.load(Ordering::Acquire) {
            self.turn()?;
        }
        Ok(self.store.sync()?)
    }

    /// One batch.
    fn turn(&mut self) -> Result<(), MergeError> {
        let records = self.source.poll((BATCH_RECORDS_MAX, BATCH_BYTES_MAX), POLL)?;
        let mut changes = Changes::default();
        let mut lives = Vec::new();
        for record in &records {
            match read(record) {
                Ok(Word::Told { life, told }) => {
                    self.marks.tell(life, told);
                    lives.push(life);
                }
                Ok(word) => changes.take(&self.store, word)?,
                Err(error) => self.note_unreadable(record, &error),
            }
        }
        self.look_for_ends();
        lives.extend(self.marks.read_to(self.source.read_to()));
        if !records.is_empty() || !lives.is_empty() {
            self.write(&records, &changes, &lives)?;
        }
        if Instant::now() >= self.sync_at {
            self.sync_at = Instant::now() + SYNC_EVERY;
            self.store.sync()?;
        }
        Ok(())
    }

    /// Learns where the partitions end, once something was told since.
    fn look_for_ends(&mut self) {
        if let Some(ends) = self.ends.answer() {
            self.marks.ends(ends);
        }
        if self.marks.asks() {
            let partitions = self.source.offsets().keys().filter(|(topic, _)| *topic <= UNIQUES);
            self.ends.ask(partitions.copied());
        }
    }

    fn write(&self, records: &[Delivered], changes: &Changes, lives: &[Life]) -> Result<(), MergeError> {
        let state = |life: &Life| (*life, self.marks.nodes().get(life).cloned().unwrap_or_default());
        let nodes: Vec<(Life, NodeState)> = lives.iter().map(state).collect();
        self.store.apply(changes, self.source.topics(), self.source.offsets(), &nodes)?;
        Counters::add(&self.counters.records, records.len());
        Counters::add(&self.counters.buckets, changes.buckets.len());
        Counters::add(&self.counters.sketches, changes.users.len());
        let final_before = self.seen.borrow().progress.final_before().unwrap_or(Minute(0));
        let is_rewrite = changes.oldest.is_some_and(|oldest| oldest < final_before);
        self.publish(|seen| {
            seen.writes += u64::from(!changes.is_empty());
            seen.rewrites += u64::from(is_rewrite);
        });
        Ok(())
    }

    fn note_unreadable(&self, record: &Delivered, error: &RecordError) {
        let before = self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
        // The first says it; a flood of them is in the metrics.
        if before.is_power_of_two() || before == 0 {
            let topic = &self.source.topics()[record.topic];
            let (partition, offset) = (record.partition, record.offset);
            tracing::warn!(%error, topic, partition, offset, unreadable = before + 1, "a record says nothing");
        }
    }
}

fn read(record: &Delivered) -> Result<Word, RecordError> {
    match record.topic {
        BUCKETS => record::bucket(&record.value),
        UNIQUES => record::uniques(&record.value),
        _ => record::checkpoint(&record.key, &record.value, record.appended_at),
    }
}

/// Opens and runs a merger, and begins again when Kafka was away, until told to stop.
///
/// # Errors
/// When the store fails, or the log has lost records.
pub fn merge(
    store: &Store,
    (cluster, prefix): (&ClusterSettings, &str),
    retired: &[NodeId],
    (seen, counters): (&watch::Sender<Seen>, &Arc<Counters>),
    stop: &AtomicBool,
) -> Result<(), MergeError> {
    let once = || {
        let shown = (seen.clone(), Arc::clone(counters));
        Merger::open(store.clone(), (cluster, prefix), retired.to_vec(), shown)?.run(stop)
    };
    let passes = |error: &MergeError| matches!(error, MergeError::Kafka(error) if error.may_pass());
    again_while(stop, "merging waits", passes, once)
}
