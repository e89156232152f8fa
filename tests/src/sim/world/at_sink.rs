//! The forwarder's turns, and what the oracle sees of them at the sink.

use std::collections::BTreeSet;

use super::super::oracle::Verdict;
use super::super::segments::{blocks_in, digest_of};
use super::super::sink::Fate;
use super::super::vault::Vault;
use super::World;

impl World {
    /// The forwarder's thread runs once.
    pub(super) fn forward(&mut self) -> Verdict {
        let now_ms = self.now_ms();
        if now_ms < self.sink_busy_until_ms {
            return Ok(());
        }
        self.count_past()?;
        let Some(node) = &mut self.node else { return Ok(()) };
        let fate = if self.chance.per_mille(self.plan.sink_refuses) {
            Fate::Refuse
        } else if self.chance.per_mille(self.plan.sink_answer_lost) {
            Fate::LoseAnswer
        } else if self.chance.per_mille(self.plan.crashes / 50) {
            self.chance.pick(&[Fate::DieBefore, Fate::DieAfter])
        } else {
            Fate::Commit
        };
        self.store.borrow_mut().fate = fate;
        let now = node.forwarder_time(self.clocks.get());
        node.forwarder.poll(now);
        if self.chance.per_mille(self.plan.sink_is_slow) {
            self.sink_busy_until_ms = now_ms + self.chance.below(3000);
        }
        self.look_at_sink()?;
        let deleted = self.disk.borrow_mut().note_deleted();
        self.tally.trimmed += deleted.len() as u64;
        let destroyed = self.vault.as_mut().map(Vault::note_destroyed).unwrap_or_default();
        for (key, _) in &destroyed {
            self.tell(|| format!("the key {key} is destroyed"));
        }
        if !deleted.is_empty() {
            self.tell(|| format!("trimmed {} files", deleted.len()));
            let final_before = self.store.borrow().checkpoint().final_before;
            let left: BTreeSet<_> = self
                .disk
                .borrow()
                .durable()
                .flat_map(|(path, bytes)| self.oracle.reader().blocks_of(path, bytes))
                .map(|(name, _)| name)
                .collect();
            for (path, bytes) in &deleted {
                let stands_for_it = digest_of(path).is_some_and(|digest| digest.exists());
                self.oracle.trimmed((path, bytes), &left, stands_for_it.then_some(final_before))?;
            }
            // The names are gone for good with the sync of the folder; a crash before it may
            // bring any of them back.
            if self.chance.per_mille(self.plan.crashes / 4) {
                // Keys go after it, so none has gone.
                if let Some(vault) = &mut self.vault {
                    vault.bring_back(destroyed).map_err(|error| error.to_string())?;
                }
                return self.crash("a trim");
            }
        }
        if !deleted.is_empty() || !destroyed.is_empty() {
            let folder = self.folder.join("journal");
            self.disk.borrow_mut().sync_folder(&folder);
        }
        self.tally.keys_destroyed += destroyed.len() as u64;
        let has_died = std::mem::take(&mut self.store.borrow_mut().has_died);
        if has_died { self.crash("a commit") } else { Ok(()) }
    }

    pub(super) fn look_at_sink(&mut self) -> Verdict {
        let fresh = std::mem::take(&mut self.store.borrow_mut().fresh);
        for mut committed in fresh {
            self.tell(|| {
                format!(
                    "the sink has flush {:?} part {}: blocks {:?}, {} buckets",
                    committed.batch.flush,
                    committed.batch.part,
                    committed
                        .blocks
                        .iter()
                        .flat_map(|block| blocks_in(block))
                        .map(|(name, _)| name)
                        .collect::<Vec<_>>(),
                    committed.batch.buckets.len()
                )
            });
            self.sing_at_sink(&mut committed);
            self.oracle.committed(&committed.batch, &committed.blocks)?;
        }
        self.store.borrow().offence.clone().map_or(Ok(()), Err)
    }
}
