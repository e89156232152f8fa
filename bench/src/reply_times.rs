//! Whether the time of a reply tells how a click was judged: valid clicks and robots', in random order, one after the
//! other over one connection, each timed from its send to its reply.
//!
//! A flagged click differs from a valid one in its user agent alone, and not in its length. What the run prints is a
//! measurement, not a verdict: medians, and a rank test of flagged against valid beside one of valid against valid,
//! which says what chance alone does. That the flagged ones were flagged is in the node's books.
//!
//! Start reading at [`run`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use weir_common::id::{Issuer, KeyId};
use weir_common::wire::{AckStatus, Acks, CLICK_LEN, Click, Header, extension};
use weir_sdk::{Minter, Offer, Token};
use zerocopy::IntoBytes;

use crate::http::reply::{self, Status};
use crate::key_file::read_key;
use crate::plan::{RunArgs, first_sequence, now_ms};
use crate::rank_test::{RankTest, rank_test};

/// A browser's ...
const VALID: &str = "Mozilla/5.0 (X11; CrOS x86_64 16328.65) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
/// ... and that of one that nobody sits at, which the shipped lists know.
const ROBOT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36";
const _: () = assert!(ROBOT.len() == VALID.len());
/// Sends before the first that is timed: connections, caches and branch predictors settle.
const WARM_UP: usize = 200;
/// A node that does not answer ends the run after this.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 4096;

/// Which way clicks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A POST of one click, on a connection that stays
    Http,
    /// A datagram of one click
    Udp,
}

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplyTimesArgs {
    /// The node's click port or HTTP door
    #[arg(long)]
    target: SocketAddr,
    /// Which of them it is
    #[arg(long, value_enum)]
    transport: Transport,
    /// Timed clicks of each kind
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    clicks: u32,
    #[command(flatten)]
    run: RunArgs,
}

/// Reply times of one kind, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// How many.
    pub clicks: usize,
    /// The middle one.
    pub median_us: f64,
    /// 90 of a hundred are shorter.
    pub p90_us: f64,
    /// 99 of a hundred are shorter.
    pub p99_us: f64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Which way the clicks went.
    pub transport: Transport,
    /// All clicks sent, those of the warm-up too; half of them robots'.
    pub sent: usize,
    /// Of valid clicks.
    pub valid: Times,
    /// Of flagged ones.
    pub flagged: Times,
    /// Flagged against valid.
    pub test: RankTest,
    /// Every other valid one against the rest: what chance alone does.
    pub control: RankTest,
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or answers anything but that a click was created.
pub fn run(args: &ReplyTimesArgs) -> anyhow::Result<bool> {
    let report = measure(args)?;
    let line = |kind: &str, times: &Times| {
        let Times { clicks, median_us, p90_us, p99_us } = times;
        eprintln!(
            "{kind:<8} {clicks:>7} clicks   p50 {median_us:>8.1} us   p90 {p90_us:>8.1} us   p99 {p99_us:>8.1} us"
        );
    };
    line("valid", &report.valid);
    line("flagged", &report.flagged);
    for (pair, test) in [("flagged against valid", &report.test), ("valid against valid", &report.control)] {
        eprintln!(
            "{pair:<22} larger in {:.2} % of pairs, z {:+.2}, p {:.3}",
            test.share_larger * 100.0,
            test.z,
            test.p
        );
    }
    args.run.write_json(&report)?;
    Ok(true)
}

fn measure(args: &ReplyTimesArgs) -> anyhow::Result<Report> {
    let RunArgs { key, seed, .. } = &args.run;
    let secret = read_key(&key.key_file)?;
    let mut minter = Minter::new(Issuer(key.issuer), KeyId(key.key), secret, first_sequence(now_ms()?));
    let mut order = [false, true].repeat(args.clicks as usize);
    order.shuffle(&mut SmallRng::seed_from_u64(*seed));
    let mut line = Line::open(args.transport, args.target)?;
    let (mut valid_ns, mut flagged_ns) = (Vec::new(), Vec::new());
    let warm_up = [false, true].repeat(WARM_UP / 2);
    for (number, &is_robot) in warm_up.iter().chain(&order).enumerate() {
        let now_ms = now_ms()?;
        let mut click = minter.mint(&Offer { ad: 1, ..Offer::default() }, (now_ms / 1000) as u32 - 1);
        click.clicked_at_ms = now_ms.into();
        let message = line.message(number as u64, click, if is_robot { ROBOT } else { VALID })?;
        let begun = Instant::now();
        line.ask(&message).with_context(|| format!("click {number}"))?;
        let took_ns = begun.elapsed().as_nanos() as u64;
        if number >= warm_up.len() {
            (if is_robot { &mut flagged_ns } else { &mut valid_ns }).push(took_ns);
        }
    }
    let (odd, even): (Vec<_>, Vec<_>) = valid_ns.iter().enumerate().partition(|(at, _)| at % 2 == 1);
    let values = |part: Vec<(usize, &u64)>| part.into_iter().map(|(_, &value)| value).collect::<Vec<_>>();
    Ok(Report {
        transport: args.transport,
        sent: warm_up.len() + order.len(),
        test: rank_test(&valid_ns, &flagged_ns),
        control: rank_test(&values(even), &values(odd)),
        valid: times(valid_ns),
        flagged: times(flagged_ns),
    })
}

fn times(mut ns: Vec<u64>) -> Times {
    ns.sort_unstable();
    let at = |hundredths: usize| ns[(ns.len() - 1) * hundredths / 100] as f64 / 1e3;
    Times { clicks: ns.len(), median_us: at(50), p90_us: at(90), p99_us: at(99) }
}

/// One way to the node and back.
enum Line {
    Http(TcpStream),
    Udp(UdpSocket),
}

impl Line {
    fn open(transport: Transport, target: SocketAddr) -> anyhow::Result<Self> {
        let no_way = || format!("no way to {target}");
        match transport {
            Transport::Http => {
                let stream = TcpStream::connect(target).with_context(no_way)?;
                stream.set_nodelay(true).context("TCP_NODELAY")?;
                stream.set_read_timeout(Some(ANSWER_MAX)).context("a timeout")?;
                Ok(Self::Http(stream))
            }
            Transport::Udp => {
                let any: SocketAddr =
                    if target.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
                let socket = UdpSocket::bind(any).context("a socket")?;
                socket.connect(target).with_context(no_way)?;
                socket.set_read_timeout(Some(ANSWER_MAX)).context("a timeout")?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// The bytes of a click.
    fn message(&self, number: u64, mut click: Click, agent: &str) -> anyhow::Result<Vec<u8>> {
        let mut message = Vec::new();
        match self {
            Self::Http(_) => {
                let (token, at_ms) = (Token::text(&click), click.clicked_at_ms.get());
                let body =
                    format!(r#"{{"impression":"{token}","timestamp":{at_ms},"user_agent":"{agent}"}}"#);
                let len = body.len();
                write!(
                    message,
                    "POST /v1/clicks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: {len}\r\n\r\n{body}"
                )?;
            }
            Self::Udp(_) => {
                let field_len = 3 + agent.len();
                click.extension_len = (field_len as u16).into();
                let header = Header { batch_id: number.into(), ..Header::new(1, CLICK_LEN + field_len) };
                message.extend_from_slice(header.as_bytes());
                message.extend_from_slice(click.as_bytes());
                message.push(extension::USER_AGENT);
                message.extend_from_slice(&(agent.len() as u16).to_le_bytes());
                message.extend_from_slice(agent.as_bytes());
            }
        }
        Ok(message)
    }

    /// Sends a click and waits until it is said to be created.
    fn ask(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let mut buffer = [0; REPLY_BYTES_MAX];
        match self {
            Self::Http(stream) => {
                stream.write_all(message).context("not sent")?;
                let mut len = 0;
                let reply = loop {
                    let read = stream.read(&mut buffer[len..]).context("no reply")?;
                    ensure!(read > 0, "the node closed the connection");
                    len += read;
                    if let Some(reply) = reply::read(&buffer[..len]).map_err(anyhow::Error::msg)? {
                        break reply;
                    }
                };
                let mut statuses = Vec::new();
                reply::statuses(&buffer[reply.body_at..reply.len], 1, &mut statuses)
                    .map_err(anyhow::Error::msg)?;
                ensure!(statuses == [Status::Created], "answered {statuses:?}");
            }
            Self::Udp(socket) => {
                socket.send(message).context("not sent")?;
                let len = socket.recv(&mut buffer).context("no ack")?;
                let ack = Acks::new(&buffer[..len]).next().context("no ack")?;
                let created = AckStatus::Created as u8;
                ensure!(ack.statuses == [created], "answered {:?}", ack.statuses);
            }
        }
        Ok(())
    }
}
