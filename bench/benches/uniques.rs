//! What unique users cost: octets of sketches and of buckets on their way to the sink, against the
//! octets of the clicks they come from, and time and memory of the fold.
//!
//! `cargo bench -p weir-bench --bench uniques [-- ADS CLICKS_PER_AD]`
//!
//! One minute of clicks, 300 for each of 100,000 ads on average, ads by Zipf's law with exponent 1,
//! from numbers that are always the same: every figure but the times repeats exactly. Octets are
//! those of Kafka: record by record with key and overhead, spread over 12 partitions in record
//! batches of at most a megabyte, each compressed by the program `zstd` at its default level, where that is
//! installed. Received are UDP
//! payloads of 14 clicks. Times are processor time of the thread.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use weir::forward::kafka::record;
use weir::forward::{Bucket, FlushNo, Uniques};
use weir_bench::thread_time::thread_time;
use weir_bench::zipf::ad_table;
use weir_common::block::BLOCK_HEADER_LEN;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};
use weir_common::row::Row;
use weir_common::time::Minute;
use weir_common::wire::{CLICK_LEN, HEADER_LEN};
use zerocopy::{FromZeros, IntoBytes};

const MINUTE: u32 = 30_000_000;
const CLICKS_PER_DATAGRAM: u64 = 14;
const PARTITIONS: usize = 12;
/// As the client is told: below what a broker takes.
const RECORD_BATCH_BYTES: usize = 1_000_000;
/// A record's own fields: attributes, differences of time and offset, lengths, number of headers.
const RECORD_OVERHEAD: usize = 9;
const RECORD_BATCH_HEADER: usize = 61;
/// At the default interval.
const FLUSHES_PER_MINUTE: u64 = 30;
/// Rows of a block: a group commit of a busy worker.
const ROWS_PER_BLOCK: usize = 1000;
/// Cells of the table that ads are drawn from.
const CELLS: usize = 1 << 24;
const NODE: (NodeId, Incarnation) = (NodeId(1), Incarnation(0x00f3_a9c2_d4e5_b617));

/// Numbers that are always the same (splitmix64, Steele et al. 2014).
struct Numbers(u64);

impl Numbers {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Where clicks come from.
struct Load {
    ads: Vec<u32>,
    clicks: u64,
    /// People who click, evenly; 0: every click is another's.
    population: u64,
}

impl Load {
    /// Shows every click of the minute: its number, its row.
    fn each(&self, mut on_row: impl FnMut(u64, &Row)) {
        let mut numbers = Numbers(7);
        let mut row = Row::new_zeroed();
        row.minute = MINUTE.into();
        for n in 0..self.clicks {
            let (one, two) = (numbers.next(), numbers.next());
            // Ads are numbered as they come, not by how popular they are.
            let rank = u64::from(self.ads[one as usize % CELLS]);
            row.click.ad = (rank.wrapping_mul(0x9e37_79b9) % (1 << 32)).into();
            let user = if self.population == 0 { n + 1 } else { two % self.population + 1 };
            row.click.user_key = Numbers(user).next().max(1).into();
            row.click.price_micros = (200_000 + (one >> 40) % 100_000).into();
            // Half of all clicks come from the first country, a quarter from the second, and so on.
            row.click.country = [b'A' + ((one >> 24) as u32 | 1 << 15).trailing_zeros() as u8, b'X'];
            row.click.device = [1, 1, 1, 2, 2, 2, 2, 3][(two >> 56) as usize % 8];
            on_row(n, &row);
        }
    }
}

/// Octets of a topic's records, as they are and as they are sent.
#[derive(Default)]
struct Topic {
    batches: [Vec<u8>; PARTITIONS],
    records: u64,
    plain: u64,
    sent: u64,
}

impl Topic {
    fn send(&mut self, ad: u64, value: &[u8]) {
        let batch = &mut self.batches[ad as usize % PARTITIONS];
        let len = batch.len();
        batch.extend_from_slice(&ad.to_be_bytes());
        batch.extend_from_slice(value);
        batch.resize(batch.len() + RECORD_OVERHEAD, 0);
        self.records += 1;
        self.plain += (batch.len() - len) as u64;
        if batch.len() >= RECORD_BATCH_BYTES {
            self.sent += sent(batch);
        }
    }

    /// A transaction ends, and with it every batch.
    fn flush(&mut self) {
        for batch in self.batches.iter_mut().filter(|batch| !batch.is_empty()) {
            self.sent += sent(batch);
        }
    }
}

/// Compresses with the program of the library that the client has; without it, not at all.
fn sent(batch: &mut Vec<u8>) -> u64 {
    let spawned =
        Command::new("zstd").args(["-q", "-3", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let octets = spawned.map_or(batch.len(), |mut zstd| {
        let (mut input, plain) = (zstd.stdin.take().expect("a pipe"), std::mem::take(batch));
        let writer = std::thread::spawn(move || (input.write_all(&plain), plain).1);
        let octets = zstd.wait_with_output().expect("zstd ends").stdout.len();
        *batch = writer.join().expect("the writer ends");
        octets
    });
    batch.clear();
    (octets + RECORD_BATCH_HEADER) as u64
}

fn buckets(load: &Load, dimensions: Dimensions, flushes: u64) -> Topic {
    let mut topic = Topic::default();
    let mut totals: HashMap<BucketKey, (BucketTotals, u64)> = HashMap::new();
    let mut changed = Vec::new();
    let per_flush = load.clicks.div_ceil(flushes);
    load.each(|n, row| {
        let flush = n / per_flush + 1;
        let key = dimensions.key(MINUTE, &row.click, 1);
        let (total, last) = totals.entry(key).or_default();
        total.count(row);
        if *last != flush {
            *last = flush;
            changed.push(key);
        }
        if (n + 1).is_multiple_of(per_flush) || n + 1 == load.clicks {
            changed.sort_unstable();
            for key in changed.drain(..) {
                let bucket = Bucket { key, totals: totals[&key].0 };
                let record = record::bucket(NODE.0, NODE.1, FlushNo(flush), &bucket);
                topic.send(key.ad.get(), record.as_bytes());
            }
            topic.flush();
        }
    });
    topic
}

/// Bytes of the process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

struct Folded {
    topic: Topic,
    fold: Duration,
    close: Duration,
    held: (u64, u64),
    resident: u64,
}

fn sketches(load: &Load) -> Folded {
    let before = resident();
    let mut uniques = Uniques::new(u64::MAX);
    let (mut block, mut sequence, mut fold) = (vec![0; BLOCK_HEADER_LEN], 0, Duration::ZERO);
    let mut fold_block = |block: &mut Vec<u8>, uniques: &mut Uniques| {
        sequence += 1;
        let began = thread_time();
        uniques.block((Epoch(1), WorkerId(0)), BlockSeq(sequence), block);
        fold += thread_time() - began;
        block.truncate(BLOCK_HEADER_LEN);
    };
    load.each(|n, row| {
        block.extend_from_slice(row.as_bytes());
        block.push(0);
        if (n + 1).is_multiple_of(ROWS_PER_BLOCK as u64) {
            fold_block(&mut block, &mut uniques);
        }
    });
    fold_block(&mut block, &mut uniques);
    let (held, resident) = (uniques.held(), resident().saturating_sub(before));
    let began = thread_time();
    let (_, closing) = uniques.close(Minute(u32::MAX), u64::MAX, 1);
    let close = thread_time() - began;
    let mut topic = Topic::default();
    for sketch in &closing.sketches {
        let record = record::sketch(NODE.0, NODE.1, FlushNo(1), sketch);
        topic.send(sketch.ad, &record);
    }
    topic.flush();
    Folded { topic, fold, close, held, resident }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let (ads, per_ad) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(300));
    let mut load = Load { ads: ad_table(CELLS, ads as u32, 0.0), clicks: ads * per_ad, population: 0 };
    let datagrams = load.clicks.div_ceil(CLICKS_PER_DATAGRAM);
    let received = load.clicks * CLICK_LEN as u64 + datagrams * HEADER_LEN as u64;
    println!("{ads} ads, {} clicks in a minute, {received} octets received", load.clicks);
    let share = |octets: u64| octets as f64 * 100.0 / received as f64;
    let tell = |what: &str, topic: &Topic| {
        println!(
            "{what:<50} {:>9} records {:>11} octets {:>6.2} %  sent {:>11} {:>6.2} %",
            topic.records,
            topic.plain,
            share(topic.plain),
            topic.sent,
            share(topic.sent)
        );
    };
    for population in [0, 10_000_000] {
        load.population = population;
        let of = if population == 0 {
            "every click another user".to_owned()
        } else {
            format!("{population} users")
        };
        let Folded { topic, fold, close, held, resident } = sketches(&load);
        tell(&format!("sketches, {of}"), &topic);
        println!(
            "  fold {:.0} ns a click; {:.1} s to close the minute; {} sets, {} MiB counted, {} MiB resident",
            fold.as_nanos() as f64 / load.clicks as f64,
            close.as_secs_f64(),
            held.0,
            held.1 >> 20,
            resident >> 20
        );
    }
    let none = Dimensions { country: false, device: false, ..Dimensions::DEFAULT };
    for (name, dimensions) in [("by ad alone", none), ("by ad, country and device", Dimensions::DEFAULT)] {
        for flushes in [1, FLUSHES_PER_MINUTE] {
            let topic = buckets(&load, dimensions, flushes);
            tell(&format!("buckets {name}, {flushes} flushes a minute"), &topic);
        }
    }
}
