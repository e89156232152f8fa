//! Signed impressions from end to end: minted on the command line, followed as a link, counted, paid and refused by a
//! node that takes nothing unsigned.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weir_common::wire::Click;
use weir_labs::binary;
use weir_labs::door::{AD, Door, LANDING};
use weir_sdk::Token;

/// Not the price that the catalog has for the ad.
const PRICE_MICROS: u64 = 310_000;
const DAY_S: u64 = 24 * 3600;

/// `weir mint` with the key of a door's folder.
fn command(door: &Door, more: &[&str]) -> Command {
    let mut mint = Command::new(binary("weir"));
    mint.args([
        "mint",
        "--issuer",
        "1",
        "--ad",
        &AD.to_string(),
        "--price-micros",
        &PRICE_MICROS.to_string(),
    ]);
    mint.arg("--key").arg(door.folder.key()).args(more);
    mint
}

/// What it prints, a line each.
fn mint(door: &Door, more: &[&str]) -> Vec<String> {
    let output = command(door, more).output().expect("weir runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(output.stdout)
}

fn lines(text: Vec<u8>) -> Vec<String> {
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

/// Follows a link as a browser does, which the landing page is not part of.
fn follow(door: &Door, link: &str) -> (u16, Option<String>) {
    let reply = door.curl(&[link]).expect("curl");
    (reply.status, reply.field("location").map(str::to_owned))
}

fn click(token: &str) -> Click {
    Token::parse(token).expect("a token").click
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The counts of the drained node whose store is sound, and its audit.
fn books(door: &Door) -> (Value, Value) {
    let clicks = door.folder.final_status().expect("final status")["clicks"].clone();
    assert_eq!(clicks["residual"], 0, "{clicks:#}");
    let found = door.folder.audit(None).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}");
    (clicks, found["audit"].clone())
}

/// The door of a node that takes signed clicks alone.
fn door() -> Door {
    let door = Door::folder("").expect("folder");
    door.folder.reconfigure("allow_unsigned", "allow_unsigned = false").expect("config");
    door
}

#[test]
fn a_minted_link_that_is_followed_is_counted_and_paid_at_its_signed_price_once() {
    let door = door();
    let node = door.folder.start_ready().expect("ready");
    let template = format!("{}{{token}}?price={{price}}", door.url("/v1/click/"));
    let links = mint(&door, &["--key-id", "1", "--count", "3", "--link", &template]);
    assert_eq!(links.len(), 3);
    for link in &links {
        assert!(link.ends_with("?price=0.310000"), "{link}");
        for _again in 0..2 {
            assert_eq!(follow(&door, link), (302, Some(LANDING.to_owned())));
        }
    }
    let token = &mint(&door, &["--key-id", "1"])[0];
    let body = format!("{{\"impression\":\"{token}\"}}");
    let reply = door.post("application/json", body.as_bytes()).expect("curl");
    assert_eq!(reply.statuses(), ["created"], "{reply:?}");
    node.drain().expect("drain");
    let (clicks, audit) = books(&door);
    let outcomes = &clicks["outcomes"];
    assert_eq!((&outcomes["accepted"], &outcomes["duplicate"]), (&json!(4), &json!(3)), "{clicks:#}");
    assert_eq!(audit["cost_micros"], 4 * PRICE_MICROS, "and not the catalog's price");
}

#[test]
fn what_was_altered_is_old_new_or_by_nobody_is_refused_each_for_its_reason() {
    let door = door();
    let node = door.folder.start_ready().expect("ready");
    let token = &mint(&door, &["--key-id", "1"])[0];
    let altered = Click { price_micros: (2 * PRICE_MICROS).into(), ..click(token) };
    let at = |issued_at_s: u64| {
        mint(&door, &["--key-id", "1", "--issued-at", &issued_at_s.to_string()]).swap_remove(0)
    };
    let reason = |reason: &str| node.status().expect("status")["clicks"]["reasons"][reason].clone();
    for (text, status, why) in [
        (Token::text(&altered).to_string(), 404, "bad_tag"),
        // Who has a link that was right for a day is led on.
        (at(now_s() - DAY_S - 60), 302, "expired"),
        (at(now_s() + 3600), 302, "not_yet_issued"),
        (mint(&door, &["--key-id", "9"]).swap_remove(0), 404, "unknown_key"),
    ] {
        assert_eq!(reason(why), Value::Null, "{why}");
        assert_eq!(follow(&door, &door.url(&format!("/v1/click/{text}"))).0, status, "{why}");
        assert_eq!(reason(why), 1, "{why}");
    }
    assert_eq!(
        follow(&door, &door.url(&format!("/v1/click/{token}"))).0,
        302,
        "the unaltered one counts still"
    );
    node.drain().expect("drain");
    let (clicks, audit) = books(&door);
    let outcomes = &clicks["outcomes"];
    assert_eq!((&outcomes["accepted"], &outcomes["refused"]), (&json!(1), &json!(4)), "{clicks:#}");
    assert_eq!(audit["cost_micros"], PRICE_MICROS);
}

#[test]
fn no_two_calls_mint_the_same_impression_not_even_side_by_side_or_killed() {
    let door = door();
    let start = |_| -> Child {
        let mut mint = command(&door, &["--key-id", "1", "--count", "2000", "--issued-at", "1800000000"]);
        mint.stdout(Stdio::piped()).spawn().expect("weir runs")
    };
    let mut printed = 0;
    let mut seen = HashSet::new();
    for round in 0..3 {
        let mut calls: Vec<Child> = (0..4).map(start).collect();
        if round == 1 {
            // Wherever it is: its numbers are gone, and nobody else's.
            calls[0].kill().expect("killed");
        }
        for call in calls {
            let output = call.wait_with_output().expect("it ends");
            // Of a call that was killed the last line may be half.
            let tokens = lines(output.stdout).into_iter().filter_map(|line| Token::parse(&line).ok());
            for token in tokens {
                printed += 1;
                assert!(seen.insert(token.click.impression), "{:?} was minted twice", token.click.impression);
            }
        }
    }
    assert!((22_000..=24_000).contains(&printed), "{printed}");
}

/// A crash of the machine forgets what no system call made durable.
#[test]
fn numbers_are_on_the_disk_before_the_first_of_them_is_printed() {
    let door = door();
    let trace = door.file("trace");
    let mut mint = Command::new("strace");
    mint.args(["-y", "-e", "trace=write,fsync,fdatasync", "-o"]).arg(&trace);
    let plain = command(&door, &["--key-id", "1"]);
    let output = mint
        .arg(plain.get_program())
        .args(plain.get_args())
        .output()
        .expect("strace, which cargo xtask setup installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = std::fs::read_to_string(trace).expect("trace");
    let first = |call: &str, file: &str| {
        let is_it = |line: &str| line.starts_with(call) && line.contains(file) && !line.contains("= -1");
        calls.lines().position(is_it).unwrap_or_else(|| panic!("no {call} of {file}:\n{calls}"))
    };
    let folder = format!("<{}>", door.folder.path().display());
    let order = [
        first("fsync(", &folder),
        first("write(", "key.sequence>"),
        first("fdatasync(", "key.sequence>"),
        first("write(1<", ""),
    ];
    assert!(order.is_sorted(), "{order:?}:\n{calls}");
}

#[test]
fn a_key_is_never_printed() {
    let door = door();
    let secret = std::fs::read_to_string(door.folder.key()).expect("key");
    let secret = secret.trim();
    for more in
        [&["--key-id", "1"][..], &["--key-id", "1", "--link", "nowhere"], &["--key-id", "x"], &["--help"]]
    {
        let output = command(&door, more).output().expect("weir runs");
        for said in [output.stdout, output.stderr] {
            assert!(!String::from_utf8_lossy(&said).contains(secret), "{more:?}");
        }
    }
    let numbers = std::fs::read_to_string(door.file("key.sequence")).expect("the sequence file");
    assert!(!numbers.contains(secret));
}
