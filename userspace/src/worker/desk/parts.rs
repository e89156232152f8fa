//! Clicks that come with requests: parts of them, each like a datagram.

use std::net::SocketAddr;

use weir_common::reason::{Outcome, Reason};

use super::super::clock::Now;
use super::super::reply::ReplyTo;
use super::{Desk, Origin, reuse};
use crate::admission::Arrival;
use crate::rejects::Input;

impl Desk {
    /// Decides clicks of requests that came together: the next `count` of `clicks` for each part.
    pub fn take_in_parts<'a>(
        &mut self,
        now: Now,
        parts: impl Iterator<Item = (ReplyTo, u8)>,
        clicks: &[Arrival<'a>],
    ) {
        let mut arrivals: Vec<Arrival<'a>> = reuse(std::mem::take(&mut self.scratch.arrivals));
        let mut origins = std::mem::take(&mut self.scratch.origins);
        let mut tickets = std::mem::take(&mut self.scratch.tickets);
        let mut rest = clicks;
        for (to, count) in parts {
            let (own, others) = rest.split_at(usize::from(count).min(rest.len()));
            rest = others;
            if let Some(ticket) = self.enter(now, to, count) {
                tickets.push(ticket);
                arrivals.extend_from_slice(own);
                origins.extend((0..count).map(|index| Origin { ticket, index }));
            }
        }
        self.decide(now, &arrivals, &origins);
        self.let_wait(&tickets);
        origins.clear();
        tickets.clear();
        (self.scratch.origins, self.scratch.tickets) = (origins, tickets);
        self.scratch.arrivals = reuse(arrivals);
    }

    /// Lets the bytes of a malformed request be sampled.
    #[cold]
    pub fn sample_body(&mut self, now: Now, reason: Reason, from: SocketAddr, bytes: &[u8], is_cut: bool) {
        let at = (now.wall, now.monotonic_ns);
        let is_taken = self.rejects.offer(at, reason, Input::Body, from, [bytes, &[]], is_cut);
        self.count_sample(is_taken);
    }

    /// Counts what came to the door of requests and is no click to decide on.
    pub fn refuse(&mut self, now: Now, outcome: Outcome, reason: Reason, clicks: u32) {
        self.count(now, outcome, reason, clicks);
    }
}
