//! What of a config and of a log may be shown: everything but secrets, names of accounts, and whole
//! addresses. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::{Table, Value};

use crate::config::SAMPLE;

/// Keys whose value says who somebody is.
const PERSONAL: [&str; 1] = ["user"];
const HIDDEN: &str = "(left out)";
/// What a log has of an address at the most: as on the disk.
const IPV4_BITS: u8 = 24;
const IPV6_BITS: u8 = 48;

/// The config without comments, and without the values of keys that no config has: what was put there by mistake
/// may be a secret. `None` where it is no TOML, and nobody can tell what it holds.
#[must_use]
pub(crate) fn config(text: &str) -> Option<String> {
    let mut table: Table = text.parse().ok()?;
    let known: Table = SAMPLE.parse().ok()?;
    for (section, value) in &mut table {
        hide(section, value, known.get(section));
    }
    toml::to_string_pretty(&table).ok()
}

/// Hides what `sample` does not know of a value, and what it has of persons.
fn hide(key: &str, value: &mut Value, sample: Option<&Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                hide(key, value, sample.and_then(|sample| sample.get(key)));
            }
        }
        // Sections that come several times stand in the sample as a comment.
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter_mut().filter_map(Value::as_table_mut).for_each(hide_repeated);
        }
        other => {
            let is_empty = other.as_str() == Some("");
            if !is_empty && (sample.is_none() || PERSONAL.contains(&key)) {
                *other = Value::String(HIDDEN.to_owned());
            }
        }
    }
}

/// Of a section that comes several times: numbers, and the names of files.
fn hide_repeated(section: &mut Table) {
    for (key, value) in section.iter_mut() {
        let is_told =
            matches!(value, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) || key == "file";
        if !is_told {
            *value = Value::String(HIDDEN.to_owned());
        }
    }
}

/// A line of a log, with the networks of addresses in their place.
#[must_use]
pub(crate) fn log_line(line: &str) -> String {
    let is_part = |character: char| character.is_ascii_hexdigit() || matches!(character, '.' | ':');
    let mut redacted = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(begin) = rest.find(is_part) {
        let (before, from) = rest.split_at(begin);
        let len = from.find(|character| !is_part(character)).unwrap_or(from.len());
        let (word, after) = from.split_at(len);
        redacted.push_str(before);
        redacted.push_str(&coarse(word));
        rest = after;
    }
    redacted.push_str(rest);
    redacted
}

/// The network of a word that is an address, with or without a port or a full stop; any other word as it is.
fn coarse(word: &str) -> String {
    let trimmed = word.trim_end_matches(['.', ':']);
    let (host, port) = match (trimmed.parse::<IpAddr>(), trimmed.rsplit_once(':')) {
        (Err(_), Some((host, port))) => (host, &trimmed[trimmed.len() - port.len() - 1..]),
        _ => (trimmed, ""),
    };
    match host.parse::<IpAddr>() {
        Ok(address) if !address.is_loopback() && !address.is_unspecified() => {
            let bits = if address.is_ipv4() { IPV4_BITS } else { IPV6_BITS };
            let network = IpNet::new(address, bits).map_or(HIDDEN.to_owned(), |net| net.trunc().to_string());
            format!("{network}{port}{}", &word[trimmed.len()..])
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_keeps_what_it_means_and_loses_who_it_names() {
        let text = "[node]\nid = 7\n# a remark\nsecret = \"hunter2\"\n[kafka]\nbrokers = [\"kafka1:9092\"]\n\
                    [kafka.sasl]\nuser = \"alice\"\npassword_file = \"/etc/weir/kafka\"\n\
                    [[keys]]\nissuer = 1\nkey = 2\nfile = \"keys/1-2.hex\"\nvalue = \"00ff\"\n[unheard]\nof = \"me\"\n";
        let redacted = config(text).expect("it is TOML");
        for kept in ["id = 7", "kafka1:9092", "/etc/weir/kafka", "keys/1-2.hex", "issuer = 1"] {
            assert!(redacted.contains(kept), "{kept} in\n{redacted}");
        }
        for gone in ["hunter2", "alice", "00ff", "\"me\"", "remark"] {
            assert!(!redacted.contains(gone), "{gone} in\n{redacted}");
        }
        assert_eq!(config("[node\nid"), None);
    }

    #[test]
    fn the_sample_is_shown_whole() {
        let redacted = config(SAMPLE).expect("it is TOML");
        assert!(!redacted.contains(HIDDEN), "{redacted}");
    }

    #[test]
    fn a_log_has_networks_in_place_of_addresses() {
        for (line, expected) in [
            ("peer 192.0.2.77 left", "peer 192.0.2.0/24 left"),
            ("from 192.0.2.77:4711.", "from 192.0.2.0/24:4711."),
            ("from [2001:db8:1:2::3]:80", "from [2001:db8:1::/48]:80"),
            (
                "at 2026-11-22T10:00:00.123456Z, 127.0.0.1:7000 and 0.0.0.0",
                "at 2026-11-22T10:00:00.123456Z, 127.0.0.1:7000 and 0.0.0.0",
            ),
            ("version 0.1.0, fade.cafe: 3", "version 0.1.0, fade.cafe: 3"),
        ] {
            assert_eq!(log_line(line), expected);
        }
    }
}
