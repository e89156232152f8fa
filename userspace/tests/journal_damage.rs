//! Each flipped bit and each truncation of a real segment, by the real recovery: it ends, hands
//! out nothing but rows as they were written, all of those before and behind the damage, and says
//! exactly what is gone.
//!
//! One in many in the short form, each one in the long (`cargo xtask test --soak`).

mod journal_fixture;

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal_fixture::{START, Writer, id_of, open, open_sealed, segments};
use weir::journal::block::check_block;
use weir::journal::scan::{Found, SegmentScan};
use weir::journal::{BlockIdentity, Finding, Folder, RecoveryReport, SegmentId, recover};
use weir_common::id::BlockSeq;
use weir_common::time::UnixMs;
use zerocopy::IntoBytes;

/// The share of bits and cuts that the short form tries. Prime, so that it meets every bit of a
/// byte and every byte of a field.
const SHORT_STRIDE: usize = 61;

fn stride() -> usize {
    if std::env::var_os("WEIR_SOAK").is_some() { 1 } else { SHORT_STRIDE }
}

/// A block of the segment: where it is, which it is, and a CRC for each of its rows.
#[derive(Debug)]
struct Block {
    at: Range<usize>,
    sequence: BlockSeq,
    rows: Vec<u32>,
}

/// A journal of three segments, and one of them to damage.
struct Bench {
    _dir: tempfile::TempDir,
    folder: Folder,
    path: PathBuf,
    id: SegmentId,
    bytes: Vec<u8>,
    /// Blocks of the segment.
    blocks: Vec<Block>,
    /// CRCs of the rows in the segments before it, and in those after.
    before: Vec<u32>,
    after: Vec<u32>,
    /// The first block after it, if there is one.
    next: Option<BlockSeq>,
}

/// What recovery hands out, as a CRC for each row with its extension, and what it reports.
fn recovered(folder: &Folder) -> (Vec<u32>, RecoveryReport) {
    let mut rows = Vec::new();
    let recovery = recover(folder, |_, row, extension| {
        rows.push(crc32c::crc32c_append(crc32c::crc32c(row.as_bytes()), extension));
    });
    (rows, recovery.unwrap().report)
}

/// Blocks of a whole segment, with their rows.
fn blocks_of(folder: &Folder, path: &Path) -> Vec<Block> {
    let mut scan = SegmentScan::new(File::open(path).unwrap(), id_of(path), &folder.place()).unwrap();
    let mut blocks = Vec::new();
    while let Some(found) = scan.next_found() {
        let Found::Block(start) = found else { panic!("{found:?}") };
        let (header, body) = check_block(scan.block()).unwrap();
        let rows = weir_common::row::Rows::new(body)
            .map(|(row, extension)| crc32c::crc32c_append(crc32c::crc32c(row.as_bytes()), extension))
            .collect();
        let at = start as usize..scan.position() as usize;
        blocks.push(Block { at, sequence: BlockIdentity::of(header).sequence, rows });
    }
    blocks
}

impl Bench {
    /// Three segments of groups of one and two blocks; the one with this index is to be damaged.
    fn new(index: usize, open: fn(&Path) -> Folder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path());
        let mut writer = Writer::new(&folder, 0);
        let mut n = 0;
        while segments(&folder).len() < 4 {
            for block in 0..=n % 2 {
                let at = UnixMs(START.0 + n);
                writer.submit(at, n * 100 + block * 30..n * 100 + block * 30 + 1 + n % 13);
            }
            writer.commit();
            n += 1;
        }
        drop(writer);
        let paths = segments(&folder);
        fs::remove_file(&paths[3]).unwrap(); // asked for when the third was half full, and empty
        let whole: Vec<_> = paths[..3].iter().map(|path| blocks_of(&folder, path)).collect();
        let rows = |blocks: &[Vec<Block>]| -> Vec<u32> {
            blocks.iter().flatten().flat_map(|block| block.rows.clone()).collect()
        };
        let (before, after) = (rows(&whole[..index]), rows(&whole[index + 1..]));
        let next = whole.get(index + 1).map(|blocks| blocks[0].sequence);
        let path = paths[index].clone();
        let id = id_of(&path);
        let bytes = fs::read(&path).unwrap();
        let blocks = whole.into_iter().nth(index).unwrap();
        assert!(blocks.len() > 8 && blocks.last().unwrap().at.end > 20_000, "a segment of some size");
        Self { _dir: dir, folder, path, id, bytes, blocks, before, after, next }
    }

    /// The rows there should be when only these blocks of the segment are sound.
    fn expected(&self, is_sound: impl Fn(&Block) -> bool) -> Vec<u32> {
        let own = self.blocks.iter().filter(|block| is_sound(block)).flat_map(|block| &block.rows);
        self.before.iter().chain(own).chain(&self.after).copied().collect()
    }

    fn check_bits(&self) {
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        let (whole, report) = recovered(&self.folder);
        assert_eq!((whole, report.findings_total), (self.expected(|_| true), 0));
        for bit in (0..self.bytes.len() * 8).step_by(stride()) {
            let byte = bit / 8;
            file.write_all_at(&[self.bytes[byte] ^ 1 << (bit % 8)], byte as u64).unwrap();
            self.check_flip(bit);
            file.write_all_at(&[self.bytes[byte]], byte as u64).unwrap();
        }
    }

    fn check_flip(&self, bit: usize) {
        let byte = bit / 8;
        let (rows, report) = recovered(&self.folder);
        let hit = self.blocks.iter().find(|block| block.at.contains(&byte));
        let expected = self.expected(|block| !block.at.contains(&byte));
        assert!(rows == expected, "bit {bit}: other rows than were written\n{report}");
        let [finding] = &report.findings[..] else { panic!("bit {bit}: {report}") };
        let is_last = |block: &Block| {
            self.next.is_none() && block.sequence == self.blocks[self.blocks.len() - 1].sequence
        };
        let (segment, damage) = match (finding, hit) {
            (Finding::TornTail { segment, damage }, Some(block)) => {
                assert!(is_last(block), "bit {bit}: {report}");
                assert_eq!(damage.offset, block.at.start as u64, "bit {bit}");
                (segment, damage)
            }
            (Finding::Damaged { segment, damage, lost }, Some(block)) => {
                assert_eq!(*lost, Some((block.sequence, block.sequence)), "bit {bit}: {report}");
                assert_eq!(damage.offset, block.at.start as u64, "bit {bit}");
                (segment, damage)
            }
            (
                Finding::Damaged { segment, damage, lost: None } | Finding::TornTail { segment, damage },
                None,
            ) => (segment, damage),
            _ => panic!("bit {bit}: {report}"),
        };
        assert_eq!(*segment, self.id);
        let range = damage.offset..damage.offset + damage.bytes.max(1);
        assert!(range.contains(&(byte as u64)), "bit {bit}: {report}");
        assert_eq!(report.lost_blocks, u64::from(hit.is_some_and(|block| !is_last(block))), "bit {bit}");
    }

    fn check_cuts(&self) {
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        for cut in (0..self.bytes.len()).step_by(stride()) {
            file.set_len(cut as u64).unwrap();
            self.check_cut(cut);
            file.write_all_at(&self.bytes[cut..], cut as u64).unwrap();
        }
    }

    fn check_cut(&self, cut: usize) {
        let (rows, report) = recovered(&self.folder);
        assert!(rows == self.expected(|block| block.at.end <= cut), "cut at {cut}: {report}");
        let gone: Vec<_> = self.blocks.iter().filter(|block| block.at.end > cut).collect();
        // The one the cut went through; what follows it is gone without a trace.
        let torn = gone.first().filter(|block| block.at.start < cut);
        let lost =
            self.next.and_then(|next| gone.first().map(|first| (first.sequence, BlockSeq(next.0 - 1))));
        assert_eq!(
            report.lost_blocks,
            lost.map_or(0, |(first, last)| last.0 - first.0 + 1),
            "{cut}: {report}"
        );
        let offset = torn.map(|block| block.at.start as u64);
        let found = report.findings.iter().map(|finding| match finding {
            Finding::TornTail { damage, .. } => (Some(damage.offset), None),
            Finding::Damaged { damage, lost, .. } => (Some(damage.offset), *lost),
            Finding::Missing { first, last, .. } => (None, Some((*first, *last))),
            _ => panic!("cut at {cut}: {report}"),
        });
        let found: Vec<_> = found.collect();
        // A header that is cut off is damage of its own, whatever else is gone.
        let header = (cut < 128).then_some((Some(0), lost));
        let expected: Vec<_> = if header.is_some() {
            header.into_iter().collect()
        } else if offset.is_some() || lost.is_some() {
            vec![(offset, lost)]
        } else {
            vec![]
        };
        assert_eq!(found, expected, "cut at {cut}: {report}");
    }
}

#[test]
fn each_flipped_bit_of_a_segment_between_two_others_is_found_and_costs_its_own_block_alone() {
    Bench::new(1, open).check_bits();
}

#[test]
fn each_flipped_bit_of_the_last_segment_is_found_and_costs_its_own_block_alone() {
    Bench::new(2, open).check_bits();
}

#[test]
fn each_truncation_of_a_segment_between_two_others_costs_the_blocks_behind_it_and_names_them() {
    Bench::new(1, open).check_cuts();
}

#[test]
fn each_truncation_of_the_last_segment_is_a_tail_torn_at_that_block() {
    Bench::new(2, open).check_cuts();
}

#[test]
fn each_flipped_bit_of_an_encrypted_segment_is_found_and_costs_its_own_block_alone() {
    Bench::new(1, open_sealed).check_bits();
    Bench::new(2, open_sealed).check_bits();
}

#[test]
fn each_truncation_of_an_encrypted_segment_costs_the_blocks_behind_it_alone() {
    Bench::new(1, open_sealed).check_cuts();
    Bench::new(2, open_sealed).check_cuts();
}
