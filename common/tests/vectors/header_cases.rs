//! Datagrams that meet or miss one check of the header, each check on both sides.

use serde_json::json;

use super::Case;
use super::datagram_cases::{accepted, malformed};
use super::octets::{datagram, put, relength, signed_click, with};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(too_short());
    cases.extend(magic_version_flags());
    cases.extend(lengths());
    cases.extend(counts());
    cases.extend(shards());
    cases.extend(order_of_checks());
    cases
}

fn one() -> Vec<u8> {
    datagram(&[signed_click(42)])
}

fn two() -> Vec<u8> {
    datagram(&[signed_click(42), signed_click(43)])
}

fn too_short() -> Vec<Case> {
    let whole = one();
    [0, 1, 4, 23]
        .into_iter()
        .map(|len| malformed(format!("short/first_{len}_octets"), &whole[..len], "header_short", 1, None))
        .chain([malformed("short/23_zeros", &[0; 23], "header_short", 1, None)])
        .chain([malformed("short/24_zeros_have_no_magic", &[0; 24], "bad_magic", 1, None)])
        .collect()
}

fn magic_version_flags() -> Vec<Case> {
    let whole = one();
    let mut cases = Vec::new();
    for (name, magic) in [
        ("first_octet", *b"XEIR"),
        ("second_octet", *b"WXIR"),
        ("third_octet", *b"WEXR"),
        ("fourth_octet", *b"WEIX"),
        ("lower_case", *b"weir"),
        ("reversed", *b"RIEW"),
        ("of_an_ack", *b"WACK"),
        ("of_a_block", *b"WBLK"),
    ] {
        cases.push(malformed(format!("magic/{name}"), &with(&whole, 0, &magic), "bad_magic", 1, None));
    }
    for version in [0, 2, 0x81, 255] {
        let name = format!("version/{version}");
        cases.push(malformed(name, &with(&whole, 4, &[version]), "bad_version", 1, None));
    }
    for bit in 0..8 {
        let name = format!("flags/bit_{bit}");
        cases.push(malformed(name, &with(&whole, 5, &[1 << bit]), "bad_flags", 1, None));
    }
    cases
}

fn lengths() -> Vec<Case> {
    let whole = one();
    let mut longer = whole.clone();
    longer.push(0);
    let mut cases: Vec<Case> = [0_u16, 24, 119, 121, 120_u16.swap_bytes(), 65_535]
        .into_iter()
        .map(|len| {
            let bytes = with(&whole, 10, &len.to_le_bytes());
            malformed(format!("length/says_{len}_is_120"), &bytes, "bad_length", 1, None)
        })
        .collect();
    cases.push(malformed("length/cut_by_one_on_the_way", &whole[..119], "bad_length", 1, None));
    cases.push(malformed("length/cut_to_its_header_on_the_way", &whole[..24], "bad_length", 1, None));
    cases.push(malformed("length/one_octet_appended_on_the_way", &longer, "bad_length", 1, None));
    cases
}

fn counts() -> Vec<Case> {
    let (one, two) = (one(), two());
    let bad = |name: &str, bytes: &[u8]| malformed(format!("count/{name}"), bytes, "bad_count", 1, None);
    vec![
        bad("zero_before_a_click", &with(&one, 6, &[0])),
        bad("zero_in_a_bare_header", &relength(with(&one[..24], 6, &[0]))),
        bad("one_in_a_bare_header", &relength(one[..24].to_vec())),
        bad("one_click_less_its_last_octet", &relength(one[..119].to_vec())),
        bad("two_where_one_stands", &with(&one, 6, &[2])),
        bad("two_clicks_less_the_last_octet", &relength(two[..215].to_vec())),
        bad("three_where_two_stand", &with(&two, 6, &[3])),
        bad("255_where_two_stand", &with(&two, 6, &[255])),
        accepted("count/one_click", &one, (1, 0, 0), vec![json!({"shard": 336})]),
        accepted("count/two_clicks", &two, (2, 0, 0), vec![json!({"shard": 336}), json!({"shard": 848})]),
    ]
}

fn shards() -> Vec<Case> {
    let whole = one();
    let named = |bits: u8, shard: u16| {
        let mut bytes = with(&whole, 7, &[bits]);
        put(&mut bytes, 8, &shard.to_le_bytes());
        bytes
    };
    let good = |bits: u8, shard: u16| {
        let name = format!("shard/{shard}_shared_{bits}");
        accepted(name, &named(bits, shard), (1, bits, shard), vec![json!({"shard": 336})])
    };
    let bad = |bits: u8, shard: u16| {
        malformed(format!("shard/{shard}_shared_{bits}"), &named(bits, shard), "bad_shard", 1, None)
    };
    let mut cases = vec![good(0, 0), good(10, 0), good(10, 1023), good(10, 336), good(5, 0x3e0)];
    for bits in 1..=10 {
        // The lowest bit that is still shared, then the one below it.
        cases.push(good(bits, 1 << (10 - bits)));
        if bits < 10 {
            cases.push(bad(bits, 1 << (9 - bits)));
            cases.push(bad(bits, 1 << (10 - bits) | 1));
        }
    }
    cases.extend([bad(0, 1), bad(0, 512), bad(0, 1023), bad(9, 1023), bad(5, 0x3ff)]);
    cases.extend([bad(11, 0), bad(11, 1023), bad(16, 0), bad(255, 0)]);
    cases.extend([bad(10, 1024), bad(0, 1024), bad(10, 0x8000), bad(10, 65_535)]);
    cases
}

/// Two faults at once: the earlier check names the reason.
fn order_of_checks() -> Vec<Case> {
    let mut cut = one();
    put(&mut cut, 24 + 90, &[1, 0]); // an extension that is not there
    let mut faulty = cut;
    let mut cases = Vec::new();
    for (name, offset, octets, reason) in [
        ("shard_before_clicks", 8, &[1, 0][..], "bad_shard"),
        ("count_before_shard", 6, &[0], "bad_count"),
        ("length_before_count", 10, &[0, 0], "bad_length"),
        ("flags_before_length", 5, &[0x80], "bad_flags"),
        ("version_before_flags", 4, &[2], "bad_version"),
        ("magic_before_version", 0, b"weir", "bad_magic"),
    ] {
        put(&mut faulty, offset, octets);
        cases.push(malformed(format!("order/{name}"), &faulty, reason, 1, None));
    }
    cases.push(malformed("order/shortness_before_magic", &faulty[..23], "header_short", 1, None));
    cases
}
