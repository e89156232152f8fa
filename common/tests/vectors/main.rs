//! Replays `tests/vectors/*.json` against `weir-common`.
//!
//! The files are the truth for every implementation; `tests/vectors/README.md` explains them.
//! Their cases are written here by hand, octet by octet, with the verdict stated beside the
//! bytes and nothing taken from the code under test. A file that differs from its cases, that
//! is not listed here or that the code does not obey is a failure. `WEIR_BLESS=1` rewrites the
//! files from the cases.

mod ack_cases;
mod block_cases;
mod click_cases;
mod datagram_cases;
mod header_cases;
mod octets;
mod row_cases;
mod shard_cases;
mod siphash_cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

/// One vector: its name and its members.
pub(crate) type Case = (String, Value);

/// Every file that may stand in the folder beside its README.
const FILES: [&str; 7] =
    ["acks.json", "blocks.json", "clicks.json", "datagrams.json", "rows.json", "shards.json", "siphash.json"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

/// One vector a line, so that a change of one reads as a change of one.
fn document(about: &str, cases: Vec<Case>) -> String {
    let lines: Vec<String> = cases
        .into_iter()
        .map(|(name, mut members)| {
            members["name"] = json!(name);
            format!("    {members}")
        })
        .collect();
    let about = json!(about);
    format!("{{\n  \"about\": {about},\n  \"vectors\": [\n{}\n  ]\n}}\n", lines.join(",\n"))
}

/// Reads a file, holds it against its cases and gives every vector to `replay`.
fn replay_file(file: &str, about: &str, cases: Vec<Case>, replay: fn(&Value)) {
    let path = folder().join(file);
    let expected = document(about, cases);
    if std::env::var_os("WEIR_BLESS").is_some() {
        fs::write(&path, &expected).expect("the vector folder is writable");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored: Value = serde_json::from_str(&text).expect("the file is JSON");
    let wanted: Value = serde_json::from_str(&expected).expect("the cases are JSON");
    let vectors = stored["vectors"].as_array().expect("the file has a list of vectors");
    let mut names = BTreeSet::new();
    for vector in vectors {
        let name = vector["name"].as_str().expect("a vector has a name");
        assert!(names.insert(name), "{file}: name used twice: {name}");
        let outcome = std::panic::catch_unwind(|| replay(vector));
        assert!(outcome.is_ok(), "{file}: vector {name} does not hold: {vector}");
    }
    let same = stored == wanted;
    assert!(same, "{file} differs from its cases: run with WEIR_BLESS=1 and read the difference");
}

#[test]
fn no_vector_file_goes_unread() {
    let mut found: Vec<String> = fs::read_dir(folder())
        .expect("the vector folder exists")
        .map(|entry| entry.expect("an entry can be read"))
        // A folder has vectors of one part of the daemon, which reads them itself.
        .filter(|entry| !entry.file_type().expect("a type").is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    assert_eq!(found, FILES);
}

#[test]
fn datagrams_meet_the_verdict_of_their_vector() {
    let mut cases = header_cases::cases();
    cases.extend(datagram_cases::cases());
    replay_file("datagrams.json", datagram_cases::ABOUT, cases, datagram_cases::replay);
}

#[test]
fn clicks_meet_the_verdict_of_their_vector() {
    replay_file("clicks.json", click_cases::ABOUT, click_cases::cases(), click_cases::replay);
}

#[test]
fn acks_are_read_as_their_vector_says() {
    replay_file("acks.json", ack_cases::ABOUT, ack_cases::cases(), ack_cases::replay);
}

#[test]
fn tags_are_those_of_their_vector() {
    replay_file("siphash.json", siphash_cases::ABOUT, siphash_cases::cases(), siphash_cases::replay);
}

#[test]
fn shards_are_those_of_their_vector() {
    replay_file("shards.json", shard_cases::ABOUT, shard_cases::cases(), shard_cases::replay);
}

#[test]
fn rows_are_read_as_their_vector_says() {
    replay_file("rows.json", row_cases::ABOUT, row_cases::cases(), row_cases::replay);
}

#[test]
fn block_headers_are_read_as_their_vector_says() {
    replay_file("blocks.json", block_cases::ABOUT, block_cases::cases(), block_cases::replay);
}
