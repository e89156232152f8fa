//! The wrongs that the harness does on purpose at the sink.

use super::super::Canary;
use super::super::sink::Committed;
use super::World;

impl World {
    /// Does its wrong to what the sink was given, once.
    pub(super) fn sing_at_sink(&mut self, committed: &mut Committed) {
        if self.canary_sang || self.tally.steps < self.run.steps / 2 {
            return;
        }
        match self.run.canary {
            Some(Canary::DoubleCount) => {
                if let Some(bucket) = committed.batch.buckets.first_mut() {
                    bucket.totals.accepted = (bucket.totals.accepted.get() + 1).into();
                    self.canary_sang = true;
                }
            }
            Some(Canary::LostRow) => self.canary_sang |= committed.blocks.pop().is_some(),
            Some(Canary::WrongSketch) => {
                if let Some(last) =
                    committed.batch.uniques.sketches.first_mut().and_then(|it| it.theta.last_mut())
                {
                    *last ^= 1;
                    self.canary_sang = true;
                }
            }
            Some(Canary::WrongAck | Canary::SilentDamage | Canary::BelievedClock) | None => {}
        }
    }
}
