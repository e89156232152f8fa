//! Closes the books: what a generator sent against what a daemon counted, to the click.
//!
//! Pure: two JSON documents in, lines out. Each line compares two numbers that were counted by
//! different programs, and its residual must be 0.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::status::{grouped, number, numbers};

/// One comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    section: &'static str,
    name: String,
    expected: i128,
    counted: i128,
}

impl Line {
    /// What is missing, if positive; what nobody can account for, if negative.
    fn residual(&self) -> i128 {
        self.expected - self.counted
    }
}

/// The books of one run.
#[derive(Debug)]
pub(crate) struct Books {
    kinds: Vec<(String, u64, u64)>,
    lines: Vec<Line>,
    unseen: Vec<(String, u64)>,
}

const FRAMES: &str = "frames that the XDP program decided";
const OUTCOMES: &str = "clicks by outcome";
const REASONS: &str = "clicks by reason";
const WHOLE: &str = "the whole";

impl Books {
    /// Compares a generator's report with a daemon's last status.
    ///
    /// Fails when the report lacks what a comparison needs: an empty report must not pass for
    /// closed books.
    pub(crate) fn close(report: &Value, status: &Value) -> Result<Self> {
        for part in ["/kinds", "/expected/frames", "/expected/clicks/outcomes", "/expected/clicks_sent_total"]
        {
            if report.pointer(part).is_none() {
                bail!("the generator's report has no {part}");
            }
        }
        for part in ["/frames", "/clicks/received", "/clicks/outcomes", "/workers"] {
            if status.pointer(part).is_none() {
                bail!("the daemon's status has no {part}");
            }
        }
        let mut lines = frames(report, status);
        lines.extend(compare(OUTCOMES, report, "/expected/clicks/outcomes", status, "/clicks/outcomes"));
        lines.extend(compare(REASONS, report, "/expected/clicks/reasons", status, "/clicks/reasons"));
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
    let mut counted: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for frame in status.pointer("/frames").and_then(Value::as_array).into_iter().flatten() {
        let text = |pointer| frame.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
        counted.insert(text("/reason"), (text("/class"), number(frame, "/packets")));
    }
    let expected: BTreeMap<_, _> = numbers(report, "/expected/frames").into_iter().collect();
    // Which of two cores got a frame is not the sender's to know: delivered frames are compared
    // as a whole, below. What the kernel gets (neighbour discovery and the like) is not ours.
    let compared = |class: &str| !matches!(class, "passed" | "delivered");
    let of_status = counted.iter().filter(|(_, (class, _))| compared(class)).map(|(name, _)| name);
    let names: std::collections::BTreeSet<_> = expected.keys().chain(of_status).collect();
    let line = |name: &String| Line {
        section: FRAMES,
        name: name.clone(),
        expected: expected.get(name).copied().unwrap_or(0).into(),
        counted: counted.get(name).map_or(0, |(_, packets)| *packets).into(),
    };
    let mut lines: Vec<_> = names.into_iter().map(line).collect();
    let delivered: u64 =
        counted.values().filter(|(class, _)| class == "delivered").map(|(_, packets)| packets).sum();
    let workers = status.pointer("/workers").and_then(Value::as_array).into_iter().flatten();
    let read: u64 = workers.map(|worker| number(worker, "/datagrams")).sum();
    let unseen: u64 = numbers(status, "/clicks/unseen").iter().map(|(_, count)| count).sum();
    if status.pointer("/steering/rung").and_then(Value::as_str) != Some("none") {
        let name = "delivered = read by workers + unseen".to_owned();
        let counted = i128::from(read) + i128::from(unseen);
        lines.push(Line { section: FRAMES, name, expected: delivered.into(), counted });
    }
    lines
}

/// Every name that either side has.
fn compare(
    section: &'static str,
    report: &Value,
    expected: &str,
    status: &Value,
    counted: &str,
) -> Vec<Line> {
    let expected: BTreeMap<_, _> = numbers(report, expected).into_iter().collect();
    let counted: BTreeMap<_, _> = numbers(status, counted).into_iter().collect();
    let names: std::collections::BTreeSet<_> = expected.keys().chain(counted.keys()).collect();
    let line = |name: &String| Line {
        section,
        name: name.clone(),
        expected: expected.get(name).copied().unwrap_or(0).into(),
        counted: counted.get(name).copied().unwrap_or(0).into(),
    };
    names.into_iter().map(line).collect()
}

/// Nothing between the sender and the outcomes is lost, and nothing appears.
fn whole(report: &Value, status: &Value) -> Vec<Line> {
    let sum =
        |document, pointer| numbers(document, pointer).iter().map(|(_, n)| i128::from(*n)).sum::<i128>();
    let sent = i128::from(number(report, "/expected/clicks_sent_total"));
    let received = i128::from(number(status, "/clicks/received"));
    // What of the sent clicks was in frames that XDP dropped: how many frames those were is
    // compared above, one reason at a time.
    let in_xdp = sent - sum(report, "/expected/clicks/outcomes");
    let line = |name: &str, expected, counted| Line { section: WHOLE, name: name.into(), expected, counted };
    vec![
        line("received = sum of outcomes", received, sum(status, "/clicks/outcomes")),
        line("sent = received + dropped in XDP", sent, received + in_xdp),
        line(
            "handed off = taken over",
            number(status, "/clicks/handed_off").into(),
            number(status, "/clicks/taken_over").into(),
        ),
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
            let mark = if line.residual() == 0 { "" } else { "  <--" };
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
