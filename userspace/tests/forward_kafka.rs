//! What holds of every sink, held against a real Apache Kafka.

mod forward_fixture;
mod journal_fixture;

use std::path::Path;

use forward_fixture::steps::{run, step};
use forward_fixture::{Node, flush_config};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir::forward::ForwarderConfig;
use weir::forward::kafka::{ClusterSettings, Compression, Identity, KafkaSink, Takes, TopicSettings};
use weir::journal::Folder;
use weir_labs::kafka;
use weir_labs::topics::Recount;

/// Each case starts several nodes, each of which fences, looks and claims.
const CASES: u32 = 4;
/// So soon that some minutes are final in each case. The clicks count in the minute they come in.
const CLOSE_AFTER_MS: u64 = 70_000;

fn clicks(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

fn sink(bootstrap: &str, prefix: &str) -> impl FnOnce(&Folder) -> KafkaSink {
    let cluster = ClusterSettings { brokers: vec![bootstrap.to_owned()], ..ClusterSettings::default() };
    let topics = TopicSettings {
        prefix: prefix.to_owned(),
        create: true,
        partitions: 3,
        replication: None,
        compression: Compression::Lz4,
    };
    move |folder| {
        let identity = Identity {
            node: folder.node(),
            incarnation: folder.incarnation(),
            epoch: folder.epoch(),
            region: "local".to_owned(),
            pop: "local".to_owned(),
        };
        KafkaSink::new(cluster, topics, Takes::All, identity)
    }
}

fn start(dir: &Path, workers: u16, bootstrap: &str, prefix: &str) -> Node<KafkaSink> {
    let config = ForwarderConfig { close_after_ms: CLOSE_AFTER_MS, ..flush_config() };
    Node::try_start(dir, workers, config, sink(bootstrap, prefix)).unwrap()
}

/// The topics must hold so many clicks, each once, and be sound.
fn check(bootstrap: &str, prefix: &str, written: u64) {
    let recount = Recount::of(bootstrap, prefix).unwrap();
    recount.check().unwrap();
    assert_eq!(recount.rows, written, "{recount}");
}

#[test]
fn a_flush_takes_blocks_and_buckets_of_all_workers_into_one_transaction() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let dir = tempfile::tempdir().unwrap();
    let mut node = start(dir.path(), 3, bootstrap, &prefix);
    for n in 0..30 {
        node.write(n % 3, &clicks(n as u64 * 10..n as u64 * 10 + 10));
    }
    node.flush();
    check(bootstrap, &prefix, 300);
    assert_eq!((node.stats.rows.get(), node.stats.flushes.get()), (300, 1));
}

#[test]
fn a_long_backlog_goes_out_in_parts_and_a_start_goes_on_where_kafka_is() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let dir = tempfile::tempdir().unwrap();
    let mut node = start(dir.path(), 2, bootstrap, &prefix);
    for n in 0..40 {
        node.write(n % 2, &clicks(n as u64 * 20..n as u64 * 20 + 20));
    }
    node.flush();
    assert!(node.stats.raw_bytes.get() > 3 * forward_fixture::flush_config().part_bytes_max);
    drop(node);
    let mut node = start(dir.path(), 1, bootstrap, &prefix);
    node.write(0, &clicks(800..820));
    node.flush();
    assert_eq!(node.stats.rows.get(), 20, "only what is new");
    check(bootstrap, &prefix, 820);
}

#[test]
fn kafka_has_a_sketch_of_every_ad_and_final_minute_over_a_restart() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let dir = tempfile::tempdir().unwrap();
    let mut node = start(dir.path(), 2, bootstrap, &prefix);
    for minute in 0..4 {
        node.write(0, &clicks(minute * 40..minute * 40 + 20));
        node.flush();
        node.write(1, &clicks(minute * 40 + 20..minute * 40 + 40));
        if minute == 2 {
            node.workers.iter_mut().for_each(|worker| worker.writer.commit());
            let wall = node.now.wall;
            drop(node);
            node = start(dir.path(), 1, bootstrap, &prefix);
            node.now.wall = wall;
            // The fixture's second worker is gone, and so is what it would write.
            node.write(0, &clicks(1000..1010));
        }
        if node.workers.len() == 1 {
            break;
        }
        node.pass_ms(60_000);
    }
    node.flush();
    node.pass_ms(10 * 60_000);
    node.flush();
    let recount = Recount::of(bootstrap, &prefix).unwrap();
    recount.check().unwrap();
    assert_eq!((recount.sketches.sketches, recount.sketches.records), (9, 9), "{recount}");
    assert_eq!(recount.sketches.unsketched_minutes, 0);
}

#[test]
fn kafka_is_told_of_minutes_that_have_no_sketches() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let dir = tempfile::tempdir().unwrap();
    let config = ForwarderConfig { uniques_bytes_max: 0, ..flush_config() };
    let mut node = Node::try_start(dir.path(), 1, config, sink(bootstrap, &prefix)).unwrap();
    node.write(0, &clicks(0..20));
    node.flush();
    node.pass_ms(30 * 60_000);
    node.flush();
    let recount = Recount::of(bootstrap, &prefix).unwrap();
    recount.check().unwrap();
    assert_eq!((recount.sketches.records, recount.sketches.unsketched_minutes), (0, 1), "{recount}");
}

#[test]
fn kafka_holds_each_click_once_after_any_interleaving() {
    let Some(bootstrap) = kafka::shared() else { return };
    let mut runner = TestRunner::new(Config { cases: CASES, max_shrink_iters: 0, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..80);
    let outcome = runner.run(&steps, |steps| {
        let prefix = kafka::fresh_prefix();
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(start(dir.path(), 2, bootstrap, &prefix));
        let written = run(
            &mut node,
            steps,
            |_, _| {},
            |node, workers| {
                drop(node);
                start(dir.path(), workers, bootstrap, &prefix)
            },
        );
        check(bootstrap, &prefix, written);
        Ok(())
    });
    outcome.unwrap();
}
