//! The wrongs that the harness does on purpose at the sink.

use super::super::Canary;
use super::super::disk::Synced;
use super::super::oracle::Verdict;
use super::super::sink::Committed;
use super::World;
use zerocopy::IntoBytes;

impl World {
    /// Does its wrong to what a segment holds, once.
    pub(super) fn sing_in_segment(&mut self, mut synced: Synced) -> Synced {
        if self.run.canary == Some(Canary::PlainClick) && !self.canary_sang {
            let places = self.oracle.reader().places_in(&synced.path, synced.offset, &synced.bytes);
            if let Some(row) = places.iter().find_map(|(.., rows)| rows.last()) {
                synced.bytes.extend(row.click.as_bytes());
                self.canary_sang = true;
            }
        }
        synced
    }

    /// Destroys a key that segments need, once.
    pub(super) fn sing_in_vault(&mut self) -> Verdict {
        if self.run.canary != Some(Canary::LostKey) || self.canary_sang {
            return Ok(());
        }
        if let Some(vault) = &mut self.vault {
            self.canary_sang = vault.lose_newest().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

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
            Some(
                Canary::WrongAck
                | Canary::SilentDamage
                | Canary::BelievedClock
                | Canary::LostKey
                | Canary::PlainClick,
            )
            | None => {}
        }
    }
}
