//! Why a request is refused as a whole: the table of statuses, titles and remedies.
//!
//! A refusal is a [`Problem`], and everything that is said of it stands once, in [`Problem::row`]. How it
//! goes out as bytes, [`super::response::problem`] knows. Nothing here decides; [`super::head`] and
//! [`super::body`] do.

use std::fmt;

/// Seconds after which a sender may try again whose budget is spent.
pub const RETRY_AFTER_TOO_MANY_S: u32 = crate::limits::RETRY_AFTER_MS.div_ceil(1000);
/// Seconds after which a sender may try a node again that cannot take clicks now. Long enough that waiting
/// senders do not become the load, short enough that a restart (seconds) is not felt as an outage.
pub const RETRY_AFTER_UNAVAILABLE_S: u32 = 5;

/// Why a request is refused as a whole. Statuses are those of RFC 9110, section 15, and RFC 6585.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The head is not of the grammar of RFC 9112: lines, names, values.
    BadHead,
    /// The request target is none: RFC 9112, section 3.2.
    BadTarget,
    /// `Host` is missing on HTTP/1.1, there twice, or not a host.
    BadHost,
    /// `Content-Length` is there twice, a list, or not a decimal number of at most 19 digits.
    BadLength,
    /// Both `Content-Length` and `Transfer-Encoding`: two answers to where the body ends.
    TwoLengths,
    /// `Transfer-Encoding` is there twice, on HTTP/1.0, or does not end with `chunked`.
    BadTransfer,
    /// A field that may be there once is there twice.
    DoubledField,
    /// A body on a request that has none.
    UnexpectedBody,
    /// The chunks of the body are not of the grammar of RFC 9112, section 7.1.
    BadChunk,
    /// The body cannot be decoded with its `Content-Encoding`.
    BadEncoding,
    /// The body as a whole is not what its `Content-Type` says.
    BadBody,
    /// There is nothing at this path.
    NotFound,
    /// The path is there, but not for this method.
    MethodNotAllowed {
        /// The methods that it takes, as the value of `Allow`.
        allow: &'static str,
    },
    /// The request did not come within its time.
    Timeout,
    /// A body without a length.
    LengthRequired,
    /// The body is larger, as sent, than the node takes.
    TooLarge,
    /// The body is larger, decoded, than the node takes.
    DecodedTooLarge,
    /// No `Content-Type`, or one that is not taken.
    UnsupportedType,
    /// A `Content-Encoding` that is not taken.
    UnsupportedEncoding,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// Somebody's budget of clicks a second is spent.
    TooMany,
    /// The head has more bytes or fields than the node takes.
    HeadTooLarge,
    /// A transfer coding before `chunked`.
    UnsupportedTransfer,
    /// The node cannot take clicks now: it drains, its disk is full, or its tables are.
    Unavailable,
    /// Not HTTP/1.1 and not HTTP/1.0.
    BadVersion,
}

/// What is said of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The status code.
    pub status: u16,
    /// The reason phrase of the status; with no `type`, RFC 9457 (4.2.1) wants it as the title as well.
    pub title: &'static str,
    /// A name for programs; never changes, never means anything else.
    pub reason: &'static str,
    /// What is wrong and what the sender does about it.
    pub detail: &'static str,
    /// Whether the connection ends with the response: after this nobody can say where the next request
    /// begins, or what is still to come is not worth reading.
    pub must_close: bool,
    /// Seconds after which the sender may try again, where trying again helps.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// All of them, for documents and tests.
    pub const ALL: [Self; 25] = [
        Self::BadHead,
        Self::BadTarget,
        Self::BadHost,
        Self::BadLength,
        Self::TwoLengths,
        Self::BadTransfer,
        Self::DoubledField,
        Self::UnexpectedBody,
        Self::BadChunk,
        Self::BadEncoding,
        Self::BadBody,
        Self::NotFound,
        Self::MethodNotAllowed { allow: "GET" },
        Self::Timeout,
        Self::LengthRequired,
        Self::TooLarge,
        Self::DecodedTooLarge,
        Self::UnsupportedType,
        Self::UnsupportedEncoding,
        Self::Expectation,
        Self::TooMany,
        Self::HeadTooLarge,
        Self::UnsupportedTransfer,
        Self::Unavailable,
        Self::BadVersion,
    ];

    /// What is said of it.
    #[expect(clippy::too_many_lines, reason = "a table: one row after the other")]
    pub const fn row(&self) -> Row {
        match self {
            Self::BadHead => closes(
                400,
                "bad_head",
                "The request head is not HTTP/1.1 (RFC 9112). Lines end with CR LF, a field name is followed \
                 by its colon without a space, and no field is folded or holds control bytes.",
            ),
            Self::BadTarget => closes(
                400,
                "bad_target",
                "The request target is not a path or an http URL in ASCII. Encode it.",
            ),
            Self::BadHost => {
                closes(400, "bad_host", "HTTP/1.1 wants exactly one Host field that names a host.")
            }
            Self::BadLength => closes(
                400,
                "bad_length",
                "Content-Length is to be there once, as a decimal number of at most 19 digits.",
            ),
            Self::TwoLengths => closes(
                400,
                "two_lengths",
                "Send Content-Length or Transfer-Encoding, not both: they may disagree where the body ends.",
            ),
            Self::BadTransfer => closes(
                400,
                "bad_transfer",
                "Transfer-Encoding is to be there once, on HTTP/1.1, and to be chunked. Put compression into \
                 Content-Encoding.",
            ),
            Self::DoubledField => {
                closes(400, "doubled_field", "Content-Type is there more than once. Send it once.")
            }
            Self::UnexpectedBody => {
                closes(400, "unexpected_body", "This method takes no body here. Send it without one.")
            }
            Self::BadChunk => closes(
                400,
                "bad_chunk",
                "The chunks of the body are broken (RFC 9112, section 7.1), or carry too many extensions or \
                 trailers.",
            ),
            Self::BadEncoding => keeps(
                400,
                "bad_encoding",
                "The body cannot be decoded with its Content-Encoding: it is damaged, cut off, or something \
                 follows it.",
            ),
            Self::BadBody => keeps(
                400,
                "bad_body",
                "The body as a whole is not what its Content-Type says. Nothing was taken.",
            ),
            Self::NotFound => keeps(404, "not_found", "There is nothing here. Clicks go to POST /v1/clicks."),
            Self::MethodNotAllowed { .. } => {
                keeps(405, "method_not_allowed", "The path is right, the method is not. See the field Allow.")
            }
            Self::Timeout => {
                closes(408, "timeout", "The request did not arrive in time. Send it again, in one piece.")
            }
            Self::LengthRequired => {
                closes(411, "length_required", "Send Content-Length, or the body in chunks.")
            }
            Self::TooLarge => closes(
                413,
                "too_large",
                "The body is larger than this node takes. Send fewer clicks at once.",
            ),
            Self::DecodedTooLarge => keeps(
                413,
                "decoded_too_large",
                "The body is larger, once decoded, than this node takes. Send fewer clicks at once.",
            ),
            Self::UnsupportedType => keeps(
                415,
                "unsupported_type",
                "Send Content-Type application/json, application/x-ndjson, text/plain or \
                 application/octet-stream, in UTF-8.",
            ),
            Self::UnsupportedEncoding => keeps(
                415,
                "unsupported_encoding",
                "Send Content-Encoding gzip, zstd or lz4, one of them, or none.",
            ),
            Self::Expectation => closes(
                417,
                "expectation",
                "Expect 100-continue is understood, nothing else. Send it without.",
            ),
            Self::TooMany => Row {
                retry_after_s: Some(RETRY_AFTER_TOO_MANY_S),
                ..keeps(
                    429,
                    "too_many",
                    "More clicks than the budget has room for. Send them again later, and less.",
                )
            },
            Self::HeadTooLarge => closes(
                431,
                "head_too_large",
                "The request head has more bytes or fields than this node takes. Send fewer cookies.",
            ),
            Self::UnsupportedTransfer => closes(
                501,
                "unsupported_transfer",
                "The only transfer coding is chunked. Put compression into Content-Encoding.",
            ),
            Self::Unavailable => Row {
                retry_after_s: Some(RETRY_AFTER_UNAVAILABLE_S),
                ..keeps(503, "unavailable", "The node cannot take clicks now. Send them again later.")
            },
            Self::BadVersion => closes(505, "bad_version", "This node speaks HTTP/1.1 and HTTP/1.0."),
        }
    }

    /// Whether the connection ends with the response.
    pub const fn must_close(&self) -> bool {
        self.row().must_close
    }
}

/// A row after which the connection goes on.
const fn keeps(status: u16, reason: &'static str, detail: &'static str) -> Row {
    Row { status, title: title(status), reason, detail, must_close: false, retry_after_s: None }
}

/// A row after which the connection ends.
const fn closes(status: u16, reason: &'static str, detail: &'static str) -> Row {
    Row { must_close: true, ..keeps(status, reason, detail) }
}

/// The reason phrase of a status: RFC 9110, section 15, and RFC 6585.
const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row();
        write!(to, "{} {}: {}", row.status, row.reason, row.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_problem_has_a_name_of_its_own_a_known_status_and_a_remedy() {
        let names: BTreeSet<_> = Problem::ALL.iter().map(|problem| problem.row().reason).collect();
        assert_eq!(names.len(), Problem::ALL.len());
        for problem in Problem::ALL {
            let row = problem.row();
            assert_ne!(row.title, "Error", "{problem:?}");
            assert!(row.detail.len() > 20 && row.detail.is_ascii(), "{problem:?}");
        }
    }

    #[test]
    fn what_passes_says_when_to_try_again_and_nothing_else_does() {
        for problem in Problem::ALL {
            let row = problem.row();
            assert_eq!(row.retry_after_s.is_some(), matches!(row.status, 429 | 503), "{problem:?}");
        }
    }
}
