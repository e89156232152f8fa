use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use weir_common::block::PLAIN_RULES;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{BlockSeq, ImpressionId, NodeId, WorkerId};
use weir_common::siphash::SipKey;
use weir_common::wire::{Click, click_flags};
use zerocopy::byteorder::little_endian::U64;

use super::*;
use crate::admission::Admitted;
use crate::digest::digester::Lookout;
use crate::digest::header::digest_path;
use crate::forward::LostEnd;
use crate::journal::stream::Position;
use crate::journal::{BlockBuilder, Disk, DiskBudget, Journal, JournalConfig, recover};
use crate::ledger::Entry;
use crate::traffic::Flags;

const START_MS: u64 = 1_800_000_000_000;
/// Far more than the ledger holds minutes open.
const MINUTES: u64 = 45;
const WORKERS: usize = 2;
/// For users: more than there are.
const ROOM: u64 = 1 << 20;

/// One click every second for [`MINUTES`], decided and journaled by two workers in turn.
fn write_journal(folder: &Folder) {
    write_journal_of(folder, |_, _| true);
}

/// The same, but only the clicks that are wanted, by minute and click.
fn write_journal_of(folder: &Folder, wanted: impl Fn(u64, &Click) -> bool) {
    let budget = Arc::new(DiskBudget::new(1 << 30, 0));
    for worker in 0..WORKERS {
        let writer = folder.writer(WorkerId(worker as u16));
        let mut journal =
            Journal::new(JournalConfig::new(folder.segments().to_owned(), writer), Arc::clone(&budget));
        let (mut disk, mut builder) = (Disk::default(), BlockBuilder::new(64 << 10));
        let mut ledger = Ledger::new(&settings());
        let mut unflushed = Unflushed::default();
        disk.drive(&mut journal, 0);
        for second in 0..MINUTES * 60 {
            let now = UnixMs(START_MS + second * 1000);
            let click = Click {
                impression: ImpressionId(u128::from(second * 2 + worker as u64).to_le_bytes()),
                ad: U64::new(second % 5),
                price_micros: U64::new(10),
                user_key: U64::new(second % 7 + 1),
                flags: click_flags::FOREIGN,
                ..Click::zeroed()
            };
            let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
            let mut decisions = Vec::new();
            unflushed.take_each_minute(now, &mut ledger, |_| false);
            if !wanted(second / 60, &click) {
                continue;
            }
            ledger.apply(&[Entry { received_at: now, admitted, click: &click }], &mut decisions);
            if !builder.is_open() {
                builder.begin(journal.next_identity(), now);
            }
            builder.push(now, &admitted, &decisions[0], &click, &[]).expect("room");
            if second % 60 == 59 {
                journal.submit(builder.seal(journal.previous_crc()).expect("a block")).expect("room");
                disk.drive(&mut journal, 0);
            }
        }
        assert!(journal.is_idle());
    }
}

fn settings() -> Settings {
    Settings::new(SipKey { k0: 3, k1: 4 })
}

/// Everything the first flush after a start sends, added over the workers.
fn first_flush(workers: Vec<(Ledger, Unflushed)>) -> HashMap<BucketKey, BucketTotals> {
    let mut buckets: HashMap<BucketKey, BucketTotals> = HashMap::new();
    for (mut ledger, mut unflushed) in workers {
        for (key, totals) in unflushed.flush(UnixMs(START_MS + MINUTES * 60_000), &mut ledger) {
            buckets.entry(key).or_default().merge(&totals);
        }
    }
    buckets
}

fn recount(folder: &Folder) -> HashMap<BucketKey, BucketTotals> {
    let mut buckets: HashMap<BucketKey, BucketTotals> = HashMap::new();
    recover(folder, |_, row, _| {
        let key = Dimensions::DEFAULT.key(row.minute.get(), &row.click, PLAIN_RULES);
        buckets.entry(key).or_default().count(row);
    })
    .expect("journal");
    buckets
}

#[test]
fn after_a_long_outage_of_the_sink_the_first_flush_has_every_bucket() {
    let path = tempfile::tempdir().expect("folder");
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    write_journal(&folder);
    for workers in [1, 2, 3] {
        let nothing = Checkpoint::default();
        let shards = ShardMap::even(workers);
        let Refolded { ledgers, recovery, .. } =
            refold(&folder, &shards, &settings(), ROOM, &nothing).expect("refold");
        assert_eq!(recovery.report.rows, MINUTES * 60 * WORKERS as u64);
        let sent = first_flush(ledgers);
        assert_eq!(sent.len(), MINUTES as usize * 5);
        assert_eq!(sent, recount(&folder), "with {workers} workers");
    }
}

#[test]
fn minutes_that_the_sink_has_and_that_are_over_are_not_sent_again() {
    let path = tempfile::tempdir().expect("folder");
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    write_journal(&folder);
    let mut checkpoint = Checkpoint::default();
    for worker in 0..WORKERS {
        let committed = Position { last: BlockSeq(MINUTES - 1), ..Position::default() };
        checkpoint.positions.insert((folder.epoch(), WorkerId(worker as u16)), committed);
        checkpoint.counted.insert((folder.epoch(), WorkerId(worker as u16)), committed);
    }
    let Refolded { ledgers, .. } =
        refold(&folder, &ShardMap::even(2), &settings(), ROOM, &checkpoint).expect("refold");
    let (sent, all) = (first_flush(ledgers), recount(&folder));
    assert!(sent.len() < 20 * 5, "{} buckets", sent.len());
    let newest = UnixMs(START_MS).minute().0 + MINUTES as u32 - 1;
    assert_eq!(sent.keys().filter(|key| key.minute.get() == newest).count(), 5);
    for (key, totals) in sent {
        assert_eq!(totals, all[&key]);
    }
}

/// How many clicks of [`write_journal`] are duplicates to these ledgers.
fn known_again(shards: &ShardMap, ledgers: &mut [(Ledger, Unflushed)]) -> u64 {
    let now = UnixMs(START_MS + MINUTES * 60_000);
    let mut known = 0;
    for n in 0..MINUTES * 60 * WORKERS as u64 {
        let click = Click {
            impression: ImpressionId(u128::from(n).to_le_bytes()),
            flags: click_flags::FOREIGN,
            ..Click::zeroed()
        };
        let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
        let (ledger, _) = &mut ledgers[usize::from(shards.owner(click.shard()).0)];
        let mut decisions = Vec::new();
        ledger.apply(&[Entry { received_at: now, admitted, click: &click }], &mut decisions);
        known += u64::from(decisions[0].outcome == weir_common::reason::Outcome::Duplicate);
    }
    known
}

#[test]
fn a_damaged_digest_is_replaced_by_the_rows_of_its_segment() {
    let path = tempfile::tempdir().expect("folder");
    write_journal(&Folder::open(path.path(), NodeId(1)).expect("folder"));
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    let (place, shards) = (folder.place(), ShardMap::even(3));
    let mut lookout = Lookout::new(place.clone(), folder.epoch(), &Shelf::default(), BTreeMap::new());
    let closed = lookout.look().expect("folder");
    for wanted in closed.clone() {
        lookout.digest(wanted, &AtomicBool::new(false)).expect("not stopped").expect("a digest");
    }
    let (all, each) = (MINUTES * 60 * WORKERS as u64, MINUTES * 60);
    let settled = Checkpoint { final_before: Minute(u32::MAX), ..Checkpoint::default() };
    let settled = closed.iter().fold(settled, |mut settled, (id, _)| {
        let end = Position { last: BlockSeq(u64::MAX), ..Position::default() };
        settled.positions.insert((id.epoch, id.worker), end);
        settled
    });
    let start = |checkpoint: &Checkpoint| {
        let mut started = refold(&folder, &shards, &settings(), ROOM, checkpoint).expect("refold");
        (known_again(&shards, &mut started.ledgers), started)
    };

    let (known, started) = start(&settled);
    assert_eq!((known, started.recovery.report.rows, started.shelf.len()), (all, 0, WORKERS));
    assert!(started.past.is_none() && started.latest >= UnixMs(START_MS + MINUTES * 60_000 - 1000));

    let digest = digest_path(&place, closed[0].0);
    let mut bytes = std::fs::read(&digest).expect("digest");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&digest, bytes).expect("digest");
    let (known, started) = start(&settled);
    assert_eq!((known, started.recovery.report.rows, started.shelf.len()), (all, each, WORKERS - 1));
    // What is not settled is counted later, but for the segment that had to be read anyway.
    let (known, started) = start(&Checkpoint::default());
    assert_eq!((known, started.recovery.report.rows), (all, each));
    let mut sent = first_flush(started.ledgers);
    for (key, totals) in started.past.expect("a past").count().expect("journal").totals {
        sent.entry(key).or_default().merge(&totals);
    }
    // The resends above were duplicates, so nothing but the journal is counted.
    assert_eq!(sent, recount(&folder));

    std::fs::remove_file(place.segments.join(closed[0].0.file_name())).expect("segment");
    let (known, _) = start(&settled);
    assert!((each..all).contains(&known), "the other digest is whole, and part of this one: {known}");
}

#[test]
fn a_past_that_lost_blocks_since_it_was_digested_has_no_unique_users_and_says_so() {
    let path = tempfile::tempdir().expect("folder");
    write_journal(&Folder::open(path.path(), NodeId(1)).expect("folder"));
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    let (place, shards) = (folder.place(), ShardMap::even(1));
    let mut lookout = Lookout::new(place.clone(), folder.epoch(), &Shelf::default(), BTreeMap::new());
    let closed = lookout.look().expect("folder");
    for wanted in closed.clone() {
        lookout.digest(wanted, &AtomicBool::new(false)).expect("not stopped").expect("a digest");
    }
    let users = || {
        let started = refold(&folder, &shards, &settings(), ROOM, &Checkpoint::default()).expect("refold");
        let mut counted = started.past.expect("a past").count().expect("journal");
        (counted.uniques.close(Minute(u32::MAX), u64::MAX, 1).1, counted.lost_ends)
    };
    let (whole, lost_ends) = users();
    assert_eq!((whole.sketches.len() as u64, whole.unsketched.len()), (MINUTES * 5, 0));
    assert_eq!(lost_ends, []);

    let segment = place.segments.join(closed[0].0.file_name());
    let bytes = std::fs::read(&segment).expect("segment");
    let starts: Vec<_> =
        bytes.windows(4).enumerate().filter(|(_, four)| *four == b"WBLK").map(|(at, _)| at).collect();
    // In the middle, and at the end, where nothing after it tells.
    let last = BlockSeq(starts.len() as u64);
    let writer = (closed[0].0.epoch, closed[0].0.worker);
    let end = LostEnd { writer, known: last, left: BlockSeq(last.0 - 1) };
    for (block, lost) in [(starts[starts.len() / 2], vec![]), (starts[starts.len() - 1], vec![end])] {
        let mut damaged = bytes.clone();
        damaged[block + 300] ^= 1;
        std::fs::write(&segment, damaged).expect("segment");
        let (closing, lost_ends) = users();
        assert_eq!((closing.sketches.len(), closing.unsketched.len() as u64), (0, MINUTES));
        assert_eq!(lost_ends, lost);
    }
}

/// The sink has every block of both workers, and buckets of those up to `counted`.
fn all_committed(folder: &Folder, counted: BlockSeq) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for worker in 0..WORKERS {
        let writer = (folder.epoch(), WorkerId(worker as u16));
        let at = |last| Position { last, ..Position::default() };
        checkpoint.positions.insert(writer, at(BlockSeq(u64::MAX)));
        checkpoint.counted.insert(writer, at(counted));
    }
    checkpoint
}

#[test]
fn a_flush_cut_off_between_its_parts_leaves_all_its_buckets_owed() {
    let path = tempfile::tempdir().expect("folder");
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    write_journal(&folder);
    let nothing_counted = all_committed(&folder, BlockSeq(0));
    let ledgers =
        refold(&folder, &ShardMap::even(2), &settings(), ROOM, &nothing_counted).expect("refold").ledgers;
    assert_eq!(first_flush(ledgers), recount(&folder));
}

#[test]
fn a_bucket_goes_with_the_shares_of_all_workers_or_not_at_all() {
    let path = tempfile::tempdir().expect("folder");
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    let shards = ShardMap::even(2);
    // The second worker has had no click since the first minute, so nothing moved its time on.
    write_journal_of(&folder, |minute, click| minute == 0 || shards.owner(click.shard()) == WorkerId(0));
    let all = all_committed(&folder, BlockSeq(u64::MAX));
    let ledgers = refold(&folder, &shards, &settings(), ROOM, &all).expect("refold").ledgers;
    let (sent, all) = (first_flush(ledgers), recount(&folder));
    assert!(!sent.is_empty());
    for (key, totals) in sent {
        assert_eq!(totals, all[&key], "minute {}", key.minute.get());
    }
}

#[test]
fn a_row_that_makes_an_old_minute_owed_is_known_before_any_share_is_dropped() {
    let path = tempfile::tempdir().expect("folder");
    let folder = Folder::open(path.path(), NodeId(1)).expect("folder");
    write_journal(&folder);
    // What the second worker counted in the first minutes never reached the sink's buckets.
    let mut checkpoint = all_committed(&folder, BlockSeq(u64::MAX));
    checkpoint.counted.remove(&(folder.epoch(), WorkerId(1)));
    for workers in [1, 2, 3] {
        let ledgers = refold(&folder, &ShardMap::even(workers), &settings(), ROOM, &checkpoint)
            .expect("refold")
            .ledgers;
        assert_eq!(first_flush(ledgers), recount(&folder), "with {workers} workers");
    }
}
