//! Bodies of several clicks, and what the request says beside them.

use weir_common::wire::{CLICK_LEN, Header};
use zerocopy::IntoBytes;

use super::*;

#[test]
fn half_of_a_surrogate_pair_costs_only_its_click() {
    let good = format!(r#"{{"event_id":"{ID}","ad_id":1}}"#);
    let half = format!(r#"{{"event_id":"{ID}","ad_id":1,"session_id":"\ud800"}}"#);
    let items = read_all(Format::Json, &format!("[{half},{good}]")).expect("an array");
    assert_eq!(items[0].as_ref().map_err(|fault| (fault.reason, fault.field)), Err(bad("session_id")));
    assert!(items[1].is_ok());
}

#[test]
fn what_the_request_says_is_used_where_a_click_says_nothing() {
    let sender = Sender {
        user_agent: Some(b"agent"),
        referrer: Some(b"page"),
        is_prefetch: true,
        received_at: NOW,
        ..Sender::default()
    };
    let body =
        format!(r#"[{{"event_id":"{ID}","ad_id":1}},{{"event_id":"{ID}","ad_id":1,"user_agent":"own"}}]"#);
    let both = read_from(Format::Json, body.as_bytes(), &sender).expect("an array");
    let extensions = [&b"agent"[..], b"own"]
        .map(|agent| extension_of(&[(kind::USER_AGENT, agent), (kind::REFERRER, b"page")]));
    for (item, expected) in both.iter().zip(extensions) {
        let (click, extension) = item.as_ref().expect("a sound click");
        assert_eq!(*extension, expected);
        assert_eq!(click.flags, click_flags::FOREIGN | click_flags::PREFETCH);
    }
    let mut clicks = Clicks::default();
    of_token(&Token { click: signed() }, &sender, &mut clicks);
    let expected = extension_of(&[(kind::USER_AGENT, b"agent"), (kind::REFERRER, b"page")]);
    let click = Click {
        clicked_at_ms: NOW.0.into(),
        flags: click_flags::PREFETCH,
        extension_len: (expected.len() as u16).into(),
        ..signed()
    };
    assert_eq!(items(&clicks), [Ok((click, expected))]);
}

#[test]
fn a_bad_click_costs_only_itself() {
    let good = format!(r#"{{"event_id":"{ID}","ad_id":1}}"#);
    let array = format!(r#"[{good},{{"ad_id":1}},17,null,"x",[{good}],true,-1,1.5,{good}]"#);
    let lines = format!(
        "{good}\n{{\"ad_id\":1}}\n\n17\r\n  \nnull\n\"x\"\n[{good}]\n{{\"ad_id\":\n{good} 1\n-1\n{good}"
    );
    for (format, body) in
        [(Format::Json, &array), (Format::Text, &array), (Format::Lines, &lines), (Format::Text, &lines)]
    {
        let items = read_all(format, body).expect("clicks that can be told apart");
        let sound: Vec<_> = items.iter().map(Result::is_ok).collect();
        let mut expected = vec![false; 10];
        expected[0] = true;
        *expected.last_mut().expect("some") = true;
        assert_eq!(sound, expected, "{format:?}");
    }
    let items = read_all(Format::Lines, &lines).expect("lines");
    let why = |at: usize| items[at].as_ref().map_err(|fault| (fault.reason, fault.why.as_str())).map(|_| ());
    assert_eq!(why(6), Err((Reason::BadJson, "line 9, column 9: EOF while parsing a value")));
}

#[test]
fn broken_json_costs_the_whole_body_and_says_where() {
    let good = format!(r#"{{"event_id":"{ID}","ad_id":1}}"#);
    for (format, body, line) in [
        (Format::Json, format!("[{good},\n{{\"ad_id\":}}]"), "line 2, column 10: "),
        (Format::Json, format!("[{good}\n"), "line 2, column 0: "),
        (Format::Json, format!("{good}\n{good}"), "line 2, column 1: "),
        (Format::Json, format!("[{good},]"), "line 1, column "),
        (Format::Text, "{\n\"ad_id\": 1\n,}\n".to_owned(), "line 3, column 2: "),
        (Format::Json, "17".to_owned(), "neither an object"),
        (Format::Json, "{\"ad_id\":\"a\u{1}\"}".to_owned(), "line 1, column "),
    ] {
        let fault = read_all(format, &body).expect_err(&body);
        assert_eq!((fault.outcome, fault.reason, fault.field), (Outcome::Malformed, Reason::BadJson, ""));
        assert!(fault.why.starts_with(line), "{}", fault.why);
    }
    let fault = read_from(Format::Json, b"{\"a\":\"\xff\"}", &Sender::default()).expect_err("not UTF-8");
    assert_eq!((fault.reason, fault.why.as_str()), (Reason::BadJson, "not UTF-8 from byte 7 on"));
}

#[test]
fn a_body_has_between_one_click_and_a_thousand() {
    for (format, body) in
        [(Format::Json, ""), (Format::Json, "[]"), (Format::Lines, "\n \n"), (Format::Text, " ")]
    {
        let fault = read_all(format, body).expect_err("no click");
        assert_eq!(
            (fault.outcome, fault.reason),
            (Outcome::Malformed, Reason::BadCount),
            "{format:?} {body:?}"
        );
    }
    let good = format!(r#"{{"event_id":"{ID}","ad_id":1}}"#);
    for count in [CLICKS_MAX, CLICKS_MAX + 1] {
        let clicks = vec![good.as_str(); count];
        for (format, body) in [
            (Format::Json, format!("[{}]", clicks.join(","))),
            (Format::Lines, clicks.join("\n")),
            (Format::Text, clicks.join("\n")),
            (Format::Json, format!("[{}]", vec!["1"; count].join(","))),
            (Format::Lines, vec!["x"; count].join("\n")),
        ] {
            let read = read_all(format, &body).map(|items| items.len()).map_err(|fault| fault.reason);
            assert_eq!(
                read,
                if count > CLICKS_MAX { Err(Reason::BadCount) } else { Ok(CLICKS_MAX) },
                "{format:?}"
            );
        }
    }
}

#[test]
fn a_beacon_is_told_by_its_content() {
    let pretty = format!("\n{{\n\"event_id\":\"{ID}\",\n\"ad_id\":1\n}}\n");
    let flat = pretty.replace('\n', "");
    for (body, count) in [
        (pretty, 1),
        (format!(" [{flat},{flat}]"), 2),
        (format!("{flat}\n{flat}\r\n{flat}\n"), 3),
        // A line of its own: what is wrong with it is not the others' fault.
        (format!("nonsense\n{flat}"), 2),
        (format!("{{\"a\n{flat}"), 2),
    ] {
        assert_eq!(read_all(Format::Text, &body).map(|items| items.len()), Ok(count), "{body}");
    }
}

#[test]
fn a_datagram_is_taken_as_it_is() {
    let click = Click { extension_len: 4.into(), flags: 0xe0, ..signed() };
    let header = Header::new(2, 2 * (CLICK_LEN + 4));
    let mut body = [header.as_bytes(), click.as_bytes(), b"abcd", click.as_bytes(), b"efgh"].concat();
    let expected = [Ok((click, b"abcd".to_vec())), Ok((click, b"efgh".to_vec()))];
    assert_eq!(read_from(Format::Datagram, &body, &Sender::default()), Ok(expected.to_vec()));
    body.pop();
    let fault = read_from(Format::Datagram, &body, &Sender::default()).expect_err("cut");
    assert_eq!((fault.outcome, fault.reason), (Outcome::Malformed, Reason::BadLength));
}
