//! How complete and how fresh the store is.
//!
//! A node says in its checkpoints until when everything it acknowledged is counted, and which minutes
//! are final. That is true of the log. It is true of the store only once every partition has been read
//! as far as the log went when the checkpoint was seen: a transaction becomes visible partition by
//! partition. So a checkpoint is first *told*, then, when all partitions have got to where they ended
//! at some moment after it, *reached*.

use std::collections::BTreeMap;

use weir_common::id::{Incarnation, NodeId};
use weir_common::time::{Minute, UnixMs};

use crate::record::{Life, Told};

/// A partition of a topic: which topic, by its place in the list of those that are read, and the number.
pub type Partition = (usize, i32);
/// The offset after the last record, by partition.
pub type Offsets = BTreeMap<Partition, i64>;

/// What is known of one life of a node's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// What its last checkpoint says.
    pub told: Told,
    /// What is true of the store.
    pub reached: Option<Told>,
}

/// All nodes, and what is waited for.
#[derive(Debug, Default)]
pub struct Watermarks {
    nodes: BTreeMap<Life, NodeState>,
    /// Lives that told something since the ends were last asked for.
    fresh: BTreeMap<Life, Told>,
    /// Lives whose words are older than the ends that are being asked for.
    asking: Option<BTreeMap<Life, Told>>,
    /// What becomes true when these ends are reached.
    awaited: Option<(Offsets, BTreeMap<Life, Told>)>,
}

impl Watermarks {
    /// Goes on with what a store says of the nodes. What they told and was not reached has to be
    /// reached anew.
    #[must_use]
    pub fn of(nodes: BTreeMap<Life, NodeState>) -> Self {
        let open = nodes.iter().filter(|(_, state)| state.reached.as_ref() != Some(&state.told));
        let fresh = open.map(|(life, state)| (*life, state.told.clone())).collect();
        Self { nodes, fresh, asking: None, awaited: None }
    }

    /// A node has told how far it is. Nothing is taken back: neither finality nor time.
    pub fn tell(&mut self, life: Life, mut told: Told) {
        let state = self.nodes.entry(life).or_default();
        told.final_before = told.final_before.max(state.told.final_before);
        told.counted_until = told.counted_until.max(state.told.counted_until);
        state.told = told.clone();
        self.fresh.insert(life, told);
    }

    /// Whether it is to be asked now where the partitions end. What is told from here on is not waited
    /// for with the answer: it may be of transactions behind those ends.
    pub fn asks(&mut self) -> bool {
        let asks = self.awaited.is_none() && self.asking.is_none() && !self.fresh.is_empty();
        if asks {
            self.asking = Some(std::mem::take(&mut self.fresh));
        }
        asks
    }

    /// Where the partitions ended at some moment after it was asked; none where nobody said so.
    pub fn ends(&mut self, ends: Option<Offsets>) {
        let Some(mut asked) = self.asking.take() else { return };
        match ends {
            Some(ends) => self.awaited = Some((ends, asked)),
            None => {
                asked.append(&mut self.fresh);
                self.fresh = asked;
            }
        }
    }

    /// The partitions are read up to here. Returns whose state has changed.
    pub fn read_to(&mut self, read: &Offsets) -> Vec<Life> {
        let is_there = |(partition, end): (&Partition, &i64)| read.get(partition) >= Some(end);
        let Some((_, told)) = self.awaited.take_if(|(ends, _)| ends.iter().all(is_there)) else {
            return Vec::new();
        };
        let lives = told.keys().copied().collect();
        for (life, told) in told {
            self.nodes.entry(life).or_default().reached = Some(told);
        }
        lives
    }

    /// The state of each life.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<Life, NodeState> {
        &self.nodes
    }

    /// How complete and how fresh the store is.
    #[must_use]
    pub fn progress(&self, retired: &[NodeId]) -> Progress {
        let mut nodes: BTreeMap<NodeId, NodeProgress> = BTreeMap::new();
        for (life, state) in &self.nodes {
            let found = NodeProgress::of(life.incarnation, state);
            // Of several lives of one node the one that spoke last is the one that lives.
            let held = nodes.entry(life.node).or_insert_with(|| found.clone());
            if found.told_at > held.told_at {
                *held = found;
            }
        }
        nodes.retain(|node, _| !retired.contains(node));
        Progress { nodes }
    }
}

/// How far one node is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProgress {
    /// The life of its journal folder that spoke last.
    pub incarnation: Incarnation,
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
    /// When it last spoke, by the broker's clock.
    pub told_at: UnixMs,
    /// Minutes before this one do not change any more.
    pub final_before: Minute,
    /// Everything it acknowledged before this, by its own clock, is counted.
    pub counted_until: Option<UnixMs>,
}

impl NodeProgress {
    fn of(incarnation: Incarnation, state: &NodeState) -> Self {
        let reached = state.reached.as_ref();
        Self {
            incarnation,
            region: state.told.region.clone(),
            pop: state.told.pop.clone(),
            told_at: state.told.appended_at,
            final_before: reached.map_or(Minute(0), |reached| reached.final_before),
            counted_until: reached.and_then(|reached| reached.counted_until),
        }
    }
}

/// How complete and how fresh the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Each node that has ever spoken and is not retired.
    pub nodes: BTreeMap<NodeId, NodeProgress>,
}

impl Progress {
    /// Minutes before this one are final at every node; none without nodes.
    #[must_use]
    pub fn final_before(&self) -> Option<Minute> {
        self.nodes.values().map(|node| node.final_before).min()
    }

    /// Every click that any node acknowledged before this is counted; none where that is not known.
    #[must_use]
    pub fn counted_until(&self) -> Option<UnixMs> {
        let known: Option<Vec<_>> = self.nodes.values().map(|node| node.counted_until).collect();
        known?.into_iter().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(node: u32, incarnation: u64) -> Life {
        Life { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    fn told(counted_until: u64, appended_at: u64) -> Told {
        Told {
            counted_until: Some(UnixMs(counted_until)),
            final_before: Minute((counted_until / 60_000) as u32),
            appended_at: UnixMs(appended_at),
            ..Told::default()
        }
    }

    fn offsets(pairs: &[(i32, i64)]) -> Offsets {
        pairs.iter().map(|(partition, offset)| ((0, *partition), *offset)).collect()
    }

    #[test]
    fn what_a_node_told_is_true_only_when_every_partition_was_read_as_far_as_it_went() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 1), told(600_000, 600_100));
        assert!(marks.asks());
        // Told meanwhile: waits for ends of its own.
        marks.tell(life(1, 1), told(660_000, 660_100));
        assert!(!marks.asks());
        marks.ends(Some(offsets(&[(0, 10), (1, 20)])));
        assert_eq!(marks.read_to(&offsets(&[(0, 10), (1, 19)])), []);
        assert_eq!(marks.progress(&[]).counted_until(), None);
        assert_eq!(marks.read_to(&offsets(&[(0, 11), (1, 20)])), [life(1, 1)]);
        assert_eq!(marks.progress(&[]).counted_until(), Some(UnixMs(600_000)));
        assert!(marks.asks());
        marks.ends(Some(offsets(&[(0, 30)])));
        marks.read_to(&offsets(&[(0, 30)]));
        assert_eq!(marks.progress(&[]).final_before(), Some(Minute(11)));
    }

    #[test]
    fn one_node_that_is_away_holds_all_back_until_it_is_retired() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 1), told(600_000, 600_100));
        marks.tell(life(2, 5), told(60_000, 60_100));
        assert!(marks.asks());
        marks.ends(Some(Offsets::new()));
        marks.read_to(&Offsets::new());
        assert_eq!(marks.progress(&[]).counted_until(), Some(UnixMs(60_000)));
        assert_eq!(marks.progress(&[NodeId(2)]).counted_until(), Some(UnixMs(600_000)));
    }

    #[test]
    fn a_node_with_a_new_journal_is_as_far_as_its_new_life() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 9), told(60_000, 60_100));
        marks.tell(life(1, 3), told(600_000, 600_100));
        assert!(marks.asks());
        marks.ends(Some(Offsets::new()));
        marks.read_to(&Offsets::new());
        assert_eq!(marks.progress(&[]).counted_until(), Some(UnixMs(600_000)));
    }

    #[test]
    fn after_a_start_what_was_told_and_not_reached_is_waited_for_again() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 1), told(60_000, 60_100));
        let mut again = Watermarks::of(marks.nodes().clone());
        assert!(again.asks());
        assert_eq!(again.progress(&[]).counted_until(), None);
        again.ends(Some(offsets(&[(0, 1)])));
        again.read_to(&offsets(&[(0, 1)]));
        assert_eq!(again.progress(&[]).counted_until(), Some(UnixMs(60_000)));
        assert!(!Watermarks::of(again.nodes().clone()).asks());
    }

    #[test]
    fn where_nobody_said_where_the_log_ends_it_is_asked_again() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 1), told(60_000, 60_100));
        assert!(marks.asks());
        marks.ends(None);
        assert_eq!(marks.read_to(&Offsets::new()), []);
        assert!(marks.asks());
    }

    #[test]
    fn neither_time_nor_finality_is_taken_back() {
        let mut marks = Watermarks::default();
        marks.tell(life(1, 1), told(600_000, 600_100));
        marks.tell(life(1, 1), Told { appended_at: UnixMs(700_000), ..Told::default() });
        assert!(marks.asks());
        marks.ends(Some(Offsets::new()));
        marks.read_to(&Offsets::new());
        assert_eq!(marks.progress(&[]).counted_until(), Some(UnixMs(600_000)));
    }
}
