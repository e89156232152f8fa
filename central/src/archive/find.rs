//! Finds every archived row of one impression.

use futures_util::{StreamExt, TryStreamExt, stream};
use weir_common::id::ImpressionId;

use super::manifest::ObjectEntry;
use super::place::{Place, READS_MAX};
use super::ranged::{Ranged, RangedError};
use super::read::Values;

/// The most rows that are told of one impression. A node writes at most seven in a signature's lifetime; of a foreign
/// id that somebody sends again and again there may be more.
pub const ROWS_MAX: usize = 1000;
/// How often one object is read: it is replaced once in its life.
const READS_OF_ONE_MAX: usize = 3;

/// What is told of a row. Nothing of it is of a user: no key, no place, no extension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// When its node read it, ms since 1970.
    pub received_at_ms: i64,
    /// Where it stands: incarnation, epoch, worker, sequence, row.
    pub place: (u64, i64, i32, u64, i64),
    /// When it was made, ms since 1970, as whoever sent it says.
    pub clicked_at_ms: i64,
    /// The minute that counts it, since 1970.
    pub minute: i64,
    /// The node.
    pub node: i64,
    /// Which click on the impression.
    pub ordinal: i32,
    /// Outcome, reason, bits of all reasons, bits of the row and of the click.
    pub judged: [i32; 5],
    /// The ad.
    pub ad: u64,
    /// Campaign, creative, placement, publisher.
    pub of: [i64; 4],
    /// The price.
    pub price_micros: u64,
    /// Empty when unknown.
    pub country: String,
    /// Class of the device, operating system.
    pub device: [i32; 2],
    /// The object that has it.
    pub object: String,
}

const LONGS: [&str; 14] = [
    "received_at_ms",
    "incarnation",
    "epoch",
    "sequence",
    "row",
    "clicked_at_ms",
    "minute",
    "node",
    "ad",
    "campaign",
    "creative",
    "placement",
    "publisher",
    "price_micros",
];
const INTS: [&str; 9] =
    ["worker", "ordinal", "outcome", "reason", "traffic", "row_flags", "click_flags", "device", "os"];

/// All rows of an impression in these objects, in the order in which they were received.
///
/// # Errors
/// When an object is not there or damaged.
pub async fn find(
    place: &Place,
    objects: &[ObjectEntry],
    impression: ImpressionId,
) -> Result<Vec<Found>, RangedError> {
    let look = async |object: &ObjectEntry| {
        for _ in 1..READS_OF_ONE_MAX {
            match in_object(place, object, impression).await {
                Err(RangedError::Place(error)) if error.has_changed() => {}
                found => return found,
            }
        }
        in_object(place, object, impression).await
    };
    let found = stream::iter(objects).map(look).buffered(READS_MAX);
    let mut found: Vec<_> = found.try_concat().await?;
    found.sort_unstable();
    Ok(found)
}

async fn in_object(
    place: &Place,
    object: &ObjectEntry,
    impression: ImpressionId,
) -> Result<Vec<Found>, RangedError> {
    let words = impression.words().map(u64::cast_signed);
    let mut ranged = Ranged::open(place, object).await?;
    let mut found = Vec::new();
    for group in 0..ranged.groups() {
        let may_have = ranged.is_within(group, "impression_low", words[0])
            && ranged.is_within(group, "impression_high", words[1])
            && ranged.passes(group, "impression_high", words[1]).await?;
        if !may_have || found.len() >= ROWS_MAX {
            continue;
        }
        let [low, high] = ranged.columns(group, ["impression_low", "impression_high"]).await?;
        let pairs = low.longs().iter().zip(high.longs());
        let is_it = |(_, pair): &(usize, (&i64, &i64))| words == [*pair.0, *pair.1];
        let rows: Vec<_> = pairs.enumerate().filter(is_it).map(|(row, _)| row).collect();
        if rows.is_empty() {
            continue;
        }
        let longs = ranged.columns(group, LONGS).await?;
        let ints = ranged.columns(group, INTS).await?;
        let [countries] = ranged.columns(group, ["country"]).await?;
        let row = |row: usize| told(row, (&longs, &ints, &countries), &object.path);
        found.extend(rows.into_iter().map(row));
    }
    Ok(found)
}

/// A row of columns that all have it.
fn told(row: usize, (longs, ints, countries): (&[Values; 14], &[Values; 9], &Values), object: &str) -> Found {
    let long = |column: usize| longs[column].longs().get(row).copied().unwrap_or_default();
    let int = |column: usize| ints[column].ints().get(row).copied().unwrap_or_default();
    let country = match countries {
        Values::Octets(values) => values.get(row).map_or(&[][..], |value| value.data()),
        _ => &[],
    };
    Found {
        received_at_ms: long(0),
        place: (long(1).cast_unsigned(), long(2), int(0), long(3).cast_unsigned(), long(4)),
        clicked_at_ms: long(5),
        minute: long(6),
        node: long(7),
        ordinal: int(1),
        judged: [int(2), int(3), int(4), int(5), int(6)],
        ad: long(8).cast_unsigned(),
        of: [long(9), long(10), long(11), long(12)],
        price_micros: long(13).cast_unsigned(),
        country: String::from_utf8_lossy(country).into_owned(),
        device: [int(7), int(8)],
        object: object.to_owned(),
    }
}
