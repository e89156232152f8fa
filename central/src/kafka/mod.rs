//! The consumer: reads topics with `read_committed` from where the store is, and says how far it has
//! read and how far there is to read.
//!
//! It joins no group and commits no offsets to the broker: how far the store is stands in the store, and
//! changes with what was read. So nothing is read twice after a crash, and nothing left out.

mod ends;
mod position;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, Timestamp};
use weir_common::time::UnixMs;

use crate::watermark::{Offsets, Partition};
pub use ends::Ends;
use position::{Heard, Positions};

/// How long a broker may take to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the client says how far it is: an answer is no fresher than that.
const STATISTICS_EVERY: Duration = Duration::from_millis(500);
/// How often the number of partitions is looked at: rarely more than once in the life of a cluster does
/// it change, and a new partition's records wait for this long at the most.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// What the client may hold for us, of all partitions together.
const QUEUED_KBYTES_MAX: &str = "32768";

/// Why topics cannot be read.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum KafkaError {
    /// the settings make no Kafka client: {0}; look at [kafka]
    Settings(String),
    /// Kafka at {brokers} does not answer: {why}; it is asked again
    Away {
        /// `bootstrap.servers`.
        brokers: String,
        /// What the client says.
        why: String,
    },
    /// the topic {0} is not there; the nodes make it when they first forward, or look at kafka.topic_prefix
    NoTopic(String),
    /// a partition of {0} begins after what is in the store, or was made anew: records are missing, so start with an empty data folder, and reconcile what Kafka no longer has from the archive
    Trimmed(String),
}

impl KafkaError {
    /// Whether the same may work later.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::NoTopic(_))
    }
}

/// How to reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `host:port` of some of its brokers.
    pub brokers: Vec<String>,
    /// What the client is told beside what this module tells it, by librdkafka's names: TLS and log-in.
    pub properties: BTreeMap<String, String>,
}

impl ClusterSettings {
    /// What librdkafka is given as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.brokers.join(",")
    }

    fn consumer<C>(&self, isolation: &str, context: C) -> Result<BaseConsumer<C>, KafkaError>
    where
        C: rdkafka::consumer::ConsumerContext + 'static,
        BaseConsumer<C>: FromClientConfigAndContext<C>,
    {
        let mut config = ClientConfig::new();
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", self.bootstrap()).set("client.id", "weir-central");
        // librdkafka wants a name here, whether it is used or not.
        config.set("group.id", "weir-central").set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("auto.offset.reset", "error");
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        config.set("fetch.wait.max.ms", "100").set("check.crcs", "true");
        config.set("queued.max.messages.kbytes", QUEUED_KBYTES_MAX);
        config.set("socket.timeout.ms", REQUEST_TIMEOUT.as_millis().to_string());
        config.set("socket.keepalive.enable", "true").set("log.connection.close", "false");
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("statistics.interval.ms", STATISTICS_EVERY.as_millis().to_string());
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.create_with_context(context).map_err(|error| KafkaError::Settings(error.to_string()))
    }

    fn away(&self, error: &dyn std::fmt::Display) -> KafkaError {
        KafkaError::Away { brokers: self.bootstrap(), why: error.to_string() }
    }
}

/// A record as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Its topic, by its place in the list of those that are read.
    pub topic: usize,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the broker took it, by its clock.
    pub appended_at: UnixMs,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Delivered {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// Reads some topics of one cluster.
pub struct Source {
    settings: ClusterSettings,
    topics: Vec<String>,
    consumer: BaseConsumer<Heard>,
    heard: Heard,
    positions: Positions,
    look_at: Instant,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Source {
    /// Begins to read these topics, each partition where `from` says, or at its beginning.
    ///
    /// # Errors
    /// When a topic is not there, or no broker answers.
    pub fn open<E: From<KafkaError>>(
        settings: &ClusterSettings,
        topics: &[String],
        from: impl Fn(&str, i32) -> Result<Option<i64>, E>,
    ) -> Result<Self, E> {
        let heard = Heard::default();
        let consumer = settings.consumer("read_committed", heard.clone())?;
        let mut source = Self {
            settings: settings.clone(),
            topics: topics.to_vec(),
            consumer,
            heard,
            positions: Positions::default(),
            look_at: Instant::now() + PARTITIONS_EVERY,
        };
        for partition in source.partitions()? {
            let offset = from(&topics[partition.0], partition.1)?;
            source.positions.begin(partition, offset);
        }
        source.assign()?;
        Ok(source)
    }

    /// The names of the topics.
    #[must_use]
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    fn partitions(&self) -> Result<Vec<Partition>, KafkaError> {
        let mut partitions = Vec::new();
        for (index, topic) in self.topics.iter().enumerate() {
            let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
            let metadata = metadata.map_err(|error| self.settings.away(&error))?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if count == 0 {
                return Err(KafkaError::NoTopic(topic.clone()));
            }
            partitions.extend((0..count as i32).map(|partition| (index, partition)));
        }
        Ok(partitions)
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (&(topic, partition), &next) in self.positions.next() {
            let offset = if next == 0 { Offset::Beginning } else { Offset::Offset(next) };
            let added = list.add_partition_offset(&self.topics[topic], partition, offset);
            added.map_err(|error| self.settings.away(&error))?;
        }
        self.consumer.assign(&list).map_err(|error| self.settings.away(&error))
    }

    /// Looks now and then whether there are more partitions than are read.
    fn look_for_partitions(&mut self) -> Result<(), KafkaError> {
        if Instant::now() < self.look_at {
            return Ok(());
        }
        self.look_at = Instant::now() + PARTITIONS_EVERY;
        let Ok(partitions) = self.partitions() else { return Ok(()) }; // what is read goes on
        let is_new = |partition: &Partition| !self.positions.next().contains_key(partition);
        let new: Vec<_> = partitions.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        new.into_iter().for_each(|partition| self.positions.begin(partition, None));
        self.assign()
    }

    /// The records that come within `wait`, up to these many records or octets; fewer, as soon as there
    /// are none left to wait for.
    ///
    /// # Errors
    /// When records are missing from the log, or the client gives up. What it gets over by itself is
    /// only logged.
    pub fn poll(
        &mut self,
        (records_max, bytes_max): (usize, usize),
        wait: Duration,
    ) -> Result<Vec<Delivered>, KafkaError> {
        self.look_for_partitions()?;
        let (mut records, mut bytes, mut wait) = (Vec::new(), 0, wait);
        while records.len() < records_max && bytes < bytes_max {
            let heard = self.heard.times();
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let delivered = delivered(&self.topics, &message);
                    bytes += delivered.key.len() + delivered.value.len();
                    self.positions.read(&delivered);
                    records.push(delivered);
                }
                Some(Err(ClientError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.judge(&error)?,
                None => {
                    // With a word about itself in between, the client may not have looked for records.
                    if heard == self.heard.times() {
                        self.positions.caught_up(&self.heard.take(&self.topics));
                    }
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        Ok(records)
    }

    fn judge(&self, error: &ClientError) -> Result<(), KafkaError> {
        if matches!(error.rdkafka_error_code(), Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) {
            return Err(KafkaError::Trimmed(self.topics.join(", ")));
        }
        tracing::debug!(%error, "reading");
        Ok(())
    }

    /// The offsets of the first records that were not read yet: what a store is to keep.
    #[must_use]
    pub const fn offsets(&self) -> &Offsets {
        self.positions.next()
    }

    /// How far everything is read, transactions that were aborted and their marks included.
    #[must_use]
    pub const fn read_to(&self) -> &Offsets {
        self.positions.reached()
    }
}

fn delivered(topics: &[String], message: &rdkafka::message::BorrowedMessage<'_>) -> Delivered {
    let topic = topics.iter().position(|topic| topic == message.topic()).unwrap_or_default();
    let appended_at = match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => UnixMs(ms.max(0) as u64),
        Timestamp::NotAvailable => UnixMs(0),
    };
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Delivered {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        appended_at,
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect(),
    }
}
