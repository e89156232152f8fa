//! What a start finds in the journal: all of it after a clean stop, all that was acknowledged
//! after a crash, and an exact account of the rest.

mod journal_fixture;

use std::fs;
use std::os::unix::fs::FileExt;

use journal_fixture::{START, Writer, admitted, click, decision, open, open_sealed, recovered, segments};
use weir::journal::{BlockBuilder, BlockIdentity, Finding, Folder, SealedBlock};
use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};
use weir_common::time::UnixMs;

fn at(ms: u64) -> UnixMs {
    UnixMs(START.0 + ms)
}

#[test]
fn all_rows_come_back_in_order_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    for n in 0..200 {
        writer.write(at(n), n * 10..n * 10 + 10);
    }
    assert!(segments(&folder).len() > 4, "the test wants several segments");
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
    let report = recovery.report;
    assert_eq!((report.blocks, report.rows, report.findings), (200, 2000, vec![]));
}

#[test]
fn workers_of_one_epoch_are_merged_by_receive_time_and_epochs_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for (start, workers) in [(0, 3), (1000, 1), (2000, 5)] {
        let folder = open(dir.path());
        let mut writers: Vec<_> = (0..workers).map(|worker| Writer::new(&folder, worker)).collect();
        for n in start..start + 100 {
            // An epoch's clocks need not continue the one before it.
            let time = at(5000 - start + n);
            writers[(n * 7 % u64::from(workers)) as usize].write(time, [n]);
            expected.push(n);
        }
    }
    let folder = open(dir.path());
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers, expected);
    assert_eq!((recovery.report.epochs, recovery.ends.len()), (3, 9));
    assert_eq!(recovery.report.findings, []);
}

#[test]
fn a_tail_torn_at_any_byte_loses_only_its_own_block() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    writer.write(at(0), 0..5);
    // One group of two blocks: the tear goes through the second.
    writer.submit(at(1), 5..10);
    writer.submit(at(2), 10..15);
    writer.commit();
    drop(writer);
    let path = segments(&folder)[0].clone();
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let begin = find_last_block(&whole);
    for cut in begin..end {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(&path, &torn).unwrap();
        let (numbers, recovery) = recovered(&folder);
        assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "cut at {cut}");
        let report = recovery.report;
        assert_eq!(report.lost_blocks, 0);
        let written = torn[begin..].iter().any(|&byte| byte != 0);
        assert_eq!(report.torn_tails, u64::from(written), "cut at {cut}: {report}");
        if let [Finding::TornTail { damage, .. }] = report.findings[..] {
            assert_eq!(damage.offset, begin as u64, "cut at {cut}");
        }
    }
}

#[test]
fn a_file_cut_short_at_any_byte_is_read_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    writer.write(at(0), 0..3);
    writer.write(at(1), 3..6);
    drop(writer);
    let path = segments(&folder)[0].clone();
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let begin = find_last_block(&whole);
    for cut in 0..end {
        fs::write(&path, &whole[..cut]).unwrap();
        let (numbers, _) = recovered(&folder);
        let expected = if cut > begin { 3 } else { numbers.len() as u64 };
        assert_eq!(numbers, (0..expected).collect::<Vec<_>>(), "cut at {cut}");
        assert!(numbers.len() <= 3);
    }
}

#[test]
fn every_flipped_bit_is_found_at_its_place_and_costs_no_other_block() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    // Three groups; the middle one has two blocks.
    writer.write(at(0), 0..2);
    writer.submit(at(1), 2..4);
    writer.submit(at(1), 4..6);
    writer.commit();
    writer.write(at(2), 6..8);
    drop(writer);
    let path = segments(&folder)[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    // What holds nothing is tested at a few places only: it is most of the file.
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let blocks = find_blocks(&bytes);
    assert_eq!(blocks.len(), 4);
    bytes.truncate((end + 5000).next_multiple_of(4096));
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let is_empty = |bit: &usize| *bit >= 128 * 8 && !blocks.iter().any(|block| block.contains(&(bit / 8)));
    for bit in (0..bytes.len() * 8).filter(|bit| !is_empty(bit) || bit % 97 == 0) {
        let byte = bit / 8;
        file.write_all_at(&[bytes[byte] ^ 1 << (bit % 8)], byte as u64).unwrap();
        let (numbers, recovery) = recovered(&folder);
        let hit = blocks.iter().position(|block| block.contains(&byte));
        let expected: Vec<u64> = (0..8).filter(|&n| hit.is_none_or(|hit| n / 2 != hit as u64)).collect();
        assert_eq!(numbers, expected, "bit {bit}");
        let report = &recovery.report;
        let [finding] = &report.findings[..] else { panic!("bit {bit}: {report}") };
        match (finding, hit) {
            (Finding::TornTail { damage, .. }, Some(3)) => assert_eq!(damage.offset, blocks[3].start as u64),
            (Finding::Damaged { damage, lost, .. }, Some(hit)) => {
                assert_eq!(damage.offset, blocks[hit].start as u64, "bit {bit}");
                let sequence = BlockSeq(hit as u64 + 1);
                assert_eq!(*lost, Some((sequence, sequence)), "bit {bit}");
                assert!(recovery.segments[0].damaged);
            }
            (Finding::Damaged { damage, lost: None, .. } | Finding::TornTail { damage, .. }, None) => {
                let range = damage.offset..damage.offset + damage.bytes.max(1);
                assert!(range.contains(&(byte as u64)), "bit {bit}: {report}");
            }
            _ => panic!("bit {bit}: {report}"),
        }
        file.write_all_at(&[bytes[byte]], byte as u64).unwrap();
    }
}

/// Where the blocks of a sound segment are.
fn find_blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let starts = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"WBLK");
    starts
        .map(|(at, _)| {
            let (header, _) = weir::journal::block::check_block(&bytes[at..]).unwrap();
            at..at + 128 + header.body_len.get() as usize
        })
        .collect()
}

fn find_last_block(bytes: &[u8]) -> usize {
    find_blocks(bytes).last().unwrap().start
}

#[test]
fn a_missing_segment_in_the_middle_is_reported_to_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    for n in 0..60 {
        writer.write(at(n), [n]);
    }
    let gone = segments(&folder)[1].clone();
    let lost = find_blocks(&fs::read(&gone).unwrap()).len() as u64;
    fs::remove_file(gone).unwrap();
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers.len() as u64, 60 - lost);
    assert_eq!(recovery.report.lost_blocks, lost);
    assert!(matches!(recovery.report.findings[..], [Finding::Missing { .. }]));
}

#[test]
fn trimmed_segments_at_the_front_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    for n in 0..60 {
        writer.write(at(n), [n]);
    }
    fs::remove_file(&segments(&folder)[0]).unwrap();
    let (numbers, recovery) = recovered(&folder);
    assert!(numbers.len() < 60 && numbers.last() == Some(&59));
    assert_eq!(recovery.report.findings, []);
}

#[test]
fn a_first_block_that_is_gone_from_the_first_segment_is_missing_and_not_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut writer = Writer::new(&folder, 0);
    for n in 0..4 {
        writer.write(at(n), n * 10..n * 10 + 10);
    }
    let path = segments(&folder)[0].clone();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    // Its page was never written, whatever the disk said: zeros, as behind the end of a segment.
    file.write_all_at(&[0; 4096], 4096).unwrap();
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers, (10..40).collect::<Vec<_>>());
    assert_eq!(recovery.report.lost_blocks, 1, "{}", recovery.report);
}

#[test]
fn a_first_block_that_is_gone_where_what_is_left_of_a_stream_begins_is_damage() {
    for open in [open, open_sealed] {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path());
        let mut writer = Writer::new(&folder, 0);
        (0..60).for_each(|n| writer.write(at(n), [n]));
        let paths = segments(&folder);
        fs::remove_file(&paths[0]).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&paths[1]).unwrap();
        file.write_all_at(&[0; 4096], 4096).unwrap();
        let report = recovered(&folder).1.report;
        let [Finding::Damaged { damage, .. }] = report.findings[..] else { panic!("{report}") };
        assert_eq!((damage.offset, damage.bytes), (4096, 4096), "{report}");
    }
}

/// A sealed block of one click, chained as told.
fn block(folder: &Folder, sequence: u64, previous_crc: u32, n: u64) -> SealedBlock {
    let mut builder = BlockBuilder::new(4096);
    let identity = BlockIdentity { sequence: BlockSeq(sequence), ..folder.writer(WorkerId(0)) };
    builder.begin(identity, at(n));
    builder.push(at(n), &admitted(at(n)), &decision(n), &click(n, &[]), &[]).unwrap();
    builder.seal(previous_crc).unwrap()
}

/// Puts blocks one after the other where the first block of the segment was.
fn forge(folder: &Folder, blocks: &[SealedBlock]) {
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.bytes.clone()).collect();
    let file = fs::OpenOptions::new().write(true).open(&segments(folder)[0]).unwrap();
    file.write_all_at(&bytes, 4096).unwrap();
}

#[test]
fn a_block_that_does_not_chain_is_reported_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    drop(Writer::new(&folder, 0));
    let first = block(&folder, 1, 0, 0);
    let second = block(&folder, 2, first.header_crc ^ 1, 1);
    forge(&folder, &[first.clone(), second]);
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers, [0, 1]);
    let expected = 4096 + first.bytes.len() as u64;
    let [Finding::ChainBroken { offset, sequence: BlockSeq(2), .. }] = recovery.report.findings[..] else {
        panic!("{}", recovery.report)
    };
    assert_eq!(offset, expected);
}

#[test]
fn a_block_written_twice_counts_once_and_another_under_its_number_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    drop(Writer::new(&folder, 0));
    let first = block(&folder, 1, 0, 0);
    let second = block(&folder, 2, first.header_crc, 1);
    forge(&folder, &[first.clone(), second.clone(), first.clone(), second]);
    let (numbers, recovery) = recovered(&folder);
    assert_eq!((numbers, recovery.report.findings), (vec![0, 1], vec![]));

    forge(&folder, &[first.clone(), block(&folder, 1, 0, 7)]);
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers[0], 0);
    assert!(!numbers.contains(&7));
    assert!(matches!(recovery.report.findings[0], Finding::Conflict { sequence: BlockSeq(1), .. }));
}

#[test]
fn a_block_of_another_writer_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    drop(Writer::new(&folder, 0));
    let mut builder = BlockBuilder::new(4096);
    let own = folder.writer(WorkerId(0));
    for foreign in [
        BlockIdentity { incarnation: Incarnation(own.incarnation.0 ^ 1), ..own },
        BlockIdentity { node: NodeId(own.node.0 ^ 1), ..own },
        BlockIdentity { epoch: Epoch(own.epoch.0 ^ 1), ..own },
        BlockIdentity { worker: WorkerId(1), ..own },
        BlockIdentity { sequence: BlockSeq(0), ..own },
    ] {
        builder.begin(foreign, at(0));
        builder.push(at(0), &admitted(at(0)), &decision(3), &click(3, &[]), &[]).unwrap();
        forge(&folder, &[builder.seal(0).unwrap()]);
        let (numbers, recovery) = recovered(&folder);
        assert_eq!(numbers, [] as [u64; 0], "{foreign:?}");
        assert_eq!(recovery.report.findings_total, 1);
    }
}

#[test]
fn garbage_of_any_kind_ends() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let path = dir.path().join("journal/00000001-0000-00000001.wseg");
    let magic: Vec<u8> = b"WBLK".iter().copied().cycle().take(300_000).collect();
    for bytes in [vec![], vec![0; 10], vec![255; 200_000], magic] {
        fs::write(&path, &bytes).unwrap();
        let (numbers, recovery) = recovered(&folder);
        assert_eq!(numbers, [] as [u64; 0]);
        assert!(!recovery.report.findings.is_empty());
        assert!(recovery.report.to_string().lines().count() < 25);
    }
}
