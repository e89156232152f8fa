//! The bytes of the impressions of a digest: sorted, as differences, in chunks with a CRC.
//!
//! ```text
//! 0     4          8         12      13     14         16
//! +-----+----------+---------+-------+------+----------+--------- - -
//! | CRC | body len | entries | group | kind | reserved | body
//! +-----+----------+---------+-------+------+----------+--------- - -
//! ```
//!
//! Numbers in a body are LEB128. An *issued* body is runs of one issuer and key: issuer, key,
//! count, then of each impression what its sequence is more than the one before it (without the
//! low bits, which all of a group share), shifted left by two. Bit 0 says that a state byte
//! follows, because it is not the usual one; bit 1 that the difference of the issue times
//! follows, zigzag, because it is not 0. Clicked impressions stand close in sequence and time, so
//! most take one or two bytes. A *foreign* body is of each impression the difference of the
//! receive times, shifted left by one, bit 0 again for a state byte, and its 16 bytes.
//!
//! A chunk depends on no other. Decoding ends on any bytes and takes no more than it is given.

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::time::UnixMs;

use super::header::{DigestFault, GROUP_BITS, group_of};
use crate::ledger::{Recalled, RememberedState};

/// Bytes before a chunk's body.
pub const CHUNK_HEADER_LEN: usize = 16;
/// Impressions in a chunk: decoded they stay in a core's second cache.
pub const CHUNK_ENTRIES: usize = 4096;
/// An issued impression at its longest: a sequence and its flags, a state, an issue time.
const ISSUED_MAX: usize = 9 + 1 + 5;
/// A run's own numbers at their longest: issuer, key, count.
const RUN_MAX: usize = 3 + 3 + 3;
/// A foreign impression at its longest: a time and its flag, a state, the id.
const FOREIGN_MAX: usize = 10 + 1 + 16;
/// The longest body: every impression at its longest, each issued one a run of its own.
pub const CHUNK_BODY_MAX: usize = CHUNK_ENTRIES * FOREIGN_MAX;
const _: () = assert!(FOREIGN_MAX >= ISSUED_MAX + RUN_MAX && CHUNK_ENTRIES < 1 << 21);

const ISSUED: u8 = 1;
const FOREIGN: u8 = 2;
const HAS_STATE: u64 = 1;
const HAS_TIME: u64 = 2;

/// An issued impression on its way into a digest. Ordered as digests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedEntry {
    /// The group.
    pub group: u8,
    /// Issuer, and the key below it.
    pub signer: u32,
    /// The sequence.
    pub sequence: u64,
    /// When it was issued, in seconds.
    pub issued_at_s: u32,
    /// The state's bits.
    pub state: u8,
}

/// A foreign impression on its way into a digest. Ordered as digests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignEntry {
    /// The group.
    pub group: u8,
    /// When its first click was received, in ms.
    pub received_at_ms: u64,
    /// The id.
    pub id: [u8; 16],
    /// The state's bits.
    pub state: u8,
}

impl IssuedEntry {
    /// The entry of an id and a state.
    #[must_use]
    pub const fn new(id: ImpressionId, state: u8) -> Self {
        Self {
            group: group_of(id.issued_shard()),
            signer: (id.issuer().0 as u32) << 16 | id.key().0 as u32,
            sequence: id.sequence(),
            issued_at_s: id.issued_at_s(),
            state,
        }
    }
}

/// The low bits of every sequence in a group: those of the shard, mirrored.
const fn low_bits(group: u8) -> u64 {
    (group.reverse_bits() >> (u8::BITS - GROUP_BITS)) as u64
}

/// Appends the chunks of issued impressions of one group, in order.
pub fn encode_issued(entries: &[IssuedEntry], seed: u32, out: &mut Vec<u8>) {
    for entries in entries.chunks(CHUNK_ENTRIES) {
        let start = begin(entries[0].group, ISSUED, entries.len(), out);
        for run in entries.chunk_by(|one, next| one.signer == next.signer) {
            put(u64::from(run[0].signer >> 16), out);
            put(u64::from(run[0].signer & 0xffff), out);
            put(run.len() as u64, out);
            let (mut sequence, mut issued_at_s) = (0, 0_u32);
            for entry in run {
                let next = entry.sequence >> GROUP_BITS;
                let later_s = i64::from(entry.issued_at_s) - i64::from(issued_at_s);
                let is_usual = entry.state == RememberedState::USUAL.bits();
                let state = if is_usual { 0 } else { HAS_STATE };
                let flags = state | if later_s == 0 { 0 } else { HAS_TIME };
                put((next - sequence) << 2 | flags, out);
                if !is_usual {
                    out.push(entry.state);
                }
                if later_s != 0 {
                    put((later_s << 1 ^ later_s >> 63) as u64, out);
                }
                (sequence, issued_at_s) = (next, entry.issued_at_s);
            }
        }
        seal(start, seed, out);
    }
}

/// Appends the chunks of foreign impressions of one group, in order.
pub fn encode_foreign(entries: &[ForeignEntry], seed: u32, out: &mut Vec<u8>) {
    for entries in entries.chunks(CHUNK_ENTRIES) {
        let start = begin(entries[0].group, FOREIGN, entries.len(), out);
        let mut received_at_ms = 0;
        for entry in entries {
            let is_usual = entry.state == RememberedState::USUAL.bits();
            // Times of day have 41 bits; one that has 64 is cut, to a later time than it was.
            let later_ms = (entry.received_at_ms - received_at_ms).min(u64::MAX >> 1);
            put((later_ms << 1) | if is_usual { 0 } else { HAS_STATE }, out);
            if !is_usual {
                out.push(entry.state);
            }
            out.extend_from_slice(&entry.id);
            received_at_ms += later_ms;
        }
        seal(start, seed, out);
    }
}

fn begin(group: u8, kind: u8, entries: usize, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&(entries as u32).to_le_bytes());
    out.extend_from_slice(&[group, kind, 0, 0]);
    start
}

fn seal(start: usize, seed: u32, out: &mut [u8]) {
    let chunk = &mut out[start..];
    let body_len = (chunk.len() - CHUNK_HEADER_LEN) as u32;
    chunk[4..8].copy_from_slice(&body_len.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &chunk[4..]);
    chunk[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A number in LEB128.
fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes of the chunk that begins here, header and body; `None` when its header is cut off or
/// says what cannot be.
#[must_use]
pub fn chunk_len(bytes: &[u8]) -> Option<usize> {
    let body_len = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    (bytes.len() >= CHUNK_HEADER_LEN && body_len <= CHUNK_BODY_MAX).then_some(CHUNK_HEADER_LEN + body_len)
}

/// Reads one whole chunk of `group` into `out`, which is emptied first. Issued impressions are
/// given `received_at`.
///
/// # Errors
/// What is wrong with it; what is in `out` is then of no use.
pub fn decode(
    chunk: &[u8],
    seed: u32,
    group: u8,
    received_at: UnixMs,
    out: &mut Vec<Recalled>,
) -> Result<(), DigestFault> {
    out.clear();
    let Some((header, body)) = chunk.split_first_chunk::<CHUNK_HEADER_LEN>() else {
        return Err(DigestFault::Chunk);
    };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if crc32c::crc32c_append(seed, &chunk[4..]) != word(0) {
        return Err(DigestFault::ChunkCrc);
    }
    let entries = word(8) as usize;
    let is_sound = word(4) as usize == body.len() && entries <= CHUNK_ENTRIES && header[12] == group;
    if !is_sound {
        return Err(DigestFault::Chunk);
    }
    let mut rest = Rest(body);
    let read = match header[13] {
        ISSUED => decode_issued(&mut rest, entries, low_bits(group), received_at, out),
        FOREIGN => decode_foreign(&mut rest, entries, out),
        _ => None,
    };
    if read.is_none() || !rest.0.is_empty() || out.len() != entries {
        return Err(DigestFault::Chunk);
    }
    Ok(())
}

fn decode_issued(
    rest: &mut Rest,
    entries: usize,
    low: u64,
    received_at: UnixMs,
    out: &mut Vec<Recalled>,
) -> Option<()> {
    while out.len() < entries {
        let issuer = Issuer(u16::try_from(rest.number()?).ok()?);
        let key = KeyId(u16::try_from(rest.number()?).ok()?);
        let count = rest.number()? as usize;
        if count == 0 || count > entries - out.len() {
            return None;
        }
        let (mut sequence, mut issued_at_s) = (0_u64, 0_i64);
        for _ in 0..count {
            let number = rest.number()?;
            sequence = sequence.checked_add(number >> 2)?;
            let state = rest.state(number)?;
            if number & HAS_TIME != 0 {
                let zigzag = rest.number()?;
                issued_at_s = issued_at_s.checked_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))?;
            }
            let id = ImpressionId::issued(
                issuer,
                key,
                u32::try_from(issued_at_s).ok()?,
                sequence << GROUP_BITS | low,
            );
            out.push(Recalled { id, is_foreign: false, received_at, state });
        }
    }
    Some(())
}

fn decode_foreign(rest: &mut Rest, entries: usize, out: &mut Vec<Recalled>) -> Option<()> {
    let mut received_at_ms = 0_u64;
    for _ in 0..entries {
        let number = rest.number()?;
        received_at_ms = received_at_ms.checked_add(number >> 1)?;
        let state = rest.state(number)?;
        let (&id, after) = rest.0.split_first_chunk::<16>()?;
        rest.0 = after;
        let received_at = UnixMs(received_at_ms);
        out.push(Recalled { id: ImpressionId(id), is_foreign: true, received_at, state });
    }
    Some(())
}

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 128 { Some(u64::from(first)) } else { self.long_number(first) }
    }

    fn long_number(&mut self, first: u8) -> Option<u64> {
        let mut number = u64::from(first & 127);
        for shift in (7..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 127);
            if part << shift >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    #[inline]
    fn state(&mut self, number: u64) -> Option<RememberedState> {
        if number & HAS_STATE == 0 {
            return Some(RememberedState::USUAL);
        }
        RememberedState::from_bits(self.byte()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::header::GROUPS;

    const SEED: u32 = 77;
    const AT: UnixMs = UnixMs(5);

    fn state() -> impl Strategy<Value = u8> {
        any::<u8>().prop_map(|bits| RememberedState::from_bits(bits).map_or(0x81, RememberedState::bits))
    }

    fn issued() -> impl Strategy<Value = IssuedEntry> {
        let signer = prop_oneof![Just((1_u16, 1_u16)), any::<(u16, u16)>()];
        let sequence = prop_oneof![0..5000_u64, any::<u64>()];
        let seconds = prop_oneof![1_700_000_000..1_700_000_010_u32, any::<u32>()];
        (signer, sequence, seconds, state()).prop_map(|((issuer, key), sequence, seconds, state)| {
            IssuedEntry::new(ImpressionId::issued(Issuer(issuer), KeyId(key), seconds, sequence), state)
        })
    }

    fn foreign() -> impl Strategy<Value = ForeignEntry> {
        let at = prop_oneof![1_700_000_000_000..1_700_000_000_999_u64, 0..u64::MAX >> 1];
        (any::<[u8; 16]>(), at, state()).prop_map(|(id, received_at_ms, state)| {
            let group = group_of(ImpressionId(id).foreign_shard());
            ForeignEntry { group, received_at_ms, id, state }
        })
    }

    /// All chunks that stand one after the other.
    fn read(mut bytes: &[u8], group: u8) -> Result<Vec<Recalled>, DigestFault> {
        let (mut all, mut some) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let len = chunk_len(bytes).filter(|&len| len <= bytes.len()).ok_or(DigestFault::Chunk)?;
            decode(&bytes[..len], SEED, group, AT, &mut some)?;
            all.append(&mut some);
            bytes = &bytes[len..];
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn issued_impressions_come_back_as_they_were(mut entries in prop::collection::vec(issued(), 1..300)) {
            entries.sort_unstable();
            for group in 0..GROUPS as u8 {
                let of_group: Vec<_> = entries.iter().filter(|entry| entry.group == group).copied().collect();
                let mut bytes = Vec::new();
                encode_issued(&of_group, SEED, &mut bytes);
                let back = read(&bytes, group).unwrap();
                let back: Vec<_> =
                    back.iter().map(|entry| IssuedEntry::new(entry.id, entry.state.bits())).collect();
                prop_assert_eq!(back, of_group);
            }
        }

        #[test]
        fn foreign_impressions_come_back_as_they_were(mut entries in prop::collection::vec(foreign(), 1..300)) {
            entries.sort_unstable();
            for group in 0..GROUPS as u8 {
                let of_group: Vec<_> = entries.iter().filter(|entry| entry.group == group).copied().collect();
                let mut bytes = Vec::new();
                encode_foreign(&of_group, SEED, &mut bytes);
                let back = read(&bytes, group).unwrap();
                prop_assert!(back.iter().all(|entry| entry.is_foreign));
                let back: Vec<_> =
                    back.iter().map(|entry| (entry.id.0, entry.received_at.0, entry.state.bits())).collect();
                let of_group: Vec<_> =
                    of_group.iter().map(|entry| (entry.id, entry.received_at_ms, entry.state)).collect();
                prop_assert_eq!(back, of_group);
            }
        }

        #[test]
        fn a_body_of_any_bytes_ends_and_holds_no_more_than_it_says(
            body in prop::collection::vec(any::<u8>(), 0..200),
            entries in 0..80_u32,
            kind in 0..4_u8,
        ) {
            let mut chunk = Vec::new();
            let start = begin(3, kind, entries as usize, &mut chunk);
            chunk.extend_from_slice(&body);
            seal(start, SEED, &mut chunk);
            let mut out = Vec::new();
            if decode(&chunk, SEED, 3, AT, &mut out).is_ok() {
                prop_assert_eq!(out.len(), entries as usize);
            } else {
                prop_assert!(out.len() <= entries as usize);
            }
        }
    }

    #[test]
    fn consecutive_clicked_impressions_take_about_a_byte_each() {
        // One impression in four is clicked, 1,000 a second.
        let entry = |n: u64| {
            let id = ImpressionId::issued(Issuer(1), KeyId(1), 1_700_000_000 + (n / 250) as u32, n * 4);
            IssuedEntry::new(id, RememberedState::USUAL.bits())
        };
        let mut entries: Vec<_> = (0..200_000).map(entry).collect();
        entries.sort_unstable();
        let mut bytes = Vec::new();
        entries
            .chunk_by(|one, next| one.group == next.group)
            .for_each(|group| encode_issued(group, SEED, &mut bytes));
        assert!(bytes.len() < 2 * entries.len(), "{} bytes", bytes.len());
    }
}
