//! How far the partitions are read.
//!
//! The offset after the last record is not the end of the log: marks of transactions and what was
//! aborted come after it, and a consumer is not shown them. That it is past them is known when the client
//! says that it has met the end of the log at some offset, and has nothing more for us.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::statistics::Statistics;

use super::Delivered;
use crate::watermark::{Offsets, Partition};

/// Where the partitions that are read stand.
#[derive(Debug, Default)]
pub(super) struct Positions {
    next: Offsets,
    reached: Offsets,
}

impl Positions {
    /// A partition is read from here on, or from its beginning.
    pub(super) fn begin(&mut self, partition: Partition, offset: Option<i64>) {
        self.next.insert(partition, offset.unwrap_or(0));
        self.reached.insert(partition, offset.unwrap_or(0));
    }

    /// A record was given to us.
    pub(super) fn read(&mut self, record: &Delivered) {
        let partition = (record.topic, record.partition);
        self.next.insert(partition, record.offset + 1);
        self.reach(partition, record.offset + 1);
    }

    /// The client has nothing more for us, and had met these ends before it said so.
    pub(super) fn caught_up(&mut self, ends: &Offsets) {
        for (&partition, &end) in ends {
            self.reach(partition, end);
        }
    }

    fn reach(&mut self, partition: Partition, offset: i64) {
        let reached = self.reached.entry(partition).or_default();
        *reached = offset.max(*reached);
    }

    pub(super) const fn next(&self) -> &Offsets {
        &self.next
    }

    pub(super) const fn reached(&self) -> &Offsets {
        &self.reached
    }
}

/// What a client says of itself beside the records.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// The ends that the client has met, by topic and partition.
    ends: HashMap<(String, i32), i64>,
    /// How often it has said something.
    times: u64,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the client has said something.
    pub(super) fn times(&self) -> u64 {
        self.said().times
    }

    /// The ends that the client has met so far.
    pub(super) fn take(&self, topics: &[String]) -> Offsets {
        let mut said = self.said();
        let place = |name: &String| topics.iter().position(|topic| topic == name);
        let ends = said
            .ends
            .drain()
            .filter_map(|((topic, partition), end)| place(&topic).map(|topic| ((topic, partition), end)));
        ends.collect()
    }

    fn note(&self, statistics: &Statistics) {
        let mut said = self.said();
        said.times += 1;
        for (name, topic) in &statistics.topics {
            for partition in topic.partitions.values().filter(|partition| partition.eof_offset >= 0) {
                said.ends.insert((name.clone(), partition.partition), partition.eof_offset);
            }
        }
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        self.note(&statistics);
    }
}

impl ConsumerContext for Heard {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_as_reached_only_when_nothing_is_left_before_it() {
        let mut positions = Positions::default();
        positions.begin((0, 1), None);
        positions.read(&Delivered { partition: 1, offset: 4, ..Delivered::default() });
        assert_eq!(positions.reached()[&(0, 1)], 5);
        positions.caught_up(&[((0, 1), 7)].into());
        assert_eq!((positions.next()[&(0, 1)], positions.reached()[&(0, 1)]), (5, 7));
        // An end met earlier takes nothing back.
        positions.caught_up(&[((0, 1), 6)].into());
        assert_eq!(positions.reached()[&(0, 1)], 7);
    }
}
