//! What `checkpoints.v1` holds: how far each node is, who owns its transactional id, and which
//! blocks are known to be lost. JSON, so that any tool can show it; compacted by key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};
use weir_common::time::{Minute, UnixMs};

use super::super::batch::{Checkpoint, FlushNo, Gap};
use crate::journal::{Position, SegmentNo};

/// The key of a node's checkpoint for one life of its journal.
#[must_use]
pub fn checkpoint_key(node: NodeId, incarnation: Incarnation) -> String {
    format!("checkpoint:{}:{:016x}", node.0, incarnation.0)
}

/// The key of the claim to a node's transactional id.
#[must_use]
pub fn claim_key(node: NodeId) -> String {
    format!("claim:{}", node.0)
}

/// The key of a gap.
#[must_use]
pub fn gap_key(node: NodeId, incarnation: Incarnation, gap: &Gap) -> String {
    format!("gap:{}:{:016x}:{}:{}:{}", node.0, incarnation.0, gap.epoch.0, gap.worker.0, gap.first.0)
}

/// The value of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointValue {
    /// The node, as the operator numbers it.
    pub node: u32,
    /// The life of its journal folder, in hex.
    pub incarnation: String,
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
    /// The last flush.
    pub flush: u64,
    /// Buckets of minutes before this one are final.
    pub final_before: u32,
    /// How far each worker's stream of blocks is.
    pub streams: Vec<StreamValue>,
    /// How far the buckets in the log count each stream. Behind `streams` when the last
    /// transaction was a part of a flush that is not its last.
    pub counted: Vec<StreamValue>,
    /// The node's time before which every acknowledged click is in the buckets in the log, in ms
    /// since the Unix epoch; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_until_ms: Option<u64>,
}

/// How far one stream is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamValue {
    /// The start of the daemon.
    pub epoch: u32,
    /// The worker.
    pub worker: u16,
    /// Its last block in the log.
    pub last: u64,
    /// The segment that block stands in.
    pub segment: u32,
    /// Where it ends there.
    pub offset: u64,
}

impl StreamValue {
    fn of_all(positions: &BTreeMap<(Epoch, WorkerId), Position>) -> Vec<Self> {
        let value = |(&(epoch, worker), position): (&(Epoch, WorkerId), &Position)| Self {
            epoch: epoch.0,
            worker: worker.0,
            last: position.last.0,
            segment: position.segment.0,
            offset: position.offset,
        };
        positions.iter().map(value).collect()
    }

    const fn position(&self) -> ((Epoch, WorkerId), Position) {
        let position =
            Position { last: BlockSeq(self.last), segment: SegmentNo(self.segment), offset: self.offset };
        ((Epoch(self.epoch), WorkerId(self.worker)), position)
    }
}

impl CheckpointValue {
    /// The value for a checkpoint.
    #[must_use]
    pub fn new(
        (node, incarnation): (NodeId, Incarnation),
        (region, pop): (&str, &str),
        checkpoint: &Checkpoint,
        counted_until: Option<UnixMs>,
    ) -> Self {
        Self {
            node: node.0,
            incarnation: format!("{:016x}", incarnation.0),
            region: region.to_owned(),
            pop: pop.to_owned(),
            flush: checkpoint.flush.0,
            final_before: checkpoint.final_before.0,
            streams: StreamValue::of_all(&checkpoint.positions),
            counted: StreamValue::of_all(&checkpoint.counted),
            counted_until_ms: counted_until.map(|time| time.0),
        }
    }

    /// The checkpoint it stands for.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            flush: FlushNo(self.flush),
            final_before: Minute(self.final_before),
            positions: self.streams.iter().map(StreamValue::position).collect(),
            counted: self.counted.iter().map(StreamValue::position).collect(),
        }
    }
}

/// The value of a claim: who forwards under a node's transactional id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimValue {
    /// Drawn at each start of a daemon.
    pub session: String,
    /// The machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// The life of its journal folder, in hex.
    pub incarnation: String,
    /// When, in ms since the Unix epoch, by that machine's clock.
    pub claimed_at_ms: u64,
}

/// The value of a gap: blocks that are gone and will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapValue {
    /// The first of them.
    pub first: u64,
    /// The last.
    pub last: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_from_its_json() {
        let position = Position { last: BlockSeq(9), segment: SegmentNo(2), offset: 4096 };
        let checkpoint = Checkpoint {
            flush: FlushNo(7),
            final_before: Minute(29_000_000),
            positions: [((Epoch(1), WorkerId(0)), position), ((Epoch(2), WorkerId(3)), position)].into(),
            counted: [((Epoch(1), WorkerId(0)), Position { last: BlockSeq(4), ..position })].into(),
        };
        let of = (NodeId(1), Incarnation(0xfeed));
        let value = CheckpointValue::new(of, ("eu", "waw"), &checkpoint, Some(UnixMs(1_740_000_000_000)));
        let json = serde_json::to_string(&value).unwrap();
        let read: CheckpointValue = serde_json::from_str(&json).unwrap();
        assert_eq!((read.checkpoint(), &read), (checkpoint, &value));
        assert_eq!(checkpoint_key(of.0, of.1), "checkpoint:1:000000000000feed");
    }
}
