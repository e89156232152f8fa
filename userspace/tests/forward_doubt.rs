//! What the forwarder leaves undone while the node's time is in doubt: whatever cannot be taken back.

mod forward_fixture;
mod journal_fixture;

use std::fs;

use forward_fixture::{MemorySink, Node, flush_config};
use weir::forward::ForwarderConfig;

#[test]
fn while_the_time_is_in_doubt_nothing_becomes_final_and_buckets_still_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, |_| MemorySink::default());
    node.write(0, &[1]);
    node.flush();
    let wall = node.now.wall;
    let before = node.forwarder.checkpoint().final_before;
    node.now.is_certain = false;
    node.now.wall.0 += 10 * 365 * 86_400_000;
    node.write(0, &[2]);
    node.flush();
    assert_eq!(node.forwarder.checkpoint().final_before, before);
    node.now.wall = wall;
    node.now.is_certain = true;
    node.write(0, &[3]);
    node.flush();
    node.forwarder.sink().check(vec![1, 2, 3]);
    assert!(node.forwarder.checkpoint().final_before < wall.minute());
    node.pass_ms(3_600_000);
    node.write(0, &[4]);
    node.flush();
    assert!(node.forwarder.checkpoint().final_before > wall.minute(), "it goes on when it is certain");
}

#[test]
fn while_the_time_is_in_doubt_nothing_goes_for_its_age() {
    const TRIM_EVERY_MS: u64 = 3 * 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let config = ForwarderConfig { horizon_ms: 30 * 60_000, trim_every_ms: TRIM_EVERY_MS, ..flush_config() };
    let mut node = Node::try_start(dir.path(), 1, config, |_| MemorySink::default()).unwrap();
    for round in 0..60 {
        node.write(0, &(9 * round..9 * round + 9).collect::<Vec<_>>());
        node.pass_ms(60_000);
        node.flush();
    }
    let segments = || fs::read_dir(dir.path().join("journal")).unwrap().count();
    let before = segments();
    node.now.is_certain = false;
    node.pass_ms(TRIM_EVERY_MS);
    node.flush();
    assert_eq!(segments(), before);
    node.now.is_certain = true;
    node.pass_ms(TRIM_EVERY_MS);
    node.flush();
    assert!(segments() < before, "it goes on when it is certain");
}
