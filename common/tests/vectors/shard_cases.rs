//! The shard of an impression id, as issued and as foreign.

use serde_json::{Value, json};
use weir_common::id::ImpressionId;

use super::Case;
use super::octets::{hex, issued_id, unhex};

pub(crate) const ABOUT: &str = "Impression ids (16 octets), whether they are read as issued or as foreign \
ids, and the shard from 0 to 1023 that follows.";

pub(crate) fn cases() -> Vec<Case> {
    let issued = [
        (0, 0),
        (1, 512),
        (2, 256),
        (3, 768),
        (4, 128),
        (42, 336),
        (43, 848),
        (512, 1),
        (1022, 511),
        (1023, 1023),
        (1024, 0),
        (1025, 512),
        (u64::MAX, 1023),
        (u64::MAX << 10, 0),
    ];
    let mut cases: Vec<Case> = issued
        .into_iter()
        .map(|(sequence, shard)| {
            case(format!("issued/sequence_{sequence}"), &issued_id(sequence), "issued", shard)
        })
        .collect();
    // Only the sequence matters: another issuer, key and second give the same shard.
    let mut other = issued_id(42);
    other[..8].fill(0xff);
    cases.push(case("issued/another_issuer_key_and_second", &other, "issued", 336));
    // These values were computed apart, from the formula in the protocol document.
    for (name, id, shard) in [
        ("zero", [0; 16], 0),
        ("largest", [255; 16], 484),
        ("repeated_octet", [0xab; 16], 794),
        ("counting_octets", core::array::from_fn(|i| i as u8), 501),
        ("bit_0", bit(0), 787),
        ("bit_64", bit(64), 744),
        ("bit_120", bit(120), 469),
        ("bit_127", bit(127), 910),
        (
            "a_uuid_in_its_network_order",
            [0x55, 0x0e, 0x84, 0x00, 0xe2, 0x9b, 0x41, 0xd4, 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0x00, 0x00],
            835,
        ),
        ("the_octets_of_an_issued_id", issued_id(42), 192),
    ] {
        cases.push(case(format!("foreign/{name}"), &id, "foreign", shard));
    }
    cases
}

fn bit(bit: usize) -> [u8; 16] {
    (1_u128 << bit).to_le_bytes()
}

fn case(name: impl Into<String>, id: &[u8; 16], kind: &str, shard: u16) -> Case {
    (name.into(), json!({"id": hex(id), "kind": kind, "shard": shard}))
}

pub(crate) fn replay(vector: &Value) {
    let octets = unhex(vector["id"].as_str().expect("hex"));
    let id = ImpressionId(octets.try_into().expect("16 octets"));
    let shard = match vector["kind"].as_str() {
        Some("issued") => id.issued_shard(),
        Some("foreign") => id.foreign_shard(),
        kind => panic!("a kind {kind:?}"),
    };
    assert_eq!(shard.0, vector["shard"]);
}
