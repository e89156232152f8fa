//! A second reading of `docs/protocol.md`: slow, allocating, index by index, and sharing no line
//! with `weir_common::wire`. What both say of the same bytes must be equal.

/// What the document says of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The structure is sound.
    Accepted {
        /// Sender's batch id.
        batch_id: u64,
        /// Sender's own number.
        source_id: u32,
        /// Shard and shared bits.
        shard: (u16, u8),
        /// Every click: its offset, its extension's length, `None` or the reason it is malformed.
        clicks: Vec<(usize, usize, Option<&'static str>)>,
    },
    /// It is not.
    Malformed {
        /// Name of the reason.
        reason: &'static str,
        /// Clicks it is counted as.
        clicks: u8,
        /// Batch id to echo.
        batch_id: Option<u64>,
    },
}

/// A little-endian number of up to eight octets.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum * 256 + u64::from(byte))
}

/// Section 13 of the document, one check after another.
#[must_use]
pub fn datagram(bytes: &[u8]) -> Verdict {
    let whole = |reason| Verdict::Malformed { reason, clicks: 1, batch_id: None };
    if bytes.len() < 24 {
        return whole("header_short");
    }
    if bytes[0..4] != [0x57, 0x45, 0x49, 0x52] {
        return whole("bad_magic");
    }
    if bytes[4] != 1 {
        return whole("bad_version");
    }
    if bytes[5] != 0 {
        return whole("bad_flags");
    }
    if number(&bytes[10..12]) != bytes.len() as u64 {
        return whole("bad_length");
    }
    let count = usize::from(bytes[6]);
    if count < 1 || 24 + 96 * count > bytes.len() {
        return whole("bad_count");
    }
    let (bits, shard) = (bytes[7], number(&bytes[8..10]));
    // "The 10 - shared_bits low bits of shard are 0": it is a multiple of 2^(10 - shared_bits).
    if bits > 10 || shard > 1023 || !shard.is_multiple_of(2_u64.pow(10 - u32::from(bits))) {
        return whole("bad_shard");
    }
    let batch_id = number(&bytes[16..24]);
    let mut clicks = Vec::new();
    let mut offset = 24;
    for _ in 0..count {
        // Past the end, any length will do: the walk has already missed.
        let extension_len =
            if offset + 96 <= bytes.len() { number(&bytes[offset + 90..offset + 92]) as usize } else { 0 };
        clicks.push((offset, extension_len));
        offset += 96 + extension_len;
    }
    if offset != bytes.len() {
        return Verdict::Malformed { reason: "click_cut", clicks: bytes[6], batch_id: Some(batch_id) };
    }
    let judge = |(offset, len)| (offset, len, click(&bytes[offset..offset + 96 + len]));
    Verdict::Accepted {
        batch_id,
        source_id: number(&bytes[12..16]) as u32,
        shard: (shard as u16, bits),
        clicks: clicks.into_iter().map(judge).collect(),
    }
}

/// The checks of one click with its extension; `None` when it is sound.
#[must_use]
pub fn click(bytes: &[u8]) -> Option<&'static str> {
    let flags = bytes[89];
    let is_set = |bit: u32| flags / 2_u8.pow(bit) % 2 == 1;
    if flags > 31 || number(&bytes[92..96]) != 0 {
        return Some("reserved_bits");
    }
    if is_set(0) && number(&bytes[48..56]) != 0 {
        return Some("foreign_tag");
    }
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".as_bytes();
    let two_letters = letters.contains(&bytes[84]) && letters.contains(&bytes[85]);
    if !(two_letters || number(&bytes[84..86]) == 0) {
        return Some("bad_country");
    }
    let degrees = |at: usize| i64::from(number(&bytes[at..at + 4]) as u32 as i32);
    let within = |at: usize, most: i64| if is_set(3) { degrees(at).abs() <= most } else { degrees(at) == 0 };
    let point = is_set(4) || number(&bytes[80..84]) == 0;
    if !within(72, 90_000_000) || !within(76, 180_000_000) || !point {
        return Some("bad_coordinates");
    }
    // A million units of a million micros each.
    if number(&bytes[24..32]) > 10_u64.pow(12) {
        return Some("bad_price");
    }
    if extension(&bytes[96..]) { None } else { Some("bad_extension") }
}

/// Section 6: whether the fields fill the extension, known, short enough, in rising order.
fn extension(bytes: &[u8]) -> bool {
    let longest = [0, 512, 1024, 64, 64];
    let mut kinds = vec![0];
    let mut at = 0;
    while at < bytes.len() {
        if at + 3 > bytes.len() {
            return false;
        }
        let (kind, len) = (usize::from(bytes[at]), number(&bytes[at + 1..at + 3]) as usize);
        if !(1..=4).contains(&kind) || len > longest[kind] {
            return false;
        }
        kinds.push(kind);
        at += 3 + len;
    }
    at == bytes.len() && kinds.windows(2).all(|pair| pair[0] < pair[1])
}

/// Acks as (batch id, statuses), and the octets left unread.
#[must_use]
pub fn acks(bytes: &[u8]) -> (Vec<(u64, u32, Vec<u8>)>, usize) {
    let mut acks = Vec::new();
    let mut at = 0;
    while at + 16 <= bytes.len() {
        let end = at + 16 + usize::from(bytes[at + 6]);
        let head = [0x57, 0x41, 0x43, 0x4b, 1, 0];
        if bytes[at..at + 6] != head || end > bytes.len() {
            break;
        }
        let statuses = bytes[at + 16..end].to_vec();
        if statuses.iter().any(|&status| status > 3) {
            break;
        }
        acks.push((number(&bytes[at + 8..at + 16]), u32::from(bytes[at + 7]) * 100, statuses));
        at = end;
    }
    (acks, bytes.len() - at)
}

/// Rows as (offset, octets of the extension), and the octets left unread.
#[must_use]
pub fn rows(bytes: &[u8]) -> (Vec<(usize, usize)>, usize) {
    let mut rows = Vec::new();
    let mut at = 0;
    while at + 113 <= bytes.len() {
        let len = number(&bytes[at + 106..at + 108]) as usize;
        // The one form a length may take, written anew and compared.
        let prefix = match len {
            0..=127 => vec![len as u8],
            128..=16_383 => vec![(len % 128) as u8 + 128, (len / 128) as u8],
            _ => break,
        };
        let end = at + 112 + prefix.len() + len;
        if end > bytes.len() || bytes[at + 112..at + 112 + prefix.len()] != prefix {
            break;
        }
        rows.push((at, len));
        at = end;
    }
    (rows, bytes.len() - at)
}
