//! Single clicks, each check on both sides, and the order of the checks.

use serde_json::{Value, json};
use weir_common::wire::Datagram;

use super::Case;
use super::octets::{datagram, extended, field, foreign_click, hex, put, signed_click, unhex, with};

pub(crate) const ABOUT: &str = "Clicks with their extensions, whose length the click states rightly: the \
structure of a datagram of this one click is sound. verdict: sound, or the reason that this click is \
malformed.";

/// The highest price: a million units of currency.
const MOST: u64 = 1_000_000_000_000;

/// Offsets of the fields the checks look at.
const PRICE: usize = 24;
const LATITUDE: usize = 72;
const LONGITUDE: usize = 76;
const X: usize = 80;
const Y: usize = 82;
const COUNTRY: usize = 84;
const FLAGS: usize = 89;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = free_fields();
    cases.extend(reserved_bits());
    cases.extend(foreign_tags());
    cases.extend(countries());
    cases.extend(positions());
    cases.extend(points());
    cases.extend(prices());
    cases.extend(extension_lengths());
    cases.extend(extension_lists());
    cases.extend(order_of_checks());
    cases
}

fn case(name: impl Into<String>, click: &[u8], verdict: &str) -> Case {
    (name.into(), json!({"verdict": verdict, "hex": hex(click)}))
}

/// Fields of which every value is sound on the wire, whatever admission thinks of it later.
fn free_fields() -> Vec<Case> {
    let click = signed_click(42);
    let mut largest = vec![255; 96];
    put(&mut largest, PRICE, &MOST.to_le_bytes());
    put(&mut largest, COUNTRY, &[0, 0]);
    put(&mut largest, LATITUDE, &[0; 12]);
    put(&mut largest, FLAGS, &[0b0000_0110, 0, 0, 0, 0, 0, 0]);
    vec![
        case("free/every_octet_zero", &[0; 96], "sound"),
        case("free/every_number_at_its_largest", &largest, "sound"),
        case("free/device_and_os_without_a_name", &with(&click, 86, &[200, 201]), "sound"),
        case("free/ordinal_6", &with(&click, 88, &[6]), "sound"),
        case("free/ordinal_7_is_judged_later", &with(&click, 88, &[7]), "sound"),
        case("free/ordinal_255_is_judged_later", &with(&click, 88, &[255]), "sound"),
        case("free/clicked_at_zero_is_judged_later", &with(&click, 64, &[0; 8]), "sound"),
        case("free/wrong_tag_is_judged_later", &with(&click, 48, &[0; 8]), "sound"),
    ]
}

fn reserved_bits() -> Vec<Case> {
    let click = signed_click(42);
    let foreign = foreign_click([0xab; 16]);
    let mut cases = vec![
        case("reserved/flag_bit_0_foreign", &foreign, "sound"),
        case("reserved/flag_bit_1_test", &with(&click, FLAGS, &[2]), "sound"),
        case("reserved/flag_bit_2_prefetch", &with(&click, FLAGS, &[4]), "sound"),
        case("reserved/flag_bit_3_position", &with(&click, FLAGS, &[8]), "sound"),
        case("reserved/flag_bit_4_point", &with(&click, FLAGS, &[16]), "sound"),
        case("reserved/all_known_flags", &with(&foreign, FLAGS, &[31]), "sound"),
    ];
    for bit in 5..8 {
        let name = format!("reserved/flag_bit_{bit}");
        cases.push(case(name, &with(&click, FLAGS, &[1 << bit]), "reserved_bits"));
    }
    for octet in 92..96 {
        for value in [1, 0x80] {
            let name = format!("reserved/octet_{octet}_is_{value}");
            cases.push(case(name, &with(&click, octet, &[value]), "reserved_bits"));
        }
    }
    cases
}

fn foreign_tags() -> Vec<Case> {
    let foreign = foreign_click([0xab; 16]);
    (48..56)
        .map(|octet| case(format!("tag/foreign_octet_{octet}"), &with(&foreign, octet, &[1]), "foreign_tag"))
        .chain([case("tag/foreign_without", &foreign, "sound")])
        .chain([case("tag/issued_largest", &with(&signed_click(42), 48, &[255; 8]), "sound")])
        .collect()
}

fn countries() -> Vec<Case> {
    let click = signed_click(42);
    let sound = [("empty", *b"\0\0"), ("AA", *b"AA"), ("AZ", *b"AZ"), ("ZA", *b"ZA"), ("ZZ", *b"ZZ")];
    let bad = [
        ("lower_case", *b"de"),
        ("lower_case_first", *b"dE"),
        ("lower_case_second", *b"De"),
        ("zero_first", *b"\0E"),
        ("zero_second", *b"D\0"),
        ("digit", *b"D1"),
        ("spaces", *b"  "),
        ("below_A_first", *b"@A"),
        ("below_A_second", *b"A@"),
        ("above_Z_first", *b"[A"),
        ("above_Z_second", *b"A["),
        ("high_bit", [0xc4, 0xc5]),
    ];
    let one = |name: &str, country: [u8; 2], verdict: &str| {
        case(format!("country/{name}"), &with(&click, COUNTRY, &country), verdict)
    };
    let sound = sound.into_iter().map(|(name, country)| one(name, country, "sound"));
    sound.chain(bad.into_iter().map(|(name, country)| one(name, country, "bad_country"))).collect()
}

fn positions() -> Vec<Case> {
    let at = |flags: u8, latitude: i32, longitude: i32, verdict: &str| {
        let mut click = with(&signed_click(42), FLAGS, &[flags]);
        put(&mut click, LATITUDE, &latitude.to_le_bytes());
        put(&mut click, LONGITUDE, &longitude.to_le_bytes());
        let flagged = if flags == 8 { "with" } else { "without" };
        case(format!("position/{latitude}_{longitude}_{flagged}_flag"), &click, verdict)
    };
    let (pole, date_line) = (90_000_000, 180_000_000);
    let mut cases = vec![
        at(8, 0, 0, "sound"),
        at(8, pole, date_line, "sound"),
        at(8, -pole, -date_line, "sound"),
        at(8, 52_520_008, 13_404_954, "sound"),
        at(0, 52_520_008, 13_404_954, "bad_coordinates"),
    ];
    for (latitude, longitude) in [(pole + 1, 0), (-pole - 1, 0), (0, date_line + 1), (0, -date_line - 1)] {
        cases.push(at(8, latitude, longitude, "bad_coordinates"));
    }
    for extreme in [i32::MIN, i32::MAX] {
        cases.push(at(8, extreme, 0, "bad_coordinates"));
        cases.push(at(8, 0, extreme, "bad_coordinates"));
    }
    for (latitude, longitude) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
        cases.push(at(0, latitude, longitude, "bad_coordinates"));
    }
    cases
}

fn points() -> Vec<Case> {
    let at = |flags: u8, x: u16, y: u16, verdict: &str| {
        let mut click = with(&signed_click(42), FLAGS, &[flags]);
        put(&mut click, X, &x.to_le_bytes());
        put(&mut click, Y, &y.to_le_bytes());
        let flagged = if flags == 16 { "with" } else { "without" };
        case(format!("point/{x}_{y}_{flagged}_flag"), &click, verdict)
    };
    vec![
        at(16, 0, 0, "sound"),
        at(16, 65_535, 65_535, "sound"),
        at(0, 1, 0, "bad_coordinates"),
        at(0, 0, 1, "bad_coordinates"),
        // The flag of the one does not excuse the other.
        at(8, 1, 1, "bad_coordinates"),
        {
            let click = with(&signed_click(42), FLAGS, &[16]);
            case("point/flag_does_not_excuse_a_position", &with(&click, LATITUDE, &[1]), "bad_coordinates")
        },
    ]
}

fn prices() -> Vec<Case> {
    let at = |price: u64, verdict: &str| {
        case(format!("price/{price}"), &with(&signed_click(42), PRICE, &price.to_le_bytes()), verdict)
    };
    let mut cases = vec![at(0, "sound"), at(1, "sound"), at(MOST - 1, "sound"), at(MOST, "sound")];
    // Among them one that is over by its highest octet alone, and one by its sign bit.
    for price in [MOST + 1, 2 * MOST, 1 << 56, 1 << 63, u64::MAX] {
        cases.push(at(price, "bad_price"));
    }
    let foreign = foreign_click([0xab; 16]);
    cases.push(case("price/foreign_highest", &with(&foreign, PRICE, &MOST.to_le_bytes()), "sound"));
    let above = with(&foreign, PRICE, &(MOST + 1).to_le_bytes());
    cases.push(case("price/foreign_above_the_highest", &above, "bad_price"));
    cases
}

fn extension_lengths() -> Vec<Case> {
    let click = signed_click(42);
    let mut cases = Vec::new();
    for (name, kind, longest) in
        [("user_agent", 1, 512), ("referrer", 2, 1024), ("session", 3, 64), ("conversion", 4, 64)]
    {
        for (len, verdict) in [(0, "sound"), (1, "sound"), (longest, "sound"), (longest + 1, "bad_extension")]
        {
            let name = format!("extension/{name}_of_{len}");
            cases.push(case(name, &extended(&click, &field(kind, len)), verdict));
        }
    }
    for kind in [0, 5, 128, 255] {
        for len in [0, 1] {
            let name = format!("extension/unknown_type_{kind}_of_{len}");
            cases.push(case(name, &extended(&click, &field(kind, len)), "bad_extension"));
        }
    }
    cases
}

fn extension_lists() -> Vec<Case> {
    let click = signed_click(42);
    let of = |name: &str, extension: &[u8], verdict: &str| {
        case(format!("extension/{name}"), &extended(&click, extension), verdict)
    };
    let list = |kinds: &[u8]| kinds.iter().flat_map(|&kind| field(kind, 5)).collect::<Vec<u8>>();
    let longest = [field(1, 512), field(2, 1024), field(3, 64), field(4, 64)].concat();
    let agent = field(1, 5);
    let with_tail = |tail: &[u8]| [&agent[..], tail].concat();
    vec![
        of("all_types_in_order", &list(&[1, 2, 3, 4]), "sound"),
        of("with_gaps", &list(&[2, 4]), "sound"),
        of("all_at_their_longest", &longest, "sound"),
        of("a_type_twice", &list(&[1, 1]), "bad_extension"),
        of("types_fall", &list(&[2, 1]), "bad_extension"),
        of("types_fall_at_the_end", &list(&[1, 2, 4, 3]), "bad_extension"),
        of("unknown_type_after_known_ones", &list(&[1, 2, 3, 4, 5]), "bad_extension"),
        of("first_octet_of_a_field_only", &[1], "bad_extension"),
        of("first_two_octets_of_a_field_only", &[1, 0], "bad_extension"),
        of("value_lacks_its_last_octet", &agent[..7], "bad_extension"),
        of("value_is_missing", &agent[..3], "bad_extension"),
        of("one_zero_after_the_last_field", &with_tail(&[0]), "bad_extension"),
        of("two_octets_after_the_last_field", &with_tail(&[2, 0]), "bad_extension"),
        of("padding_of_three_zeros", &with_tail(&[0, 0, 0]), "bad_extension"),
        of("value_of_any_octets", &[1, 3, 0, 0, 0xff, 0x80], "sound"),
    ]
}

/// Two faults at once: the earlier check names the reason.
fn order_of_checks() -> Vec<Case> {
    let mut faulty = extended(&signed_click(42), &field(5, 1));
    let mut cases = vec![case("order/extension_alone", &faulty, "bad_extension")];
    for (name, offset, octets, reason) in [
        ("price_before_extension", PRICE + 7, &[1][..], "bad_price"),
        ("coordinates_before_price", LATITUDE, &[1], "bad_coordinates"),
        ("country_before_coordinates", COUNTRY, b"de", "bad_country"),
        ("foreign_tag_before_country", FLAGS, &[1], "foreign_tag"),
        ("reserved_bits_before_foreign_tag", 95, &[1], "reserved_bits"),
    ] {
        put(&mut faulty, offset, octets);
        cases.push(case(format!("order/{name}"), &faulty, reason));
    }
    cases
}

pub(crate) fn replay(vector: &Value) {
    let bytes = unhex(vector["hex"].as_str().expect("hex"));
    let payload = datagram(std::slice::from_ref(&bytes));
    let parsed = Datagram::parse(&payload).expect("the structure is sound");
    let (click, extension) = parsed.clicks().next().expect("one click");
    let verdict = click.check(extension).map_or_else(|reason| reason.name(), |()| "sound");
    assert_eq!(verdict, vector["verdict"]);
}
