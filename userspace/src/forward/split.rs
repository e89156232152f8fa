//! Two sinks for one node: raw batches and rejects to the first, buckets and sketches to the second.
//!
//! Raw clicks are many and may stay in their region; buckets are few and are wanted centrally. Each
//! sink has a transaction and a checkpoint of its own. The raw sink always goes first, so its
//! blocks are never behind what the buckets count; until the second has answered, the first one's
//! checkpoint says that these blocks are not counted yet. A node that dies between the two owes the
//! buckets of those blocks at its next start, as it does after a part of a flush that is not its
//! last.
//!
//! While either is away both wait, and the journal keeps what is to be sent.

use std::collections::BTreeMap;

use weir_common::id::{Epoch, WorkerId};

use super::batch::{Batch, BatchBlocks, Checkpoint};
use super::sink::{Sink, SinkError};
use super::uniques::Closing;
use crate::journal::Position;

/// A sink made of two.
#[derive(Debug)]
pub struct Split<R, B> {
    raw: R,
    buckets: B,
    /// What both hold, taken together. Known once both have answered.
    known: Option<Checkpoint>,
}

impl<R: Sink, B: Sink> Split<R, B> {
    /// Blocks go to `raw`, buckets to `buckets`.
    pub const fn new(raw: R, buckets: B) -> Self {
        Self { raw, buckets, known: None }
    }

    /// The two sinks.
    pub const fn sinks(&self) -> (&R, &B) {
        (&self.raw, &self.buckets)
    }

    /// The two sinks, when forwarding is over.
    pub fn into_sinks(self) -> (R, B) {
        (self.raw, self.buckets)
    }

    fn known(&mut self) -> Result<Checkpoint, SinkError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let known = joined(&self.raw.checkpoint()?, &self.buckets.checkpoint()?);
        Ok(self.known.insert(known).clone())
    }
}

impl<R: Sink, B: Sink> Sink for Split<R, B> {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        self.known()
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        let known = self.known()?;
        self.raw.commit(&of_raw(batch, &known), blocks)?;
        if has_news_of_buckets(batch, &known) {
            self.buckets.commit(&of_buckets(batch), &mut BatchBlocks::none())?;
        }
        self.known = Some(batch.checkpoint.clone());
        Ok(())
    }
}

/// How far the two are together: in each stream as far as either. As a rule that is the raw
/// sink's place and the other's count. A sink that is new, or that was left out for a time, is no
/// further than the other, so a node may change from one cluster to two and back.
fn joined(raw: &Checkpoint, buckets: &Checkpoint) -> Checkpoint {
    Checkpoint {
        flush: raw.flush.max(buckets.flush),
        final_before: raw.final_before.max(buckets.final_before),
        positions: furthest(&raw.positions, &buckets.positions),
        counted: furthest(&raw.counted, &buckets.counted),
    }
}

type Positions = BTreeMap<(Epoch, WorkerId), Position>;

fn furthest(left: &Positions, right: &Positions) -> Positions {
    let mut furthest = left.clone();
    for (&writer, &position) in right {
        let held = furthest.entry(writer).or_insert(position);
        if position.last > held.last {
            *held = position;
        }
    }
    furthest
}

/// Blocks and rejects; what the buckets have is still that of the last batch.
fn of_raw(batch: &Batch, known: &Checkpoint) -> Batch {
    let Batch { node, incarnation, flush, part, .. } = *batch;
    let checkpoint = Checkpoint {
        final_before: known.final_before,
        counted: known.counted.clone(),
        ..batch.checkpoint.clone()
    };
    let (gaps, rejects) = (batch.gaps.clone(), batch.rejects.clone());
    let (buckets, uniques) = (Vec::new(), Closing::default());
    let counted_until = None;
    Batch { node, incarnation, flush, part, buckets, uniques, gaps, rejects, checkpoint, counted_until }
}

fn of_buckets(batch: &Batch) -> Batch {
    Batch { gaps: Vec::new(), rejects: Vec::new(), ..batch.clone() }
}

/// A part of a flush that is not its last says nothing to the sink of buckets.
fn has_news_of_buckets(batch: &Batch, known: &Checkpoint) -> bool {
    let Checkpoint { final_before, counted, .. } = &batch.checkpoint;
    !batch.buckets.is_empty()
        || batch.counted_until.is_some()
        || *final_before != known.final_before
        || *counted != known.counted
}

#[cfg(test)]
mod tests {
    use weir_common::id::BlockSeq;
    use weir_common::time::Minute;

    use super::super::batch::FlushNo;
    use super::*;

    fn checkpoint(flush: u64, final_before: u32, last: u64, counted: u64) -> Checkpoint {
        let at = |last| {
            let position = Position { last: BlockSeq(last), ..Position::default() };
            [((Epoch(1), WorkerId(0)), position)].into()
        };
        Checkpoint {
            flush: FlushNo(flush),
            final_before: Minute(final_before),
            positions: at(last),
            counted: at(counted),
        }
    }

    #[test]
    fn after_a_crash_between_the_two_the_new_blocks_are_there_and_not_counted() {
        let (before, after) = (checkpoint(4, 10, 30, 30), checkpoint(5, 11, 40, 40));
        let batch = Batch {
            node: Default::default(),
            incarnation: Default::default(),
            flush: FlushNo(5),
            part: 0,
            buckets: Vec::new(),
            gaps: Vec::new(),
            rejects: Vec::new(),
            uniques: Closing::default(),
            checkpoint: after.clone(),
            counted_until: None,
        };
        let of_raw = of_raw(&batch, &before).checkpoint;
        assert_eq!(joined(&of_raw, &before), checkpoint(5, 10, 40, 30));
        assert_eq!(joined(&of_raw, &after), after);
    }

    #[test]
    fn a_sink_that_is_new_takes_over_where_the_other_is() {
        let all = checkpoint(9, 20, 50, 50);
        assert_eq!(joined(&all, &Checkpoint::default()), all);
        assert_eq!(joined(&Checkpoint::default(), &all), all);
    }
}
