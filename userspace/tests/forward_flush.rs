//! From the journal to a sink: every acknowledged click once, every bucket a recount.

mod forward_fixture;
mod journal_fixture;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use forward_fixture::{Fault, MemorySink, Node, audited, flush_config, store, store_path};
use journal_fixture::START;
use weir::audit::{AuditConfig, audit};
use weir::forward::embedded::{Orphan, Store};
use weir::forward::forwarder::StartError;
use weir::forward::{Forwarder, ForwarderConfig, Stop};
use weir_common::id::Incarnation;
use weir_common::time::Minute;

fn clicks(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn a_flush_takes_blocks_and_buckets_of_all_workers_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 3, |_| MemorySink::default());
    for n in 0..30 {
        node.write(n % 3, &clicks(n as u64 * 10..n as u64 * 10 + 10));
    }
    node.flush();
    node.forwarder.sink().check(clicks(0..300));
    assert_eq!((node.stats.rows.get(), node.stats.blocks.get(), node.stats.flushes.get()), (300, 30, 1));
    assert_eq!(node.stats.buckets.get(), node.forwarder.sink().buckets().len() as u64);
}

#[test]
fn later_flushes_carry_only_what_is_new_with_a_higher_revision() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    node.write(0, &[1, 2, 3]);
    node.flush();
    node.write(1, &[52]);
    node.flush();
    node.flush();
    let sink = node.forwarder.sink();
    sink.check(vec![1, 2, 3, 52]);
    let sizes: Vec<_> =
        sink.committed.values().map(|(batch, blocks)| (batch.buckets.len(), blocks.len())).collect();
    assert_eq!(sizes, [(3, 1), (1, 1)], "an empty flush is no transaction");
}

#[test]
fn no_flush_goes_out_without_every_workers_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    node.write(0, &[0]);
    node.workers[1].submit(node.now.wall, &[1]);
    node.forwarder.begin_flush(node.now);
    for _ in 0..20 {
        // Worker 1 is asked, but its block is not durable yet.
        node.workers.iter_mut().for_each(|worker| worker.turn());
        node.forwarder.poll(node.now);
    }
    assert!(node.forwarder.sink().offered.is_empty());
    node.flush();
    node.forwarder.sink().check(vec![0, 1]);
}

#[test]
fn a_commit_that_failed_is_offered_again_byte_for_byte_and_workers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = vec![Fault::Refuse, Fault::LoseAnswer, Fault::Refuse];
    let sink = MemorySink { faults: RefCell::new(faults), ..MemorySink::default() };
    let mut node = Node::start(dir.path(), 2, |_| sink);
    node.write(0, &clicks(0..10));
    node.forwarder.begin_flush(node.now);
    while node.forwarder.last_error().is_none() {
        node.workers.iter_mut().for_each(|worker| worker.turn());
        node.forwarder.poll(node.now);
    }
    node.write(1, &clicks(10..20));
    node.flush();
    let offered = &node.forwarder.sink().offered;
    assert_eq!(offered.len(), 4);
    assert!(offered.iter().all(|offer| *offer == offered[0]));
    assert_eq!(node.stats.flush_failures.get(), 3);
    node.flush();
    node.forwarder.sink().check(clicks(0..20));
}

#[test]
fn retries_back_off_instead_of_hammering() {
    let dir = tempfile::tempdir().unwrap();
    let sink = MemorySink { faults: RefCell::new(vec![Fault::Refuse; 8]), ..MemorySink::default() };
    let mut node = Node::start(dir.path(), 1, |_| sink);
    node.write(0, &[1]);
    let began = node.now.ms;
    node.flush();
    let waited = node.now.ms - began;
    assert!((10_000..60_000).contains(&waited), "{waited} ms");
}

#[test]
fn a_long_backlog_goes_out_in_parts_and_the_last_has_the_buckets() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    for n in 0..40 {
        node.write(n % 2, &clicks(n as u64 * 10..n as u64 * 10 + 10));
    }
    node.flush();
    let sink = node.forwarder.sink();
    sink.check(clicks(0..400));
    let buckets: Vec<_> = sink.committed.values().map(|(batch, _)| batch.buckets.len()).collect();
    let (last, others) = buckets.split_last().unwrap();
    assert!(others.len() > 3 && others.iter().all(|&count| count == 0) && *last > 0, "{buckets:?}");
}

#[test]
fn a_start_with_another_number_of_workers_goes_on_where_the_sink_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    let mut expected_rows = 0;
    for (workers, flushed) in [(2_u16, true), (5, false), (1, true), (3, false)] {
        let mut node = Node::start(dir.path(), workers, store(dir.path()));
        for worker in 0..workers {
            node.write(worker.into(), &clicks(next..next + 7));
            next += 7;
        }
        if flushed {
            node.flush();
            expected_rows = next;
        }
        drop(node);
        let (report, found) = audited(dir.path());
        assert!(report.sound, "{report}");
        assert_eq!(found, clicks(0..expected_rows));
    }
    let mut node = Node::start(dir.path(), 4, store(dir.path()));
    node.flush();
    drop(node);
    let (report, found) = audited(dir.path());
    assert!(report.sound, "{report}");
    assert_eq!(found, clicks(0..next));
    assert!(report.to_string().lines().count() < 30);
    assert!(serde_json::to_string(&report).unwrap().contains("\"sound\":true"));
}

#[test]
fn a_crash_between_raw_file_and_transaction_leaves_nothing_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    node.write(0, &clicks(0..10));
    node.flush();
    node.write(0, &clicks(10..20));
    drop(node);
    // The file of flush 2 as the crash left it, and a half-written one beside it.
    let journal = fs::read(dir.path().join("journal/00000001-0000-00000001.wseg")).unwrap();
    let at = journal.windows(4).rposition(|window| window == b"WBLK").unwrap();
    let (header, _) = weir::journal::block::check_block(&journal[at..]).unwrap();
    let block = &journal[at..at + 128 + header.body_len.get() as usize];
    let raw = store_path(dir.path()).join("raw");
    fs::write(raw.join("0000000000000002-000000.wraw"), block).unwrap();
    fs::write(raw.join("0000000000000002-000001.new"), b"WBLK").unwrap();
    let (report, found) = audited(dir.path());
    assert!(report.sound, "{report}");
    assert_eq!((report.orphans, found), (1, clicks(0..10)));

    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    let recovery = &node.recovery;
    let has = |_, epoch, worker, sequence| recovery.has_block(epoch, worker, sequence);
    let orphans = node.forwarder.sink().resolve_orphans(has).unwrap();
    assert!(matches!(orphans[..], [Orphan { removed: true, .. }]));
    assert_eq!(fs::read_dir(&raw).unwrap().count(), 1, "the leftover is gone too");
    node.flush();
    drop(node);
    let (report, found) = audited(dir.path());
    assert!(report.sound && report.orphans == 0, "{report}");
    assert_eq!(found, clicks(0..20));
}

#[test]
fn an_orphan_is_deleted_only_while_the_journal_has_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    node.write(0, &clicks(0..10));
    node.flush();
    drop(node);
    let raw = store_path(dir.path()).join("raw");
    let named = raw.join("0000000000000001-000000.wraw");
    let orphan = raw.join("0000000000000099-000000.wraw");
    for (kept, damage) in [(false, false), (true, true), (true, false)] {
        let mut bytes = fs::read(&named).unwrap();
        if damage {
            bytes[200] ^= 1;
        }
        fs::write(&orphan, bytes).unwrap();
        let store = Store::open(&store_path(dir.path()), Incarnation(0)).unwrap();
        let orphans = store.resolve_orphans(|_, _, _, _| kept).unwrap();
        assert_eq!(orphans.len(), 1);
        let goes = kept && !damage;
        assert_eq!((orphans[0].removed, orphan.exists()), (goes, !goes));
        assert!(named.exists());
    }
}

#[test]
fn a_block_lost_to_a_bad_disk_is_a_known_gap_and_the_rest_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    for n in 0..5 {
        node.write(0, &clicks(n * 10..n * 10 + 10));
    }
    drop(node);
    let path = dir.path().join("journal/00000001-0000-00000001.wseg");
    let bytes = fs::read(&path).unwrap();
    let third =
        bytes.windows(4).enumerate().filter(|(_, window)| *window == b"WBLK").nth(2).unwrap().0 as u64;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", third + 300).unwrap();

    let mut node = Node::start(dir.path(), 2, store(dir.path()));
    assert_eq!(node.recovery.report.lost_blocks, 1);
    node.flush();
    drop(node);
    let (report, found) = audited(dir.path());
    assert!(report.sound && report.known_lost_blocks == 1, "{report}");
    assert_eq!(found, [clicks(0..20), clicks(30..50)].concat());
}

#[test]
fn trimming_keeps_final_buckets_whole_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = || ForwarderConfig { horizon_ms: 30 * 60_000, trim_every_ms: 1 << 40, ..flush_config() };
    let mut node = Node::try_start(dir.path(), 2, config(), store(dir.path())).unwrap();
    let mut next = 9;
    // Worker 1 is idle after its first block, so all of its open segment grows old.
    node.write(1, &clicks(0..9));
    for _ in 0..60 {
        // Minutes must not end where segments do: one then is trimmed in part.
        for _ in 0..4 {
            node.write(0, &clicks(next..next + 9));
            next += 9;
        }
        node.pass_ms(60_000);
        node.flush();
    }
    let before = fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert!(node.forwarder.trim(node.now.wall).unwrap() > 0);
    let after = fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert!(after < before && after > 0);
    node.write(1, &[next]);
    let wall = node.now.wall;
    drop(node);

    let mut node = Node::try_start(dir.path(), 3, config(), store(dir.path())).unwrap();
    assert!(node.recovery.report.rows < next, "the test wants rows that are gone");
    node.now.wall = wall;
    node.write(1, &[next + 1]);
    node.flush();
    drop(node);
    let (report, found) = audited(dir.path());
    assert!(report.sound, "{report}");
    assert_eq!(found, clicks(0..next + 2));
}

#[test]
fn what_an_idle_node_took_becomes_final_and_goes_as_on_a_busy_one() {
    let dir = tempfile::tempdir().unwrap();
    // Without sketches to close.
    let config = ForwarderConfig {
        horizon_ms: 30 * 60_000,
        trim_every_ms: 1 << 40,
        uniques_bytes_max: 0,
        ..flush_config()
    };
    let mut node = Node::try_start(dir.path(), 1, config, |_| MemorySink::default()).unwrap();
    for n in 0..60 {
        node.write(0, &clicks(9 * n..9 * n + 9));
    }
    node.flush();
    let last = node.now.wall.minute();
    let (segments, flushes) =
        (|| fs::read_dir(dir.path().join("journal")).unwrap().count(), || node.stats.flushes.get());
    let before = (segments(), flushes());
    assert!(before.0 > 2, "the test wants more than the open segment");
    node.pass_ms(3_600_000);
    node.flush();
    node.forwarder.poll(node.now);
    assert!(node.forwarder.checkpoint().final_before > last);
    assert!(segments() < before.0, "what became final goes at once");
    node.pass_ms(3_600_000);
    node.flush();
    assert_eq!(node.stats.flushes.get(), before.1 + 1, "and once: nothing waits any more");
}

#[test]
fn a_worker_without_space_holds_up_no_flush_and_its_minute_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let config = ForwarderConfig { horizon_ms: 20 * 60_000, ..flush_config() };
    let mut node = Node::try_start(dir.path(), 2, config, |_| MemorySink::default()).unwrap();
    let first = node.now.wall.minute();
    node.write(0, &[0]);
    node.write(1, &[51, 54]);
    node.workers[1].is_blocked = true;
    for n in 1..4 {
        node.flush();
        node.pass_ms(20 * 60_000);
        node.write(0, &[n]);
    }
    assert_eq!(node.forwarder.sink().rows().len(), 3, "the others' clicks go on");
    assert!(node.forwarder.checkpoint().final_before <= first, "its minute is not final");
    node.workers[1].is_blocked = false;
    node.flush();
    node.forwarder.sink().check(vec![0, 1, 2, 3, 51, 54]);
}

#[test]
fn a_copied_folder_does_not_forward_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let start = |folder: &std::path::Path| Node::try_start(folder, 1, flush_config(), store(dir.path()));
    let mut node = start(dir.path()).unwrap();
    node.write(0, &[1]);
    node.flush();
    drop(node);
    fs::write(dir.path().join("epoch"), "0").unwrap();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let error = start(dir.path()).err().unwrap();
    assert!(matches!(error, StartError::Behind { sink: 1, journal: 1 }), "{error}");
}

#[test]
fn damage_to_the_store_never_passes_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, store(dir.path()));
    for n in 0..6 {
        node.write(n % 2, &clicks(n as u64 * 5..n as u64 * 5 + 5));
    }
    node.flush();
    drop(node);
    assert!(audited(dir.path()).0.sound);
    let raw = store_path(dir.path()).join("raw/0000000000000001-000000.wraw");
    let whole = fs::read(&raw).unwrap();
    for bit in (0..whole.len() * 8).step_by(997) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&raw, bytes).unwrap();
        let (report, _) = audited(dir.path());
        assert!(!report.sound, "bit {bit}");
    }
    for cut in [0, 1, 127, 128, whole.len() / 2, whole.len() - 1] {
        fs::write(&raw, &whole[..cut]).unwrap();
        assert!(!audited(dir.path()).0.sound, "cut at {cut}");
    }
    let again = [&whole[..], &whole[..]].concat();
    fs::write(&raw, again).unwrap();
    let (report, _) = audited(dir.path());
    assert!(
        report.clicks_twice > 0 && report.bucket_mismatches > 0 && report.sequence_faults > 0,
        "{report}"
    );
}

#[test]
fn an_audit_in_many_passes_says_what_one_in_one_pass_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, store(dir.path()));
    for n in 0..10 {
        node.write(n % 2, &clicks(n as u64 * 9..n as u64 * 9 + 9));
    }
    node.flush();
    drop(node);
    let raw = store_path(dir.path()).join("raw/0000000000000001-000000.wraw");
    let whole = fs::read(&raw).unwrap();
    for bytes in [whole.clone(), [&whole[..], &whole[..]].concat()] {
        fs::write(&raw, bytes).unwrap();
        let store = Store::open(&store_path(dir.path()), Incarnation(0)).unwrap();
        let audited = |rows_per_pass| {
            let mut report = audit(&store, &AuditConfig { rows_per_pass, ..AuditConfig::default() }).unwrap();
            let passes = std::mem::take(&mut report.passes);
            let mut findings: Vec<_> =
                std::mem::take(&mut report.findings).iter().map(ToString::to_string).collect();
            findings.sort();
            (passes, report, findings)
        };
        let (one, many) = (audited(1 << 20), audited(7));
        assert!(one.0 == 1 && many.0 > 10);
        assert_eq!((one.1, one.2), (many.1, many.2));
    }
}

#[test]
fn the_time_from_click_to_bucket_is_that_of_the_oldest_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    node.write(0, &[1]);
    node.pass_ms(3000);
    node.write(1, &[2]);
    node.flush();
    let latency = node.stats.click_to_bucket.snapshot();
    assert_eq!(latency.count(), 1);
    assert!((3_000_000_000..4_000_000_000).contains(&latency.max_ns), "{}", latency.max_ns);
}

#[test]
fn the_store_answers_by_ad_and_by_minute_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    for n in 0..3 {
        node.write(0, &clicks(n * 20..n * 20 + 20));
        node.flush();
        node.pass_ms(60_000);
    }
    let store = node.forwarder.sink();
    let mut by_minute = Vec::new();
    for minute in START.minute().0..START.minute().0 + 3 {
        by_minute.extend(store.minute(Minute(minute)).map(Result::unwrap));
    }
    let mut by_ad: Vec<_> =
        store.buckets().map(Result::unwrap).map(|(life, _, found)| (life, found)).collect();
    for (life, found) in &by_ad {
        assert_eq!(store.bucket(&found.key, *life).unwrap(), Some(found.totals));
    }
    assert!(by_ad.is_sorted_by_key(|(_, found)| (found.key.ad, found.key.minute)));
    by_ad.sort_by_key(|(_, found)| (found.key.minute, found.key));
    by_minute.sort_by_key(|(_, found)| (found.key.minute, found.key));
    assert_eq!(by_ad.len(), 3 * 6, "three minutes of 3 ads and 2 devices");
    assert_eq!(by_ad, by_minute);
}

/// The forwarder's thread, asked to stop before its first turn, once it has ended; the workers go on meanwhile.
fn ended(node: Node<MemorySink>, in_haste: bool) -> Forwarder<MemorySink> {
    // The folder is locked until the end.
    let Node { forwarder, mut workers, folder: _folder, .. } = node;
    let stop = Stop::default();
    stop.ask(in_haste);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| forwarder.run(&stop));
        while !thread.is_finished() {
            workers.iter_mut().for_each(|worker| worker.turn());
            std::thread::yield_now();
        }
        thread.join().unwrap()
    })
}

/// A start that finds the sink again has all of these clicks in it.
fn a_start_forwards_the_rest(dir: &std::path::Path, ended: Forwarder<MemorySink>, clicks: Vec<u64>) {
    assert!(!ended.is_idle());
    let sink = ended.into_sink();
    sink.check(vec![]);
    sink.faults.borrow_mut().clear();
    let mut node = Node::start(dir, 1, |_| sink);
    node.flush();
    node.forwarder.sink().check(clicks);
}

fn sink_that_is_away() -> MemorySink {
    MemorySink { faults: RefCell::new(vec![Fault::Refuse; 1000]), ..MemorySink::default() }
}

#[test]
fn the_thread_makes_a_last_flush_of_everything_before_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| MemorySink::default());
    for n in 0..10 {
        node.write(n % 2, &clicks(n as u64 * 3..n as u64 * 3 + 3));
    }
    ended(node, false).sink().check(clicks(0..30));
}

#[test]
fn the_thread_ends_when_the_sink_is_away_and_a_start_forwards_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, |_| sink_that_is_away());
    node.write(0, &[1, 2, 3]);
    a_start_forwards_the_rest(dir.path(), ended(node, false), vec![1, 2, 3]);
}

#[test]
fn a_thread_in_haste_waits_for_no_sink_that_was_away_for_long_and_a_start_forwards_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, |_| sink_that_is_away());
    node.write(0, &[1, 2, 3]);
    node.forwarder.begin_flush(node.now);
    // Until a failed commit waits its longest, ten seconds, for the next try.
    while node.stats.flush_failures.get() < 8 {
        node.workers.iter_mut().for_each(|worker| worker.turn());
        let wait_ms = node.forwarder.poll(node.now);
        node.pass_ms(wait_ms);
    }
    let began = Instant::now();
    let ended = ended(node, true);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    a_start_forwards_the_rest(dir.path(), ended, vec![1, 2, 3]);
}
