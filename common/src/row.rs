//! A row: one click with its outcome, in the bytes that are journaled, forwarded and inserted.
//!
//! Rows are ClickHouse `RowBinary`: fixed little-endian columns in the order of the struct, the
//! extension last as a LEB128 length and its bytes. The click stands in a row exactly as it
//! stood on the wire, so writing a row is two copies.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{Click, extension};

/// The fixed columns of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Row {
    /// When this node read the click, in ms since the Unix epoch. Billing time.
    pub received_at_ms: U64,
    /// The minute whose bucket counts this row ([`crate::time::Minute`]).
    pub minute: U32,
    /// [`crate::reason::Outcome`]: accepted, repeat, late or filtered.
    pub outcome: u8,
    /// [`crate::reason::Reason`]; 0 unless filtered.
    pub reason: u8,
    /// [`row_flags`].
    pub flags: u8,
    /// Every reason of class filtered that holds, bit n for reason number
    /// [`crate::reason::FIRST_FILTERED`] + n; `reason` is the first of them.
    pub traffic: u8,
    /// The click as it came.
    pub click: Click,
}

/// Bytes of a row's fixed columns.
pub const ROW_LEN: usize = size_of::<Row>();
const _: () = assert!(ROW_LEN == 112);

/// The most bytes a LEB128 length takes here: extensions are shorter than 2^14.
pub const MAX_LENGTH_PREFIX: usize = 2;
// A sound extension has each known field at most once, so its length stays below 2^14.
const _: () = {
    let (mut sum, mut kind) = (0, 0);
    while kind < u8::MAX {
        kind += 1;
        if let Some(longest) = extension::max_len(kind) {
            sum += extension::FIELD_HEADER_LEN + longest;
        }
    }
    assert!(sum < 1 << (7 * MAX_LENGTH_PREFIX));
};
/// The most bytes of one row with its extension.
pub const MAX_ROW_LEN: usize = ROW_LEN + MAX_LENGTH_PREFIX + u16::MAX as usize / 4;

/// Bits of [`Row::flags`].
pub mod row_flags {
    /// The click's own time was implausible; receive time stands for it.
    pub const CLOCK_SUSPECT: u8 = 1 << 0;
    /// Nobody signed the click, and its user clicked this ad moments ago: a repeat, whatever its
    /// impression.
    pub const REFRACTORY: u8 = 1 << 1;
    /// A model's score of the click reached its campaign's threshold.
    pub const MARKED: u8 = 1 << 2;
    /// The node was to score the click and had no model.
    pub const UNSCORED: u8 = 1 << 3;
    /// All bits that have a meaning.
    pub const KNOWN: u8 = CLOCK_SUSPECT | REFRACTORY | MARKED | UNSCORED;
}

/// The LEB128 form of an extension's length, and how many of its bytes count.
#[inline]
#[must_use]
pub const fn length_prefix(len: u16) -> ([u8; MAX_LENGTH_PREFIX], usize) {
    debug_assert!(len < 1 << 14);
    if len < 128 { ([len as u8, 0], 1) } else { ([(len & 127) as u8 | 128, (len >> 7) as u8], 2) }
}

/// The rows of a block's body, each with its extension. Stops at the first byte that is not part
/// of a row: check [`Rows::rest`].
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    /// The rows in `body`.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What is left unread: empty after a sound body.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a Row, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (row, after) = Row::ref_from_prefix(self.rest).ok()?;
        let (&first, after) = after.split_first()?;
        let (len, after) = if first < 128 {
            (first as usize, after)
        } else {
            let (&second, after) = after.split_first()?;
            // Two bytes at the most, and no length written longer than it must be.
            if second == 0 || second >= 128 {
                return None;
            }
            ((first & 127) as usize | (second as usize) << 7, after)
        };
        if len != row.click.extension_len.get() as usize {
            return None;
        }
        let (extension, rest) = after.split_at_checked(len)?;
        self.rest = rest;
        Some((row, extension))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_up_to_two_bytes_round_trip() {
        for len in [0_u16, 1, 127, 128, 129, 1352, 16_383] {
            let (bytes, count) = length_prefix(len);
            let read = if count == 1 {
                u16::from(bytes[0])
            } else {
                u16::from(bytes[0] & 127) | u16::from(bytes[1]) << 7
            };
            assert_eq!((read, count), (len, if len < 128 { 1 } else { 2 }));
        }
    }
}
