//! One frame of LZ4, decoded straight into a bounded output: "LZ4 Frame Format Description" 1.6, as of
//! `lz4/doc/lz4_Frame_format.md`.
//!
//! The blocks are undone by `lz4_flex`. The frame around them is read here, because its decoder sets aside
//! what a frame says its blocks may hold (up to 8 MiB for a few bytes), and takes a frame that was cut
//! off between two blocks for a whole one.

use twox_hash::xxhash32::Hasher as XxHash32;

use crate::rx::http::problem::Problem;

/// "Magic Number".
const MAGIC: u32 = 0x184D_2204;
/// How far back a block may refer into those before it.
const WINDOW_BYTES: usize = 64 << 10;
/// In a block's size: it is stored as it is.
const IS_STORED: u32 = 1 << 31;
/// Most that a byte of a block can become: each further byte of a length says at most 255.
const RATIO_MAX: usize = 255;

/// What a frame says of itself.
#[derive(Clone, Copy)]
struct Descriptor {
    are_independent: bool,
    have_checksums: bool,
    has_content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

/// Appends the content of exactly one frame to `out`, at most `max` bytes.
pub(super) fn decode(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    let mut input = Input(bytes);
    let descriptor = input.descriptor().ok_or(Problem::BadEncoding)?;
    if descriptor.content_bytes.is_some_and(|bytes| bytes > max as u64) {
        return Err(Problem::DecodedTooLarge);
    }
    let start = out.len();
    while let Some((block, is_stored)) = input.block(&descriptor)? {
        append(block, is_stored, &descriptor, start, max, out)?;
    }
    let content = &out[start..];
    let is_as_said = descriptor.content_bytes.is_none_or(|bytes| bytes == content.len() as u64);
    let is_sound = !descriptor.has_content_checksum || input.u32() == Some(XxHash32::oneshot(0, content));
    if is_as_said && is_sound && input.0.is_empty() { Ok(()) } else { Err(Problem::BadEncoding) }
}

/// Appends what one block holds. The content begins at `start`.
fn append(
    block: &[u8],
    is_stored: bool,
    descriptor: &Descriptor,
    start: usize,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    let end = out.len();
    let room = (max - (end - start)).min(descriptor.block_bytes_max);
    // too much for its kind of block is damage, too much for us is size
    let beyond =
        if room < descriptor.block_bytes_max { Problem::DecodedTooLarge } else { Problem::BadEncoding };
    if is_stored {
        if block.len() > room {
            return Err(beyond);
        }
        out.extend_from_slice(block);
        return Ok(());
    }
    let len = room.min(block.len().saturating_mul(RATIO_MAX));
    out.reserve_exact(len);
    out.resize(end + len, 0);
    let (before, here) = out.split_at_mut(end);
    let window =
        if descriptor.are_independent { &[] } else { &before[start.max(end.saturating_sub(WINDOW_BYTES))..] };
    let result = lz4_flex::block::decompress_into_with_dict(block, here, window);
    let len = result.map_err(|error| match error {
        lz4_flex::block::DecompressError::OutputTooSmall { .. } => beyond,
        _ => Problem::BadEncoding,
    })?;
    out.truncate(end + len);
    Ok(())
}

/// What is left of the frame.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Magic and descriptor. None: no frame, an older or future one, or one that wants a dictionary.
    fn descriptor(&mut self) -> Option<Descriptor> {
        if self.u32()? != MAGIC {
            return None;
        }
        let described = self.0;
        let &[flags, sizes] = self.take(2)? else { return None };
        let has = |bit: u8| flags & 1 << bit != 0;
        let is_version_1 = flags >> 6 == 1;
        if !is_version_1 || has(1) || has(0) || sizes & 0b1000_1111 != 0 {
            return None;
        }
        let content_bytes = if has(3) {
            let (bytes, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            Some(u64::from_le_bytes(*bytes))
        } else {
            None
        };
        let described = &described[..described.len() - self.0.len()];
        let checksum = *self.take(1)?.first()?;
        if checksum != (XxHash32::oneshot(0, described) >> 8) as u8 {
            return None;
        }
        let block_bytes_max = match sizes >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return None,
        };
        Some(Descriptor {
            are_independent: has(5),
            have_checksums: has(4),
            has_content_checksum: has(2),
            content_bytes,
            block_bytes_max,
        })
    }

    /// The next block, and whether it is stored; `None` after the last.
    fn block(&mut self, descriptor: &Descriptor) -> Result<Option<(&'a [u8], bool)>, Problem> {
        let word = self.u32().ok_or(Problem::BadEncoding)?;
        if word == 0 {
            return Ok(None);
        }
        let block = self.take((word & !IS_STORED) as usize).ok_or(Problem::BadEncoding)?;
        if descriptor.have_checksums && self.u32() != Some(XxHash32::oneshot(0, block)) {
            return Err(Problem::BadEncoding);
        }
        Ok(Some((block, word & IS_STORED != 0)))
    }
}
