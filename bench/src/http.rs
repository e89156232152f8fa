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
mod load;
pub mod reply;
pub mod report;
pub mod server_time;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;

pub use self::body::Format;
pub use self::connection::Tls;
use self::load::{Load, ThreadResult};
use self::report::HttpReport;
use crate::acked_log::AckedLog;
use crate::books::Books;
use crate::clicks::Identity;
use crate::kind::Profile;
use crate::report::Latency;

/// Latencies are kept in microseconds with three digits, up to ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What to send, where, how fast.
#[derive(Clone, Debug)]
pub struct Options {
    /// The door.
    pub target: SocketAddr,
    /// How TLS is spoken; none for plain HTTP.
    pub tls: Option<Tls>,
    /// The value of `Host`.
    pub host: String,
    /// Planned clicks a second of all threads together; none: as fast as replies come.
    pub rate: Option<f64>,
    /// Length of the sending phase.
    pub duration: Duration,
    /// Connections of all threads together, each with one request under way.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// The cores they are pinned to, in order; empty for none.
    pub cores: Vec<usize>,
    /// Clicks of a request.
    pub batch: usize,
    /// What bodies are written in.
    pub format: Format,
    /// What to send.
    pub profile: Profile,
    /// One click in so many says its user agent; 0: none.
    pub user_agent_every: u64,
    /// Who signs.
    pub issuer: Issuer,
    /// With which key.
    pub key_id: KeyId,
    /// The key.
    pub key: SipKey,
    /// Seeds order and contents; ids are new in each run all the same.
    pub seed: u64,
    /// Number of ads.
    pub ads: u32,
    /// Whether the node takes unsigned clicks.
    pub unsigned: bool,
    /// Any 202 will do, whatever its body: for servers that only discard.
    pub plain_202: bool,
    /// Where to note acknowledged clicks.
    pub acked_log: Option<std::path::PathBuf>,
    /// A first send later than this behind plan is late.
    pub late_bound: Duration,
    /// The longest wait for the last replies.
    pub drain_max: Duration,
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
        options.threads > 0 && options.connections >= options.threads,
        "each thread needs a connection at least"
    );
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
    // Sequences of two runs do not meet: 2^20 of them for each millisecond between the starts.
    let run = (now_ms as u64) << 20;
    let log = options.acked_log.as_deref().map(AckedLog::create).transpose().context("acked log")?;
    let mut loads = Vec::new();
    for thread in 0..options.threads {
        let identity = Identity {
            issuer: options.issuer,
            key_id: options.key_id,
            key: options.key,
            run,
            thread: thread as u64,
            threads: options.threads as u64,
            seed: options.seed,
            ads: options.ads,
            hot_share: options.profile.hot_share(),
        };
        let mut load = Load::new(options, identity, log.as_ref().map(AckedLog::another))?;
        load.connect()?;
        loads.push(load);
    }
    let read_server = || options.server_pid.map(server_time::read).transpose().context("--server-pid");
    let before = read_server()?;
    let start = Instant::now() + Duration::from_millis(20);
    let results = std::thread::scope(|scope| {
        let mut handles = Vec::new();
        for (thread, load) in loads.into_iter().enumerate() {
            let core = options.cores.get(thread).copied();
            handles.push(scope.spawn(move || {
                if let Some(id) = core {
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                load.run(start)
            }));
        }
        let join = |handle: std::thread::ScopedJoinHandle<'_, anyhow::Result<ThreadResult>>| {
            handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a sending thread panicked")))
        };
        handles.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
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
    let mut latency = Histogram::<u64>::new_with_max(LATENCY_US_MAX, 3).expect("as each thread's own");
    let mut report = HttpReport {
        format: format!("{:?}", options.format).to_lowercase(),
        tls: options.tls.is_some(),
        plain_202: options.plain_202,
        connections: options.connections,
        clicks_per_request: options.batch,
        planned_rate: options.rate,
        late_bound_ms: options.late_bound.as_secs_f64() * 1e3,
        ..HttpReport::default()
    };
    let (mut late, mut first_sends) = (0, 0);
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
        late += counts.late;
        first_sends += counts.first_sends;
    }
    // Replies are counted to the end, so their time is too; what is left to drain is short.
    let answering_s = report.sending_s + report.drain_s;
    report.achieved_rate = report.clicks.made as f64 / report.sending_s.max(f64::MIN_POSITIVE);
    report.replies_per_s = report.requests.replies() as f64 / answering_s.max(f64::MIN_POSITIVE);
    report.settled_per_s = report.clicks.settled() as f64 / answering_s.max(f64::MIN_POSITIVE);
    report.latency_us = Latency::of(&latency);
    report.late_sends_share = if first_sends == 0 { 1.0 } else { late as f64 / first_sends as f64 };
    report.kinds = books.kinds();
    report.expected = books.expected(report.clicks.retried);
    report
}
