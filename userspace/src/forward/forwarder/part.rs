//! The parts of a flush: reads the blocks of one ahead, fixes what it holds, and commits it as often
//! as it takes.

use std::time::Instant;

use super::super::batch::{Batch, BatchBlocks, BlocksError, read_block, rows_of, unreadable};
use super::super::pace::Now;
use super::super::sink::{Sink, SinkError};
use super::super::uniques::Closing;
use super::{Asked, BACKOFF_MS, BUCKET_BYTES, Forwarder, Retry, State};
use crate::journal::{BlockStream, Position};
use crate::rejects::Samples;
use weir_common::id::{Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};

/// A part of a flush, ready to be committed as often as it takes.
#[derive(Debug)]
pub(super) struct Planned {
    batch: Batch,
    is_last: bool,
    /// Whether rows wait for the minutes that become final with it, though there may be nothing else in it.
    is_awaited: bool,
    /// Whether it is time to say that there is nothing.
    is_due: bool,
    blocks: u64,
    rows: u64,
    bytes: u64,
}

impl<S: Sink> Forwarder<S> {
    /// Plans the next part, if it is not planned yet, and commits it.
    pub(super) fn commit_part(&mut self, now: Now) {
        let State::Committing { asked, part, batch, .. } = &mut self.state else { return };
        let (asked, part, planned) = (*asked, *part, batch.take());
        let planned = match planned.map_or_else(|| self.plan(part, asked), Ok) {
            Ok(planned) => planned,
            Err(error) => {
                // Begin again from the checkpoint, should the trouble be over by then.
                self.ahead.clear();
                self.failed(now, None, &SinkError::Blocks(error));
                return;
            }
        };
        if planned.is_empty() {
            self.finish(now, Asked { oldest: None, ..asked });
            return;
        }
        let mut blocks = self.blocks_of(&planned.batch);
        let started = Instant::now();
        if let Err(error) = self.sink.commit(&planned.batch, &mut blocks) {
            self.failed(now, Some(planned), &error);
            return;
        }
        let took = started.elapsed();
        self.stats.flush_latency.record(took.as_nanos() as u64, 1);
        self.committed(&planned);
        self.quiet_since = (!planned.has_news()).then_some(now.ms);
        if planned.is_last {
            self.stats.flushes.add(1);
            self.finish(now.after(took), asked);
        } else {
            // At once, by the caller's clock: what is decided here rests on no other.
            let retry = Retry { at_ms: now.ms, backoff_ms: BACKOFF_MS.0 };
            self.state = State::Committing { asked, part: part + 1, batch: None, retry };
        }
    }

    fn failed(&mut self, now: Now, planned: Option<Box<Planned>>, error: &SinkError) {
        self.stats.flush_failures.add(1);
        self.note_error(error.to_string());
        if let State::Committing { batch, retry, .. } = &mut self.state {
            *batch = planned;
            if matches!(error, SinkError::Fatal(_)) {
                retry.backoff_ms = BACKOFF_MS.1;
            }
            retry.again(now);
        }
    }

    fn committed(&mut self, planned: &Planned) {
        if planned.is_awaited {
            // What waited for these minutes goes now.
            self.trim_at_ms = 0;
        }
        self.checkpoint = planned.batch.checkpoint.clone();
        let buckets = planned.batch.buckets.len() as u64;
        self.stats.blocks.add(planned.blocks);
        self.stats.rows.add(planned.rows);
        self.stats.raw_bytes.add(planned.bytes);
        self.stats.buckets.add(buckets);
        self.stats.bucket_bytes.add(buckets * BUCKET_BYTES);
        self.stats.rejects.add(planned.batch.rejects.len() as u64);
        self.note_uniques(&planned.batch.uniques);
    }

    /// The sketches of a batch are committed.
    fn note_uniques(&mut self, closing: &Closing) {
        self.stats.sketches.add(closing.sketches.len() as u64);
        self.stats.sketch_bytes.add(closing.bytes());
        self.uniques.settle(self.checkpoint.final_before);
        let (held, bytes) = self.uniques.held();
        self.stats.sketches_held.set(held);
        self.stats.sketches_held_bytes.set(bytes);
        let (Some(first), Some(last)) = (closing.unsketched.first(), closing.unsketched.last()) else {
            return;
        };
        let clicks = closing.unsketched.iter().map(|minute| minute.clicks).sum();
        self.stats.unsketched_minutes.add(closing.unsketched.len() as u64);
        self.stats.unsketched_clicks.add(clicks);
        self.stats.sketches_withheld.add(closing.withheld);
        if self.config.uniques_bytes_max > 0 && closing.lacks_rows {
            tracing::warn!(
                from = first.minute.0,
                to = last.minute.0,
                clicks,
                "minutes without the unique users of all their ads: forward.uniques_memory was not enough, or blocks were lost from the journal; the rows are all there"
            );
        }
    }

    fn stream(&self, writer: (Epoch, WorkerId), from: Position) -> BlockStream {
        BlockStream::new(&self.place, writer, from)
    }

    /// Reads ahead, up to the bound of a part, and fixes what the part holds.
    fn plan(&mut self, part: u32, asked: Asked) -> Result<Box<Planned>, BlocksError> {
        let mut checkpoint = self.checkpoint.clone();
        let (mut blocks, mut rows, mut bytes) = (0, 0, 0);
        let mut gaps = Vec::new();
        let (mut is_last, mut uniques) = (true, Closing::default());
        let targets: Vec<_> = self.upto.iter().map(|(&writer, &upto)| (writer, upto)).collect();
        for (writer, upto) in targets {
            let from = self.checkpoint.positions.get(&writer).copied().unwrap_or_default();
            if from.last >= upto {
                continue;
            }
            let mut stream = self.ahead.remove(&writer).unwrap_or_else(|| self.stream(writer, from));
            while stream.position().last < upto && bytes < self.config.part_bytes_max {
                if let Some(gap) = read_block(&mut stream, upto)? {
                    // In this epoch nothing can be missing: the worker knows it as durable, and
                    // its buckets count it. Only a refold at the next start can leave it out.
                    if writer.0 == self.epoch {
                        return Err(unreadable(&mut stream, gap.first));
                    }
                    gaps.push(gap);
                }
                blocks += 1;
                bytes += stream.block().len() as u64;
                self.uniques.block(writer, stream.position().last, stream.block());
                rows += rows_of(stream.block());
            }
            is_last &= stream.position().last >= upto;
            checkpoint.positions.insert(writer, stream.position());
            self.retention.note(writer, &mut stream);
            self.ahead.insert(writer, stream);
        }
        checkpoint.flush = self.flush;
        if is_last {
            checkpoint.counted.clone_from(&checkpoint.positions);
        }
        // What a worker that is gone still owed, the next start has to be able to send.
        if is_last
            && asked.since.is_certain
            && (0..self.mailboxes.workers()).all(|worker| !self.mailboxes.is_gone(worker))
        {
            let closed = asked.minute_before(self.config.close_after_ms);
            let closed = checkpoint.final_before.max(closed);
            (checkpoint.final_before, uniques) =
                self.uniques.close(closed, self.config.part_bytes_max, self.config.uniques_users_min);
        }
        let buckets = if is_last { self.merge.changed() } else { Vec::new() };
        let (node, incarnation, flush) = (self.place.node, self.place.incarnation, self.flush);
        // Samples go where there is something to go with: their own counts are in a block.
        let is_empty = blocks == 0 && buckets.is_empty() && gaps.is_empty();
        let samples = self.samples.as_mut().filter(|_| is_last && !is_empty);
        let rejects = samples.map_or_else(Vec::new, Samples::take);
        let counted_until = is_last.then(|| self.counted_until(asked)).flatten();
        let batch = Batch {
            node,
            incarnation,
            flush,
            part,
            buckets,
            uniques,
            gaps,
            rejects,
            checkpoint,
            counted_until,
        };
        let becoming_final = self.checkpoint.final_before..batch.checkpoint.final_before;
        let is_awaited = self.retention.waits_for(&becoming_final, self.config.minutes_ahead);
        let is_due = self.is_due(asked.since);
        Ok(Box::new(Planned { batch, is_last, is_awaited, is_due, blocks, rows, bytes }))
    }

    /// Everything acknowledged before the workers were asked is in their shares, but for what one
    /// holds back; of a worker that is gone, and of a clock in doubt, nothing is known.
    fn counted_until(&self, asked: Asked) -> Option<UnixMs> {
        let is_complete = (0..self.mailboxes.workers()).all(|worker| !self.mailboxes.is_gone(worker));
        let known = asked.since.is_certain && is_complete;
        let held_back = asked.held_back.map_or(asked.since.wall, Minute::start);
        known.then(|| held_back.min(asked.since.wall))
    }

    /// Whether even nothing is worth a word: once when clicks stop, so that it is known at once that all
    /// are counted, and then again and again.
    fn is_due(&self, now: Now) -> bool {
        let Some(idle_ms) = self.config.idle_ms else { return false };
        self.quiet_since.is_none_or(|since_ms| now.ms - since_ms >= idle_ms)
    }

    /// The blocks between the committed checkpoint and the batch's.
    fn blocks_of(&self, batch: &Batch) -> BatchBlocks {
        let from = |writer| self.checkpoint.positions.get(&writer).copied().unwrap_or_default();
        let streams = batch
            .checkpoint
            .positions
            .iter()
            .map(|(&writer, position)| (self.stream(writer, from(writer)), position.last));
        BatchBlocks::new(
            streams.filter(|(stream, last)| stream.position().last < *last).collect(),
            batch.gaps.clone(),
        )
    }
}

impl Planned {
    fn is_empty(&self) -> bool {
        !self.has_news() && !self.is_awaited && !self.is_due
    }

    fn has_news(&self) -> bool {
        let Batch { buckets, uniques, gaps, .. } = &self.batch;
        self.blocks > 0 || !buckets.is_empty() || !uniques.is_empty() || !gaps.is_empty()
    }
}
