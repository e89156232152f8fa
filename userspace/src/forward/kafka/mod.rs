//! The Kafka sink: one transaction a batch, so that the log itself holds every batch once.
//!
//! A transaction has the batch's blocks (`clicks.v1`), its changed buckets (`buckets.v1`), the
//! sketches of minutes that became final (`uniques.v1`) and its checkpoint (`checkpoints.v1`), under a transactional id that belongs to the node. Opening the
//! sink fences whoever held that id before, waits until what it left open is settled, and reads
//! the checkpoint with `read_committed`; forwarding goes on after it.
//!
//! Whatever goes wrong in a transaction is answered in one way: throw the client away, open
//! again, read the checkpoint. It says whether the batch is in the log, whichever answer was
//! lost, so a batch is never sent on a guess. Only one thing is not retried: when another owner
//! has claimed the transactional id, this one stops for good and says so, or two nodes of one
//! identity would take the id from each other for ever.
//!
//! Everything here blocks, on the forwarder's own thread; the journal is the buffer and
//! librdkafka's queue is bounded. Start reading at [`KafkaSink`], for the bytes at [`record`].

pub mod checkpoint;
pub mod client;
pub mod command;
pub mod reader;
pub mod record;
mod sink;
pub mod topics;
mod transaction;

pub use client::{ClusterSettings, PART_BYTES_MAX, Sasl, SaslMechanism, Tls};
pub use sink::{Identity, KafkaSink};
pub use topics::{Compression, Takes, TopicNames, TopicSettings};

/// Why Kafka did not do what it was asked.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum KafkaError {
    /// the settings do not make a Kafka client: {0}
    Client(String),
    /// Kafka at {brokers} did not {what}: {why}
    Away {
        /// The bootstrap servers.
        brokers: String,
        /// What was asked for.
        what: &'static str,
        /// The client's last word.
        why: String,
    },
    /// topic {topic}: {problem}
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// {id} belongs to another owner since {since}: {owner}; this node forwards no more, so that nothing is sent twice. Stop one of the two, give it a `node.id` of its own and an empty data folder, then start it again
    Claimed {
        /// The transactional id.
        id: String,
        /// When it was claimed.
        since: String,
        /// Host and process that claimed it.
        owner: String,
    },
    /// Kafka holds blocks of epoch {kafka}, but this journal is only at epoch {journal}; the folder is a copy or was restored from one, so start with an empty folder instead
    Behind {
        /// What Kafka knows.
        kafka: u32,
        /// Where the journal is.
        journal: u32,
    },
    /// a record of {topic} cannot be read: {why}
    Record {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// the checkpoint in {topic} is neither this node's last one nor that of the batch it sent; another process writes there under this node's identity
    Foreign {
        /// The topic.
        topic: String,
    },
}

impl KafkaError {
    /// Whether the same may succeed later, with nothing done on this node.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Topic { .. })
    }
}
