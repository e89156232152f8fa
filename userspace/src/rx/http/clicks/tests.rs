//! What a body becomes: here the fields of one click.

mod any;
mod bodies;

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::wire::{CLICK_LEN, Header, MAX_PRICE_MICROS, extension as kind};
use zerocopy::IntoBytes as _;

use super::*;

const NOW: UnixMs = UnixMs(1_790_000_012_345);
const ID: &str = "00112233-4455-6677-8899-aabbccddeeff";

const CATALOG: &str = include_str!("../../../../../tests/samples/catalog.toml");

fn catalog() -> Catalog {
    Catalog::parse(CATALOG, false).expect("the catalog is sound")
}

/// An item: a click with its extension, or what is wrong with it.
type Owned = Result<(Click, Vec<u8>), Fault>;

fn items(clicks: &Clicks) -> Vec<Owned> {
    let owned = |item| match item {
        Item::Click { click, extension } => Ok((*click, extension.to_vec())),
        Item::Bad(fault) => Err(Fault::clone(fault)),
    };
    clicks.iter().map(owned).collect()
}

fn read_from(format: Format, body: &[u8], sender: &Sender<'_>) -> Result<Vec<Owned>, Fault> {
    let mut clicks = Clicks::default();
    let read = read(format, body, sender, &catalog(), &mut clicks);
    assert_eq!(read.is_err(), clicks.is_empty());
    for item in clicks.iter() {
        if let Item::Click { click, extension } = item
            && format != Format::Datagram
        {
            assert_eq!(click.check(extension), Ok(()));
            assert_eq!(click.extension_len.get() as usize, extension.len());
            assert!(extension.len() <= MAX_EXTENSION);
        }
    }
    read.map(|()| items(&clicks))
}

fn read_all(format: Format, body: &str) -> Result<Vec<Owned>, Fault> {
    read_from(format, body.as_bytes(), &Sender { received_at: NOW, ..Sender::default() })
}

/// The one click of a body of one object.
fn one(object: &str) -> Result<(Click, Vec<u8>), Fault> {
    let mut all = read_all(Format::Json, object).expect("a body of one object");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// A click with these fields beside an id and an ad.
fn with(fields: &str) -> Click {
    one(&format!(r#"{{"event_id":"{ID}","ad_id":42,{fields}}}"#)).expect(fields).0
}

/// What is wrong with a click with these fields beside an id and an ad.
fn fault(fields: &str) -> (Reason, &'static str) {
    let fault = one(&format!(r#"{{"event_id":"{ID}","ad_id":42,{fields}}}"#)).expect_err(fields);
    assert!(!fault.why.is_empty());
    let refused = fault.reason == Reason::UnknownName;
    assert_eq!(fault.outcome, if refused { Outcome::Refused } else { Outcome::Malformed });
    (fault.reason, fault.field)
}

const fn bad(field: &'static str) -> (Reason, &'static str) {
    (Reason::BadField, field)
}

fn signed() -> Click {
    Click {
        impression: ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, 42),
        ad: 42.into(),
        price_micros: 500_000.into(),
        campaign: 3.into(),
        creative: 4.into(),
        placement: 5.into(),
        publisher: 6.into(),
        tag: 0x4eb2_c4ea_48a9_82f4.into(),
        ..Click::zeroed()
    }
}

#[test]
fn of_who_does_not_want_to_be_tracked_nothing_is_kept_that_tells_users_apart() {
    let body = format!(
        r#"{{"event_id":"{ID}","ad_id":42,"user_id":77,"session_id":"s-1","country":"de","lat":-52.52,"lon":13.4,
        "x":12,"y":7,"referrer":"https://a.example/","conversion_id":12,"user_agent":"agent"}}"#
    );
    let sender =
        Sender { received_at: NOW, referrer: Some(b"page"), is_opted_out: true, ..Sender::default() };
    let (click, extension) = read_from(Format::Json, body.as_bytes(), &sender).unwrap().remove(0).unwrap();
    assert_eq!((click.user_key.get(), click.latitude_e6.get(), click.longitude_e6.get()), (0, 0, 0));
    assert_eq!((click.flags, &click.country), (click_flags::FOREIGN | click_flags::POINT, b"DE"));
    let kept = extension_of(&[(kind::USER_AGENT, b"agent"), (kind::CONVERSION, b"12")]);
    assert_eq!(extension, kept);
    // A datagram in a body is no way around it, and what is wrong with one stays wrong.
    let all = extension_of(&[
        (kind::USER_AGENT, b"agent"),
        (kind::REFERRER, b"page"),
        (kind::SESSION, b"s-1"),
        (kind::CONVERSION, b"12"),
    ]);
    let sent = Click { user_key: 7.into(), latitude_e6: 5.into(), ..signed() };
    for (flags, latitude, damage) in [(click_flags::POSITION, 0, &b""[..]), (0, 5, &[3, 9, 0, b'x'])] {
        let extension = [&all[..], damage].concat();
        let click = Click { flags, extension_len: (extension.len() as u16).into(), ..sent };
        let header = Header::new(1, CLICK_LEN + extension.len());
        let body = [header.as_bytes(), click.as_bytes(), &extension].concat();
        let (click, extension) = read_from(Format::Datagram, &body, &sender).unwrap().remove(0).unwrap();
        assert_eq!((click.user_key.get(), click.latitude_e6.get(), click.flags), (0, latitude, 0));
        assert_eq!(extension, [&kept[..], damage].concat());
        assert_eq!(click.check(&extension).is_ok(), damage.is_empty());
    }
}

#[test]
fn a_click_with_every_field_says_all_of_it() {
    let (click, extension) = one(
        r#"{"event_id":"00112233-4455-6677-8899-AABBCCDDEEFF","timestamp":"2026-09-21T14:13:32.345+00:00",
        "ad_id":"spring-sale","campaign_id":9,"creative_id":"banner","placement_id":"5","publisher_id":"news",
        "user_id":77,"session_id":"s-1","device_type":"Mobile","country":"de","cost_per_click":1.5,
        "user_agent":"Mo\"z\u00e9","referrer":"https://a.example/","lat":-52.52,"lon":"13.4050001","x":12.9,"y":7,
        "conversion_id":12,"ordinal":2,"test":true,"of_a_newer_sender":{"a":[1,{"b":null}]}}"#,
    )
    .expect("a sound click");
    let expected = Click {
        impression: ImpressionId(
            u128::from_str_radix("00112233445566778899aabbccddeeff", 16).unwrap().to_be_bytes(),
        ),
        ad: 42.into(),
        price_micros: 1_500_000.into(),
        campaign: 9.into(),
        creative: 4.into(),
        placement: 5.into(),
        publisher: 6.into(),
        user_key: 77.into(),
        clicked_at_ms: 1_790_000_012_345.into(),
        latitude_e6: (-52_520_000).into(),
        longitude_e6: 13_405_000.into(),
        x: 12.into(),
        y: 7.into(),
        country: *b"DE",
        device: 2,
        ordinal: 2,
        flags: click_flags::FOREIGN | click_flags::TEST | click_flags::POSITION | click_flags::POINT,
        extension_len: (extension.len() as u16).into(),
        ..Click::zeroed()
    };
    assert_eq!(click, expected);
    let fields: [(u8, &[u8]); 4] = [
        (kind::USER_AGENT, "Mo\"z\u{e9}".as_bytes()),
        (kind::REFERRER, b"https://a.example/"),
        (kind::SESSION, b"s-1"),
        (kind::CONVERSION, b"12"),
    ];
    assert_eq!(extension, extension_of(&fields));
}

fn extension_of(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let field = |&(kind, bytes): &(u8, &[u8])| [&[kind, bytes.len() as u8, 0], bytes].concat();
    fields.iter().flat_map(field).collect()
}

#[test]
fn a_click_needs_an_id_and_an_ad() {
    let fault = one(r#"{"ad_id":42}"#).expect_err("no id");
    assert_eq!((fault.reason, fault.field), (Reason::MissingField, "event_id"));
    let fault = one(&format!(r#"{{"event_id":"{ID}"}}"#)).expect_err("no ad");
    assert_eq!((fault.reason, fault.field), (Reason::MissingField, "ad_id"));
    let fault = one(&format!(r#"{{"event_id":"{ID}","ad_id":null}}"#)).expect_err("no ad");
    assert_eq!((fault.reason, fault.field), (Reason::MissingField, "ad_id"));
}

#[test]
fn an_event_id_is_128_bits_in_any_usual_form() {
    let read = |id: &str| one(&format!(r#"{{"event_id":{id},"ad_id":1}}"#));
    let expected = Some(ImpressionId(*b"\0\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"));
    for id in [
        r#""00112233-4455-6677-8899-aabbccddeeff""#,
        r#""00112233-4455-6677-8899-AABBCCDDEEFF""#,
        r#""00112233445566778899aabbccddeeff""#,
        r#""{00112233-4455-6677-8899-aabbccddeeff}""#,
        r#""urn:uuid:00112233-4455-6677-8899-aabbccddeeff""#,
    ] {
        let click = read(id).ok().map(|(click, _)| click);
        assert_eq!(click.map(|click| click.impression), expected, "{id}");
        assert!(click.is_some_and(|click| click.is_foreign() && click.tag.get() == 0), "{id}");
    }
    for id in [
        r#""click-1""#,
        "17",
        "true",
        "{}",
        r#""0112233445566778899aabbccddeeff""#,
        r#""000112233445566778899aabbccddeeff""#,
        r#""00112233445566778899aabbccddeefg""#,
    ] {
        let fault = read(id).expect_err(id);
        assert_eq!((fault.reason, fault.field), bad("event_id"), "{id}");
    }
}

#[test]
fn a_token_is_the_signed_part_and_what_stands_beside_it_must_agree() {
    let token = Token::text(&signed());
    let read = |fields: &str| one(&format!(r#"{{"impression":"{token}"{fields}}}"#));
    let expected = Click { clicked_at_ms: NOW.0.into(), ..signed() };
    for agreeing in [
        "",
        r#","event_id":null,"ad_id":42,"campaign_id":"spring","creative_id":"banner","placement_id":5"#,
        r#","ad_id":"spring-sale","publisher_id":"news","cost_per_click":"0.50""#,
    ] {
        assert_eq!(read(agreeing), Ok((expected, Vec::new())), "{agreeing}");
    }
    for (contradicting, field) in [
        (r#","ad_id":43"#, "ad_id"),
        (r#","campaign_id":4"#, "campaign_id"),
        (r#","creative_id":5"#, "creative_id"),
        (r#","placement_id":6"#, "placement_id"),
        (r#","publisher_id":7"#, "publisher_id"),
        (r#","cost_per_click":0.500001"#, "cost_per_click"),
        (r#","event_id":"00112233445566778899aabbccddeeff""#, "event_id"),
    ] {
        let fault = read(contradicting).expect_err(contradicting);
        assert_eq!((fault.reason, fault.field), bad(field), "{contradicting}");
    }
    let fault = one(r#"{"impression":"AAAA"}"#).expect_err("too short");
    assert_eq!((fault.reason, fault.field), (Reason::BadToken, "impression"));
}

#[test]
fn what_a_click_leaves_out_the_catalog_says_of_its_ad() {
    let click = with(r#""campaign_id":null,"publisher_id":"""#);
    assert_eq!((click.campaign.get(), click.publisher.get(), click.price_micros.get()), (3, 7, 250_000));
    let click = with(r#""campaign_id":8,"publisher_id":9,"cost_per_click":0"#);
    assert_eq!((click.campaign.get(), click.publisher.get(), click.price_micros.get()), (8, 9, 0));
    let (click, _) = one(&format!(r#"{{"event_id":"{ID}","ad_id":1}}"#)).expect("an ad of another catalog");
    assert_eq!((click.campaign.get(), click.publisher.get(), click.price_micros.get()), (0, 0, 0));
}

#[test]
fn a_name_that_the_catalog_does_not_have_is_refused() {
    for field in ["campaign_id", "creative_id", "placement_id", "publisher_id"] {
        assert_eq!(fault(&format!(r#""{field}":"nobody""#)), (Reason::UnknownName, field));
        // A name of another list is none of this.
        assert_eq!(fault(&format!(r#""{field}":"spring-sale""#)), (Reason::UnknownName, field));
        assert_eq!(fault(&format!(r#""{field}":4294967296"#)), bad(field));
        assert_eq!(fault(&format!(r#""{field}":"4294967296""#)), bad(field));
        assert_eq!(fault(&format!(r#""{field}":1.0"#)), bad(field));
        assert_eq!(fault(&format!(r#""{field}":-1"#)), bad(field));
    }
    let fault = one(&format!(r#"{{"event_id":"{ID}","ad_id":"nobody"}}"#)).expect_err("no such ad");
    assert_eq!((fault.outcome, fault.reason, fault.field), (Outcome::Refused, Reason::UnknownName, "ad_id"));
    assert_eq!(fault.why, r#"the catalog has no "nobody""#);
}

#[test]
fn a_price_is_exact_or_refused() {
    for (price, micros) in [
        ("0.25", 250_000),
        (r#""0.250000000""#, 250_000),
        ("0.000001", 1),
        ("1E-6", 1),
        ("0.1", 100_000),
        (r#""1234.567891""#, 1_234_567_891),
        ("999999.999999", 999_999_999_999),
        ("1000000", MAX_PRICE_MICROS),
        ("-0.0", 0),
    ] {
        assert_eq!(with(&format!(r#""cost_per_click":{price}"#)).price_micros.get(), micros, "{price}");
    }
    for price in [
        "0.0000001",
        "0.30000000000000004",
        "-0.25",
        "-0.0000001",
        "1000000.000001",
        "1000000.0000000001",
        "1e300",
        "true",
        "[]",
        r#""0,25""#,
        r#""$1""#,
        r#""NaN""#,
    ] {
        assert_eq!(fault(&format!(r#""cost_per_click":{price}"#)), bad("cost_per_click"), "{price}");
    }
}

#[test]
fn a_time_is_milliseconds_or_iso_8601_with_its_offset() {
    for (time, ms) in [
        ("1790000012345", 1_790_000_012_345),
        (r#""1790000012345""#, 1_790_000_012_345),
        (r#""2026-09-21T14:13:32.345Z""#, 1_790_000_012_345),
        (r#""2026-09-21T14:13:32.345999Z""#, 1_790_000_012_345),
        (r#""2026-09-21T16:13:32.345+02:00""#, 1_790_000_012_345),
        (r#""1970-01-01T00:00:00Z""#, 0),
        ("null", NOW.0),
        (r#""""#, NOW.0),
    ] {
        assert_eq!(with(&format!(r#""timestamp":{time}"#)).clicked_at_ms.get(), ms, "{time}");
    }
    for time in [
        r#""2026-09-21T14:13:32""#,
        r#""2026-09-21""#,
        r#""1969-12-31T23:59:59.999Z""#,
        r#""2026-13-21T14:13:32Z""#,
        r#""yesterday""#,
        "1790000012.345",
        "-1",
        "1e12",
        "true",
    ] {
        assert_eq!(fault(&format!(r#""timestamp":{time}"#)), bad("timestamp"), "{time}");
    }
}

#[test]
fn a_user_is_a_key_or_a_name_that_becomes_one() {
    assert_eq!(with(r#""user_id":18446744073709551615"#).user_key.get(), u64::MAX);
    assert_eq!(with(r#""user_id":0"#).user_key.get(), 0);
    assert_eq!(with(r#""user_id":"""#).user_key.get(), 0);
    // Published: whoever sends datagrams must be able to come to the same keys.
    assert_eq!(with(r#""user_id":"alice""#).user_key.get(), 0xac08_6ce6_19a0_1311);
    assert_eq!(with(r#""user_id":"\u0061lice""#).user_key, with(r#""user_id":"alice""#).user_key);
    assert_ne!(with(r#""user_id":"77""#).user_key.get(), 77);
    assert_eq!(fault(r#""user_id":1.5"#), bad("user_id"));
    assert_eq!(fault(r#""user_id":18446744073709551616"#), bad("user_id"));
}

#[test]
fn places_are_in_range_and_whole() {
    let click = with(r#""lat":90,"lon":-180.0"#);
    assert_eq!((click.latitude_e6.get(), click.longitude_e6.get()), (90_000_000, -180_000_000));
    let click = with(r#""lat":"-0.0000005","lon":1.00000049"#);
    assert_eq!((click.latitude_e6.get(), click.longitude_e6.get()), (-1, 1_000_000));
    let click = with(r#""x":65535.99,"y":"0""#);
    assert_eq!(
        (click.x.get(), click.y.get(), click.flags & click_flags::POINT),
        (65535, 0, click_flags::POINT)
    );
    assert_eq!(with(r#""x":null,"y":"""#).flags, click_flags::FOREIGN);
    assert_eq!(fault(r#""lat":90.0000001,"lon":0"#), bad("lat"));
    assert_eq!(fault(r#""lat":0,"lon":-180.000001"#), bad("lon"));
    assert_eq!(fault(r#""lat":1e40,"lon":0"#), bad("lat"));
    assert_eq!(fault(r#""lat":"north","lon":0"#), bad("lat"));
    assert_eq!(fault(r#""lat":1"#), (Reason::MissingField, "lon"));
    assert_eq!(fault(r#""lon":1"#), (Reason::MissingField, "lat"));
    assert_eq!(fault(r#""x":1"#), (Reason::MissingField, "y"));
    assert_eq!(fault(r#""y":1"#), (Reason::MissingField, "x"));
    assert_eq!(fault(r#""x":65536,"y":0"#), bad("x"));
    assert_eq!(fault(r#""x":0,"y":-1"#), bad("y"));
}

#[test]
fn countries_devices_and_ordinals_are_checked() {
    for (device, number) in [
        (r#""desktop""#, 1),
        (r#""PHONE""#, 2),
        (r#""mobile""#, 2),
        (r#""tablet""#, 3),
        ("200", 200),
        (r#""9""#, 9),
    ] {
        assert_eq!(with(&format!(r#""device_type":{device}"#)).device, number, "{device}");
    }
    assert_eq!(fault(r#""device_type":"toaster""#), bad("device_type"));
    assert_eq!(fault(r#""device_type":256"#), bad("device_type"));
    assert_eq!(with(r#""country":"""#).country, [0, 0]);
    for country in [r#""DEU""#, r#""d""#, r#""4x""#, r#""é""#, "49"] {
        assert_eq!(fault(&format!(r#""country":{country}"#)), bad("country"), "{country}");
    }
    assert_eq!(with(r#""ordinal":255"#).ordinal, 255);
    assert_eq!(fault(r#""ordinal":256"#), bad("ordinal"));
    assert_eq!(fault(r#""test":"yes""#), bad("test"));
    assert_eq!(with(r#""test":false"#).flags, click_flags::FOREIGN);
}

#[test]
fn a_known_field_given_twice_is_refused_and_an_unknown_one_is_passed_over() {
    assert_eq!(fault(r#""country":"DE","country":"DE""#), bad("country"));
    assert_eq!(fault(r#""country":null,"\u0063ountry":"DE""#), bad("country"));
    let click = with(r#""a":1,"a":[[[{"ad_id":1}]]],"AD_ID":7"#);
    assert_eq!(click.ad.get(), 42);
}

#[test]
fn long_texts_of_browsers_are_cut_and_long_ids_refused() {
    let long = "\u{e9}".repeat(2000);
    let fields = format!(r#""user_agent":"a{long}","referrer":"{long}","session_id":"{}""#, "s".repeat(64));
    let object = format!(r#"{{"event_id":"{ID}","ad_id":42,{fields}}}"#);
    let (_, extension) = one(&object).expect("what browsers say is cut");
    // 511 and not 512 bytes of the user agent: a character is not split.
    assert_eq!(extension[..3], [kind::USER_AGENT, 0xff, 1]);
    assert!(std::str::from_utf8(&extension[3..3 + 511]).is_ok());
    // The referrer has what the others leave.
    let left = (MAX_EXTENSION - (3 + 511) - (3 + 64) - 3) / 2 * 2;
    let referrer = &extension[3 + 511..];
    assert_eq!(referrer[..3], [&[kind::REFERRER][..], &(left as u16).to_le_bytes()].concat());
    assert_eq!(extension.len(), 3 + 511 + 3 + left + 3 + 64);
    assert_eq!(fault(&format!(r#""session_id":"{}""#, "s".repeat(65))), bad("session_id"));
    assert_eq!(fault(&format!(r#""conversion_id":"{}""#, "s".repeat(65))), bad("conversion_id"));
}
