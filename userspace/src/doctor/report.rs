//! Findings as a table for people, and as JSON for scripts.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::finding::{Finding, NOTHING, Severity};
use crate::folding::folded;

/// The width that texts are folded at, where no word is longer.
const COLUMNS: usize = 100;
/// Before what goes on in another line.
const INDENT: &str = "            ";

/// All findings of one look. The field names are those of the JSON, and stay.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The config that was asked for.
    pub config: String,
    /// Whether a node of this config answered.
    pub running: bool,
    /// The worst severity of all.
    pub worst: Severity,
    /// What was found, condition by condition.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(config: &Path, running: bool, findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|found| found.severity).max().unwrap_or(Severity::Ok);
        Self { config: config.display().to_string(), running, worst, findings }
    }

    /// Whether nothing is fatal.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.worst < Severity::Fatal
    }

    /// One JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and names alone: nothing of it can fail to be written.
        serde_json::to_string_pretty(self).expect("texts are JSON")
    }

    /// The table: what is ok on one line each, the rest with what is required, what is there and what mends it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for found in &self.findings {
            let subject = found.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
            let named = format!("{}{subject}", found.condition);
            if found.severity == Severity::Ok {
                let required = match found.required.as_str() {
                    NOTHING => String::new(),
                    required => format!(" (required: {required})"),
                };
                line(&mut text, found.severity.name(), &format!("{named}: {}{required}", found.current));
                continue;
            }
            line(&mut text, found.severity.name(), &named);
            for (title, value) in
                [("required", &found.required), ("current", &found.current), ("fix", &found.fix)]
            {
                line(&mut text, "", &format!("{title}: {value}"));
            }
        }
        let count = |severity| self.findings.iter().filter(|found| found.severity == severity).count();
        let counts: Vec<_> =
            Severity::ALL.iter().rev().map(|&each| format!("{} {}", count(each), each.name())).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}; `weir explain NAME` says why each matters", counts.join(", "));
        text
    }
}

/// A line behind a severity, folded.
fn line(text: &mut String, severity: &str, words: &str) {
    for line in folded(&format!("{severity:<9}"), INDENT, words, COLUMNS) {
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::Condition;
    use super::super::finding::Verdict;
    use super::*;

    fn report(severities: &[Severity]) -> Report {
        let found = |&severity: &Severity| {
            Verdict::new(severity, "6.1", "5.15").of(Condition::Kernel, Some("this".to_owned()))
        };
        Report::new(Path::new("weir.toml"), false, severities.iter().map(found).collect())
    }

    #[test]
    fn only_what_is_fatal_keeps_a_node_from_starting() {
        for severity in Severity::ALL {
            assert_eq!(report(&[Severity::Ok, severity]).may_start(), severity != Severity::Fatal);
        }
        assert_eq!(report(&[Severity::Warning, Severity::Note]).worst, Severity::Warning);
        assert_eq!(report(&[]).worst, Severity::Ok);
    }

    #[test]
    fn a_finding_that_is_not_ok_says_required_current_and_fix() {
        let text = report(&[Severity::Ok, Severity::Fatal]).text();
        assert_eq!(
            text,
            "\
ok       kernel this: 5.15 (required: 6.1)
fatal    kernel this
         required: 6.1
         current: 5.15
         fix: Install Linux 6.1 or newer, such as that of Debian 12.

1 fatal, 0 warning, 0 unknown, 0 note, 1 ok; `weir explain NAME` says why each matters
"
        );
    }

    #[test]
    fn long_texts_are_folded() {
        let mut text = String::new();
        line(&mut text, "note", &"word ".repeat(60));
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with(INDENT)), "{text}");
    }

    #[test]
    fn every_finding_has_every_field_in_json() {
        let json: serde_json::Value = serde_json::from_str(&report(&Severity::ALL).json()).expect("json");
        for found in json["findings"].as_array().expect("a list") {
            let keys: Vec<_> = found.as_object().expect("a finding").keys().cloned().collect();
            assert_eq!(keys.len(), 6);
            for key in ["condition", "subject", "required", "current", "severity", "fix"] {
                assert!(keys.iter().any(|found| found == key), "{key}");
            }
        }
        assert_eq!((&json["worst"], &json["running"]), (&"fatal".into(), &false.into()));
    }
}
