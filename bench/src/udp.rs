//! The UDP engine: open loop at a planned rate, every click tracked to its ack.
//!
//! Each thread has its own share of the rate, its own ids, sender and sockets. A click's clock
//! starts at its planned time, so a generator or node that falls behind shows in the latency
//! instead of hiding in a slower plan.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use weir_sdk::{Config, Fate, Sender, Settled, Ticket};

use crate::acked_log::AckedLog;
use crate::books::Books;
use crate::clicks::{ClickSource, Identity};
use crate::kind::{Kind, Means, Stage};
use crate::lane::Lane;
use crate::malformed::Payload;
use crate::plan::Plan;
use crate::raw_frames::{Link, RawFrames};
use crate::report::{Acks, Latency, LedgerReport, Report};
use crate::thread_time::thread_time;
use crate::verdict::invalid_reason;

/// Clicks made before the sockets are served again.
const BURST: u64 = 256;
/// The longest nap while nothing is due: keeps the schedule within a fraction of a millisecond.
const NAP_MAX: Duration = Duration::from_micros(200);
/// The shortest: at high rates some clicks gather meanwhile, and waking for each would cost more
/// than sending it.
const NAP_MIN: Duration = Duration::from_micros(40);

/// What to send, where, how fast.
#[derive(Clone, Debug)]
pub struct Options {
    /// One address for each lane: IPv4, IPv6 or both.
    pub targets: Vec<SocketAddr>,
    /// For raw frames.
    pub link: Option<Link>,
    /// Planned sends a second, of all threads together.
    pub rate: f64,
    /// What every engine has to know.
    pub plan: Plan,
    /// The sender's settings.
    pub sender: Config,
    /// Whether to print a line each second on stderr.
    pub progress: bool,
}

/// What a thread tells the progress line.
#[derive(Debug, Default)]
struct Progress {
    planned: AtomicU64,
    acked: AtomicU64,
    resent: AtomicU64,
    queued: AtomicU64,
}

struct ThreadResult {
    books: Books,
    ledger: LedgerReport,
    acks: Acks,
    latency: Histogram<u64>,
    late: u64,
    sends: u64,
    send_failures: u64,
    drain: Duration,
    sending: Duration,
    cpu_s: f64,
}

/// Runs the load and reports. Ends after duration and drain at the latest.
///
/// # Errors
/// No socket, no route, no log file, or settings that cannot work; never a node that is down.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let progress: Vec<Progress> = (0..options.plan.threads).map(|_| Progress::default()).collect();
    let mut loaders = Vec::new();
    for (identity, log) in options.plan.shares()? {
        loaders.push(Loader::new(options, identity, log)?);
    }
    let start = Instant::now() + Duration::from_millis(20);
    let run = |thread: usize, loader: Loader<'_>| loader.run(start, &progress[thread]);
    let results = options.plan.carry_out(loaders, run, |handles| {
        if options.progress {
            watch(&progress, handles);
        }
    })?;
    Ok(report(options, &results))
}

/// A line each second until all threads are done.
fn watch<T>(progress: &[Progress], handles: &[std::thread::ScopedJoinHandle<'_, T>]) {
    let sum = |field: fn(&Progress) -> &AtomicU64| -> u64 {
        progress.iter().map(|thread| field(thread).load(Ordering::Relaxed)).sum()
    };
    let (started, mut last, mut printed) = (Instant::now(), 0, Instant::now());
    while !handles.iter().all(std::thread::ScopedJoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = printed.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let planned = sum(|thread| &thread.planned);
            eprintln!(
                "{:5.0} s  {:>9.0} clicks/s  sent {planned}  acked {}  waiting {}  resent datagrams {}",
                started.elapsed().as_secs_f64(),
                (planned - last) as f64 / elapsed.as_secs_f64(),
                sum(|thread| &thread.acked),
                sum(|thread| &thread.queued),
                sum(|thread| &thread.resent),
            );
            (last, printed) = (planned, Instant::now());
        }
    }
}

/// One sending thread.
struct Loader<'a> {
    options: &'a Options,
    start: Instant,
    interval_ns: f64,
    planned_total: u64,
    mix: Vec<Kind>,
    lanes: Vec<Lane>,
    frames: Option<RawFrames>,
    source: ClickSource,
    log: Option<AckedLog>,
    counts: Counts,
    /// Number of the next planned send.
    next: u64,
    batch_id: u64,
}

/// What the hot loop adds to.
struct Counts {
    books: Books,
    latency: Histogram<u64>,
    late: u64,
    sends: u64,
    late_after_ns: u64,
}

/// A ticket carries the kind in its top byte and the planned time in the rest.
fn ticket(kind: Kind, planned_ns: u64) -> Ticket {
    Ticket(u64::from(kind as u8) << 56 | planned_ns)
}

fn open_ticket(ticket: Ticket) -> (Kind, u64) {
    let kind = Kind::from_number((ticket.0 >> 56) as u8).unwrap_or(Kind::Fresh);
    (kind, ticket.0 & ((1 << 56) - 1))
}

impl Counts {
    fn settled(&mut self, now_ns: u64, log: &mut Option<AckedLog>, settled: &Settled<'_>) {
        let (kind, planned_ns) = open_ticket(settled.ticket);
        let acked = matches!(settled.fate, Fate::Created | Fate::Exists);
        if settled.fate != Fate::GaveUp {
            self.latency.saturating_record(now_ns.saturating_sub(planned_ns) / 1000);
        }
        if let Some(log) = log
            && acked
            && kind.is_stored()
        {
            log.note(settled.click);
        }
    }

    fn sent(&mut self, now_ns: u64, planned_ns: u64) {
        self.sends += 1;
        self.late += u64::from(now_ns.saturating_sub(planned_ns) > self.late_after_ns);
    }
}

impl<'a> Loader<'a> {
    fn new(options: &'a Options, identity: Identity, log: Option<AckedLog>) -> anyhow::Result<Self> {
        let (thread, threads) = (identity.thread, identity.threads);
        let mut lanes = Vec::new();
        for (number, &target) in options.targets.iter().enumerate() {
            let seed = options.plan.seed ^ identity.run ^ thread << 8 ^ number as u64;
            let config = Config { seed, source_id: thread as u32 + 1, ..options.sender.clone() };
            lanes.push(Lane::connect(target, config, 0)?);
        }
        let frames = match &options.link {
            Some(link) => Some(RawFrames::open(link, &options.targets, &lanes)?),
            None => None,
        };
        let means = Means {
            packet_socket: frames.is_some(),
            ipv4: options.targets.iter().any(SocketAddr::is_ipv4),
            ipv6: options.targets.iter().any(SocketAddr::is_ipv6),
            denied_source: options.link.as_ref().is_some_and(|link| link.denied.is_some()),
            unsigned: options.plan.unsigned,
        };
        let rate = options.rate / threads as f64;
        Ok(Self {
            start: Instant::now(),
            interval_ns: 1e9 / rate,
            planned_total: (rate * options.plan.duration.as_secs_f64()) as u64,
            mix: options.plan.profile.mix(means, options.plan.seed.wrapping_add(thread)),
            lanes,
            frames,
            source: ClickSource::new(identity),
            log,
            counts: Counts {
                books: Books::default(),
                latency: Latency::histogram(),
                late: 0,
                sends: 0,
                late_after_ns: options.sender.flush_after_ns + options.plan.late_bound.as_nanos() as u64,
            },
            next: 0,
            batch_id: thread << 40,
            options,
        })
    }

    fn now_ns(&self) -> u64 {
        Instant::now().saturating_duration_since(self.start).as_nanos() as u64
    }

    fn planned_ns(&self, number: u64) -> u64 {
        (number as f64 * self.interval_ns) as u64
    }

    fn run(mut self, start: Instant, progress: &Progress) -> anyhow::Result<ThreadResult> {
        self.start = start;
        while self.next < self.planned_total {
            let busy = self.turn(progress)?;
            if !busy {
                self.nap();
            }
        }
        let sent_at = Instant::now();
        let sending = sent_at.saturating_duration_since(self.start);
        for lane in &mut self.lanes {
            lane.sender.flush();
        }
        // Hand-made datagrams are not tracked: a last moment for their acks.
        let linger = Duration::from_millis(100);
        while sent_at.elapsed() < self.options.plan.drain_max {
            let busy = self.turn(progress)?;
            if sent_at.elapsed() > linger && self.lanes.iter().all(|lane| lane.sender.is_idle()) {
                break;
            }
            if !busy {
                self.nap();
            }
        }
        Ok(self.finish(sending, sent_at.elapsed()))
    }

    /// Reads acks, makes what is due, sends it. Says whether there was anything to do.
    fn turn(&mut self, progress: &Progress) -> anyhow::Result<bool> {
        let now_ns = self.now_ns();
        let (counts, log) = (&mut self.counts, &mut self.log);
        let mut work = 0;
        for lane in &mut self.lanes {
            work += lane.receive(now_ns, |settled| counts.settled(now_ns, log, &settled));
            lane.sender.advance(now_ns, |settled| counts.settled(now_ns, log, &settled));
        }
        work += self.make_due(now_ns);
        let now_ns = self.now_ns();
        let counts = &mut self.counts;
        for lane in &mut self.lanes {
            work += lane.transmit(now_ns, |transmit, tickets| {
                counts.books.tracked_datagrams += 1;
                for &ticket in tickets {
                    let (kind, planned_ns) = open_ticket(ticket);
                    counts.books.click_sent(kind);
                    if transmit.attempt == 1 {
                        counts.sent(now_ns, planned_ns);
                    }
                }
            });
        }
        if let Some(log) = &mut self.log {
            log.write().context("the acked log cannot be written")?;
        }
        self.tell(progress);
        Ok(work > 0)
    }

    /// Makes the sends whose time has come, a burst at most.
    fn make_due(&mut self, now_ns: u64) -> usize {
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let due = ((now_ns as f64 / self.interval_ns) as u64 + 1).min(self.planned_total);
        let until = due.min(self.next + BURST);
        let from = self.next;
        while self.next < until {
            let planned_ns = self.planned_ns(self.next);
            let kind = self.mix[self.next as usize % self.mix.len()];
            let lane = self.next as usize % self.lanes.len();
            let done = match kind.stage() {
                Stage::Tracked => self.offer(lane, kind, now_ns, planned_ns, wall_ms),
                Stage::Worker | Stage::Header => self.by_hand(lane, kind, now_ns, planned_ns, wall_ms),
                Stage::Frame | Stage::Passed | Stage::Wrapped => {
                    self.raw_frame(kind, now_ns, planned_ns, wall_ms)
                }
            };
            if !done {
                break;
            }
            self.next += 1;
        }
        (self.next - from) as usize
    }

    /// Offers a tracked click, unless the sender is full: then it stays due, and will be late.
    fn offer(&mut self, lane: usize, kind: Kind, now_ns: u64, planned_ns: u64, wall_ms: u64) -> bool {
        let sender: &mut Sender = &mut self.lanes[lane].sender;
        if sender.free_batches() == 0 {
            return false;
        }
        let made = self.source.make(kind, wall_ms);
        let extension = self.source.extension(&made);
        if sender.offer_as(now_ns, &made.click, extension, ticket(made.kind, planned_ns)).is_ok() {
            self.counts.books.click(made.kind, made.click.price_micros.get());
        }
        true
    }

    fn by_hand(&mut self, lane: usize, kind: Kind, now_ns: u64, planned_ns: u64, wall_ms: u64) -> bool {
        let click = self.source.single(wall_ms);
        self.batch_id += 1;
        let payload = Payload::malformed(kind, &click, self.batch_id);
        if self.lanes[lane].send_by_hand(payload.bytes()) {
            self.counts.books.frame(kind, 0);
            self.counts.sent(now_ns, planned_ns);
        }
        true
    }

    fn raw_frame(&mut self, kind: Kind, now_ns: u64, planned_ns: u64, wall_ms: u64) -> bool {
        let click = self.source.single(wall_ms);
        self.batch_id += 1;
        let payload = Payload::sound(&click, self.batch_id);
        let Some(frames) = &mut self.frames else { return true };
        if frames.send(kind, payload.bytes()) {
            self.counts.books.frame(kind, click.price_micros.get());
            self.counts.sent(now_ns, planned_ns);
        }
        true
    }

    fn nap(&self) {
        let now_ns = self.now_ns();
        let next_send_ns = if self.next < self.planned_total { self.planned_ns(self.next) } else { u64::MAX };
        let timers = self.lanes.iter().filter_map(|lane| lane.sender.next_timeout_ns());
        let wake_ns = timers.fold(next_send_ns, u64::min);
        std::thread::sleep(Duration::from_nanos(wake_ns.saturating_sub(now_ns)).clamp(NAP_MIN, NAP_MAX));
    }

    fn tell(&self, progress: &Progress) {
        let ledgers = || self.lanes.iter().map(|lane| lane.sender.ledger());
        let resent = self.lanes.iter().map(|lane| lane.sender.traffic().datagrams_resent).sum();
        progress.planned.store(self.next, Ordering::Relaxed);
        progress.acked.store(ledgers().map(weir_sdk::Ledger::acked).sum(), Ordering::Relaxed);
        progress.queued.store(ledgers().map(|ledger| ledger.queued).sum(), Ordering::Relaxed);
        progress.resent.store(resent, Ordering::Relaxed);
    }

    fn finish(self, sending: Duration, drain: Duration) -> ThreadResult {
        let mut result = ThreadResult {
            books: self.counts.books,
            ledger: LedgerReport { closes: true, ..LedgerReport::default() },
            acks: Acks::default(),
            latency: self.counts.latency,
            late: self.counts.late,
            sends: self.counts.sends,
            send_failures: self.frames.as_ref().map_or(0, |frames| frames.send_failures),
            drain,
            sending,
            cpu_s: thread_time().as_secs_f64(),
        };
        for lane in &self.lanes {
            let (ledger, traffic) = (lane.sender.ledger(), lane.sender.traffic());
            result.ledger.add(ledger, traffic);
            result.acks.created += ledger.acked_created + lane.by_hand_acks.created;
            result.acks.exists += ledger.acked_exists + lane.by_hand_acks.exists;
            result.acks.malformed += ledger.dropped_malformed + lane.by_hand_acks.malformed;
            result.acks.retry += traffic.retry_statuses + lane.by_hand_acks.retry;
            result.send_failures += lane.send_failures;
        }
        result
    }
}

fn report(options: &Options, results: &[ThreadResult]) -> Report {
    let mut books = Books::default();
    let mut latency = Latency::histogram();
    let mut report = Report {
        planned_rate: options.rate,
        duration_s: options.plan.duration.as_secs_f64(),
        late_bound_ms: options.plan.late_bound.as_secs_f64() * 1e3,
        sdk_ledger: LedgerReport { closes: true, ..LedgerReport::default() },
        ..Report::default()
    };
    let (mut late, mut sends, mut sending_s) = (0, 0, 0.0_f64);
    for result in results {
        books.add(&result.books);
        latency.add(&result.latency).expect("the same bounds");
        report.sdk_ledger.merge(&result.ledger);
        report.acks.merge(&result.acks);
        report.send_failures += result.send_failures;
        report.cpu_s += result.cpu_s;
        report.drain_s = report.drain_s.max(result.drain.as_secs_f64());
        sending_s = sending_s.max(result.sending.as_secs_f64());
        late += result.late;
        sends += result.sends;
    }
    report.achieved_rate = books.sends_planned() as f64 / sending_s.max(report.duration_s);
    report.ack_latency_us = Latency::of(&latency);
    report.late_sends_share = if sends == 0 { 1.0 } else { late as f64 / sends as f64 };
    report.kinds = books.kinds();
    report.expected = books.expected(report.acks.retry);
    report.invalid_reason = invalid_reason(&report, sends);
    report.valid = report.invalid_reason.is_none();
    report
}
