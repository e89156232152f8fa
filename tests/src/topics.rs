//! A consumer of its own: reads a node's topics with `read_committed` and recounts them.
//!
//! It shares nothing with the sink but the documents: row format, block header, `docs/kafka.md`.

mod uniques;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::reason::Outcome;
use weir_common::row::Rows;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use uniques::Users;

pub use uniques::Sketches;

/// How long a topic may be silent before its end.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// A record as it came from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: BTreeMap<String, Vec<u8>>,
}

/// What a consumer is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What transactions committed.
    Committed,
    /// Aborted and open ones too.
    Uncommitted,
}

/// Reads a topic from its beginning to its end.
///
/// # Errors
/// When it cannot be read, or its end hides behind an open transaction.
pub fn read(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Vec<Record>> {
    let level = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "weir-labs")
        .set("isolation.level", level)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), SILENT_MAX)?;
    let partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
    ensure!(partitions > 0, "there is no topic {topic}");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut records, mut left) = (Vec::new(), partitions);
    let mut deadline = Instant::now() + SILENT_MAX;
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + SILENT_MAX;
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                    (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
                };
                records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                    headers: headers.map(header).collect(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
            None if Instant::now() > deadline => bail!("topic {topic} does not end"),
            None => {}
        }
    }
    Ok(records)
}

/// A bucket's value, as `docs/kafka.md` has its columns.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BucketColumns {
    node: U32,
    incarnation: U64,
    revision: U64,
    key: BucketKey,
    totals: BucketTotals,
}

/// A click as a log of acknowledged ones names it: foreign or not, impression, ordinal.
type ClickName = (bool, [u8; 16], u8);
/// The life of a journal folder, and a key in it.
type BucketName = (u64, BucketKey);
/// Incarnation, epoch, worker.
type StreamName = (u64, u32, u16);

/// What a recount of a node's topics found.
#[derive(Debug, Default)]
pub struct Recount {
    /// Blocks.
    pub blocks: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of rows.
    pub raw_bytes: u64,
    /// Bucket revisions.
    pub revisions: u64,
    /// Bytes of their values.
    pub bucket_bytes: u64,
    /// Buckets.
    pub buckets: u64,
    /// Blocks that are in the log more than once.
    pub blocks_twice: u64,
    /// Blocks missing between others of their stream, or before them.
    pub gaps: u64,
    /// Clicks with more than one row.
    pub clicks_twice: u64,
    /// Buckets whose highest revision is not the recount of the rows.
    pub mismatches: u64,
    /// The sketches of unique users.
    pub sketches: Sketches,
    clicks: HashMap<ClickName, u32>,
}

/// What the rows say.
#[derive(Debug, Default)]
struct Truth {
    buckets: HashMap<BucketName, BucketTotals>,
    users: Users,
}

impl Recount {
    /// Reads the topics and recounts them, with the default dimensions.
    ///
    /// # Errors
    /// When they cannot be read, or hold what is no block, row or bucket.
    pub fn of(bootstrap: &str, prefix: &str) -> Result<Self> {
        Self::of_two(bootstrap, bootstrap, prefix)
    }

    /// As [`Recount::of`], with the buckets and sketches of another cluster.
    ///
    /// # Errors
    /// As there.
    pub fn of_two(bootstrap: &str, of_buckets: &str, prefix: &str) -> Result<Self> {
        let mut recount = Self::default();
        let mut truth = Truth::default();
        let mut streams: BTreeMap<StreamName, BTreeMap<u64, u32>> = BTreeMap::new();
        for record in read(bootstrap, &format!("{prefix}clicks.v1"), Isolation::Committed)? {
            let header = header_of(&record)?;
            let stream = (header.incarnation.get(), header.epoch.get(), header.worker.get());
            *streams.entry(stream).or_default().entry(header.sequence.get()).or_default() += 1;
            recount.raw_bytes += record.value.len() as u64;
            recount.count_rows(&header, &record.value, &mut truth)?;
        }
        recount.blocks = streams.values().map(|stream| stream.len() as u64).sum();
        for stream in streams.values() {
            recount.blocks_twice += stream.values().filter(|&&times| times > 1).count() as u64;
            let last = stream.last_key_value().map_or(0, |(last, _)| *last);
            recount.gaps += last - stream.len() as u64;
        }
        recount.clicks_twice = recount.clicks.values().filter(|&&times| times > 1).count() as u64;
        recount.compare_buckets(of_buckets, prefix, truth.buckets)?;
        recount.sketches = truth.users.compare(of_buckets, prefix)?;
        Ok(recount)
    }

    fn count_rows(&mut self, header: &BlockHeader, body: &[u8], truth: &mut Truth) -> Result<()> {
        let mut rows = Rows::new(body);
        let mut count = 0;
        for (row, _) in &mut rows {
            count += 1;
            let click = &row.click;
            *self.clicks.entry((click.is_foreign(), click.impression.0, click.ordinal)).or_default() += 1;
            let key = Dimensions::DEFAULT.key(row.minute.get(), click, RULES);
            ensure!(Outcome::from_number(row.outcome).is_some(), "a row without an outcome");
            truth.buckets.entry((header.incarnation.get(), key)).or_default().count(row);
            truth.users.note(header.incarnation.get(), row);
        }
        ensure!(rows.rest().is_empty() && count == header.rows.get(), "a block's rows are damaged");
        self.rows += u64::from(count);
        Ok(())
    }

    fn compare_buckets(
        &mut self,
        bootstrap: &str,
        prefix: &str,
        mut truth: HashMap<BucketName, BucketTotals>,
    ) -> Result<()> {
        let mut highest: HashMap<BucketName, BucketColumns> = HashMap::new();
        for record in read(bootstrap, &format!("{prefix}buckets.v1"), Isolation::Committed)? {
            let found = BucketColumns::read_from_bytes(&record.value)
                .map_err(|_| anyhow::anyhow!("a bucket of {} octets", record.value.len()))?;
            ensure!(record.key == found.key.ad.get().to_be_bytes(), "a bucket under another ad's key");
            self.revisions += 1;
            self.bucket_bytes += record.value.len() as u64;
            let held = highest.entry((found.incarnation.get(), found.key)).or_insert(found);
            if found.revision > held.revision {
                *held = found;
            }
        }
        self.buckets = highest.len() as u64;
        for (name, found) in highest {
            if truth.remove(&name) != Some(found.totals) {
                self.mismatches += 1;
            }
        }
        self.mismatches += truth.len() as u64;
        Ok(())
    }

    /// How many of the clicks in a log of acknowledged ones have no row; and how many it names.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn missing(&self, acked: &Path) -> Result<(u64, u64)> {
        let log = std::fs::read_to_string(acked)?;
        let mut named = std::collections::HashSet::new();
        for line in log.lines() {
            named.insert(click_name(line).with_context(|| format!("no acknowledged click: {line:?}"))?);
        }
        let missing = named.iter().filter(|click| !self.clicks.contains_key(*click)).count() as u64;
        Ok((missing, named.len() as u64))
    }

    /// Whether the topics are sound and hold every click of a log of acknowledged ones, and no
    /// other.
    ///
    /// # Errors
    /// When they do not, with what was found; when the log names no click, or cannot be read.
    pub fn is_of(&self, acked: &Path) -> Result<()> {
        println!("{self}");
        self.check()?;
        let (missing, named) = self.missing(acked)?;
        ensure!(named > 0, "no click was acknowledged");
        ensure!((missing, self.rows) == (0, named), "{missing} of {named} acknowledged are missing: {self}");
        Ok(())
    }

    /// Whether the topics hold every block once, and buckets that are their recount.
    ///
    /// # Errors
    /// When they do not; with what was found.
    pub fn check(&self) -> Result<()> {
        let faults =
            self.blocks_twice + self.gaps + self.clicks_twice + self.mismatches + self.sketches.mismatches;
        if faults > 0 {
            bail!("{self}");
        }
        Ok(())
    }
}

impl std::fmt::Display for Recount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} rows in {} blocks, {} buckets in {} revisions; gaps {}, blocks twice {}, clicks twice {}, \
             mismatches {}; {} bytes of buckets for {} of rows; {:?}",
            self.rows,
            self.blocks,
            self.buckets,
            self.revisions,
            self.gaps,
            self.blocks_twice,
            self.clicks_twice,
            self.mismatches,
            self.bucket_bytes,
            self.raw_bytes,
            self.sketches,
        )
    }
}

/// Holds what was sent again against what was sent first, whether it was committed or not: a block
/// is the same octets in every record of its key, and so is a bucket of one revision when
/// `buckets` says that no restart came between. Gives how many records came again.
///
/// # Errors
/// When they differ, or cannot be read.
pub fn check_resent(bootstrap: &str, prefix: &str, buckets: bool) -> Result<u64> {
    let mut first: HashMap<Vec<u8>, Record> = HashMap::new();
    let mut again = 0;
    let mut records = read(bootstrap, &format!("{prefix}clicks.v1"), Isolation::Uncommitted)?;
    if buckets {
        records.extend(read(bootstrap, &format!("{prefix}buckets.v1"), Isolation::Uncommitted)?);
    }
    for record in records {
        let name = match BucketColumns::ref_from_bytes(&record.value) {
            // Node, incarnation, revision and key.
            Ok(_) if record.headers.is_empty() => record.value[..BUCKET_NAME_LEN].to_vec(),
            _ => record.key.clone(),
        };
        match first.get(&name) {
            None => drop(first.insert(name, record)),
            Some(before) => {
                ensure!(
                    (&before.key, &before.value, &before.headers)
                        == (&record.key, &record.value, &record.headers),
                    "a record came again with other octets: {before:?}, {record:?}"
                );
                again += 1;
            }
        }
    }
    Ok(again)
}

/// Octets of a bucket's value before its totals.
const BUCKET_NAME_LEN: usize = std::mem::offset_of!(BucketColumns, totals);

/// The version of the traffic rules that the daemon judges by.
const RULES: u32 = 1;

/// The block header of a raw record, after it was held against the record.
fn header_of(record: &Record) -> Result<BlockHeader> {
    let bytes = record.headers.get("block").context("a raw record without its block header")?;
    let header = BlockHeader::read_from_bytes(bytes)
        .map_err(|_| anyhow::anyhow!("a block header of {} octets, not {BLOCK_HEADER_LEN}", bytes.len()))?;
    ensure!(crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) == header.header_crc.get(), "a damaged block header");
    ensure!(crc32c::crc32c(&record.value) == header.body_crc.get(), "rows that are not their header's");
    let key = format!("{:016x}-{}-{}-{}", header.incarnation, header.epoch, header.worker, header.sequence);
    ensure!(record.key == key.as_bytes(), "a block under another's key: {key}");
    Ok(header)
}

/// A line of the generator's log: `issued|foreign HEX ORDINAL`.
fn click_name(line: &str) -> Option<ClickName> {
    let mut words = line.split(' ');
    let is_foreign = match words.next()? {
        "foreign" => true,
        "issued" => false,
        _ => return None,
    };
    let impression = u128::from_str_radix(words.next()?, 16).ok()?;
    Some((is_foreign, impression.to_be_bytes(), words.next()?.parse().ok()?))
}
