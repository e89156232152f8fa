//! Refolds the ledgers from the journal: every row to the worker that owns its shard now,
//! whichever wrote it.

use std::time::Instant;

use crate::journal::{Folder, FolderError, Recovery, recover};
use crate::ledger::{Agreement, Ledger, Settings};
use crate::worker::shard_map::ShardMap;

/// Rows between two lines of progress.
const PROGRESS_ROWS: u64 = 5_000_000;

/// The ledgers of all workers, as the journal left them, and what was found in it.
///
/// # Errors
/// When the journal folder cannot be read.
pub(super) fn refold(
    folder: &Folder,
    shards: &ShardMap,
    settings: &Settings,
) -> Result<(Vec<Ledger>, Recovery), FolderError> {
    let workers = shards.iter().map(|owner| usize::from(owner.0) + 1).max().unwrap_or(1);
    let mut ledgers: Vec<_> = (0..workers).map(|_| Ledger::new(settings)).collect();
    let (began, mut rows, mut differing) = (Instant::now(), 0_u64, 0_u64);
    let recovery = recover(folder, |_, row, _| {
        let owner = shards.owner(row.click.shard());
        if ledgers[usize::from(owner.0)].restore(row) != Agreement::Same {
            differing += 1;
        }
        rows += 1;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            tracing::info!(rows, seconds = began.elapsed().as_secs(), "refolding the ledgers");
        }
    })?;
    // What was sent of these buckets is not known to the forwarder any more: it gets all of them.
    ledgers.iter_mut().for_each(Ledger::mark_all_changed);
    tracing::info!(rows, differing, seconds = began.elapsed().as_secs_f64(), "the ledgers are refolded");
    for line in recovery.report.to_string().lines() {
        tracing::info!("{line}");
    }
    if differing > 0 {
        tracing::warn!(
            differing,
            "rows whose recorded outcome a recount does not give; the recorded one counts"
        );
    }
    Ok((ledgers, recovery))
}
