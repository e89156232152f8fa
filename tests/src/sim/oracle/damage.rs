//! What a disk may destroy, if it is reported, and what may be deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::segments::{blocks_of, stream_of};
use super::rows::bucket_of;
use super::{ClickName, Loss, Oracle, Verdict, hold};

impl Oracle {
    /// The forwarder deleted a segment with these bytes.
    ///
    /// # Errors
    /// When something of it was still needed.
    pub fn trimmed(&mut self, path: &Path, bytes: &[u8]) -> Verdict {
        let (_, latest) = self.wall.unwrap_or_default();
        self.trimmed.extend(stream_of(path));
        for (block, rows) in blocks_of(path, bytes) {
            for row in &rows {
                let name = ClickName::of(&row.click);
                let Some(truth) = self.clicks.get_mut(&name) else { continue };
                let is_forwarded = truth.at_sink.iter().any(|(at, ..)| *at == block);
                hold!(is_forwarded, "{name:?} was in {block:?}, which is deleted and was not forwarded");
                let age_ms = latest.saturating_sub(row.received_at_ms.get());
                hold!(
                    age_ms > self.limits.lifetime_ms,
                    "{block:?} is deleted, and {name:?} in it is {age_ms} ms old"
                );
                truth.durable.remove(&block);
            }
            self.blocks.remove(&block);
        }
        Ok(())
    }

    /// The disk damaged what it held: `before` became what `after` says.
    pub fn damaged<'a>(
        &mut self,
        before: &[(PathBuf, Vec<u8>)],
        after: impl Iterator<Item = (&'a Path, &'a [u8])>,
    ) {
        let left: BTreeSet<_> =
            after.flat_map(|(path, bytes)| blocks_of(path, bytes)).map(|(name, _)| name).collect();
        for (name, rows) in before.iter().flat_map(|(path, bytes)| blocks_of(path, bytes)) {
            if left.contains(&name) {
                continue;
            }
            self.destroyed.insert(name);
            self.blocks.remove(&name);
            for row in &rows {
                self.excused.insert(bucket_of(row));
                let click = ClickName::of(&row.click);
                self.excused_impressions.insert((click.foreign, click.impression));
                let of_impression =
                    ClickName { ordinal: 0, ..click }..=ClickName { ordinal: u8::MAX, ..click };
                self.clicks.range_mut(of_impression).for_each(|(_, truth)| truth.is_excused = true);
                if let Some(truth) = self.clicks.get_mut(&click) {
                    truth.durable.remove(&name);
                    // Gone for good, unless the sink has it.
                    truth.acked = false;
                }
            }
        }
    }

    /// A start reported these ranges of blocks as lost, and these streams as damaged somewhere.
    ///
    /// # Errors
    /// When a block is gone and nothing was said.
    pub fn reported(&mut self, lost: &[Loss], damaged: &BTreeSet<(u32, u16)>) -> Verdict {
        for &(epoch, worker, sequence) in &std::mem::take(&mut self.destroyed) {
            let is_lost = lost.iter().any(|&((of, by, first), last)| {
                (of, by) == (epoch, worker) && (first..=last).contains(&sequence)
            });
            // What was forwarded may have been deleted, with the rest of its segment, since.
            let is_forwarded = self.forwarded.get(&(epoch, worker)).is_some_and(|last| sequence <= *last);
            let may_be_trimmed = is_forwarded && self.trimmed.contains(&(epoch, worker));
            hold!(
                is_lost || damaged.contains(&(epoch, worker)) || may_be_trimmed,
                "block {:?} was destroyed by the disk, and the start did not report it",
                (epoch, worker, sequence)
            );
        }
        Ok(())
    }
}
