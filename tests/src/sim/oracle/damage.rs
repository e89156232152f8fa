//! What a disk may destroy, if it is reported, and what may be deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weir_common::time::Minute;

use super::super::segments::{BlockName, stream_of};
use super::rows::bucket_of;
use super::{ClickName, Loss, Oracle, Verdict, hold};

impl Oracle {
    /// The forwarder deleted a segment with these bytes; other files have the blocks that are
    /// `left`. `digested`: a digest stands for it, and minutes before this one are final at the sink.
    ///
    /// # Errors
    /// When something of it was still needed.
    pub fn trimmed(
        &mut self,
        (path, bytes): (&Path, &[u8]),
        left: &BTreeSet<BlockName>,
        digested: Option<Minute>,
    ) -> Verdict {
        let (_, latest) = self.wall.unwrap_or_default();
        self.trimmed.extend(stream_of(path));
        // What failed here was written again to another segment.
        let gone = self.reader.blocks_of(path, bytes).into_iter().filter(|(block, _)| !left.contains(block));
        for (block, rows) in gone {
            for row in &rows {
                let name = ClickName::of(&row.click);
                let Some(truth) = self.clicks.get_mut(&name) else { continue };
                let is_forwarded = truth.at_sink.iter().any(|(at, ..)| *at == block);
                hold!(is_forwarded, "{name:?} was in {block:?}, which is deleted and was not forwarded");
                let age_ms = latest.saturating_sub(row.received_at_ms.get());
                let is_settled = digested.is_some_and(|final_before| row.minute.get() < final_before.0);
                hold!(
                    age_ms > self.limits.lifetime_ms || is_settled,
                    "{block:?} is deleted, and {name:?} in it is {age_ms} ms old"
                );
                truth.durable.remove(&block);
            }
            self.blocks.remove(&block);
        }
        Ok(())
    }

    /// A digest of these blocks is durable: the first of them, and the last one's sequence.
    pub fn digested(&mut self, blocks: Loss) {
        self.digested.push(blocks);
    }

    /// The disk damaged what it held: `before` became what `after` says.
    pub fn damaged<'a>(
        &mut self,
        before: &[(PathBuf, Vec<u8>)],
        after: impl Iterator<Item = (&'a Path, &'a [u8])>,
    ) {
        let reader = self.reader.clone();
        let left: BTreeSet<_> =
            after.flat_map(|(path, bytes)| reader.blocks_of(path, bytes)).map(|(name, _)| name).collect();
        for (name, rows) in before.iter().flat_map(|(path, bytes)| reader.blocks_of(path, bytes)) {
            if left.contains(&name) {
                continue;
            }
            self.destroyed.insert(name);
            self.blocks.remove(&name);
            for row in &rows {
                self.excused.insert(bucket_of(row));
                self.users.destroyed(row);
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
            // What comes of it is said when it is read: lost blocks are gaps to the sink.
            let is_digested = self.digested.iter().any(|&((of, by, first), last)| {
                (of, by) == (epoch, worker) && (first..=last).contains(&sequence)
            });
            hold!(
                is_lost || damaged.contains(&(epoch, worker)) || may_be_trimmed || is_digested,
                "block {:?} was destroyed by the disk, and the start did not report it",
                (epoch, worker, sequence)
            );
        }
        Ok(())
    }
}
