//! Any click, and anything else.

use proptest::prelude::*;
use weir_common::wire::CLICK_LEN;
use zerocopy::IntoBytes;

use super::*;

/// Any click that JSON can say, with its extension's fields.
fn any_click() -> impl Strategy<Value = (Click, [String; 4])> {
    let signed = any::<bool>();
    let bytes = any::<[u8; CLICK_LEN]>();
    let texts = [".{0,60}", ".{0,120}", "[ -~]{0,64}", "[ -~]{0,64}"];
    (
        signed,
        bytes,
        0..=MAX_PRICE_MICROS,
        -90_000_000..=90_000_000_i32,
        -180_000_000..=180_000_000_i32,
        texts,
        "[A-Z]{2}",
    )
        .prop_map(|(signed, bytes, price, latitude, longitude, texts, country)| {
            let mut click = Click::zeroed();
            click.as_mut_bytes().copy_from_slice(&bytes);
            let may = click_flags::TEST | click_flags::POSITION | click_flags::POINT;
            click.flags = click.flags & may | if signed { 0 } else { click_flags::FOREIGN };
            let has = |flag: u8| click.flags & flag != 0;
            click.latitude_e6 = if has(click_flags::POSITION) { latitude } else { 0 }.into();
            click.longitude_e6 = if has(click_flags::POSITION) { longitude } else { 0 }.into();
            (click.x, click.y) =
                if has(click_flags::POINT) { (click.x, click.y) } else { (0.into(), 0.into()) };
            click.tag = if signed { click.tag } else { 0.into() };
            click.price_micros = price.into();
            let country = country.as_bytes();
            click.country = if bytes[84] & 1 == 0 { [0, 0] } else { [country[0], country[1]] };
            (click.os, click.reserved) = (0, 0.into());
            (click, texts)
        })
}

fn millionths(number: u64) -> String {
    format!("{}.{:06}", number / 1_000_000, number % 1_000_000)
}

fn degrees(number: i32) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, millionths(number.unsigned_abs().into()))
}

/// A click as JSON.
fn object(click: &Click, texts: &[String; 4]) -> String {
    let text = |text: &str| serde_json::to_string(text).expect("a string");
    let mut fields = if click.is_foreign() {
        vec![
            ("event_id", text(&uuid::Uuid::from_bytes(click.impression.0).to_string())),
            ("ordinal", click.ordinal.to_string()),
            ("ad_id", click.ad.to_string()),
            ("cost_per_click", millionths(click.price_micros.get())),
            ("campaign_id", click.campaign.to_string()),
            ("creative_id", text(&click.creative.to_string())),
            ("placement_id", click.placement.to_string()),
            ("publisher_id", click.publisher.to_string()),
        ]
    } else {
        vec![("impression", text(&Token::text(click)))]
    };
    fields.extend([
        ("timestamp", click.clicked_at_ms.to_string()),
        ("user_id", click.user_key.to_string()),
        ("device_type", click.device.to_string()),
        ("test", (click.flags & click_flags::TEST != 0).to_string()),
        ("user_agent", text(&texts[0])),
        ("referrer", text(&texts[1])),
        ("session_id", text(&texts[2])),
        ("conversion_id", text(&texts[3])),
    ]);
    if click.country != [0, 0] {
        fields.push(("country", text(&String::from_utf8_lossy(&click.country).to_lowercase())));
    }
    if click.flags & click_flags::POSITION != 0 {
        fields.push(("lat", degrees(click.latitude_e6.get())));
        fields.push(("lon", degrees(click.longitude_e6.get())));
    }
    if click.flags & click_flags::POINT != 0 {
        fields.push(("x", click.x.to_string()));
        fields.push(("y", click.y.to_string()));
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{ {} }}", fields.join(","))
}

proptest! {
    #[test]
    fn a_click_written_as_json_is_read_back_as_it_was((mut click, texts) in any_click()) {
        let written = texts.each_ref().map(String::as_bytes);
        let kinds = [kind::USER_AGENT, kind::REFERRER, kind::SESSION, kind::CONVERSION];
        let mut extension = Vec::new();
        for (kind, bytes) in kinds.iter().zip(written).filter(|(_, bytes)| !bytes.is_empty()) {
            extension.push(*kind);
            extension.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            extension.extend_from_slice(bytes);
        }
        click.extension_len = (extension.len() as u16).into();
        prop_assert_eq!(one(&object(&click, &texts)), Ok((click, extension)));
    }

    #[test]
    fn any_bytes_are_clicks_or_a_fault(body in any::<Vec<u8>>(), format in 0..4_usize) {
        let format = [Format::Json, Format::Lines, Format::Text, Format::Datagram][format];
        let _ = read_from(format, &body, &Sender::default());
    }

    #[test]
    fn anything_like_json_is_clicks_or_a_fault(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\n", " ", "null", "true", "1", "-1.5e9", "\"\"", "\"x\"", "\"\\ud800\"",
                "\"ad_id\"", "\"event_id\"", "\"lat\"", "\"timestamp\"", "\"cost_per_click\"", "\"impression\"", "\"",
            ]),
            0..40,
        ),
        format in 0..3_usize,
    ) {
        let format = [Format::Json, Format::Lines, Format::Text][format];
        let _ = read_from(format, tokens.concat().as_bytes(), &Sender::default());
    }
}
