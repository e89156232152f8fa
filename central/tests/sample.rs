//! The sample config says what is.

use std::path::Path;

use weir_central::config::{Config, Serve};

fn load(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

#[test]
fn what_is_commented_out_in_the_sample_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/central.toml");
    let sample = std::fs::read_to_string(path).unwrap();
    // A section without which the sample is as well; its address has no default.
    let sample =
        sample.replace("# [clickhouse]\n", "[clickhouse]\n").replace("# url = \"http", "url = \"http");
    // A line that is a key once its mark is gone; the keys of these sections have no defaults.
    let without = |text: String, section: &str| {
        let (before, after) = text.split_once(section).unwrap();
        [before, after.split_once("\n\n").map_or("", |(_, after)| after)].concat()
    };
    let with_defaults = ["# [[serve.keys]]", "# [billing]"].into_iter().fold(sample.clone(), without);
    let uncommented: String = with_defaults
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.starts_with('[') || key.split(" = ").next().is_some_and(is_key) => key,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let (said, default) = (load(&uncommented), load(&sample));
    assert_eq!(format!("{said:?}"), format!("{default:?}"));
    assert_ne!(uncommented.matches('#').count(), sample.matches('#').count());
    let serve = Serve::default();
    assert_eq!((default.serve.listen, default.serve.cache_bytes), (serve.listen, serve.cache_bytes));
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn the_billing_section_of_the_sample_is_valid_once_it_is_uncommented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/central.toml");
    let sample = std::fs::read_to_string(path).unwrap();
    let (before, billing) = sample.split_once("# [billing]").unwrap();
    let uncommented = [before, "[billing]", &billing.replace("# ", "")].concat();
    let billing = load(&uncommented).billing.unwrap();
    assert!(billing.password_file.is_some() && billing.owner_password_file.is_some());
    assert!(billing.login().is_ok() && billing.owner().is_ok());
}
