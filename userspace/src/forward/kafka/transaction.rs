//! The producer that owns the transactional id, and one transaction at a time.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::KafkaError;
use super::client::{ClusterSettings, Context, MESSAGE_TIMEOUT, Said, create};
use super::topics::Compression;

/// How long fencing may take: the broker ends an open transaction of ours meanwhile.
const FENCE_MAX: Duration = Duration::from_secs(30);
/// How long the end of a transaction may take when all its records are written.
const COMMIT_MAX: Duration = Duration::from_secs(20);
/// Longer than a record may be on its way, so that the record that failed is what is said.
const FLUSH_MAX: Duration = MESSAGE_TIMEOUT.saturating_add(Duration::from_secs(2));
/// From one look for room in the queue to the next.
const ROOM: Duration = Duration::from_millis(50);

/// One record on its way.
#[derive(Clone, Debug)]
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) headers: Option<OwnedHeaders>,
}

/// A producer after it fenced its older self. Thrown away after any error: what is in the log is
/// then found out by reading.
pub(super) struct Owner {
    settings: ClusterSettings,
    producer: BaseProducer<Context>,
    said: Said,
}

impl Owner {
    /// Takes the transactional id: whoever held it can commit nothing any more, and what it left
    /// open is settled when this returns.
    pub(super) fn fence(
        settings: &ClusterSettings,
        transactional_id: &str,
        compression: Compression,
    ) -> Result<Self, KafkaError> {
        let context = Context::default();
        let said = context.said.clone();
        let producer: BaseProducer<Context> =
            create(&settings.producer(transactional_id, compression), context)?;
        let owner = Self { settings: settings.clone(), producer, said };
        owner.producer.init_transactions(FENCE_MAX).map_err(|error| {
            // The connection's own words wait in the queue.
            owner.producer.poll(Duration::ZERO);
            owner.away("give the transactional id", &error)
        })?;
        Ok(owner)
    }

    fn away(&self, what: &'static str, error: &dyn std::fmt::Display) -> KafkaError {
        self.settings.away(what, error, &self.said)
    }

    pub(super) fn begin(&self) -> Result<(), KafkaError> {
        self.producer.begin_transaction().map_err(|error| self.away("begin a transaction", &error))
    }

    /// Hands a record over; waits while the queue is full.
    pub(super) fn send(&self, record: Record<'_>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + MESSAGE_TIMEOUT;
        let mut next: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(record.topic).key(record.key).payload(record.value);
        if let Some(headers) = record.headers {
            next = next.headers(headers);
        }
        loop {
            let Err((error, back)) = self.producer.send(next) else { break };
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() >= deadline {
                return Err(self.why("take a record", &error));
            }
            next = back;
            self.producer.poll(ROOM);
            self.refusal()?;
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until all records are written. After an error the transaction is not in the log, and
    /// never will be.
    pub(super) fn flush(&self) -> Result<(), KafkaError> {
        self.producer.flush(FLUSH_MAX).map_err(|error| self.why("write a batch in time", &error))?;
        self.refusal()
    }

    /// Commits what was flushed. After an error it is not known whether it is in the log.
    pub(super) fn commit(&self) -> Result<(), KafkaError> {
        self.producer.commit_transaction(COMMIT_MAX).map_err(|error| self.why("commit a transaction", &error))
    }

    /// The error when a record was refused.
    fn refusal(&self) -> Result<(), KafkaError> {
        match self.said.take_refused() {
            None => Ok(()),
            Some(refused) => Err(self.away("take a batch", &refused)),
        }
    }

    fn why(&self, what: &'static str, error: &ClientError) -> KafkaError {
        self.producer.poll(Duration::ZERO);
        let refused = self.said.take_refused();
        let fatal = self.producer.client().fatal_error().map(|(_, words)| words);
        match refused.or(fatal) {
            Some(words) => self.away(what, &words),
            None => self.away(what, error),
        }
    }
}
