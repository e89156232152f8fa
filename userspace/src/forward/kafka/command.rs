//! `weir read-topic`: prints a topic's committed records as JSON, one a line.

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;

use datasketches::common::NumStdDev;
use datasketches::theta::CompactThetaSketch;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use serde_json::{Map, Value, json};
use weir_common::block::BlockHeader;
use weir_common::bucket::BucketTotals;
use weir_common::id::{Incarnation, NodeId};
use weir_common::reason::{Outcome, Reason};
use weir_common::record::{BLOCK_HEADER, BucketRecord, UniquesRecord};
use weir_common::row::{Row, Rows};
use zerocopy::FromBytes;

use super::KafkaError;
use super::reader::{End, Reader};
use super::record::{REJECT_HEADERS, reject_headers};
use super::topics::TopicNames;
use crate::cli::{ReadTopicArgs, TopicKind};
use crate::config::{self, Config};
use crate::daemon::store_path;
use crate::forward::embedded::{Store, StoreError};
use crate::rejects::hex;

/// The name the reader gives the brokers.
const CLIENT_ID: &str = "weir-read-topic";

/// Why a topic cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum ReadTopicError {
    /// The config names no cluster.
    #[error("kafka.brokers names none; this reads the topics of the config's cluster")]
    NoBrokers,
    /// Kafka, or what stands there.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The embedded store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Standard output.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Prints what a topic of the config's cluster holds now, partition by partition.
///
/// # Errors
/// When it cannot be read.
pub fn run(config: &Config, args: &ReadTopicArgs) -> Result<(), ReadTopicError> {
    if args.topic == TopicKind::Rejects && config.forward.sink == config::Sink::Embedded {
        return embedded_rejects(config, args);
    }
    let raw = &config.kafka.cluster;
    let buckets = config.kafka.buckets.as_ref().unwrap_or(raw);
    if raw.settings.brokers.is_empty() {
        return Err(ReadTopicError::NoBrokers);
    }
    let names = TopicNames::new(&config.kafka.topics.prefix);
    let (topic, cluster) = match args.topic {
        TopicKind::Clicks => (names.clicks, raw),
        TopicKind::Buckets => (names.buckets, buckets),
        TopicKind::Checkpoints => (names.checkpoints, raw),
        TopicKind::BucketCheckpoints => (names.checkpoints, buckets),
        TopicKind::Rejects => (names.rejects, raw),
        TopicKind::Uniques => (names.uniques, buckets),
    };
    let reader = Reader::new(&cluster.settings, CLIENT_ID)?;
    let mut printer = Printer::new(args.limit);
    if printer.left > 0 {
        reader.read(&topic, End::Visible, |message| Ok(printer.print(&record(args, message))))?;
    }
    printer.end()
}

/// Prints lines until there are enough, or nobody takes them.
struct Printer {
    out: std::io::StdoutLock<'static>,
    left: u64,
    printed: std::io::Result<()>,
}

impl Printer {
    fn new(limit: u64) -> Self {
        Self { out: std::io::stdout().lock(), left: limit, printed: Ok(()) }
    }

    /// Prints a line; breaks off when it was the last.
    fn print(&mut self, line: &Value) -> ControlFlow<()> {
        self.printed = writeln!(self.out, "{line}");
        self.left -= 1;
        if self.left == 0 || self.printed.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Whether all was printed. A reader who has seen enough, as `head` has, is no failure.
    fn end(self) -> Result<(), ReadTopicError> {
        match self.printed {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Prints the samples of malformed input in the embedded store.
fn embedded_rejects(config: &Config, args: &ReadTopicArgs) -> Result<(), ReadTopicError> {
    let store = Store::open(&store_path(config), Incarnation(0))?;
    let mut printer = Printer::new(args.limit);
    for found in store.rejects().take(usize::try_from(args.limit).unwrap_or(usize::MAX)) {
        let (incarnation, found) = found?;
        let values = reject_headers(NodeId(config.node.id), &found).map(String::into_bytes);
        let headers = REJECT_HEADERS.iter().copied().zip(values.iter().map(Vec::as_slice));
        let line = json!({ "key": found.key(incarnation), "reject": reject(headers, &found.bytes) });
        if printer.print(&line).is_break() {
            break;
        }
    }
    printer.end()
}

/// One record as JSON.
fn record(args: &ReadTopicArgs, message: &BorrowedMessage<'_>) -> Value {
    let value = message.payload().unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("partition".to_owned(), message.partition().into());
    fields.insert("offset".to_owned(), message.offset().into());
    let key = message.key().unwrap_or_default();
    let (key, named) = match args.topic {
        TopicKind::Clicks => {
            (json!(String::from_utf8_lossy(key)), ("block", block(block_header(message), value, args.rows)))
        }
        TopicKind::Buckets => (json!(key.try_into().map(u64::from_be_bytes).ok()), ("bucket", bucket(value))),
        TopicKind::Uniques => (json!(key.try_into().map(u64::from_be_bytes).ok()), ("sketch", sketch(value))),
        TopicKind::Checkpoints | TopicKind::BucketCheckpoints => {
            let value = serde_json::from_slice(value).unwrap_or(Value::Null);
            (json!(String::from_utf8_lossy(key)), ("value", value))
        }
        TopicKind::Rejects => {
            (json!(String::from_utf8_lossy(key)), ("reject", reject(headers_of(message), value)))
        }
    };
    fields.insert("key".to_owned(), key);
    fields.insert(named.0.to_owned(), named.1);
    Value::Object(fields)
}

fn block_header(message: &BorrowedMessage<'_>) -> Option<BlockHeader> {
    let bytes = message.headers()?.iter().find(|header| header.key == BLOCK_HEADER)?.value?;
    BlockHeader::read_from_bytes(bytes).ok()
}

fn headers_of<'a>(message: &'a BorrowedMessage<'_>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    headers.map(|header| (header.key, header.value.unwrap_or_default()))
}

/// Its headers by their names, and its bytes.
fn reject<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, value: &[u8]) -> Value {
    let text = |(name, value): (&str, &[u8])| (name.to_owned(), String::from_utf8_lossy(value).into());
    let mut fields: Map<String, Value> = headers.map(text).collect();
    fields.insert("octets".to_owned(), value.len().into());
    fields.insert("hex".to_owned(), hex(value).into());
    Value::Object(fields)
}

fn block(header: Option<BlockHeader>, body: &[u8], with_rows: bool) -> Value {
    let Some(header) = header else { return Value::Null };
    let outcomes = header.outcomes.iter().enumerate().filter_map(|(number, count)| {
        let outcome = Outcome::from_number(u8::try_from(number).ok()?)?;
        Some((outcome.name().to_owned(), Value::from(count.get())))
    });
    let mut block = json!({
        "node": header.node.get(),
        "incarnation": format!("{:016x}", header.incarnation.get()),
        "epoch": header.epoch.get(),
        "worker": header.worker.get(),
        "sequence": header.sequence.get(),
        "received_at_ms": header.received_at_ms.get(),
        "rows": header.rows.get(),
        "octets": body.len(),
        "sound": crc32c::crc32c(body) == header.body_crc.get(),
        "outcomes": outcomes.collect::<Map<_, _>>(),
    });
    if with_rows {
        block["clicks"] = Rows::new(body).map(|(row, _)| click(row)).collect();
    }
    block
}

fn click(row: &Row) -> Value {
    let click = &row.click;
    json!({
        "received_at_ms": row.received_at_ms.get(),
        "minute": row.minute.get(),
        "outcome": Outcome::from_number(row.outcome).map(Outcome::name),
        "reason": Reason::from_number(row.reason).filter(|_| row.reason != 0).map(Reason::name),
        "impression": format!("{:032x}", u128::from_be_bytes(click.impression.0)),
        "ordinal": click.ordinal,
        "ad": click.ad.get(),
        "campaign": click.campaign.get(),
        "publisher": click.publisher.get(),
        "placement": click.placement.get(),
        "creative": click.creative.get(),
        "price_micros": click.price_micros.get(),
        "country": letters(click.country),
        "device": click.device,
        "os": click.os,
        "clicked_at_ms": click.clicked_at_ms.get(),
    })
}

/// Two letters; none for two zero bytes.
fn letters(country: [u8; 2]) -> Option<String> {
    (country != [0, 0]).then(|| String::from_utf8_lossy(&country).into_owned())
}

fn bucket(value: &[u8]) -> Value {
    let Ok(record) = BucketRecord::ref_from_bytes(value) else { return Value::Null };
    let BucketRecord { key, totals, .. } = record;
    json!({
        "node": record.node.get(),
        "incarnation": format!("{:016x}", record.incarnation.get()),
        "revision": record.revision.get(),
        "ad": key.ad.get(),
        "minute": key.minute.get(),
        "publisher": key.publisher.get(),
        "placement": key.placement.get(),
        "creative": key.creative.get(),
        "country": letters(key.country),
        "device": key.device,
        "os": key.os,
        "rules": key.rules.get(),
        "totals": totals_json(totals),
    })
}

fn totals_json(totals: &BucketTotals) -> Value {
    json!({
        "gross": totals.gross(),
        "accepted": totals.accepted.get(),
        "repeat": totals.repeat.get(),
        "late": totals.late.get(),
        "clock_suspect": totals.clock_suspect.get(),
        "cost_micros": totals.cost_micros.get(),
        "unsigned": totals.unsigned.get(),
        "marked": totals.marked.get(),
        "marked_cost_micros": totals.marked_cost_micros.get(),
        "filtered": totals.filtered.iter().map(|count| count.get()).collect::<Vec<_>>(),
    })
}

fn sketch(value: &[u8]) -> Value {
    let Some((record, theta)) = UniquesRecord::read(value) else { return Value::Null };
    let users = CompactThetaSketch::deserialize(theta).map_or(Value::Null, |users| {
        json!({
            "estimate": users.estimate().round() as u64,
            "lower": users.lower_bound(NumStdDev::Two).round() as u64,
            "upper": users.upper_bound(NumStdDev::Two).round() as u64,
            "exact": !users.is_estimation_mode(),
            "octets": theta.len(),
        })
    });
    json!({
        "node": record.node.get(),
        "incarnation": format!("{:016x}", record.incarnation.get()),
        "revision": record.revision.get(),
        "ad": record.ad.get(),
        "minute": record.minute.get(),
        "unsketched": record.unsketched.get(),
        "users": users,
    })
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Incarnation, NodeId};
    use weir_common::time::Minute;
    use zerocopy::{FromZeros, IntoBytes};

    use super::super::super::batch::{Bucket, FlushNo};
    use super::super::super::uniques::Uniques;
    use super::super::record;
    use super::*;

    #[test]
    fn a_bucket_is_printed_with_its_names_and_damage_as_null() {
        let mut found = Bucket { key: Default::default(), totals: BucketTotals::default() };
        found.key.ad = 7.into();
        found.key.country = *b"PL";
        found.totals.accepted = 5.into();
        found.totals.repeat = 2.into();
        let record = record::bucket(NodeId(3), Incarnation(0xab), FlushNo(9), &found);
        let printed = bucket(record.as_bytes());
        assert_eq!((&printed["ad"], &printed["country"]), (&json!(7), &json!("PL")));
        assert_eq!((&printed["revision"], &printed["totals"]["gross"]), (&json!(9), &json!(7)));
        assert_eq!(printed["incarnation"], "00000000000000ab");
        assert_eq!(bucket(&record.as_bytes()[1..]), Value::Null);
    }

    #[test]
    fn a_sketch_is_printed_with_its_estimate_and_damage_as_null() {
        let mut uniques = Uniques::new(1 << 20);
        let mut row = Row::new_zeroed();
        row.click.ad = 7.into();
        row.minute = 9.into();
        for user in [1_u64, 2, 3, 2] {
            row.click.user_key = user.into();
            uniques.row(&row);
        }
        let (_, closing) = uniques.close(Minute(10), u64::MAX, 1);
        let record = record::sketch(NodeId(3), Incarnation(0xab), FlushNo(9), &closing.sketches[0]);
        let printed = sketch(&record);
        assert_eq!((&printed["ad"], &printed["minute"]), (&json!(7), &json!(9)));
        assert_eq!((&printed["users"]["estimate"], &printed["users"]["exact"]), (&json!(3), &json!(true)));
        assert_eq!(sketch(&record[1..]), Value::Null);
    }
}
