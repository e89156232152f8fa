//! The sample config is the documentation: it must say what is true, and all of it.

use std::io;

use weir::config::{Config, SAMPLE};
use weir::rx::http::catalog::CatalogError;
use weir::uring::UringError;
use weir_common::reason::Reason;

#[test]
fn the_sample_means_the_same_as_an_empty_file() {
    let sample = Config::parse(SAMPLE).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(sample, Config::parse("").unwrap());
    assert_eq!(sample, Config::default());
}

/// The keys written in the sample, those in comments too, as dotted paths.
fn keys_written(sample: &str) -> Vec<String> {
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in sample.lines() {
        let line = line.trim_start_matches("# ").trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn every_key_that_exists_stands_in_the_sample_and_no_other() {
    let written = keys_written(SAMPLE);
    let known = Config::known_keys();
    let is_section = |key: &String| known.iter().any(|other| other.starts_with(&format!("{key}.")));
    let leaves: Vec<_> = known.iter().filter(|key| !is_section(key)).collect();
    for &key in &leaves {
        assert!(written.contains(key), "{key} is missing in deploy/weir.toml");
    }
    for key in &written {
        assert!(leaves.contains(&key), "deploy/weir.toml names {key}, which does not exist");
    }
    assert!(leaves.len() >= 35, "{leaves:?}");
}

/// The dotted paths that a message to operators names.
fn keys_named(message: &str) -> Vec<&str> {
    let quoted = message.split('`').skip(1).step_by(2);
    // Settings of the kernel are named by dotted paths too.
    let is_key = |text: &&str| text.contains('.') && !text.contains([' ', '/']) && !text.starts_with("net.");
    quoted.filter(is_key).collect()
}

#[test]
fn every_key_that_a_message_sends_the_operator_to_exists() {
    let known = Config::known_keys();
    let (path, source) = (std::path::PathBuf::new(), || io::Error::from(io::ErrorKind::NotFound));
    let errors = [
        CatalogError::Read { path, source: source().into() }.to_string(),
        UringError::Buffers { count: 1, source: source() }.to_string(),
    ];
    let remedies = Reason::ALL.iter().flat_map(|reason| [reason.cause(), reason.remedy()]);
    let named: Vec<_> = remedies.chain(errors.iter().map(String::as_str)).flat_map(keys_named).collect();
    for key in &named {
        assert!(known.contains(*key), "a message names {key}, which does not exist");
    }
    assert!(named.len() >= 12, "{named:?}");
}
