//! The one snapshot of a running daemon: what the status socket sends, the terminal view shows
//! and `final-status.json` keeps.
//!
//! [`Status`] is plain data and reads back what it wrote; [`gather`] fills it from the counters.

mod door;
mod forwarding;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use weir_common::reason::{Class, Outcome, Reason};

use super::readiness::Readiness;
use super::recovery::RecoveryStatus;
use super::standing::{JournalStatus, SpoolStatus, TimeStatus};
use crate::clock::NodeClock;
use crate::journal::spool::SpoolGauges;
use crate::stats::{Counter, DiskFailure, ForwardStats, HistogramSnapshot, JournalHealth, WorkerStats};
use crate::withdrawal::AtomicWithdrawal;
pub use door::HttpStatus;
pub use forwarding::{ForwardStatus, UniquesStatus};

/// What the daemon is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Reads its journal; takes no clicks yet.
    #[default]
    Recovering = 0,
    /// Takes clicks.
    Running = 1,
    /// Finishes what it has and takes no more.
    Draining = 2,
}

impl State {
    /// The name in the status and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// The state as the daemon sets it and the control side reads it.
#[derive(Debug, Default)]
pub struct AtomicState(AtomicU8);

impl AtomicState {
    /// Sets the state.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Recovering,
            1 => State::Running,
            _ => State::Draining,
        }
    }
}

/// Frames the XDP program counted for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameTotals {
    /// Why they met what they met.
    pub reason: Reason,
    /// How many.
    pub packets: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
    /// How many each CPU met.
    pub packets_by_cpu: Vec<u64>,
}

/// Where the frame counters are read from, at each status and only then.
pub trait FrameSource: Send + Sync {
    /// Which rung of the ladder steering stands on, and why not on a higher one.
    fn steering(&self) -> Steering;
    /// The counters that are not zero, or all of them.
    fn frames(&self) -> Vec<FrameTotals>;
}

/// A node without XDP.
#[derive(Clone, Debug, Default)]
pub struct NoFrames {
    /// Why there is none.
    pub reasons: Vec<String>,
}

impl FrameSource for NoFrames {
    fn steering(&self) -> Steering {
        Steering { rung: "none".to_owned(), reasons: self.reasons.clone() }
    }

    fn frames(&self) -> Vec<FrameTotals> {
        Vec::new()
    }
}

/// What the status says of steering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// `native`, `generic` or `none`.
    pub rung: String,
    /// Why it is not a higher one; empty when it is what was asked for.
    pub reasons: Vec<String>,
}

/// Who the daemon is. Fixed at its start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's number.
    pub node: u32,
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
    /// The start of the daemon, as blocks carry it.
    pub epoch: u32,
    /// The core of each worker.
    pub cores: Vec<usize>,
}

/// What a status is gathered from.
pub struct Sources {
    /// Who the daemon is.
    pub identity: Identity,
    /// One for each worker.
    pub workers: Arc<[WorkerStats]>,
    /// The forwarder's.
    pub forward: Arc<ForwardStats>,
    /// The XDP program's counters.
    pub frames: Arc<dyn FrameSource>,
    /// What the daemon is doing.
    pub state: Arc<AtomicState>,
    /// What the start found in the journal, once it has read it.
    pub recovery: Arc<OnceLock<RecoveryStatus>>,
    /// What the config file said at the start, without secrets and names of accounts.
    pub config: String,
    /// How far the node is out of service.
    pub withdrawal: Arc<AtomicWithdrawal>,
    /// The node's time.
    pub clock: Arc<NodeClock>,
    /// How full the journal is.
    pub spool: Arc<SpoolGauges>,
    /// When it started.
    pub started: Instant,
}

/// Frames by reason, as the status has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameStatus {
    /// [`Reason::name`].
    pub reason: String,
    /// [`Class::name`].
    pub class: String,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many each CPU met.
    #[serde(default)]
    pub packets_by_cpu: Vec<u64>,
}

/// The books of the clicks, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clicks {
    /// Clicks read.
    pub received: u64,
    /// Clicks by [`Outcome::name`]; every outcome is there.
    pub outcomes: BTreeMap<String, u64>,
    /// Clicks by [`Reason::name`], where there were any.
    pub reasons: BTreeMap<String, u64>,
    /// Datagrams lost before any of our code saw them, by reason; not in `received`.
    pub unseen: BTreeMap<String, u64>,
    /// Malformed datagrams and clicks that were copied for the sink.
    #[serde(default)]
    pub rejects_sampled: u64,
    /// Those that were only counted.
    #[serde(default)]
    pub rejects_unsampled: u64,
    /// Clicks given to other workers.
    pub handed_off: u64,
    /// Clicks taken from other workers.
    pub taken_over: u64,
    /// Datagrams whose clicks wait for durability or for another worker.
    pub waiting: u64,
    /// `received` less all outcomes: clicks read and not yet decided. At rest it is 0; what
    /// remains then was lost (positive) or counted twice (negative).
    pub residual: i64,
}

/// A latency at a glance, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Number of events.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 % took no longer.
    pub p99: u64,
    /// 99.9 % took no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl From<&HistogramSnapshot> for Quantiles {
    fn from(snapshot: &HistogramSnapshot) -> Self {
        Self {
            count: snapshot.count(),
            p50: snapshot.quantile_ns(0.5),
            p99: snapshot.quantile_ns(0.99),
            p999: snapshot.quantile_ns(0.999),
            max: snapshot.max_ns,
        }
    }
}

/// What one worker did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// Datagrams read.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Clicks in them.
    pub clicks: u64,
    /// Clicks and datagrams by [`Reason::name`], where there were any.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// Clicks given to other workers.
    pub handed_off: u64,
    /// Clicks taken from other workers.
    pub taken_over: u64,
    /// Users and addresses whose click was not counted as activity.
    #[serde(default)]
    pub activity_missed: u64,
    /// Users and addresses that lost their last minute's clicks to others.
    #[serde(default)]
    pub activity_pushed_out: u64,
    /// Budgets that a click could not be charged to.
    #[serde(default)]
    pub budgets_uncharged: u64,
    /// Refractory windows of users and ads that did not begin.
    #[serde(default)]
    pub windows_missed: u64,
    /// Clicks written without their user, for want of a salt.
    #[serde(default)]
    pub users_unsalted: u64,
    /// Datagrams that wait for durability or for another worker.
    pub waiting: u64,
    /// Acks sent.
    pub acks: u64,
    /// Datagrams they went out in.
    pub ack_datagrams: u64,
    /// Ack datagrams the kernel did not take.
    pub ack_send_failures: u64,
    /// Blocks made durable.
    pub blocks: u64,
    /// Their bytes.
    pub journal_bytes: u64,
    /// Whether its journal can make blocks durable.
    pub journal_state: JournalHealth,
    /// Its journal's writes, syncs and creations of segments that failed.
    pub journal_failures: u64,
    /// The last of them, in words.
    pub journal_last_failure: Option<String>,
    /// Impressions held for dedupe.
    pub impressions_live: u64,
    /// Buckets held.
    pub buckets_open: u64,
    /// Times it slept for want of work.
    pub sleeps: u64,
    /// Turns of its loop; one that idles makes a hundred a second.
    #[serde(default)]
    pub turns: u64,
    /// From reading a datagram to handing its ack to the kernel.
    pub ack_latency_ns: Quantiles,
    /// From a group's write to its fdatasync's completion.
    pub commit_latency_ns: Quantiles,
}

/// The daemon at one moment. Counters run since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's number.
    pub node: u32,
    /// Its region.
    pub region: String,
    /// Its POP.
    pub pop: String,
    /// The daemon's version.
    pub version: String,
    /// The start of the daemon, as blocks carry it.
    pub epoch: u32,
    /// Seconds since that start.
    pub uptime_s: f64,
    /// What it is doing.
    pub state: State,
    /// Whether clicks should come to it.
    #[serde(default)]
    pub readiness: Readiness,
    /// The node's time.
    #[serde(default)]
    pub time: TimeStatus,
    /// How packets reach their worker.
    pub steering: Steering,
    /// What the XDP program counted.
    pub frames: Vec<FrameStatus>,
    /// The books.
    pub clicks: Clicks,
    /// The HTTP door.
    #[serde(default)]
    pub http: HttpStatus,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
    /// What the start found in the journal; none while it still reads.
    pub recovery: Option<RecoveryStatus>,
    /// The journals.
    pub journal: JournalStatus,
    /// How full they are together.
    #[serde(default)]
    pub spool: SpoolStatus,
    /// The forwarder.
    pub forward: ForwardStatus,
    /// From reading a datagram to handing its ack to the kernel, over all workers.
    pub ack_latency_ns: Quantiles,
}

/// The latencies of all workers, with their shape: metrics need more than quantiles.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// From reading a datagram to handing its ack to the kernel.
    pub ack: HistogramSnapshot,
    /// From a group's write to its fdatasync's completion.
    pub commit: HistogramSnapshot,
    /// From reading a request with clicks to its response.
    pub request: HistogramSnapshot,
    /// How long one flush takes in the sink.
    pub flush: HistogramSnapshot,
    /// From the receive time of a flush's oldest row to its commit.
    pub click_to_bucket: HistogramSnapshot,
}

/// Reads all counters once. Costs the workers nothing: they are not asked and do not wait.
#[must_use]
pub fn gather(sources: &Sources) -> (Status, Latencies) {
    let clicks = clicks(&sources.workers);
    let latencies = latencies(sources);
    let workers = sources.workers.iter().enumerate();
    let cores = sources.identity.cores.iter().copied().chain(std::iter::repeat(0));
    let workers: Vec<_> = workers.zip(cores).map(|((n, stats), core)| worker(n, core, stats)).collect();
    let status = Status {
        node: sources.identity.node,
        region: sources.identity.region.clone(),
        pop: sources.identity.pop.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: sources.identity.epoch,
        uptime_s: sources.started.elapsed().as_secs_f64(),
        state: sources.state.get(),
        readiness: Readiness::read(sources),
        time: TimeStatus::from(&*sources.clock),
        steering: sources.frames.steering(),
        frames: sources.frames.frames().iter().map(frame).collect(),
        clicks,
        http: HttpStatus::of(&sources.workers, &latencies),
        recovery: sources.recovery.get().cloned(),
        journal: JournalStatus::of(&workers, &latencies),
        spool: SpoolStatus::from(&*sources.spool),
        workers,
        forward: ForwardStatus::of(&sources.forward, &latencies),
        ack_latency_ns: Quantiles::from(&latencies.ack),
    };
    (status, latencies)
}

/// Outcomes are read before what was received, so that a click in flight can only make the
/// residual positive: a negative one is never an artefact of reading.
fn clicks(workers: &[WorkerStats]) -> Clicks {
    let sum = |counter: &dyn Fn(&WorkerStats) -> &Counter| -> u64 {
        workers.iter().map(|stats| counter(stats).get()).sum()
    };
    let outcomes: BTreeMap<String, u64> = Outcome::ALL
        .into_iter()
        .map(|outcome| (outcome.name().to_owned(), sum(&|stats| &stats.outcomes[outcome as usize])))
        .collect();
    let counted = |unseen: bool| -> BTreeMap<String, u64> {
        let of_class = Reason::ALL.iter().filter(|reason| (reason.class() == Class::Unseen) == unseen);
        let counts =
            of_class.map(|&reason| (reason.name().to_owned(), sum(&|stats| &stats.reasons[reason as usize])));
        counts.filter(|(_, count)| *count > 0).collect()
    };
    let (reasons, unseen) = (counted(false), counted(true));
    let waiting = sum(&|stats| &stats.datagrams_waiting);
    let taken_over = sum(&|stats| &stats.clicks_taken_over);
    let rejects_sampled = sum(&|stats| &stats.rejects_sampled);
    let rejects_unsampled = sum(&|stats| &stats.rejects_unsampled);
    let handed_off = sum(&|stats| &stats.clicks_handed_off);
    let received = sum(&|stats| &stats.clicks_received);
    let decided: u64 = outcomes.values().sum();
    let residual = received.wrapping_sub(decided).cast_signed();
    Clicks {
        received,
        outcomes,
        reasons,
        unseen,
        rejects_sampled,
        rejects_unsampled,
        handed_off,
        taken_over,
        waiting,
        residual,
    }
}

fn latencies(sources: &Sources) -> Latencies {
    let mut latencies = Latencies {
        flush: sources.forward.flush_latency.snapshot(),
        click_to_bucket: sources.forward.click_to_bucket.snapshot(),
        ..Latencies::default()
    };
    for stats in sources.workers.iter() {
        latencies.ack.merge(&stats.ack_latency.snapshot());
        latencies.commit.merge(&stats.commit_latency.snapshot());
        latencies.request.merge(&stats.request_latency.snapshot());
    }
    latencies
}

fn frame(totals: &FrameTotals) -> FrameStatus {
    FrameStatus {
        reason: totals.reason.name().to_owned(),
        class: totals.reason.class().name().to_owned(),
        packets: totals.packets,
        bytes: totals.bytes,
        packets_by_cpu: totals.packets_by_cpu.clone(),
    }
}

fn reasons(stats: &WorkerStats) -> BTreeMap<String, u64> {
    let counted = Reason::ALL.iter().map(|&reason| (reason, stats.reasons[reason as usize].get()));
    counted.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

fn worker(number: usize, core: usize, stats: &WorkerStats) -> WorkerStatus {
    WorkerStatus {
        worker: number,
        core,
        datagrams: stats.datagrams_received.get(),
        bytes: stats.bytes_received.get(),
        clicks: stats.clicks_received.get(),
        reasons: reasons(stats),
        handed_off: stats.clicks_handed_off.get(),
        taken_over: stats.clicks_taken_over.get(),
        activity_missed: stats.activity_missed.get(),
        activity_pushed_out: stats.activity_pushed_out.get(),
        budgets_uncharged: stats.budgets_uncharged.get(),
        windows_missed: stats.windows_missed.get(),
        users_unsalted: stats.users_unsalted.get(),
        waiting: stats.datagrams_waiting.get(),
        acks: stats.acks_sent.get(),
        ack_datagrams: stats.ack_datagrams_sent.get(),
        ack_send_failures: stats.ack_send_failures.get(),
        blocks: stats.blocks_committed.get(),
        journal_bytes: stats.journal_bytes.get(),
        journal_state: JournalHealth::from_gauge(stats.journal_health.get()),
        journal_failures: stats.journal_failures.get(),
        journal_last_failure: DiskFailure::from_number(stats.journal_last_failure.get())
            .map(|failure| failure.to_string()),
        impressions_live: stats.impressions_live.get(),
        buckets_open: stats.buckets_open.get(),
        turns: stats.turns.get(),
        sleeps: stats.sleeps.get(),
        ack_latency_ns: Quantiles::from(&stats.ack_latency.snapshot()),
        commit_latency_ns: Quantiles::from(&stats.commit_latency.snapshot()),
    }
}
