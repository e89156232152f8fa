//! Responses, as bytes.
//!
//! Each function appends one whole response to a buffer that the caller keeps; beyond that buffer nothing is
//! allocated. What clicks and pixels answer must never come from a cache (a cached answer is a click that is
//! not counted), so all of it says `no-store`. Start reading at [`accepted`].

use std::io;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::clicks::Fault;
use super::problem::{Problem, RETRY_AFTER_UNAVAILABLE_S};

/// What a sender waits for that asked before sending its body: RFC 9110, section 10.1.1.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Seconds that a browser may remember a preflight. Chromium caps it at two hours, Firefox at a day.
const PREFLIGHT_MAX_AGE: &str = "7200";
/// The smallest image that all browsers take: GIF89a, one transparent pixel.
const PIXEL: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// Who is answered, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct To<'a> {
    /// Whether the connection goes on after the response. It must not when the sender does not want it, when
    /// the node drains, or when there is a body that nobody read.
    pub keep_alive: bool,
    /// The origin of the page that asks, echoed so that it may read the response: [`super::head::Head::origin`].
    pub origin: Option<&'a [u8]>,
    /// Whether it asked by `HEAD`: then there are only fields.
    pub is_head: bool,
    /// The time, of [`date`]; a node without a clock to rely on sends none: RFC 9110, section 6.6.1.
    pub date: Option<&'a str>,
}

/// What became of a click, as its sender is told. Never a verdict on fraud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// Taken, and durable.
    Created,
    /// Known already, and durable.
    Exists,
    /// Not taken; the same click is to be sent again later.
    Retry,
    /// Not taken, and never will be.
    Malformed {
        /// The reason's name, of docs/reasons.
        reason: &'a str,
        /// The field, as the sender named it; may be empty.
        field: &'a str,
        /// What is wrong with it.
        why: &'a str,
    },
}

/// Clicks by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    created: u64,
    exists: u64,
    retry: u64,
    malformed: u64,
}

impl Counts {
    fn of<'a>(statuses: impl Iterator<Item = Status<'a>>) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            *match status {
                Status::Created => &mut counts.created,
                Status::Exists => &mut counts.exists,
                Status::Retry => &mut counts.retry,
                Status::Malformed { .. } => &mut counts.malformed,
            } += 1;
        }
        counts
    }

    /// Whether nothing came of any click, and may later.
    const fn are_all_retry(&self) -> bool {
        self.retry > 0 && self.created == 0 && self.exists == 0 && self.malformed == 0
    }
}

/// 202 with a status a click, in the order of the request. When every click is to be sent again, it has the status
/// of `refusal`, 503 or 429, with `Retry-After` and the same body: then also a sender that reads no bodies knows it.
///
/// The statuses are gone through twice: once for how long the body will be, once to write it.
pub fn accepted<'a>(
    statuses: impl Iterator<Item = Status<'a>> + Clone,
    refusal: Problem,
    to: &To<'_>,
    out: &mut Vec<u8>,
) {
    let counts = Counts::of(statuses.clone());
    let mut length = Length(0);
    write_statuses(statuses.clone(), &counts, &mut length);
    if counts.are_all_retry() {
        let row = refusal.row();
        let mut status = itoa::Buffer::new();
        let status = status.format(row.status).as_bytes();
        start_with(&[status, b" ", row.title.as_bytes()], to, to.keep_alive, out);
        retry_after(row.retry_after_s.unwrap_or(RETRY_AFTER_UNAVAILABLE_S), to, out);
    } else {
        start("202 Accepted", to, to.keep_alive, out);
    }
    out.extend_from_slice(b"Content-Type: application/json\r\nCache-Control: no-store\r\n");
    end_of_fields(length.0, out);
    if !to.is_head {
        write_statuses(statuses, &counts, out);
    }
}

/// 302 to a landing page. The policy lets the page know the site where the click was, as browsers do by
/// themselves, but not the address of it, whatever the referring page would allow.
///
/// `to_url` comes from the catalog, which takes no URL with blanks or control bytes; should one come all the
/// same, it would be a way to write fields of one's own, and so the answer is 404.
pub fn redirect(to_url: &str, to: &To<'_>, out: &mut Vec<u8>) {
    let is_sound = !to_url.is_empty() && !to_url.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    debug_assert!(is_sound, "a URL with blanks or control bytes came out of the catalog");
    if !is_sound {
        return problem(&Problem::NotFound, to, out);
    }
    start("302 Found", to, to.keep_alive, out);
    field("Location", to_url.as_bytes(), out);
    out.extend_from_slice(b"Cache-Control: no-store\r\nReferrer-Policy: strict-origin-when-cross-origin\r\n");
    end_of_fields(0, out);
}

/// 200 with a transparent pixel.
pub fn pixel(to: &To<'_>, out: &mut Vec<u8>) {
    start("200 OK", to, to.keep_alive, out);
    out.extend_from_slice(b"Content-Type: image/gif\r\nCache-Control: no-store\r\n");
    end_of_fields(PIXEL.len(), out);
    if !to.is_head {
        out.extend_from_slice(PIXEL);
    }
}

/// 204 to a browser that asks what pages of other origins may send. Credentials are allowed because
/// `navigator.sendBeacon` always sends with them; no cookie means anything here.
pub fn preflight(to: &To<'_>, asks_private_network: bool, out: &mut Vec<u8>) {
    start("204 No Content", to, to.keep_alive, out);
    out.extend_from_slice(b"Allow: GET, HEAD, POST, OPTIONS\r\n");
    if to.origin.is_some() {
        out.extend_from_slice(b"Access-Control-Allow-Methods: GET, HEAD, POST\r\n");
        out.extend_from_slice(b"Access-Control-Allow-Headers: Content-Type, Content-Encoding\r\n");
        field("Access-Control-Max-Age", PREFLIGHT_MAX_AGE.as_bytes(), out);
        if asks_private_network {
            out.extend_from_slice(b"Access-Control-Allow-Private-Network: true\r\n");
        }
    }
    out.extend_from_slice(b"\r\n"); // 204 has no Content-Length: RFC 9110, section 8.6
}

/// Whether the node takes clicks: 200, or 503, for who decides where to send them.
pub fn health(is_taking: bool, to: &To<'_>, out: &mut Vec<u8>) {
    let (status, body): (_, &[u8]) = if is_taking {
        ("200 OK", br#"{"taking":true}"#)
    } else {
        ("503 Service Unavailable", br#"{"taking":false}"#)
    };
    start(status, to, to.keep_alive, out);
    if !is_taking {
        retry_after(RETRY_AFTER_UNAVAILABLE_S, to, out);
    }
    out.extend_from_slice(b"Content-Type: application/json\r\nCache-Control: no-store\r\n");
    end_of_fields(body.len(), out);
    if !to.is_head {
        out.extend_from_slice(body);
    }
}

/// A problem, as RFC 9457 has it, with its name for programs as `reason`. It ends the connection when the
/// problem does, also when `to` would go on.
pub fn problem(problem: &Problem, to: &To<'_>, out: &mut Vec<u8>) {
    refusal(problem, None, to, out);
}

/// A body of which nothing can be told apart into clicks: the problem, with what is wrong and where.
pub fn bad_body(fault: &Fault, to: &To<'_>, out: &mut Vec<u8>) {
    refusal(&Problem::BadBody, Some(fault), to, out);
}

fn refusal(problem: &Problem, fault: Option<&Fault>, to: &To<'_>, out: &mut Vec<u8>) {
    let row = problem.row();
    let mut length = Length(0);
    write_problem(&row, fault, &mut length);
    let mut status = itoa::Buffer::new();
    let status = status.format(row.status).as_bytes();
    start_with(&[status, b" ", row.title.as_bytes()], to, to.keep_alive && !row.must_close, out);
    match problem {
        Problem::MethodNotAllowed { allow } => field("Allow", allow.as_bytes(), out),
        // RFC 9110, section 15.5.16: what would have been taken
        Problem::UnsupportedEncoding => field("Accept-Encoding", b"gzip, zstd, lz4", out),
        Problem::UnsupportedType => field(
            "Accept-Post",
            b"application/json, application/x-ndjson, text/plain, application/octet-stream",
            out,
        ),
        _ => {}
    }
    if let Some(seconds) = row.retry_after_s {
        retry_after(seconds, to, out);
    }
    out.extend_from_slice(b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n");
    end_of_fields(length.0, out);
    if !to.is_head {
        write_problem(&row, fault, out);
    }
}

/// Status line, date, and what the connection and the browser are told.
fn start(status: &str, to: &To<'_>, keep_alive: bool, out: &mut Vec<u8>) {
    start_with(&[status.as_bytes()], to, keep_alive, out);
}

fn start_with(status: &[&[u8]], to: &To<'_>, keep_alive: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    for part in status {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
    if let Some(date) = &to.date {
        field("Date", date.as_bytes(), out);
    }
    // said also when it goes on: HTTP/1.0 takes silence for the end
    out.extend_from_slice(if keep_alive { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" });
    if let Some(origin) = to.origin {
        field("Access-Control-Allow-Origin", origin, out);
        out.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n");
    }
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// When to try again. A page of another origin sees the field only when it is named.
fn retry_after(seconds: u32, to: &To<'_>, out: &mut Vec<u8>) {
    field("Retry-After", itoa::Buffer::new().format(seconds).as_bytes(), out);
    if to.origin.is_some() {
        out.extend_from_slice(b"Access-Control-Expose-Headers: Retry-After\r\n");
    }
}

/// The last field, and the empty line.
fn end_of_fields(body_bytes: usize, out: &mut Vec<u8>) {
    field("Content-Length", itoa::Buffer::new().format(body_bytes).as_bytes(), out);
    out.extend_from_slice(b"\r\n");
}

/// Where bytes go: the output, or a mere count of them.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The body of a 202.
fn write_statuses<'a>(statuses: impl Iterator<Item = Status<'a>>, counts: &Counts, sink: &mut impl Sink) {
    sink.put(br#"{"clicks":["#);
    for (at, status) in statuses.enumerate() {
        if at > 0 {
            sink.put(b",");
        }
        match status {
            Status::Created => sink.put(br#"{"status":"created"}"#),
            Status::Exists => sink.put(br#"{"status":"exists"}"#),
            Status::Retry => sink.put(br#"{"status":"retry"}"#),
            Status::Malformed { reason, field, why } => {
                sink.put(br#"{"status":"malformed","reason":"#);
                write_text(reason, sink);
                sink.put(br#","field":"#);
                write_text(field, sink);
                sink.put(br#","why":"#);
                write_text(why, sink);
                sink.put(b"}");
            }
        }
    }
    sink.put(br#"],"created":"#);
    write_number(counts.created, sink);
    sink.put(br#","exists":"#);
    write_number(counts.exists, sink);
    sink.put(br#","retry":"#);
    write_number(counts.retry, sink);
    sink.put(br#","malformed":"#);
    write_number(counts.malformed, sink);
    sink.put(b"}");
}

/// The body of a problem; without `type` it is `about:blank`: RFC 9457, section 3.1.1. What is wrong with a
/// body follows in members of our own, named as for a click: section 3.2.
fn write_problem(row: &super::problem::Row, fault: Option<&Fault>, sink: &mut impl Sink) {
    sink.put(br#"{"title":"#);
    write_text(row.title, sink);
    sink.put(br#","status":"#);
    write_number(row.status, sink);
    sink.put(br#","reason":"#);
    write_text(row.reason, sink);
    sink.put(br#","detail":"#);
    write_text(row.detail, sink);
    if let Some(fault) = fault {
        sink.put(br#","cause":"#);
        write_text(fault.reason.name(), sink);
        sink.put(br#","why":"#);
        write_text(&fault.why, sink);
    }
    sink.put(b"}");
}

/// A JSON string.
fn write_text(text: &str, sink: &mut impl Sink) {
    // Fails only where the sink does, and neither of them can.
    let _ = serde_json::to_writer(Writer(sink), text);
}

/// A sink, as what writes JSON wants it.
struct Writer<'a, S>(&'a mut S);

impl<S: Sink> io::Write for Writer<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A number in decimal.
fn write_number(number: impl itoa::Integer, sink: &mut impl Sink) {
    sink.put(itoa::Buffer::new().format(number).as_bytes());
}
/// A time as `Date` has it, IMF-fixdate of RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`. None
/// after the year 9999, which it cannot say.
#[must_use]
pub fn date(unix_s: u64) -> Option<String> {
    let at = Timestamp::from_second(i64::try_from(unix_s).ok()?).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}

#[cfg(test)]
mod tests;
