//! What the archive holds: one entry a batch, written after its objects. What no entry names is not in
//! the archive, whatever lies in its folders.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use weir_common::block::BlockHeader;

use super::audit::Since;

/// An hour since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hour(pub u64);

const MS_PER_HOUR: u64 = 3_600_000;

impl Hour {
    /// The hour that has this moment in it.
    #[must_use]
    pub const fn of(ms: u64) -> Self {
        Self(ms / MS_PER_HOUR)
    }

    /// The folder of its objects. Moments that no calendar has stand together under year 0.
    #[must_use]
    pub fn folder(self) -> String {
        let seconds = i64::try_from(self.0.saturating_mul(3600)).unwrap_or(i64::MAX);
        let Ok(time) = Timestamp::from_second(seconds) else {
            return "year=0000/month=00/day=00/hour=00".to_owned();
        };
        let at = time.to_zoned(TimeZone::UTC);
        format!("year={:04}/month={:02}/day={:02}/hour={:02}", at.year(), at.month(), at.day(), at.hour())
    }
}

/// The name of the object that begins with this block: that of the block, so that the same batch sent
/// again overwrites itself.
#[must_use]
pub fn object_path(hour: Hour, first: &BlockHeader) -> String {
    let (incarnation, epoch) = (first.incarnation.get(), first.epoch.get());
    let (worker, sequence) = (first.worker.get(), first.sequence.get());
    format!("{}/{incarnation:016x}-{epoch}-{worker}-{sequence}.parquet", hour.folder())
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Where it stands.
    pub path: String,
    /// When its clicks were received.
    pub hour: Hour,
    /// How many.
    pub rows: u64,
    /// Its octets.
    pub bytes: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
    /// What has become of it, by the [audit](super::audit).
    #[serde(skip)]
    pub since: Since,
}

/// How far a partition is archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetEntry {
    /// The partition of `clicks.v1`.
    pub partition: i32,
    /// The first record that is not archived.
    pub next: i64,
}

/// A batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 0 without gaps.
    pub batch: u64,
    /// Its objects.
    pub objects: Vec<ObjectEntry>,
    /// How far the topic is archived with it.
    pub offsets: Vec<OffsetEntry>,
    /// Blocks in it.
    pub blocks: u64,
    /// Rows in it.
    pub rows: u64,
    /// Records that are no block; they are kept as they came, under [`UNREADABLE`].
    pub unreadable: u64,
    /// What stood in the topic at this time, ms since 1970 by the archiver's clock, is archived with this batch
    /// and those before it. Not there where nobody asked how far the topic went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_until_ms: Option<u64>,
}

/// The folder of entries. Engines pass over names that begin so.
pub const FOLDER: &str = "_manifest";
/// The folder of records that are no blocks.
pub const UNREADABLE: &str = "_unreadable";

impl Entry {
    /// Where an entry stands.
    #[must_use]
    pub fn path(batch: u64) -> String {
        format!("{FOLDER}/{batch:012}.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_a_folder_that_engines_know_as_partitions() {
        assert_eq!(Hour::of(1_763_888_400_000).folder(), "year=2025/month=11/day=23/hour=09");
        assert_eq!(Hour::of(u64::MAX).folder(), "year=0000/month=00/day=00/hour=00");
    }
}
