//! The central tier over a real Apache Kafka: what it answers is a recount of the rows there, whatever
//! dies, comes twice or comes late.

use std::path::PathBuf;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use weir_labs::central::{CentralFolder, Truth};
use weir_labs::clock::{Error, WrongClock};
use weir_labs::topics::{self, Isolation};
use weir_labs::{Generator, Load, NodeFolder, kafka, now_ms, seed};

const fn load(rate: u32, seconds: u64, seed: u64) -> Load {
    Load { profile: "demo", rate, duration: Duration::from_secs(seconds), seed }
}

fn finished(generator: Generator) -> PathBuf {
    generator.finish(Duration::from_secs(90)).expect("generator").1
}

#[test]
fn what_is_answered_is_a_recount_of_the_rows_of_two_nodes() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folders = [1, 2].map(|id| NodeFolder::forwarding(bootstrap, &prefix, id).expect("folder"));
    let central_folder = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    // Before there is a topic: it waits for the nodes to make them.
    let mut central = central_folder.start().expect("central");
    let nodes = folders.each_ref().map(|folder| folder.start_ready().expect("ready"));
    let [one, two] =
        [0, 1].map(|n| Generator::start(&folders[n], load(3000, 4, 71 + n as u64)).expect("generator"));
    finished(one);
    finished(two);
    let done_ms = now_ms();
    central.wait_until_counted(2, done_ms).expect("counted");
    Truth::of(bootstrap, &prefix).expect("rows").is_answered_by(&central).expect("the rows' counts");
    let ready = central.ask("/v1/stats/top?window=1d").expect("answer");
    assert_eq!(ready["completeness"]["nodes"], 2);
    assert!(ready["completeness"]["counted_until"].is_string(), "{ready}");
    central.stop().expect("stop");
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
}

#[test]
fn killed_at_random_instants_it_ends_with_the_same_counts() {
    let Some(bootstrap) = kafka::shared() else { return };
    let (prefix, seed) = (kafka::fresh_prefix(), seed());
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let folder = NodeFolder::forwarding(bootstrap, &prefix, 1).expect("folder");
    let node = folder.start_ready().expect("ready");
    let mut generator = Generator::start(&folder, load(6000, 8, seed)).expect("generator");
    let central_folder = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    let mut kills = 0;
    while generator.is_running().expect("generator") {
        let central = central_folder.start().expect("central");
        std::thread::sleep(Duration::from_millis(random.random_range(50..1200)));
        central.kill().expect("kill");
        kills += 1;
    }
    finished(generator);
    let done_ms = now_ms();
    let mut central = central_folder.start().expect("central");
    central.wait_until_counted(1, done_ms).expect("counted");
    Truth::of(bootstrap, &prefix).expect("rows").is_answered_by(&central).expect("the rows' counts");
    assert!(kills > 5, "{kills} kills");
    node.drain().expect("drain");
}

#[test]
fn a_node_that_is_away_is_told_of_and_its_clicks_are_counted_when_it_is_back() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folders = [1, 2].map(|id| NodeFolder::forwarding(bootstrap, &prefix, id).expect("folder"));
    let central_folder = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    let mut central = central_folder.start().expect("central");
    let [stays, leaves] = folders.each_ref().map(|folder| folder.start_ready().expect("ready"));
    finished(Generator::start(&folders[1], load(2000, 2, 81)).expect("generator"));
    let before_ms = now_ms();
    central.wait_until_counted(2, before_ms).expect("counted");
    leaves.kill().expect("kill");
    finished(Generator::start(&folders[0], load(2000, 2, 82)).expect("generator"));
    let done_ms = now_ms();
    // The one that stays goes on; an answer says which node holds it back, and since when.
    central.wait_until_counted(1, done_ms).expect("counted");
    let answer = central.ask("/v1/stats/top?window=1d").expect("answer");
    assert_eq!(answer["completeness"]["slowest_node"], 2, "{answer}");
    let nodes = central.ask("/v1/nodes").expect("nodes");
    assert!(nodes["nodes"][1]["counted_until_ms"].as_u64().expect("a time") < done_ms, "{nodes}");
    let back = folders[1].start_ready().expect("ready");
    central.wait_until_counted(2, done_ms).expect("counted");
    Truth::of(bootstrap, &prefix).expect("rows").is_answered_by(&central).expect("the rows' counts");
    [stays, back].into_iter().for_each(|node| node.drain().expect("drain"));
}

#[test]
fn a_retired_node_that_is_back_after_hours_changes_what_was_final_and_every_answer_with_it() {
    let Some(bootstrap) = kafka::shared() else { return };
    if let Some(why) = WrongClock::unavailable() {
        return println!("skipped: {why}");
    }
    let prefix = kafka::fresh_prefix();
    let [mut stays, leaves] =
        [1, 2].map(|id| NodeFolder::forwarding(bootstrap, &prefix, id).expect("folder"));
    // What one has acknowledged is in its journal, and nowhere else when it dies so soon.
    leaves.reconfigure("interval =", "interval = \"5s\"").expect("config");
    let node = leaves.start_ready().expect("ready");
    finished(Generator::start(&leaves, load(2000, 2, 83)).expect("generator"));
    node.kill().expect("kill");
    // For the other one it is three hours later: what is now has long been final.
    let clock = WrongClock::of(&mut stays);
    clock.set(Error::Seconds(3 * 3600)).expect("clock");
    let later = stays.start_ready().expect("ready");
    finished(Generator::start(&stays, load(500, 1, 84)).expect("generator"));
    let retired = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    retired.retire(2).expect("config");
    let mut central = retired.start().expect("central");
    let end_s = now_ms() / 1000 + 60;
    let asked = format!("/v1/stats/top?window=1m&start={}&end={end_s}", end_s - 600);
    let is_complete = |answer: &Value| answer["completeness"]["complete"] == true;
    let before = central.wait_until(&asked, is_complete).expect("complete");
    leaves.reconfigure("interval =", "interval = \"200ms\"").expect("config");
    let back = leaves.start_ready().expect("ready");
    back.drain().expect("drain");
    let truth = Truth::of(bootstrap, &prefix).expect("rows");
    let range = (end_s / 60 - 10) as u32..=(end_s / 60) as u32;
    let in_range = truth.0.iter().filter(|((_, minute), _)| range.contains(minute));
    let expected: u64 = in_range.map(|(_, totals)| totals.accepted.get()).sum();
    assert!(before["total"]["click_count"].as_u64() < Some(expected), "nothing came back: {before}");
    central.wait_until(&asked, |answer| answer["total"]["click_count"] == expected).expect("its clicks");
    truth.is_answered_by(&central).expect("the rows' counts");
    let (_, metrics) = weir_labs::get(retired.port(), "/metrics").expect("metrics");
    assert!(
        !metrics.contains(
            "weir_central_rewrites_total 0
"
        ),
        "{metrics}"
    );
    later.drain().expect("drain");
}

#[test]
fn what_comes_twice_out_of_order_or_from_somebody_else_changes_nothing() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::forwarding(bootstrap, &prefix, 1).expect("folder");
    let node = folder.start_ready().expect("ready");
    finished(Generator::start(&folder, load(3000, 3, 91)).expect("generator"));
    node.drain().expect("drain");
    let truth = Truth::of(bootstrap, &prefix).expect("rows");
    // Every record once more, the last first, and some that no node would send.
    let buckets = format!("{prefix}buckets.v1");
    let records = topics::read(bootstrap, &buckets, Isolation::Committed).expect("buckets");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .create()
        .expect("producer");
    let send = |topic: &str, key: &[u8], value: &[u8]| {
        producer.send(BaseRecord::to(topic).key(key).payload(value)).expect("room in the queue");
    };
    records.iter().rev().for_each(|record| send(&buckets, &record.key, &record.value));
    let mut hostile = records[0].value.clone();
    hostile.pop();
    send(&buckets, &records[0].key, &hostile);
    send(&format!("{prefix}uniques.v1"), &records[0].key, &[0xff; 300]);
    send(&format!("{prefix}checkpoints.v1"), b"checkpoint:9:zz", b"{\"node\":");
    producer.flush(Duration::from_secs(20)).expect("sent");

    let central_folder = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    let mut central = central_folder.start().expect("central");
    let read = records.len() as u64 * 2 + 3;
    let metric = |name: &str| -> u64 {
        let (_, text) = weir_labs::get(central_folder.port(), "/metrics").unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    central.wait_until("/v1/nodes", |_| metric("weir_central_records_total") >= read).expect("all read");
    truth.is_answered_by(&central).expect("the rows' counts");
    assert_eq!(metric("weir_central_unreadable_records_total"), 3, "{}", central_folder.log_text());
}
