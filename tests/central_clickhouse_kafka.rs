//! From a real Apache Kafka into the engine of ClickHouse: what is asked there is a recount of the rows in Kafka, whatever
//! dies, fails or comes late.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use weir_common::bucket::BucketTotals;
use weir_common::record::BucketRecord;
use weir_labs::central::{CentralFolder, Truth, is_of};
use weir_labs::clickhouse::Clickhouse;
use weir_labs::topics::{self, Isolation};
use weir_labs::{Generator, Load, NodeFolder, kafka, seed};
use zerocopy::{FromBytes, IntoBytes};

/// The windows that are built, and how many minutes they have; a month has all there are here.
const SPANS: [(&str, u32); 4] = [("1m", 1), ("5m", 5), ("1h", 60), ("1d", 1440)];
/// More than the rest of any month: every window that has a minute of the lab in it has ended.
const MINUTES_OF_MONTH: u32 = 32 * 1440;

fn node_folder(bootstrap: &str, prefix: &str, id: u32) -> NodeFolder {
    let folder = NodeFolder::new(&kafka::config(bootstrap, prefix)).expect("folder");
    folder.reconfigure("id =", &format!("id = {id}")).expect("config");
    folder
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Speaks in a node's name, once the node is gone.
struct Voice {
    producer: BaseProducer,
    prefix: String,
    bootstrap: String,
}

impl Voice {
    fn new(bootstrap: &str, prefix: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("partitioner", "murmur2_random")
            .create()
            .expect("producer");
        Self { producer, prefix: prefix.to_owned(), bootstrap: bootstrap.to_owned() }
    }

    fn records(&self, topic: &str) -> Vec<topics::Record> {
        topics::read(&self.bootstrap, &format!("{}{topic}", self.prefix), Isolation::Committed)
            .expect("records")
    }

    fn say(&self, topic: &str, key: &[u8], value: &[u8]) {
        let topic = format!("{}{topic}", self.prefix);
        self.producer.send(BaseRecord::to(&topic).key(key).payload(value)).expect("room in the queue");
        self.producer.flush(Duration::from_secs(20)).expect("sent");
    }

    /// Every node says that its minutes before this one are final.
    fn close(&self, before: u32) {
        let mut last = BTreeMap::new();
        let records = self.records("checkpoints.v1");
        records.into_iter().filter(|record| record.key.starts_with(b"checkpoint:")).for_each(|record| {
            last.insert(record.key, record.value);
        });
        assert!(!last.is_empty());
        for (key, value) in last {
            let mut value: Value = serde_json::from_slice(&value).expect("JSON");
            value["final_before"] = before.into();
            self.say("checkpoints.v1", &key, value.to_string().as_bytes());
        }
    }
}

/// Waits until every click before this time is in the tables.
fn wait_until_counted(clickhouse: &Clickhouse, nodes: u64, until_ms: u64) {
    let is_so = |rows: &[Value]| {
        rows.iter().any(|row| row["nodes"] == nodes && row["counted_until_ms"].as_u64() >= Some(until_ms))
    };
    clickhouse.wait_until("how complete and how fresh", is_so).expect("counted");
}

/// Waits until windows that end before this minute are built.
fn wait_until_closed(clickhouse: &Clickhouse, before: u32) {
    let is_so = |rows: &[Value]| rows.iter().any(|row| row["closed_before"].as_u64() >= Some(before.into()));
    clickhouse.wait_until("up to where windows are built", is_so).expect("closed");
}

/// A minute as the engine writes times.
fn time(minute: u32) -> String {
    let time = jiff::Timestamp::from_second(i64::from(minute) * 60).expect("a time");
    time.strftime("%F %T").to_string()
}

fn metric(central: &CentralFolder, name: &str) -> u64 {
    let (_, text) = weir_labs::get(central.port(), "/metrics").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}

fn range(truth: &Truth) -> (u32, u32) {
    let minutes = || truth.0.keys().map(|(_, minute)| *minute);
    (minutes().min().expect("rows"), minutes().max().expect("rows") + 1)
}

/// Asks for the totals of each ad, and for the minutes of one.
fn assert_answered(clickhouse: &Clickhouse, truth: &Truth, is_final: bool) {
    let (from, until) = range(truth);
    let (start, end) = (time(from), time(until));
    let asked = [("start", start.as_str()), ("end", &end), ("limit", "100000")];
    let ads = clickhouse.ask("the busiest ads", &asked).expect("ads");
    let count = truth.0.keys().map(|(ad, _)| *ad).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(ads.len(), count);
    for found in &ads {
        let total = truth.sum(|ad, _| Some(ad) == found["ad"].as_u64());
        assert!(is_of(found, &total), "{found} and not {total:?}");
    }
    let ad = truth.ad().to_string();
    let asked = [("ad", ad.as_str()), ("start", &start), ("end", &end)];
    let minutes = clickhouse.ask("windows of an ad, up to the open minute", &asked).expect("minutes");
    let own: Vec<_> = truth.0.iter().filter(|((of, _), _)| *of == truth.ad()).collect();
    assert_eq!(minutes.len(), own.len());
    for (found, ((_, minute), totals)) in minutes.iter().zip(own) {
        assert_eq!((&found["start"], &found["final"]), (&time(*minute).into(), &is_final.into()), "{found}");
        assert!(is_of(found, totals), "{found} and not {totals:?}");
    }
}

/// Every closed window of an ad has the sum of its minutes, and no window differs from its buckets.
fn assert_built(clickhouse: &Clickhouse, truth: &Truth, ad: u64) {
    let (from, until) = range(truth);
    let name = ad.to_string();
    let ask = |span: &str, from: u32, until: u32| {
        let (start, end) = (time(from), time(until));
        let asked = [("span", span), ("ad", &name), ("start", &start), ("end", &end)];
        clickhouse.ask("closed windows of an ad", &asked).expect("windows")
    };
    for (span, minutes) in SPANS {
        let mut windows: BTreeMap<u32, BucketTotals> = BTreeMap::new();
        for ((_, minute), totals) in truth.0.iter().filter(|((of, _), _)| *of == ad) {
            windows.entry(minute - minute % minutes).or_default().merge(totals);
        }
        let found = ask(span, from - from % minutes, until);
        assert_eq!(found.len(), windows.len(), "{span}: {found:?}");
        for (found, (start, totals)) in found.iter().zip(windows) {
            assert_eq!(found["start"], time(start), "{span}");
            assert!(is_of(found, &totals), "{span}: {found} and not {totals:?}");
        }
    }
    // A lab may stand on both sides of a month's end.
    let months = ask("month", from.saturating_sub(MINUTES_OF_MONTH), until);
    let clicks: u64 = months.iter().filter_map(|found| found["click_count"].as_u64()).sum();
    assert_eq!(clicks, truth.sum(|of, _| of == ad).accepted.get(), "{months:?}");
    let differing = clickhouse.ask("windows that are not the sum of their buckets", &[]).expect("an audit");
    assert_eq!(differing, Vec::<Value>::new());
}

#[test]
fn killed_at_random_instants_over_a_clickhouse_that_fails_it_ends_with_the_same_counts() {
    let Some(bootstrap) = kafka::shared() else { return };
    let Some(mut clickhouse) = Clickhouse::start().expect("ClickHouse") else { return };
    let (prefix, seed) = (kafka::fresh_prefix(), seed());
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let folders = [1, 2].map(|id| node_folder(bootstrap, &prefix, id));
    let nodes = folders.each_ref().map(|folder| folder.start_ready().expect("ready"));
    let load = |seed| Load { profile: "demo", rate: 2000, duration: Duration::from_secs(15), seed };
    let mut generators =
        [0, 1].map(|n| Generator::start(&folders[n], load(seed ^ n as u64)).expect("generator"));
    let central_folder = CentralFolder::new(bootstrap, &prefix, &clickhouse.config()).expect("folder");
    clickhouse.run_all(&central_folder.clickhouse_schema().expect("schema")).expect("tables");
    clickhouse.fail(0.3, seed).expect("faults");
    let mut kills = 0;
    while generators.iter_mut().any(|generator| generator.is_running().expect("generator")) {
        let central = central_folder.start().expect("central");
        std::thread::sleep(Duration::from_millis(random.random_range(500..4000)));
        if kills == 2 {
            clickhouse.restart().expect("it comes up");
            clickhouse.fail(0.3, seed + 1).expect("faults");
        }
        central.kill().expect("kill");
        kills += 1;
    }
    for generator in generators {
        generator.finish(Duration::from_secs(90)).expect("generator");
    }
    let done_ms = now_ms();
    let mut central = central_folder.start().expect("central");
    central.wait_until_counted(2, done_ms).expect("counted");
    clickhouse.fail(0.0, 0).expect("no faults");
    wait_until_counted(&clickhouse, 2, done_ms);
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
    let truth = Truth::of(bootstrap, &prefix).expect("rows");
    assert_answered(&clickhouse, &truth, false);
    assert!(kills > 3, "{kills} kills");

    // Closed while it fails and is killed, windows are those of the buckets.
    let before = range(&truth).1 + MINUTES_OF_MONTH;
    let voice = Voice::new(bootstrap, &prefix);
    clickhouse.fail(0.3, seed + 2).expect("faults");
    voice.close(before);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(random.random_range(500..3000)));
        central.kill().expect("kill");
        central = central_folder.start().expect("central");
    }
    clickhouse.fail(0.0, 0).expect("no faults");
    wait_until_closed(&clickhouse, before);
    assert_answered(&clickhouse, &truth, true);
    assert_built(&clickhouse, &truth, truth.ad());
    central.stop().expect("stop");
}

#[test]
fn a_higher_revision_that_comes_late_replaces_a_bucket_and_every_window_that_has_it() {
    let Some(bootstrap) = kafka::shared() else { return };
    let Some(clickhouse) = Clickhouse::start().expect("ClickHouse") else { return };
    let prefix = kafka::fresh_prefix();
    let folder = node_folder(bootstrap, &prefix, 1);
    let node = folder.start_ready().expect("ready");
    let load = Load { profile: "demo", rate: 1000, duration: Duration::from_secs(2), seed: 7 };
    Generator::start(&folder, load).expect("generator").finish(Duration::from_secs(90)).expect("generator");
    node.drain().expect("drain");
    let central_folder = CentralFolder::new(bootstrap, &prefix, &clickhouse.config()).expect("folder");
    clickhouse.run_all(&central_folder.clickhouse_schema().expect("schema")).expect("tables");
    let mut truth = Truth::of(bootstrap, &prefix).expect("rows");
    let before = range(&truth).1 + MINUTES_OF_MONTH;
    let voice = Voice::new(bootstrap, &prefix);
    voice.close(before);
    // At first each insert of buckets is done and not acknowledged, so it is made again and again.
    clickhouse.run("SYSTEM STOP MERGES weir.buckets").expect("no merges");
    clickhouse.fail_after("weir.buckets+FORMAT").expect("faults");
    let mut central = central_folder.start().expect("central");
    let retries = |_: &Value| metric(&central_folder, "weir_central_clickhouse_retries_total") > 2;
    central.wait_until("/v1/nodes", retries).expect("retries");
    clickhouse.fail(0.0, 0).expect("no faults");
    wait_until_closed(&clickhouse, before);
    assert_built(&clickhouse, &truth, truth.ad());
    let twice = "SELECT count() FROM (SELECT count() FROM weir.buckets GROUP BY ad, minute, publisher, placement, creative, \
                 country, device, os, rules, incarnation, revision HAVING count() > 1)";
    assert_eq!(clickhouse.run(twice).expect("a count").trim(), "0");

    // The bucket at its last revision, with five clicks more; then what it said before, which is no truth any more.
    let records = voice.records("buckets.v1").into_iter();
    let of = |record: &topics::Record| BucketRecord::read_from_bytes(&record.value).expect("a bucket");
    let last = records.max_by_key(|record| of(record).revision.get()).expect("a bucket");
    let mut late = of(&last);
    late.revision += 1;
    late.totals.accepted += 5;
    late.totals.cost_micros += 500;
    let (ad, minute) = (late.key.ad.get(), late.key.minute.get());
    let totals = truth.0.get_mut(&(ad, minute)).expect("its row");
    totals.accepted += 5;
    totals.cost_micros += 500;
    voice.say("buckets.v1", &last.key, late.as_bytes());
    voice.say("buckets.v1", &last.key, &last.value);
    let name = ad.to_string();
    let is_there = || {
        let (start, end) = (time(minute), time(minute + 1));
        let asked = [("span", "1m"), ("ad", name.as_str()), ("start", &start), ("end", &end)];
        let found = clickhouse.ask("closed windows of an ad", &asked).expect("windows");
        found.first().is_some_and(|found| is_of(found, &truth.0[&(ad, minute)]))
    };
    clickhouse.wait_until("up to where windows are built", |_| is_there()).expect("the late clicks");
    // Its month is built last of all.
    let differs = |_: &[Value]| {
        let asked = [
            ("span", "month"),
            ("ad", name.as_str()),
            ("start", "2000-01-01 00:00:00"),
            ("end", "2100-01-01 00:00:00"),
        ];
        let found = clickhouse.ask("closed windows of an ad", &asked).expect("windows");
        let clicks: u64 = found.iter().filter_map(|found| found["click_count"].as_u64()).sum();
        clicks == truth.sum(|of, _| of == ad).accepted.get()
    };
    clickhouse.wait_until("up to where windows are built", differs).expect("the month");
    assert_built(&clickhouse, &truth, ad);
    assert_answered(&clickhouse, &truth, true);
    central.stop().expect("stop");

    // A node that will not come back holds nothing up, as soon as the config says so.
    let nodes = |rows: &[Value]| rows.first().and_then(|row| row["nodes"].as_u64());
    assert_eq!(nodes(&clickhouse.ask("how complete and how fresh", &[]).expect("an answer")), Some(1));
    let config = std::fs::read_to_string(central_folder.config()).expect("the config");
    let config = config.replace("[central]\n", "[central]\nretired_nodes = [1]\n");
    std::fs::write(central_folder.config(), config).expect("written");
    let central = central_folder.start().expect("central");
    clickhouse.wait_until("how complete and how fresh", |rows| nodes(rows) == Some(0)).expect("retired");
    central.stop().expect("stop");
}

#[test]
fn an_insert_that_is_made_again_under_its_token_adds_no_row() {
    let Some(clickhouse) = Clickhouse::start().expect("ClickHouse") else { return };
    let central_folder = CentralFolder::new("127.0.0.1:1", "weir.", &clickhouse.config()).expect("folder");
    clickhouse.run_all(&central_folder.clickhouse_schema().expect("schema")).expect("tables");
    clickhouse.run("SYSTEM STOP MERGES weir.buckets").expect("no merges");
    let rows = [7; size_of::<BucketRecord>()];
    let count = |token: &str| {
        let settings = [("insert_deduplication_token", token), ("async_insert", "0")];
        clickhouse.insert("INSERT INTO weir.buckets FORMAT RowBinary", &settings, &rows).expect("inserted");
        clickhouse.run("SELECT count() FROM weir.buckets").expect("a count").trim().to_owned()
    };
    assert_eq!([count("a"), count("a"), count("b")], ["1", "1", "2"]);
    assert_eq!(clickhouse.run("SELECT count() FROM weir.buckets FINAL").expect("a count").trim(), "1");
}

#[test]
fn the_engine_reads_every_statement_of_a_cluster_and_of_the_kafka_engine() {
    let Some(clickhouse) = Clickhouse::start().expect("ClickHouse") else { return };
    let config = format!("{}cluster = \"eu-1\"\n", clickhouse.config());
    let central_folder = CentralFolder::new("127.0.0.1:1", "weir.", &config).expect("folder");
    let schema = central_folder.clickhouse_schema().expect("schema");
    let kafka = include_str!("../deploy/clickhouse/kafka.sql");
    let kafka: String = kafka
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut read = 0;
    for statement in [schema.as_str(), &kafka].into_iter().flat_map(|text| text.split(';')).map(str::trim) {
        if !statement.is_empty() {
            clickhouse.run(&format!("EXPLAIN AST {statement}")).expect(statement);
            read += 1;
        }
    }
    assert_eq!(read, 11 + 4);
}
