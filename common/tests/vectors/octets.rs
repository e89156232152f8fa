//! Octets put at their offsets by hand, as an implementation in another language would do it.
//!
//! Nothing here uses `weir-common`: the vectors must not be made by the code they judge.

use std::hash::Hasher;

/// The key of every signed click in the vectors: octets 00 to 0f.
pub(crate) const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// An issued impression id: issuer 7, key 3, issued at 1,790,000,000 s, sequence 42.
pub(crate) fn issued_id(sequence: u64) -> [u8; 16] {
    let mut id = [0; 16];
    put(&mut id, 0, &7_u16.to_le_bytes());
    put(&mut id, 2, &3_u16.to_le_bytes());
    put(&mut id, 4, &1_790_000_000_u32.to_le_bytes());
    put(&mut id, 8, &sequence.to_le_bytes());
    id
}

/// Writes `octets` at `offset`.
pub(crate) fn put(bytes: &mut [u8], offset: usize, octets: &[u8]) {
    bytes[offset..offset + octets.len()].copy_from_slice(octets);
}

/// A copy of `bytes` with `octets` at `offset`.
pub(crate) fn with(bytes: &[u8], offset: usize, octets: &[u8]) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    put(&mut copy, offset, octets);
    copy
}

/// SipHash-2-4 by the `siphasher` crate.
pub(crate) fn siphash(key: &[u8; 16], message: &[u8]) -> u64 {
    let mut hasher = siphasher::sip::SipHasher24::new_with_key(key);
    hasher.write(message);
    hasher.finish()
}

/// A plain issued and signed click: every field of its own value, no extension.
pub(crate) fn signed_click(sequence: u64) -> Vec<u8> {
    let mut click = vec![0; 96];
    put(&mut click, 0, &issued_id(sequence));
    put(&mut click, 16, &0x1122_3344_5566_7788_u64.to_le_bytes()); // ad
    put(&mut click, 24, &250_000_u64.to_le_bytes()); // price
    put(&mut click, 32, &1001_u32.to_le_bytes()); // campaign
    put(&mut click, 36, &2002_u32.to_le_bytes()); // creative
    put(&mut click, 40, &3003_u32.to_le_bytes()); // placement
    put(&mut click, 44, &4004_u32.to_le_bytes()); // publisher
    let tag = siphash(&KEY, &click[..48]);
    put(&mut click, 48, &tag.to_le_bytes());
    put(&mut click, 56, &0xfeed_f00d_u64.to_le_bytes()); // user key
    put(&mut click, 64, &1_790_000_012_345_u64.to_le_bytes()); // clicked at
    put(&mut click, 84, b"DE");
    click[86] = 2; // phone
    click[87] = 5; // Android
    click
}

/// A plain click with a foreign id.
pub(crate) fn foreign_click(id: [u8; 16]) -> Vec<u8> {
    let mut click = signed_click(0);
    put(&mut click, 0, &id);
    put(&mut click, 48, &[0; 8]);
    click[89] = 1;
    click
}

/// A click with an extension: its bytes appended, its length set.
pub(crate) fn extended(click: &[u8], extension: &[u8]) -> Vec<u8> {
    let len = u16::try_from(extension.len()).expect("an extension's length is a u16");
    let mut click = with(click, 90, &len.to_le_bytes());
    click.extend_from_slice(extension);
    click
}

/// One field of an extension.
pub(crate) fn field(kind: u8, len: usize) -> Vec<u8> {
    let mut field = vec![kind];
    field.extend_from_slice(&u16::try_from(len).expect("a field's length is a u16").to_le_bytes());
    field.extend((0..len).map(|i| b'a' + (i % 26) as u8));
    field
}

/// A datagram of these clicks with shard 0, 0 shared bits.
pub(crate) fn datagram(clicks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    put(&mut bytes, 0, b"WEIR");
    bytes[4] = 1;
    bytes[6] = u8::try_from(clicks.len()).expect("a count is a u8");
    put(&mut bytes, 12, &0xc0ff_ee00_u32.to_le_bytes());
    put(&mut bytes, 16, &0x0102_0304_0506_0708_u64.to_le_bytes());
    bytes.extend(clicks.concat());
    relength(bytes)
}

/// The same bytes with the header's total length set right.
pub(crate) fn relength(bytes: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a datagram's length is a u16");
    with(&bytes, 10, &len.to_le_bytes())
}

/// One ack.
pub(crate) fn ack(batch_id: u64, statuses: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    put(&mut bytes, 0, b"WACK");
    bytes[4] = 1;
    bytes[6] = u8::try_from(statuses.len()).expect("a count is a u8");
    put(&mut bytes, 8, &batch_id.to_le_bytes());
    bytes.extend_from_slice(statuses);
    bytes
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hex string.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of hex digits");
    let digits = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("a hex digit");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// How a 64-bit number stands in a vector: JSON numbers are not exact beyond 2^53.
pub(crate) fn number(value: u64) -> String {
    format!("0x{value:016x}")
}
