//! Recounts what the embedded store holds, from its raw batches, and compares.
//!
//! Checked: every CRC; that the blocks of each worker follow each other without a gap, but for
//! those that recovery reported; that no block and no click stands twice; that rows and outcome
//! counts agree; that the buckets are a recount of the rows, to the unit, in both directions; and that
//! the sketches of unique users of final minutes are those of the rows, to the octet.
//!
//! Memory is bounded: ids and buckets are looked at in passes, each over a share of them by hash,
//! and every pass streams all rows. An id costs about 40 bytes of a pass, a bucket 350.
//!
//! Nothing is changed. The store must not be open elsewhere: stop the daemon first.
//!
//! Start reading at [`audit()`]; [`report`] is what it says, [`rows`] hands out the rows.
//!
//! [`audit()`]: crate::audit::audit()
//! [`report`]: crate::audit::report
//! [`rows`]: crate::audit::rows
//! [`report`]: crate::audit::report
//! [`rows`]: crate::audit::rows

pub mod acked;
pub mod command;
mod recount;
pub mod report;
pub mod rows;
mod structure;
mod users;

use weir_common::bucket::Dimensions;

use crate::forward::embedded::{Store, StoreError};
use recount::Recount;
pub use report::{AuditFinding, AuditReport};
pub use rows::RowIter;
use users::UsersRecount;

/// How to audit.
#[derive(Clone, Copy, Debug)]
pub struct AuditConfig {
    /// The dimensions of the buckets, as the daemon's config has them.
    pub dimensions: Dimensions,
    /// Rows whose ids and buckets are held at once. 8 million take about 0.5 GB when each bucket
    /// has 20 rows or more, 3 GB when every row has a bucket of its own.
    pub rows_per_pass: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { dimensions: Dimensions::DEFAULT, rows_per_pass: 8 << 20 }
    }
}

/// Audits a store.
///
/// # Errors
/// When the store cannot be read. What is wrong with what it holds stands in the report.
pub fn audit(store: &Store, config: &AuditConfig) -> Result<AuditReport, StoreError> {
    let mut report = AuditReport::default();
    structure::check(store, &mut report)?;
    let passes = report.rows.div_ceil(config.rows_per_pass.max(1)).max(1);
    report.passes = passes;
    for pass in 0..passes {
        let mut recount = Recount::new(config.dimensions, (pass, passes));
        let mut users = UsersRecount::new((pass, passes));
        for (header, row) in RowIter::new(store)? {
            recount.row(&header, &row, &mut report);
            users.row(&header, &row);
        }
        for bucket in store.buckets() {
            let (incarnation, _, bucket) = bucket?;
            recount.stored(incarnation, &bucket);
        }
        recount.compare(&mut report);
        users.compare(store, &mut report)?;
    }
    report.finish();
    Ok(report)
}
