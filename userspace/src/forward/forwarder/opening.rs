//! How forwarding begins: after what the sink holds, once it answers, and with the past, once it is
//! counted.

use std::sync::mpsc::TryRecvError;

use weir_common::id::BlockSeq;
use weir_common::time::UnixMs;

use super::super::batch::Checkpoint;
use super::super::mailbox::Share;
use super::super::merge::Merge;
use super::super::pace::Now;
use super::super::sink::Sink;
use super::{Counted, Forwarder, LostEnd, PAST, StartError, State};

impl<S: Sink> Forwarder<S> {
    /// Goes on after what the sink holds.
    pub(super) fn resume(&mut self, mut checkpoint: Checkpoint) -> Result<(), StartError> {
        if let Some((&(epoch, _), _)) = checkpoint.positions.last_key_value()
            && epoch >= self.epoch
        {
            return Err(StartError::Behind { sink: epoch.0, journal: self.epoch.0 });
        }
        self.losses.hold_against(&checkpoint, self.config.minutes_ahead);
        // Streams without a segment are done with; their positions would pile up.
        checkpoint.positions.retain(|writer, _| self.upto.contains_key(writer));
        checkpoint.counted.retain(|writer, _| self.upto.contains_key(writer));
        self.merge = Merge::new(checkpoint.final_before);
        self.uniques.settle(checkpoint.final_before);
        self.flush = checkpoint.flush;
        self.checkpoint = checkpoint;
        self.state = State::Idle { until_ms: 0 };
        Ok(())
    }

    /// Asks a sink that was away once more.
    pub(super) fn open(&mut self, now: Now) {
        let found = self.sink.checkpoint();
        match found.map_err(StartError::from).and_then(|checkpoint| self.resume(checkpoint)) {
            Ok(()) => {
                self.recovered();
                self.tell_closed_minutes(now);
            }
            Err(error) => {
                self.note_error(error.to_string());
                if let State::Opening { retry } = &mut self.state {
                    retry.again(now);
                }
            }
        }
    }

    /// While the sink was away admission did not know which minutes are final there. None that it
    /// takes clicks for is, unless the clock was ahead when they were made final. Final they stay.
    fn tell_closed_minutes(&self, now: Now) {
        let final_before = self.checkpoint.final_before;
        if final_before > UnixMs(now.wall.0.saturating_sub(self.config.close_after_ms)).minute() {
            tracing::error!(
                final_before = final_before.0,
                "the sink has minutes as final that are not over long enough by this clock: clicks that were taken for them since this start are in the raw batches and may be in no bucket; see that the clock is right"
            );
        }
    }

    /// Does not wait for blocks that the disk destroyed at the end of a stream: a start that reads
    /// the segment itself finds the stream to end before them as well.
    fn forget(&mut self, lost_ends: &[LostEnd]) {
        for LostEnd { writer, known, left } in lost_ends {
            // Where blocks follow in a later segment these are a gap, and told as one.
            if let Some(upto) = self.upto.get_mut(writer).filter(|upto| *upto == known) {
                *upto = *left;
            }
        }
    }

    /// Takes the totals of the past, if they are there by now.
    pub(super) fn take_past(&mut self) {
        let Some(past) = &self.past else { return };
        match past.counted.try_recv() {
            Ok(Counted { totals: changed, uniques, lost_ends }) => {
                self.go_on_with(uniques);
                self.forget(&lost_ends);
                self.merge.add(&Share {
                    worker: PAST,
                    flush: self.flush,
                    upto: BlockSeq(0),
                    changed,
                    oldest_received_at: None,
                    held_back: None,
                });
                self.past = None;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                let why = "the journal's past could not be counted; see the log, and restart the node";
                self.note_error(why.to_owned());
            }
        }
    }
}
