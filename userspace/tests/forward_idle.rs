//! What a node says of time: until when everything is counted, and that it has nothing to say.

mod forward_fixture;
mod journal_fixture;

use forward_fixture::{MemorySink, Node, flush_config};
use weir::forward::ForwarderConfig;
use weir_common::time::UnixMs;

const IDLE_MS: u64 = 10_000;

fn node(dir: &std::path::Path) -> Node<MemorySink> {
    let config = ForwarderConfig { idle_ms: Some(IDLE_MS), ..flush_config() };
    Node::try_start(dir, 2, config, |_| MemorySink::default()).unwrap()
}

fn last_counted_until(node: &Node<MemorySink>) -> Option<UnixMs> {
    let (_, (batch, _)) = node.forwarder.sink().committed.last_key_value().unwrap();
    batch.counted_until
}

#[test]
fn a_node_without_clicks_says_at_once_and_every_ten_seconds_that_it_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path());
    node.write(0, &[1, 2, 3]);
    node.flush();
    assert_eq!(node.forwarder.sink().committed.len(), 1);
    for _ in 0..10 {
        node.pass_ms(2000);
        node.flush();
    }
    // Of ten empty flushes the first goes, and the sixth.
    let committed = &node.forwarder.sink().committed;
    assert_eq!(committed.len(), 3);
    let (_, (batch, blocks)) = committed.last_key_value().unwrap();
    assert!(blocks.is_empty() && batch.buckets.is_empty());
    assert!(batch.counted_until.is_some());
    node.forwarder.sink().check(vec![1, 2, 3]);
}

#[test]
fn a_flush_counts_everything_until_the_workers_were_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path());
    node.write(0, &[1, 2, 3]);
    node.pass_ms(700);
    let asked = node.now.wall;
    node.flush();
    assert_eq!(last_counted_until(&node), Some(asked));
}

#[test]
fn what_a_worker_holds_back_is_not_said_to_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path());
    node.write(0, &[0]);
    node.flush();
    node.pass_ms(120_000);
    node.workers[1].submit(node.now.wall, &[1]);
    let held_back = node.now.wall.minute();
    node.workers[1].is_blocked = true;
    node.pass_ms(120_000);
    node.write(0, &[2]);
    node.flush();
    assert_eq!(last_counted_until(&node), Some(held_back.start()));
}

#[test]
fn a_part_that_is_not_the_last_says_nothing_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path());
    for block in 0..40 {
        node.write(0, &(block * 10..block * 10 + 10).map(|n| n * 2).collect::<Vec<_>>());
    }
    node.flush();
    let said: Vec<_> =
        node.forwarder.sink().committed.values().map(|(batch, _)| batch.counted_until.is_some()).collect();
    assert!(said.len() > 1, "{said:?}");
    let (last, before) = said.split_last().unwrap();
    assert!(last & !before.contains(&true), "{said:?}");
}
