//! Finds the blocks of one segment, whatever became of the file.
//!
//! Every byte belongs to a sound block, is zero, or is reported as damage. After damage the scan
//! goes on at the next sound block of this segment's writer; the incarnation in each header and
//! envelope, random and never sent out, keeps bytes that a sender chose from passing for one. The position
//! only moves forward, so a scan ends on any input.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use weir_common::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader};

use super::block::{BlockFault, BlockIdentity, check_block, check_header};
use super::folder::Place;
use super::seal::{ENVELOPE_LEN, Envelope, SEAL_MAGIC, SealFault, SegmentCipher};
use super::segment::{FIRST_GROUP, SEGMENT_HEADER_LEN, SegmentFault, SegmentHeader, SegmentId, group_start};

/// Bytes read at once where no block is expected.
const CHUNK: usize = 64 << 10;
/// Bytes of the magic that may stand at the end of one chunk when the last is in the next.
const OVERLAP: u64 = BLOCK_MAGIC.len() as u64 - 1;
const _: () = assert!(BLOCK_MAGIC.len() == SEAL_MAGIC.len() && ENVELOPE_LEN <= BLOCK_HEADER_LEN);

/// Bytes that can be read at any offset: a file, or a simulated one.
pub trait ReadAt {
    /// Reads at `offset` as [`FileExt::read_at`] does.
    ///
    /// # Errors
    /// As the medium fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Number of bytes.
    ///
    /// # Errors
    /// As the medium fails.
    fn size(&self) -> io::Result<u64>;

    /// Where at or after `offset` bytes stand that may not be zero: `offset` itself where the
    /// medium does not tell, beyond the end where nothing follows.
    fn next_data(&self, offset: u64) -> u64 {
        offset
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|found| found.len())
    }

    /// A segment is allocated whole before it is written, and file systems that know what of it
    /// never was (ext4, XFS, btrfs) say so. Moves the file's cursor, which nothing here reads at.
    fn next_data(&self, offset: u64) -> u64 {
        match rustix::fs::seek(self, SeekFrom::Data(offset)) {
            Ok(data) => data.max(offset),
            Err(Errno::NXIO) => u64::MAX,
            Err(_) => offset,
        }
    }
}

/// What is wrong at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, displaydoc::Display)]
pub enum Fault {
    /// {0}
    Segment(SegmentFault),
    /// {0}
    Block(BlockFault),
    /// {0}
    Seal(SealFault),
    /// there are bytes where nothing was written
    Stray,
    /// the disk cannot read it
    Unreadable,
}

/// A range of a segment that holds no sound block and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub offset: u64,
    /// How far it goes.
    pub bytes: u64,
    /// What is wrong at its beginning.
    pub fault: Fault,
}

/// What a scan came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A sound block at this offset: see [`SegmentScan::block`].
    Block(u64),
    /// Damage; the scan goes on after it.
    Damage(Damage),
}

/// A walk over one segment.
#[derive(Debug)]
pub struct SegmentScan<R> {
    source: R,
    size: u64,
    id: SegmentId,
    place: Place,
    cipher: Option<SegmentCipher>,
    position: u64,
    block: Vec<u8>,
    chunk: Vec<u8>,
}

impl<R: ReadAt> SegmentScan<R> {
    /// A scan of the whole segment `id`, which belongs to `place`.
    ///
    /// # Errors
    /// When its size cannot be found out.
    pub fn new(source: R, id: SegmentId, place: &Place) -> io::Result<Self> {
        let (size, place) = (source.size()?, place.clone());
        Ok(Self { source, size, id, place, cipher: None, position: 0, block: Vec::new(), chunk: Vec::new() })
    }

    /// Goes on at `offset`, where a block ended before.
    pub fn seek(&mut self, offset: u64) {
        self.position = offset;
    }

    /// The segment.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        self.id
    }

    /// Where the scan stands: after what it found last.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of the block found last, as they were before they were encrypted, if they were.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The next block or damage; `None` at the end.
    pub fn next_found(&mut self) -> Option<Found> {
        if self.position == 0 {
            self.position = FIRST_GROUP;
            if let Some(damage) = self.check_start() {
                return Some(Found::Damage(damage));
            }
        }
        while self.position < self.size {
            match self.block_at(self.position) {
                Ok(len) => {
                    let offset = self.position;
                    self.position += len;
                    return Some(Found::Block(offset));
                }
                Err(Fault::Block(BlockFault::Magic | BlockFault::HeaderCut)) if self.is_page_end() => {
                    // The group ended here; the next one begins on the next page.
                    self.position = group_start(self.position);
                }
                Err(fault @ Fault::Seal(SealFault::KeyMissing(_))) => {
                    // All of a segment is under one key: nothing more of it can be read.
                    let (offset, bytes) = (self.position, self.size - self.position);
                    self.position = self.size;
                    return Some(Found::Damage(Damage { offset, bytes, fault }));
                }
                Err(fault) => {
                    if let Some(damage) = self.find_next_block(fault) {
                        return Some(Found::Damage(damage));
                    }
                }
            }
        }
        None
    }

    /// Checks the segment header and the zeros after it.
    fn check_start(&mut self) -> Option<Damage> {
        let len = FIRST_GROUP.min(self.size);
        let damage = |offset, fault| Some(Damage { offset, bytes: len - offset, fault });
        if !self.fill(0, len as usize) {
            return damage(0, Fault::Unreadable);
        }
        if let Err(fault) = SegmentHeader::check(&self.chunk, self.id, self.place.incarnation) {
            return damage(0, Fault::Segment(fault));
        }
        let after = &self.chunk[SEGMENT_HEADER_LEN..];
        let stray = after.iter().position(|&byte| byte != 0)?;
        damage((SEGMENT_HEADER_LEN + stray) as u64, Fault::Stray)
    }

    /// Reads `len` bytes at `offset` into the chunk, fewer only at the end of the file.
    fn fill(&mut self, offset: u64, len: usize) -> bool {
        self.chunk.resize(len, 0);
        read_full(&self.source, &mut self.chunk, offset).is_ok_and(|count| {
            self.chunk.truncate(count);
            true
        })
    }

    /// Whether all bytes from the position to the end of its page are zero, and there are any.
    fn is_page_end(&mut self) -> bool {
        let end = group_start(self.position).min(self.size);
        let len = (end - self.position) as usize;
        len > 0 && self.fill(self.position, len) && self.chunk.iter().all(|&byte| byte == 0)
    }

    /// Reads and checks the block at `offset`; its length in the file.
    fn block_at(&mut self, offset: u64) -> Result<u64, Fault> {
        self.block.resize(BLOCK_HEADER_LEN, 0);
        let count = read_full(&self.source, &mut self.block, offset).map_err(|_| Fault::Unreadable)?;
        if self.block[..count].starts_with(&SEAL_MAGIC) {
            return self.sealed_block_at(offset, count);
        }
        let len = self.check_our_header(count)?;
        if len > self.size - offset {
            return Err(Fault::Block(BlockFault::BodyCut));
        }
        self.block.resize(len as usize, 0);
        let body = &mut self.block[BLOCK_HEADER_LEN..];
        let count =
            read_full(&self.source, body, offset + BLOCK_HEADER_LEN as u64).map_err(|_| Fault::Unreadable)?;
        self.block.truncate(BLOCK_HEADER_LEN + count);
        check_block(&self.block).map_err(Fault::Block)?;
        Ok(len)
    }

    /// Checks the block header of which `count` bytes are read; the length of the whole block.
    fn check_our_header(&self, count: usize) -> Result<u64, Fault> {
        let header = check_header(&self.block[..count]).map_err(Fault::Block)?;
        if !self.is_ours(header) {
            return Err(Fault::Block(BlockFault::Foreign));
        }
        Ok(BLOCK_HEADER_LEN as u64 + u64::from(header.body_len.get()))
    }

    /// Reads, opens and checks the sealed block at `offset`, of which `count` bytes are read; its
    /// length in the file.
    fn sealed_block_at(&mut self, offset: u64, count: usize) -> Result<u64, Fault> {
        let envelope = Envelope::check(&self.block[..count], self.place.incarnation).map_err(Fault::Seal)?;
        let sealed_len = envelope.sealed_len();
        if sealed_len > self.size - offset {
            return Err(Fault::Seal(SealFault::Cut));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(sealed_len as usize - ENVELOPE_LEN, 0);
        let opened = self.open(offset, &envelope, &mut block);
        self.block = block;
        opened?;
        self.block.truncate(envelope.len.get() as usize);
        let len = self.check_our_header(self.block.len())?;
        if len != self.block.len() as u64 {
            return Err(Fault::Block(BlockFault::BodyCut));
        }
        check_block(&self.block).map_err(Fault::Block)?;
        Ok(sealed_len)
    }

    /// Reads what follows an envelope and opens it.
    fn open(&mut self, offset: u64, envelope: &Envelope, sealed: &mut [u8]) -> Result<(), Fault> {
        let cipher = match self.cipher.take().filter(|cipher| cipher.fits(envelope)) {
            Some(cipher) => cipher,
            None => self.cipher_for(envelope).map_err(Fault::Seal)?,
        };
        let cipher = self.cipher.insert(cipher);
        let count =
            read_full(&self.source, sealed, offset + ENVELOPE_LEN as u64).map_err(|_| Fault::Unreadable)?;
        if count < sealed.len() {
            return Err(Fault::Seal(SealFault::Cut));
        }
        cipher.open(offset, envelope, sealed).map_err(Fault::Seal)
    }

    fn cipher_for(&self, envelope: &Envelope) -> Result<SegmentCipher, SealFault> {
        let keys = self.place.keys.as_ref();
        let key = keys.and_then(|keys| {
            let warn =
                |error| tracing::error!(segment = %self.id, %error, "an encrypted segment cannot be read");
            keys.get(envelope.key()).map_err(warn).ok()
        });
        let key = key.ok_or_else(|| SealFault::KeyMissing(envelope.key()))?;
        Ok(SegmentCipher::new(&key, envelope.salt, self.place.incarnation, self.id))
    }

    fn is_ours(&self, header: &BlockHeader) -> bool {
        let identity = BlockIdentity::of(header);
        identity.incarnation == self.place.incarnation
            && identity.node == self.place.node
            && identity.epoch == self.id.epoch
            && identity.worker == self.id.worker
            && identity.sequence.0 > 0
    }

    /// Moves to the next sound block after the position, or to the end. What lies between is
    /// damage, unless it is all zero and ends the segment.
    fn find_next_block(&mut self, fault: Fault) -> Option<Damage> {
        let start = self.position;
        let mut first_written = (fault == Fault::Unreadable).then_some(start);
        let mut last_written = start;
        let mut offset = start;
        let mut resume = self.size;
        'file: while offset < self.size {
            // What was never written is zero: no block begins there, and it is no damage. Blocks
            // that follow each other are read all the same; only the search after them relies on it.
            let data = self.source.next_data(offset);
            if data > offset {
                offset = data;
                continue;
            }
            if !self.fill(offset, CHUNK) {
                // Page by page, so that one bad page hides no more than itself.
                if !self.fill(offset, (group_start(offset + 1) - offset) as usize) {
                    first_written.get_or_insert(offset);
                    offset = group_start(offset + 1);
                    last_written = offset;
                    continue;
                }
            }
            let chunk = std::mem::take(&mut self.chunk);
            if chunk.is_empty() {
                break;
            }
            // Where unwritten extents cannot be told, most is the empty end of a segment.
            let is_empty = is_zero(&chunk);
            for candidate in candidates(if is_empty { &[] } else { &chunk }) {
                let at = offset + candidate as u64;
                if at > start && is_block(self.block_at(at)) {
                    resume = at;
                    note_written(&chunk[..candidate], offset, &mut first_written, &mut last_written);
                    break 'file;
                }
            }
            if !is_empty {
                note_written(&chunk, offset, &mut first_written, &mut last_written);
            }
            // The magic may lie across two chunks.
            let end = offset + chunk.len() as u64;
            offset = if end < self.size { (end - OVERLAP).max(offset + 1) } else { end };
            self.chunk = chunk;
        }
        self.position = resume;
        let lost_block = resume < self.size;
        let first = first_written.or(lost_block.then_some(start))?;
        let fault = if first == start { fault } else { Fault::Stray };
        // Zeros where a page begins are no header either: a write that never arrived, or stray
        // bytes further on.
        let fault = if first_written.is_none() { Fault::Block(BlockFault::Magic) } else { fault };
        let end = if lost_block { resume } else { last_written.max(first) };
        Some(Damage { offset: first, bytes: end - first, fault })
    }
}

/// Whether there is a block, be it one that cannot be opened without its key.
const fn is_block(found: Result<u64, Fault>) -> bool {
    matches!(found, Ok(_) | Err(Fault::Seal(SealFault::KeyMissing(_))))
}

/// Where in `chunk` a block may begin.
fn candidates(chunk: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let magic = chunk.windows(BLOCK_MAGIC.len());
    let is_magic = |window: &[u8]| window == BLOCK_MAGIC || window == SEAL_MAGIC;
    magic.enumerate().filter(move |(_, window)| is_magic(window)).map(|(at, _)| at)
}

/// Whether all bytes are zero, many at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let blocks = bytes.chunks_exact(256);
    let rest = blocks.remainder();
    let or = |block: &[u8]| block.iter().fold(0, |sum, byte| sum | byte);
    or(rest) == 0 && blocks.into_iter().all(|block| or(block) == 0)
}

/// Widens the range of bytes that are not zero.
fn note_written(chunk: &[u8], offset: u64, first: &mut Option<u64>, last: &mut u64) {
    if let Some(at) = chunk.iter().position(|&byte| byte != 0) {
        first.get_or_insert(offset + at as u64);
    }
    if let Some(at) = chunk.iter().rposition(|&byte| byte != 0) {
        *last = (*last).max(offset + at as u64 + 1);
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
