//! One run of the inserting thread: reads from where ClickHouse is, inserts, and settles now and then.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir_common::id::NodeId;
use weir_common::record::topic;
use weir_common::time::Minute;

use super::ClickhouseError;
use super::batch::Batch;
use super::client::Client;
use super::progress::{self, Progress};
use super::windows::{self, Stretches};
use crate::kafka::{ClusterSettings, Delivered, Ends, Source};
use crate::record::{self, Life, Word};
use crate::watermark::{NodeState, Watermarks};

/// Records of one insert: few inserts of many rows are what ClickHouse merges best, and 18 MB are no burden.
const INSERT_ROWS_MAX: usize = 100_000;
/// Octets of the records of one poll, where checkpoints come.
const POLL_BYTES_MAX: usize = 32 << 20;
/// How long to wait for a first record.
const POLL: Duration = Duration::from_millis(100);
/// How long a record waits for others before it is inserted: each insert makes a part.
const INSERT_EVERY: Duration = Duration::from_secs(1);
/// How often windows are built and positions written, while something comes. A crash reads so much again.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
/// Days that changed after they were closed, beyond which it is not waited for more: bounds what is kept in mind.
const STRETCHES_MAX: usize = 1000;

/// Which topic a record is of, by its place in the list.
const BUCKETS: usize = 0;

/// Brings what nodes say from Kafka into ClickHouse.
pub(super) struct Sink<'a> {
    client: &'a Client<'a>,
    source: Source,
    ends: Ends,
    marks: Watermarks,
    retired: Vec<NodeId>,
    batch: Batch,
    began: Option<Instant>,
    /// Windows that end before it are built.
    closed: Minute,
    /// Closed minutes that changed since.
    changed: Stretches,
    /// Lives whose rows are not as they are known.
    lives: BTreeSet<Life>,
    is_settled: bool,
    settle_at: Instant,
}

impl<'a> Sink<'a> {
    /// Goes on where ClickHouse is.
    pub(super) fn open(
        client: &'a Client<'a>,
        (cluster, prefix): (&ClusterSettings, &str),
        retired: &[NodeId],
    ) -> Result<Self, ClickhouseError> {
        let topics = [topic::BUCKETS, topic::CHECKPOINTS].map(|name| format!("{prefix}{name}"));
        let Progress { positions, closed, nodes } = Progress::read(client)?;
        let source = Source::open(cluster, &topics, |topic, partition| {
            Ok::<_, ClickhouseError>(positions.get(&(topic.to_owned(), partition)).copied())
        })?;
        let ends = Ends::of(cluster, &topics)?;
        Ok(Self {
            client,
            source,
            ends,
            lives: nodes.keys().copied().collect(), // who is retired may stand otherwise in the config now
            marks: Watermarks::of(nodes),
            retired: retired.to_vec(),
            batch: Batch::default(),
            began: None,
            closed,
            changed: Stretches::default(),
            is_settled: true,
            settle_at: Instant::now(),
        })
    }

    /// Reads and inserts until told to stop. What was not settled then is read again by the next run.
    pub(super) fn run(mut self) -> Result<(), ClickhouseError> {
        while !self.client.is_stopped() {
            let records = self.source.poll((INSERT_ROWS_MAX, POLL_BYTES_MAX), POLL)?;
            records.iter().for_each(|record| self.take(record));
            let is_old = self.began.is_some_and(|began| began.elapsed() >= INSERT_EVERY);
            if is_old || self.batch.count() >= INSERT_ROWS_MAX as u64 {
                self.insert()?;
            }
            if self.batch.count() == 0 {
                self.look_for_ends();
            }
            let is_due = Instant::now() >= self.settle_at && (!self.is_settled || !self.lives.is_empty());
            if is_due || self.changed.days() >= STRETCHES_MAX {
                self.insert()?;
                self.settle()?;
            }
        }
        Ok(())
    }

    /// Takes a record. What nobody can read is left out: the merging thread counts it and says so.
    fn take(&mut self, record: &Delivered) {
        self.is_settled = false;
        if record.topic == BUCKETS {
            self.began.get_or_insert_with(Instant::now);
            let _ = self.batch.take(record);
        } else if let Ok(Word::Told { life, told }) =
            record::checkpoint(&record.key, &record.value, record.appended_at)
        {
            self.marks.tell(life, told);
            self.lives.insert(life);
        }
    }

    fn insert(&mut self) -> Result<(), ClickhouseError> {
        self.began = None;
        let batch = std::mem::take(&mut self.batch);
        if batch.count() == 0 {
            return Ok(());
        }
        let changed = batch.minutes().iter().filter(|minute| **minute < self.closed);
        changed.for_each(|minute| self.changed.touch(*minute));
        let count = batch.count();
        batch.insert(self.client, &self.source.topics()[BUCKETS])?;
        self.client.counters().rows.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Learns where the partitions end, once something was told since, and what is true when they are read so far.
    fn look_for_ends(&mut self) {
        if let Some(ends) = self.ends.answer() {
            self.marks.ends(ends);
        }
        if self.marks.asks() {
            let partitions = self.source.offsets().keys().filter(|(topic, _)| *topic == BUCKETS);
            self.ends.ask(partitions.copied());
        }
        self.lives.extend(self.marks.read_to(self.source.read_to()));
    }

    /// Builds the windows that were closed or changed, and then says how far all is. In this order: what is said
    /// last is what is not done again.
    fn settle(&mut self) -> Result<(), ClickhouseError> {
        let progress = self.marks.progress(&self.retired);
        let until = progress.final_before().unwrap_or(Minute(0)).max(self.closed);
        // Rises with the log: of two builds of one window the one that has read more is the truth.
        let built = self.source.offsets().values().sum::<i64>().cast_unsigned();
        let mut stretches = std::mem::take(&mut self.changed);
        stretches.close_all(self.closed, until, self.days_between(until)?);
        for build in windows::builds(&stretches, until) {
            let settings = [("insert_deduplicate", "0")];
            self.client.ask(build.statement(self.client.database(), built), &settings)?;
            self.client.counters().builds.fetch_add(1, Ordering::Relaxed);
        }
        let state = |life: &Life| (*life, self.marks.nodes().get(life).cloned().unwrap_or_default());
        let nodes: Vec<(Life, NodeState)> = self.lives.iter().map(state).collect();
        progress::write_nodes(self.client, nodes, (&self.retired, built))?;
        if until > self.closed {
            progress::write_closed(self.client, until)?;
            self.closed = until;
        }
        progress::write_positions(self.client, self.source.topics(), self.source.offsets())?;
        self.lives.clear();
        self.is_settled = true;
        self.settle_at = Instant::now() + SETTLE_EVERY;
        if let Some(time) = progress.counted_until() {
            self.client.counters().counted_until_ms.store(time.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The days between what is closed and what is to be; where those are many, only such that have buckets.
    fn days_between(&self, until: Minute) -> Result<Vec<u32>, ClickhouseError> {
        let (first, last) = (self.closed.0 / windows::DAY, until.0 / windows::DAY);
        if last - first > 1 {
            return progress::days(self.client, self.closed, until);
        }
        Ok((first..=last).collect())
    }
}
