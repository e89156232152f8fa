//! Builds blocks in place and checks them. The only room that writes a block header.

use weir_common::block::{
    BLOCK_HEADER_LEN, BLOCK_MAGIC, BLOCK_VERSION, BlockHeader, HEADER_CRC_OFFSET, PLAIN_RULES,
};
use weir_common::id::{BlockSeq, Epoch, Incarnation, NodeId, WorkerId};
use weir_common::reason::{OUTCOMES, Outcome, Reason};
use weir_common::row::{MAX_LENGTH_PREFIX, ROW_LEN, Row, length_prefix};
use weir_common::time::UnixMs;
use weir_common::wire::Click;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::admission::Admitted;
use crate::ledger::Decision;

/// Who wrote a block and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIdentity {
    /// The life of the journal folder.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
    /// The start of the daemon.
    pub epoch: Epoch,
    /// The worker.
    pub worker: WorkerId,
    /// Its place in the sequence of this (epoch, worker).
    pub sequence: BlockSeq,
}

impl BlockIdentity {
    /// The identity that stands in a header.
    #[must_use]
    pub const fn of(header: &BlockHeader) -> Self {
        Self {
            incarnation: Incarnation(header.incarnation.get()),
            node: NodeId(header.node.get()),
            epoch: Epoch(header.epoch.get()),
            worker: WorkerId(header.worker.get()),
            sequence: BlockSeq(header.sequence.get()),
        }
    }
}

/// A block whose bytes are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBlock {
    /// Header and rows.
    pub bytes: Vec<u8>,
    /// Its place in the sequence.
    pub sequence: BlockSeq,
    /// The CRC the next block chains to.
    pub header_crc: u32,
    /// The CRC it chains to itself.
    pub previous_crc: u32,
    /// The latest receive time of its rows.
    pub received_at: UnixMs,
    /// Number of rows.
    pub rows: u32,
}

/// The block has no room for this row: seal it and begin another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the open block has no room for this row; seal it and begin another")]
pub struct BlockFull;

/// Fills one block at a time in a buffer of fixed capacity.
#[derive(Debug)]
pub struct BlockBuilder {
    capacity: usize,
    buffer: Vec<u8>,
    header: BlockHeader,
    rules: u32,
    outcomes: [u32; OUTCOMES],
    rows: u32,
    received_at: UnixMs,
    open: bool,
    spares: Vec<Vec<u8>>,
}

/// Spare buffers a builder keeps; what comes back beyond them is freed. As many as a journal has
/// in flight and waiting in the normal case, one of each.
const SPARES_MAX: usize = 8;

impl BlockBuilder {
    /// A builder of blocks of at most `capacity` bytes, header included. Room for at least one
    /// row of any size is the least that makes sense.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(BLOCK_HEADER_LEN + weir_common::row::MAX_ROW_LEN);
        Self {
            capacity,
            buffer: Vec::new(),
            header: BlockHeader::new_zeroed(),
            rules: PLAIN_RULES,
            outcomes: [0; OUTCOMES],
            rows: 0,
            received_at: UnixMs(0),
            open: false,
            spares: Vec::with_capacity(SPARES_MAX),
        }
    }

    /// The blocks opened from now on, and the open one if it says nothing yet, name this version of the
    /// traffic rules.
    pub fn judge_by(&mut self, rules: u32) {
        debug_assert!(!self.open || self.is_empty(), "what is in a block was judged by its rules");
        self.rules = rules;
        self.header.rules = U32::new(rules);
    }

    /// Opens a block. `received_at` is the least its receive time can be; it stands in the
    /// header of a block without rows. What an open block held is thrown away.
    pub fn begin(&mut self, identity: BlockIdentity, received_at: UnixMs) {
        if self.buffer.capacity() == 0 {
            self.buffer = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(self.capacity));
        }
        self.buffer.clear();
        self.buffer.resize(BLOCK_HEADER_LEN, 0);
        self.header = BlockHeader::new_zeroed();
        self.header.magic = BLOCK_MAGIC;
        self.header.version = U16::new(BLOCK_VERSION);
        self.header.worker = U16::new(identity.worker.0);
        self.header.node = U32::new(identity.node.0);
        self.header.epoch = U32::new(identity.epoch.0);
        self.header.incarnation = U64::new(identity.incarnation.0);
        self.header.sequence = U64::new(identity.sequence.0);
        self.header.rules = U32::new(self.rules);
        self.outcomes = [0; OUTCOMES];
        self.rows = 0;
        self.received_at = received_at;
        self.open = true;
    }

    /// Whether a block is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the open block says nothing at all: no rows and no counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outcomes.iter().all(|&count| count == 0)
    }

    /// Rows in the open block.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Whether a row with an extension of `extension_len` bytes still fits.
    #[inline]
    #[must_use]
    pub const fn has_room_for(&self, extension_len: usize) -> bool {
        self.buffer.len() + ROW_LEN + MAX_LENGTH_PREFIX + extension_len <= self.capacity
    }

    /// Appends one row: two copies, no allocation.
    ///
    /// `decision` must be of an outcome that has rows (accepted, repeat, late, filtered), and
    /// `extension` as long as the click says; admission checked the latter.
    ///
    /// # Errors
    /// [`BlockFull`]; the block is as it was.
    #[inline]
    pub fn push(
        &mut self,
        received_at: UnixMs,
        admitted: &Admitted,
        decision: &Decision,
        click: &Click,
        extension: &[u8],
    ) -> Result<(), BlockFull> {
        debug_assert!(self.open && has_rows(decision.outcome));
        debug_assert_eq!(extension.len(), click.extension_len.get() as usize);
        if !self.has_room_for(extension.len()) {
            return Err(BlockFull);
        }
        let filtered = decision.outcome == Outcome::Filtered;
        let row = Row {
            received_at_ms: U64::new(received_at.0),
            minute: U32::new(admitted.minute.0),
            outcome: decision.outcome as u8,
            reason: if filtered { decision.reason as u8 } else { Reason::None as u8 },
            flags: admitted.row_flags,
            traffic: admitted.traffic.bits(),
            click: *click,
        };
        self.buffer.extend_from_slice(row.as_bytes());
        let (prefix, prefix_len) = length_prefix(extension.len() as u16);
        self.buffer.extend_from_slice(&prefix[..prefix_len]);
        self.buffer.extend_from_slice(extension);
        self.outcomes[decision.outcome as usize] += 1;
        self.rows += 1;
        self.received_at = self.received_at.max(received_at);
        Ok(())
    }

    /// Counts `clicks` that met an outcome without rows: duplicate, refused, malformed.
    #[inline]
    pub fn count(&mut self, outcome: Outcome, clicks: u32) {
        debug_assert!(self.open && !has_rows(outcome), "{outcome:?} is counted by its rows");
        self.outcomes[outcome as usize] = self.outcomes[outcome as usize].saturating_add(clicks);
    }

    /// Closes the open block and makes its bytes final. `previous_crc` is the `header_crc` of
    /// the block before it in this (epoch, worker), 0 for the first.
    ///
    /// Without an open block there is nothing to seal.
    pub fn seal(&mut self, previous_crc: u32) -> Option<SealedBlock> {
        if !std::mem::take(&mut self.open) {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.buffer);
        let body = &bytes[BLOCK_HEADER_LEN..];
        self.header.received_at_ms = U64::new(self.received_at.0);
        self.header.rows = U32::new(self.rows);
        self.header.body_len = U32::new(body.len() as u32);
        self.header.body_crc = U32::new(crc32c::crc32c(body));
        self.header.previous_crc = U32::new(previous_crc);
        self.header.outcomes = self.outcomes.map(U32::new);
        let header_crc = crc32c::crc32c(&self.header.as_bytes()[..HEADER_CRC_OFFSET]);
        self.header.header_crc = U32::new(header_crc);
        bytes[..BLOCK_HEADER_LEN].copy_from_slice(self.header.as_bytes());
        Some(SealedBlock {
            bytes,
            sequence: BlockSeq(self.header.sequence.get()),
            header_crc,
            previous_crc,
            received_at: self.received_at,
            rows: self.rows,
        })
    }

    /// Takes back the buffer of a block that is durable, for the next one.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && buffer.capacity() >= self.capacity {
            self.spares.push(buffer);
        }
    }
}

/// Whether clicks of this outcome stand in blocks as rows.
#[must_use]
pub const fn has_rows(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Accepted | Outcome::Repeat | Outcome::Late | Outcome::Filtered)
}

/// What is wrong with bytes that should be a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, displaydoc::Display, thiserror::Error)]
pub enum BlockFault {
    /// the header is cut off
    HeaderCut,
    /// there is no block magic
    Magic,
    /// the header's CRC does not match
    HeaderCrc,
    /// the block version is not one this build reads
    Version,
    /// the rows are cut off
    BodyCut,
    /// the CRC of the rows does not match
    BodyCrc,
    /// the block belongs to another folder, node, epoch or worker
    Foreign,
    /// rows and outcome counts of the header do not match its body
    Rows,
}

/// Reads a header at the start of `bytes`, whose rows need not be there yet.
///
/// # Errors
/// What is wrong with it.
pub fn check_header(bytes: &[u8]) -> Result<&BlockHeader, BlockFault> {
    let Ok((header, _)) = BlockHeader::ref_from_prefix(bytes) else {
        return Err(BlockFault::HeaderCut);
    };
    if header.magic != BLOCK_MAGIC {
        return Err(BlockFault::Magic);
    }
    if crc32c::crc32c(&bytes[..HEADER_CRC_OFFSET]) != header.header_crc.get() {
        return Err(BlockFault::HeaderCrc);
    }
    if header.version.get() != BLOCK_VERSION {
        return Err(BlockFault::Version);
    }
    Ok(header)
}

/// Reads the block at the start of `bytes`: its header and its rows' bytes.
///
/// # Errors
/// What is wrong with it.
pub fn check_block(bytes: &[u8]) -> Result<(&BlockHeader, &[u8]), BlockFault> {
    let header = check_header(bytes)?;
    let end = BLOCK_HEADER_LEN + header.body_len.get() as usize;
    let body = bytes.get(BLOCK_HEADER_LEN..end).ok_or(BlockFault::BodyCut)?;
    if crc32c::crc32c(body) != header.body_crc.get() {
        return Err(BlockFault::BodyCrc);
    }
    Ok((header, body))
}

#[cfg(test)]
mod tests {
    use weir_common::row::Rows;
    use weir_common::time::Minute;

    use super::*;
    use crate::traffic::Flags;

    fn identity(sequence: u64) -> BlockIdentity {
        BlockIdentity {
            incarnation: Incarnation(7),
            node: NodeId(1),
            epoch: Epoch(2),
            worker: WorkerId(3),
            sequence: BlockSeq(sequence),
        }
    }

    fn admitted() -> Admitted {
        Admitted { minute: Minute(5), row_flags: 1, traffic: Flags::NONE, late: false }
    }

    #[test]
    fn a_row_has_all_that_speaks_against_its_click_and_the_block_the_rules_that_say_so() {
        let mut builder = BlockBuilder::new(4096);
        builder.judge_by(7);
        builder.begin(identity(1), UnixMs(10));
        let traffic = Flags::NONE.with(Reason::Robot, true).with(Reason::DataCentre, true);
        let filtered = decision(Outcome::Filtered, traffic.reason());
        builder.push(UnixMs(12), &Admitted { traffic, ..admitted() }, &filtered, &click(&[]), &[]).unwrap();
        let sealed = builder.seal(0).unwrap();
        let (header, body) = check_block(&sealed.bytes).unwrap();
        assert_eq!(header.rules(), 7);
        let (row, _) = Rows::new(body).next().unwrap();
        assert_eq!((row.traffic, row.reason), (traffic.bits(), Reason::DataCentre as u8));
    }

    fn decision(outcome: Outcome, reason: Reason) -> Decision {
        Decision { outcome, reason }
    }

    fn click(extension: &[u8]) -> Click {
        Click { ad: U64::new(9), extension_len: U16::new(extension.len() as u16), ..Click::zeroed() }
    }

    #[test]
    fn a_sealed_block_gives_back_its_rows_and_counts() {
        let mut builder = BlockBuilder::new(4096);
        builder.begin(identity(1), UnixMs(10));
        let extension = [8_u8; 200];
        let accepted = decision(Outcome::Accepted, Reason::None);
        let filtered = decision(Outcome::Filtered, Reason::Prefetch);
        builder.push(UnixMs(12), &admitted(), &accepted, &click(&[]), &[]).unwrap();
        builder.push(UnixMs(11), &admitted(), &filtered, &click(&extension), &extension).unwrap();
        builder.count(Outcome::Refused, 3);
        let sealed = builder.seal(77).unwrap();

        let (header, body) = check_block(&sealed.bytes).unwrap();
        assert_eq!(BlockIdentity::of(header), identity(1));
        assert_eq!((header.rows.get(), header.received_at_ms.get()), (2, 12));
        assert_eq!(header.outcomes.map(|count| count.get()), [1, 0, 0, 0, 1, 3, 0]);
        assert_eq!((header.previous_crc.get(), header.header_crc.get()), (77, sealed.header_crc));
        let mut rows = Rows::new(body);
        let found: Vec<_> = rows.by_ref().map(|(row, extension)| (row.reason, extension.len())).collect();
        assert_eq!(found, [(0, 0), (Reason::Prefetch as u8, 200)]);
        assert!(rows.rest().is_empty());
    }

    #[test]
    fn a_full_block_refuses_a_row_and_stays_sound() {
        let mut builder = BlockBuilder::new(0);
        builder.begin(identity(1), UnixMs(0));
        let accepted = decision(Outcome::Accepted, Reason::None);
        let mut pushed = 0;
        while builder.push(UnixMs(1), &admitted(), &accepted, &click(&[]), &[]).is_ok() {
            pushed += 1;
        }
        assert!(pushed > 0 && !builder.has_room_for(0));
        let sealed = builder.seal(0).unwrap();
        assert_eq!(check_block(&sealed.bytes).unwrap().0.rows.get(), pushed);
        assert!(sealed.bytes.len() <= sealed.bytes.capacity());
    }

    #[test]
    fn a_block_of_counts_alone_is_sound_and_an_untouched_one_is_empty() {
        let mut builder = BlockBuilder::new(4096);
        builder.begin(identity(4), UnixMs(99));
        assert!(builder.is_empty());
        builder.count(Outcome::Duplicate, 5);
        assert!(!builder.is_empty());
        let sealed = builder.seal(0).unwrap();
        let (header, body) = check_block(&sealed.bytes).unwrap();
        assert_eq!((header.rows.get(), header.received_at_ms.get(), body.len()), (0, 99, 0));
        assert!(builder.seal(0).is_none());
    }

    #[test]
    fn a_recycled_buffer_is_used_again_and_no_other_is_allocated() {
        let mut builder = BlockBuilder::new(4096);
        builder.begin(identity(1), UnixMs(0));
        let sealed = builder.seal(0).unwrap();
        let address = sealed.bytes.as_ptr();
        builder.recycle(sealed.bytes);
        builder.begin(identity(2), UnixMs(0));
        assert_eq!(builder.seal(0).unwrap().bytes.as_ptr(), address);
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_detected() {
        let mut builder = BlockBuilder::new(4096);
        builder.begin(identity(1), UnixMs(0));
        let accepted = decision(Outcome::Accepted, Reason::None);
        builder.push(UnixMs(1), &admitted(), &accepted, &click(b"xy"), b"xy").unwrap();
        let mut bytes = builder.seal(0).unwrap().bytes;
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check_block(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(check_block(&bytes).is_ok());
    }
}
