//! What a thread counts, and the judgement of each reply: pure, without sockets.

use hdrhistogram::Histogram;
use weir::worker::reply::status_of;
use weir_common::wire::AckStatus;

use super::body::Sent;
use super::connection::Request;
use super::lateness::Lateness;
use super::reply::Status;
use super::report::{ClickBooks, RequestBooks};
use crate::acked_log::AckedLog;
use crate::books::Books;
use crate::kind::Kind;

/// Faults that are kept as text.
const FAULTS_MAX: usize = 5;
/// Sends of a click before it is given up: an outage of minutes is bridged.
pub const ATTEMPTS_MAX: u32 = 100;

/// What the hot loop adds to.
#[derive(Debug)]
pub struct Counts {
    /// Clicks by kind.
    pub books: Books,
    /// Requests by what came back.
    pub requests: RequestBooks,
    /// Clicks by their last status.
    pub clicks: ClickBooks,
    /// Of requests, in microseconds.
    pub latency: Histogram<u64>,
    /// Of first sends.
    pub lateness: Lateness,
    /// The first things that went wrong.
    pub faults: Vec<String>,
}

/// What a click's last status must be.
const fn expected(kind: Kind) -> Status {
    match status_of(kind.outcome(), kind.reason()) {
        AckStatus::Created => Status::Created,
        AckStatus::Exists => Status::Exists,
        AckStatus::Retry => Status::Retry,
        AckStatus::Malformed => Status::Malformed,
    }
}

impl Counts {
    /// Notes a send.
    pub fn sent(&mut self, now_ns: u64, request: &mut Request) {
        let is_first = request.attempts == 0;
        request.attempts += 1;
        request.sent_ns = now_ns;
        self.requests.sent += 1;
        for sent in &request.clicks {
            if is_first {
                self.books.click(sent.kind, sent.click.price_micros.get());
                self.clicks.made += 1;
            }
            self.books.click_sent(sent.kind);
        }
        if is_first {
            self.lateness.sent(request.planned_ns, now_ns);
        }
    }

    /// Judges the statuses of a request; what is to be sent again stays in it.
    pub fn judge(&mut self, request: &mut Request, statuses: &[Status], log: &mut Option<AckedLog>) {
        let mut at = 0;
        let is_resend = request.attempts > 1;
        request.clicks.retain(|sent| {
            let status = statuses[at];
            at += 1;
            self.judge_one(sent, status, is_resend, log);
            status == Status::Retry
        });
    }

    fn judge_one(&mut self, sent: &Sent, status: Status, is_resend: bool, log: &mut Option<AckedLog>) {
        match (expected(sent.kind), status) {
            (_, Status::Retry) => {
                self.clicks.retried += 1;
                return;
            }
            (Status::Created, Status::Created) | (Status::Exists, Status::Exists) => {}
            (Status::Created, Status::Exists) => self.clicks.overtaken += u64::from(!is_resend),
            (Status::Exists, Status::Created) => self.clicks.overtook += 1,
            (Status::Malformed, Status::Malformed) => {
                self.clicks.malformed += 1;
                return;
            }
            (meant, status) => {
                self.clicks.wrong += 1;
                return self.fault(format!("{status:?} for {:?}, which is to be {meant:?}", sent.kind));
            }
        }
        *(if status == Status::Created { &mut self.clicks.created } else { &mut self.clicks.exists }) += 1;
        if let Some(log) = log {
            log.note(&sent.click);
        }
    }

    /// A request is refused for good, or its reply cannot be used.
    pub fn wrong(&mut self, request: &Request, fault: String) {
        self.clicks.wrong += request.clicks.len() as u64;
        self.fault(fault);
    }

    /// All clicks of a request have their status.
    pub fn settled(&mut self, now_ns: u64, request: &Request) {
        self.latency.saturating_record(now_ns.saturating_sub(request.planned_ns) / 1000);
    }

    /// Keeps the text of a fault, if it is among the first.
    pub fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::wire::Click;

    use super::*;

    fn counts() -> Counts {
        Counts {
            books: Books::default(),
            requests: RequestBooks::default(),
            clicks: ClickBooks::default(),
            latency: Histogram::new_with_max(1000, 3).unwrap(),
            lateness: Lateness::new(10),
            faults: Vec::new(),
        }
    }

    fn request(kinds: &[Kind]) -> Request {
        let sent = |&kind: &Kind| Sent { kind, click: Click::zeroed(), has_user_agent: false };
        Request { clicks: kinds.iter().map(sent).collect(), ..Request::default() }
    }

    #[test]
    fn each_status_is_compared_with_what_the_kind_must_get() {
        use Status::{Created, Exists, Malformed, Retry};
        let mut counts = counts();
        let kinds = [Kind::Fresh, Kind::Late, Kind::Duplicate, Kind::BadTag, Kind::Repeat];
        let mut right = request(&kinds);
        counts.sent(5, &mut right);
        counts.judge(&mut right, &[Created, Created, Exists, Malformed, Retry], &mut None);
        let clicks = counts.clicks;
        assert_eq!((clicks.created, clicks.exists, clicks.malformed, clicks.retried), (2, 1, 1, 1));
        assert_eq!((clicks.wrong, right.clicks.len(), right.clicks[0].kind), (0, 1, Kind::Repeat));
        let mut wrong = request(&[Kind::Fresh, Kind::BadTag, Kind::BadTag]);
        counts.sent(5, &mut wrong);
        counts.judge(&mut wrong, &[Malformed, Created, Exists], &mut None);
        assert_eq!((counts.clicks.wrong, counts.faults.len()), (3, 3));
    }

    #[test]
    fn a_duplicate_that_came_first_is_balanced_by_its_original_and_a_resend_by_nothing() {
        let mut counts = counts();
        let mut both = request(&[Kind::Duplicate, Kind::Fresh]);
        counts.sent(0, &mut both);
        counts.judge(&mut both, &[Status::Created, Status::Exists], &mut None);
        assert_eq!((counts.clicks.overtook, counts.clicks.overtaken, counts.clicks.wrong), (1, 1, 0));
        let mut resent = request(&[Kind::Fresh]);
        counts.sent(0, &mut resent);
        counts.sent(1, &mut resent);
        counts.judge(&mut resent, &[Status::Exists], &mut None);
        assert_eq!((counts.clicks.overtaken, counts.clicks.wrong), (1, 0));
    }

    #[test]
    fn only_a_first_send_is_late_and_only_a_first_send_makes_clicks() {
        let mut counts = counts();
        let mut request = request(&[Kind::Fresh]);
        request.planned_ns = 100;
        counts.sent(110, &mut request);
        assert_eq!((counts.lateness.late, counts.lateness.first_sends, counts.clicks.made), (0, 1, 1));
        counts.sent(9000, &mut request);
        assert_eq!((counts.lateness.late, counts.lateness.first_sends), (0, 1));
        assert_eq!((counts.clicks.made, counts.requests.sent), (1, 2));
        request.attempts = 0;
        counts.sent(111, &mut request);
        assert_eq!(counts.lateness.late, 1);
    }
}
