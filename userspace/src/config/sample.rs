//! What the commented sample says of one key: its comment and its default.
//!
//! The sample is the documentation of the config, and this reads it rather than say it again.

use std::fmt;

use super::SAMPLE;

/// A key of the config, as the sample has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleKey {
    /// Its dotted path.
    pub path: String,
    /// The comment above it, or above the first of the keys that share one.
    pub comment: String,
    /// The value that stands there.
    pub value: String,
    /// Whether it stands in a comment: then the value is an example and no default.
    pub is_example: bool,
}

impl fmt::Display for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_example { "for example" } else { "default" };
        write!(f, "{} (key of the config, {what} {})", self.path, self.value)
    }
}

/// Every key that stands in the sample, in its order.
#[must_use]
pub fn sample_keys() -> Vec<SampleKey> {
    keys_of(SAMPLE)
}

fn keys_of(sample: &str) -> Vec<SampleKey> {
    let (mut section, mut keys) = (String::new(), Vec::new());
    let mut comment: Vec<&str> = Vec::new();
    // Keys that follow each other share the comment above the first of them.
    let mut is_shared = false;
    for line in sample.lines() {
        let (bare, is_comment) = match line.strip_prefix('#') {
            Some(rest) => (rest.trim(), true),
            None => (line.trim(), false),
        };
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim_matches(['[', ']']).clone_into(&mut section);
            if !is_comment {
                comment.clear();
            }
        } else if let Some((key, value)) = key_and_value(bare) {
            let (path, comment) = (format!("{section}.{key}"), comment.join(" "));
            keys.push(SampleKey { path, comment, value: value.to_owned(), is_example: is_comment });
            is_shared = true;
        } else if bare.is_empty() && !is_comment {
            comment.clear();
        } else if !bare.is_empty() {
            if std::mem::take(&mut is_shared) {
                comment.clear();
            }
            comment.push(bare);
        }
    }
    keys
}

fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn key(path: &str) -> SampleKey {
        sample_keys()
            .into_iter()
            .find(|key| key.path == path)
            .unwrap_or_else(|| panic!("{path} is not there"))
    }

    #[test]
    fn every_key_of_a_config_has_a_comment_or_stands_in_a_section_of_budgets() {
        let known = Config::known_keys();
        let is_section = |path: &&String| known.iter().any(|other| other.starts_with(&format!("{path}.")));
        for path in known.iter().filter(|path| !is_section(path)) {
            let found = key(path);
            let says_nothing = found.comment.is_empty();
            // The budgets are said once, above `limits.keys`; the rest of a cluster's log-in as in `[kafka]`.
            assert!(!says_nothing || path.starts_with("limits."), "{path}");
            assert!(!found.value.is_empty(), "{path}");
        }
    }

    #[test]
    fn a_key_has_the_comment_above_it_and_its_default() {
        let found = key("journal.ack");
        assert_eq!(
            found.comment,
            "What an ack promises: \"disk\", the click survives a power cut of this node."
        );
        assert_eq!(found.to_string(), "journal.ack (key of the config, default \"disk\")");
    }

    #[test]
    fn keys_that_follow_each_other_share_a_comment_and_those_in_comments_are_examples() {
        assert_eq!(key("rx.http.decoded_max").comment, key("rx.http.body_max").comment);
        assert_ne!(key("rx.http.head_timeout").comment, key("rx.http.body_max").comment);
        let issuer = key("keys.issuer");
        assert!(
            issuer.is_example && issuer.comment.starts_with("The keys ad servers sign with"),
            "{issuer:?}"
        );
        assert!(!key("steer.rate.burst").comment.contains("Source prefixes"));
    }
}
