//! Headers of blocks with their checksums.

use serde_json::{Value, json};
use weir_common::block::{BlockHeader, HEADER_CRC_OFFSET};
use zerocopy::FromBytes;

use super::Case;
use super::octets::{hex, number, put, unhex};

pub(crate) const ABOUT: &str = "Blocks: a header of 128 octets and its body. header_crc_holds and \
body_crc_holds: whether CRC-32C (Castagnoli) of the octets equals the field.";

/// CRC-32C bit by bit, from its polynomial alone (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A header with every field of its own value, for a body of `rows` rows.
fn header(sequence: u64, previous_crc: u32, rows: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    put(&mut bytes, 0, b"WBLK");
    put(&mut bytes, 4, &1_u16.to_le_bytes());
    put(&mut bytes, 6, &3_u16.to_le_bytes()); // worker
    put(&mut bytes, 8, &17_u32.to_le_bytes()); // node
    put(&mut bytes, 12, &5_u32.to_le_bytes()); // epoch
    put(&mut bytes, 16, &0x0123_4567_89ab_cdef_u64.to_le_bytes()); // incarnation
    put(&mut bytes, 24, &sequence.to_le_bytes());
    put(&mut bytes, 32, &1_790_000_012_400_u64.to_le_bytes());
    put(&mut bytes, 40, &rows.to_le_bytes());
    put(&mut bytes, 44, &(body.len() as u32).to_le_bytes());
    put(&mut bytes, 48, &crc32c(body).to_le_bytes());
    put(&mut bytes, 52, &previous_crc.to_le_bytes());
    for outcome in 0..7_u32 {
        put(&mut bytes, 56 + 4 * outcome as usize, &(10 + outcome).to_le_bytes());
    }
    let crc = crc32c(&bytes[..124]);
    put(&mut bytes, 124, &crc.to_le_bytes());
    bytes
}

pub(crate) fn cases() -> Vec<Case> {
    let row_of_zeros = vec![0; 113];
    let first = header(1, 0, 1, &row_of_zeros);
    let first_crc = crc32c(&first[..124]);
    let second = header(2, first_crc, 0, &[]);
    let flip = |bytes: &[u8], octet: usize| {
        let mut copy = bytes.to_vec();
        copy[octet] ^= 1;
        copy
    };
    let mut cases = vec![
        case("first_of_its_worker", &first, &row_of_zeros, true, true),
        case("second_without_rows", &second, &[], true, true),
        case("largest_sequence", &header(u64::MAX, u32::MAX, 2, &[0; 226]), &[0; 226], true, true),
        case("one_bit_of_the_body", &first, &flip(&row_of_zeros, 60), true, false),
        case("body_lacks_its_last_octet", &first, &row_of_zeros[..112], true, false),
    ];
    for octet in [0, 4, 6, 8, 12, 16, 24, 32, 40, 44, 52, 56, 80, 84, 123, 124, 127] {
        let name = format!("one_bit_of_header_octet_{octet}");
        cases.push(case(&name, &flip(&first, octet), &row_of_zeros, false, true));
    }
    cases
}

fn case(name: &str, header: &[u8], body: &[u8], header_crc_holds: bool, body_crc_holds: bool) -> Case {
    let half = |at: usize| u16::from_le_bytes(header[at..at + 2].try_into().expect("two octets"));
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four octets"));
    let long = |at: usize| number(u64::from_le_bytes(header[at..at + 8].try_into().expect("eight octets")));
    let members = json!({
        "header": hex(header), "body": hex(body),
        "version": half(4), "worker": half(6), "node": word(8), "epoch": word(12),
        "incarnation": long(16), "sequence": long(24), "received_at_ms": long(32),
        "rows": word(40), "body_len": word(44), "body_crc": word(48), "previous_crc": word(52),
        "outcomes": (0..7).map(|i| word(56 + 4 * i)).collect::<Vec<_>>(), "header_crc": word(124),
        "header_crc_holds": header_crc_holds, "body_crc_holds": body_crc_holds,
    });
    (name.to_owned(), members)
}

pub(crate) fn replay(vector: &Value) {
    let octets = unhex(vector["header"].as_str().expect("hex"));
    let body = unhex(vector["body"].as_str().expect("hex"));
    let header = BlockHeader::read_from_bytes(&octets).expect("128 octets");
    assert_eq!(header.version.get(), vector["version"]);
    assert_eq!(header.worker.get(), vector["worker"]);
    assert_eq!(header.node.get(), vector["node"]);
    assert_eq!(header.epoch.get(), vector["epoch"]);
    assert_eq!(number(header.incarnation.get()), vector["incarnation"]);
    assert_eq!(number(header.sequence.get()), vector["sequence"]);
    assert_eq!(number(header.received_at_ms.get()), vector["received_at_ms"]);
    assert_eq!(header.rows.get(), vector["rows"]);
    assert_eq!(header.body_len.get(), vector["body_len"]);
    assert_eq!(header.body_crc.get(), vector["body_crc"]);
    assert_eq!(header.previous_crc.get(), vector["previous_crc"]);
    assert_eq!(json!(header.outcomes.map(|count| count.get())), vector["outcomes"]);
    assert_eq!(header.header_crc.get(), vector["header_crc"]);
    let holds = header.header_crc.get() == crc32c::crc32c(&octets[..HEADER_CRC_OFFSET]);
    assert_eq!(holds, vector["header_crc_holds"]);
    assert_eq!(header.body_crc.get() == crc32c::crc32c(&body), vector["body_crc_holds"]);
}
