//! What a node answers: one status for each click of a datagram.

use core::mem::size_of;

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;

/// First four bytes of an ack.
pub const ACK_MAGIC: [u8; 4] = *b"WACK";
/// A unit of [`AckHeader::retry_after`], in ms.
pub(super) const RETRY_AFTER_UNIT_MS: u32 = 100;
/// Bytes of an ack's header.
pub const ACK_HEADER_LEN: usize = size_of::<AckHeader>();

const _: () = assert!(ACK_HEADER_LEN == 16);

/// What the ack says of one click. Never a verdict on traffic quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AckStatus {
    /// Taken and durable.
    Created = 0,
    /// It was here before; durable.
    Exists = 1,
    /// Not taken for now: send it again, with the same impression and ordinal.
    Retry = 2,
    /// Will never be taken: do not send it again.
    Malformed = 3,
}

impl AckStatus {
    /// The status with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Created),
            1 => Some(Self::Exists),
            2 => Some(Self::Retry),
            3 => Some(Self::Malformed),
            _ => None,
        }
    }
}

/// The header of one ack; `count` status bytes follow. Acks to one sender may follow each other
/// in one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AckHeader {
    /// [`ACK_MAGIC`].
    pub magic: [u8; 4],
    /// [`VERSION`].
    pub version: u8,
    /// Reserved, zero.
    pub flags: u8,
    /// Number of status bytes: the request's click count.
    pub count: u8,
    /// How long to keep what is answered with [`AckStatus::Retry`], in tenths of a second; 0 says
    /// nothing of it.
    pub retry_after: u8,
    /// The request's batch id.
    pub batch_id: U64,
}

impl AckHeader {
    /// The ack header for a batch.
    #[must_use]
    pub const fn new(batch_id: u64, count: u8) -> Self {
        Self {
            magic: ACK_MAGIC,
            version: VERSION,
            flags: 0,
            count,
            retry_after: 0,
            batch_id: U64::new(batch_id),
        }
    }

    /// The same, and what is to be sent again is to wait so long: rounded up, and at most 25.5 s.
    #[must_use]
    pub const fn with_retry_after(self, ms: u32) -> Self {
        let units = ms.div_ceil(RETRY_AFTER_UNIT_MS);
        Self { retry_after: if units > u8::MAX as u32 { u8::MAX } else { units as u8 }, ..self }
    }
}

/// One ack read from a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The batch it answers.
    pub batch_id: u64,
    /// How long to wait before clicks are sent again, in ms; 0 says nothing of it.
    pub retry_after_ms: u32,
    /// One status byte a click, each a valid [`AckStatus`].
    pub statuses: &'a [u8],
}

/// Reads the acks of one datagram; stops at the first byte that is not part of an ack.
#[derive(Clone, Debug)]
pub struct Acks<'a> {
    rest: &'a [u8],
}

impl<'a> Acks<'a> {
    /// The acks in `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What is left unread: empty after a sound datagram.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Acks<'a> {
    type Item = Ack<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, after) = AckHeader::ref_from_prefix(self.rest).ok()?;
        let (statuses, rest) = after.split_at_checked(header.count as usize)?;
        let sound = header.magic == ACK_MAGIC && header.version == VERSION && header.flags == 0;
        if !sound || statuses.iter().any(|&status| AckStatus::from_number(status).is_none()) {
            return None;
        }
        self.rest = rest;
        let retry_after_ms = u32::from(header.retry_after) * RETRY_AFTER_UNIT_MS;
        Some(Ack { batch_id: header.batch_id.get(), retry_after_ms, statuses })
    }
}
