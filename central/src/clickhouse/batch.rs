//! Buckets of one insert: the values of their records as they came, which are rows of `RowBinary`.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::time::Minute;

use super::ClickhouseError;
use super::client::Client;
use crate::kafka::Delivered;
use crate::record::{self, RecordError, Word};

/// Buckets of one insert.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<u8>,
    count: u64,
    /// The first and the last offset, by partition.
    offsets: BTreeMap<i32, (i64, i64)>,
    minutes: BTreeSet<Minute>,
}

impl Batch {
    /// Takes a record of buckets.
    ///
    /// # Errors
    /// When it is none; it is left out.
    pub(super) fn take(&mut self, record: &Delivered) -> Result<(), RecordError> {
        let word = record::bucket(&record.value)?;
        if let Word::Bucket { key, .. } = word {
            self.minutes.insert(Minute(key.minute.get()));
        }
        self.rows.extend_from_slice(&record.value);
        self.count += 1;
        let of = self.offsets.entry(record.partition).or_insert((record.offset, record.offset));
        of.1 = record.offset;
        Ok(())
    }

    /// What names this insert, so that one that is made again is dropped: where its records stand, and a checksum
    /// of them, for a topic that is made anew has other records at the same offsets.
    fn token(&self, topic: &str) -> String {
        let ranges =
            self.offsets.iter().map(|(partition, (first, last))| format!(" {partition}:{first}-{last}"));
        format!("{topic}{} {:08x}", ranges.collect::<String>(), crc32c::crc32c(&self.rows))
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Their minutes.
    pub(super) const fn minutes(&self) -> &BTreeSet<Minute> {
        &self.minutes
    }

    /// Inserts them, records of this topic, as often as it takes.
    pub(super) fn insert(self, client: &Client<'_>, topic: &str) -> Result<(), ClickhouseError> {
        let token = self.token(topic);
        let statement = format!("INSERT INTO {}.buckets FORMAT RowBinary", client.database());
        let settings = [
            ("insert_deduplication_token", token.as_str()),
            // A topic that is read from its beginning may have more months than the hundred an insert may have by default.
            ("max_partitions_per_insert_block", "0"),
        ];
        client.insert(&statement, &settings, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::bucket::BucketKey;
    use weir_common::record::{BUCKET_RECORD_LEN, BucketRecord};
    use zerocopy::IntoBytes;

    use super::*;

    fn record(partition: i32, offset: i64, minute: u32) -> Delivered {
        let bucket = BucketRecord {
            node: 1.into(),
            incarnation: 2.into(),
            revision: 3.into(),
            key: BucketKey { minute: minute.into(), ..BucketKey::default() },
            totals: Default::default(),
        };
        Delivered { partition, offset, value: bucket.as_bytes().to_vec(), ..Delivered::default() }
    }

    fn batch(records: &[Delivered]) -> Batch {
        let mut batch = Batch::default();
        records.iter().for_each(|record| batch.take(record).unwrap());
        batch
    }

    #[test]
    fn an_insert_is_named_by_where_its_records_stand_and_by_what_they_are() {
        let name = batch(&[record(0, 7, 1), record(2, 3, 1), record(0, 9, 2)]).token("weir.buckets.v1");
        assert!(name.starts_with("weir.buckets.v1 0:7-9 2:3-3 "), "{name}");
        assert_eq!(
            name,
            batch(&[record(0, 7, 1), record(2, 3, 1), record(0, 9, 2)]).token("weir.buckets.v1")
        );
        assert_ne!(
            name,
            batch(&[record(0, 7, 1), record(2, 3, 1), record(0, 9, 3)]).token("weir.buckets.v1")
        );
        assert_ne!(
            name,
            batch(&[record(0, 7, 1), record(2, 3, 1), record(0, 8, 2)]).token("weir.buckets.v1")
        );
        assert_ne!(name, batch(&[record(0, 7, 1), record(2, 3, 1), record(0, 9, 2)]).token("eu.buckets.v1"));
    }

    #[test]
    fn what_is_no_bucket_is_left_out_and_the_others_go_as_they_came() {
        let mut batch = batch(&[record(0, 1, 5)]);
        let cut = Delivered { value: vec![0; BUCKET_RECORD_LEN - 1], ..record(0, 2, 6) };
        assert!(batch.take(&cut).is_err());
        batch.take(&record(0, 3, 7)).unwrap();
        assert_eq!((batch.count(), batch.minutes().len()), (2, 2));
        assert_eq!(batch.rows, [record(0, 1, 5).value, record(0, 3, 7).value].concat());
    }
}
