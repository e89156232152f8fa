//! Bodies of blocks: rows one after another.

use serde_json::{Value, json};
use weir_common::row::Rows;
use zerocopy::IntoBytes;

use super::Case;
use super::octets::{extended, field, foreign_click, hex, number, put, signed_click, unhex, with};

pub(crate) const ABOUT: &str = "Bodies of blocks. rows[]: those a reader takes, in order; unread: how many \
octets it leaves where it stops at the first octet that is not part of a row. Only unread 0 is sound.";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = sound();
    cases.extend(damaged());
    cases
}

/// What a row holds, beside its click's octets.
struct Columns {
    minute: u32,
    outcome: u8,
    reason: u8,
    flags: u8,
}

const ACCEPTED: Columns = Columns { minute: 29_833_333, outcome: 0, reason: 0, flags: 0 };
const RECEIVED_AT_MS: u64 = 1_790_000_012_400;

/// A row of this click, which states the extension's length, with the prefix given.
fn row(columns: &Columns, click: &[u8], prefix: &[u8], extension: &[u8]) -> Vec<u8> {
    let mut row = vec![0; 16];
    put(&mut row, 0, &RECEIVED_AT_MS.to_le_bytes());
    put(&mut row, 8, &columns.minute.to_le_bytes());
    put(&mut row, 12, &[columns.outcome, columns.reason, columns.flags]);
    row.extend_from_slice(&click[..96]);
    row.extend_from_slice(prefix);
    row.extend_from_slice(extension);
    row
}

fn plain(columns: &Columns) -> Vec<u8> {
    row(columns, &signed_click(42), &[0], &[])
}

/// A row with an extension of `len` octets and the prefix it must have.
fn long(len: usize, prefix: &[u8]) -> Vec<u8> {
    let extension = field(1, len - 3);
    row(&ACCEPTED, &extended(&signed_click(42), &extension), prefix, &extension)
}

fn read(columns: &Columns, click: &[u8], extension_len: usize) -> Value {
    json!({
        "received_at_ms": number(RECEIVED_AT_MS), "minute": columns.minute, "outcome": columns.outcome,
        "reason": columns.reason, "flags": columns.flags, "click": hex(&click[..96]),
        "extension_len": extension_len,
    })
}

fn case(name: &str, body: &[u8], rows: Vec<Value>, unread: usize) -> Case {
    (name.to_owned(), json!({"rows": rows, "unread": unread, "hex": hex(body)}))
}

fn sound() -> Vec<Case> {
    let click = signed_click(42);
    let accepted = read(&ACCEPTED, &click, 0);
    let repeat = Columns { outcome: 1, ..ACCEPTED };
    let late = Columns { outcome: 3, minute: 29_833_334, ..ACCEPTED };
    let filtered = Columns { outcome: 4, reason: 129, ..ACCEPTED };
    let suspect = Columns { flags: 1, ..ACCEPTED };
    let foreign = foreign_click([0xab; 16]);
    let mut cases = vec![
        case("empty_body", &[], vec![], 0),
        case("accepted", &plain(&ACCEPTED), vec![accepted.clone()], 0),
        case("repeat", &plain(&repeat), vec![read(&repeat, &click, 0)], 0),
        case("late", &plain(&late), vec![read(&late, &click, 0)], 0),
        case("filtered_prefetch", &plain(&filtered), vec![read(&filtered, &click, 0)], 0),
        case("clock_suspect", &plain(&suspect), vec![read(&suspect, &click, 0)], 0),
        case("foreign", &row(&ACCEPTED, &foreign, &[0], &[]), vec![read(&ACCEPTED, &foreign, 0)], 0),
        case(
            "long_between_plain",
            &[plain(&ACCEPTED), long(50, &[50]), plain(&repeat)].concat(),
            vec![accepted, read(&ACCEPTED, &extended(&click, &field(1, 47)), 50), read(&repeat, &click, 0)],
            0,
        ),
    ];
    for (len, prefix) in [
        (3, &[3][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (129, &[0x81, 0x01]),
        (255, &[0xff, 0x01]),
        (256, &[0x80, 0x02]),
        (1352, &[0xc8, 0x0a]),
        (1676, &[0x8c, 0x0d]),
        (16_383, &[0xff, 0x7f]),
    ] {
        let rows = vec![read(&ACCEPTED, &extended(&click, &field(1, len - 3)), len)];
        cases.push(case(&format!("extension_of_{len}"), &long(len, prefix), rows, 0));
    }
    cases
}

fn damaged() -> Vec<Case> {
    let click = signed_click(42);
    let whole = plain(&ACCEPTED);
    let refused = |name: &str, body: &[u8]| case(name, body, vec![], body.len());
    let stated = |prefix: &[u8], octets: usize, stated: u16| {
        row(&ACCEPTED, &with(&click, 90, &stated.to_le_bytes()), prefix, &vec![0; octets])
    };
    vec![
        refused("fixed_columns_lack_their_last_octet", &whole[..111]),
        refused("prefix_is_missing", &whole[..112]),
        refused("second_octet_of_the_prefix_is_missing", &long(128, &[0x80, 0x01])[..113]),
        refused("extension_lacks_its_last_octet", &long(50, &[50])[..162]),
        refused("prefix_longer_than_it_must_be", &stated(&[0x83, 0x00], 3, 3)),
        refused("prefix_of_zero_in_two_octets", &stated(&[0x80, 0x00], 0, 0)),
        refused("prefix_of_three_octets", &stated(&[0x80, 0x80, 0x01], 16_384, 16_384)),
        refused("prefix_one_more_than_the_click_states", &stated(&[4], 4, 3)),
        refused("prefix_one_less_than_the_click_states", &stated(&[2], 2, 3)),
        case(
            "one_octet_after_the_last_row",
            &[&whole[..], &[0]].concat(),
            vec![read(&ACCEPTED, &click, 0)],
            1,
        ),
        case(
            "a_cut_second_row_does_not_undo_the_first",
            &[&whole[..], &whole[..112]].concat(),
            vec![read(&ACCEPTED, &click, 0)],
            112,
        ),
    ]
}

pub(crate) fn replay(vector: &Value) {
    let body = unhex(vector["hex"].as_str().expect("hex"));
    let mut rows = Rows::new(&body);
    let read: Vec<Value> = rows
        .by_ref()
        .map(|(row, extension)| {
            json!({
                "received_at_ms": number(row.received_at_ms.get()), "minute": row.minute.get(),
                "outcome": row.outcome, "reason": row.reason, "flags": row.flags,
                "click": hex(row.click.as_bytes()), "extension_len": extension.len(),
            })
        })
        .collect();
    assert_eq!(Value::from(read), vector["rows"]);
    assert_eq!(rows.rest().len(), vector["unread"]);
}
