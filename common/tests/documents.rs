//! Holds `docs/protocol.md` and `docs/row-format.md` against the code: offsets, reasons, limits
//! and the worked example. A table that drifts from the code fails here.

use std::fs;
use std::path::PathBuf;

use weir_common::block::BLOCK_HEADER_LEN;
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::reason::{Class, Reason};
use weir_common::row::ROW_LEN;
use weir_common::wire::{
    ACK_HEADER_LEN, CLICK_LEN, Click, Datagram, HEADER_LEN, MAX_EXTENSION, MAX_PAYLOAD, extension,
};
use zerocopy::IntoBytes;

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text from a heading to the next of its rank or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(heading).unwrap_or_else(|| panic!("no heading {heading:?}")) + heading.len();
    let end = text[start..].find("\n## ").map_or(text.len(), |at| start + at);
    &text[start..end]
}

/// The cells of each table line.
fn table_lines(text: &str) -> Vec<Vec<&str>> {
    let is_line = |line: &&str| line.starts_with("| ");
    text.lines()
        .filter(is_line)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The octets of a type as the documents write them.
fn width(kind: &str) -> Option<usize> {
    let kind = kind.split(',').next().unwrap_or(kind).trim_matches('`');
    if let Some((times, of)) = kind.split_once(" x ") {
        return Some(times.parse::<usize>().ok()? * width(of)?);
    }
    if let Some(octets) = kind.strip_suffix(" octets") {
        return octets.parse().ok();
    }
    if let Some(octets) = kind.strip_prefix("FixedString(") {
        return octets.strip_suffix(')')?.parse().ok();
    }
    match kind {
        "u8" | "UInt8" => Some(1),
        "u16" | "UInt16" => Some(2),
        "u32" | "UInt32" | "i32" | "Int32" => Some(4),
        "u64" | "UInt64" => Some(8),
        _ => None,
    }
}

/// Follows the first table of offsets in `text` from 0: each field starts where the one before it
/// ended. Returns where the last one ends.
fn end_of_layout(text: &str) -> usize {
    let mut end = 0;
    for cells in table_lines(text) {
        let Ok(offset) = cells[0].parse::<usize>() else { continue };
        if offset == 0 && end != 0 {
            break;
        }
        assert_eq!(offset, end, "{cells:?}");
        let Some(width) = width(cells[1]).or_else(|| width(cells[2])) else { break };
        end += width;
    }
    end
}

/// Octets of the hex at the start of each indented line, where two spaces end the hex.
fn example(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| line.split("  ").next().unwrap_or(line).replace(' ', "")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_layouts_have_no_gap_and_the_length_of_the_code() {
    let protocol = document("protocol.md");
    assert_eq!(end_of_layout(section(&protocol, "\n## 4. Header")), HEADER_LEN);
    assert_eq!(end_of_layout(section(&protocol, "\n## 5. Click")), CLICK_LEN);
    assert_eq!(end_of_layout(section(&protocol, "\n## 11. Acks")), ACK_HEADER_LEN);
    assert_eq!(end_of_layout(section(&protocol, "\n### 7.1 Impression ids")), 16);
    let rows = document("row-format.md");
    assert_eq!(end_of_layout(section(&rows, "\n## 1. Row")), ROW_LEN);
    assert_eq!(end_of_layout(section(&rows, "\n## 2. Block")), BLOCK_HEADER_LEN);
    assert_eq!(end_of_layout(section(&rows, "\n## 3. Bucket")), size_of::<BucketKey>());
    assert_eq!(end_of_layout(section(&rows, "Totals, ")), size_of::<BucketTotals>());
}

#[test]
fn the_order_of_checks_names_every_reason_of_the_wire_with_its_number() {
    let protocol = document("protocol.md");
    let mut named = Vec::new();
    for cells in table_lines(section(&protocol, "\n## 13. The order of checks")) {
        let [_, _, reason] = cells[..] else { continue };
        let Some((name, number)) = reason.split_once(" (") else { continue };
        let number = number.trim_end_matches(')').parse().expect("a reason's number");
        let found = Reason::from_number(number).unwrap_or_else(|| panic!("no reason {number}"));
        assert_eq!(found.name(), name.trim_matches('`'));
        named.push(found);
    }
    let of_the_wire = |reason: &&Reason| {
        let number = **reason as u8;
        reason.class() == Class::Malformed && number >= Reason::HeaderShort as u8 && !OF_HTTP.contains(reason)
    };
    for reason in Reason::ALL.iter().filter(of_the_wire) {
        assert!(named.contains(reason), "{} is not in the order of checks", reason.name());
    }
}

/// What only the JSON and the links of HTTP can have wrong.
const OF_HTTP: [Reason; 4] = [Reason::BadJson, Reason::MissingField, Reason::BadField, Reason::BadToken];

#[test]
fn what_only_http_can_have_wrong_stands_in_its_document() {
    let http = document("http.md");
    for reason in OF_HTTP.into_iter().chain([Reason::UnknownName, Reason::Overloaded]) {
        assert!(http.contains(reason.name()), "{}", reason.name());
    }
}

#[test]
fn every_refusal_has_its_ack_status() {
    let protocol = document("protocol.md");
    let acks = section(&protocol, "\n## 11. Acks");
    for reason in Reason::ALL.iter().filter(|reason| reason.class() == Class::Refused) {
        assert!(acks.contains(&format!("`{}`", reason.name())), "{}", reason.name());
    }
}

#[test]
fn the_extension_table_gives_the_limits_of_the_code() {
    let protocol = document("protocol.md");
    let text = section(&protocol, "\n## 6. Extension");
    let mut longest = 0;
    let mut kinds = 0;
    for cells in table_lines(text) {
        let Ok(kind) = cells[0].parse::<u8>() else { continue };
        let limit = cells[2].replace(',', "").parse().expect("a limit");
        assert_eq!(extension::max_len(kind), Some(limit));
        longest += extension::FIELD_HEADER_LEN + limit;
        kinds += 1;
    }
    let known = (0..=255).filter(|&kind| extension::max_len(kind).is_some()).count();
    assert_eq!((kinds, longest, MAX_EXTENSION, MAX_PAYLOAD), (known, 1676, 1352, 1472));
    assert!(text.contains("1,676") && text.contains("1,352"));
}

#[test]
fn the_worked_example_is_a_sound_datagram_with_the_tag_of_its_key() {
    let protocol = document("protocol.md");
    let lines = example(section(&protocol, "\n## 17. Worked example"));
    let (ack, datagram) = lines.split_last().expect("an example");
    let text = datagram.concat();
    let octet = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(octet).collect();
    let parsed = Datagram::parse(&bytes).expect("the example is sound");
    let (click, rest): (&Click, &[u8]) = parsed.clicks().next().expect("one click");
    assert_eq!(click.check(rest), Ok(()));
    let key = weir_common::siphash::SipKey::from_bytes(core::array::from_fn(|i| i as u8));
    assert_eq!(click.expected_tag(&key), click.tag.get());
    let header = weir_common::wire::AckHeader::new(parsed.header().batch_id.get(), 1);
    assert_eq!(*ack, hex(header.as_bytes()) + "00");
    // The same octets stand where the signature is explained.
    let signed = example(section(&protocol, "\n## 9. Signature"))[0..3].concat();
    assert_eq!(signed.len(), 96, "{signed}");
    assert!(text.contains(&signed));
}
