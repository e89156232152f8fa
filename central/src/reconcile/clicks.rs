//! The clicks of a time from the archive, as much at once as memory holds.

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};

use super::ReconcileError;
use super::recount::Click;
use crate::archive::audit::Deletion;
use crate::archive::day::Day;
use crate::archive::manifest::{Entry, Hour, ObjectEntry};
use crate::archive::place::Place;
use crate::archive::read::{Object, Values};

/// Clicks that are recounted at once: some 600 MB.
pub const CLICKS_MAX: u64 = 4_000_000;

/// The objects of clicks that were received in these hours, in order.
pub fn objects(manifest: &[Entry], hours: std::ops::Range<Hour>) -> impl Iterator<Item = &ObjectEntry> {
    manifest.iter().flat_map(|entry| &entry.objects).filter(move |object| hours.contains(&object.hour))
}

/// Refuses hours of which something was deleted: what is counted without it would be wrong.
pub fn are_all_there(manifest: &[Entry], hours: std::ops::Range<Hour>) -> Result<(), ReconcileError> {
    let gone = |object: &ObjectEntry| Some(deleted(object.hour, object.deletion()?));
    objects(manifest, hours).find_map(gone).map_or(Ok(()), Err)
}

fn deleted(hour: Hour, deletion: &Deletion) -> ReconcileError {
    ReconcileError::Deleted { day: Day::of(hour), deletion: Box::new(deletion.clone()) }
}

/// An object's octets, as they are or have become since the manifest was read.
pub async fn octets(place: &Place, object: &ObjectEntry) -> Result<Bytes, ReconcileError> {
    match place.get(&object.path).await {
        Ok(octets) if object.is(&octets) => return Ok(octets),
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => {}
    }
    let manifest = place.manifest().await?;
    let mut objects = manifest.iter().flat_map(|entry| &entry.objects);
    let now = objects.find(|now| now.path == object.path).unwrap_or(object);
    if let Some(deletion) = now.deletion() {
        return Err(deleted(now.hour, deletion));
    }
    let octets = place.get(&now.path).await?;
    if now.is(&octets) { Ok(octets) } else { Err(ReconcileError::Checksum { path: now.path.clone() }) }
}

/// Which part of all impressions to read: all clicks of an impression are in the same part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub number: u64,
    /// How many there are.
    pub of: u64,
}

impl Part {
    fn has(self, impression: [i64; 2]) -> bool {
        // Words that count up together must not cancel out: so each is multiplied on its own way in.
        let [low, high] = impression.map(i64::cast_unsigned);
        let mixed =
            low.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(high).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed >> 32) % self.of == self.number
    }
}

/// The columns that a recount needs, in the order in which [`Group`] takes them.
const COLUMNS: [&str; 19] = [
    "impression_low",
    "impression_high",
    "ordinal",
    "click_flags",
    "incarnation",
    "epoch",
    "worker",
    "sequence",
    "row",
    "received_at_ms",
    "clicked_at_ms",
    "minute",
    "outcome",
    "reason",
    "row_flags",
    "traffic",
    "ad",
    "campaign",
    "price_micros",
];

/// Reads an object's clicks of one part.
///
/// # Errors
/// When it is no object of an archive.
pub fn read(octets: Bytes, part: Part, clicks: &mut Vec<Click>) -> Result<()> {
    let object = Object::of(octets)?;
    for group in 0..object.groups() {
        let columns = Group(object.columns(group, COLUMNS)?);
        for row in 0..columns.len() {
            let click = columns.click(row).ok_or_else(|| {
                ParquetError::General("a column has another type than the archive gives it".to_owned())
            })?;
            if part.has(click.impression) {
                clicks.push(click);
            }
        }
    }
    Ok(())
}

struct Group([Values; COLUMNS.len()]);

impl Group {
    fn len(&self) -> usize {
        self.0[0].longs().len()
    }

    fn long(&self, column: usize, row: usize) -> Option<i64> {
        self.0[column].longs().get(row).copied()
    }

    fn octet(&self, column: usize, row: usize) -> Option<u8> {
        u8::try_from(*self.0[column].ints().get(row)?).ok()
    }

    fn click(&self, row: usize) -> Option<Click> {
        Some(Click {
            impression: [self.long(0, row)?, self.long(1, row)?],
            ordinal: self.octet(2, row)?,
            click_flags: self.octet(3, row)?,
            place: (
                self.long(4, row)?,
                self.long(5, row)?,
                *self.0[6].ints().get(row)?,
                self.long(7, row)?,
                self.long(8, row)?,
            ),
            received_at_ms: self.long(9, row)?,
            clicked_at_ms: self.long(10, row)?,
            minute: u32::try_from(self.long(11, row)?).ok()?,
            outcome: self.octet(12, row)?,
            reason: self.octet(13, row)?,
            row_flags: self.octet(14, row)?,
            traffic: self.octet(15, row)?,
            ad: self.long(16, row)?,
            campaign: u32::try_from(self.long(17, row)?).ok()?,
            price_micros: self.long(18, row)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_impression_is_in_one_part_and_parts_are_of_a_size() {
        let mut counts = [0_u32; 7];
        for n in 0..7000_i64 {
            let parts = (0..7).filter(|number| Part { number: *number, of: 7 }.has([n << 32 | 65537, n]));
            let parts: Vec<_> = parts.collect();
            assert_eq!(parts.len(), 1);
            counts[parts[0] as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
