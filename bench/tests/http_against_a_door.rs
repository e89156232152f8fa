//! The HTTP engine against doors made of a few lines, which say what they please: its books are exact, and
//! nothing wrong goes unseen.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir::rx::http::catalog::Catalog;
use weir::rx::http::clicks::{Clicks, Item, Sender, read};
use weir::rx::http::head::Format as ReadAs;
use weir::rx::http::problem::Problem;
use weir::rx::http::response::{self, Status, To};
use weir_bench::http::report::HttpReport;
use weir_bench::http::{self, Format, Options};
use weir_bench::kind::Profile;
use weir_bench::plan::Plan;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;

const KEEPS: To<'_> = To { keep_alive: true, origin: None, is_head: false, date: None };

fn plan() -> Plan {
    Plan {
        duration: Duration::from_millis(200),
        profile: Profile::Duplicates,
        issuer: Issuer(3),
        key_id: KeyId(4),
        key: SipKey { k0: 11, k1: 12 },
        seed: 5,
        threads: 2,
        cores: Vec::new(),
        acked_log: None,
        // Other work may share the machine: what is tested is the books, not the pace.
        late_bound: Duration::from_secs(5),
        drain_max: Duration::from_secs(20),
        ads: 100,
        unsigned: true,
    }
}

fn options() -> Options {
    Options {
        plan: plan(),
        target: "127.0.0.1:1".parse().unwrap(),
        tls: None,
        host: "localhost".to_owned(),
        rate: Some(5000.0),
        connections: 4,
        batch: 10,
        format: Format::Json,
        user_agent_every: 2,
        plain_202: false,
        server_pid: None,
    }
}

/// As [`options`], and every click is new.
fn clean() -> Options {
    Options { plan: Plan { profile: Profile::Clean, ..plan() }, ..options() }
}

/// What a door has seen.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    known: Mutex<HashSet<(u128, u8)>>,
    created: AtomicU64,
    exists: AtomicU64,
}

impl Seen {
    /// The door's answer to a body, as a real one would give it.
    fn answer(&self, body: &[u8], out: &mut Vec<u8>) {
        let mut clicks = Clicks::default();
        read(ReadAs::Json, body, &Sender::default(), &Catalog::default(), &mut clicks).unwrap();
        let mut known = self.known.lock().unwrap();
        let mut statuses = Vec::new();
        for item in clicks.iter() {
            let Item::Click { click, .. } = item else { panic!("{item:?}") };
            if known.insert((u128::from_le_bytes(click.impression.0), click.ordinal)) {
                self.created.fetch_add(1, Ordering::Relaxed);
                statuses.push(Status::Created);
            } else {
                self.exists.fetch_add(1, Ordering::Relaxed);
                statuses.push(Status::Exists);
            }
        }
        response::accepted(statuses.into_iter(), Problem::Unavailable, &KEEPS, out);
    }
}

/// Reads one request from a connection; gives its body.
fn request(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut len = None;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(text) = line.strip_prefix("Content-Length: ") {
            len = text.trim().parse().ok();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; len.expect("a request has a length")];
    from.read_exact(&mut body).ok()?;
    Some(body)
}

/// Runs the load against a door; `door` makes the response to the n-th request, none to hang up.
fn run(
    options: Options,
    door: impl Fn(&Seen, u64, &[u8], &mut Vec<u8>) -> bool + Sync,
) -> (HttpReport, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let (seen, is_over) = (Seen::default(), AtomicU64::new(0));
    let report = std::thread::scope(|scope| {
        let (seen, is_over, door) = (&seen, &is_over, &door);
        scope.spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) == 1 {
                    break;
                }
                scope.spawn(move || {
                    let mut from = BufReader::new(stream);
                    while let Some(body) = request(&mut from) {
                        let mut out = Vec::new();
                        let number = seen.requests.fetch_add(1, Ordering::SeqCst);
                        let goes_on = door(seen, number, &body, &mut out);
                        if from.get_mut().write_all(&out).is_err() || !goes_on {
                            break;
                        }
                    }
                });
            }
        });
        let report = http::run(&Options { target, ..options });
        is_over.store(1, Ordering::SeqCst);
        // The listener waits for one more.
        let _last = TcpStream::connect(target);
        report.unwrap()
    });
    (report, seen)
}

#[test]
fn the_report_agrees_with_what_the_door_counted() {
    let (report, seen) = run(options(), |seen, _, body, out| {
        seen.answer(body, out);
        true
    });
    assert!(report.valid, "{report:?}");
    let (created, exists) = (seen.created.into_inner(), seen.exists.into_inner());
    assert_eq!((report.clicks.created, report.clicks.exists), (created, exists));
    assert_eq!(report.clicks.made, 1000);
    assert!(exists > 300, "half of them are duplicates: {exists}");
    let outcome = |name: &str| report.expected.clicks.outcomes.get(name).copied().unwrap_or(0);
    assert_eq!((outcome("accepted"), outcome("duplicate")), (created, exists));
    assert_eq!(report.requests.sent, seen.requests.into_inner());
    assert_eq!(report.latency_us.count, 100);
}

#[test]
fn clicks_answered_with_503_or_retry_are_sent_again_until_they_are_taken() {
    let mut options = clean();
    options.plan.drain_max = Duration::from_secs(60);
    let (report, seen) = run(options, |seen, number, body, out| {
        match number {
            3 => response::problem(&Problem::TooMany, &KEEPS, out),
            5 => {
                // Half of them: the others are taken, by the same books.
                let mut whole = Vec::new();
                seen.answer(body, &mut whole);
                let taken = [Status::Created, Status::Retry];
                response::accepted(taken.into_iter().cycle().take(10), Problem::Unavailable, &KEEPS, out);
            }
            _ => seen.answer(body, out),
        }
        true
    });
    assert!(report.valid, "{report:?}");
    assert_eq!((report.requests.unavailable, report.clicks.retried), (1, 15));
    assert_eq!(report.clicks.made, 1000);
    // The five that were told to retry had been noted: they are known when they come again.
    assert_eq!((report.clicks.created, report.clicks.exists), (995, 5));
    assert_eq!(seen.created.into_inner(), 1000);
    assert_eq!(report.expected.clicks.retried, 15);
    // `Retry-After: 1`, and nothing else takes so long.
    assert!(report.sending_s + report.drain_s >= 1.0, "{report:?}");
}

#[test]
fn what_a_broken_connection_carried_is_sent_again() {
    let (report, seen) = run(clean(), |seen, number, body, out| {
        // Taken, but the answer is never sent: the worst moment to break.
        seen.answer(body, out);
        if number == 7 {
            out.clear();
        }
        number != 7
    });
    assert!(report.valid, "{report:?}");
    assert_eq!((report.requests.lost, report.clicks.created, report.clicks.exists), (1, 990, 10));
    assert_eq!(seen.created.into_inner(), 1000);
}

#[test]
fn a_wrong_status_a_missing_one_and_a_refusal_make_the_run_invalid() {
    let wrong = |answer: fn(&mut Vec<u8>)| {
        run(clean(), move |seen, number, body, out| {
            if number == 2 {
                answer(out)
            } else {
                seen.answer(body, out)
            }
            true
        })
        .0
    };
    let malformed = wrong(|out| {
        let all = [Status::Malformed { reason: "refused", field: "", why: "" }; 10];
        response::accepted(all.into_iter(), Problem::Unavailable, &KEEPS, out);
    });
    assert!(!malformed.valid && malformed.clicks.wrong == 10 && malformed.clicks.closes, "{malformed:?}");
    let short =
        wrong(|out| response::accepted([Status::Created; 9].into_iter(), Problem::Unavailable, &KEEPS, out));
    assert!(!short.valid && short.requests.unreadable == 1 && short.requests.closes, "{short:?}");
    let refused = wrong(|out| response::problem(&Problem::UnsupportedType, &KEEPS, out));
    assert!(!refused.valid && refused.requests.other.get(&415) == Some(&1), "{refused:?}");
    assert!(refused.faults.iter().any(|fault| fault.contains("unsupported_type")), "{refused:?}");
    let unframed = wrong(|out| out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\n\r\n"));
    assert!(!unframed.valid && unframed.requests.unreadable == 1 && unframed.requests.closes, "{unframed:?}");
}

#[test]
fn a_door_that_never_answers_makes_the_run_invalid_and_it_still_ends() {
    let mut options = options();
    options.plan.drain_max = Duration::from_millis(300);
    let (report, _) = run(options, |_, _, _, _| true);
    assert!(!report.valid && report.requests.closes && report.clicks.closes, "{report:?}");
    assert_eq!((report.requests.sent, report.requests.waiting, report.clicks.waiting), (4, 4, 40));
}

#[test]
fn only_a_plain_run_takes_a_202_without_statuses() {
    let nginx = |_: &Seen, _: u64, _: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        true
    };
    let (plain, _) = run(Options { plain_202: true, rate: None, ..options() }, nginx);
    assert!(plain.valid && plain.clicks.unread == plain.clicks.made && plain.clicks.made > 0, "{plain:?}");
    let (checked, _) = run(options(), nginx);
    assert!(!checked.valid && checked.clicks.wrong > 0, "{checked:?}");
}
