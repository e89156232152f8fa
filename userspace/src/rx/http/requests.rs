//! Requests whose clicks are being decided: a table with places that are used again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use weir_common::reason::{Outcome, Reason};
use weir_common::wire::{AckStatus, CLICK_LEN, HEADER_LEN, MAX_PAYLOAD};

use super::clicks::{CLICKS_MAX, Clicks, Item};
use super::problem::Problem;
use crate::uring::StreamId;
use crate::worker::reply::{MAX_CLICKS, ReplyTo, RequestId};

/// What a request is answered with once its clicks are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The status of each.
    #[default]
    Statuses,
    /// The way to the landing page of the ad, if it is under a right signature.
    Landing {
        /// The ad.
        signed_ad: Option<u64>,
    },
    /// An image.
    Pixel,
}

/// A request that waits for its clicks.
#[derive(Debug)]
pub struct Request {
    /// Clicks that somebody's budget had no room for.
    pub over_budget: usize,
    /// Where it came in.
    pub stream: StreamId,
    /// Which connection that was.
    pub connection: u32,
    /// Who sent it.
    pub from: SocketAddr,
    /// Its clicks.
    pub clicks: Clicks,
    /// What is said of each, as an [`AckStatus`].
    pub statuses: Vec<u8>,
    /// Those before this one are with the desk, or need no decision.
    pub next: usize,
    /// Parts that are with the desk.
    pub parts: u32,
    /// What it is answered with.
    pub answer: Answer,
    /// Whether the connection goes on after it.
    pub keeps: bool,
    /// Where the page is from that sent it, for CORS; empty when nobody says.
    pub origin: Vec<u8>,
    /// Whether the body of the response is left out.
    pub is_head: bool,
    /// When it was read, on the worker's monotonic clock.
    pub received_ns: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            over_budget: 0,
            stream: StreamId(0),
            connection: 0,
            from: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            clicks: Clicks::default(),
            statuses: Vec::new(),
            next: 0,
            parts: 0,
            answer: Answer::Statuses,
            keeps: false,
            origin: Vec::new(),
            is_head: false,
            received_ns: 0,
        }
    }
}

impl Request {
    /// Whether the last of its clicks has its status.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.parts == 0 && self.next >= self.clicks.len()
    }

    /// Whether no click of it can be taken now.
    #[must_use]
    pub fn is_to_retry(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|&status| status == AckStatus::Retry as u8)
    }

    /// Why no click of it is taken, where that is so: a budget alone, or the node.
    #[must_use]
    pub const fn refusal(&self) -> Problem {
        if self.over_budget < self.clicks.len() { Problem::Unavailable } else { Problem::TooMany }
    }

    /// Whether nobody pays for any click of it: all are unsigned, or say themselves that they are repeats.
    #[must_use]
    pub fn is_of_little_value(&self) -> bool {
        self.clicks.iter().all(|item| match item {
            Item::Click { click, .. } => click.is_foreign() || click.ordinal > 0,
            Item::Bad(_) => true,
        })
    }

    /// Cuts what is left of its clicks into parts, until there are `parts_max`; clicks that cannot be
    /// read have their status already, and are owed to the books.
    pub fn cut(
        &mut self,
        id: RequestId,
        parts_max: usize,
        parts: &mut Vec<Part>,
        owed: &mut Vec<(Outcome, Reason, u32)>,
    ) {
        let Self { clicks, statuses, next, from, .. } = self;
        let mut open: Option<(Part, usize)> = None;
        let begun = parts.len();
        for (index, item) in clicks.iter().enumerate().skip(*next) {
            let bytes = match item {
                Item::Click { extension, .. } => CLICK_LEN + extension.len(),
                Item::Bad(fault) => {
                    parts.extend(open.take().map(|(part, _)| part));
                    statuses[index] = AckStatus::Malformed as u8;
                    owed.push((fault.outcome, fault.reason, 1));
                    *next = index + 1;
                    continue;
                }
            };
            let fits = |part: &Part, filled: usize| {
                usize::from(part.clicks) < MAX_CLICKS && filled + bytes <= MAX_PAYLOAD - HEADER_LEN
            };
            match &mut open {
                Some((part, filled)) if fits(part, *filled) => {
                    part.clicks += 1;
                    *filled += bytes;
                }
                _ => {
                    parts.extend(open.take().map(|(part, _)| part));
                    if parts.len() >= parts_max {
                        break;
                    }
                    let part = Part { request: id, first: index as u16, clicks: 1, from: *from };
                    open = Some((part, bytes));
                }
            }
            *next = index + 1;
        }
        parts.extend(open.map(|(part, _)| part));
        self.parts += (parts.len() - begun) as u32;
    }
}

/// Clicks of a request that go to the desk together: as many as fit a datagram, which is what its tables are
/// made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of which request.
    pub request: RequestId,
    /// The first of them.
    pub first: u16,
    /// How many.
    pub clicks: u8,
    /// Who sent it.
    pub from: SocketAddr,
}

impl Part {
    /// Whom the answer goes to.
    #[must_use]
    pub const fn reply_to(&self) -> ReplyTo {
        ReplyTo::Request { request: self.request, first: self.first, from: self.from }
    }
}

// The index of a click in its request, and the number of clicks of a part, fit their fields.
const _: () = assert!(CLICKS_MAX <= u16::MAX as usize && MAX_CLICKS <= u8::MAX as usize);

/// All requests of a worker that wait. As many as connections at the most, for each has one.
#[derive(Debug, Default)]
pub struct Requests {
    /// The generation of each place, and who has it.
    places: Vec<(u32, Option<Request>)>,
    free: Vec<u32>,
    spare: Vec<Request>,
    clicks: usize,
}

/// Requests whose memory is kept for the next: as many as are answered in a busy turn.
const SPARE_MAX: usize = 256;

impl Requests {
    /// A request without clicks, with the memory of one that was answered.
    pub fn vacate(&mut self) -> Request {
        let mut request = self.spare.pop().unwrap_or_default();
        request.clicks.clear();
        request.statuses.clear();
        request.origin.clear();
        (request.next, request.parts, request.over_budget) = (0, 0, 0);
        request
    }

    /// Keeps the memory of a request that was answered.
    pub fn give_back(&mut self, request: Request) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(request);
        }
    }

    /// Enters a request; all its clicks are to be sent again until something else is said of them.
    pub fn enter(&mut self, mut request: Request) -> RequestId {
        request.statuses.resize(request.clicks.len(), AckStatus::Retry as u8);
        self.clicks += request.clicks.len();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (generation, place) = &mut self.places[slot as usize];
        *generation = generation.wrapping_add(1);
        *place = Some(request);
        RequestId { slot, generation: *generation }
    }

    /// A request that waits.
    pub fn get(&mut self, id: RequestId) -> Option<&mut Request> {
        let (generation, request) = self.places.get_mut(id.slot as usize)?;
        request.as_mut().filter(|_| *generation == id.generation)
    }

    /// As [`Requests::get`], to look at.
    #[must_use]
    pub fn look(&self, id: RequestId) -> Option<&Request> {
        let (generation, request) = self.places.get(id.slot as usize)?;
        request.as_ref().filter(|_| *generation == id.generation)
    }

    /// Takes a request out that is to be answered.
    pub fn leave(&mut self, id: RequestId) -> Option<Request> {
        self.get(id)?;
        let request = self.places[id.slot as usize].1.take()?;
        self.clicks -= request.clicks.len();
        self.free.push(id.slot);
        Some(request)
    }

    /// Clicks that wait.
    #[must_use]
    pub const fn clicks(&self) -> usize {
        self.clicks
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use weir_common::time::UnixMs;

    use super::super::catalog::Catalog;
    use super::super::clicks::{Sender, read};
    use super::super::head::Format;
    use super::*;

    /// A request of so many clicks, of which every tenth cannot be read, with a user agent of so many bytes.
    fn request(clicks: usize, agent: usize) -> Request {
        let agent = "a".repeat(agent);
        let click = |n: usize| match n % 10 {
            9 => "{}\n".to_owned(),
            _ => format!("{{\"event_id\":\"{n:032x}\",\"ad_id\":1,\"user_agent\":\"{agent}\"}}\n"),
        };
        let body: String = (0..clicks).map(click).collect();
        let sender = Sender { received_at: UnixMs(1_800_000_000_000), ..Sender::default() };
        let mut request = Request::default();
        read(Format::Lines, body.as_bytes(), &sender, &Catalog::default(), &mut request.clicks)
            .expect("clicks");
        request
    }

    /// Cuts all of a request, so many parts at a time.
    fn cut_all(requests: &mut Requests, id: RequestId, at_once: usize) -> (Vec<Part>, usize) {
        let (mut all, mut owed) = (Vec::new(), Vec::new());
        while requests.look(id).is_some_and(|request| request.next < request.clicks.len()) {
            let mut parts = Vec::new();
            requests.get(id).expect("it waits").cut(id, at_once, &mut parts, &mut owed);
            assert!(parts.len() <= at_once, "{}", parts.len());
            all.extend(parts);
        }
        (all, owed.len())
    }

    #[test]
    fn parts_are_of_what_fits_a_datagram_and_every_click_is_in_one_or_owed() {
        for (clicks, agent, at_once) in [(1, 0, 64), (1000, 0, 64), (1000, 500, 3), (57, 300, 1), (10, 0, 1)]
        {
            let mut requests = Requests::default();
            let id = requests.enter(request(clicks, agent));
            let (parts, owed) = cut_all(&mut requests, id, at_once);
            let mut seen = vec![false; clicks];
            for part in &parts {
                let own = usize::from(part.first)..usize::from(part.first) + usize::from(part.clicks);
                let extension = if agent > 0 { agent + 3 } else { 0 };
                assert!(own.len() <= MAX_CLICKS);
                assert!(own.len() == 1 || own.len() * (CLICK_LEN + extension) <= MAX_PAYLOAD - HEADER_LEN);
                for index in own {
                    assert!(!std::mem::replace(&mut seen[index], true), "click {index} is in two parts");
                }
            }
            let unread = (0..clicks).filter(|n| n % 10 == 9).count();
            assert_eq!((seen.iter().filter(|seen| !**seen).count(), owed), (unread, unread));
            let request = requests.look(id).expect("it waits");
            assert_eq!(request.parts as usize, parts.len());
        }
    }

    #[test]
    fn an_answer_for_a_former_tenant_of_a_place_finds_nobody() {
        let mut requests = Requests::default();
        let old = requests.enter(request(1, 0));
        assert_eq!(requests.clicks(), 1);
        assert!(requests.leave(old).is_some());
        let new = requests.enter(request(2, 0));
        assert_eq!((old.slot, requests.clicks()), (new.slot, 2));
        assert!(requests.get(old).is_none() && requests.leave(old).is_none());
        assert!(requests.get(new).is_some() && !requests.is_empty());
    }
}
