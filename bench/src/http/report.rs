//! The result of a run over HTTP: exact books of requests and clicks, and whether they may be used.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::server_time::ServerTime;
use crate::report::{Expected, KindReport, Latency, write_kinds};
use crate::verdict::LATE_SHARE_MAX;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpReport {
    /// Whether the numbers may be used.
    pub valid: bool,
    /// Why not.
    pub invalid_reason: Option<String>,
    /// `json`, `lines` or `datagram`.
    pub format: String,
    /// Whether it went over TLS.
    pub tls: bool,
    /// Whether bodies of responses were left unread: what became of clicks is then not known.
    pub plain_202: bool,
    /// Connections of all threads.
    pub connections: usize,
    /// Clicks of a request.
    pub clicks_per_request: usize,
    /// Planned clicks a second; none where each connection sent again as soon as it was answered.
    pub planned_rate: Option<f64>,
    /// Clicks sent a second, resends apart.
    pub achieved_rate: f64,
    /// Requests answered a second, of the sending phase and what followed it.
    pub replies_per_s: f64,
    /// Clicks with a final status a second.
    pub settled_per_s: f64,
    /// Length of the sending phase, in seconds.
    pub sending_s: f64,
    /// Length of the wait for the last replies, in seconds.
    pub drain_s: f64,
    /// What was sent, kind by kind.
    pub kinds: Vec<KindReport>,
    /// What a node that lost nothing has counted.
    pub expected: Expected,
    /// Requests by what came back.
    pub requests: RequestBooks,
    /// Clicks by their last status.
    pub clicks: ClickBooks,
    /// A request with all its clicks, from its planned time to its last status, in microseconds; where
    /// nothing was planned, from its first send, which hides the time it did not get to send.
    pub latency_us: Latency,
    /// Share of requests first sent later than the bound behind plan although a connection was idle.
    pub late_sends_share: f64,
    /// Share of requests first sent as late because every connection waited for the door; their latencies count
    /// from the planned time all the same.
    pub held_up_share: f64,
    /// That bound, in milliseconds.
    pub late_bound_ms: f64,
    /// CPU seconds of the sending threads.
    pub cpu_s: f64,
    /// CPU time of the server meanwhile.
    pub server: Option<ServerTime>,
    /// The first few things that went wrong.
    pub faults: Vec<String>,
}

/// Requests by what came back. Each send is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBooks {
    /// Sends, resends counted.
    pub sent: u64,
    /// Answered 202.
    pub accepted: u64,
    /// Answered 503 or 429: its clicks were sent again.
    pub unavailable: u64,
    /// Any other status.
    pub other: BTreeMap<u16, u64>,
    /// A response that cannot be read, or does not fit its request.
    pub unreadable: u64,
    /// The connection broke, ended or was silent too long before the response; the clicks were sent again.
    pub lost: u64,
    /// Without a response when the run ended.
    pub waiting: u64,
    /// Whether sent is the sum of the others.
    pub closes: bool,
}

/// Clicks by their last status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickBooks {
    /// Clicks made, resends left out.
    pub made: u64,
    /// `created`.
    pub created: u64,
    /// `exists`.
    pub exists: u64,
    /// `malformed`, as was to be.
    pub malformed: u64,
    /// Another status than was to be, or a request that was refused for good.
    pub wrong: u64,
    /// Answered 202 without a look at the body.
    pub unread: u64,
    /// Sent too often.
    pub gave_up: u64,
    /// Without a final status when the run ended.
    pub waiting: u64,
    /// Whether made is the sum of all these.
    pub closes: bool,
    /// Sends that were answered with `retry`.
    pub retried: u64,
    /// Duplicates that were decided before their original: `created` ...
    pub overtook: u64,
    /// ... and originals found `exists` at their first send. As many, where nothing was sent again.
    pub overtaken: u64,
}

impl RequestBooks {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.unavailable += other.unavailable;
        for (status, count) in &other.other {
            *self.other.entry(*status).or_default() += count;
        }
        self.unreadable += other.unreadable;
        self.lost += other.lost;
        self.waiting += other.waiting;
        let answered = self.accepted + self.unavailable + self.other.values().sum::<u64>();
        self.closes = self.sent == answered + self.unreadable + self.lost + self.waiting;
    }

    /// Responses that were read.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.accepted + self.unavailable + self.other.values().sum::<u64>()
    }
}

impl ClickBooks {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.made += other.made;
        self.created += other.created;
        self.exists += other.exists;
        self.malformed += other.malformed;
        self.wrong += other.wrong;
        self.unread += other.unread;
        self.gave_up += other.gave_up;
        self.waiting += other.waiting;
        self.retried += other.retried;
        self.overtook += other.overtook;
        self.overtaken += other.overtaken;
        self.closes = self.made == self.settled() + self.gave_up + self.waiting;
    }

    /// Clicks with a final status.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.created + self.exists + self.malformed + self.wrong + self.unread
    }
}

/// Why a run's numbers must not be used, if so.
#[must_use]
pub fn invalid_reason(report: &HttpReport) -> Option<String> {
    let (requests, clicks) = (&report.requests, &report.clicks);
    if requests.sent == 0 {
        return Some("nothing was sent: raise rate or duration".to_owned());
    }
    if !requests.closes || !clicks.closes {
        return Some("the books of requests and clicks do not close: this is a defect".to_owned());
    }
    let refused: u64 = requests.other.values().sum();
    if refused + requests.unreadable + clicks.wrong > 0 {
        return Some(format!(
            "{refused} requests refused, {} replies unreadable, {} clicks with another status than was to be",
            requests.unreadable, clicks.wrong
        ));
    }
    if clicks.waiting + clicks.gave_up > 0 {
        return Some(format!(
            "{} clicks without a status in time, {} given up: is the node up?",
            clicks.waiting, clicks.gave_up
        ));
    }
    if requests.lost + clicks.retried == 0 && clicks.overtook != clicks.overtaken {
        return Some(format!(
            "{} duplicates were taken as new, but {} originals as known: clicks are counted twice or never",
            clicks.overtook, clicks.overtaken
        ));
    }
    (report.planned_rate.is_some() && report.late_sends_share > LATE_SHARE_MAX).then(|| {
        format!(
            "{:.3} % of requests left more than {:.1} ms behind plan though connections were idle (0.1 % allowed): \
             lower the rate, add threads, or free the cores",
            report.late_sends_share * 100.0,
            report.late_bound_ms
        )
    })
}

/// Writes the report for people.
///
/// # Errors
/// Nobody listens.
pub fn write_table(out: &mut impl io::Write, report: &HttpReport) -> io::Result<()> {
    write_kinds(out, &report.kinds, false)?;
    let (requests, clicks, latency) = (&report.requests, &report.clicks, &report.latency_us);
    let (plan, from) = match report.planned_rate {
        Some(rate) => (format!("planned {rate:.0}/s"), "planned time"),
        None => ("as fast as answered".to_owned(), "send"),
    };
    writeln!(
        out,
        "\nrate      {plan}, achieved {:.0} clicks/s, {:.0} replies/s, {:.4} % late and {:.4} % held up \
         by over {:.1} ms, CPU {:.2} s",
        report.achieved_rate,
        report.replies_per_s,
        report.late_sends_share * 100.0,
        report.held_up_share * 100.0,
        report.late_bound_ms,
        report.cpu_s
    )?;
    writeln!(
        out,
        "requests  sent {} = 202 {} + 503 {} + other {:?} + unreadable {} + lost {} + waiting {}: {}",
        requests.sent,
        requests.accepted,
        requests.unavailable,
        requests.other,
        requests.unreadable,
        requests.lost,
        requests.waiting,
        closes(requests.closes)
    )?;
    writeln!(
        out,
        "clicks    made {} = created {} + exists {} + malformed {} + wrong {} + unread {} + given up {} + \
         waiting {}: {}; {} retried",
        clicks.made,
        clicks.created,
        clicks.exists,
        clicks.malformed,
        clicks.wrong,
        clicks.unread,
        clicks.gave_up,
        clicks.waiting,
        closes(clicks.closes),
        clicks.retried
    )?;
    writeln!(
        out,
        "latency   p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us ({from} to last status)",
        latency.p50, latency.p90, latency.p99, latency.p999, latency.max
    )?;
    if let Some(server) = &report.server {
        writeln!(
            out,
            "server    CPU {:.2} s: {:.2} us a request, {:.0} ns a click{}",
            server.cpu_s,
            server.us_per_request,
            server.ns_per_click,
            server.threads_text()
        )?;
    }
    for fault in &report.faults {
        writeln!(out, "fault     {fault}")?;
    }
    match &report.invalid_reason {
        None => writeln!(out, "VALID"),
        Some(reason) => writeln!(out, "INVALID: {reason}"),
    }
}

const fn closes(closes: bool) -> &'static str {
    if closes { "closes" } else { "DOES NOT CLOSE" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> HttpReport {
        HttpReport {
            planned_rate: Some(5.0),
            requests: RequestBooks {
                sent: 3,
                accepted: 2,
                unavailable: 1,
                closes: true,
                ..Default::default()
            },
            clicks: ClickBooks { made: 2, created: 2, closes: true, ..Default::default() },
            late_sends_share: LATE_SHARE_MAX,
            ..HttpReport::default()
        }
    }

    #[test]
    fn a_run_is_valid_only_on_plan_with_closed_books_and_no_wrong_reply() {
        assert_eq!(invalid_reason(&sound()), None);
        type Spoil = fn(&mut HttpReport);
        let spoils: [(Spoil, &str); 9] = [
            (|report| report.requests.sent = 0, "nothing"),
            (|report| report.requests.closes = false, "do not close"),
            (|report| report.clicks.closes = false, "do not close"),
            (|report| report.requests.other = BTreeMap::from([(404, 1)]), "1 requests refused"),
            (|report| report.requests.unreadable = 1, "1 replies unreadable"),
            (|report| report.clicks.wrong = 1, "another status"),
            (|report| report.clicks.waiting = 1, "without a status"),
            (|report| report.clicks.overtook = 1, "counted twice"),
            (|report| report.late_sends_share *= 1.1, "behind plan"),
        ];
        for (spoil, says) in spoils {
            let mut report = sound();
            spoil(&mut report);
            let reason = invalid_reason(&report).expect(says);
            assert!(reason.contains(says), "{reason}");
        }
        let unplanned = HttpReport { planned_rate: None, late_sends_share: 1.0, ..sound() };
        assert_eq!(invalid_reason(&unplanned), None);
    }

    #[test]
    fn books_close_when_each_send_and_each_click_has_one_end() {
        let mut requests = RequestBooks::default();
        let one = RequestBooks {
            sent: 7,
            accepted: 1,
            unavailable: 1,
            other: BTreeMap::from([(400, 1), (404, 1)]),
            unreadable: 1,
            lost: 1,
            waiting: 1,
            closes: false,
        };
        requests.merge(&one);
        requests.merge(&one);
        assert!(requests.closes && requests.sent == 14 && requests.replies() == 8);
        requests.merge(&RequestBooks { sent: 1, ..RequestBooks::default() });
        assert!(!requests.closes);
        let mut clicks = ClickBooks::default();
        clicks.merge(&ClickBooks { made: 3, created: 1, gave_up: 1, waiting: 1, retried: 9, ..clicks });
        assert!(clicks.closes);
        clicks.merge(&ClickBooks { created: 1, ..ClickBooks::default() });
        assert!(!clicks.closes);
    }
}
