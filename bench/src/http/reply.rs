//! What came back, as functions over bytes: where a response ends, and what its body says of each click.

use serde::Deserialize;

/// Fields of a response that are read; a server that sends more is none we measure.
const FIELDS_MAX: usize = 32;

/// A whole response at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Where its body starts.
    pub body_at: usize,
    /// Where it ends, and the next response starts.
    pub len: usize,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// Whether the connection ends with it.
    pub closes: bool,
}

/// Reads a response; none while more bytes are needed.
///
/// # Errors
/// What is wrong with it: no HTTP/1.1, or a length that nobody can tell.
pub fn read(input: &[u8]) -> Result<Option<Reply>, String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let body_at = match head.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no HTTP response: {error}")),
    };
    if head.version != Some(1) {
        return Err("not HTTP/1.1".to_owned());
    }
    let status = head.code.unwrap_or(0);
    let mut reply = Reply { status, body_at, len: 0, retry_after_s: None, closes: false };
    let mut body_len = None;
    for field in head.headers.iter() {
        let value = str::from_utf8(field.value).unwrap_or("").trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            let len = value.parse::<usize>().map_err(|_| format!("Content-Length is {value:?}"))?;
            if body_len.replace(len).is_some() {
                return Err("two Content-Length fields".to_owned());
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(format!("Transfer-Encoding {value} where a Content-Length was expected"));
        } else if field.name.eq_ignore_ascii_case("retry-after") {
            reply.retry_after_s = value.parse().ok();
        } else if field.name.eq_ignore_ascii_case("connection") {
            reply.closes = value.eq_ignore_ascii_case("close");
        }
    }
    let body_len = match body_len {
        Some(len) => len,
        None if status == 204 => 0,
        None => return Err(format!("status {status} without Content-Length")),
    };
    reply.len = body_at + body_len;
    Ok((input.len() >= reply.len).then_some(reply))
}

/// What is said of one click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Taken.
    Created,
    /// Known already.
    Exists,
    /// To be sent again.
    Retry,
    /// Never to be taken.
    Malformed,
}

#[derive(Deserialize)]
struct One {
    status: Status,
}

#[derive(Deserialize)]
struct Body {
    clicks: Vec<One>,
    created: usize,
    exists: usize,
    retry: usize,
    malformed: usize,
}

/// The statuses of a body, in the order of the request, appended to `out`.
///
/// # Errors
/// The body is none, has not one status for each of `clicks`, or its sums are not theirs.
pub fn statuses(body: &[u8], clicks: usize, out: &mut Vec<Status>) -> Result<(), String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("no body of statuses: {error}"))?;
    if body.clicks.len() != clicks {
        return Err(format!("{} statuses for {clicks} clicks", body.clicks.len()));
    }
    let count = |status| body.clicks.iter().filter(|one| one.status == status).count();
    let sums = [Status::Created, Status::Exists, Status::Retry, Status::Malformed].map(count);
    if sums != [body.created, body.exists, body.retry, body.malformed] {
        return Err(format!("the sums of a body are not those of its statuses, {sums:?}"));
    }
    out.extend(body.clicks.iter().map(|one| one.status));
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir::rx::http::problem::Problem;
    use weir::rx::http::response::{self, To};

    use super::*;

    #[test]
    fn a_response_of_the_door_is_read_back_at_every_cut() {
        let said = [
            response::Status::Created,
            response::Status::Malformed { reason: "bad_field", field: "ad_id", why: "a \"word\"" },
            response::Status::Exists,
            response::Status::Retry,
        ];
        let mut bytes = Vec::new();
        response::accepted(
            said.into_iter(),
            weir::rx::http::problem::Problem::Unavailable,
            &To { keep_alive: true, ..To::default() },
            &mut bytes,
        );
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None), "{cut}");
        }
        let reply = read(&bytes).unwrap().unwrap();
        assert_eq!((reply.status, reply.len, reply.closes), (202, bytes.len(), false));
        let mut out = Vec::new();
        statuses(&bytes[reply.body_at..], 4, &mut out).unwrap();
        assert_eq!(out, [Status::Created, Status::Malformed, Status::Exists, Status::Retry]);
        assert!(statuses(&bytes[reply.body_at..], 3, &mut out).unwrap_err().contains("4 statuses for 3"));
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_whether_the_connection_ends() {
        let mut bytes = Vec::new();
        response::problem(&Problem::Unavailable, &To { keep_alive: true, ..To::default() }, &mut bytes);
        let reply = read(&bytes).unwrap().unwrap();
        assert_eq!((reply.status, reply.retry_after_s, reply.closes), (503, Some(5), false));
        bytes.clear();
        response::problem(&Problem::TooLarge, &To { keep_alive: true, ..To::default() }, &mut bytes);
        assert!(read(&bytes).unwrap().unwrap().closes);
    }

    #[test]
    fn what_cannot_be_framed_or_added_up_is_an_error() {
        for text in [
            "HTTP/1.1 202 Accepted\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 202 Accepted\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 202 Accepted\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        let wrong_sum =
            br#"{"clicks":[{"status":"created"}],"created":0,"exists":1,"retry":0,"malformed":0}"#;
        assert!(statuses(wrong_sum, 1, &mut Vec::new()).unwrap_err().contains("sums"));
        assert!(statuses(b"", 0, &mut Vec::new()).is_err());
    }
}
