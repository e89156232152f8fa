//! How a run ends: a drain, and, once all faults are over, rest.

use std::sync::Arc;

use weir_common::id::{Epoch, WorkerId};
use weir_common::reason::Reason;
use weir_common::time::UnixMs;

use super::super::host::Shown;
use super::super::node::Node;
use super::super::oracle::Verdict;
use super::World;

/// Rounds of 10 ms that may pass from the end of all faults to the end of all work: the longest
/// a sender waits before it sends again, many times over.
const ROUNDS_TO_REST: u64 = 20_000;
/// Rounds of 1 ms a drain may take: what the daemon allows.
const ROUNDS_TO_DRAIN: u64 = 30_000;

impl World {
    /// The node is asked to end, and ends in order, if the disk and the sink let it.
    pub(super) fn drain(&mut self) -> Verdict {
        self.tell(|| "drain".to_owned());
        self.tally.drains += 1;
        let epoch = self.tally.crashes;
        let Some(node) = &self.node else { return Ok(()) };
        let phase = Arc::clone(&node.phase);
        phase.drain();
        for _ in 0..ROUNDS_TO_DRAIN {
            self.round(1_000_000)?;
            if self.tally.crashes != epoch {
                return Ok(());
            }
            if phase.all_settled() {
                break;
            }
        }
        if phase.all_settled() {
            for _ in 0..2 {
                self.last_flush()?;
                if self.tally.crashes != epoch {
                    return Ok(());
                }
            }
        }
        // What was not written when the process ended is not lost with it, as with the power.
        self.node = None;
        self.start()
    }

    pub(super) fn last_flush(&mut self) -> Verdict {
        let Some(node) = &mut self.node else { return Ok(()) };
        let now = node.forwarder_time(self.clocks.get());
        node.forwarder.begin_flush(now);
        let crashes = self.tally.crashes;
        for _ in 0..2000 {
            self.round(5_000_000)?;
            let is_idle = self.node.as_ref().is_none_or(|node| node.forwarder.is_idle());
            if is_idle || self.tally.crashes != crashes {
                break;
            }
        }
        Ok(())
    }

    /// Everything gets its turn once.
    pub(super) fn round(&mut self, ns: u64) -> Verdict {
        self.pass(ns);
        let crashes = self.tally.crashes;
        let workers = self.node.as_ref().map_or(0, |node| node.workers.len());
        for worker in 0..workers {
            self.turn(worker)?;
            if self.tally.crashes != crashes {
                return Ok(());
            }
            for _ in 0..8 {
                self.serve(worker)?;
                if self.tally.crashes != crashes {
                    return Ok(());
                }
            }
        }
        if self.plan.digests > 0 && self.chance.one_in(50) {
            self.digest()?;
        }
        self.forward()
    }

    /// All faults are over: everything that was begun must end.
    pub(super) fn come_to_rest(&mut self) -> Verdict {
        let was_damaged = self.plan.damage > 0;
        self.plan = self.plan.healed();
        self.disk_is_full = false;
        self.is_at_rest = true;
        if let Some(vault) = &mut self.vault {
            vault.heal();
        }
        self.tell(|| "all faults are over".to_owned());
        self.show(Shown { wall: UnixMs(self.true_ms()), ..self.clocks.get() });
        let is_in_doubt = |node: &Node| node.clock.at(self.clocks.get().monotonic_ns).doubt.is_some();
        let is_in_doubt = self.node.as_ref().is_some_and(is_in_doubt);
        if is_in_doubt
            || self.chance.one_in(2)
            || self.disk_is_read_only
            || was_damaged
            || self.needs_operator()
        {
            self.crash("the end of all faults")?;
        }
        if self.is_misled {
            // Its time may be a year ahead, and never runs backwards: its operator gives it up.
            return Ok(());
        }
        let mut rounds = 0;
        while self.sources.iter().any(|source| !source.is_idle()) || !self.is_forwarded() {
            rounds += 1;
            if rounds > ROUNDS_TO_REST {
                return Err(self.unrest());
            }
            for source in 0..self.sources.len() {
                self.sources[source].flush();
                self.tick(source)?;
            }
            while !self.network.is_empty() {
                self.deliver()?;
            }
            self.round(10_000_000)?;
            if rounds % 2000 == 0 {
                // A full journal gets room when what is in it is old enough to go.
                self.pass(2 * self.plan.limits.lifetime_ms * 1_000_000);
            }
        }
        self.drain()?;
        self.oracle.closed()
    }

    pub(super) fn is_forwarded(&self) -> bool {
        let Some(node) = &self.node else { return false };
        let store = self.store.borrow();
        node.workers.iter().enumerate().all(|(number, worker)| {
            let worker_id = WorkerId(number as u16);
            let committed = store.checkpoint().committed(Epoch(node.epoch), worker_id);
            worker.desk().is_settled()
                && committed == worker.desk().book.sealed()
                && worker.desk().book.open_rows().0 == 0
        }) && node.forwarder.is_idle()
    }

    pub(super) fn unrest(&self) -> String {
        let busy = self.sources.iter().filter(|source| !source.is_idle()).count();
        let Some(node) = &self.node else { return "no rest: the node is gone".to_owned() };
        let states: Vec<_> = node
            .workers
            .iter()
            .zip(&node.stations)
            .map(|(worker, station)| {
                let (desk, station) = (worker.desk(), station.borrow());
                let (book, requests) = (&desk.book, station.requests.len());
                let (room, open, state) = (book.has_room(), book.open_rows().0, book.state());
                let (sealed, durable) = (book.sealed().0, book.durable().0);
                format!(
                    "{} wait, {sealed} sealed, {durable} durable, {open} open, room {room}, {state:?}, {requests} requests",
                    desk.waiting()
                )
            })
            .collect();
        let (is_idle, error) = (node.forwarder.is_idle(), node.forwarder.last_error());
        let refusals: Vec<_> = Reason::ALL
            .iter()
            .map(|&reason| {
                (reason.name(), node.stats.iter().map(|of| of.reasons[reason as usize].get()).sum::<u64>())
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        format!(
            "no rest: {busy} senders wait, time {:?}, refused {refusals:?}; workers {states:?}; forwarder idle {is_idle}, {error:?}",
            node.clock.at(self.clocks.get().monotonic_ns),
        )
    }
}
