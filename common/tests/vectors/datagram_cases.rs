//! Whole datagrams: written out by hand, full, extended, cut.

use serde_json::{Value, json};
use weir_common::wire::Datagram;

use super::Case;
use super::octets::{
    datagram, extended, field, foreign_click, hex, number, put, relength, signed_click, unhex, with,
};

pub(crate) const ABOUT: &str = "UDP payloads. verdict accepted: the structure is sound, and clicks[] gives \
for each click its offset, the length of its extension, its shard and its own verdict (sound, or a reason). \
verdict malformed: reason, the number of clicks it is counted as, and the batch id its ack echoes (null: no \
ack is sent).";

/// A click as it is counted on in a vector: shard, and what differs from a plain sound one.
pub(crate) fn accepted(
    name: impl Into<String>,
    bytes: &[u8],
    (count, shared_bits, shard): (u8, u8, u16),
    clicks: Vec<Value>,
) -> Case {
    assert_eq!(clicks.len(), count as usize);
    let mut offset = 24;
    let clicks: Vec<Value> = clicks
        .into_iter()
        .map(|mut click| {
            let extension_len = click["extension_len"].as_u64().unwrap_or(0);
            let verdict = click["verdict"].as_str().unwrap_or("sound").to_owned();
            click["offset"] = json!(offset);
            click["extension_len"] = json!(extension_len);
            click["verdict"] = json!(verdict);
            offset += 96 + extension_len;
            click
        })
        .collect();
    assert_eq!(offset as usize, bytes.len());
    let source_id = u32::from_le_bytes(bytes[12..16].try_into().expect("four octets"));
    let batch_id = u64::from_le_bytes(bytes[16..24].try_into().expect("eight octets"));
    let header = json!({
        "count": count, "shared_bits": shared_bits, "shard": shard,
        "source_id": source_id, "batch_id": number(batch_id),
    });
    (name.into(), json!({"verdict": "accepted", "header": header, "clicks": clicks, "hex": hex(bytes)}))
}

pub(crate) fn malformed(
    name: impl Into<String>,
    bytes: &[u8],
    reason: &str,
    clicks_counted: u8,
    batch_id: Option<u64>,
) -> Case {
    let members = json!({
        "verdict": "malformed", "reason": reason, "clicks_counted": clicks_counted,
        "batch_id": batch_id.map(number), "hex": hex(bytes),
    });
    (name.into(), members)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = written_out();
    cases.extend(full());
    cases.extend(with_extensions());
    cases.extend(header_values());
    cases.extend(cut());
    cases.extend(faulty_clicks_cost_only_themselves());
    cases
}

/// Two datagrams octet by octet, as they stand in the protocol document.
fn written_out() -> Vec<Case> {
    let foreign = concat!(
        "57454952",
        "01",
        "00",
        "01",
        "0a",
        "f501",
        "7800",
        "00000000",
        "0100000000000000",
        "000102030405060708090a0b0c0d0e0f",
        "0100000000000000",
        "0000000000000000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "0000000000000000",
        "0000000000000000",
        "202b53c4a0010000",
        "00000000",
        "00000000",
        "0000",
        "0000",
        "0000",
        "00",
        "00",
        "00",
        "01",
        "0000",
        "00000000",
    );
    let signed = concat!(
        "57454952",
        "01",
        "00",
        "01",
        "00",
        "0000",
        "7800",
        "00eeffc0",
        "0807060504030201",
        "07000300803bb16a2a00000000000000",
        "8877665544332211",
        "90d0030000000000",
        "e9030000",
        "d2070000",
        "bb0b0000",
        "a40f0000",
        "4eb2c4ea48a982f4",
        "0df0edfe00000000",
        "399c50c4a0010000",
        "00000000",
        "00000000",
        "0000",
        "0000",
        "4445",
        "02",
        "05",
        "00",
        "00",
        "0000",
        "00000000",
    );
    vec![
        accepted("written_out/foreign", &unhex(foreign), (1, 10, 501), vec![json!({"shard": 501})]),
        accepted("written_out/signed", &unhex(signed), (1, 0, 0), vec![json!({"shard": 336})]),
    ]
}

fn full() -> Vec<Case> {
    // Sequences of one shard, as a sender that groups by shard would gather them.
    let of_shard_336 = |n: u64| (0..n).map(|i| signed_click(42 + i * 1024)).collect::<Vec<_>>();
    let plain = |n: usize| vec![json!({"shard": 336}); n];
    let mut grouped = datagram(&of_shard_336(14));
    put(&mut grouped, 7, &[10, 0x50, 0x01]); // ten shared bits, shard 336
    let longest = extended(&signed_click(42), &[field(1, 322), field(2, 1024)].concat());
    vec![
        accepted("full/14_plain_clicks_of_one_shard", &grouped, (14, 10, 336), plain(14)),
        accepted("full/15_plain_clicks", &datagram(&of_shard_336(15)), (15, 0, 0), plain(15)),
        accepted("full/255_plain_clicks", &datagram(&of_shard_336(255)), (255, 0, 0), plain(255)),
        accepted(
            "full/one_click_fills_1472_octets",
            &datagram(&[longest]),
            (1, 0, 0),
            vec![json!({"shard": 336, "extension_len": 1352})],
        ),
    ]
}

fn with_extensions() -> Vec<Case> {
    let click = signed_click(42);
    let agent = field(1, 20);
    let all = [field(1, 20), field(2, 30), field(3, 16), field(4, 8)].concat();
    let plain = || json!({"shard": 336});
    let long = |len: usize| json!({"shard": 336, "extension_len": len});
    let case = |name: &str, clicks: &[Vec<u8>], verdicts: Vec<Value>| {
        let count = u8::try_from(clicks.len()).expect("a count is a u8");
        accepted(format!("extension/{name}"), &datagram(clicks), (count, 0, 0), verdicts)
    };
    vec![
        case("of_the_only_click", &[extended(&click, &agent)], vec![long(23)]),
        case("of_the_first_click", &[extended(&click, &agent), click.clone()], vec![long(23), plain()]),
        case("of_the_last_click", &[click.clone(), extended(&click, &agent)], vec![plain(), long(23)]),
        case(
            "of_the_middle_click",
            &[click.clone(), extended(&click, &all), click.clone()],
            vec![plain(), long(86), plain()],
        ),
        case("of_every_click", &[extended(&click, &agent), extended(&click, &all)], vec![long(23), long(86)]),
        case(
            "at_its_longest_of_1676_octets",
            &[extended(&click, &[field(1, 512), field(2, 1024), field(3, 64), field(4, 64)].concat())],
            vec![long(1676)],
        ),
        case(
            "that_holds_what_looks_like_a_click",
            &[extended(&click, &click)],
            vec![json!({"shard": 336, "extension_len": 96, "verdict": "bad_extension"})],
        ),
    ]
}

fn header_values() -> Vec<Case> {
    let whole = datagram(&[signed_click(42)]);
    let case = |name: &str, offset: usize, octets: &[u8]| {
        accepted(
            format!("header/{name}"),
            &with(&whole, offset, octets),
            (1, 0, 0),
            vec![json!({"shard": 336})],
        )
    };
    vec![
        case("source_zero", 12, &[0; 4]),
        case("source_largest", 12, &[255; 4]),
        case("batch_zero", 16, &[0; 8]),
        case("batch_largest", 16, &[255; 8]),
        // The shard is a hint: one that fits no click is accepted all the same.
        accepted(
            "header/shard_of_no_click",
            &with(&whole, 7, &[10, 0xff, 0x03]),
            (1, 10, 1023),
            vec![json!({"shard": 336})],
        ),
    ]
}

/// The header is sound, but the clicks and their extensions do not fill the datagram exactly.
fn cut() -> Vec<Case> {
    let click = signed_click(42);
    let one = datagram(std::slice::from_ref(&click));
    let says = |bytes: &[u8], len: u16| with(bytes, 24 + 90, &len.to_le_bytes());
    let batch = Some(0x0102_0304_0506_0708);
    let case = |name: &str, bytes: &[u8], clicks: u8| {
        malformed(format!("cut/{name}"), &relength(bytes.to_vec()), "click_cut", clicks, batch)
    };
    let agent = datagram(&[extended(&click, &field(1, 20))]);
    let two = datagram(&[click.clone(), click.clone()]);
    let fifteen = datagram(&vec![click.clone(); 15]);
    let mut left_over = one.clone();
    left_over.push(0);
    vec![
        case("extension_of_one_octet_is_missing", &says(&one, 1), 1),
        case("extension_of_65535_octets_is_missing", &says(&one, 65_535), 1),
        case("extension_lacks_its_last_octet", &agent[..agent.len() - 1], 1),
        case("extension_says_one_octet_less", &says(&agent, 22), 1),
        case("extension_says_one_octet_more", &says(&agent, 24), 1),
        case("one_octet_is_left_over", &left_over, 1),
        case("a_second_click_is_not_counted", &with(&two, 6, &[1]), 1),
        case("fifteen_clicks_are_counted_as_14", &with(&fifteen, 6, &[14]), 14),
        case("the_first_extension_eats_the_second_click", &says(&two, 96), 2),
        case(
            "the_second_click_lacks_its_last_octet",
            &datagram(&[extended(&click, &field(1, 20)), click.clone()])[..24 + 96 + 23 + 95],
            2,
        ),
        malformed(
            "cut/batch_zero_is_echoed_too",
            &with(&says(&one, 1), 16, &[0; 8]),
            "click_cut",
            1,
            Some(0),
        ),
    ]
}

fn faulty_clicks_cost_only_themselves() -> Vec<Case> {
    let click = signed_click(42);
    let reserved = with(&click, 92, &[1]);
    let country = with(&click, 84, b"de");
    let foreign = foreign_click([0xab; 16]);
    let shard = json!({"shard": 336});
    let faulty = |reason: &str| json!({"shard": 336, "verdict": reason});
    let case = |name: &str, clicks: &[Vec<u8>], verdicts: Vec<Value>| {
        let count = u8::try_from(clicks.len()).expect("a count is a u8");
        accepted(format!("faulty_click/{name}"), &datagram(clicks), (count, 0, 0), verdicts)
    };
    vec![
        case(
            "the_middle_one_of_three",
            &[click.clone(), reserved.clone(), click.clone()],
            vec![shard.clone(), faulty("reserved_bits"), shard.clone()],
        ),
        case("every_one", &[reserved, country], vec![faulty("reserved_bits"), faulty("bad_country")]),
        case(
            "beside_a_foreign_one",
            &[with(&foreign, 48, &[1]), foreign],
            vec![json!({"shard": 794, "verdict": "foreign_tag"}), json!({"shard": 794})],
        ),
    ]
}

pub(crate) fn replay(vector: &Value) {
    let bytes = unhex(vector["hex"].as_str().expect("hex"));
    match (Datagram::parse(&bytes), vector["verdict"].as_str()) {
        (Ok(datagram), Some("accepted")) => {
            let (header, facts) = (datagram.header(), datagram.facts());
            let read = json!({
                "count": facts.count, "shared_bits": facts.shared_bits, "shard": facts.shard.0,
                "source_id": header.source_id.get(), "batch_id": number(header.batch_id.get()),
            });
            assert_eq!(read, vector["header"]);
            let mut offset = 24;
            let clicks: Vec<Value> = datagram
                .clicks()
                .map(|(click, extension)| {
                    let verdict = click.check(extension).map_or_else(|reason| reason.name(), |()| "sound");
                    let at = offset;
                    offset += 96 + extension.len();
                    json!({
                        "offset": at, "extension_len": extension.len(), "shard": click.shard().0,
                        "verdict": verdict,
                    })
                })
                .collect();
            assert_eq!(Value::from(clicks), vector["clicks"]);
        }
        (Err(bad), Some("malformed")) => {
            assert_eq!(bad.reason.name(), vector["reason"]);
            assert_eq!(bad.clicks, vector["clicks_counted"]);
            assert_eq!(json!(bad.batch_id.map(number)), vector["batch_id"]);
        }
        (result, verdict) => panic!("{result:?} where the vector says {verdict:?}"),
    }
}
