//! Gives every admitted click its outcome and counts it: a deterministic fold.
//!
//! No clock, no I/O, no randomness, no threads. Time enters only with the entries. Replaying the
//! rows of a journal gives the same outcomes and the same buckets, to the byte.

use weir_common::reason::{Outcome, Reason};
use weir_common::time::UnixMs;
use weir_common::wire::Click;

use crate::admission::Admitted;

/// A click that admission passed, on its way to an outcome.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When this node read it. Never decreases from entry to entry.
    pub received_at: UnixMs,
    /// What admission found.
    pub admitted: Admitted,
    /// The click.
    pub click: &'a Click,
}

/// The ledger's word on one entry: accepted, repeat, duplicate, late or filtered; or refused,
/// when the click cannot be told apart (`ordinal_limit`) or held (`table_full`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason, where the outcome has one.
    pub reason: Reason,
}
