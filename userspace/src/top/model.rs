//! What two looks at a daemon tell: rates, and whether its books close. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::control::status::{FrameStatus, Status, WorkerStatus};

/// What the residual of the click ledger means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every click received has its outcome.
    Closed,
    /// Some clicks are on their way to theirs.
    InFlight,
    /// Clicks were lost or counted twice.
    Open,
}

/// Clicks, frames or datagrams by name: how many a second, and how many in all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// Outcome or reason.
    pub name: String,
    /// `click`, `frame` or `unseen`.
    pub of: &'static str,
    /// Between the two looks.
    pub per_s: f64,
    /// Since the daemon started.
    pub total: u64,
    /// Where they were met.
    pub by_core: Vec<CoreFlow>,
}

/// The share of one core in a [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CoreFlow {
    /// The worker's core, or of frames the CPU.
    pub core: usize,
    /// Between the two looks.
    pub per_s: f64,
    /// Since the daemon started.
    pub total: u64,
}

/// What one worker does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerRates {
    /// Clicks a second.
    pub clicks_per_s: f64,
    /// Datagrams a second.
    pub datagrams_per_s: f64,
    /// Acks a second.
    pub acks_per_s: f64,
    /// Clicks a second given to other workers.
    pub handed_off_per_s: f64,
    /// Clicks a second taken from other workers.
    pub taken_over_per_s: f64,
    /// Bytes a second made durable.
    pub journal_bytes_per_s: f64,
    /// Frames a second that the XDP program met on its core.
    pub frames_per_s: f64,
    /// Its counters.
    pub now: WorkerStatus,
}

/// The daemon as one screen shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// Whether the books close.
    pub verdict: Verdict,
    /// Clicks a second.
    pub received_per_s: f64,
    /// Each outcome, in the order of the table.
    pub outcomes: Vec<Flow>,
    /// Why frames and clicks were not counted as accepted; busiest first.
    pub reasons: Vec<Flow>,
    /// Each worker.
    pub workers: Vec<WorkerRates>,
    /// Blocks a second made durable.
    pub blocks_per_s: f64,
    /// Bytes a second made durable.
    pub journal_bytes_per_s: f64,
    /// Rows a second that reach the sink.
    pub rows_per_s: f64,
    /// Bytes of raw batches a second that reach the sink.
    pub raw_bytes_per_s: f64,
    /// Bucket revisions a second that reach the sink.
    pub buckets_per_s: f64,
    /// The second look.
    pub status: Status,
}

/// A node that is looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What it is called: its host, or its socket.
    pub name: String,
    /// What was seen of it last.
    pub model: Option<Model>,
    /// Why it did not answer the last time, if it did not.
    pub trouble: Option<String>,
}

/// Whether the books close, from two looks at a daemon.
///
/// A residual above zero is clicks in flight as long as something moves or waits; one that stays
/// while nothing does is a loss. One below zero is a click counted twice, at any time.
#[must_use]
pub fn verdict(before: &Status, now: &Status) -> Verdict {
    let moved =
        before.clicks.received != now.clicks.received || before.clicks.outcomes != now.clicks.outcomes;
    match now.clicks.residual {
        0 => Verdict::Closed,
        1.. if moved || now.clicks.waiting > 0 => Verdict::InFlight,
        _ => Verdict::Open,
    }
}

/// Two looks at a daemon, so long apart.
struct Looks<'a> {
    before: &'a Status,
    now: &'a Status,
    seconds: f64,
}

impl Looks<'_> {
    fn rate(&self, from: u64, to: u64) -> f64 {
        // A daemon that restarted in between starts from zero.
        if self.seconds > 0.0 { to.saturating_sub(from) as f64 / self.seconds } else { 0.0 }
    }

    fn flow(&self, name: &str, of: &'static str, counts: (Option<u64>, u64), by_core: Vec<CoreFlow>) -> Flow {
        let (from, total) = (counts.0.unwrap_or(0), counts.1);
        Flow { name: name.to_owned(), of, per_s: self.rate(from, total), total, by_core }
    }

    fn outcomes(&self) -> Vec<Flow> {
        let count = |status: &Status, name: &str| status.clicks.outcomes.get(name).copied();
        let names = weir_common::reason::Outcome::ALL.map(|outcome| outcome.name());
        let flow = |name| {
            let counts = (count(self.before, name), count(self.now, name).unwrap_or(0));
            self.flow(name, "click", counts, Vec::new())
        };
        names.map(flow).to_vec()
    }

    /// Why frames and clicks were not counted as accepted; busiest first.
    fn reasons(&self) -> Vec<Flow> {
        let clicks = self.now.clicks.reasons.iter().map(|(name, &total)| {
            let counts = (self.before.clicks.reasons.get(name).copied(), total);
            self.flow(name, "click", counts, self.by_worker(name))
        });
        let unseen = self.now.clicks.unseen.iter().map(|(name, &total)| {
            let counts = (self.before.clicks.unseen.get(name).copied(), total);
            self.flow(name, "unseen", counts, self.by_worker(name))
        });
        let is_dropped =
            |frame: &&FrameStatus| matches!(&*frame.class, "malformed" | "refused") && frame.packets > 0;
        let frames = self.now.frames.iter().filter(is_dropped).map(|frame| {
            let earlier = self.before.frames.iter().find(|earlier| earlier.reason == frame.reason);
            let counts = (earlier.map(|earlier| earlier.packets), frame.packets);
            self.flow(&frame.reason, "frame", counts, self.by_cpu(earlier, frame))
        });
        let mut reasons: Vec<Flow> = frames.chain(clicks).chain(unseen).collect();
        reasons.sort_by(|a, b| {
            b.per_s.total_cmp(&a.per_s).then(b.total.cmp(&a.total)).then(a.name.cmp(&b.name))
        });
        reasons
    }

    /// Where clicks met this reason.
    fn by_worker(&self, reason: &str) -> Vec<CoreFlow> {
        let count = |worker: &WorkerStatus| worker.reasons.get(reason).copied().unwrap_or(0);
        let share = |(index, worker): (usize, &WorkerStatus)| {
            let (from, total) = (self.before.workers.get(index).map_or(0, count), count(worker));
            CoreFlow { core: worker.core, per_s: self.rate(from, total), total }
        };
        self.now.workers.iter().enumerate().map(share).filter(|share| share.total > 0).collect()
    }

    /// Where frames met it.
    fn by_cpu(&self, before: Option<&FrameStatus>, now: &FrameStatus) -> Vec<CoreFlow> {
        let earlier =
            |cpu: usize| before.and_then(|before| before.packets_by_cpu.get(cpu)).copied().unwrap_or(0);
        let share =
            |(core, &total): (usize, &u64)| CoreFlow { core, per_s: self.rate(earlier(core), total), total };
        now.packets_by_cpu.iter().enumerate().map(share).filter(|share| share.total > 0).collect()
    }

    fn worker(&self, index: usize, worker: &WorkerStatus) -> WorkerRates {
        let idle = WorkerStatus::default();
        let from = self.before.workers.get(index).unwrap_or(&idle);
        let frames = |status: &Status| -> u64 {
            status.frames.iter().filter_map(|frame| frame.packets_by_cpu.get(worker.core)).sum()
        };
        WorkerRates {
            clicks_per_s: self.rate(from.clicks, worker.clicks),
            datagrams_per_s: self.rate(from.datagrams, worker.datagrams),
            acks_per_s: self.rate(from.acks, worker.acks),
            handed_off_per_s: self.rate(from.handed_off, worker.handed_off),
            taken_over_per_s: self.rate(from.taken_over, worker.taken_over),
            journal_bytes_per_s: self.rate(from.journal_bytes, worker.journal_bytes),
            frames_per_s: self.rate(frames(self.before), frames(self.now)),
            now: worker.clone(),
        }
    }
}

impl Model {
    /// What changed between two looks, so long apart.
    #[must_use]
    pub fn new(before: &Status, now: Status, apart: Duration) -> Self {
        let looks = Looks { before, now: &now, seconds: apart.as_secs_f64() };
        let (from, to) = (&before.forward, &now.forward);
        let workers = now.workers.iter().enumerate();
        Self {
            verdict: verdict(before, &now),
            received_per_s: looks.rate(before.clicks.received, now.clicks.received),
            outcomes: looks.outcomes(),
            reasons: looks.reasons(),
            workers: workers.map(|(index, worker)| looks.worker(index, worker)).collect(),
            blocks_per_s: looks.rate(before.journal.blocks, now.journal.blocks),
            journal_bytes_per_s: looks.rate(before.journal.bytes, now.journal.bytes),
            rows_per_s: looks.rate(from.rows, to.rows),
            raw_bytes_per_s: looks.rate(from.raw_bytes, to.raw_bytes),
            buckets_per_s: looks.rate(from.buckets, to.buckets),
            status: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(received: u64, residual: i64, waiting: u64) -> Status {
        let mut status = Status::default();
        (status.clicks.received, status.clicks.residual, status.clicks.waiting) =
            (received, residual, waiting);
        status
    }

    #[test]
    fn a_residual_is_in_flight_only_while_something_moves_or_waits() {
        assert_eq!(verdict(&status(5, 0, 0), &status(9, 0, 3)), Verdict::Closed);
        assert_eq!(verdict(&status(5, 0, 0), &status(9, 4, 0)), Verdict::InFlight);
        assert_eq!(verdict(&status(9, 4, 1), &status(9, 4, 1)), Verdict::InFlight);
        assert_eq!(verdict(&status(9, 4, 0), &status(9, 4, 0)), Verdict::Open);
        assert_eq!(verdict(&status(5, 0, 0), &status(9, -1, 7)), Verdict::Open);
    }

    #[test]
    fn a_rate_is_what_was_added_in_the_time_between() {
        let apart = Duration::from_millis(500);
        let model = Model::new(&status(100, 0, 0), status(400, 0, 0), apart);
        assert!((model.received_per_s - 600.0).abs() < 1e-9);
        let restarted = Model::new(&status(400, 0, 0), status(10, 0, 0), apart);
        assert!(restarted.received_per_s.abs() < 1e-9);
    }
}
