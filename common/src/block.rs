//! A block: the unit of durability, transport, idempotency and replay. Its bytes never change.
//!
//! A 128-byte header and the rows ([`crate::row`]). The header's CRC-32C covers the header, its
//! `body_crc` the rows; `previous_crc` chains each block to the one before it, so that a lost or
//! misplaced write is seen and not only a damaged one. Computing the CRC is left to the journal:
//! this crate only says where it stands.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::reason::OUTCOMES;

/// First four bytes of a block.
pub const BLOCK_MAGIC: [u8; 4] = *b"WBLK";
/// The version this crate writes.
pub const BLOCK_VERSION: u16 = 1;
/// Bytes of the header.
pub const BLOCK_HEADER_LEN: usize = size_of::<BlockHeader>();
const _: () = assert!(BLOCK_HEADER_LEN == 128);
/// Where the header's own CRC stands: it covers every byte before it.
pub const HEADER_CRC_OFFSET: usize = core::mem::offset_of!(BlockHeader, header_crc);
const _: () = assert!(HEADER_CRC_OFFSET == BLOCK_HEADER_LEN - 4);

/// The header of a block. (incarnation, epoch, worker, sequence) is its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHeader {
    /// [`BLOCK_MAGIC`].
    pub magic: [u8; 4],
    /// [`BLOCK_VERSION`].
    pub version: U16,
    /// Number of this worker.
    pub worker: U16,
    /// The node, as the operator numbers it.
    pub node: U32,
    /// The start of the daemon that wrote it.
    pub epoch: U32,
    /// The life of the journal folder it was written to.
    pub incarnation: U64,
    /// From 1, without gaps, for each (epoch, worker).
    pub sequence: U64,
    /// The latest receive time of its rows, in ms since the Unix epoch. Time enters the ledger here.
    pub received_at_ms: U64,
    /// Number of rows.
    pub rows: U32,
    /// Bytes of the rows.
    pub body_len: U32,
    /// CRC-32C of the rows.
    pub body_crc: U32,
    /// `header_crc` of the block before it in this (epoch, worker); 0 for the first.
    pub previous_crc: U32,
    /// How many clicks met each outcome since the block before it, by outcome number. Accepted,
    /// repeat, late and filtered are this block's rows; the others have no rows.
    pub outcomes: [U32; OUTCOMES],
    /// The version of the traffic rules that judged its rows; 0 is version 1, of before it was named here.
    pub rules: U32,
    /// Reserved, zero.
    pub reserved: [u8; 36],
    /// CRC-32C of the header bytes before this field.
    pub header_crc: U32,
}

/// The version of the traffic rules of a node without lists and limits: what the click says of itself.
pub const PLAIN_RULES: u32 = 1;

impl BlockHeader {
    /// The version of the traffic rules that judged its rows.
    #[must_use]
    pub const fn rules(&self) -> u32 {
        let rules = self.rules.get();
        if rules == 0 { PLAIN_RULES } else { rules }
    }
}
