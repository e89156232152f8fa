//! Refolds the ledgers from the journal: every row to the worker that owns its shard now,
//! whichever wrote it.

use std::collections::BTreeSet;
use std::time::Instant;

use weir_common::block::BlockHeader;
use weir_common::id::WorkerId;
use weir_common::row::Row;
use weir_common::time::{Minute, UnixMs};

use crate::forward::Checkpoint;
use crate::journal::{BlockIdentity, Folder, FolderError, Recovery, recover};
use crate::ledger::{Agreement, Ledger, Owned, Settings};
use crate::worker::shard_map::ShardMap;
use crate::worker::unflushed::Unflushed;

/// Rows between two lines of progress.
const PROGRESS_ROWS: u64 = 5_000_000;

/// The ledgers of all workers as the journal left them, each with the buckets it owes the sink,
/// and what was found in the journal.
///
/// # Errors
/// When the journal folder cannot be read.
pub(super) fn refold(
    folder: &Folder,
    shards: &ShardMap,
    settings: &Settings,
    checkpoint: &Checkpoint,
) -> Result<(Vec<(Ledger, Unflushed)>, Recovery), FolderError> {
    let mut fold = Fold::new(shards, settings, checkpoint);
    let recovery = recover(folder, |header, row, _| fold.row(header, row))?;
    fold.report(&recovery);
    Ok((fold.finish(), recovery))
}

struct Fold<'a> {
    shards: &'a ShardMap,
    checkpoint: &'a Checkpoint,
    workers: Vec<(Ledger, Unflushed)>,
    /// Minutes with rows that the sink does not have: their buckets are owed.
    owed: BTreeSet<Minute>,
    began: Instant,
    rows: u64,
    differing: u64,
}

impl<'a> Fold<'a> {
    fn new(shards: &'a ShardMap, settings: &Settings, checkpoint: &'a Checkpoint) -> Self {
        let workers = shards.iter().map(|owner| usize::from(owner.0) + 1).max().unwrap_or(1);
        Self {
            shards,
            checkpoint,
            workers: (0..workers)
                .map(|worker| (ledger_of(worker, shards, settings), Unflushed::default()))
                .collect(),
            owed: BTreeSet::new(),
            began: Instant::now(),
            rows: 0,
            differing: 0,
        }
    }

    fn row(&mut self, header: &BlockHeader, row: &Row) {
        let block = BlockIdentity::of(header);
        if block.sequence > self.checkpoint.committed(block.epoch, block.worker) {
            self.owed.insert(Minute(row.minute.get()));
        }
        let owner = self.shards.owner(row.click.shard());
        let (ledger, unflushed) = &mut self.workers[usize::from(owner.0)];
        // A bucket is taken after its last row, so by then `owed` knows of all its rows.
        let owed = &self.owed;
        unflushed.take_each_minute(UnixMs(row.received_at_ms.get()), ledger, |minute| owed.contains(&minute));
        if ledger.restore(row) != Agreement::Same {
            self.differing += 1;
        }
        self.rows += 1;
        if self.rows.is_multiple_of(PROGRESS_ROWS) {
            tracing::info!(
                rows = self.rows,
                seconds = self.began.elapsed().as_secs(),
                "refolding the ledgers"
            );
        }
    }

    fn report(&self, recovery: &Recovery) {
        let (rows, differing) = (self.rows, self.differing);
        tracing::info!(
            rows,
            differing,
            seconds = self.began.elapsed().as_secs_f64(),
            "the ledgers are refolded"
        );
        for line in recovery.report.to_string().lines() {
            tracing::info!("{line}");
        }
        if differing > 0 {
            tracing::warn!(
                differing,
                "rows whose recorded outcome a recount does not give; the recorded one counts"
            );
        }
    }

    /// The forwarder knows nothing of the minutes that are still open: it gets all of them.
    fn finish(mut self) -> Vec<(Ledger, Unflushed)> {
        self.workers.iter_mut().for_each(|(ledger, _)| ledger.mark_all_changed());
        self.workers
    }
}

fn ledger_of(worker: usize, shards: &ShardMap, settings: &Settings) -> Ledger {
    let owned = shards.of(WorkerId(worker as u16)).collect();
    Ledger::new(&Settings { owned: Owned::Only(owned), ..settings.clone() })
}

#[cfg(test)]
mod tests;
