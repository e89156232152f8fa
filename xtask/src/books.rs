//! Closes the books: what a generator sent against what a daemon counted, to the click.
//!
//! Pure: two JSON documents in, lines out. Each line compares two numbers that were counted by
//! different programs, and its residual must be 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::status::{grouped, number, numbers};

/// One comparison.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    section: &'static str,
    name: String,
    expected: i128,
    counted: i128,
    /// More may be counted than was sent: the kernel's own packets pass here too.
    at_least: bool,
}

impl Line {
    fn new(section: &'static str, name: &str, expected: impl Into<i128>, counted: impl Into<i128>) -> Self {
        let (expected, counted) = (expected.into(), counted.into());
        Self { section, name: name.to_owned(), expected, counted, at_least: false }
    }

    /// What is missing, if positive; what nobody can account for, if negative.
    fn residual(&self) -> i128 {
        let residual = self.expected - self.counted;
        if self.at_least { residual.max(0) } else { residual }
    }
}

/// The books of one run.
#[derive(Debug)]
pub(crate) struct Books {
    kinds: Vec<(String, u64, u64)>,
    lines: Vec<Line>,
    unseen: Vec<(String, u64)>,
}

const FRAMES: &str = "frames, by the XDP program";
const OUTCOMES: &str = "clicks by outcome";
const REASONS: &str = "clicks by reason";
const WHOLE: &str = "the whole";

/// Reasons to refuse that pass: the sender is told to retry, and only the node knows which it was.
const PASSING: [&str; 4] = ["table_full", "journal_full", "handoff_full", "draining"];

impl Books {
    /// Compares a generator's report with a daemon's last status.
    ///
    /// Fails when the report lacks what a comparison needs: an empty report must not pass for
    /// closed books.
    pub(crate) fn close(report: &Value, status: &Value) -> Result<Self> {
        let of_report = [
            "/kinds",
            "/expected/frames",
            "/expected/datagrams_delivered",
            "/expected/clicks/outcomes",
            "/expected/clicks/reasons",
            "/expected/clicks/retried",
            "/expected/clicks_sent_total",
        ];
        if let Some(part) = of_report.iter().find(|part| report.pointer(part).is_none()) {
            bail!("the generator's report has no {part}");
        }
        let of_status = ["/frames", "/clicks/received", "/clicks/outcomes", "/clicks/reasons", "/workers"];
        if let Some(part) = of_status.iter().find(|part| status.pointer(part).is_none()) {
            bail!("the daemon's status has no {part}");
        }
        let mut lines = frames(report, status);
        lines.extend(delivered(report, status));
        lines.extend(clicks(report, status));
        lines.extend(whole(report, status));
        Ok(Self { kinds: kinds(report), lines, unseen: numbers(status, "/clicks/unseen") })
    }

    /// The sum of all residuals, each without its sign: opposite mistakes do not cancel out.
    pub(crate) fn residual(&self) -> u128 {
        self.lines.iter().map(|line| line.residual().unsigned_abs()).sum()
    }

    /// Whether every line agrees.
    pub(crate) fn closed(&self) -> bool {
        self.residual() == 0
    }
}

fn kinds(report: &Value) -> Vec<(String, u64, u64)> {
    let kinds = report.pointer("/kinds").and_then(Value::as_array).into_iter().flatten();
    let name = |kind: &Value| kind.pointer("/name").and_then(Value::as_str).unwrap_or("?").to_owned();
    kinds.map(|kind| (name(kind), number(kind, "/frames"), number(kind, "/clicks"))).collect()
}

/// Every frame reason that was expected, and every drop that was not.
fn frames(report: &Value, status: &Value) -> Vec<Line> {
    let expected = table(report, "/expected/frames");
    let counted = frames_counted(status);
    let class = |name: &str| counted.get(name).map_or("", |(class, _)| class.as_str());
    // Which core got a frame is not the sender's to know: delivered ones are compared as a whole.
    // What passed unexpected (neighbour discovery and the like) is not ours.
    let surprises = counted.keys().filter(|name| !matches!(class(name), "passed" | "delivered"));
    let names: BTreeSet<_> = expected.keys().chain(surprises).collect();
    let line = |name: &String| Line {
        at_least: class(name) == "passed",
        ..Line::new(
            FRAMES,
            name,
            expected.get(name).copied().unwrap_or(0),
            counted.get(name).map_or(0, |(_, packets)| *packets),
        )
    };
    names.into_iter().map(line).collect()
}

/// Reason, class and number of the frames that the XDP program counted.
fn frames_counted(status: &Value) -> BTreeMap<String, (String, u64)> {
    let frames = status.pointer("/frames").and_then(Value::as_array).into_iter().flatten();
    let text =
        |frame: &Value, pointer| frame.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    frames.map(|frame| (text(frame, "/reason"), (text(frame, "/class"), number(frame, "/packets")))).collect()
}

/// Datagrams on their way from the sender to the workers.
fn delivered(report: &Value, status: &Value) -> [Line; 2] {
    let counted = frames_counted(status);
    let delivered = counted.values().filter(|(class, _)| class == "delivered").map(|(_, packets)| packets);
    let delivered: u64 = delivered.sum();
    let workers = status.pointer("/workers").and_then(Value::as_array).into_iter().flatten();
    let read: u64 = workers.map(|worker| number(worker, "/datagrams")).sum();
    let unseen: u64 = numbers(status, "/clicks/unseen").iter().map(|(_, count)| count).sum();
    let sent = number(report, "/expected/datagrams_delivered");
    [
        Line::new(FRAMES, "delivered (steered or local)", sent, delivered),
        Line::new(FRAMES, "delivered = read by workers + unseen", delivered, read + unseen),
    ]
}

/// Every outcome and reason that either side has.
fn clicks(report: &Value, status: &Value) -> Vec<Line> {
    let retried = number(report, "/expected/clicks/retried");
    let mut expected = table(report, "/expected/clicks/outcomes");
    *expected.entry("refused".to_owned()).or_default() += retried;
    let mut lines = compare(OUTCOMES, &expected, &table(status, "/clicks/outcomes"));
    let mut counted = table(status, "/clicks/reasons");
    let passing: u64 = PASSING.iter().filter_map(|reason| counted.remove(*reason)).sum();
    lines.extend(compare(REASONS, &table(report, "/expected/clicks/reasons"), &counted));
    lines.push(Line::new(REASONS, "told to retry", retried, passing));
    lines
}

fn table(document: &Value, pointer: &str) -> BTreeMap<String, u64> {
    numbers(document, pointer).into_iter().collect()
}

fn compare(
    section: &'static str,
    expected: &BTreeMap<String, u64>,
    counted: &BTreeMap<String, u64>,
) -> Vec<Line> {
    let names: BTreeSet<_> = expected.keys().chain(counted.keys()).collect();
    let of = |table: &BTreeMap<String, u64>, name| table.get(name).copied().unwrap_or(0);
    names.into_iter().map(|name| Line::new(section, name, of(expected, name), of(counted, name))).collect()
}

/// Nothing between the sender and the outcomes is lost, and nothing appears.
fn whole(report: &Value, status: &Value) -> [Line; 3] {
    let received = number(status, "/clicks/received");
    let decided: u64 = numbers(status, "/clicks/outcomes").iter().map(|(_, count)| count).sum();
    let (off, over) = (number(status, "/clicks/handed_off"), number(status, "/clicks/taken_over"));
    [
        Line::new(
            WHOLE,
            "sent in sound form = received",
            number(report, "/expected/clicks_sent_total"),
            received,
        ),
        Line::new(WHOLE, "received = sum of outcomes", received, decided),
        Line::new(WHOLE, "handed off = taken over", off, over),
    ]
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40} {:>13} {:>13}", "sent by the generator", "frames", "clicks")?;
        for (name, frames, clicks) in &self.kinds {
            let (frames, clicks) = (grouped((*frames).into()), grouped((*clicks).into()));
            writeln!(f, "  {name:<38} {frames:>13} {clicks:>13}")?;
        }
        let mut section = "";
        for line in &self.lines {
            if line.section != section {
                section = line.section;
                writeln!(f, "\n{section:<40} {:>13} {:>13} {:>10}", "expected", "counted", "residual")?;
            }
            let mark = match (line.residual(), line.at_least) {
                (0, true) => "  (at least)",
                (0, false) => "",
                _ => "  <--",
            };
            let (expected, counted) = (grouped(line.expected), grouped(line.counted));
            writeln!(
                f,
                "  {:<38} {expected:>13} {counted:>13} {:>10}{mark}",
                line.name,
                grouped(line.residual())
            )?;
        }
        let unseen: u64 = self.unseen.iter().map(|(_, count)| count).sum();
        write!(f, "\nunseen (lost before Weir saw it): {}", grouped(unseen.into()))?;
        for (name, count) in &self.unseen {
            write!(f, ", {name} {}", grouped((*count).into()))?;
        }
        f.write_char('\n')?;
        let residual = i128::try_from(self.residual()).unwrap_or(i128::MAX);
        let verdict = if self.closed() { "the books close" } else { "THE BOOKS DO NOT CLOSE" };
        writeln!(f, "residual in total: {}: {verdict}", grouped(residual))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        json!({
            "valid": true,
            "kinds": [
                { "name": "fresh", "frames": 0, "clicks": 90 },
                { "name": "bad_tag", "frames": 0, "clicks": 5 },
                { "name": "bad_magic", "frames": 7, "clicks": 0 },
            ],
            "expected": {
                "frames": { "bad_magic": 7, "not_udp": 2 },
                "datagrams_delivered": 12,
                "clicks": {
                    "outcomes": { "accepted": 90, "duplicate": 3, "refused": 5 },
                    "reasons": { "bad_tag": 5 },
                    "retried": 2,
                },
                "clicks_sent_total": 100,
            },
        })
    }

    fn status() -> Value {
        json!({
            "steering": { "rung": "native", "reasons": [] },
            "frames": [
                { "reason": "not_udp", "class": "passed", "packets": 9, "bytes": 1 },
                { "reason": "not_ip", "class": "passed", "packets": 4, "bytes": 1 },
                { "reason": "steered", "class": "delivered", "packets": 7, "bytes": 1 },
                { "reason": "local", "class": "delivered", "packets": 5, "bytes": 1 },
                { "reason": "bad_magic", "class": "malformed", "packets": 7, "bytes": 1 },
            ],
            "clicks": {
                "received": 100,
                "outcomes": { "accepted": 90, "repeat": 0, "duplicate": 3, "refused": 7 },
                "reasons": { "bad_tag": 5, "handoff_full": 2 },
                "unseen": {},
                "handed_off": 40,
                "taken_over": 40,
            },
            "workers": [{ "datagrams": 8 }, { "datagrams": 4 }],
        })
    }

    /// The lines that do not agree after one value of the status was changed.
    #[track_caller]
    fn open_lines(pointer: &str, value: Value) -> Vec<(String, i128)> {
        let mut status = status();
        *status.pointer_mut(pointer).unwrap() = value;
        let books = Books::close(&report(), &status).unwrap();
        assert_eq!(books.closed(), books.residual() == 0);
        let open = books.lines.iter().filter(|line| line.residual() != 0);
        open.map(|line| (line.name.clone(), line.residual())).collect()
    }

    #[test]
    fn books_close_when_every_number_was_counted_twice_alike() {
        let books = Books::close(&report(), &status()).unwrap();
        assert!(books.closed(), "{books}");
        assert!(books.to_string().ends_with("residual in total: 0: the books close\n"), "{books}");
    }

    #[test]
    fn one_click_more_or_less_opens_the_books_where_it_happened() {
        assert_eq!(
            open_lines("/clicks/outcomes/accepted", json!(91)),
            [("accepted".to_owned(), -1), ("received = sum of outcomes".to_owned(), -1),]
        );
        assert_eq!(
            open_lines("/clicks/received", json!(99)),
            [("sent in sound form = received".to_owned(), 1), ("received = sum of outcomes".to_owned(), -1),]
        );
        assert_eq!(open_lines("/clicks/reasons/bad_tag", json!(4)), [("bad_tag".to_owned(), 1)]);
        assert_eq!(open_lines("/clicks/reasons/handoff_full", json!(3)), [("told to retry".to_owned(), -1)]);
        assert_eq!(open_lines("/clicks/taken_over", json!(39)), [("handed off = taken over".to_owned(), 1)]);
    }

    #[test]
    fn a_frame_that_nobody_sent_or_counted_opens_the_books() {
        assert_eq!(open_lines("/frames/4/packets", json!(6)), [("bad_magic".to_owned(), 1)]);
        assert_eq!(
            open_lines("/frames/4/reason", json!("bad_shard")),
            [("bad_magic".to_owned(), 7), ("bad_shard".to_owned(), -7),]
        );
        assert_eq!(open_lines("/frames/0/packets", json!(1)), [("not_udp".to_owned(), 1)]);
        assert_eq!(
            open_lines("/workers/1/datagrams", json!(3)),
            [("delivered = read by workers + unseen".to_owned(), 1),]
        );
    }

    #[test]
    fn a_datagram_lost_unseen_is_accounted_for_as_a_datagram_only() {
        let mut status = status();
        status["workers"][1]["datagrams"] = json!(3);
        status["clicks"]["unseen"] = json!({ "socket_overflow": 1 });
        let books = Books::close(&report(), &status).unwrap();
        assert!(books.closed(), "{books}");
        assert!(
            books.to_string().contains("unseen (lost before Weir saw it): 1, socket_overflow 1"),
            "{books}"
        );
    }

    #[test]
    fn mistakes_of_opposite_signs_do_not_cancel_out() {
        let mut status = status();
        status["clicks"]["outcomes"]["accepted"] = json!(91);
        status["clicks"]["outcomes"]["duplicate"] = json!(2);
        assert_eq!(Books::close(&report(), &status).unwrap().residual(), 2);
    }

    #[test]
    fn a_document_without_its_parts_does_not_pass_for_closed_books() {
        assert!(Books::close(&json!({}), &status()).is_err());
        assert!(Books::close(&report(), &json!({})).is_err());
        for part in ["frames", "clicks", "clicks_sent_total", "datagrams_delivered"] {
            let mut report = report();
            report["expected"].as_object_mut().unwrap().remove(part);
            assert!(Books::close(&report, &status()).is_err(), "{part}");
        }
    }
}
