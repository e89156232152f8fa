//! What two looks at a daemon tell: rates, and whether its books close. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::control::status::{Status, WorkerStatus};

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
    /// The second look.
    pub status: Status,
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

impl Model {
    /// What changed between two looks, so long apart.
    #[must_use]
    pub fn new(before: &Status, now: Status, apart: Duration) -> Self {
        let rate = |from: u64, to: u64| {
            // A daemon that restarted in between starts from zero.
            let seconds = apart.as_secs_f64();
            if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 }
        };
        let flow = |name: &str, of, from: Option<u64>, total: u64| Flow {
            name: name.to_owned(),
            of,
            per_s: rate(from.unwrap_or(0), total),
            total,
        };
        let order = weir_common::reason::Outcome::ALL.map(|outcome| outcome.name());
        let outcomes = order.iter().map(|&name| {
            let total = now.clicks.outcomes.get(name).copied().unwrap_or(0);
            flow(name, "click", before.clicks.outcomes.get(name).copied(), total)
        });
        let outcomes = outcomes.collect();
        let clicks = now
            .clicks
            .reasons
            .iter()
            .map(|(name, &total)| flow(name, "click", before.clicks.reasons.get(name).copied(), total));
        let unseen = now
            .clicks
            .unseen
            .iter()
            .map(|(name, &total)| flow(name, "unseen", before.clicks.unseen.get(name).copied(), total));
        let dropped = |class: &str| matches!(class, "malformed" | "refused");
        let frames =
            now.frames.iter().filter(|frame| dropped(&frame.class) && frame.packets > 0).map(|frame| {
                let earlier = before.frames.iter().find(|earlier| earlier.reason == frame.reason);
                flow(&frame.reason, "frame", earlier.map(|earlier| earlier.packets), frame.packets)
            });
        let mut reasons: Vec<Flow> = frames.chain(clicks).chain(unseen).collect();
        reasons.sort_by(|a, b| {
            b.per_s.total_cmp(&a.per_s).then(b.total.cmp(&a.total)).then(a.name.cmp(&b.name))
        });
        let workers = now.workers.iter().enumerate().map(|(index, worker)| {
            let idle = WorkerStatus::default();
            let from = before.workers.get(index).unwrap_or(&idle);
            WorkerRates {
                clicks_per_s: rate(from.clicks, worker.clicks),
                datagrams_per_s: rate(from.datagrams, worker.datagrams),
                acks_per_s: rate(from.acks, worker.acks),
                handed_off_per_s: rate(from.handed_off, worker.handed_off),
                now: worker.clone(),
            }
        });
        Self {
            verdict: verdict(before, &now),
            received_per_s: rate(before.clicks.received, now.clicks.received),
            outcomes,
            reasons,
            workers: workers.collect(),
            blocks_per_s: rate(before.journal.blocks, now.journal.blocks),
            journal_bytes_per_s: rate(before.journal.bytes, now.journal.bytes),
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
