//! Every ad's totals by minute, as octets: what a reconciliation is held against.
//!
//! An entry is an ad (u64), a minute (u32) and the totals as `docs/row-format.md`, section 3, lays them
//! down, all little-endian.

use weir_common::bucket::BucketTotals;
use weir_common::time::Minute;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::span::Span;
use crate::store::{StoreError, View};

/// The most minutes that are told at once.
pub const MINUTES_MAX: u32 = 60;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    ad: U64,
    minute: U32,
    totals: BucketTotals,
}

/// The entries of these minutes.
///
/// # Errors
/// When the store fails.
pub fn write(view: &View, minutes: std::ops::Range<Minute>) -> Result<Vec<u8>, StoreError> {
    let mut octets = Vec::new();
    for found in view.tops(Span::Minute, minutes) {
        let (ad, sum) = found?;
        let entry = Entry { ad: ad.into(), minute: sum.start.0.into(), totals: sum.totals };
        octets.extend_from_slice(entry.as_bytes());
    }
    Ok(octets)
}

/// Entries from octets; none when the last one is cut.
#[must_use]
pub fn read(octets: &[u8]) -> Option<Vec<((u64, Minute), BucketTotals)>> {
    let entries = <[Entry]>::ref_from_bytes(octets).ok()?;
    let entry = |entry: &Entry| ((entry.ad.get(), Minute(entry.minute.get())), entry.totals);
    Some(entries.iter().map(entry).collect())
}
