//! A whole node starts on a journal that somebody or something has damaged: it comes up, says in
//! one screen what it found, knows every click that is not gone, and takes new ones.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use weir_labs::clicks::{numbered, send};
use weir_labs::{NodeFolder, Setup};

/// Enough for three segments.
const CLICKS: u128 = 90_000;
const SETUP: Setup<'_> =
    Setup { data: None, journal: Some("segment_size = \"4MiB\""), config: "[workers]\ncores = [0]\n" };
/// What fits on a screen without scrolling.
const SCREEN_LINES: usize = 24;

/// The journal of one life of a node, made once: each test damages a copy.
fn original() -> &'static NodeFolder {
    static MADE: OnceLock<NodeFolder> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = NodeFolder::with(SETUP).expect("folder");
        let node = folder.start_ready().expect("ready");
        for part in 0..10 {
            let clicks = numbered(1 + part * CLICKS / 10, CLICKS / 10);
            let sent = send(&folder, &clicks).expect("answers");
            assert_eq!(u128::from(sent.acked_created), CLICKS / 10);
        }
        node.drain().expect("drain");
        assert!(folder.segments().expect("segments").len() >= 3, "{:?}", folder.segments());
        folder
    })
}

/// Starts a node on a damaged copy. What its status says of the recovery, after it has answered
/// resends of all clicks and new ones; and how many clicks it did not know any more.
///
/// The store has all clicks, so a node that can read it knows all of them, whatever is gone from
/// the journal.
fn start_on(damage: impl Fn(&[PathBuf])) -> Value {
    let (recovery, forgotten) = start_damaged(damage, true);
    assert_eq!(forgotten, 0, "the store has them all");
    recovery
}

fn start_damaged(damage: impl Fn(&[PathBuf]), has_store: bool) -> (Value, u64) {
    let folder = NodeFolder::with(SETUP).expect("folder");
    let copied = Command::new("cp").arg("-a").arg(original().data()).arg(folder.path()).status();
    assert!(copied.expect("cp").success());
    damage(&folder.segments().expect("segments"));
    if !has_store {
        fs::remove_dir_all(folder.data().join("store")).expect("remove");
    }
    let node = folder.start_ready().expect("ready");
    let recovery = node.status().expect("status")["recovery"].clone();
    let report: Vec<_> =
        recovery["report"].as_array().expect("a report").iter().filter_map(Value::as_str).collect();
    println!("{}", report.join("\n"));
    assert!(report.len() <= SCREEN_LINES, "{} lines", report.len());
    let log = folder.log_text();
    assert!(report.iter().all(|line| log.contains(line)), "the log says the same:\n{log}");
    let (mut known, mut forgotten) = (0, 0);
    for part in 0..10 {
        let sent = send(&folder, &numbered(1 + part * CLICKS / 10, CLICKS / 10)).expect("answers");
        (known, forgotten) = (known + sent.acked_exists, forgotten + sent.acked_created);
    }
    assert_eq!(u128::from(known + forgotten), CLICKS);
    if recovery["healed_blocks"] == 0 {
        assert_eq!(recovery["rows"].as_u64(), Some(known), "it knows exactly what it has read");
    }
    let sent = send(&folder, &numbered(CLICKS + 1, 100)).expect("answers");
    assert_eq!(sent.acked_created, 100);
    node.drain().expect("drain");
    let audit = &folder.audit(None).expect("audit")["audit"];
    assert_eq!(audit["sound"], true, "{}", audit["findings"][0]);
    assert_eq!(audit["rows"].as_u64().map(u128::from), Some(CLICKS + 100), "every click once");
    (recovery, forgotten)
}

/// Whether a line of the report has all these words.
fn says(recovery: &Value, words: &[&str]) -> bool {
    let lines = recovery["report"].as_array().expect("a report");
    lines.iter().filter_map(Value::as_str).any(|line| words.iter().all(|word| line.contains(word)))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Where the blocks of a segment begin.
fn block_offsets(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).expect("segment");
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"WBLK").map(|(at, _)| at).collect()
}

#[test]
fn an_undamaged_journal_has_no_findings() {
    let recovery = start_on(|_| {});
    assert_eq!(recovery["findings"], 0, "{recovery:#}");
}

/// Flips a bit in the middle of the second segment. The file, and where the block begins.
fn flip(segments: &[PathBuf]) -> (String, usize) {
    let offsets = block_offsets(&segments[1]);
    let hit = offsets[offsets.len() / 2];
    let file = OpenOptions::new().read(true).write(true).open(&segments[1]).expect("segment");
    let at = (hit + 1000) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("write");
    (name(&segments[1]).to_owned(), hit)
}

#[test]
fn a_flipped_bit_is_named_with_file_offset_and_block_and_the_block_is_read_back_from_the_store() {
    let hit = Cell::new((String::new(), 0));
    let recovery = start_on(|segments| hit.set(flip(segments)));
    let (segment, offset) = hit.into_inner();
    assert_eq!((recovery["findings"].as_u64(), recovery["lost_blocks"].as_u64()), (Some(1), Some(1)));
    assert!(says(&recovery, &[&segment, &format!(" at {offset}: "), "CRC", "LOST"]), "{recovery:#}");
    assert!(says(&recovery, &["read back from the sink", ": 1"]), "{recovery:#}");
}

#[test]
fn a_flipped_bit_that_no_store_makes_good_costs_its_block_alone() {
    let (recovery, forgotten) = start_damaged(|segments| drop(flip(segments)), false);
    assert_eq!((recovery["lost_blocks"].as_u64(), recovery["healed_blocks"].as_u64()), (Some(1), Some(0)));
    assert!(forgotten > 0 && u128::from(forgotten) < CLICKS / 10, "{forgotten} of one block");
}

#[test]
fn a_tail_that_was_cut_off_is_a_torn_tail_at_its_block() {
    let segments = original().segments().expect("segments");
    let last = segments.iter().rev().find(|segment| !block_offsets(segment).is_empty()).expect("blocks");
    let torn = *block_offsets(last).last().expect("a block");
    let cut_name = name(last);
    let recovery = start_on(|segments| {
        let cut = segments.iter().find(|segment| name(segment) == cut_name).expect("segment");
        OpenOptions::new()
            .write(true)
            .open(cut)
            .and_then(|file| file.set_len(torn as u64 + 200))
            .expect("cut");
    });
    assert_eq!((recovery["torn_tails"].as_u64(), recovery["lost_blocks"].as_u64()), (Some(1), Some(0)));
    assert!(says(&recovery, &[cut_name, &format!(" at {torn}: torn tail")]), "{recovery:#}");
    assert_eq!(recovery["healed_blocks"], 1);
}

#[test]
fn a_segment_that_is_missing_is_named_by_the_blocks_it_had() {
    let recovery = start_on(|segments| fs::remove_file(&segments[1]).expect("remove"));
    let lost = block_offsets(&original().segments().expect("segments")[1]).len() as u64;
    assert_eq!((recovery["findings"].as_u64(), recovery["lost_blocks"].as_u64()), (Some(1), Some(lost)));
    assert!(says(&recovery, &["are MISSING"]), "{recovery:#}");
    assert_eq!(recovery["healed_blocks"].as_u64(), Some(lost));
}

#[test]
fn an_empty_segment_is_named_and_costs_nothing() {
    let recovery = start_on(|segments| {
        let last = SegmentName::of(&segments[segments.len() - 1]);
        fs::write(last.next(), b"").expect("write");
    });
    assert_eq!((recovery["findings"].as_u64(), recovery["lost_blocks"].as_u64()), (Some(1), Some(0)));
    assert!(says(&recovery, &["the segment header is cut off", "no block lost"]), "{recovery:#}");
}

#[test]
fn garbage_under_a_segments_name_is_named_and_costs_nothing() {
    let recovery = start_on(|segments| {
        let last = SegmentName::of(&segments[segments.len() - 1]);
        let garbage: Vec<u8> =
            (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(last.next(), garbage).expect("write");
        fs::write(segments[0].with_file_name("notes.txt"), b"not a segment at all").expect("write");
        fs::create_dir(segments[0].with_file_name("00000001-0007-00000001.wseg")).expect("folder");
    });
    assert!(recovery["findings"].as_u64() >= Some(2), "{recovery:#}");
    assert_eq!(recovery["lost_blocks"].as_u64(), Some(0));
    assert!(says(&recovery, &["there is no segment magic"]), "{recovery:#}");
    assert!(says(&recovery, &["00000001-0007-00000001.wseg", "cannot read"]), "{recovery:#}");
}

/// The name of a segment, to make that of another.
struct SegmentName {
    path: PathBuf,
    number: u32,
}

impl SegmentName {
    fn of(path: &Path) -> Self {
        let number = name(path)[14..22].parse().expect("a number");
        Self { path: path.to_owned(), number }
    }

    fn next(&self) -> PathBuf {
        self.path.with_file_name(format!("{}{:08}.wseg", &name(&self.path)[..14], self.number + 1))
    }
}
