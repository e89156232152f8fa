//! The head of a request, read once and checked.
//!
//! [`read`] says what a head is, or that it is none; [`Head::check`] says whether it is one that this node
//! answers. `httparse` splits it into lines; what it is laxer in than RFC 9112 is refused here, because
//! whoever stands before this node may read a lax line differently, and where two disagree on where a
//! request ends, a third one smuggles his own between. So: each line ends with CR LF, the length of a
//! body is said once and one way, and there is one host.
//!
//! Never waits, keeps nothing between calls, and looks at no body. The answer to a prefix is the answer
//! to the whole: bytes may come one by one.

use std::mem::MaybeUninit;

use super::problem::Problem;

/// Fields of one head. Browsers send about 20, a proxy adds some; each costs 32 bytes of stack.
pub const FIELDS_MAX: usize = 64;
/// Digits of a `Content-Length`: 19 always fit 64 bits.
const LENGTH_DIGITS_MAX: usize = 19;
/// Bytes of an `Origin` that is echoed: scheme, the longest host name (253) and a port.
const ORIGIN_BYTES_MAX: usize = 270;

/// The method, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// Any other.
    Other,
}

/// What is asked for. A query is cut off and ignored; nothing is percent-decoded, as no path of ours needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/v1/clicks`
    Clicks,
    /// `/v1/click/{token}`: a token of unreserved characters (RFC 3986, section 2.3), not yet verified.
    Click(&'a str),
    /// `/v1/pixel/{token}`, likewise.
    Pixel(&'a str),
    /// `/v1/health`
    Health,
    /// Anything else.
    Unknown,
}

/// How long the body is: RFC 9112, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Until the last chunk: [`super::body::chunked`].
    Chunked,
}

/// How the body is compressed: RFC 9110, section 8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// `gzip` or `x-gzip`: RFC 1952.
    Gzip,
    /// `zstd`: RFC 8878.
    Zstd,
    /// `lz4`: the frame format.
    Lz4,
    /// Another, or several: [`Head::check`] refuses it.
    Other,
}

/// What the body holds, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: a click, or an array of them.
    Json,
    /// `application/x-ndjson`: a click a line.
    Lines,
    /// `text/plain`, as a browser's beacon sends it to another origin without asking first: told by its content,
    /// an object, an array or lines.
    Text,
    /// `application/octet-stream`: one datagram of docs/protocol.md.
    Datagram,
}

/// A head, read and of sound form.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub target: Target<'a>,
    /// How long the body is.
    pub framing: Framing,
    /// How it is compressed.
    pub encoding: Encoding,
    /// What it holds; `None` when that is not said, or something else.
    pub format: Option<Format>,
    /// Whether the sender wants to go on with this connection.
    pub keep_alive: bool,
    /// Whether the sender waits for [`super::response::CONTINUE`] before it sends the body.
    pub expects_continue: bool,
    /// Whether it expects something else: [`Head::check`] refuses it.
    pub expects_other: bool,
    /// `Origin`, when it is short visible ASCII: it can be echoed.
    pub origin: Option<&'a [u8]>,
    /// `User-Agent`; any bytes but control bytes.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`, likewise.
    pub referrer: Option<&'a [u8]>,
    /// Whether a browser fetches ahead (`Sec-Purpose`, `Purpose`, `X-Purpose`, `X-Moz`): nobody clicked.
    pub is_prefetch: bool,
    /// Whether the user does not want to be tracked (`Sec-GPC: 1`, `DNT: 1`).
    pub is_opted_out: bool,
    /// Whether a preflight asks if a public page may reach a private address.
    pub asks_private_network: bool,
}

/// How much of a request is taken. What a connection can hold follows: [`Limits::connection_bytes_max`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a head. 8 KiB is what servers and proxies commonly take.
    pub head_bytes_max: usize,
    /// Bytes of a body as sent, without the framing of chunks. 256 KiB are about a thousand clicks as JSON.
    pub body_bytes_max: u64,
    /// Bytes of a body once decoded. JSON shrinks to about a tenth, so four times says less than it could.
    pub decoded_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 8 << 10, body_bytes_max: 256 << 10, decoded_bytes_max: 1 << 20 }
    }
}

impl Limits {
    /// Bytes of requests that one connection can make the node hold: a head and a body as sent. The decoded
    /// body is in memory only while it is decided on, once a worker, not once a connection.
    pub const fn connection_bytes_max(&self) -> u64 {
        self.body_bytes_max.saturating_add(self.head_bytes_max as u64)
    }
}

/// Reads a head at the start of `bytes`. `None`: more bytes are needed. `Some`: the head and its length in
/// bytes, with empty lines before it (RFC 9112, section 2.2).
///
/// # Errors
/// When it is none, or larger than the limit; the connection is to be closed after the response.
pub fn read<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<(Head<'a>, usize)>, Problem> {
    let seen = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(seen, &mut fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if seen.len() < limits.head_bytes_max => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Problem::HeadTooLarge);
        }
        Err(httparse::Error::Version) => return Err(refused_version(seen)),
        Err(_) => return Err(Problem::BadHead),
    };
    if has_bare_newline(&seen[..len]) {
        return Err(Problem::BadHead);
    }
    let fields = Fields::gather(request.headers)?;
    let path = request.path.ok_or(Problem::BadHead)?;
    let head =
        fields.head(method(request.method.unwrap_or_default()), target(path)?, request.version == Some(1))?;
    Ok(Some((head, len)))
}

/// Whether a line ends without CR: `httparse` takes that, others before us may not. A CR without LF it has
/// refused already, so that counting both is enough, and quicker than looking before each.
fn has_bare_newline(head: &[u8]) -> bool {
    // in pieces whose difference fits a byte, which the compiler turns into vectors of bytes
    let surplus = |byte: &u8| i8::from(*byte == b'\n') - i8::from(*byte == b'\r');
    head.chunks(i8::MAX as usize).map(|piece| i64::from(piece.iter().map(surplus).sum::<i8>())).sum::<i64>()
        != 0
}

/// What a line is whose third part is not a version: of another version, or none.
fn refused_version(bytes: &[u8]) -> Problem {
    let version = bytes.splitn(3, |byte| *byte == b' ').nth(2);
    match version.and_then(|rest| rest.strip_prefix(b"HTTP/")) {
        Some([digit, ..]) if digit.is_ascii_digit() => Problem::BadVersion,
        _ => Problem::BadHead,
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// What a request target asks for: origin form, absolute form, or `*`: RFC 9112, section 3.2.
fn target(text: &str) -> Result<Target<'_>, Problem> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Problem::BadTarget);
    }
    let path = if text.starts_with('/') {
        text
    } else if let Some(rest) = after_scheme(text) {
        rest.find(['/', '?']).map_or("", |at| &rest[at..])
    } else {
        return Ok(Target::Unknown); // `*`, and the authority form of CONNECT
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let Some(name) = path.strip_prefix("/v1/") else { return Ok(Target::Unknown) };
    Ok(match (name, name.split_once('/')) {
        ("clicks", _) => Target::Clicks,
        ("health", _) => Target::Health,
        (_, Some(("click", token))) if is_token(token) => Target::Click(token),
        (_, Some(("pixel", token))) if is_token(token) => Target::Pixel(token),
        _ => Target::Unknown,
    })
}

/// What follows `http://` or `https://`.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

/// Whether it can be a token: unreserved characters, RFC 3986, section 2.3.
fn is_token(text: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_unreserved)
}

/// The fields that matter, each as it stands.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    transfer: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    has_encodings: bool,
    expect: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    referrer: Option<&'a [u8]>,
    says_close: bool,
    says_keep_alive: bool,
    is_prefetch: bool,
    is_opted_out: bool,
    asks_private_network: bool,
}

impl<'a> Fields<'a> {
    fn gather(fields: &[httparse::Header<'a>]) -> Result<Self, Problem> {
        let mut all = Self::default();
        for field in fields {
            all.take(field.name, field.value)?;
        }
        Ok(all)
    }

    /// Takes a field. Its length is asked first: most fields are none of ours.
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Problem> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("host") => once(&mut self.host, value, Problem::BadHost)?,
            14 if is("content-length") => once(&mut self.length, value, Problem::BadLength)?,
            17 if is("transfer-encoding") => once(&mut self.transfer, value, Problem::BadTransfer)?,
            12 if is("content-type") => once(&mut self.kind, value, Problem::DoubledField)?,
            16 if is("content-encoding") => self.has_encodings |= self.encoding.replace(value).is_some(),
            10 if is("connection") => self.take_connection(value),
            6 if is("expect") => self.expect = Some(value),
            6 if is("origin") => self.origin = Some(value),
            10 if is("user-agent") => self.user_agent = Some(value),
            7 if is("referer") => self.referrer = Some(value),
            // Global Privacy Control (W3C), and its forerunner (W3C Tracking Preference Expression).
            7 if is("sec-gpc") => self.is_opted_out |= value == b"1",
            3 if is("dnt") => self.is_opted_out |= value == b"1",
            5 if is("x-moz") => self.is_prefetch |= says_ahead(value),
            7 if is("purpose") => self.is_prefetch |= says_ahead(value),
            9 if is("x-purpose") => self.is_prefetch |= says_ahead(value),
            11 if is("sec-purpose") => self.is_prefetch |= says_ahead(value),
            38 if is("access-control-request-private-network") => {
                self.asks_private_network |= value.eq_ignore_ascii_case(b"true");
            }
            36 if is("access-control-request-local-network") => {
                self.asks_private_network |= value.eq_ignore_ascii_case(b"true");
            }
            _ => {}
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// The head that these fields make.
    fn head(&self, method: Method, target: Target<'a>, is_1_1: bool) -> Result<Head<'a>, Problem> {
        if !self.host.map_or(!is_1_1, is_host) {
            return Err(Problem::BadHost);
        }
        let framing = self.framing(is_1_1)?;
        let expect = self.expect.filter(|_| is_1_1); // HTTP/1.0 has none: RFC 9110, section 10.1.1
        let is_continue = expect.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        Ok(Head {
            method,
            target,
            framing,
            encoding: self.encoding(),
            format: self.kind.and_then(format),
            keep_alive: !self.says_close && (is_1_1 || self.says_keep_alive),
            expects_continue: is_continue && !matches!(framing, Framing::None | Framing::Length(0)),
            expects_other: expect.is_some() && !is_continue,
            origin: self.origin.filter(|value| {
                (1..=ORIGIN_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
            }),
            user_agent: self.user_agent,
            referrer: self.referrer,
            is_prefetch: self.is_prefetch,
            is_opted_out: self.is_opted_out,
            asks_private_network: self.asks_private_network,
        })
    }

    /// How long the body is, when that is said in one way only: RFC 9112, section 6.3.
    fn framing(&self, is_1_1: bool) -> Result<Framing, Problem> {
        match (self.length, self.transfer) {
            (None, None) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(Problem::TwoLengths),
            (Some(digits), None) => length(digits).map(Framing::Length).ok_or(Problem::BadLength),
            (None, Some(coding)) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(coding)) => {
                let last = elements(coding).last().unwrap_or_default();
                let is_several = coding.contains(&b',') && elements(coding).all(|coding| !coding.is_empty());
                let is_sound = is_1_1 && is_several && last.eq_ignore_ascii_case(b"chunked");
                Err(if is_sound { Problem::UnsupportedTransfer } else { Problem::BadTransfer })
            }
        }
    }

    fn encoding(&self) -> Encoding {
        let is = |value: &[u8], name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        match self.encoding {
            _ if self.has_encodings => Encoding::Other,
            None => Encoding::Identity,
            Some(value) if is(value, "identity") => Encoding::Identity,
            Some(value) if is(value, "gzip") || is(value, "x-gzip") => Encoding::Gzip,
            Some(value) if is(value, "zstd") => Encoding::Zstd,
            Some(value) if is(value, "lz4") => Encoding::Lz4,
            Some(_) => Encoding::Other,
        }
    }
}

/// Keeps a value in a place that is empty so far.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8], otherwise: Problem) -> Result<(), Problem> {
    if place.replace(value).is_some() { Err(otherwise) } else { Ok(()) }
}

/// The elements of a list.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `1*DIGIT`, bounded.
fn length(digits: &[u8]) -> Option<u64> {
    if !(1..=LENGTH_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits
        .iter()
        .try_fold(0u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Whether it can be a host with a port: the characters of RFC 3986, section 3.2.2. Empty is allowed.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte))
}

/// Whether a purpose is that of a browser that fetches before anyone clicks.
fn says_ahead(value: &[u8]) -> bool {
    let words = value.split(|byte| matches!(byte, b';' | b',')).map(<[u8]>::trim_ascii);
    words.into_iter().any(|word| {
        [&b"prefetch"[..], b"prerender", b"preview"].iter().any(|name| word.eq_ignore_ascii_case(name))
    })
}

/// What a body of this `Content-Type` holds. A charset other than UTF-8 is another format.
fn format(kind: &[u8]) -> Option<Format> {
    let mut parts = kind.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next()?;
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    let format = match name.len() {
        16 if is("application/json") => Format::Json,
        20 if is("application/x-ndjson") => Format::Lines,
        10 if is("text/plain") => Format::Text,
        24 if is("application/octet-stream") => Format::Datagram,
        _ => return None,
    };
    let is_utf8 = |part: &[u8]| match part.split_at_checked(8) {
        Some((key, value)) if key.eq_ignore_ascii_case(b"charset=") => {
            [&b"utf-8"[..], b"\"utf-8\"", b"us-ascii"].iter().any(|name| value.eq_ignore_ascii_case(name))
        }
        _ => true,
    };
    parts.all(is_utf8).then_some(format)
}

impl Head<'_> {
    /// Whether there are bytes after the head that belong to this request. After a refusal they are read
    /// and thrown away, or the connection is closed.
    pub const fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether this node answers it, by method, target, framing and format.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, limits: &Limits) -> Result<(), Problem> {
        let (takes, allow) = match self.target {
            Target::Unknown => return Err(Problem::NotFound),
            Target::Clicks => (matches!(self.method, Method::Post | Method::Options), "POST, OPTIONS"),
            Target::Click(_) | Target::Pixel(_) | Target::Health => {
                (matches!(self.method, Method::Get | Method::Head | Method::Options), "GET, HEAD, OPTIONS")
            }
        };
        if !takes {
            return Err(Problem::MethodNotAllowed { allow });
        }
        if self.expects_other {
            return Err(Problem::Expectation);
        }
        if self.method == Method::Post { self.check_body(limits) } else { self.check_no_body() }
    }

    fn check_body(&self, limits: &Limits) -> Result<(), Problem> {
        match self.framing {
            Framing::None => Err(Problem::LengthRequired),
            Framing::Length(bytes) if bytes > limits.body_bytes_max => Err(Problem::TooLarge),
            _ if self.encoding == Encoding::Other => Err(Problem::UnsupportedEncoding),
            _ if self.format.is_none() => Err(Problem::UnsupportedType),
            _ => Ok(()),
        }
    }

    fn check_no_body(&self) -> Result<(), Problem> {
        if self.has_body() { Err(Problem::UnexpectedBody) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
