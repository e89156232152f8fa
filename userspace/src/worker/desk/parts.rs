//! Clicks that come with requests: parts of them, each like a datagram.

use std::net::SocketAddr;

use weir_common::reason::{Outcome, Reason};

use super::super::clock::Now;
use super::super::reply::ReplyTo;
use super::Desk;
use crate::admission::Arrival;
use crate::rejects::Input;

impl Desk {
    /// Decides clicks of requests that came together: parts of `count` clicks each.
    pub fn take_in_parts<'a, I>(&mut self, now: Now, parts: impl Iterator<Item = (ReplyTo, u8, I)>)
    where
        I: Iterator<Item = Arrival<'a>>,
    {
        let mut batch = self.begin();
        for (to, count, clicks) in parts {
            if let Some(ticket) = self.enter(now, to, count) {
                batch.add(ticket, clicks);
            }
        }
        self.finish(now, batch);
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
