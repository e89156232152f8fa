//! Makes visits: a connection from the visitor's address, one request on it, its reply read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::json;
use weir_sdk::Token;

use super::{Options, Press, Visit, profiles};
use crate::http::reply::{self, Status};
use crate::plan::now_ms;

/// A node that does not answer ends the run after this.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// More than the reply to the largest visit takes.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// What was sent and answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The profile.
    pub profile: String,
    /// The seed.
    pub seed: u64,
    /// Requests.
    pub visits: u64,
    /// Clicks.
    pub clicks: u64,
    /// From before the first connection to after the last reply, in ms.
    pub lasted_ms: u64,
    /// By form, what was sent and what the sender was told.
    pub forms: BTreeMap<&'static str, Answers>,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// Clicks sent.
    pub sent: u64,
    /// Answered `created`.
    pub created: u64,
    /// Answered `exists`.
    pub exists: u64,
    /// Answered `retry`: not taken, and not sent again.
    pub retry: u64,
    /// Answered `malformed`.
    pub malformed: u64,
}

impl Answers {
    const fn count(&mut self, status: Status) {
        self.sent += 1;
        match status {
            Status::Created => self.created += 1,
            Status::Exists => self.exists += 1,
            Status::Retry => self.retry += 1,
            Status::Malformed => self.malformed += 1,
        }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    let SocketAddr::V4(target) = options.target else { anyhow::bail!("--target must be IPv4, on loopback") };
    ensure!(target.ip().is_loopback(), "--target must be on loopback, where all addresses are one's own");
    let visits = profiles::visits(options, now_ms()?);
    let mut report =
        Report { profile: format!("{:?}", options.profile), seed: options.seed, ..Report::default() };
    let begun = Instant::now();
    let (mut statuses, mut body) = (Vec::new(), Vec::new());
    for visit in &visits {
        body.clear();
        write_lines(&visit.presses, &mut body)?;
        statuses.clear();
        let answered = ask(target, visit, &body, &mut statuses);
        answered.with_context(|| format!("visit {} from {}", report.visits, visit.source))?;
        report.visits += 1;
        for (press, &status) in visit.presses.iter().zip(&statuses) {
            report.clicks += 1;
            report.forms.entry(press.form).or_default().count(status);
        }
    }
    report.lasted_ms = begun.elapsed().as_millis() as u64;
    Ok(report)
}

/// Clicks, one a line.
fn write_lines(presses: &[Press], out: &mut Vec<u8>) -> anyhow::Result<()> {
    for Press { click, user_agent, .. } in presses {
        let mut line = json!({
            "timestamp": click.clicked_at_ms.get(),
            "user_id": click.user_key.get(),
            "user_agent": user_agent,
        });
        if click.country != [0; 2] {
            line["country"] = String::from_utf8_lossy(&click.country).into();
        }
        if click.is_foreign() {
            line["event_id"] = format!("{:032x}", u128::from_be_bytes(click.impression.0)).into();
            line["ad_id"] = click.ad.get().into();
            line["ordinal"] = click.ordinal.into();
        } else {
            line["impression"] = Token::text(click).as_str().into();
        }
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
    }
    Ok(())
}

fn ask(target: SocketAddrV4, visit: &Visit, body: &[u8], statuses: &mut Vec<Status>) -> anyhow::Result<()> {
    let mut stream = connect(visit.source, target)?;
    let head = format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).context("not sent")?;
    let mut input = Vec::new();
    stream.take(REPLY_BYTES_MAX as u64).read_to_end(&mut input).context("no whole reply")?;
    let reply = reply::read(&input).map_err(anyhow::Error::msg)?.context("the reply is cut off")?;
    let said = &input[reply.body_at..reply.len];
    // When every click is to be sent again the status is another, the body the same.
    ensure!(matches!(reply.status, 202 | 429 | 503), "{}: {}", reply.status, String::from_utf8_lossy(said));
    reply::statuses(said, visit.presses.len(), statuses).map_err(anyhow::Error::msg)
}

fn connect(source: Ipv4Addr, target: SocketAddrV4) -> anyhow::Result<TcpStream> {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).context("a socket")?;
    let from = SocketAddr::new(IpAddr::V4(source), 0);
    socket.bind(&from.into()).with_context(|| format!("{source} is no address of this host"))?;
    socket.set_tcp_nodelay(true).context("TCP_NODELAY")?;
    socket.connect_timeout(&target.into(), ANSWER_MAX).with_context(|| format!("no way to {target}"))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_MAX)).context("a timeout")?;
    stream.set_write_timeout(Some(ANSWER_MAX)).context("a timeout")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use weir::rx::http::catalog::Catalog;
    use weir::rx::http::clicks::{Clicks, Item, Sender, read};
    use weir::rx::http::head::Format;
    use weir_common::id::{ImpressionId, Issuer, KeyId};
    use weir_common::wire::{Click, click_flags};

    use super::*;

    #[test]
    fn the_door_reads_the_clicks_that_were_meant() {
        let signed = Click {
            impression: ImpressionId::issued(Issuer(1), KeyId(2), 1_800_000_000, 42),
            ad: 7.into(),
            tag: 3.into(),
            user_key: 9.into(),
            clicked_at_ms: 1_800_000_005_000.into(),
            country: *b"DE",
            ordinal: 1,
            ..Click::zeroed()
        };
        let foreign = Click { flags: click_flags::FOREIGN, tag: 0.into(), country: [0; 2], ..signed };
        let press = |click, user_agent| Press { form: "", click, user_agent };
        let mut body = Vec::new();
        write_lines(&[press(signed, "curl/8"), press(foreign, "")], &mut body).unwrap();
        let mut clicks = Clicks::default();
        read(Format::Lines, &body, &Sender::default(), &Catalog::default(), &mut clicks).unwrap();
        let items: Vec<_> = clicks.iter().collect();
        let Item::Click { click, extension } = items[0] else { panic!("{items:?}") };
        assert_eq!((click.impression, click.tag.get(), click.ordinal), (signed.impression, 3, 1));
        assert_eq!((click.user_key.get(), click.country), (9, *b"DE"));
        assert!(extension.ends_with(b"curl/8"));
        let Item::Click { click, extension } = items[1] else { panic!("{items:?}") };
        assert_eq!((click.is_foreign(), click.impression, click.ad.get()), (true, signed.impression, 7));
        assert!(extension.is_empty());
    }
}
