//! The HTTP door of a whole node, with clients nobody here wrote: what they send is counted once, answered
//! when it is durable, and stands in the store.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_common::wire::Header;
use weir_labs::clicks::numbered;
use weir_labs::door::{AD, Door, LANDING, Reply, click_json};
use weir_labs::{Node, NodeFolder};
use zerocopy::IntoBytes;

fn started(door: &Door) -> Node<'_> {
    door.folder.start_ready().expect("ready")
}

fn post(door: &Door, content_type: &str, body: &str) -> Reply {
    door.post(content_type, body.as_bytes()).expect("curl")
}

fn outcome(folder: &NodeFolder, name: &str) -> u64 {
    let status = folder.final_status().expect("final status");
    status["clicks"]["outcomes"][name].as_u64().expect("a number")
}

/// Drains a node; the store then holds so many rows, each click once, and its buckets are a recount.
fn drain(door: &Door, node: Node<'_>, rows: u64) {
    node.drain().expect("drain");
    let status = door.folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0, "{:#}", status["clicks"]);
    let found = door.folder.audit(None).expect("audit");
    assert_eq!((&found["audit"]["sound"], &found["audit"]["clicks_twice"]), (&true.into(), &0.into()));
    assert_eq!(found["audit"]["rows"], rows, "{found:#}");
}

#[test]
fn an_object_an_array_lines_and_a_datagram_are_counted_once_and_each_click_has_its_status() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let reply = post(&door, "application/json", &click_json(1));
    assert_eq!((reply.status, reply.statuses()), (202, vec!["created".to_owned()]), "{reply:?}");
    assert_eq!(reply.field("Cache-Control"), Some("no-store"));
    let array = format!("[{}, {}, {{\"event_id\": \"x\", \"ad_id\": 1}}]", click_json(1), click_json(2));
    let reply = post(&door, "application/json", &array);
    assert_eq!(reply.statuses(), ["exists", "created", "malformed"]);
    let json = reply.json();
    assert_eq!(
        (&json["clicks"][2]["field"], &json["clicks"][2]["reason"]),
        (&"event_id".into(), &"bad_field".into())
    );
    let lines = format!("{}\n\n{}\nnothing\n", click_json(3), click_json(2));
    let reply = post(&door, "application/x-ndjson", &lines);
    assert_eq!(reply.statuses(), ["created", "exists", "malformed"]);
    // As `navigator.sendBeacon` sends it.
    assert_eq!(post(&door, "text/plain;charset=UTF-8", &click_json(4)).statuses(), ["created"]);
    let clicks = numbered(9 << 64, 3);
    let datagram = [Header::new(3, size_of_val(clicks.as_slice())).as_bytes(), clicks.as_bytes()].concat();
    let reply = door.post("application/octet-stream", &datagram).expect("curl");
    assert_eq!(reply.statuses(), ["created"; 3]);
    let unknown = "{\"event_id\":\"00000000000000000000000000000009\",\"ad_id\":\"winter\"}";
    let reply = post(&door, "application/json", unknown);
    assert_eq!(reply.json()["clicks"][0]["reason"], "unknown_name", "{reply:?}");
    drain(&door, node, 7);
    assert_eq!((outcome(&door.folder, "duplicate"), outcome(&door.folder, "malformed")), (2, 2));
    assert_eq!(outcome(&door.folder, "refused"), 1);
}

#[test]
fn a_thousand_clicks_of_one_request_are_of_all_workers_and_answered_when_all_are_durable() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let lines: String = (0..1000).map(|number| click_json(number << 40 | number) + "\n").collect();
    let reply = post(&door, "application/x-ndjson", &lines);
    assert_eq!(reply.json()["created"], 1000, "{:?}", reply.head);
    let status = node.status().expect("status");
    assert!(status["clicks"]["handed_off"].as_u64() > Some(100), "{:#}", status["clicks"]);
    assert_eq!(post(&door, "application/x-ndjson", &lines).json()["exists"], 1000);
    drain(&door, node, 1000);
}

#[test]
fn compressed_bodies_are_read_and_a_bomb_is_refused() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    for (number, encoding, program) in [(1, "gzip", "gzip"), (2, "zstd", "zstd")] {
        let Some(body) = compressed(program, click_json(number).as_bytes()) else { continue };
        let encoding = format!("Content-Encoding: {encoding}");
        let reply = door.post_with("application/json", &body, &["--header", &encoding]).expect("curl");
        assert_eq!(reply.statuses(), ["created"], "{encoding}");
    }
    let bomb = compressed("gzip", &vec![b' '; 64 << 20]).expect("gzip is on every system");
    assert!(bomb.len() < 256 << 10, "it is small as it is sent");
    let reply =
        door.post_with("application/json", &bomb, &["--header", "Content-Encoding: gzip"]).expect("curl");
    assert_eq!(reply.status, 413, "{reply:?}");
    let resident_kib = node.resident_kib().expect("memory");
    assert!(resident_kib < 400 << 10, "{resident_kib} KiB");
    node.drain().expect("drain");
}

/// What a program that compresses makes of bytes; none where there is no such program.
fn compressed(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    let child = command.args(["-c", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("without {program}: it is not there");
        return None;
    };
    let (mut input, bytes) = (child.stdin.take().expect("a pipe"), bytes.to_vec());
    let writer = std::thread::spawn(move || input.write_all(&bytes).expect("it reads"));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    Some(output.stdout)
}

#[test]
fn a_link_is_counted_and_leads_to_the_landing_page_of_the_signed_ad_and_nowhere_else() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let (token, other) = (door.token(1).expect("token"), door.token(2).expect("token"));
    let get = |path: &str, more: &[&str]| {
        let url = door.url(path);
        door.curl(&[more, &[&url]].concat()).expect("curl")
    };
    let link = format!("/v1/click/{token}?to=https://evil.example");
    // Who only looks has not clicked.
    assert_eq!(get(&link, &["--head"]).status, 302);
    assert_eq!(get(&link, &["--header", "Sec-Purpose: prefetch"]).status, 302);
    assert_eq!(node.status().expect("status")["clicks"]["received"], 0);
    let reply = get(&link, &[]);
    assert_eq!((reply.status, reply.field("Location")), (302, Some(LANDING)), "{reply:?}");
    assert_eq!(reply.field("Cache-Control"), Some("no-store"));
    assert_eq!(get(&link, &[]).status, 302, "again: a duplicate, and the page all the same");
    // Another ad under the same signature leads nowhere, and counts nothing.
    let mut forged = token.clone().into_bytes();
    forged[24] = if forged[24] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    let reply = get(&format!("/v1/click/{forged}"), &[]);
    assert_eq!((reply.status, reply.field("Location")), (404, None), "{reply:?}");
    assert_eq!(get("/v1/click/https:%2f%2fevil.example", &[]).status, 404);
    let reply = get(&format!("/v1/pixel/{other}"), &[]);
    assert_eq!((reply.status, reply.field("Content-Type")), (200, Some("image/gif")));
    assert!(reply.body.starts_with(b"GIF89a"));
    drain(&door, node, 2);
    assert_eq!((outcome(&door.folder, "accepted"), outcome(&door.folder, "duplicate")), (2, 1));
    let found = door.folder.audit(None).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#} {AD}");
}

#[test]
fn a_catalog_that_is_replaced_is_used_and_one_that_is_broken_is_not() {
    let door = Door::folder("").expect("folder");
    let mut node = started(&door);
    let reloaded = |node: &mut Node<'_>, catalog: &str, told: &str| {
        door.folder.write_private("catalog.toml", catalog).expect("write");
        node.reload_until_told(told).expect("reload");
    };
    let named = |number: u64, name: &str| format!("{{\"event_id\":\"{number:032x}\",\"ad_id\":\"{name}\"}}");
    let statuses = |number, name| post(&door, "application/json", &named(number, name)).statuses();
    assert_eq!(
        (statuses(1, "spring-sale"), statuses(2, "autumn")),
        (vec!["created".into()], vec!["malformed".into()])
    );
    reloaded(&mut node, "[[ads]]\nid = 7\nname = \"autumn\"\n", "the catalog is read again");
    assert_eq!(
        (statuses(3, "spring-sale"), statuses(4, "autumn")),
        (vec!["malformed".into()], vec!["created".into()])
    );
    reloaded(&mut node, "[[ads]]\nname = 7\n", "the catalog is not replaced");
    assert_eq!(statuses(5, "autumn"), ["created"], "the last that could be read");
    drain(&door, node, 3);
}

#[test]
fn beyond_a_budget_clicks_are_told_when_to_come_back_and_then_counted_once() {
    let door = Door::folder("[limits.user]\nclicks_per_s = 1\nburst = 3\n").expect("folder");
    let node = started(&door);
    let click =
        |n: u64, user: &str| format!("{{\"event_id\":\"{n:032x}\",\"ad_id\":1,\"user_id\":\"{user}\"}}");
    let lines: Vec<_> = (0..5).map(|n| click(n, "eager")).collect();
    let reply = post(&door, "application/x-ndjson", &lines.join("\n"));
    let statuses = ["created", "created", "created", "retry", "retry"];
    assert_eq!((reply.status, reply.statuses()), (202, statuses.map(str::to_owned).to_vec()));
    let reply = post(&door, "application/json", &lines[4]);
    assert_eq!((reply.status, reply.statuses()), (429, vec!["retry".to_owned()]), "{reply:?}");
    let wait_s: u64 = reply.field("Retry-After").and_then(|text| text.parse().ok()).expect("seconds");
    assert_eq!(wait_s, 1, "{reply:?}");
    assert_eq!(
        post(&door, "application/json", &click(9, "calm")).statuses(),
        ["created"],
        "another's budget"
    );
    std::thread::sleep(Duration::from_secs(wait_s));
    assert_eq!(post(&door, "application/json", &lines[4]).statuses(), ["created"]);
    assert_eq!(node.status().expect("status")["clicks"]["reasons"]["over_budget"], 3);
    drain(&door, node, 5);
    assert_eq!(outcome(&door.folder, "refused"), 3);
}

#[test]
fn a_page_of_another_site_may_send_clicks() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let url = door.url("/v1/clicks");
    let origin = "Origin: https://news.example";
    let asked =
        ["--request", "OPTIONS", "--header", origin, "--header", "Access-Control-Request-Method: POST", &url];
    let reply = door.curl(&asked).expect("curl");
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(reply.field("Access-Control-Allow-Origin"), Some("https://news.example"));
    let reply = door.post_with("text/plain", click_json(1).as_bytes(), &["--header", origin]).expect("curl");
    assert_eq!(reply.field("Access-Control-Allow-Origin"), Some("https://news.example"));
    drain(&door, node, 1);
}

#[test]
fn what_is_wrong_with_a_request_is_said_with_its_status_and_counted_where_it_was_to_be_a_click() {
    let door = Door::folder("body_max = \"4KiB\"\n").expect("folder");
    let node = started(&door);
    let url = door.url("/v1/clicks");
    let status = |arguments: &[&str]| door.curl(arguments).expect("curl").status;
    assert_eq!(status(&["--request", "PUT", "--data", "x", &url]), 405);
    assert_eq!(status(&[&door.url("/favicon.ico")]), 404);
    assert_eq!(status(&["--header", "Content-Type: image/png", "--data", "x", &url]), 415);
    let large = vec![b'x'; 5000];
    let reply = door.post("application/json", &large).expect("curl");
    assert_eq!((reply.status, reply.field("Connection")), (413, Some("close")), "{reply:?}");
    let without =
        "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    assert!(door.exchange(without.as_bytes()).expect("answer").starts_with("HTTP/1.1 411 "));
    assert_eq!(node.status().expect("status")["clicks"]["received"], 0, "none of these was a click");
    let reply = post(&door, "application/json", "{\"event_id\": ");
    assert_eq!((reply.status, reply.field("Content-Type")), (400, Some("application/problem+json")));
    assert_eq!((&reply.json()["reason"], &reply.json()["cause"]), (&"bad_body".into(), &"bad_json".into()));
    let why = reply.json()["why"].to_string();
    assert!(why.starts_with("\"line 1, column 13: "), "{why}");
    drain(&door, node, 0);
    assert_eq!(outcome(&door.folder, "malformed"), 1);
    // What could not be read is kept for whoever has to find the sender's mistake.
    let records = door.folder.rejects(&[]).expect("rejects");
    assert_eq!(records.len(), 1, "{records:#?}");
    let (reject, body) = (&records[0]["reject"], "7b226576656e745f6964223a20");
    assert_eq!((&reject["input"], &reject["reason"]), (&"body".into(), &"bad_json".into()));
    assert_eq!((&reject["hex"], &reject["source"]), (&body.into(), &"127.0.0.0/24".into()));
}

#[test]
fn pipelined_requests_are_answered_in_their_order_and_a_drain_loses_none() {
    let door = Door::folder("").expect("folder");
    let node = started(&door);
    let mut stream = door.connect().expect("connect");
    let request = |number: u64| {
        let body = click_json(number);
        let head =
            "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
        format!("{head}{}\r\n\r\n{body}", body.len())
    };
    // The second is known by then, the third is not, and the fourth is the third again.
    let requests: String = [1, 1, 2, 2, 3].into_iter().map(request).collect();
    stream.write_all(requests.as_bytes()).expect("write");
    let mut answers = String::new();
    let mut bytes = [0; 4096];
    while answers.matches("\"malformed\":0}").count() < 5 {
        let read = stream.read(&mut bytes).expect("answers");
        assert!(read > 0, "closed after {answers}");
        answers.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let statuses: Vec<_> =
        answers.split("\"status\":\"").skip(1).map(|rest| rest.split('"').next()).collect();
    let expected = ["created", "exists", "created", "exists", "created"].map(Some);
    assert_eq!(statuses, expected);
    drain(&door, node, 3);
    // Idle connections end with the drain.
    assert_eq!(stream.read(&mut bytes).expect("closed"), 0);
}

/// Posts clicks one after the other on a connection until the node is gone; the numbers of those that were
/// answered as created.
fn post_until_gone(door: &Door, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut answered = Vec::new();
    let Ok(mut stream) = door.connect() else { return answered };
    let mut answer = [0; 1024];
    for number in numbers {
        let body = click_json(number);
        let head =
            "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
        let sent = write!(stream, "{head}{}\r\n\r\n{body}", body.len());
        let mut filled = 0;
        while sent.is_ok() && !answer[..filled].ends_with(b"}") {
            match stream.read(&mut answer[filled..]) {
                Ok(read @ 1..) => filled += read,
                _ => return answered,
            }
        }
        if sent.is_err() {
            break;
        }
        if String::from_utf8_lossy(&answer[..filled]).contains("\"created\":1") {
            answered.push(number);
        }
    }
    answered
}

#[test]
fn every_click_that_was_answered_before_a_kill_is_in_the_store_once() {
    const CONNECTIONS: usize = 8;
    let door = Door::folder("").expect("folder");
    let mut answered = BTreeSet::new();
    for life in 0..6_u64 {
        let node = started(&door);
        let from = life * 100_000_000;
        let own = std::thread::scope(|scope| {
            let numbers = |own: usize| (from + own as u64..).step_by(CONNECTIONS);
            let door = &door;
            let senders: Vec<_> = (0..CONNECTIONS)
                .map(|own| scope.spawn(move || post_until_gone(door, numbers(own))))
                .collect();
            std::thread::sleep(Duration::from_millis(300 + life * 70));
            node.kill().expect("kill");
            senders.into_iter().flat_map(|sender| sender.join().expect("sender")).collect::<Vec<_>>()
        });
        assert!(own.len() > CONNECTIONS, "{}", own.len());
        answered.extend(own);
    }
    let node = started(&door);
    let all: Vec<_> = answered.iter().copied().collect();
    for some in all.chunks(1000) {
        let lines: String = some.iter().map(|number| click_json(*number) + "\n").collect();
        let reply = post(&door, "application/x-ndjson", &lines);
        assert_eq!(reply.json()["exists"], some.len(), "all of these were answered");
    }
    node.drain().expect("drain");
    let found: Value = door.folder.audit(None).expect("audit");
    assert_eq!((&found["audit"]["sound"], &found["audit"]["clicks_twice"]), (&true.into(), &0.into()));
    assert!(found["audit"]["rows"].as_u64() >= Some(answered.len() as u64), "{found:#}");
}

#[test]
fn the_first_click_of_the_readme_is_answered_as_it_says() {
    let readme = include_str!("../README.md");
    let (_, behind) = readme.split_once("    curl ").expect("a command");
    let (command, behind) = behind.split_once("\n\n").expect("its end");
    let answer = behind.lines().next().expect("an answer").trim();
    let door = Door::folder("").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let command = format!("curl -s {}", command.replace(":8080", &format!(":{}", door.port())));
    let output = std::process::Command::new("sh").arg("-c").arg(&command).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), answer, "{command}");
    node.drain().expect("drain");
}
