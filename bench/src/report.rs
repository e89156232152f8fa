//! The result of a run as JSON: what was sent, and what the receiving node must therefore have
//! counted. Whoever reads it together with the node's counters can close the books.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the numbers may be used: the generator kept its plan.
    pub valid: bool,
    /// Why not.
    pub invalid_reason: Option<String>,
    /// Planned clicks a second; a malformed datagram or raw frame stands for one.
    pub planned_rate: f64,
    /// What was really offered to the wire a second, resends apart.
    pub achieved_rate: f64,
    /// Planned length of the sending phase, in seconds.
    pub duration_s: f64,
    /// Length of the wait for the last acks, in seconds.
    pub drain_s: f64,
    /// What was sent, kind by kind; kinds that were not sent are left out.
    pub kinds: Vec<KindReport>,
    /// What the node must have counted.
    pub expected: Expected,
    /// The books of all senders together.
    pub sdk_ledger: LedgerReport,
    /// Status bytes received, by hand-made datagrams too.
    pub acks: Acks,
    /// From the planned time of a click to its ack, in microseconds.
    pub ack_latency_us: Latency,
    /// Share of sends that left later than the bound behind plan.
    pub late_sends_share: f64,
    /// That bound, in milliseconds.
    pub late_bound_ms: f64,
    /// CPU seconds the sending threads used, user and system together.
    pub cpu_s: f64,
    /// Sends the kernel refused twice in a row; their datagrams were resent by timer.
    pub send_failures: u64,
}

/// One kind of traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// Its name.
    pub name: String,
    /// `tracked`, `worker`, `header`, `frame`, `passed` or `wrapped`: see [`Expected`].
    pub stage: String,
    /// Datagrams or frames made by hand; 0 for tracked kinds, whose clicks share datagrams.
    pub frames: u64,
    /// Clicks, resends left out.
    pub clicks: u64,
    /// Sends of those clicks, resends counted.
    pub clicks_sent: u64,
    /// What becomes of such a click the first time.
    pub outcome: String,
    /// The reason beside it, or `none`.
    pub reason: String,
}

/// Writes kinds of traffic as a table for people; `by_hand` shows how far each gets, and the datagrams and frames
/// made by hand.
///
/// # Errors
/// Nobody listens.
pub fn write_kinds(out: &mut impl io::Write, kinds: &[KindReport], by_hand: bool) -> io::Result<()> {
    let columns = |stage: &str, frames: &dyn std::fmt::Display| {
        if by_hand { format!(" {stage:<8} {frames:>10}") } else { String::new() }
    };
    let made = columns("stage", &"frames");
    writeln!(out, "\n{:<18}{made} {:>12} {:>12}  becomes", "kind", "clicks", "sends")?;
    for kind in kinds {
        let reason = if kind.reason == "none" { String::new() } else { format!(" ({})", kind.reason) };
        let made = columns(&kind.stage, &kind.frames);
        let KindReport { name, clicks, clicks_sent, outcome, .. } = kind;
        writeln!(out, "{name:<18}{made} {clicks:>12} {clicks_sent:>12}  {outcome}{reason}")?;
    }
    Ok(())
}

/// Writes a report as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a node that lost nothing has counted, by names of the table of reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Frame counters of the XDP program. Kinds of stage `header` are in here and not among the
    /// clicks: without an XDP program each is one malformed click of the same reason instead.
    /// Kinds of stages `frame` and `passed` are counted by an XDP program only.
    pub frames: BTreeMap<String, u64>,
    /// Which of `frames` become malformed clicks when no XDP program drops them.
    pub frames_or_clicks: BTreeMap<String, u64>,
    /// Datagrams with a sound header: steered or local for XDP, read by a worker.
    pub datagrams_delivered: u64,
    /// Clicks of those datagrams.
    pub clicks: ExpectedClicks,
    /// Clicks sent, resends counted, stage `header` and beyond left out.
    pub clicks_sent_total: u64,
    /// Datagrams and frames of every kind, resends counted.
    pub datagrams_sent_total: u64,
}

/// Clicks by what must become of them. Exact when nothing was lost before the worker; a `retry`
/// status is a refusal for a passing reason (`table_full`, `journal_full`, `handoff_full`,
/// `draining`) that only the node knows, so those stand apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedClicks {
    /// By outcome; sends that were answered with `retry` are not in here.
    pub outcomes: BTreeMap<String, u64>,
    /// By reason.
    pub reasons: BTreeMap<String, u64>,
    /// Sends answered with `retry`: each is one `refused` on the node.
    pub retried: u64,
    /// Clicks whose own clock is implausible.
    pub clock_suspect: u64,
    /// Sum of the prices of accepted clicks, in micros.
    pub cost_micros: u64,
}

/// The senders' ledgers added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of weir_sdk::Ledger")]
pub struct LedgerReport {
    pub created: u64,
    pub acked_created: u64,
    pub acked_exists: u64,
    pub queued: u64,
    pub refused_full: u64,
    pub refused_malformed: u64,
    pub refused_too_long: u64,
    pub dropped_malformed: u64,
    pub dropped_gave_up: u64,
    /// Whether created = acked + queued + refused + dropped.
    pub closes: bool,
    /// Datagrams sent again because no ack came in time, or because it said `retry`.
    pub datagrams_resent: u64,
    /// Acks that matched no batch under way: late or repeated.
    pub acks_unmatched: u64,
}

impl LedgerReport {
    /// Adds one sender's books.
    pub fn add(&mut self, ledger: &weir_sdk::Ledger, traffic: &weir_sdk::Traffic) {
        self.created += ledger.created;
        self.acked_created += ledger.acked_created;
        self.acked_exists += ledger.acked_exists;
        self.queued += ledger.queued;
        self.refused_full += ledger.refused_full;
        self.refused_malformed += ledger.refused_malformed;
        self.refused_too_long += ledger.refused_too_long;
        self.dropped_malformed += ledger.dropped_malformed;
        self.dropped_gave_up += ledger.dropped_gave_up;
        self.datagrams_resent += traffic.datagrams_resent;
        self.acks_unmatched += traffic.acks_unmatched;
        self.close();
    }

    /// Adds the books of several senders.
    pub fn merge(&mut self, other: &Self) {
        self.created += other.created;
        self.acked_created += other.acked_created;
        self.acked_exists += other.acked_exists;
        self.queued += other.queued;
        self.refused_full += other.refused_full;
        self.refused_malformed += other.refused_malformed;
        self.refused_too_long += other.refused_too_long;
        self.dropped_malformed += other.dropped_malformed;
        self.dropped_gave_up += other.dropped_gave_up;
        self.datagrams_resent += other.datagrams_resent;
        self.acks_unmatched += other.acks_unmatched;
        self.close();
    }

    fn close(&mut self) {
        let placed = self.acked_created
            + self.acked_exists
            + self.queued
            + self.refused_full
            + self.refused_malformed
            + self.refused_too_long
            + self.dropped_malformed
            + self.dropped_gave_up;
        self.closes = placed == self.created;
    }
}

/// Status bytes by meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of weir_common::wire::AckStatus")]
pub struct Acks {
    pub created: u64,
    pub exists: u64,
    pub retry: u64,
    pub malformed: u64,
}

impl Acks {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.created += other.created;
        self.exists += other.exists;
        self.retry += other.retry;
        self.malformed += other.malformed;
    }
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// Clicks measured.
    pub count: u64,
}

impl Latency {
    /// What latencies are gathered in: microseconds with three digits, up to ten minutes.
    ///
    /// # Panics
    /// Never: such a histogram can be made.
    #[must_use]
    pub fn histogram() -> Histogram<u64> {
        Histogram::new_with_max(600_000_000, 3).expect("bounds that a histogram can have")
    }

    /// Reads the quantiles of a histogram of microseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}
