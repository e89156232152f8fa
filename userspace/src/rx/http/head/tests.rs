use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { head_bytes_max: 8 << 10, body_bytes_max: 256 << 10, decoded_bytes_max: 1 << 20 };

/// A whole head that is taken.
fn taken(text: &str) -> Head<'_> {
    let (head, len) = read(text.as_bytes(), &LIMITS).expect("taken").expect("whole");
    assert_eq!(len, text.len());
    head
}

/// Why a head is refused: told whole, and byte by byte no later and no differently.
fn refused(text: impl AsRef<[u8]>) -> Problem {
    let bytes = text.as_ref();
    let problem = read(bytes, &LIMITS).expect_err("refused");
    let first = (0..=bytes.len()).find_map(|len| read(&bytes[..len], &LIMITS).transpose());
    assert_eq!(first.expect("an answer").expect_err("refused"), problem);
    assert!(problem.must_close(), "nobody knows where the next request begins");
    problem
}

/// A GET with these lines after its host.
fn get_with(lines: &str) -> String {
    format!("GET /v1/health HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// A POST with these lines after its host.
fn post_with(lines: &str) -> String {
    format!("POST /v1/clicks HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// What a checked POST of these lines is refused for.
fn checked(lines: &str) -> Result<(), Problem> {
    taken(&post_with(lines)).check(&LIMITS)
}

#[test]
fn a_head_says_what_is_asked_how_long_its_body_is_and_what_it_holds() {
    let text = "POST /v1/clicks?x=1 HTTP/1.1\r\nHost: edge.example:80\r\nContent-Length: 12\r\n\
        content-type: Application/JSON; charset=UTF-8\r\nContent-Encoding: gzip\r\nOrigin: https://a.example\r\n\
        User-Agent: \u{e4} b\r\nReferer: https://a.example/p\r\nExpect: 100-Continue\r\n\r\n";
    let head = taken(text);
    assert_eq!((head.method, head.target), (Method::Post, Target::Clicks));
    assert_eq!((head.framing, head.encoding), (Framing::Length(12), Encoding::Gzip));
    assert_eq!(head.format, Some(Format::Json));
    assert_eq!(head.origin, Some(&b"https://a.example"[..]));
    assert_eq!(head.user_agent, Some("\u{e4} b".as_bytes()));
    assert_eq!(head.referrer, Some(&b"https://a.example/p"[..]));
    assert!(head.keep_alive && head.expects_continue && !head.is_prefetch && !head.asks_private_network);
    assert_eq!(head.check(&LIMITS), Ok(()));
}

#[test]
fn paths_lead_to_their_targets_and_a_query_is_cut_off() {
    for (path, expected) in [
        ("/v1/clicks", Target::Clicks),
        ("/v1/clicks?a=/v1/health", Target::Clicks),
        ("/v1/click/abc-_.~9", Target::Click("abc-_.~9")),
        ("/v1/click/abc?to=http://x/y", Target::Click("abc")),
        ("/v1/pixel/abc", Target::Pixel("abc")),
        ("/v1/health", Target::Health),
        ("/v1/health/", Target::Unknown),
        ("/v1/click/", Target::Unknown),
        ("/v1/click/a/b", Target::Unknown),
        ("/v1/click/a%20", Target::Unknown),
        ("/V1/clicks", Target::Unknown),
        ("/v1/%63licks", Target::Unknown),
        ("/v1//clicks", Target::Unknown),
        ("/", Target::Unknown),
        ("*", Target::Unknown),
    ] {
        assert_eq!(taken(&format!("GET {path} HTTP/1.0\r\n\r\n")).target, expected, "{path}");
    }
}

#[test]
fn an_absolute_target_is_taken_by_its_path() {
    for (text, expected) in [
        ("http://any.example/v1/clicks", Target::Clicks),
        ("HTTPS://any.example:8443/v1/click/t?x", Target::Click("t")),
        ("http://any.example", Target::Unknown),
        ("http://any.example?/v1/clicks", Target::Unknown),
        ("ftp://any.example/v1/clicks", Target::Unknown),
    ] {
        assert_eq!(target(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_target_with_a_fragment_or_bytes_beyond_ascii_is_refused() {
    assert_eq!(refused("GET /v1/click/a#b HTTP/1.1\r\nHost: a\r\n\r\n"), Problem::BadTarget);
    assert_eq!(refused("GET /v1/click/\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n"), Problem::BadTarget);
}

#[test]
fn http_1_0_goes_on_only_when_asked_and_1_1_until_told() {
    assert!(!taken("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(taken("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert!(taken(&get_with("")).keep_alive);
    assert!(!taken(&get_with("Connection: x, Close\r\n")).keep_alive);
    assert!(!taken(&get_with("Connection: keep-alive\r\nConnection: close\r\n")).keep_alive);
}

#[test]
fn other_versions_are_505_and_other_words_400() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3"] {
        assert_eq!(refused(format!("GET / {version}\r\n\r\n")), Problem::BadVersion, "{version}");
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Problem::BadVersion);
    for line in ["GET / HTTX/1.1", "GET /", "GET", "GET /a b HTTP/1.1", "GET  / HTTP/1.1", "GET / http/1.1"] {
        assert_eq!(refused(format!("{line}\r\nHost: a\r\n\r\n")), Problem::BadHead, "{line}");
    }
    assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01"), Problem::BadHead, "TLS on a plain port");
}

#[test]
fn content_length_and_transfer_encoding_together_are_refused() {
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refused(post_with(both)), Problem::TwoLengths);
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n";
    assert_eq!(refused(post_with(turned)), Problem::TwoLengths);
}

#[test]
fn a_second_content_length_is_refused_also_when_equal() {
    assert_eq!(refused(post_with("Content-Length: 3\r\nContent-Length: 4\r\n")), Problem::BadLength);
    assert_eq!(refused(post_with("Content-Length: 3\r\ncontent-length: 3\r\n")), Problem::BadLength);
    assert_eq!(refused(post_with("Content-Length: 3, 3\r\n")), Problem::BadLength);
}

#[test]
fn a_content_length_that_is_no_plain_number_is_refused() {
    for value in
        ["+3", "-3", "0x3", "3a", "3 3", "", "3.0", "\"3\"", "18446744073709551616", "99999999999999999999"]
    {
        assert_eq!(
            refused(post_with(&format!("Content-Length: {value}\r\n"))),
            Problem::BadLength,
            "{value:?}"
        );
    }
    let most = "9".repeat(LENGTH_DIGITS_MAX);
    let head = post_with(&format!("Content-Length: {most}\r\n"));
    assert_eq!(taken(&head).framing, Framing::Length(most.parse().expect("fits")));
}

#[test]
fn a_transfer_encoding_other_than_exactly_chunked_is_refused() {
    assert_eq!(taken(&post_with("Transfer-Encoding: Chunked\r\n")).framing, Framing::Chunked);
    for value in [
        "",
        "identity",
        "gzip",
        "xchunked",
        "chunked, identity",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunked;q=1",
        "chunked\u{b}",
        "chun ked",
    ] {
        let problem = refused(post_with(&format!("Transfer-Encoding: {value}\r\n")));
        assert!(matches!(problem, Problem::BadTransfer | Problem::BadHead), "{value:?}: {problem:?}");
    }
    assert_eq!(refused(post_with("Transfer-Encoding: gzip, chunked\r\n")), Problem::UnsupportedTransfer);
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refused(post_with(twice)), Problem::BadTransfer);
}

#[test]
fn a_transfer_encoding_on_http_1_0_is_refused() {
    let text = "POST /v1/clicks HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(text), Problem::BadTransfer);
}

#[test]
fn a_folded_field_is_refused() {
    assert_eq!(refused(get_with("X: a\r\n b\r\n")), Problem::BadHead);
    assert_eq!(refused(get_with("X: a\r\n\tTransfer-Encoding: chunked\r\n")), Problem::BadHead);
    assert_eq!(refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Problem::BadHead);
}

#[test]
fn a_bare_cr_or_lf_is_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\nContent-Length: 3\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\ra\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(refused(text), Problem::BadHead, "{text:?}");
    }
}

#[test]
fn a_nul_or_another_control_byte_is_refused() {
    for byte in (0..b' ').filter(|byte| !b"\t\r\n".contains(byte)).chain([0x7f]) {
        let mut value = get_with("X: a?b\r\n").into_bytes();
        *value.iter_mut().find(|at| **at == b'?').expect("there") = byte;
        assert_eq!(refused(value), Problem::BadHead, "{byte:#x}");
        let mut path = b"GET /?a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        path[5] = byte;
        assert_eq!(refused(path), Problem::BadHead, "{byte:#x}");
        let mut name = get_with("X?Y: a\r\n").into_bytes();
        *name.iter_mut().find(|at| **at == b'?').expect("there") = byte;
        assert_eq!(refused(name), Problem::BadHead, "{byte:#x}");
    }
}

#[test]
fn a_space_before_the_colon_is_refused() {
    assert_eq!(refused(post_with("Content-Length : 3\r\n")), Problem::BadHead);
    assert_eq!(refused(post_with("Transfer-Encoding\t: chunked\r\n")), Problem::BadHead);
    assert_eq!(refused(post_with(": chunked\r\n")), Problem::BadHead);
    assert_eq!(refused(post_with("Content-Length\r\n")), Problem::BadHead);
}

#[test]
fn a_missing_doubled_or_impossible_host_is_refused() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Problem::BadHost);
    assert_eq!(refused(get_with("Host: a\r\n")), Problem::BadHost);
    assert_eq!(refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), Problem::BadHost);
    for host in ["a b", "a,b", "a/b", "user@a", "a?b", "a#b", "\u{e4}"] {
        assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Problem::BadHost, "{host}");
    }
    for host in ["a", "a.example:8080", "[2001:db8::1]:80", ""] {
        taken(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn a_head_has_a_bounded_number_of_bytes_and_fields() {
    let of_bytes = |len: usize| {
        let rest = get_with("X: \r\n").len();
        get_with(&format!("X: {}\r\n", "x".repeat(len - rest)))
    };
    taken(&of_bytes(LIMITS.head_bytes_max));
    assert_eq!(refused(of_bytes(LIMITS.head_bytes_max + 1)), Problem::HeadTooLarge);
    assert_eq!(refused("A".repeat(1 << 20)), Problem::HeadTooLarge, "without an end");
    assert_eq!(refused("\r\n".repeat(1 << 20)), Problem::HeadTooLarge, "without a beginning");
    let of_fields = |count: usize| get_with(&"A: b\r\n".repeat(count - 1));
    taken(&of_fields(64));
    assert_eq!(refused(of_fields(65)), Problem::HeadTooLarge);
}

#[test]
fn empty_lines_before_a_request_are_skipped_and_the_next_request_is_left() {
    let text = format!("\r\n\r\n{}", get_with(""));
    let pipelined = format!("{text}GET / HTTP/1.1\r\n");
    let (_, len) = read(pipelined.as_bytes(), &LIMITS).expect("sound").expect("whole");
    assert_eq!(len, text.len());
}

#[test]
fn content_types_are_told_apart_and_another_charset_is_another_type() {
    for (kind, format) in [
        ("application/json", Some(Format::Json)),
        ("application/x-ndjson", Some(Format::Lines)),
        ("text/plain;charset=UTF-8", Some(Format::Text)),
        ("TEXT/plain ; format=flowed; charset=\"utf-8\"", Some(Format::Text)),
        ("application/octet-stream", Some(Format::Datagram)),
        ("application/json; charset=utf-16", None),
        ("application/jsonx", None),
        ("application/x-www-form-urlencoded", None),
        ("", None),
    ] {
        assert_eq!(taken(&post_with(&format!("Content-Type: {kind}\r\n"))).format, format, "{kind}");
    }
    let twice = "Content-Type: text/plain\r\nContent-Type: application/json\r\n";
    assert_eq!(refused(post_with(twice)), Problem::DoubledField);
}

#[test]
fn a_prefetch_is_seen_in_each_field_that_says_so() {
    for line in [
        "Sec-Purpose: prefetch",
        "Sec-Purpose: prefetch;prerender",
        "Sec-Purpose: prefetch;anonymous-client-ip",
        "Purpose: Prefetch",
        "X-Purpose: preview",
        "X-Moz: prefetch",
    ] {
        assert!(taken(&get_with(&format!("{line}\r\n"))).is_prefetch, "{line}");
    }
    assert!(!taken(&get_with("Sec-Purpose: navigate\r\nX-Purpose: no-prefetch\r\n")).is_prefetch);
}

#[test]
fn who_does_not_want_to_be_tracked_says_so_in_either_field() {
    for (line, is_opted_out) in [
        ("Sec-GPC: 1", true),
        ("dnt: 1", true),
        ("DNT: 0", false),
        ("DNT: null", false),
        ("Sec-GPC: 0", false),
    ] {
        assert_eq!(taken(&get_with(&format!("{line}\r\n"))).is_opted_out, is_opted_out, "{line}");
    }
}

#[test]
fn an_origin_that_cannot_be_echoed_is_none() {
    assert_eq!(taken(&get_with("Origin: null\r\n")).origin, Some(&b"null"[..]));
    let long = "x".repeat(ORIGIN_BYTES_MAX + 1);
    for origin in ["a\tb", "", "\u{e4}", &long] {
        assert_eq!(taken(&get_with(&format!("Origin: {origin}\r\n"))).origin, None, "{origin}");
    }
}

#[test]
fn a_preflight_may_ask_for_a_private_network() {
    let text = get_with("Access-Control-Request-Private-Network: true\r\n").replace("GET", "OPTIONS");
    assert!(taken(&text).asks_private_network);
    assert_eq!(taken(&text).check(&LIMITS), Ok(()));
}

#[test]
fn only_a_body_that_is_to_come_is_waited_for_with_100() {
    assert!(taken(&post_with("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n")).expects_continue);
    assert!(!taken(&post_with("Expect: 100-continue\r\nContent-Length: 0\r\n")).expects_continue);
    assert!(!taken("GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expects_continue);
    assert_eq!(checked("Expect: 200-ok\r\nContent-Length: 1\r\n"), Err(Problem::Expectation));
}

#[test]
fn a_request_is_refused_by_path_method_length_encoding_and_type() {
    let json = "Content-Type: application/json\r\n";
    let of = |line: &str| taken(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).check(&LIMITS);
    assert_eq!(of("POST /v1/nothing"), Err(Problem::NotFound));
    assert_eq!(of("GET /v1/clicks"), Err(Problem::MethodNotAllowed { allow: "POST, OPTIONS" }));
    assert_eq!(of("HEAD /v1/clicks"), Err(Problem::MethodNotAllowed { allow: "POST, OPTIONS" }));
    for path in ["/v1/click/t", "/v1/pixel/t", "/v1/health"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(of(&format!("{method} {path}")), Ok(()));
        }
        let allow = "GET, HEAD, OPTIONS";
        assert_eq!(of(&format!("POST {path}")), Err(Problem::MethodNotAllowed { allow }));
        assert_eq!(of(&format!("DELETE {path}")), Err(Problem::MethodNotAllowed { allow }));
    }
    assert_eq!(checked(json), Err(Problem::LengthRequired));
    assert_eq!(checked(&format!("{json}Content-Length: 262144\r\n")), Ok(()));
    assert_eq!(checked(&format!("{json}Content-Length: 262145\r\n")), Err(Problem::TooLarge));
    assert_eq!(checked(&format!("{json}Transfer-Encoding: chunked\r\n")), Ok(()));
    assert_eq!(checked("Content-Length: 1\r\n"), Err(Problem::UnsupportedType));
    for encoding in ["br", "gzip, zstd", "", "deflate"] {
        let lines = format!("{json}Content-Length: 1\r\nContent-Encoding: {encoding}\r\n");
        assert_eq!(checked(&lines), Err(Problem::UnsupportedEncoding), "{encoding:?}");
    }
    let twice = "Content-Length: 1\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n";
    assert_eq!(checked(twice), Err(Problem::UnsupportedEncoding));
    let body = get_with("Content-Length: 1\r\n");
    assert_eq!(taken(&body).check(&LIMITS), Err(Problem::UnexpectedBody));
    assert!(taken(&body).has_body());
    assert_eq!(taken(&get_with("Content-Length: 0\r\n")).check(&LIMITS), Ok(()));
}

#[test]
fn a_connection_holds_at_most_a_head_and_a_body() {
    assert_eq!(Limits::default().connection_bytes_max(), (8 + 256) << 10);
}

/// Pieces of heads, sound and not, so that random ones go deep.
fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/v1/clicks",
        "/v1/click/t",
        "*",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/2",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "Host: a",
        "Host",
        ":",
        " ",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "X: \u{e4}",
        "\0",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST /v1/clicks HTTP/1.1\r\nHost: a\r\n",
        "Connection: close\r\n",
    ]);
    let piece = prop_oneof![
        8 => pieces.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_head_byte_by_byte_is_the_head_at_once(bytes in any_head(), max in 8usize..200) {
        let limits = Limits { head_bytes_max: max, ..LIMITS };
        let answer = |len: usize| {
            read(&bytes[..len], &limits).map(|taken| taken.map(|(head, len)| (format!("{head:?}"), len)))
        };
        let at_once = answer(bytes.len());
        for len in 0..bytes.len() {
            match answer(len) {
                Ok(None) => prop_assert!(len < max),
                early => {
                    prop_assert_eq!(early, at_once);
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_taken_as_a_head_has_no_other_line_ends_than_cr_lf(bytes in any_head()) {
        if let Ok(Some((_, len))) = read(&bytes, &LIMITS) {
            let head = &bytes[..len];
            prop_assert!(head.ends_with(b"\r\n\r\n"));
            let text = String::from_utf8_lossy(head).replace("\r\n", "");
            prop_assert!(!text.contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn any_bytes_are_a_head_or_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(Some((head, _))) = read(&bytes, &LIMITS) {
            let _ = head.check(&LIMITS);
        }
    }
}
