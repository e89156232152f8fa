//! Digests: what they hold, how they come to be and go, and that no damage to one goes unseen.

mod forward_fixture;
mod journal_fixture;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};

use forward_fixture::{MemorySink, Node, flush_config};
use journal_fixture::{START, Writer, number, open, open_sealed, recovered};
use weir::digest::digester::Lookout;
use weir::digest::header::digest_path;
use weir::digest::read::Scratch;
use weir::digest::write::remove_unfinished;
use weir::digest::{Digest, DigestError, DigestHeader, Digests, GROUPS, Shelf, WriteError, write_digest};
use weir::forward::{Counted, LostEnd, Past};
use weir::journal::folder::segment_ids;
use weir::journal::{Folder, Part, SegmentId, recover_part};
use weir::ledger::{Ledger, Recalled, RememberedState, Settings};
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::row::Row;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;

static RUN_ON: AtomicBool = AtomicBool::new(false);
const DAY_MS: u64 = 86_400_000;

/// Clicks of one worker over three segments and more, half of them twice; the closed segments.
fn write(folder: &Folder) -> Vec<(SegmentId, Option<BlockSeq>)> {
    let mut writer = Writer::new(folder, 0);
    let mut at = START;
    for n in (0..1500).step_by(10) {
        writer.write(at, (n..n + 10).chain(n / 2..n / 2 + 5));
        at.0 += 10;
    }
    let closed = lookout(folder).look().unwrap();
    assert!(closed.len() >= 3);
    closed
}

fn lookout(folder: &Folder) -> Lookout {
    Lookout::new(folder.place(), folder.epoch(), &Shelf::default(), BTreeMap::new())
}

fn digest(folder: &Folder, (id, last): (SegmentId, Option<BlockSeq>)) -> Result<DigestHeader, WriteError> {
    write_digest(&folder.place(), id, last, &RUN_ON)
}

fn read(folder: &Folder, id: SegmentId) -> Result<Vec<Recalled>, DigestError> {
    let mut all = Vec::new();
    let digest = Digest::open(&folder.place(), id)?;
    digest.read(0..GROUPS, &mut Scratch::default(), |chunk| all.extend_from_slice(chunk))?;
    Ok(all)
}

/// What the rows of one segment say of each impression.
fn expected(folder: &Folder, id: SegmentId) -> BTreeMap<u64, RememberedState> {
    let mut states = BTreeMap::new();
    let place = folder.place();
    let known = segment_ids(&place.segments).unwrap().into_iter().filter(|&other| other != id);
    let known = known.map(|id| {
        let summary = weir::journal::SegmentSummary {
            id,
            bytes: 0,
            blocks: 0,
            first: BlockSeq(0),
            last: BlockSeq(0),
            newest: UnixMs(0),
            damaged: false,
        };
        (id, summary)
    });
    let part = Part { known: known.collect(), until: None };
    let mut on_row = |row: &Row| {
        let state = RememberedState::of_row(row).unwrap();
        let known = states.entry(number(&row.click)).or_insert(state);
        *known = known.merged(state);
    };
    recover_part(&place, &part, |_, row, _| on_row(row)).unwrap();
    states
}

#[test]
fn a_digest_holds_every_impression_of_its_segment_once() {
    holds_every_impression_once(open);
}

#[test]
fn a_digest_of_an_encrypted_segment_holds_what_one_of_a_plain_segment_does() {
    holds_every_impression_once(open_sealed);
}

fn holds_every_impression_once(open: fn(&Path) -> Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    for wanted in write(&folder) {
        let header = digest(&folder, wanted).unwrap();
        let found = read(&folder, wanted.0).unwrap();
        assert_eq!((header.issued.get(), header.foreign.get()), (found.len() as u64, 0));
        let found: BTreeMap<_, _> = found.iter().map(|entry| (entry.id.sequence(), entry.state)).collect();
        assert_eq!(found.len() as u64, header.impressions());
        assert_eq!(found, expected(&folder, wanted.0));
        assert_eq!(Some(BlockSeq(header.last.get())), wanted.1);
        assert_eq!(header.bytes(), fs::metadata(digest_path(&folder.place(), wanted.0)).unwrap().len());
    }
}

#[test]
fn the_open_segment_gets_no_digest_and_a_later_start_gives_it_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let closed = write(&folder);
    let all = segment_ids(folder.segments()).unwrap();
    let open_ids = all.iter().filter(|id| !closed.iter().any(|(closed, _)| closed == *id)).count();
    assert!(open_ids >= 1);
    drop(folder);
    let folder = open(dir.path());
    assert_eq!(lookout(&folder).look().unwrap().len(), all.len());
}

#[test]
fn a_segment_with_damage_before_acknowledged_blocks_gets_no_digest() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let closed = write(&folder);
    let path = folder.segments().join(closed[0].0.file_name());
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = digest(&folder, closed[0]).unwrap_err();
    assert!(matches!(error, WriteError::Damaged { .. } | WriteError::Gap { .. }), "{error}");
    bytes.truncate(bytes.len() / 2);
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = digest(&folder, closed[0]).unwrap_err();
    assert!(matches!(error, WriteError::Damaged { .. } | WriteError::Gap { .. }), "{error}");
    // The last segment of an earlier start: nothing in the folder says what it must hold.
    let last =
        *segment_ids(folder.segments()).unwrap().iter().rfind(|id| holds_blocks(&folder, **id)).unwrap();
    drop(folder);
    let folder = open(dir.path());
    let path = folder.segments().join(last.file_name());
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = digest(&folder, (last, None)).unwrap_err();
    assert!(matches!(error, WriteError::Damaged { .. }), "{error}");
    assert!(Shelf::open(&folder.place()).unwrap().0.is_empty());
}

#[test]
fn a_segment_deleted_while_its_digest_is_due_is_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let closed = write(&folder);
    fs::remove_file(folder.segments().join(closed[0].0.file_name())).unwrap();
    let error = digest(&folder, closed[0]).unwrap_err();
    assert!(matches!(error, WriteError::Gone { .. }), "{error}");
    let names = fs::read_dir(folder.segments()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(
        names.iter().all(|name| name.ends_with(".wseg")),
        "something is left of what was begun: {names:?}"
    );
}

#[test]
fn a_segment_whose_blocks_were_written_again_to_the_next_one_has_no_digest() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let (id, last) = write(&folder)[0];
    digest(&folder, (id, last)).unwrap();
    for before in [BlockSeq(last.unwrap().0 - 1), BlockSeq(0)] {
        let error = digest(&folder, (id, Some(before))).unwrap_err();
        assert!(matches!(error, WriteError::Repeated { .. }), "{error}");
    }
}

#[test]
fn damage_to_the_last_block_of_an_earlier_start_is_no_torn_tail_when_that_block_was_there_at_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    write(&folder);
    drop(folder);
    let folder = open(dir.path());
    let recovery = weir::journal::recover(&folder, |_, _, _| {}).unwrap();
    let end = recovery.ends[&(Epoch(1), WorkerId(0))];
    let last = SegmentId { epoch: Epoch(1), worker: WorkerId(0), segment: end.segment };
    let path = folder.segments().join(last.file_name());
    let mut bytes = fs::read(&path).unwrap();
    bytes[end.offset as usize - 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut lookout = Lookout::new(folder.place(), folder.epoch(), &Shelf::default(), recovery.ends);
    let wanted = lookout.look().unwrap().into_iter().find(|(id, _)| *id == last).unwrap();
    assert_eq!(wanted.1, Some(end.last));
    let error = digest(&folder, wanted).unwrap_err();
    assert!(matches!(error, WriteError::Damaged { .. }), "{error}");
    assert!(digest(&folder, (last, None)).is_ok(), "it looks like a torn tail");
}

fn holds_blocks(folder: &Folder, id: SegmentId) -> bool {
    expected(folder, id).len() > 1
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_digest_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let wanted = write(&folder)[0];
    digest(&folder, wanted).unwrap();
    let path = digest_path(&folder.place(), wanted.0);
    let sound = fs::read(&path).unwrap();
    let whole = read(&folder, wanted.0).unwrap();
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(read(&folder, wanted.0).is_err(), "bit {bit}");
    }
    for len in 0..sound.len() {
        fs::write(&path, &sound[..len]).unwrap();
        assert!(read(&folder, wanted.0).is_err(), "cut to {len}");
    }
    fs::write(&path, [&sound[..], &[0]].concat()).unwrap();
    assert!(read(&folder, wanted.0).is_err(), "longer");
    fs::write(&path, &sound).unwrap();
    assert_eq!(read(&folder, wanted.0).unwrap(), whole);
}

#[test]
fn a_digest_under_another_segments_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let closed = write(&folder);
    digest(&folder, closed[0]).unwrap();
    let place = folder.place();
    fs::rename(digest_path(&place, closed[0].0), digest_path(&place, closed[1].0)).unwrap();
    let (shelf, broken) = Shelf::open(&place).unwrap();
    assert!(shelf.is_empty());
    assert_eq!(broken.len(), 1);
}

#[test]
fn what_a_crash_left_unfinished_is_removed_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let wanted = write(&folder)[0];
    let unfinished = folder.segments().join("00000001-0000-00000001.wdig-unfinished");
    fs::write(&unfinished, b"half").unwrap();
    assert!(Shelf::open(&folder.place()).unwrap().0.is_empty(), "an unfinished digest is none");
    let before = folder.bytes_used().unwrap();
    remove_unfinished(folder.segments()).unwrap();
    assert!(!unfinished.exists());
    let header = digest(&folder, wanted).unwrap();
    assert_eq!(folder.bytes_used().unwrap(), before + header.bytes());
    assert_eq!(digest(&folder, wanted).unwrap(), header, "the same bytes when it is written again");
    assert_eq!(recovered(&folder).1.report.findings_total, 0);
}

#[test]
fn a_folder_of_digests_alone_keeps_its_life_and_its_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let incarnation = folder.incarnation();
    for wanted in write(&folder) {
        digest(&folder, wanted).unwrap();
    }
    for id in segment_ids(folder.segments()).unwrap() {
        fs::remove_file(folder.segments().join(id.file_name())).unwrap();
    }
    drop(folder);
    let folder = open(dir.path());
    assert_eq!((folder.incarnation(), folder.epoch().0), (incarnation, 2));
    drop(folder);
    fs::remove_file(dir.path().join("incarnation")).unwrap();
    assert!(Folder::open(dir.path(), journal_fixture::NODE).is_err());
}

#[test]
fn a_recalled_foreign_impression_lives_in_the_slice_of_its_first_click() {
    let settings = Settings { lifetime_ms: DAY_MS, ..Settings::new(SipKey { k0: 1, k1: 2 }) };
    let mut ledger = Ledger::new(&settings);
    let entry = |n: u128, received_at: u64| Recalled {
        id: weir_common::id::ImpressionId(n.to_le_bytes()),
        is_foreign: true,
        received_at: UnixMs(received_at),
        state: RememberedState::USUAL,
    };
    // The later one comes first, as from another worker's segment.
    assert_eq!(ledger.recall(&[entry(1, START.0 + DAY_MS / 2)]), 0);
    assert_eq!(ledger.recall(&[entry(2, START.0)]), 0);
    assert_eq!(ledger.impressions_live(), 2);
    // A lifetime after its first click, and a slice more, the older one is gone and the other not.
    assert_eq!(ledger.recall(&[entry(3, START.0 + DAY_MS + DAY_MS / 3)]), 0);
    assert_eq!(ledger.impressions_live(), 2);
    assert_eq!(ledger.recall(&[entry(4, START.0)]), 1, "too old to matter");
}

/// Digests of a node, written when the test says so.
struct Feed {
    lookout: Lookout,
    written: SyncSender<DigestHeader>,
}

impl Feed {
    fn attach(node: &mut Node<MemorySink>) -> Self {
        let (written, receiver) = sync_channel(1000);
        let place = node.folder.place();
        let shelf = Shelf::open(&place).unwrap().0;
        let lookout = Lookout::new(place.clone(), node.folder.epoch(), &shelf, node.recovery.ends.clone());
        node.forwarder.keep_digests(Digests::new(place, shelf, DAY_MS, receiver));
        Self { lookout, written }
    }

    fn digest(&mut self) {
        for wanted in self.lookout.look().unwrap() {
            let header = self.lookout.digest(wanted, &RUN_ON).unwrap().unwrap();
            self.written.send(header).unwrap();
        }
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
}

#[test]
fn over_days_the_journal_keeps_minutes_of_rows_and_a_day_of_digests() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::try_start(dir.path(), 1, flush_config(), |_| MemorySink::default()).unwrap();
    let mut feed = Feed::attach(&mut node);
    let (mut next, mut most_segments, mut most_digests) = (0, 0, 0);
    // Three days, a block of long rows every six minutes: a segment every hour or so.
    for step in 0..3 * 240 {
        let clicks: Vec<u64> = (next..next + 9).collect();
        node.write(0, &clicks);
        next += 9;
        node.pass_ms(360_000);
        node.flush();
        feed.digest();
        node.forwarder.trim(node.now.wall).unwrap();
        if step > 240 {
            most_segments = most_segments.max(files(dir.path(), ".wseg").len());
            most_digests = most_digests.max(files(dir.path(), ".wdig").len());
        }
    }
    let written = segment_ids(node.folder.segments()).unwrap().last().unwrap().segment.0;
    assert!(written > 40, "{written} segments are too few to show anything");
    assert!(most_segments <= 4, "{most_segments} of {written} segments at once");
    assert!(most_digests <= written as usize * 2 / 3, "{most_digests} of {written} digests at once");
}

#[test]
fn a_segment_stays_until_its_digest_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::try_start(dir.path(), 1, flush_config(), |_| MemorySink::default()).unwrap();
    let mut feed = Feed::attach(&mut node);
    for n in 0..200 {
        node.write(0, &[n * 3, n * 3 + 1, n * 3 + 2]);
    }
    node.flush();
    node.pass_ms(3_600_000);
    node.write(0, &[1000]);
    node.flush();
    let before = files(dir.path(), ".wseg").len();
    assert_eq!(node.forwarder.trim(node.now.wall).unwrap(), 0, "forwarded and final, but not digested");
    feed.digest();
    assert!(node.forwarder.trim(node.now.wall).unwrap() > 0);
    assert!(files(dir.path(), ".wseg").len() < before);
}

#[test]
fn the_first_flush_waits_for_the_past_and_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::try_start(dir.path(), 1, flush_config(), |_| MemorySink::default()).unwrap();
    let (sender, counted) = sync_channel(1);
    node.forwarder.await_past(Past { counted });
    node.write(0, &[2, 5]);
    node.forwarder.begin_flush(node.now);
    assert!(node.forwarder.poll(node.now) > 0, "it comes back later");
    assert!(node.forwarder.is_idle() && !node.forwarder.is_finished());
    assert!(node.forwarder.sink().committed.is_empty());

    // The past has two clicks in the same bucket as click 2, and one bucket of its own.
    let at = node.now.wall;
    let mut past = BTreeMap::<BucketKey, BucketTotals>::new();
    for n in [8, 14, 3] {
        let row = journal_fixture::row(at, n);
        past.entry(Dimensions::DEFAULT.key(row.minute.get(), &row.click, 1)).or_default().count(&row);
    }
    sender.send(Counted { totals: past.into_iter().collect(), ..Counted::default() }).unwrap();
    node.flush();
    assert!(node.forwarder.is_finished());
    let mut expected = BTreeMap::<BucketKey, BucketTotals>::new();
    for n in [2, 5, 8, 14, 3] {
        let row = journal_fixture::row(at, n);
        expected.entry(Dimensions::DEFAULT.key(row.minute.get(), &row.click, 1)).or_default().count(&row);
    }
    assert_eq!(node.forwarder.sink().buckets(), expected);
}

#[test]
fn what_is_gone_from_the_end_of_a_digested_segment_does_not_hold_up_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    (0..3).for_each(|n| writer.write(START, [n]));
    let writer = (folder.epoch(), WorkerId(0));
    drop(folder);
    let mut node = Node::try_start(dir.path(), 1, flush_config(), |_| MemorySink::default()).unwrap();
    // The node takes three blocks for known, as from a digest; the third is destroyed.
    let path = files(dir.path(), ".wseg").into_iter().min().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 4096 + 200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (sender, counted) = sync_channel(1);
    node.forwarder.await_past(Past { counted });
    let lost = LostEnd { writer, known: BlockSeq(3), left: BlockSeq(2) };
    sender.send(Counted { lost_ends: vec![lost], ..Counted::default() }).unwrap();
    node.flush();
    assert!(node.forwarder.is_finished(), "{:?}", node.forwarder.last_error());
    node.forwarder.sink().check_rows(vec![0, 1]);
}

#[test]
fn without_the_past_nothing_is_forwarded_and_the_reason_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::try_start(dir.path(), 1, flush_config(), |_| MemorySink::default()).unwrap();
    let (sender, counted) = sync_channel(1);
    node.forwarder.await_past(Past { counted });
    drop(sender);
    node.write(0, &[2]);
    node.forwarder.begin_flush(node.now);
    assert!(!node.forwarder.is_finished());
    assert!(node.forwarder.last_error().unwrap().contains("past"));
}
