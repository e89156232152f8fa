//! One thread of the load: a plan, its connections, and the loop that brings them together.

use std::collections::{BTreeMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::Options;
use super::body::{Sent, put_number};
use super::connection::{Connection, Phase, READ_BYTES, Request};
use super::counts::{ATTEMPTS_MAX, Counts};
use super::lateness::Lateness;
use super::reply::{self, Reply, Status};
use super::report::{ClickBooks, RequestBooks};
use crate::acked_log::AckedLog;
use crate::books::Books;
use crate::clicks::{ClickSource, Identity};
use crate::kind::{Kind, Means};
use crate::report::Latency;
use crate::thread_time::thread_time;

/// The longest wait for sockets before the clock is looked at again.
const WAIT_MAX_NS: u64 = 10_000_000;
/// Events taken in one call.
const EVENTS_MAX: usize = 256;
/// Until all connections stand, before the start.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After a connection broke: short against a restart of the node, long against a busy loop.
const RECONNECT_NS: u64 = 100_000_000;
/// Where a refusal does not say when to come back.
const RETRY_S: u64 = 1;
/// Longer than any door lets a request wait.
const SILENCE_NS_MAX: u64 = 30_000_000_000;
/// How often closed and silent connections are looked for.
const SWEEP_NS: u64 = 100_000_000;
/// Requests that wait to be sent again; beyond it nothing new is made.
const RETRIES_MAX: usize = 65_536;
/// Requests whose memory is kept.
const SPARE_MAX: usize = 1024;

/// What a thread hands back.
pub(super) struct ThreadResult {
    pub(super) counts: Counts,
    pub(super) sending: Duration,
    pub(super) drain: Duration,
    pub(super) cpu_s: f64,
}

/// One thread's part.
pub(super) struct Load<'a> {
    options: &'a Options,
    start: Instant,
    /// Between two requests; none where there is no plan.
    interval_ns: Option<f64>,
    planned_total: u64,
    mix: Vec<Kind>,
    source: ClickSource,
    made: u64,
    connections: Vec<Connection>,
    /// Those that can take a request, the longest idle first.
    idle: VecDeque<usize>,
    /// Requests to be sent again, by time and number.
    retries: BTreeMap<(u64, u64), Request>,
    retries_made: u64,
    spare: Vec<Request>,
    counts: Counts,
    log: Option<AckedLog>,
    next: u64,
    swept_ns: u64,
    epoll: OwnedFd,
    /// Connections that the last wait named.
    ready: Vec<usize>,
    scratch: Vec<u8>,
    body: Vec<u8>,
    message: Vec<u8>,
    statuses: Vec<Status>,
}

impl<'a> Load<'a> {
    pub(super) fn new(
        options: &'a Options,
        identity: Identity,
        log: Option<AckedLog>,
    ) -> anyhow::Result<Self> {
        let means = Means {
            packet_socket: false,
            ipv4: options.target.is_ipv4(),
            ipv6: options.target.is_ipv6(),
            denied_source: false,
            unsigned: options.plan.unsigned,
        };
        let mut mix = options.plan.profile.mix(means, options.plan.seed.wrapping_add(identity.thread));
        for kind in &mut mix {
            if !options.format.can_say(*kind) {
                *kind = Kind::Fresh;
            }
        }
        let share = options.plan.threads as f64 * options.batch as f64;
        let requests_per_s = options.rate.map(|rate| rate / share);
        let first = identity.thread as usize;
        let connections = (first..options.connections).step_by(options.plan.threads);
        Ok(Self {
            start: Instant::now(),
            interval_ns: requests_per_s.map(|rate| 1e9 / rate),
            planned_total: requests_per_s
                .map_or(u64::MAX, |rate| (rate * options.plan.duration.as_secs_f64()) as u64),
            mix,
            made: identity.thread << 40,
            source: ClickSource::new(identity),
            connections: connections.map(|_| Connection::default()).collect(),
            idle: VecDeque::new(),
            retries: BTreeMap::new(),
            retries_made: 0,
            spare: Vec::new(),
            counts: Counts {
                books: Books::default(),
                requests: RequestBooks::default(),
                clicks: ClickBooks::default(),
                latency: Latency::histogram(),
                lateness: Lateness::new(options.plan.late_bound.as_nanos() as u64),
                faults: Vec::new(),
            },
            log,
            next: 0,
            swept_ns: 0,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            ready: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; READ_BYTES],
            body: Vec::new(),
            message: Vec::new(),
            statuses: Vec::new(),
            options,
        })
    }

    /// Opens all connections and waits until they stand.
    pub(super) fn connect(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        for place in 0..self.connections.len() {
            self.open(place)?;
        }
        while self.idle.len() < self.connections.len() {
            self.wait(WAIT_MAX_NS)?;
            self.serve();
            if let Some(fault) = self.counts.faults.first() {
                anyhow::bail!("no connection to {}: {fault}", self.options.target);
            }
            anyhow::ensure!(
                begun.elapsed() < CONNECT_MAX,
                "no connection to {} in time",
                self.options.target
            );
        }
        Ok(())
    }

    /// Sends what is planned and waits for the last replies.
    pub(super) fn run(mut self, start: Instant) -> anyhow::Result<ThreadResult> {
        self.start = start;
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        let sending_max = match self.interval_ns {
            Some(_) => self.options.plan.duration * 2,
            None => self.options.plan.duration,
        };
        while self.next < self.planned_total && start.elapsed() < sending_max {
            self.turn(true)?;
        }
        if self.interval_ns.is_some() && self.next < self.planned_total {
            let unsent = self.planned_total - self.next;
            self.counts.fault(format!("{unsent} planned requests were not sent at all"));
        }
        let sent_at = Instant::now();
        let is_busy = |load: &Self| {
            !load.retries.is_empty() || load.connections.iter().any(|one| one.request.is_some())
        };
        while is_busy(&self) && sent_at.elapsed() < self.options.plan.drain_max {
            self.turn(false)?;
        }
        let drain = sent_at.elapsed();
        for connection in &self.connections {
            if let Some(request) = &connection.request {
                self.counts.requests.waiting += 1;
                self.counts.clicks.waiting += request.clicks.len() as u64;
            }
        }
        let retrying = self.retries.values().map(|request| request.clicks.len() as u64);
        self.counts.clicks.waiting += retrying.sum::<u64>();
        Ok(ThreadResult {
            counts: self.counts,
            sending: sent_at.saturating_duration_since(start),
            drain,
            cpu_s: thread_time().as_secs_f64(),
        })
    }

    fn now_ns(&self) -> u64 {
        Instant::now().saturating_duration_since(self.start).as_nanos() as u64
    }

    fn planned_ns(&self, number: u64) -> Option<u64> {
        self.interval_ns.map(|interval_ns| (number as f64 * interval_ns) as u64)
    }

    /// Sends what is due, then waits for sockets until something else is.
    fn turn(&mut self, is_sending: bool) -> anyhow::Result<()> {
        let now_ns = self.now_ns();
        self.send_due(now_ns, is_sending);
        self.sweep(now_ns)?;
        let retry_ns = self.retries.keys().next().map(|(due_ns, _)| *due_ns);
        let planned_ns = self.planned_ns(self.next).filter(|_| is_sending);
        // Without an idle connection only a socket can change anything.
        let wake_ns = if self.idle.is_empty() { None } else { retry_ns.into_iter().chain(planned_ns).min() };
        let wait_ns = wake_ns.map_or(WAIT_MAX_NS, |wake_ns| wake_ns.saturating_sub(self.now_ns()));
        self.wait(wait_ns.min(WAIT_MAX_NS))?;
        self.serve();
        if let Some(log) = &mut self.log {
            log.write().context("the acked log cannot be written")?;
        }
        Ok(())
    }

    fn wait(&mut self, wait_ns: u64) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns.min(WAIT_MAX_NS) as _ };
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        self.ready.clear();
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((events, _)) => {
                self.ready.extend(events.iter().map(|event| event.data.u64() as usize));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("epoll"),
        }
    }

    /// Goes on with each connection that the last wait named.
    fn serve(&mut self) {
        for at in 0..self.ready.len() {
            let place = self.ready[at];
            let is_closed = |load: &Self| matches!(load.connections[place].phase, Phase::Closed { .. });
            if is_closed(self) {
                continue;
            }
            let was_open = self.connections[place].phase == Phase::Open;
            match self.connections[place].advance(&mut self.scratch) {
                Ok(goes_on) => {
                    self.replies(place);
                    if is_closed(self) {
                        continue;
                    }
                    if !goes_on {
                        self.lose(place, "the connection was ended by the other side");
                    } else if !was_open && self.connections[place].is_idle() {
                        self.idle.push_back(place);
                    }
                }
                Err(error) => self.lose(place, &error.to_string()),
            }
        }
    }

    /// Sends requests while they are due and a connection is idle.
    fn send_due(&mut self, now_ns: u64, is_sending: bool) {
        while let Some(&place) = self.idle.front() {
            if !self.connections[place].is_idle() {
                self.idle.pop_front();
                continue;
            }
            let is_due = |entry: &std::collections::btree_map::OccupiedEntry<'_, (u64, u64), Request>| {
                entry.key().0 <= now_ns
            };
            let again = self.retries.first_entry().filter(is_due).map(|entry| entry.remove());
            let request = match again {
                Some(request) => request,
                None => {
                    let planned_ns = self.planned_ns(self.next).unwrap_or(now_ns);
                    let may_make = self.next < self.planned_total && self.retries.len() < RETRIES_MAX;
                    if !is_sending || !may_make || planned_ns > now_ns {
                        self.counts.lateness.look(now_ns, false);
                        return;
                    }
                    self.next += 1;
                    self.make(planned_ns)
                }
            };
            self.idle.pop_front();
            self.send(place, request);
        }
        // No connection is idle any more; what is due from here on waits for the door.
        let is_due = self.planned_ns(self.next).is_some_and(|planned_ns| planned_ns <= now_ns);
        self.counts.lateness.look(now_ns, is_due);
    }

    /// A new request of the plan.
    fn make(&mut self, planned_ns: u64) -> Request {
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut request = self.spare.pop().unwrap_or_default();
        request.clicks.clear();
        (request.planned_ns, request.attempts) = (planned_ns, 0);
        let every = self.options.user_agent_every;
        for _ in 0..self.options.batch {
            let kind = self.mix[self.made as usize % self.mix.len()];
            self.made += 1;
            let made = self.source.make(kind, wall_ms);
            let has_user_agent = every > 0 && self.made.is_multiple_of(every);
            request.clicks.push(Sent { kind: made.kind, click: made.click, has_user_agent });
        }
        request
    }

    fn send(&mut self, place: usize, mut request: Request) {
        let Options { format, host, .. } = self.options;
        self.body.clear();
        format.write(&request.clicks, self.made, &mut self.body);
        let message = &mut self.message;
        message.clear();
        for part in [
            "POST /v1/clicks HTTP/1.1\r\nHost: ",
            host,
            "\r\nContent-Type: ",
            format.content_type(),
            "\r\nContent-Length: ",
        ] {
            message.extend_from_slice(part.as_bytes());
        }
        put_number(self.body.len() as u64, message);
        message.extend_from_slice(b"\r\n\r\n");
        message.extend_from_slice(&self.body);
        // The clock is read once a loop, and many requests may have been made since.
        self.counts.sent(self.now_ns(), &mut request);
        let connection = &mut self.connections[place];
        connection.request = Some(request);
        if let Err(error) = connection.send(&self.message) {
            self.lose(place, &error.to_string());
        }
    }

    /// Takes the replies that arrived.
    fn replies(&mut self, place: usize) {
        while !self.connections[place].input.is_empty() {
            let connection = &mut self.connections[place];
            match reply::read(&connection.input) {
                Ok(None) => return,
                Ok(Some(reply)) => {
                    let Some(request) = connection.request.take() else {
                        self.lose(place, "a reply without a request");
                        return;
                    };
                    self.answered(place, request, &reply);
                }
                Err(fault) => {
                    self.counts.requests.unreadable += 1;
                    let again_ns = self.now_ns() + RECONNECT_NS;
                    if let Some(request) = self.connections[place].close(again_ns) {
                        self.counts.wrong(&request, fault);
                        self.keep(request);
                    }
                    return;
                }
            }
        }
    }

    fn answered(&mut self, place: usize, mut request: Request, reply: &Reply) {
        let now_ns = self.now_ns();
        let connection = &mut self.connections[place];
        let body = &connection.input[reply.body_at..reply.len];
        let clicks = request.clicks.len();
        self.statuses.clear();
        let verdict = match reply.status {
            202 if self.options.plain_202 => {
                self.counts.requests.accepted += 1;
                self.counts.clicks.unread += clicks as u64;
                request.clicks.clear();
                Ok(())
            }
            202 => reply::statuses(body, clicks, &mut self.statuses)
                .inspect(|()| self.counts.requests.accepted += 1)
                .inspect_err(|_| self.counts.requests.unreadable += 1),
            503 | 429 => {
                self.counts.requests.unavailable += 1;
                self.statuses.resize(clicks, Status::Retry);
                Ok(())
            }
            status => {
                *self.counts.requests.other.entry(status).or_default() += 1;
                Err(format!("status {status}: {}", String::from_utf8_lossy(body)))
            }
        };
        connection.input.drain(..reply.len);
        if reply.closes {
            connection.close(now_ns);
        } else {
            self.idle.push_back(place);
        }
        if let Err(fault) = verdict {
            self.counts.wrong(&request, fault);
            return self.keep(request);
        }
        if !self.statuses.is_empty() {
            self.counts.judge(&mut request, &self.statuses, &mut self.log);
        }
        if request.clicks.is_empty() {
            self.counts.settled(now_ns, &request);
            return self.keep(request);
        }
        self.again(now_ns + reply.retry_after_s.unwrap_or(RETRY_S) * 1_000_000_000, request);
    }

    /// A connection is gone; what was under way on it is sent again.
    fn lose(&mut self, place: usize, why: &str) {
        let again_ns = self.now_ns() + RECONNECT_NS;
        let request = self.connections[place].close(again_ns);
        self.counts.fault(format!("connection {place}: {why}"));
        if let Some(request) = request {
            self.counts.requests.lost += 1;
            self.again(again_ns, request);
        }
    }

    fn again(&mut self, due_ns: u64, request: Request) {
        if request.attempts >= ATTEMPTS_MAX {
            self.counts.clicks.gave_up += request.clicks.len() as u64;
            return self.keep(request);
        }
        self.retries_made += 1;
        self.retries.insert((due_ns, self.retries_made), request);
    }

    fn keep(&mut self, request: Request) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(request);
        }
    }

    fn open(&mut self, place: usize) -> anyhow::Result<()> {
        let Options { target, tls, .. } = self.options;
        let socket = self.connections[place].open(*target, tls.as_ref())?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(place as u64), flags).context("epoll")
    }

    /// Opens what is closed, and closes what has been silent too long.
    fn sweep(&mut self, now_ns: u64) -> anyhow::Result<()> {
        if now_ns.saturating_sub(self.swept_ns) < SWEEP_NS {
            return Ok(());
        }
        self.swept_ns = now_ns;
        for place in 0..self.connections.len() {
            let connection = &self.connections[place];
            match (connection.phase, &connection.request) {
                (Phase::Closed { again_ns }, _) if again_ns <= now_ns => {
                    if let Err(error) = self.open(place) {
                        self.lose(place, &format!("{error:#}"));
                    }
                }
                (_, Some(request)) if now_ns.saturating_sub(request.sent_ns) > SILENCE_NS_MAX => {
                    self.lose(place, "no reply in time");
                }
                _ => {}
            }
        }
        Ok(())
    }
}
