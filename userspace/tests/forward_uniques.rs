//! Unique users on their way to a sink: once, when their minute is final, and always right.

mod forward_fixture;
mod journal_fixture;

use std::collections::BTreeMap;
use std::path::Path;

use forward_fixture::{Fault, MemorySink, Node, flush_config, sketches_of, store, store_path};
use journal_fixture::START;
use weir::audit::{AuditConfig, AuditReport, RowIter, audit};
use weir::forward::embedded::Store;
use weir::forward::{FlushNo, ForwarderConfig, Sketch};
use weir_common::id::Incarnation;
use weir_common::time::Minute;

const MINUTE_MS: u64 = 60_000;
/// Longer than it takes until a minute is final.
const LONG_MS: u64 = 30 * MINUTE_MS;

fn clicks(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

/// Clicks of one worker, in blocks that its queue has room for.
fn write<S: weir::forward::Sink>(node: &mut Node<S>, worker: usize, range: std::ops::Range<u64>) {
    clicks(range).chunks(10).for_each(|block| node.write(worker, block));
}

/// Five minutes of clicks of two workers, with a flush in each.
fn five_minutes(node: &mut Node<MemorySink>, mut after_each: impl FnMut(&mut Node<MemorySink>)) {
    for minute in 0..5 {
        let worker = minute as usize % node.workers.len();
        write(node, worker, minute * 40..minute * 40 + 40);
        node.flush();
        node.pass_ms(MINUTE_MS);
        after_each(node);
    }
}

fn sent(node: &Node<MemorySink>) -> Vec<(u32, u64)> {
    let batches = node.forwarder.sink().committed.values();
    let sketches = batches.flat_map(|(batch, _)| &batch.uniques.sketches);
    sketches.map(|sketch| (sketch.minute.0, sketch.ad)).collect()
}

#[test]
fn a_sketch_leaves_once_with_the_flush_that_makes_its_minute_final() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    five_minutes(&mut node, |node| assert_eq!(sent(node), [], "no minute is final yet"));
    node.pass_ms(15 * MINUTE_MS);
    node.write(0, &[1000]);
    node.flush();
    // The minutes of the last five are final but for those within 15 minutes of now.
    let sink = node.forwarder.sink();
    let (last, _) = sink.committed.values().next_back().unwrap();
    assert_eq!(last.checkpoint.final_before.0, START.minute().0 + 5);
    assert_eq!((last.uniques.sketches.len(), sent(&node).len()), (15, 15), "three ads, five minutes");
    sink.check([clicks(0..200), vec![1000]].concat());
    node.flush();
    assert_eq!(sent(&node).len(), 15);
    assert_eq!((node.stats.sketches.get(), node.stats.unsketched_minutes.get()), (15, 0));
    let octets: usize = node.forwarder.sink().sketches().values().map(Vec::len).sum();
    assert_eq!(node.stats.sketch_bytes.get(), octets as u64);
}

#[test]
fn sketches_leave_although_no_click_comes_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    five_minutes(&mut node, |_| {});
    node.pass_ms(LONG_MS);
    node.flush();
    let (last, blocks) = node.forwarder.sink().committed.values().next_back().unwrap();
    assert_eq!((last.uniques.sketches.len(), last.buckets.len(), blocks.len()), (15, 0, 0));
    node.forwarder.sink().check(clicks(0..200));
    assert_eq!(node.stats.sketches_held.get(), 0);
}

#[test]
fn a_batch_with_sketches_that_failed_is_offered_again_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    five_minutes(&mut node, |_| {});
    node.pass_ms(LONG_MS);
    *node.forwarder.sink().faults.borrow_mut() = vec![Fault::LoseAnswer, Fault::Refuse];
    node.flush();
    let offered = &node.forwarder.sink().offered;
    let of_sketches: Vec<_> = offered.iter().filter(|(batch, _)| !batch.uniques.is_empty()).collect();
    assert_eq!(of_sketches.len(), 3);
    assert!(of_sketches.iter().all(|batch| *batch == of_sketches[0]));
    node.forwarder.sink().check(clicks(0..200));
}

#[test]
fn a_start_in_the_middle_of_open_minutes_makes_the_same_sketches() {
    let sketches = |restarts: bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(Node::start(dir.path(), 2, |_| MemorySink::default()));
        for minute in 0..5_u64 {
            let running = node.as_mut().unwrap();
            for half in 0..2 {
                let first = (minute * 2 + half) * 20;
                write(running, half as usize, first..first + 20);
            }
            running.flush();
            // Not forwarded before the node ends.
            running.write(0, &[1000 + minute]);
            if restarts {
                let old = node.take().unwrap();
                let (wall, workers) = (old.now.wall, 1 + minute as u16 % 3);
                let sink = { old }.forwarder.into_sink();
                let mut started = Node::start(dir.path(), workers.max(2), |_| sink);
                started.now.wall = wall;
                node = Some(started);
            }
            node.as_mut().unwrap().pass_ms(MINUTE_MS);
        }
        let mut node = node.unwrap();
        node.flush();
        node.pass_ms(LONG_MS);
        node.flush();
        node.forwarder.sink().check([clicks(0..200), clicks(1000..1005)].concat());
        node.forwarder.sink().sketches()
    };
    let (without, with) = (sketches(false), sketches(true));
    assert_eq!((with.len(), &with), (15, &without));
}

#[test]
fn the_open_minutes_of_a_start_are_those_of_the_sink_though_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    five_minutes(&mut node, |_| {});
    node.pass_ms(13 * MINUTE_MS);
    node.flush();
    let first = sent(&node);
    assert!(!first.is_empty() && first.len() < 15, "some minutes are final, others not");
    let wall = node.now.wall;
    let sink = { node }.forwarder.into_sink();
    // The fixture folds every row of the journal, as a start does that does not know its sink.
    let mut node = Node::start(dir.path(), 1, |_| sink);
    node.now.wall = wall;
    node.pass_ms(LONG_MS);
    node.flush();
    let all = sent(&node);
    assert_eq!((all.len(), &all[..first.len()]), (15, &first[..]), "none comes twice");
    node.forwarder.sink().check(clicks(0..200));
}

#[test]
fn minutes_whose_rows_the_journal_lost_and_the_sink_has_get_no_sketch_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    five_minutes(&mut node, |_| {});
    let wall = node.now.wall;
    let sink = { node }.forwarder.into_sink();
    let segment = std::fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "wseg")).min().unwrap();
    // The last of its blocks are gone; nothing in the journal tells.
    let bytes = std::fs::read(&segment).unwrap();
    let third = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"WBLK").nth(2).unwrap().0;
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(third as u64).unwrap();

    let mut node = Node::start(dir.path(), 2, |_| sink);
    node.now.wall = wall;
    node.pass_ms(2 * MINUTE_MS);
    node.flush();
    node.write(0, &clicks(500..510));
    node.pass_ms(LONG_MS);
    node.flush();
    node.pass_ms(2 * LONG_MS);
    node.write(0, &clicks(600..610));
    node.pass_ms(LONG_MS);
    node.flush();
    let sink = node.forwarder.sink();
    let unsketched = sink.committed.values().flat_map(|(batch, _)| &batch.uniques.unsketched);
    let incomplete: Vec<_> = unsketched.map(|minute| minute.minute.0).collect();
    assert!((0..5).all(|minute| incomplete.contains(&(START.minute().0 + minute))), "{incomplete:?}");
    let (expected, found) = (sink.sketches_recounted(), sink.sketches());
    assert!(found.iter().all(|(key, theta)| expected[key] == *theta), "what is there is right");
    assert_eq!(found.len(), 3, "later minutes have theirs");
    assert_eq!(node.stats.unsketched_minutes.get(), incomplete.len() as u64);
}

#[test]
fn over_the_bound_some_ads_have_no_sketch_the_others_a_right_one_and_it_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = ForwarderConfig { uniques_bytes_max: 500, ..flush_config() };
    let mut node = Node::try_start(dir.path(), 2, config, |_| MemorySink::default()).unwrap();
    five_minutes(&mut node, |node| assert!(node.stats.sketches_held_bytes.get() <= 500));
    node.pass_ms(LONG_MS);
    node.flush();
    let sink = node.forwarder.sink();
    let (expected, found) = (sink.sketches_recounted(), sink.sketches());
    assert!(!found.is_empty() && found.len() < expected.len(), "{} of {}", found.len(), expected.len());
    assert!(found.iter().all(|(key, theta)| expected[key] == *theta));
    let incomplete: Vec<_> =
        sink.committed.values().flat_map(|(batch, _)| batch.uniques.unsketched.clone()).collect();
    let missing = expected.keys().filter(|key| !found.contains_key(key));
    assert!(missing.clone().all(|(minute, _)| incomplete.iter().any(|at| at.minute.0 == *minute)));
    assert_eq!(node.stats.unsketched_minutes.get(), incomplete.len() as u64);
    assert!(node.stats.unsketched_clicks.get() >= missing.count() as u64);
}

fn audited(dir: &Path) -> AuditReport {
    let store = Store::open(&store_path(dir), Incarnation(0)).unwrap();
    audit(&store, &AuditConfig::default()).unwrap()
}

/// A store with five minutes of sketches.
fn stored(dir: &Path, config: ForwarderConfig) {
    let mut node = Node::try_start(dir, 2, config, store(dir)).unwrap();
    for minute in 0..5 {
        write(&mut node, minute as usize % 2, minute * 40..minute * 40 + 40);
        node.flush();
        node.pass_ms(MINUTE_MS);
    }
    node.pass_ms(LONG_MS);
    node.write(0, &[1000]);
    node.flush();
}

#[test]
fn the_store_has_the_sketches_of_its_rows_and_the_audit_says_so() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), flush_config());
    let report = audited(dir.path());
    assert!(report.sound && report.sketches == 15 && report.unsketched_minutes == 0, "{report}");
    let store = Store::open(&store_path(dir.path()), Incarnation(0)).unwrap();
    let rows: Vec<_> = RowIter::new(&store).unwrap().map(|(_, row)| row).collect();
    let expected = sketches_of(rows.iter(), Minute(START.minute().0 + 10));
    let found: BTreeMap<_, _> = store
        .uniques()
        .map(|sketch| {
            let (_, FlushNo(revision), Sketch { minute, ad, theta }) = sketch.unwrap();
            assert_eq!(revision, 6, "that of the flush which made it final");
            ((minute.0, ad), theta)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_store_that_says_itself_what_has_no_sketch_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), ForwarderConfig { uniques_bytes_max: 0, ..flush_config() });
    let report = audited(dir.path());
    assert!(report.sound && report.sketches == 0 && report.unsketched_minutes == 5, "{report}");
}

#[test]
fn a_sketch_that_is_changed_gone_or_too_early_does_not_pass_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), flush_config());
    let tamper = |key: &[u8], value: Option<&[u8]>| {
        let db = fjall::Database::builder(store_path(dir.path()).join("db")).open().unwrap();
        let uniques = db.keyspace("uniques", fjall::KeyspaceCreateOptions::default).unwrap();
        let before = uniques.get(key).unwrap().map(|value| value.to_vec());
        match value {
            Some(value) => uniques.insert(key, value).unwrap(),
            None => uniques.remove(key).unwrap(),
        }
        db.persist(fjall::PersistMode::SyncAll).unwrap();
        before
    };
    let first = {
        let store = Store::open(&store_path(dir.path()), Incarnation(0)).unwrap();
        let (incarnation, _, sketch) = store.uniques().next().unwrap().unwrap();
        weir_common::ordered::users(sketch.ad, sketch.minute, incarnation)
    };
    let whole = tamper(&first, None).unwrap();
    let report = audited(dir.path());
    assert!(!report.sound && report.sketch_mismatches == 1, "{report}");
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    tamper(&first, Some(&bytes));
    assert_eq!(audited(dir.path()).sketch_mismatches, 1);
    tamper(&first, Some(&whole));
    assert!(audited(dir.path()).sound);
    // A sketch of the last click's minute, which is not final, and of an ad that has no rows.
    for (ad, minute) in [(1, START.minute().0 + 35), (77, START.minute().0)] {
        let incarnation = Incarnation(u64::from_be_bytes(first[12..].try_into().unwrap()));
        let key = weir_common::ordered::users(ad, Minute(minute), incarnation);
        tamper(&key, Some(&whole));
        assert_eq!(audited(dir.path()).sketch_mismatches, 1, "ad {ad} in minute {minute}");
        tamper(&key, None);
    }
}
