//! The door's requests: taken from their connections, decided at the desk, answered.

use weir_common::reason::{Outcome, Reason};
use weir_common::wire::AckStatus;

use super::super::catalog::Catalog;
use super::super::clicks::{Clicks, Item};
use super::super::head::{Head, Method, Target};
use super::super::intake::{Asked, Intake};
use super::super::problem::Problem;
use super::super::requests::{Answer, Part, Request};
use super::super::response::{self, Status, To};
use super::{BodySample, Door, SAMPLES_MAX, Streams};
use crate::admission::Arrival;
use crate::rejects::SAMPLE_BYTES_MAX;
use crate::uring::StreamId;
use crate::withdrawal::Withdrawal;
use crate::worker::clock::Now;
use crate::worker::desk::Desk;
use crate::worker::reply::{RequestId, Waiting};

impl Door {
    /// Takes the request that a connection has.
    pub(super) fn request(&mut self, now: Now, stream: StreamId) {
        let keeps = self.draining_since_ns.is_none() && self.withdrawal.get() == Withdrawal::None;
        let Self { settings, connections, requests, catalog, admission, decoding, .. } = self;
        let Some(connection) = connections.get_mut(stream.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some((head, body)) = connection.request(&settings.limits) else { return };
        let mut request = requests.vacate();
        request.stream = stream;
        request.connection = connection.generation;
        request.from = connection.peer;
        request.received_ns = now.monotonic_ns;
        request.keeps = head.keep_alive && keeps;
        request.origin.extend_from_slice(head.origin.unwrap_or_default());
        request.is_head = head.method == Method::Head;
        let (limits, catalog, received_at) = (&settings.limits, catalog.get(), now.wall);
        let intake = Intake { limits, catalog, admission: admission.get(), received_at };
        let asked = intake.read(&head, body, decoding, &mut request.clicks);
        let sample = sample_of(&asked, &request, &head, body);
        connection.take_request();
        if self.samples.len() < SAMPLES_MAX {
            self.samples.extend(sample);
        }
        self.stats.requests_received.add(1);
        self.begin(now, request, asked);
    }

    /// Answers a request, or lets it wait for its clicks.
    fn begin(&mut self, now: Now, mut request: Request, asked: Asked) {
        match asked {
            Asked::Count(answer) => {
                if let Some(reason) = self.shed(&request) {
                    self.owed.push((Outcome::Refused, reason, request.clicks.len() as u32));
                    self.refuse(now, request, Problem::Unavailable);
                } else {
                    request.answer = answer;
                    self.undecided.push_back(self.requests.enter(request));
                }
            }
            Asked::Look(answer) => {
                self.answer_now(now, request, |catalog, to, out| show(answer, catalog, to, out));
            }
            Asked::Preflight { private_network } => {
                self.answer_now(now, request, |_, to, out| response::preflight(to, private_network, out));
            }
            Asked::Health => {
                let is_taking = self.is_taking && !self.is_draining();
                self.answer_now(now, request, |_, to, out| response::health(is_taking, to, out));
            }
            Asked::Refused(problem) => self.refuse(now, request, problem),
            Asked::Malformed(fault) => {
                self.owed.push((fault.outcome, fault.reason, 1));
                if fault.reason == Reason::BadToken {
                    self.refuse(now, request, Problem::NotFound);
                } else {
                    self.stats.requests_refused.add(1);
                    self.answer_now(now, request, |_, to, out| response::bad_body(&fault, to, out));
                }
            }
        }
    }

    /// Why a request cannot be taken now, if it cannot. What is worth least goes first: a request of
    /// nothing but unsigned clicks and repeats finds only half the room.
    fn shed(&self, request: &Request) -> Option<Reason> {
        let waiting = self.requests.clicks() + request.clicks.len();
        let clicks_max = self.settings.clicks_max;
        let room = if request.is_of_little_value() { clicks_max / 2 } else { clicks_max };
        match (self.is_draining(), waiting > room) {
            (true, _) => Some(Reason::Draining),
            (false, true) => Some(Reason::Overloaded),
            (false, false) => None,
        }
    }

    fn refuse(&mut self, now: Now, mut request: Request, problem: Problem) {
        self.stats.requests_refused.add(1);
        request.keeps &= !problem.must_close();
        self.answer_now(now, request, |_, to, out| response::problem(&problem, to, out));
    }

    /// Refuses what is no request at all; the connection ends.
    pub(super) fn refuse_stream(&mut self, now: Now, stream: StreamId, problem: Problem) {
        let Some(connection) = self.get(stream) else { return };
        let (generation, peer) = (connection.generation, connection.peer);
        let mut request = self.requests.vacate();
        (request.stream, request.connection, request.from) = (stream, generation, peer);
        (request.keeps, request.is_head) = (false, false);
        self.refuse(now, request, problem);
    }

    fn answer_now(&mut self, now: Now, request: Request, make: impl FnOnce(&Catalog, &To<'_>, &mut Vec<u8>)) {
        self.respond(now, &request, make);
        self.requests.give_back(request);
    }

    /// Gives a response to the connection of a request, if it is still there.
    fn respond(&mut self, now: Now, request: &Request, make: impl FnOnce(&Catalog, &To<'_>, &mut Vec<u8>)) {
        self.tell_date(now);
        let Self { connections, catalog, response, date: (_, date), .. } = self;
        let connection = connections.get_mut(request.stream.0 as usize).and_then(Option::as_mut);
        let Some(connection) = connection.filter(|one| one.generation == request.connection) else { return };
        let origin = (!request.origin.is_empty()).then_some(request.origin.as_slice());
        let date = date.as_deref().filter(|_| now.doubt.is_none());
        response.clear();
        let to = To { keep_alive: request.keeps, origin, is_head: request.is_head, date };
        make(catalog.get(), &to, response);
        connection.respond(response, request.keeps);
    }

    /// Keeps the `Date` of responses, which is the same for a second.
    fn tell_date(&mut self, now: Now) {
        let second = now.wall.0 / 1000;
        if self.date.0 != second {
            self.date = (second, response::date(second));
        }
    }

    /// Counts what is owed, and lets the desk decide what waits, as long as the journal has room for
    /// it, or has none and says so.
    pub fn decide(&mut self, now: Now, desk: &mut Desk) {
        self.is_taking = !desk.book.is_stuck();
        while !self.undecided.is_empty() && (desk.book.has_room() || desk.book.is_stuck()) {
            self.cut(now, desk.book.batch_datagrams());
            let Self { parts, requests, .. } = self;
            let parts = parts.iter().filter_map(|part| {
                let clicks = &requests.look(part.request)?.clicks;
                Some((part.reply_to(), part.clicks, arrivals(clicks, part)))
            });
            desk.take_in_parts(now, parts);
        }
        for (outcome, reason, clicks) in self.owed.drain(..) {
            desk.refuse(now, outcome, reason, clicks);
        }
        for BodySample { reason, from, bytes, is_cut } in self.samples.drain(..) {
            desk.sample_body(now, reason, from, &bytes, is_cut);
        }
    }

    /// Cuts the clicks that wait into as many parts at the most, each of what fits a datagram.
    fn cut(&mut self, now: Now, parts_max: usize) {
        self.parts.clear();
        while self.parts.len() < parts_max
            && let Some(&id) = self.undecided.front()
        {
            let Some(request) = self.requests.get(id) else {
                self.undecided.pop_front();
                continue;
            };
            request.cut(id, parts_max, &mut self.parts, &mut self.owed);
            if request.next >= request.clicks.len() {
                let is_decided = request.is_decided();
                self.undecided.pop_front();
                if is_decided {
                    self.answer(now, id);
                }
            }
        }
    }

    /// Some clicks of a request have their statuses, and these are durable.
    pub fn settled(&mut self, now: Now, id: RequestId, first: u16, part: &Waiting) {
        let Some(request) = self.requests.get(id) else { return };
        let cells = request.statuses.iter_mut().skip(usize::from(first));
        cells.zip(part.statuses()).for_each(|(cell, status)| *cell = *status);
        request.over_budget += usize::from(part.over_budget());
        request.parts = request.parts.saturating_sub(1);
        if request.is_decided() {
            self.answer(now, id);
        }
    }

    /// Answers a request whose clicks all have their status.
    fn answer(&mut self, now: Now, id: RequestId) {
        let Some(request) = self.requests.leave(id) else { return };
        self.stats.request_latency.record(now.monotonic_ns.saturating_sub(request.received_ns), 1);
        self.respond(now, &request, |catalog, to, out| match request.answer {
            Answer::Statuses => response::accepted(statuses_of(&request), request.refusal(), to, out),
            _ if request.is_to_retry() => response::problem(&request.refusal(), to, out),
            shown => show(shown, catalog, to, out),
        });
        self.answered.push(request.stream);
        self.requests.give_back(request);
    }

    /// Sends what was answered, and takes what waited behind it.
    pub fn reply(&mut self, now: Now, host: &mut impl Streams) {
        while let Some(stream) = self.answered.pop() {
            self.go_on(now, stream, host);
        }
    }
}

/// A copy of what is malformed of a request: its body, or the token of a link.
fn sample_of(asked: &Asked, request: &Request, head: &Head<'_>, body: &[u8]) -> Option<BodySample> {
    let fault = match asked {
        Asked::Malformed(fault) => fault,
        Asked::Count(_) => {
            request.clicks.faults().iter().find(|fault| fault.outcome == Outcome::Malformed)?
        }
        _ => return None,
    };
    let bytes = match head.target {
        Target::Click(token) | Target::Pixel(token) => token.as_bytes(),
        _ => body,
    };
    let kept = &bytes[..bytes.len().min(SAMPLE_BYTES_MAX)];
    let is_cut = kept.len() < bytes.len();
    Some(BodySample { reason: fault.reason, from: request.from, bytes: kept.to_vec(), is_cut })
}

/// What a link or a pixel shows.
fn show(answer: Answer, catalog: &Catalog, to: &To<'_>, out: &mut Vec<u8>) {
    let landing = match answer {
        Answer::Pixel => return response::pixel(to, out),
        Answer::Landing { signed_ad } => signed_ad.and_then(|ad| catalog.landing(ad)),
        Answer::Statuses => None,
    };
    match landing {
        Some(url) => response::redirect(url, to, out),
        None => response::problem(&Problem::NotFound, to, out),
    }
}

/// The clicks of a part, for the desk.
fn arrivals<'a>(clicks: &'a Clicks, part: &Part) -> impl Iterator<Item = Arrival<'a>> {
    let own = clicks.iter_from(usize::from(part.first)).take(usize::from(part.clicks));
    own.filter_map(|item| match item {
        Item::Click { click, extension } => Some(Arrival { click, extension }),
        Item::Bad(_) => None,
    })
}

/// What is said of each click: what the sender can mend, and nothing of how its traffic was judged.
fn statuses_of(request: &Request) -> impl Iterator<Item = Status<'_>> + Clone {
    let refused = Status::Malformed { reason: "refused", field: "", why: "" };
    request.clicks.iter().zip(&request.statuses).map(move |(item, &status)| match item {
        Item::Bad(fault) => {
            Status::Malformed { reason: fault.reason.name(), field: fault.field, why: &fault.why }
        }
        Item::Click { .. } if status == AckStatus::Created as u8 => Status::Created,
        Item::Click { .. } if status == AckStatus::Exists as u8 => Status::Exists,
        Item::Click { .. } if status == AckStatus::Retry as u8 => Status::Retry,
        Item::Click { .. } => refused,
    })
}
