//! A node without sockets against an oracle that never forgets: random traffic, restarts with
//! other numbers of workers, flushes, digests and trimming at random moments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datasketches::theta::ThetaSketchBuilder;
use proptest::prelude::*;
use tempfile::TempDir;
use weir_common::block::PLAIN_RULES;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{ImpressionId, Issuer, KeyId, NodeId, Shard, WorkerId};
use weir_common::reason::{Outcome, Reason};
use weir_common::row::Row;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::{Click, click_flags};
use zerocopy::byteorder::little_endian::{U16, U64};

use super::*;
use crate::admission::Admitted;
use crate::digest::digester::Lookout;
use crate::forward::Counted;
use crate::journal::stream::Position;
use crate::journal::trim::{trim, trimmable};
use crate::journal::{BlockBuilder, Disk, DiskBudget, Journal, JournalConfig, recover};
use crate::ledger::Entry;
use crate::traffic::Flags;

const START_MS: u64 = 1_800_000_000_000;
const FINAL_AFTER_MS: u64 = 5 * 60_000;
/// Makes rows long, so that a few dozen fill a segment.
const EXTENSION: usize = 900;
const BLOCK_BYTES: usize = 20 << 10;
const IMPRESSIONS: u64 = 1000;
/// For users: more than there are.
const ROOM: u64 = 1 << 20;

/// Nothing expires in the time a test covers, so the oracle need not know how.
fn settings() -> Settings {
    Settings {
        capacity_impressions: 10_000,
        capacity_buckets: 10_000,
        ..Settings::new(SipKey { k0: 3, k1: 4 })
    }
}

fn click(impression: u64, ordinal: u8) -> Click {
    let is_foreign = impression % 2 == 1;
    let id = if is_foreign {
        ImpressionId(
            u128::from(impression).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes(),
        )
    } else {
        ImpressionId::issued(
            Issuer(1),
            KeyId(1),
            (START_MS / 1000) as u32 + impression as u32 % 7,
            impression,
        )
    };
    Click {
        impression: id,
        ordinal,
        ad: U64::new(impression % 3),
        user_key: U64::new(impression % 50 + 1),
        price_micros: U64::new(10),
        flags: if is_foreign { click_flags::FOREIGN } else { 0 },
        extension_len: U16::new(EXTENSION as u16),
        ..Click::zeroed()
    }
}

/// What counts, by the plainest means.
#[derive(Default)]
struct Oracle {
    states: HashMap<u64, (BTreeSet<u8>, bool)>,
    buckets: HashMap<BucketKey, BucketTotals>,
    /// The users of each minute and ad.
    users: BTreeMap<(u32, u64), BTreeSet<u64>>,
}

impl Oracle {
    fn judge(&self, impression: u64, ordinal: u8, filter: Reason) -> Outcome {
        match self.states.get(&impression) {
            Some((seen, _)) if seen.contains(&ordinal) => Outcome::Duplicate,
            _ if filter != Reason::None => Outcome::Filtered,
            Some((_, true)) => Outcome::Repeat,
            _ => Outcome::Accepted,
        }
    }

    fn take(&mut self, impression: u64, ordinal: u8, outcome: Outcome, row: &Row) {
        let (seen, counted) = self.states.entry(impression).or_default();
        seen.insert(ordinal);
        *counted |= outcome == Outcome::Accepted;
        let key = Dimensions::DEFAULT.key(row.minute.get(), &row.click, PLAIN_RULES);
        self.buckets.entry(key).or_default().count(row);
        if matches!(outcome, Outcome::Accepted | Outcome::Repeat) {
            let key = (row.minute.get(), row.click.ad.get());
            self.users.entry(key).or_default().insert(row.click.user_key.get());
        }
    }

    /// The sketches of minutes that are not final.
    fn sketches(&self, open_from: Minute) -> BTreeMap<(u32, u64), Vec<u8>> {
        let sketch = |(key, users): (&(u32, u64), &BTreeSet<u64>)| {
            let mut sketch = ThetaSketchBuilder::default().lg_k(12).build().expect("a sketch");
            users.iter().for_each(|&user| sketch.update(user));
            (*key, sketch.compact(true).serialize())
        };
        self.users.range((open_from.0, 0)..).map(sketch).collect()
    }
}

struct Writer {
    journal: Journal,
    builder: BlockBuilder,
    disk: Disk,
}

impl Writer {
    fn seal(&mut self) {
        if let Some(block) = self.builder.seal(self.journal.previous_crc()) {
            assert!(self.journal.submit(block).is_ok(), "there is room for a block");
        }
        self.disk.drive(&mut self.journal, 0);
        assert!(self.journal.is_idle());
    }
}

struct Node {
    folder: Folder,
    shards: ShardMap,
    ledgers: Vec<(Ledger, Unflushed)>,
    writers: Vec<Writer>,
    lookout: Lookout,
    /// What the sink has: the latest of each bucket.
    sink: HashMap<BucketKey, BucketTotals>,
    /// Each worker's latest share, and the past's.
    shares: Vec<HashMap<BucketKey, BucketTotals>>,
    checkpoint: Checkpoint,
    /// The users as its start folded them.
    uniques: Uniques,
}

impl Node {
    fn start(
        dir: &TempDir,
        workers: usize,
        checkpoint: Checkpoint,
        sink: HashMap<BucketKey, BucketTotals>,
    ) -> Self {
        let folder = Folder::open(dir.path(), NodeId(1)).expect("folder");
        let shards = ShardMap::even(workers);
        let Refolded { ledgers, recovery, shelf, past, uniques, .. } =
            refold(&folder, &shards, &settings(), ROOM, &checkpoint).expect("refold");
        assert_eq!(
            (recovery.report.lost_blocks, recovery.report.findings_total),
            (0, 0),
            "{}",
            recovery.report
        );
        let mut shares = vec![HashMap::new(); workers];
        let all = Counted { uniques, ..Counted::default() };
        let Counted { totals, uniques, .. } = past.map_or(all, |past| past.count().expect("past"));
        shares.push(totals.into_iter().collect());
        let budget = Arc::new(DiskBudget::new(1 << 30, 0));
        let writer = |worker: usize| {
            let config =
                JournalConfig::new(folder.segments().to_owned(), folder.writer(WorkerId(worker as u16)));
            let config = JournalConfig {
                segment_bytes: 64 << 10,
                block_bytes_max: BLOCK_BYTES,
                queue_bytes_max: 2 * BLOCK_BYTES,
                ..config
            };
            let mut writer = Writer {
                journal: Journal::new(config, Arc::clone(&budget)),
                builder: BlockBuilder::new(BLOCK_BYTES),
                disk: Disk::default(),
            };
            writer.seal();
            writer
        };
        let lookout = Lookout::new(folder.place(), folder.epoch(), &shelf, BTreeMap::new());
        let writers = (0..workers).map(writer).collect();
        Self { folder, shards, ledgers, writers, lookout, sink, shares, checkpoint, uniques }
    }

    fn owner(&self, shard: Shard) -> usize {
        usize::from(self.shards.owner(shard).0)
    }

    fn click(&mut self, oracle: &mut Oracle, now: UnixMs, impression: u64, ordinal: u8, filter: Reason) {
        let click = click(impression, ordinal);
        let owner = self.owner(click.shard());
        let traffic = Flags::NONE.with(filter, filter != Reason::None);
        let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic, late: false };
        let mut decisions = Vec::new();
        let (ledger, unflushed) = &mut self.ledgers[owner];
        unflushed.take_each_minute(now, ledger, |_| true);
        ledger.apply(&[Entry { received_at: now, admitted, click: &click }], &mut decisions);
        let outcome = oracle.judge(impression, ordinal, filter);
        assert_eq!(decisions[0].outcome, outcome, "impression {impression}, ordinal {ordinal}");
        if outcome == Outcome::Duplicate {
            return;
        }
        let extension = [b'x'; EXTENSION];
        let writer = &mut self.writers[owner];
        if writer.builder.is_open() && !writer.builder.has_room_for(EXTENSION) {
            writer.seal();
        }
        if !writer.builder.is_open() {
            writer.builder.begin(writer.journal.next_identity(), now);
        }
        writer.builder.push(now, &admitted, &decisions[0], &click, &extension).expect("room");
        let is_filtered = outcome == Outcome::Filtered;
        let row = Row {
            received_at_ms: now.0.into(),
            minute: admitted.minute.0.into(),
            outcome: outcome as u8,
            reason: if is_filtered { filter as u8 } else { 0 },
            flags: 0,
            traffic: 0,
            click,
        };
        oracle.take(impression, ordinal, outcome, &row);
    }

    fn flush(&mut self, now: UnixMs) {
        for (worker, (ledger, unflushed)) in self.ledgers.iter_mut().enumerate() {
            self.writers[worker].seal();
            self.shares[worker].extend(unflushed.flush(now, ledger));
            let last = self.writers[worker].journal.durable();
            let writer = (self.folder.epoch(), WorkerId(worker as u16));
            self.checkpoint.positions.insert(writer, Position { last, ..Position::default() });
        }
        // What recovery found of earlier epochs goes with the first flush.
        for (writer, end) in recover(&self.folder, |_, _, _| {}).expect("journal").ends {
            if writer.0 < self.folder.epoch() {
                self.checkpoint.positions.insert(writer, end);
            }
        }
        let mut totals: HashMap<BucketKey, BucketTotals> = HashMap::new();
        for (key, share) in self.shares.iter().flatten() {
            if key.minute.get() >= self.checkpoint.final_before.0 {
                totals.entry(*key).or_default().merge(share);
            }
        }
        self.sink.extend(totals);
        let closed = UnixMs(now.0 - FINAL_AFTER_MS).minute();
        self.checkpoint.final_before = self.checkpoint.final_before.max(closed);
    }

    fn digest(&mut self, most: usize) {
        let closed = self.lookout.look().expect("folder");
        for wanted in closed.into_iter().take(most) {
            self.lookout.digest(wanted, &AtomicBool::new(false)).expect("not stopped").expect("a digest");
        }
    }

    fn trim(&self) {
        let (shelf, broken) = Shelf::open(&self.folder.place()).expect("folder");
        assert!(broken.is_empty());
        let known = shelf.iter().map(|digest| (digest.id(), digest.summary())).collect();
        let found =
            recover_part(&self.folder.place(), &Part { known, until: None }, |_, _, _| {}).expect("journal");
        let mut newest: BTreeMap<WorkerId, SegmentId> = BTreeMap::new();
        for segment in
            found.segments.iter().filter(|found| found.id.epoch == self.folder.epoch() && found.blocks > 0)
        {
            newest.insert(segment.id.worker, segment.id);
        }
        let is_open = |id: SegmentId| {
            id.epoch == self.folder.epoch() && newest.get(&id.worker).is_none_or(|&open| id >= open)
        };
        let committed = |epoch, worker| self.checkpoint.committed(epoch, worker);
        let remembered = |summary: &SegmentSummary| shelf.get(summary.id).is_some();
        let going =
            trimmable(&found.segments, committed, is_open, (self.checkpoint.final_before, 1), remembered);
        trim(self.folder.segments(), &DiskBudget::new(0, 0), going).expect("trim");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Clicks { impression: u64, count: u64, ordinal: u8, is_prefetch: bool },
    Pass(u64),
    Flush,
    Digest(usize),
    Trim,
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let clicks = (0..IMPRESSIONS, 1..200_u64, 0..3_u8, prop::bool::weighted(0.1));
    prop_oneof![
        12 => clicks.prop_map(|(impression, count, ordinal, is_prefetch)| Step::Clicks { impression, count, ordinal, is_prefetch }),
        4 => (1..120_000_u64).prop_map(Step::Pass),
        3 => Just(Step::Flush),
        3 => (1..9_usize).prop_map(Step::Digest),
        3 => Just(Step::Trim),
        2 => (1..5_usize).prop_map(Step::Restart),
    ]
}

/// A start has the users of every row of an open minute, whether it was forwarded before or not.
fn restart(node: Node, dir: &TempDir, workers: usize, oracle: &Oracle) -> Node {
    let Node { folder, mut writers, checkpoint, sink, .. } = node;
    writers.iter_mut().for_each(Writer::seal);
    drop((folder, writers));
    let mut node = Node::start(dir, workers, checkpoint, sink);
    let (_, closing) = node.uniques.close(Minute(u32::MAX), u64::MAX, 1);
    let sketches = closing.sketches.into_iter().map(|sketch| ((sketch.minute.0, sketch.ad), sketch.theta));
    let expected = oracle.sketches(node.checkpoint.final_before);
    assert_eq!(sketches.collect::<BTreeMap<_, _>>(), expected);
    node
}

/// Runs the steps; then restarts, resends everything, and compares sink and oracle.
fn check(steps: &[Step]) {
    let dir = tempfile::tempdir().expect("folder");
    let mut oracle = Oracle::default();
    let mut now = UnixMs(START_MS);
    let mut node = Node::start(&dir, 2, Checkpoint::default(), HashMap::new());
    for step in steps {
        match *step {
            Step::Clicks { impression, count, ordinal, is_prefetch } => {
                let filter = if is_prefetch { Reason::Prefetch } else { Reason::None };
                for n in 0..count {
                    node.click(&mut oracle, now, (impression + n * 7) % IMPRESSIONS, ordinal, filter);
                    now.0 += 50;
                }
            }
            Step::Pass(ms) => now.0 += ms,
            Step::Flush => node.flush(now),
            Step::Digest(most) => node.digest(most),
            Step::Trim => node.trim(),
            Step::Restart(workers) => node = restart(node, &dir, workers, &oracle),
        }
    }
    node = restart(node, &dir, 3, &oracle);
    for impression in 0..IMPRESSIONS {
        for ordinal in [0, 1, 2, 6] {
            node.click(&mut oracle, now, impression, ordinal, Reason::None);
        }
    }
    node.flush(now);
    assert_eq!(node.sink.len(), oracle.buckets.len());
    for (key, totals) in &oracle.buckets {
        assert_eq!(node.sink.get(key), Some(totals), "{key:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn digests_and_tail_remember_and_count_what_the_whole_journal_did(steps in prop::collection::vec(step(), 1..70)) {
        check(&steps);
    }
}

#[test]
fn from_one_worker_to_four_and_back_every_click_finds_its_impression() {
    let clicks = |impression| Step::Clicks { impression, count: 400, ordinal: 0, is_prefetch: false };
    let settle = [Step::Pass(400_000), Step::Flush, Step::Digest(99), Step::Trim];
    let mut steps = Vec::new();
    for (workers, impression) in [(1, 0), (4, 300), (1, 600), (4, 900), (3, 100)] {
        steps.extend([Step::Restart(workers), clicks(impression)]);
        steps.extend(settle.clone());
    }
    check(&steps);
}
