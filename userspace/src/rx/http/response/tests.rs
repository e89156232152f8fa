use serde_json::Value;
use weir_common::reason::{Outcome, Reason};

use super::*;

const ALL: To<'_> = To { keep_alive: true, origin: Some(b"https://a.example"), is_head: false, date: None };

/// Status line, fields in lower case, body: as a client reads them, by `httparse`.
fn parsed(bytes: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let len = response.parse(bytes).expect("a response").unwrap();
    let fields: Vec<_> = response
        .headers
        .iter()
        .map(|field| (field.name.to_lowercase(), String::from_utf8(field.value.to_vec()).expect("text")))
        .collect();
    let names: std::collections::BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), fields.len(), "a field twice: {fields:?}");
    (response.code.expect("a status"), fields, bytes[len..].to_vec())
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn made(make: impl FnOnce(&mut Vec<u8>)) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut out = b"before".to_vec();
    make(&mut out);
    parsed(out.strip_prefix(b"before").expect("appended"))
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

#[test]
fn a_202_has_a_status_a_click_in_order_and_their_counts() {
    let malformed = Status::Malformed { reason: "bad_field", field: "l\"a\\t", why: "a\nb\u{1}\u{e4}\u{7f}" };
    let statuses = [Status::Created, malformed, Status::Retry, Status::Exists, Status::Created];
    let (status, fields, body) = made(|out| accepted(statuses.into_iter(), Problem::Unavailable, &ALL, out));
    assert_eq!(status, 202);
    assert_eq!(value(&fields, "content-length"), Some(body.len().to_string().as_str()));
    assert_eq!(value(&fields, "content-type"), Some("application/json"));
    assert_eq!(value(&fields, "connection"), Some("keep-alive"));
    assert_eq!(value(&fields, "access-control-allow-origin"), Some("https://a.example"));
    let expected = serde_json::json!({
        "clicks": [
            {"status": "created"},
            {"status": "malformed", "reason": "bad_field", "field": "l\"a\\t", "why": "a\nb\u{1}\u{e4}\u{7f}"},
            {"status": "retry"}, {"status": "exists"}, {"status": "created"},
        ],
        "created": 2, "exists": 1, "retry": 1, "malformed": 1,
    });
    assert_eq!(json(&body), expected);
}

#[test]
fn when_every_click_is_to_be_sent_again_it_is_a_503_with_retry_after_and_the_same_body() {
    let (status, fields, body) =
        made(|out| accepted([Status::Retry; 2].into_iter(), Problem::Unavailable, &ALL, out));
    assert_eq!((status, value(&fields, "retry-after")), (503, Some("5")));
    assert_eq!(value(&fields, "access-control-expose-headers"), Some("Retry-After"), "a page may see it");
    assert_eq!(json(&body)["retry"], 2);
    let spent = Problem::TooMany;
    let (status, fields, body) = made(|out| accepted([Status::Retry; 2].into_iter(), spent, &ALL, out));
    assert_eq!(
        (status, value(&fields, "retry-after"), json(&body)["retry"].as_u64()),
        (429, Some("1"), Some(2))
    );
    let (status, fields, _) =
        made(|out| accepted([Status::Retry, Status::Exists].into_iter(), Problem::Unavailable, &ALL, out));
    assert_eq!((status, value(&fields, "retry-after")), (202, None));
    assert_eq!(
        made(|out| accepted(std::iter::empty(), Problem::Unavailable, &ALL, out)).0,
        202,
        "none is not all"
    );
}

#[test]
fn a_redirect_is_never_cached_and_has_no_body() {
    let (status, fields, body) = made(|out| redirect("https://shop.example/x?y=1", &ALL, out));
    assert_eq!((status, body.len()), (302, 0));
    assert_eq!(value(&fields, "location"), Some("https://shop.example/x?y=1"));
    assert_eq!(value(&fields, "cache-control"), Some("no-store"));
    assert_eq!(value(&fields, "referrer-policy"), Some("strict-origin-when-cross-origin"));
    assert_eq!(value(&fields, "content-length"), Some("0"));
}

#[test]
fn a_url_that_would_write_fields_is_never_sent() {
    for url in ["https://a/\r\nSet-Cookie: b", "https://a/ b", "", "https://a/\u{7f}"] {
        let run = std::panic::catch_unwind(|| made(|out| redirect(url, &ALL, out)));
        assert_eq!(run.is_err(), cfg!(debug_assertions), "{url:?}");
        if let Ok((status, fields, _)) = run {
            assert_eq!((status, value(&fields, "location")), (404, None));
        }
    }
}

#[test]
fn a_pixel_is_a_transparent_gif_of_43_bytes_that_is_never_cached() {
    let (status, fields, body) = made(|out| pixel(&ALL, out));
    assert_eq!((status, body.len()), (200, 43));
    assert!(body.starts_with(b"GIF89a\x01\x00\x01\x00") && body.ends_with(b"\x3b"));
    assert_eq!(body[19..24], [0x21, 0xf9, 0x04, 0x01, 0x00], "the graphic control says: transparent");
    assert_eq!(value(&fields, "content-type"), Some("image/gif"));
    assert_eq!(value(&fields, "cache-control"), Some("no-store"));
}

#[test]
fn to_head_goes_everything_but_the_body() {
    let to = To { is_head: true, ..ALL };
    let makers: [fn(&To<'_>, &mut Vec<u8>); 5] = [
        |to, out| accepted([Status::Created].into_iter(), Problem::Unavailable, to, out),
        pixel,
        |to, out| health(true, to, out),
        |to, out| redirect("https://a/", to, out),
        |to, out| problem(&Problem::NotFound, to, out),
    ];
    for make in makers {
        let (status, fields, body) = made(|out| make(&to, out));
        assert_eq!(body, b"");
        let (whole_status, whole_fields, _) = made(|out| make(&ALL, out));
        assert_eq!((status, fields), (whole_status, whole_fields));
    }
}

#[test]
fn a_preflight_allows_what_senders_use_and_a_private_network_when_asked() {
    let (status, fields, body) = made(|out| preflight(&ALL, true, out));
    assert_eq!((status, body.len(), value(&fields, "content-length")), (204, 0, None));
    assert_eq!(value(&fields, "access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(value(&fields, "access-control-allow-credentials"), Some("true"));
    assert_eq!(value(&fields, "access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(value(&fields, "access-control-allow-headers"), Some("Content-Type, Content-Encoding"));
    assert_eq!(value(&fields, "access-control-max-age"), Some("7200"));
    assert_eq!(value(&fields, "access-control-allow-private-network"), Some("true"));
    assert_eq!(value(&fields, "vary"), Some("Origin"));
    let (_, fields, _) = made(|out| preflight(&ALL, false, out));
    assert_eq!(value(&fields, "access-control-allow-private-network"), None);
    let (_, fields, _) = made(|out| preflight(&To::default(), true, out));
    assert!(
        !fields.iter().any(|(name, _)| name.starts_with("access-control")),
        "nobody of another origin asked"
    );
    assert_eq!(value(&fields, "allow"), Some("GET, HEAD, POST, OPTIONS"));
}

#[test]
fn health_is_200_while_clicks_are_taken_and_503_otherwise() {
    let (status, fields, body) = made(|out| health(true, &ALL, out));
    assert_eq!(
        (status, body.as_slice(), value(&fields, "retry-after")),
        (200, &br#"{"taking":true}"#[..], None)
    );
    let (status, fields, body) = made(|out| health(false, &ALL, out));
    assert_eq!((status, body.as_slice()), (503, &br#"{"taking":false}"#[..]));
    assert_eq!(value(&fields, "retry-after"), Some("5"));
}

#[test]
fn a_problem_is_a_problem_body_with_its_status_name_and_remedy() {
    for one in Problem::ALL {
        let (status, fields, body) = made(|out| problem(&one, &ALL, out));
        let row = one.row();
        assert_eq!(status, row.status);
        assert_eq!(value(&fields, "content-type"), Some("application/problem+json"));
        assert_eq!(value(&fields, "content-length"), Some(body.len().to_string().as_str()));
        let connection = if row.must_close { "close" } else { "keep-alive" };
        assert_eq!(value(&fields, "connection"), Some(connection), "{one:?}");
        let retry_after = row.retry_after_s.map(|seconds| seconds.to_string());
        assert_eq!(value(&fields, "retry-after"), retry_after.as_deref());
        let expected = serde_json::json!({
            "title": row.title, "status": row.status, "reason": row.reason, "detail": row.detail,
        });
        assert_eq!(json(&body), expected);
    }
}

#[test]
fn a_refusal_says_what_would_have_been_taken() {
    let of = |one: Problem| made(|out| problem(&one, &ALL, out)).1;
    assert_eq!(value(&of(Problem::MethodNotAllowed { allow: "GET, HEAD" }), "allow"), Some("GET, HEAD"));
    assert_eq!(value(&of(Problem::UnsupportedEncoding), "accept-encoding"), Some("gzip, zstd, lz4"));
    assert!(
        value(&of(Problem::UnsupportedType), "accept-post").is_some_and(|types| types.contains("text/plain"))
    );
}

#[test]
fn a_connection_that_ends_is_told_so() {
    let to = To { keep_alive: false, ..ALL };
    let (_, fields, _) = made(|out| accepted([Status::Created].into_iter(), Problem::Unavailable, &to, out));
    assert_eq!(value(&fields, "connection"), Some("close"));
    let (_, fields, _) = made(|out| problem(&Problem::NotFound, &to, out));
    assert_eq!(value(&fields, "connection"), Some("close"));
}

#[test]
fn what_is_wrong_with_a_body_is_said_with_its_place() {
    let fault = Fault {
        outcome: Outcome::Malformed,
        reason: Reason::BadJson,
        field: "",
        why: "line 2, column 7: expected `:`".to_owned(),
    };
    let (status, fields, body) = made(|out| bad_body(&fault, &ALL, out));
    assert_eq!((status, value(&fields, "connection")), (400, Some("keep-alive")));
    assert_eq!(value(&fields, "content-length"), Some(body.len().to_string().as_str()));
    let body = json(&body);
    assert_eq!((&body["reason"], &body["cause"]), (&Value::from("bad_body"), &Value::from("bad_json")));
    assert_eq!(body["why"], "line 2, column 7: expected `:`");
}

#[test]
fn a_date_is_sent_when_the_node_knows_it() {
    let date = date(784_111_777);
    let to = To { date: date.as_deref(), ..ALL };
    let (_, fields, _) = made(|out| pixel(&to, out));
    assert_eq!(value(&fields, "date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(value(&made(|out| pixel(&ALL, out)).1, "date"), None);
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (unix_s, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        (253_402_207_200, "Thu, 30 Dec 9999 22:00:00 GMT"),
    ] {
        assert_eq!(date(unix_s).as_deref(), Some(expected), "{unix_s}");
    }
    assert_eq!(date(u64::MAX), None);
}
