//! What a record of a node says. Whatever is in the log may be anybody's bytes: what is not sound is
//! told apart here, and nothing behind this module looks again.

use serde::Deserialize;
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{Incarnation, NodeId};
use weir_common::record::{BucketRecord, UniquesRecord};
use weir_common::time::{Minute, UnixMs};
use zerocopy::FromBytes;

use crate::users::Users;

/// A life of a node's journal folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The node, as the operator numbers it.
    pub node: NodeId,
    /// The life of its journal folder.
    pub incarnation: Incarnation,
}

/// The number of a flush; the highest one of a key is the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What a record of buckets or uniques says.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// The totals of a bucket so far.
    Bucket {
        /// Who counted.
        life: Life,
        /// The flush.
        revision: Revision,
        /// What is counted.
        key: BucketKey,
        /// The totals.
        totals: BucketTotals,
    },
    /// The unique users of an ad in a minute.
    Sketch {
        /// Who counted.
        life: Life,
        /// The flush.
        revision: Revision,
        /// The ad.
        ad: u64,
        /// The minute.
        minute: Minute,
        /// Them.
        users: Users,
    },
    /// Some ads of a minute have no sketch, or one that nobody can read.
    Unsketched {
        /// Whose.
        life: Life,
        /// The minute.
        minute: Minute,
        /// How many clicks at least are in none.
        clicks: u64,
    },
    /// A checkpoint: how far a node is.
    Told {
        /// The node.
        life: Life,
        /// How far.
        told: Told,
    },
    /// Of no interest here.
    Nothing,
}

/// How far a node says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
    /// Its last flush.
    pub flush: u64,
    /// Buckets of minutes before this one do not change any more, and their sketches are sent.
    pub final_before: Minute,
    /// Every click acknowledged before this time, by the node's clock, is counted.
    pub counted_until: Option<UnixMs>,
    /// When the broker took the record, by its clock.
    pub appended_at: UnixMs,
}

/// Why a record says nothing.
#[derive(Clone, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum RecordError {
    /// a bucket has {0} octets and not 180; something that is no node writes to the topic
    BucketLength(usize),
    /// a record of unique users is cut short or too long; something that is no node writes to the topic
    Uniques,
    /// a checkpoint cannot be read: {0}
    Checkpoint(String),
}

/// What a record of `buckets.v1` says.
///
/// # Errors
/// When it is no bucket.
pub fn bucket(value: &[u8]) -> Result<Word, RecordError> {
    let record = BucketRecord::read_from_bytes(value).map_err(|_| RecordError::BucketLength(value.len()))?;
    let life = Life { node: NodeId(record.node.get()), incarnation: Incarnation(record.incarnation.get()) };
    let revision = Revision(record.revision.get());
    Ok(Word::Bucket { life, revision, key: record.key, totals: record.totals })
}

/// What a record of `uniques.v1` says. A sketch that cannot be read makes its minute one without all
/// sketches: an answer then says that it is incomplete, and is not wrong.
///
/// # Errors
/// When it is not even a record of a sketch.
pub fn uniques(value: &[u8]) -> Result<Word, RecordError> {
    let (columns, theta) = UniquesRecord::read(value).ok_or(RecordError::Uniques)?;
    let life = Life { node: NodeId(columns.node.get()), incarnation: Incarnation(columns.incarnation.get()) };
    let minute = Minute(columns.minute.get());
    let unsketched = columns.unsketched.get();
    if unsketched > 0 {
        return Ok(Word::Unsketched { life, minute, clicks: unsketched });
    }
    let Some(users) = Users::read(theta) else {
        return Ok(Word::Unsketched { life, minute, clicks: 1 });
    };
    let (revision, ad) = (Revision(columns.revision.get()), columns.ad.get());
    Ok(Word::Sketch { life, revision, ad, minute, users })
}

/// The part of a checkpoint's JSON that is of interest here (`docs/kafka.md`, section 7).
#[derive(Deserialize)]
struct CheckpointValue {
    node: u32,
    incarnation: String,
    region: String,
    pop: String,
    flush: u64,
    final_before: u32,
    #[serde(default)]
    counted_until_ms: Option<u64>,
}

/// What a record of `checkpoints.v1` says: of claims and gaps, nothing.
///
/// # Errors
/// When a checkpoint cannot be read.
pub fn checkpoint(key: &[u8], value: &[u8], appended_at: UnixMs) -> Result<Word, RecordError> {
    if !key.starts_with(b"checkpoint:") || value.is_empty() {
        return Ok(Word::Nothing);
    }
    let unreadable = |why: String| RecordError::Checkpoint(why);
    let value: CheckpointValue =
        serde_json::from_slice(value).map_err(|error| unreadable(error.to_string()))?;
    let incarnation = u64::from_str_radix(&value.incarnation, 16);
    let incarnation = incarnation.map_err(|error| unreadable(error.to_string()))?;
    let told = Told {
        region: value.region,
        pop: value.pop,
        flush: value.flush,
        final_before: Minute(value.final_before),
        counted_until: value.counted_until_ms.map(UnixMs),
        appended_at,
    };
    Ok(Word::Told { life: Life { node: NodeId(value.node), incarnation: Incarnation(incarnation) }, told })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::users::SKETCH_LEN_MAX;

    fn uniques_record(unsketched: u64, theta: &[u8]) -> Vec<u8> {
        let columns = UniquesRecord {
            node: 1.into(),
            incarnation: 2.into(),
            revision: 3.into(),
            ad: 4.into(),
            minute: 5.into(),
            unsketched: unsketched.into(),
        };
        let len = [theta.len() as u8 | 0x80, (theta.len() >> 7) as u8 | 0x80, (theta.len() >> 14) as u8];
        [columns.as_bytes(), &len, theta].concat()
    }

    #[test]
    fn a_sketch_of_hostile_octets_makes_its_minute_incomplete_and_nothing_else() {
        let is_unsketched = |theta: &[u8]| {
            let word = uniques(&uniques_record(0, theta)).unwrap();
            matches!(word, Word::Unsketched { minute: Minute(5), clicks: 1, .. })
        };
        // The empty sketch is sound; a count of hashes that no octets back is not.
        assert!(!is_unsketched(&[1, 3, 3, 0, 0, 0x1e, 0, 0]));
        assert!(is_unsketched(&[]));
        assert!(is_unsketched(&[2, 3, 3, 0, 0, 0x1a, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]));
        assert!(is_unsketched(&vec![0xee; SKETCH_LEN_MAX + 1]));
        assert_eq!(uniques(&uniques_record(0, &[])[..42]), Err(RecordError::Uniques));
    }

    #[test]
    fn a_checkpoint_without_a_time_of_counting_is_one_of_an_older_node() {
        let value = br#"{"node":1,"incarnation":"00000000000000ab","region":"eu","pop":"waw","flush":7,
            "final_before":9,"streams":[],"counted":[]}"#;
        let word = checkpoint(b"checkpoint:1:00000000000000ab", value, UnixMs(5)).unwrap();
        let Word::Told { life, told } = word else { panic!("{word:?}") };
        assert_eq!((life.incarnation, told.flush), (Incarnation(0xab), 7));
        assert_eq!((told.final_before, told.counted_until), (Minute(9), None));
        assert_eq!(checkpoint(b"claim:1", b"{}", UnixMs(5)), Ok(Word::Nothing));
        assert!(checkpoint(b"checkpoint:1:ab", b"{", UnixMs(5)).is_err());
    }

    proptest! {
        #[test]
        fn no_octets_bring_a_reader_down(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = bucket(&value);
            let _ = uniques(&value);
            let _ = uniques(&uniques_record(0, &value));
            let _ = checkpoint(b"checkpoint:1:1", &value, UnixMs(0));
        }
    }
}
