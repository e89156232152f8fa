//! One connection: bytes in, one request at a time out, responses in the order of the requests.
//!
//! A state machine over bytes. It never reads a clock: whoever drives it says what time it is. Its
//! memory is bounded: what has come and is not used yet by [`Limits`] and [`INPUT_PAUSE`], what goes out by
//! [`OUTPUT_PAUSE`] and the response that crosses it.

use std::net::SocketAddr;

use super::body::chunked::Chunked;
use super::head::{self, Framing, Head, Limits};
use super::problem::Problem;
use super::response;
use super::tls::Session;

/// Unused bytes above which a connection is read no more while its request is being decided. Pipelined
/// requests of some packets fit.
pub const INPUT_PAUSE: usize = 32 << 10;
/// Unsent bytes above which a connection is read no more and no further request of it is taken: whoever asks
/// and does not read the answers waits for himself. The response to a thousand clicks is 20 KiB.
pub const OUTPUT_PAUSE: usize = 64 << 10;

/// What comes next of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes are needed, or the request before must be answered first.
    Nothing,
    /// A whole request: see [`Connection::request`].
    Request,
    /// What came is refused; the connection ends after the response.
    Refused(Problem),
}

/// What a connection waits for; each has its own longest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For the next request, if there is one.
    Idle,
    /// For a handshake, or the rest of a head.
    Head,
    /// For the rest of a body.
    Body,
    /// For the node.
    Decision,
    /// For the other side to take what is sent.
    Send,
    /// For the other side to see that nothing more comes, and to stop sending: a connection that is closed
    /// while bytes come in is reset, and the last response may be lost with it.
    Linger,
}

#[derive(Debug)]
enum Phase {
    /// Between requests, or within a head.
    Head,
    /// A body of known length follows the head.
    Length { head: usize, body: usize },
    /// A chunked body follows; what is decoded stands apart.
    Chunked { head: usize, chunked: Chunked },
    /// A whole request is here.
    Whole { head: usize, body: BodyAt },
    /// It is being decided.
    Deciding,
    /// The last response is on its way.
    Ending,
}

/// Where a body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyAt {
    /// After the head, so long.
    Input(usize),
    /// Apart.
    Decoded,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Tells it apart from others in its place.
    pub generation: u32,
    /// Who it is.
    pub peer: SocketAddr,
    /// Whether the kernel reads it.
    pub is_armed: bool,
    /// Whether a send is under way.
    pub is_sending: bool,
    waits: Waits,
    deadline_ns: u64,
    session: Option<Session>,
    input: Vec<u8>,
    decoded: Vec<u8>,
    phase: Phase,
    out: Vec<u8>,
    has_ended: bool,
    has_served: bool,
    is_lingering: bool,
}

impl Connection {
    /// A connection that was accepted.
    #[must_use]
    pub const fn new(generation: u32, peer: SocketAddr, session: Option<Session>) -> Self {
        Self {
            generation,
            peer,
            waits: Waits::Idle,
            deadline_ns: u64::MAX,
            is_armed: false,
            is_sending: false,
            session,
            input: Vec::new(),
            decoded: Vec::new(),
            phase: Phase::Head,
            out: Vec::new(),
            has_ended: false,
            has_served: false,
            is_lingering: false,
        }
    }

    /// Takes bytes that arrived.
    ///
    /// # Errors
    /// When they are no TLS where TLS is spoken; what is to be sent of it stands ready.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        if matches!(self.phase, Phase::Ending) {
            return Ok(()); // whoever still sends is not heard any more
        }
        match &mut self.session {
            Some(session) => session.feed(bytes, &mut self.input, &mut self.out),
            None => {
                self.input.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The other side sends nothing more.
    pub const fn end_of_input(&mut self) {
        self.has_ended = true;
    }

    /// Whether the other side sends nothing more.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What comes next.
    pub fn next(&mut self, limits: &Limits) -> Next {
        match self.advance(limits) {
            Ok(true) => Next::Request,
            Ok(false) => Next::Nothing,
            Err(problem) => {
                self.phase = Phase::Ending;
                Next::Refused(problem)
            }
        }
    }

    /// Whether there is a whole request.
    fn advance(&mut self, limits: &Limits) -> Result<bool, Problem> {
        if matches!(self.phase, Phase::Head) {
            if self.has_unsent() {
                return Ok(false);
            }
            let Some((head, len)) = head::read(&self.input, limits)? else { return Ok(false) };
            head.check(limits)?;
            let expects_continue = head.expects_continue;
            self.phase = match head.framing {
                Framing::None | Framing::Length(0) => Phase::Whole { head: len, body: BodyAt::Input(0) },
                Framing::Length(body) => Phase::Length { head: len, body: body as usize },
                Framing::Chunked => Phase::Chunked { head: len, chunked: Chunked::default() },
            };
            if expects_continue && self.input.len() == len {
                self.send(response::CONTINUE);
            }
        }
        match &mut self.phase {
            Phase::Length { head, body } if self.input.len() >= *head + *body => {
                self.phase = Phase::Whole { head: *head, body: BodyAt::Input(*body) };
            }
            Phase::Chunked { head, chunked } => {
                let (used, has_ended) =
                    chunked.feed(&self.input[*head..], &mut self.decoded, limits.body_bytes_max)?;
                self.input.drain(*head..*head + used);
                if has_ended {
                    self.phase = Phase::Whole { head: *head, body: BodyAt::Decoded };
                }
            }
            _ => {}
        }
        Ok(matches!(self.phase, Phase::Whole { .. }))
    }

    /// Head and body of a whole request.
    #[must_use]
    pub fn request(&self, limits: &Limits) -> Option<(Head<'_>, &[u8])> {
        let Phase::Whole { head: len, body } = self.phase else { return None };
        let (head, _) = head::read(&self.input, limits).ok().flatten()?;
        let body = match body {
            BodyAt::Input(body) => &self.input[len..len + body],
            BodyAt::Decoded => &self.decoded,
        };
        Some((head, body))
    }

    /// The request was taken; its response is to come.
    pub fn take_request(&mut self) {
        if let Phase::Whole { head, body } = self.phase {
            let used = head + if let BodyAt::Input(body) = body { body } else { 0 };
            self.input.drain(..used);
            self.decoded.clear();
            for memory in [&mut self.input, &mut self.decoded] {
                if memory.is_empty() && memory.capacity() > INPUT_PAUSE {
                    *memory = Vec::new(); // most requests are small; a large one was
                }
            }
            self.phase = Phase::Deciding;
        }
    }

    /// Sends the response to the request; the connection goes on, or ends after it.
    pub fn respond(&mut self, response: &[u8], goes_on: bool) {
        self.send(response);
        self.has_served = true;
        self.phase = if goes_on { Phase::Head } else { Phase::Ending };
        if let (Phase::Ending, Some(session)) = (&self.phase, &mut self.session) {
            session.finish(&mut self.out);
        }
    }

    fn send(&mut self, plain: &[u8]) {
        match &mut self.session {
            Some(session) => session.send(plain, &mut self.out),
            None => self.out.extend_from_slice(plain),
        }
    }

    /// What is to be sent now, when nothing is being sent.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        let is_ready = !self.is_sending && !self.out.is_empty();
        is_ready.then(|| std::mem::take(&mut self.out))
    }

    /// Gives the memory of what was sent back.
    pub fn recycle(&mut self, mut sent: Vec<u8>) {
        if self.out.is_empty() {
            sent.clear();
            self.out = sent;
        }
    }

    /// Whether it takes no more bytes until its request is answered, or its answers are read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // Where a head is due, so much holds a whole one: it waits for the answers before it to go out.
        let is_between = matches!(self.phase, Phase::Head | Phase::Deciding);
        self.has_unsent() || (is_between && self.input.len() >= INPUT_PAUSE)
    }

    const fn has_unsent(&self) -> bool {
        self.out.len() >= OUTPUT_PAUSE
    }

    /// Whether a request is being decided.
    #[must_use]
    pub const fn is_deciding(&self) -> bool {
        matches!(self.phase, Phase::Deciding)
    }

    /// What it waits for.
    #[must_use]
    pub fn waits_for(&self) -> Waits {
        match self.phase {
            _ if self.is_lingering => Waits::Linger,
            _ if self.is_sending => Waits::Send,
            Phase::Ending => Waits::Send,
            Phase::Deciding => Waits::Decision,
            Phase::Head if self.input.is_empty() && self.has_served => Waits::Idle,
            Phase::Head => Waits::Head,
            Phase::Length { .. } | Phase::Chunked { .. } | Phase::Whole { .. } => Waits::Body,
        }
    }

    /// What it waits for, as far as it was noted.
    #[must_use]
    pub const fn waits(&self) -> Waits {
        self.waits
    }

    /// When that must have come, on the worker's monotonic clock.
    #[must_use]
    pub const fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Notes what it waits for, and until when.
    pub const fn wait(&mut self, waits: Waits, deadline_ns: u64) {
        (self.waits, self.deadline_ns) = (waits, deadline_ns);
    }

    /// Its last response is out, and its end was told.
    pub const fn linger(&mut self) {
        self.is_lingering = true;
    }

    /// Whether it ends, and nothing of it is left to send.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ending) && self.out.is_empty() && !self.is_sending
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { head_bytes_max: 8192, body_bytes_max: 4096, decoded_bytes_max: 4096 };

    fn connection() -> Connection {
        Connection::new(1, ([192, 0, 2, 1], 9).into(), None)
    }

    fn post(body: &str, framing: &str) -> String {
        format!(
            "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}\r\n\r\n{body}"
        )
    }

    /// The bodies of all requests, each answered as soon as it is whole.
    fn bodies(connection: &mut Connection) -> Vec<String> {
        let mut bodies = Vec::new();
        while connection.next(&LIMITS) == Next::Request {
            let (_, body) = connection.request(&LIMITS).expect("a whole request");
            bodies.push(String::from_utf8_lossy(body).into_owned());
            connection.take_request();
            connection.respond(b"answer", true);
        }
        bodies
    }

    proptest! {
        #[test]
        fn requests_are_the_same_however_their_bytes_are_cut(cuts in prop::collection::vec(1_usize..60, 1..200)) {
            let chunked = "5\r\n[1,2,\r\n3;a=b\r\n 3]\r\n0\r\n\r\n";
            let stream = [
                post("[1]", "Content-Length: 3"),
                post(chunked, "Transfer-Encoding: chunked"),
                "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                post("[22]", "Content-Length: 4"),
            ]
            .concat();
            let (mut connection, mut found, mut rest) = (connection(), Vec::new(), stream.as_bytes());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                connection.feed(now).expect("no TLS");
                found.extend(bodies(&mut connection));
            }
            connection.feed(rest).expect("no TLS");
            found.extend(bodies(&mut connection));
            prop_assert_eq!(found, ["[1]", "[1,2, 3]", "", "[22]"]);
            prop_assert!(connection.waits_for() == Waits::Idle);
        }
    }

    #[test]
    fn the_next_request_waits_for_the_answer_to_the_one_before() {
        let mut connection = connection();
        let one = post("[1]", "Content-Length: 3");
        connection.feed([one.clone(), one].concat().as_bytes()).expect("no TLS");
        assert_eq!(connection.next(&LIMITS), Next::Request);
        connection.take_request();
        assert_eq!((connection.next(&LIMITS), connection.waits_for()), (Next::Nothing, Waits::Decision));
        connection.respond(b"answer", true);
        assert_eq!(connection.take_output().as_deref(), Some(&b"answer"[..]));
        assert_eq!(connection.next(&LIMITS), Next::Request);
    }

    #[test]
    fn what_is_sent_ahead_of_an_answer_is_bounded() {
        let mut connection = connection();
        connection.feed(post("[1]", "Content-Length: 3").as_bytes()).expect("no TLS");
        assert_eq!(connection.next(&LIMITS), Next::Request);
        connection.take_request();
        assert!(!connection.is_full());
        connection.feed(&[b' '; INPUT_PAUSE]).expect("no TLS");
        assert!(connection.is_full(), "it is to be read no more");
    }

    #[test]
    fn of_one_who_does_not_read_the_answers_no_further_request_is_taken() {
        let mut connection = connection();
        let many = "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3000);
        connection.feed(many.as_bytes()).expect("no TLS");
        let mut taken = 0;
        let mut answer_all = |connection: &mut Connection| {
            while connection.next(&LIMITS) == Next::Request {
                connection.take_request();
                connection.respond(&[b'a'; 100], true);
                taken += 1;
            }
            taken
        };
        assert_eq!(answer_all(&mut connection), OUTPUT_PAUSE.div_ceil(100));
        assert!(connection.is_full(), "it is to be read no more");
        assert!(connection.take_output().is_some_and(|out| out.len() < OUTPUT_PAUSE + 100));
        assert_eq!(
            answer_all(&mut connection),
            2 * OUTPUT_PAUSE.div_ceil(100),
            "it goes on when they are sent"
        );
    }

    #[test]
    fn after_the_last_response_nothing_more_is_heard() {
        let mut connection = connection();
        connection.feed(b"nonsense\r\n\r\n").expect("no TLS");
        assert!(matches!(connection.next(&LIMITS), Next::Refused(_)));
        connection.respond(b"why", false);
        connection.feed(post("[1]", "Content-Length: 3").as_bytes()).expect("no TLS");
        assert_eq!(connection.next(&LIMITS), Next::Nothing);
        assert!(!connection.is_over());
        assert_eq!(connection.take_output().as_deref(), Some(&b"why"[..]));
        assert!(connection.is_over());
    }

    #[test]
    fn what_a_connection_waits_for_changes_with_what_came() {
        let mut connection = connection();
        assert_eq!(connection.waits_for(), Waits::Head, "a new one has to say something");
        let request = post("[1]", "Content-Length: 3");
        connection.feed(&request.as_bytes()[..20]).expect("no TLS");
        assert_eq!((connection.next(&LIMITS), connection.waits_for()), (Next::Nothing, Waits::Head));
        connection.feed(&request.as_bytes()[20..request.len() - 1]).expect("no TLS");
        assert_eq!((connection.next(&LIMITS), connection.waits_for()), (Next::Nothing, Waits::Body));
        connection.feed(b"]").expect("no TLS");
        assert_eq!(connection.next(&LIMITS), Next::Request);
        connection.take_request();
        connection.respond(b"answer", true);
        assert_eq!(connection.waits_for(), Waits::Idle);
        connection.linger();
        assert_eq!(connection.waits_for(), Waits::Linger);
    }

    #[test]
    fn who_asks_first_is_told_to_go_on_and_who_did_not_wait_is_not() {
        let head = "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        for (sent, told) in [(head.to_owned(), Some(response::CONTINUE)), (format!("{head}[1]"), None)] {
            let mut connection = connection();
            connection.feed(sent.as_bytes()).expect("no TLS");
            connection.next(&LIMITS);
            assert_eq!(connection.take_output().as_deref(), told);
        }
    }
}
