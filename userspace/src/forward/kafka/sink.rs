//! The sink: opens, finds out, sends, commits.

use std::ops::ControlFlow;

use rdkafka::Message;
use rdkafka::message::{Header, OwnedHeaders};
use weir_common::id::{Epoch, Incarnation, NodeId};
use weir_common::record::{BLOCK_HEADER, NODE_HEADER, ROWS_HEADER, ad_key};
use zerocopy::IntoBytes;

use super::super::batch::{Batch, BatchBlocks, Checkpoint};
use super::super::sink::{Sink, SinkError};
use super::KafkaError;
use super::checkpoint::{CheckpointValue, ClaimValue, GapValue, checkpoint_key, claim_key, gap_key};
use super::client::ClusterSettings;
use super::reader::{End, Reader};
use super::record::{self, REJECT_HEADERS, block_key, reject_headers, split_block};
use super::topics::{Takes, TopicNames, TopicSettings, ensure};
use super::transaction::{Owner, Record};
use crate::clock::system_clock;
use crate::rejects::Reject;

/// Whose batches these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node, as the operator numbers it. Its transactional id is made of it.
    pub node: NodeId,
    /// The life of its journal folder.
    pub incarnation: Incarnation,
    /// The start of the daemon.
    pub epoch: Epoch,
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
}

/// A cluster of Apache Kafka as a sink for all of a batch, or for what it takes of it.
pub struct KafkaSink {
    cluster: ClusterSettings,
    topics: TopicSettings,
    names: TopicNames,
    takes: Takes,
    identity: Identity,
    /// The claim this sink makes: drawn once, whatever is opened again.
    claim: ClaimValue,
    /// Whether the claim is in the log. From then on another one there means that it was taken.
    claimed: bool,
    owner: Option<Owner>,
    /// The checkpoint that is in the log, as far as is known.
    last: Option<Checkpoint>,
    /// The checkpoint of a batch whose commit was not answered.
    in_doubt: Option<Checkpoint>,
    /// Why this sink takes nothing any more.
    stopped: Option<String>,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink")
            .field("cluster", &self.cluster)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What the checkpoints topic says of one node.
#[derive(Debug, Default)]
struct Found {
    checkpoint: Option<Checkpoint>,
    claim: Option<ClaimValue>,
}

impl KafkaSink {
    /// A sink that is not open yet: the first [`Sink::checkpoint`] opens it.
    #[must_use]
    pub fn new(cluster: ClusterSettings, topics: TopicSettings, takes: Takes, identity: Identity) -> Self {
        let drawn = std::collections::hash_map::RandomState::new();
        let word = |of: u64| std::hash::BuildHasher::hash_one(&drawn, of);
        // Asked of the kernel: a hardened unit hides /proc/sys.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let claim = ClaimValue {
            session: format!("{:016x}{:016x}", word(0), word(1)),
            host,
            pid: std::process::id(),
            incarnation: format!("{:016x}", identity.incarnation.0),
            claimed_at_ms: system_clock().0,
        };
        Self {
            names: TopicNames::new(&topics.prefix),
            cluster,
            topics,
            takes,
            identity,
            claim,
            claimed: false,
            owner: None,
            last: None,
            in_doubt: None,
            stopped: None,
        }
    }

    /// The name under which the broker knows the node's transactions.
    #[must_use]
    pub fn transactional_id(&self) -> String {
        format!("{}node.{}", self.topics.prefix, self.identity.node.0)
    }

    /// Becomes the owner of the transactional id and learns what is in the log.
    fn open(&mut self) -> Result<(), KafkaError> {
        let id = self.transactional_id();
        let reader = Reader::new(&self.cluster, &id)?;
        ensure(&self.cluster, &reader, &self.topics, self.takes)?;
        // To fence first and look then would take the id from an owner who may keep it.
        let found = self.find(&reader, End::Visible)?;
        if self.claimed {
            self.check_claim(&found)?;
        } else {
            self.check_epoch(&found)?;
        }
        let owner = Owner::fence(&self.cluster, &id, self.topics.compression)?;
        let found = self.find(&reader, End::Settled)?;
        if self.claimed {
            self.check_claim(&found)?;
        } else {
            self.write_claim(&owner)?;
            self.claimed = true;
        }
        self.last = Some(self.settle(found.checkpoint)?);
        self.in_doubt = None;
        self.owner = Some(owner);
        Ok(())
    }

    /// What the log says, held against what this sink knows.
    fn settle(&self, found: Option<Checkpoint>) -> Result<Checkpoint, KafkaError> {
        let Some(last) = &self.last else { return Ok(found.unwrap_or_default()) };
        match found {
            Some(found) if found == *last || self.in_doubt.as_ref() == Some(&found) => Ok(found),
            // Nothing was committed before, so nothing can be missing.
            None if *last == Checkpoint::default() => Ok(Checkpoint::default()),
            None if self.in_doubt.is_none() => {
                let topic = &self.names.checkpoints;
                tracing::error!(
                    topic,
                    "this node's checkpoint is gone from Kafka; it is written anew with the next batch"
                );
                Ok(last.clone())
            }
            _ => Err(KafkaError::Foreign { topic: self.names.checkpoints.clone() }),
        }
    }

    fn find(&self, reader: &Reader, end: End) -> Result<Found, KafkaError> {
        let Identity { node, incarnation, .. } = self.identity;
        let (checkpoint, claim) = (checkpoint_key(node, incarnation), claim_key(node));
        let mut found = Found::default();
        let topic = &self.names.checkpoints;
        reader.read(topic, end, |message| {
            let (Some(key), Some(value)) = (message.key(), message.payload()) else {
                return Ok(ControlFlow::Continue(()));
            };
            let unreadable = |error: serde_json::Error| KafkaError::Record {
                topic: topic.clone(),
                why: format!("{}: {error}", String::from_utf8_lossy(key)),
            };
            if key == checkpoint.as_bytes() {
                let value: CheckpointValue = serde_json::from_slice(value).map_err(unreadable)?;
                found.checkpoint = Some(value.checkpoint());
            } else if key == claim.as_bytes() {
                found.claim = Some(serde_json::from_slice(value).map_err(unreadable)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn check_claim(&self, found: &Found) -> Result<(), KafkaError> {
        match &found.claim {
            Some(other) if other.session != self.claim.session => Err(KafkaError::Claimed {
                id: self.transactional_id(),
                since: format!("{} s ago", system_clock().0.saturating_sub(other.claimed_at_ms) / 1000),
                owner: format!("process {} on host {}", other.pid, other.host),
            }),
            _ => Ok(()),
        }
    }

    /// A journal that is behind the log is a copy of one that went on.
    fn check_epoch(&self, found: &Found) -> Result<(), KafkaError> {
        let last = found.checkpoint.as_ref().and_then(|found| found.positions.last_key_value());
        match last {
            Some((&(epoch, _), _)) if epoch >= self.identity.epoch => {
                Err(KafkaError::Behind { kafka: epoch.0, journal: self.identity.epoch.0 })
            }
            _ => Ok(()),
        }
    }

    fn write_claim(&self, owner: &Owner) -> Result<(), KafkaError> {
        owner.begin()?;
        let key = claim_key(self.identity.node);
        self.send_json(owner, &key, &self.claim)?;
        owner.flush()?;
        owner.commit()
    }

    fn send_json(&self, owner: &Owner, key: &str, value: &impl serde::Serialize) -> Result<(), KafkaError> {
        let topic = &self.names.checkpoints;
        let value = serde_json::to_vec(value)
            .map_err(|error| KafkaError::Record { topic: topic.clone(), why: error.to_string() })?;
        owner.send(Record { topic, key: key.as_bytes(), value: &value, headers: None })
    }

    fn transact(&self, owner: &Owner, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        owner.begin().map_err(sink_error)?;
        while let Some(block) = blocks.next_block()? {
            self.send_block(owner, block)?;
        }
        for bucket in &batch.buckets {
            let value = record::bucket(batch.node, batch.incarnation, batch.flush, bucket);
            let key = ad_key(bucket.key.ad.get());
            let record =
                Record { topic: &self.names.buckets, key: &key, value: value.as_bytes(), headers: None };
            owner.send(record).map_err(sink_error)?;
        }
        self.send_uniques(owner, batch).map_err(sink_error)?;
        for reject in &batch.rejects {
            self.send_reject(owner, batch, reject)?;
        }
        for gap in &batch.gaps {
            let key = gap_key(batch.node, batch.incarnation, gap);
            let value = GapValue { first: gap.first.0, last: gap.last.0 };
            self.send_json(owner, &key, &value).map_err(sink_error)?;
        }
        let Identity { region, pop, .. } = &self.identity;
        let of = (batch.node, batch.incarnation);
        let value = CheckpointValue::new(of, (region, pop), &batch.checkpoint, batch.counted_until);
        let key = checkpoint_key(batch.node, batch.incarnation);
        self.send_json(owner, &key, &value).map_err(sink_error)?;
        owner.flush().map_err(sink_error)
    }

    fn send_uniques(&self, owner: &Owner, batch: &Batch) -> Result<(), KafkaError> {
        let Batch { node, incarnation, flush, uniques, .. } = batch;
        let topic = &self.names.uniques;
        for sketch in &uniques.sketches {
            let value = record::sketch(*node, *incarnation, *flush, sketch);
            owner.send(Record { topic, key: &ad_key(sketch.ad), value: &value, headers: None })?;
        }
        for minute in &uniques.unsketched {
            let value = record::unsketched(*node, *incarnation, *flush, minute);
            owner.send(Record { topic, key: &ad_key(0), value: &value, headers: None })?;
        }
        Ok(())
    }

    fn send_block(&self, owner: &Owner, block: &[u8]) -> Result<(), SinkError> {
        let Some((header, rows)) = split_block(block) else {
            return Err(SinkError::Fatal("a block is shorter than its header: this is a defect".to_owned()));
        };
        let (node, count) = (header.node.get().to_string(), header.rows.get().to_string());
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: BLOCK_HEADER, value: Some(header.as_bytes()) })
            .insert(Header { key: NODE_HEADER, value: Some(&node) })
            .insert(Header { key: ROWS_HEADER, value: Some(&count) });
        let key = block_key(header);
        let topic = &self.names.clicks;
        owner
            .send(Record { topic, key: key.as_bytes(), value: rows, headers: Some(headers) })
            .map_err(sink_error)
    }

    fn send_reject(&self, owner: &Owner, batch: &Batch, reject: &Reject) -> Result<(), SinkError> {
        let values = reject_headers(batch.node, reject);
        let headers = OwnedHeaders::new_with_capacity(REJECT_HEADERS.len());
        let headers = REJECT_HEADERS
            .iter()
            .zip(&values)
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let (topic, key) = (&self.names.rejects, reject.key(batch.incarnation));
        owner
            .send(Record { topic, key: key.as_bytes(), value: &reject.bytes, headers: Some(headers) })
            .map_err(sink_error)
    }

    /// Keeps an error that no later attempt can undo.
    fn told(&mut self, error: KafkaError) -> SinkError {
        let error = sink_error(error);
        if let SinkError::Fatal(why) = &error {
            self.stopped = Some(why.clone());
        }
        error
    }
}

fn sink_error(error: KafkaError) -> SinkError {
    if error.may_pass() { SinkError::Retry(error.to_string()) } else { SinkError::Fatal(error.to_string()) }
}

impl Sink for KafkaSink {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        if let Some(why) = &self.stopped {
            return Err(SinkError::Fatal(why.clone()));
        }
        if self.owner.is_none()
            && let Err(error) = self.open()
        {
            return Err(self.told(error));
        }
        Ok(self.last.clone().unwrap_or_default())
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        if self.checkpoint()? == batch.checkpoint {
            // Its answer was lost, and the log says that it is there.
            return Ok(());
        }
        // Kept only when all went well: after anything else the log is asked.
        let Some(owner) = self.owner.take() else {
            return Err(SinkError::Retry("Kafka is not open".to_owned()));
        };
        self.transact(&owner, batch, blocks)?;
        self.in_doubt = Some(batch.checkpoint.clone());
        owner.commit().map_err(sink_error)?;
        self.in_doubt = None;
        self.last = Some(batch.checkpoint.clone());
        self.owner = Some(owner);
        Ok(())
    }
}
