//! Whether the specification keeps its own word: each promise names tests that are there, or says
//! that it is pending. Whether a test holds its promise, only a reader can say.
//!
//! A promise begins with its number in bold at the start of a line, and ends where the next one
//! or a heading begins. Start reading at [`findings`].

use std::collections::BTreeSet;
use std::path::Path;

/// Where the promises stand.
pub(crate) const SPECIFICATION: &str = "docs/specification.md";
/// What a promise without a test says of itself, in any case of letters.
const PENDING: &str = "pending";

/// What is wrong with the promises in `text`. Pure: `read` answers for the tree.
pub(crate) fn findings(text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut numbers = BTreeSet::new();
    for (number, promise) in promises(text) {
        let mut find = |what: String| findings.push(format!("{SPECIFICATION}: promise {number} {what}"));
        if !numbers.insert(number) {
            find("is there twice".to_owned());
        }
        let tests: Vec<_> = tests_in(&promise).collect();
        if tests.is_empty() && !promise.to_lowercase().contains(PENDING) {
            find("names no test and does not say that it is pending".to_owned());
        }
        for (file, test) in tests {
            match read(Path::new(file)) {
                None => find(format!("names {file}, which is not in the tree")),
                Some(source) if !has_test(&source, test) => {
                    find(format!("names {test}, which is no test of {file}"));
                }
                Some(_) => {}
            }
        }
    }
    if numbers.is_empty() {
        findings.push(format!("{SPECIFICATION}: no promise found"));
    }
    findings
}

/// Numbers and texts of the promises.
fn promises(text: &str) -> Vec<(u32, String)> {
    let mut promises: Vec<(u32, String)> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        let head = line.strip_prefix("**").and_then(|rest| rest.split_once(".**"));
        if let Some((number, rest)) = head.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
            promises.push((number, rest.to_owned()));
            is_inside = true;
        } else if line.starts_with('#') {
            is_inside = false;
        } else if let Some((_, promise)) = promises.last_mut().filter(|_| is_inside) {
            promise.push('\n');
            promise.push_str(line);
        }
    }
    promises
}

/// The tests that a promise names, as `file::test` in backquotes.
fn tests_in(promise: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = promise.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once("::")).filter(|(file, _)| file.ends_with(".rs"))
}

/// Whether a source has a test function of this name.
fn has_test(source: &str, test: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_function = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").is_some_and(|rest| is_call_of(rest, test))
    };
    let is_marked = |at: usize| {
        let before = lines[..at].iter().rev();
        before
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| ["#[test]", "#[tokio::test]"].contains(line))
    };
    lines.iter().enumerate().any(|(at, line)| is_function(line) && is_marked(at))
}

fn is_call_of(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| rest.starts_with('('))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(text: &str, expected: &[&str]) {
        let read = |path: &Path| {
            (path == Path::new("a/b.rs")).then(|| {
                "#[test]\n#[expect(x)]\nfn it_holds() {}\n\nfn it_helps() {}\n#[test]\nfn it_holds_too() {}\n\
                 #[tokio::test]\nasync fn it_holds_later() {}\nasync fn it_helps_later() {}\n"
                    .to_owned()
            })
        };
        let expected: Vec<_> = expected.iter().map(|what| format!("{SPECIFICATION}: {what}")).collect();
        assert_eq!(findings(text, &read), expected);
    }

    #[test]
    fn a_promise_with_a_test_that_is_there_or_pending_is_kept() {
        finds("**1.** It holds.\nTest: `a/b.rs::it_holds`\n\n**2.** It will. *Pending*\n", &[]);
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        finds(
            "**1.** It holds.\n\n# pending\n",
            &["promise 1 names no test and does not say that it is pending"],
        );
        finds("Words.\n", &["no promise found"]);
    }

    #[test]
    fn a_test_that_is_gone_is_found() {
        finds(
            "**1.** It holds.\nTests: `a/b.rs::it_held`,\n`a/c.rs::it_holds`\n",
            &[
                "promise 1 names it_held, which is no test of a/b.rs",
                "promise 1 names a/c.rs, which is not in the tree",
            ],
        );
    }

    #[test]
    fn what_is_no_test_does_not_hold_a_promise() {
        finds("**1.** `a/b.rs::it_helps`", &["promise 1 names it_helps, which is no test of a/b.rs"]);
        let finding = "promise 1 names it_helps_later, which is no test of a/b.rs";
        finds("**1.** `a/b.rs::it_helps_later`", &[finding]);
    }

    #[test]
    fn a_test_may_be_async() {
        finds("**1.** It holds.\nTest: `a/b.rs::it_holds_later`\n", &[]);
    }

    #[test]
    fn a_number_is_used_once() {
        finds("**1.** Pending.\n**1.** Pending.\n", &["promise 1 is there twice"]);
    }
}
