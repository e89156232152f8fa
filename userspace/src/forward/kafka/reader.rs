//! Reads topics to their end, without a group and without committing offsets.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::KafkaError;
use super::client::{
    ClusterSettings, Context, Isolation, REQUEST_TIMEOUT, Said, TRANSACTION_TIMEOUT, create,
};

/// How long a reader waits for transactions of others that hide the end of a topic: the broker
/// ends one by itself after this.
const HIDDEN_MAX: Duration = TRANSACTION_TIMEOUT.saturating_add(Duration::from_secs(15));
/// How long a topic may give nothing before its reader gives up.
const SILENT_MAX: Duration = Duration::from_secs(20);
/// From one look at the end of the visible part to the next.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// More words of a client than come of one request that failed.
const EVENTS_MAX: usize = 64;
const POLL: Duration = Duration::from_millis(100);

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the end as it is now, when all transactions before it are over.
    Settled,
    /// At what can be seen now, which may hide what was committed after an open transaction.
    Visible,
}

/// Reads topics of one cluster with `read_committed`.
pub struct Reader {
    settings: ClusterSettings,
    committed: BaseConsumer<Context>,
    /// Sees the true end: the other one is told the end of what is visible.
    uncommitted: BaseConsumer<Context>,
    said: Said,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("brokers", &self.settings.brokers).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader; connects when it is used.
    ///
    /// # Errors
    /// When the settings do not make a client.
    pub fn new(settings: &ClusterSettings, client_id: &str) -> Result<Self, KafkaError> {
        let context = Context::default();
        let said = context.said.clone();
        let consumer = |isolation| create(&settings.consumer(client_id, isolation), context.clone());
        Ok(Self {
            settings: settings.clone(),
            committed: consumer(Isolation::Committed)?,
            uncommitted: consumer(Isolation::Uncommitted)?,
            said,
        })
    }

    fn away(&self, what: &'static str, error: &dyn std::fmt::Display) -> KafkaError {
        self.settings.away(what, error, &self.said)
    }

    /// The broker that answered, and how many the cluster has. Asks for no topic, so none is made.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn brokers(&self) -> Result<(String, usize), KafkaError> {
        let metadata = self.committed.fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| {
            self.hear();
            self.away("say which brokers it has", &error)
        })?;
        Ok((metadata.orig_broker_name().to_owned(), metadata.brokers().len()))
    }

    /// Why no broker answers waits in the queue, one word a call.
    fn hear(&self) {
        for _ in 0..EVENTS_MAX {
            let _ = self.committed.poll(Duration::ZERO);
        }
    }

    /// The number of partitions of a topic; 0 when there is no such topic.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<usize, KafkaError> {
        let metadata = self.committed.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| {
            self.hear();
            self.away("describe its topics", &error)
        })?;
        Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
    }

    /// Calls `each` with every committed record of a topic, partition by partition in order, until
    /// it breaks off.
    ///
    /// # Errors
    /// When the topic is not there or cannot be read to its end; or what `each` returns.
    pub fn read(
        &self,
        topic: &str,
        end: End,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, KafkaError>,
    ) -> Result<(), KafkaError> {
        let partitions = self.partitions(topic)?;
        if partitions == 0 {
            let problem = "is not there".to_owned();
            return Err(KafkaError::Topic { topic: topic.to_owned(), problem });
        }
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions as i32 {
            if self.has_records(topic, partition, end)? {
                let added = assignment.add_partition_offset(topic, partition, Offset::Beginning);
                added.map_err(|error| self.away("give a partition", &error))?;
            }
        }
        let read = self.to_the_end(&assignment, &mut each);
        // What was fetched ahead belongs to this reading alone.
        let _ = self.committed.unassign();
        read
    }

    /// Whether there is anything to read in a partition; waits until what is to be read is visible.
    fn has_records(&self, topic: &str, partition: i32, end: End) -> Result<bool, KafkaError> {
        let watermarks = |consumer| self.watermarks(consumer, topic, partition);
        let high = watermarks(&self.uncommitted)?.1;
        let deadline = Instant::now() + HIDDEN_MAX;
        loop {
            let (low, visible) = watermarks(&self.committed)?;
            if visible >= high || end == End::Visible {
                return Ok(visible > low);
            }
            if Instant::now() >= deadline {
                return Err(self.away("end an open transaction in time", &topic));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Where a partition begins and ends for this consumer. A topic that was made just now may be
    /// without a leader for a moment.
    fn watermarks(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: &str,
        partition: i32,
    ) -> Result<(i64, i64), KafkaError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT) {
                Ok(found) => return Ok(found),
                Err(error) if is_passing(&error) && Instant::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(self.away("say where a topic ends", &error)),
            }
        }
    }

    fn to_the_end(
        &self,
        assignment: &TopicPartitionList,
        each: &mut impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, KafkaError>,
    ) -> Result<(), KafkaError> {
        let mut left = assignment.count();
        if left == 0 {
            return Ok(());
        }
        self.committed.assign(assignment).map_err(|error| self.away("give a partition", &error))?;
        let mut deadline = Instant::now() + SILENT_MAX;
        while left > 0 {
            match self.committed.poll(POLL) {
                Some(Ok(message)) if each(&message)?.is_break() => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(ClientError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(self.away("let a topic be read", &error)),
                None if Instant::now() >= deadline => {
                    return Err(self.away("send a topic's records", &"no answer in time"));
                }
                None => continue,
            }
            deadline = Instant::now() + SILENT_MAX;
        }
        Ok(())
    }
}

/// What librdkafka reports and gets over by itself.
fn is_passing(error: &ClientError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
        )
    )
}
