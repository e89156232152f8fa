//! What was never written is not read back, and nothing is found differently for it: a scan that
//! skips the holes of a file comes upon the same blocks and the same damage as one that reads them.

mod journal_fixture;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use journal_fixture::{START, Writer, config, open, segments};
use weir::journal::scan::{Found, ReadAt, SegmentScan};
use weir::journal::{DiskBudget, Folder, SegmentId, SegmentNo};
use weir_common::id::WorkerId;
use weir_common::time::UnixMs;

const PAGE: usize = 4096;
const SEGMENT: usize = 1 << 20;

/// A file in memory. Its pages of zeros are holes, if it tells of them.
struct Memory<'a> {
    bytes: &'a [u8],
    tells: bool,
    bytes_read: Cell<usize>,
}

impl ReadAt for &Memory<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.bytes.get(offset as usize..).unwrap_or(&[]);
        let count = buffer.len().min(rest.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.bytes_read.set(self.bytes_read.get() + count);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn next_data(&self, offset: u64) -> u64 {
        if !self.tells {
            return offset;
        }
        let page = offset as usize / PAGE;
        match self.bytes.chunks(PAGE).skip(page).position(|page| page.iter().any(|&byte| byte != 0)) {
            Some(0) => offset,
            Some(pages) => ((page + pages) * PAGE) as u64,
            None => u64::MAX,
        }
    }
}

/// A segment of three groups, the second of two blocks, and a long empty end.
struct Segment {
    _dir: tempfile::TempDir,
    folder: Folder,
    path: PathBuf,
    whole: Vec<u8>,
    /// Where its four blocks are.
    blocks: Vec<std::ops::Range<usize>>,
}

impl Segment {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path());
        let config = weir::journal::JournalConfig { segment_bytes: SEGMENT as u64, ..config(&folder, 0) };
        let mut writer = Writer::with(config, Arc::new(DiskBudget::new(u64::MAX, 0)));
        writer.write(START, 0..20);
        writer.submit(UnixMs(START.0 + 1), 20..30);
        writer.submit(UnixMs(START.0 + 2), 30..40);
        writer.commit();
        writer.write(UnixMs(START.0 + 3), 40..50);
        drop(writer);
        let path = segments(&folder).remove(0);
        let whole = fs::read(&path).unwrap();
        let mut segment = Self { _dir: dir, folder, path, whole, blocks: vec![] };
        let found = segment.scan(&segment.memory(&segment.whole, false));
        let blocks = found.into_iter().map(|found| match found {
            Found::Block(at) => {
                let bytes = &segment.whole[at as usize..];
                let (header, _) = weir::journal::block::check_block(bytes).unwrap();
                at as usize..at as usize + 128 + header.body_len.get() as usize
            }
            Found::Damage(damage) => panic!("{damage:?}"),
        });
        segment.blocks = blocks.collect();
        assert_eq!(segment.blocks.len(), 4);
        assert_eq!(segment.whole.len(), SEGMENT);
        segment
    }

    #[expect(clippy::unused_self, reason = "it reads as a part of the segment")]
    const fn memory<'a>(&self, bytes: &'a [u8], tells: bool) -> Memory<'a> {
        Memory { bytes, tells, bytes_read: Cell::new(0) }
    }

    fn scan(&self, source: impl ReadAt) -> Vec<Found> {
        let writer = self.folder.writer(WorkerId(0));
        let id = SegmentId { epoch: writer.epoch, worker: WorkerId(0), segment: SegmentNo(1) };
        let mut scan = SegmentScan::new(source, id, &self.folder.place()).unwrap();
        std::iter::from_fn(|| scan.next_found()).take(100).collect()
    }

    /// Scans these bytes with and without holes; what both found.
    #[track_caller]
    fn compare(&self, bytes: &[u8], what: &str) -> Vec<Found> {
        let found = self.scan(&self.memory(bytes, false));
        assert_eq!(self.scan(&self.memory(bytes, true)), found, "{what}");
        found
    }
}

/// Of what a scan found, how many sound blocks and how many damaged places.
fn counts(found: &[Found]) -> (usize, usize) {
    let blocks = found.iter().filter(|found| matches!(found, Found::Block(_))).count();
    (blocks, found.len() - blocks)
}

#[test]
fn the_empty_end_of_a_segment_is_not_read() {
    let segment = Segment::new();
    let written = segment.blocks.last().unwrap().end;
    let reading = segment.memory(&segment.whole, false);
    let skipping = segment.memory(&segment.whole, true);
    assert_eq!(segment.scan(&reading), segment.scan(&skipping));
    assert!(reading.bytes_read.get() >= SEGMENT);
    // Blocks, the headers read ahead of them, and the ends of their pages.
    assert!(skipping.bytes_read.get() < written + 8 * PAGE, "{} bytes", skipping.bytes_read.get());
}

#[test]
fn a_block_torn_before_a_hole_or_by_one_is_found_as_by_reading() {
    let segment = Segment::new();
    let last = segment.blocks.last().unwrap().clone();
    for cut in (last.start..=last.end).step_by(13) {
        let mut torn = segment.whole.clone();
        torn[cut..].fill(0);
        let found = segment.compare(&torn, &format!("cut at {cut}"));
        let damaged = torn[last.start..].iter().any(|&byte| byte != 0);
        assert_eq!(counts(&found), (3, usize::from(damaged)), "cut at {cut}");
    }
    // Pages that never arrived, one and two at a time, the segment's first among them.
    let pages = last.end.div_ceil(PAGE);
    for first in 0..pages {
        for last in first..pages.min(first + 2) {
            let mut torn = segment.whole.clone();
            torn[first * PAGE..(last + 1) * PAGE].fill(0);
            let found = segment.compare(&torn, &format!("pages {first} to {last}"));
            assert!(counts(&found).0 < 4 || first == 0, "pages {first} to {last}");
        }
    }
}

#[test]
fn what_stands_after_a_hole_is_found_as_by_reading() {
    let segment = Segment::new();
    let block = segment.whole[segment.blocks[3].clone()].to_vec();
    let far = SEGMENT / 2;
    // Around the borders of pages, and of the chunks that a search reads.
    for border in [far, far + PAGE, far + (64 << 10)] {
        for at in [border - block.len(), border - 130, border - 3, border - 1, border, border + 1] {
            let mut bytes = segment.whole.clone();
            bytes[at..at + block.len()].copy_from_slice(&block);
            let found = segment.compare(&bytes, &format!("a block at {at}"));
            assert_eq!(counts(&found).0, 5, "a block at {at}");
            assert_eq!(found.last(), Some(&Found::Block(at as u64)));

            let mut bytes = segment.whole.clone();
            bytes[at..at + 4].copy_from_slice(b"WBLK");
            let found = segment.compare(&bytes, &format!("a magic at {at}"));
            let Some(Found::Damage(damage)) = found.last() else { panic!("a magic at {at}: {found:?}") };
            assert_eq!((counts(&found), damage.offset), ((4, 1), at as u64));
        }
    }
    let mut bytes = segment.whole.clone();
    bytes[SEGMENT - 1] = 1;
    let found = segment.compare(&bytes, "the last byte");
    assert_eq!(counts(&found), (4, 1));
}

#[test]
fn a_file_with_holes_is_scanned_as_one_without() {
    let segment = Segment::new();
    let block = segment.whole[segment.blocks[3].clone()].to_vec();
    let mut bytes = segment.whole.clone();
    let at = SEGMENT / 2 + 77;
    bytes[segment.blocks[1].start..segment.blocks[2].end].fill(0);
    bytes[at..at + block.len()].copy_from_slice(&block);
    // Only the pages with something in them are written.
    fs::remove_file(&segment.path).unwrap();
    let file = OpenOptions::new().write(true).create_new(true).open(&segment.path).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT as u64)
        .or_else(|_| rustix::fs::ftruncate(&file, SEGMENT as u64))
        .unwrap();
    for (page, content) in bytes.chunks(PAGE).enumerate() {
        if content.iter().any(|&byte| byte != 0) {
            file.write_all_at(content, (page * PAGE) as u64).unwrap();
        }
    }
    let file = File::open(&segment.path).unwrap();
    let found = segment.compare(&bytes, "in memory");
    assert_eq!(segment.scan(file), found);
    // A gap where the middle blocks were, and one before the block far behind.
    assert_eq!(counts(&found), (3, 2));

    // Whatever the file system tells, it never calls a written byte a hole.
    let file = File::open(&segment.path).unwrap();
    for offset in (0..SEGMENT).step_by(511) {
        let data = file.next_data(offset as u64).min(SEGMENT as u64) as usize;
        assert!(data >= offset && bytes[offset..data].iter().all(|&byte| byte == 0), "{offset} to {data}");
    }
}
