//! The HTTP engine: clicks as requests at a planned rate, every reply read and judged.
//!
//! Open loop as over UDP: a request's clock starts at its planned time, not when a connection was free for
//! it, so that a node that falls behind shows in the latency. Without a rate each connection sends again
//! as soon as it is answered: then the highest rate is what is measured, and latency means little.
//!
//! Each thread has its own share of the connections, the rate and the ids, and one loop over sockets
//! that never block. It sends only to the address it is given, and ends in bounded time.
//!
//! Start reading at [`run`], then `load`, the loop; `counts` judges, [`report`] says what comes out.

pub mod body;
pub mod command;
pub mod connection;
pub mod counts;
mod lateness;
mod load;
pub mod reply;
pub mod report;
pub mod server_time;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub use self::body::Format;
pub use self::connection::Tls;
use self::load::{Load, ThreadResult};
use self::report::HttpReport;
use crate::books::Books;
use crate::plan::Plan;
use crate::report::Latency;

/// What to send, where, how fast.
#[derive(Clone, Debug)]
pub struct Options {
    /// What every engine has to know.
    pub plan: Plan,
    /// The door.
    pub target: SocketAddr,
    /// How TLS is spoken; none for plain HTTP.
    pub tls: Option<Tls>,
    /// The value of `Host`.
    pub host: String,
    /// Planned clicks a second of all threads together; none: as fast as replies come.
    pub rate: Option<f64>,
    /// Connections of all threads together, each with one request under way.
    pub connections: usize,
    /// Clicks of a request.
    pub batch: usize,
    /// What bodies are written in.
    pub format: Format,
    /// One click in so many says its user agent; 0: none.
    pub user_agent_every: u64,
    /// Any 202 will do, whatever its body: for servers that only discard.
    pub plain_202: bool,
    /// The server's process, to read its CPU time.
    pub server_pid: Option<u32>,
}

/// Runs the load and reports. Ends after twice the duration and the drain at the latest.
///
/// # Errors
/// No connection before the start, no log file, or settings that cannot work; never a node that goes
/// down later.
pub fn run(options: &Options) -> anyhow::Result<HttpReport> {
    anyhow::ensure!(
        (1..=options.format.clicks_max()).contains(&options.batch),
        "a request of {:?} holds 1 to {} clicks",
        options.format,
        options.format.clicks_max()
    );
    anyhow::ensure!(
        options.plan.threads > 0 && options.connections >= options.plan.threads,
        "each thread needs a connection at least"
    );
    let mut loads = Vec::new();
    for (identity, log) in options.plan.shares()? {
        let mut load = Load::new(options, identity, log)?;
        load.connect()?;
        loads.push(load);
    }
    let read_server = || options.server_pid.map(server_time::read).transpose().context("--server-pid");
    let before = read_server()?;
    let start = Instant::now() + Duration::from_millis(20);
    let results = options.plan.carry_out(loads, |_, load| load.run(start), |_| ())?;
    let after = read_server()?;
    let mut report = report(options, results);
    if let (Some(pid), Some(before), Some(after)) = (options.server_pid, before, after) {
        let (replies, clicks) = (report.requests.replies(), report.clicks.settled());
        report.server = Some(server_time::between(pid, &before, &after, replies, clicks));
    }
    report.invalid_reason = report::invalid_reason(&report);
    report.valid = report.invalid_reason.is_none();
    Ok(report)
}

fn report(options: &Options, results: Vec<ThreadResult>) -> HttpReport {
    let mut books = Books::default();
    let mut latency = Latency::histogram();
    let mut report = HttpReport {
        format: format!("{:?}", options.format).to_lowercase(),
        tls: options.tls.is_some(),
        plain_202: options.plain_202,
        connections: options.connections,
        clicks_per_request: options.batch,
        planned_rate: options.rate,
        late_bound_ms: options.plan.late_bound.as_secs_f64() * 1e3,
        ..HttpReport::default()
    };
    let (mut late, mut held_up, mut first_sends) = (0, 0, 0);
    for result in results {
        let counts = result.counts;
        books.add(&counts.books);
        latency.add(&counts.latency).expect("the same bounds");
        report.requests.merge(&counts.requests);
        report.clicks.merge(&counts.clicks);
        report.faults.extend(counts.faults);
        report.cpu_s += result.cpu_s;
        report.sending_s = report.sending_s.max(result.sending.as_secs_f64());
        report.drain_s = report.drain_s.max(result.drain.as_secs_f64());
        late += counts.lateness.late;
        held_up += counts.lateness.held_up;
        first_sends += counts.lateness.first_sends;
    }
    // Replies are counted to the end, so their time is too; what is left to drain is short.
    let answering_s = report.sending_s + report.drain_s;
    report.achieved_rate = report.clicks.made as f64 / report.sending_s.max(f64::MIN_POSITIVE);
    report.replies_per_s = report.requests.replies() as f64 / answering_s.max(f64::MIN_POSITIVE);
    report.settled_per_s = report.clicks.settled() as f64 / answering_s.max(f64::MIN_POSITIVE);
    report.latency_us = Latency::of(&latency);
    let share = |of: u64| if first_sends == 0 { 1.0 } else { of as f64 / first_sends as f64 };
    (report.late_sends_share, report.held_up_share) = (share(late), share(held_up));
    report.kinds = books.kinds();
    report.expected = books.expected(report.clicks.retried);
    report
}
