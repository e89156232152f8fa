//! A plain UDP sink on recvmmsg: reads, checks the header, counts, and answers if told to. Run it
//! under the same load as the daemon, in the same session, and compare datagrams per CPU second.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use weir_common::wire::{ACK_HEADER_LEN, AckHeader, Datagram};
use zerocopy::IntoBytes;

use crate::mock_edge::FIRST_WITHIN;
use crate::recvmmsg::Batch;
use crate::thread_time::thread_time;

/// How long a read waits before the sink looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the sink saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkReport {
    /// Datagrams read.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Clicks in sound datagrams.
    pub clicks: u64,
    /// Datagrams that were no sound datagrams of clicks.
    pub malformed: u64,
    /// Calls to recvmmsg that gave datagrams.
    pub batches: u64,
    /// Datagrams the kernel dropped for want of room in the socket.
    pub kernel_drops: u64,
    /// From the first datagram to the last, in seconds.
    pub busy_s: f64,
    /// CPU time of the receiving thread, user and system, in seconds.
    pub cpu_s: f64,
    /// Datagrams a second of `busy_s`.
    pub datagrams_per_s: f64,
    /// Datagrams a second of `cpu_s`.
    pub datagrams_per_cpu_s: f64,
}

/// Serves the socket until nothing has come for `idle`, once something has; without any datagram it
/// ends after [`FIRST_WITHIN`].
///
/// # Errors
/// The socket cannot be set up; never a sender that is gone.
pub fn run(socket: &UdpSocket, ack: bool, idle: Duration) -> anyhow::Result<SinkReport> {
    socket.set_read_timeout(Some(PATIENCE)).context("read timeout")?;
    let mut batch = Batch::new();
    let mut report = SinkReport::default();
    let (mut first, mut last): (Option<Instant>, Option<Instant>) = (None, None);
    let cpu_before = thread_time();
    let started = Instant::now();
    while last.map_or(started.elapsed() < FIRST_WITHIN, |last| last.elapsed() < idle) {
        let Ok(count) = batch.receive(socket) else { continue };
        let now = Instant::now();
        first.get_or_insert(now);
        last = Some(now);
        report.batches += 1;
        for at in 0..count {
            report.count(batch.datagram(at));
        }
        if ack {
            // A sender that is gone gets no ack: its business.
            let _gone = batch.reply(socket, created);
        }
    }
    report.cpu_s = (thread_time() - cpu_before).as_secs_f64();
    report.busy_s = first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    report.kernel_drops = kernel_drops(socket);
    report.datagrams_per_s = report.datagrams as f64 / report.busy_s.max(f64::MIN_POSITIVE);
    report.datagrams_per_cpu_s = report.datagrams as f64 / report.cpu_s.max(f64::MIN_POSITIVE);
    Ok(report)
}

impl SinkReport {
    fn count(&mut self, bytes: &[u8]) {
        self.datagrams += 1;
        self.bytes += bytes.len() as u64;
        match Datagram::parse(bytes) {
            Ok(datagram) => self.clicks += u64::from(datagram.facts().count),
            Err(_) => self.malformed += 1,
        }
    }
}

/// An ack that calls every click created.
fn created(bytes: &[u8], out: &mut [u8]) -> usize {
    let Ok(datagram) = Datagram::parse(bytes) else { return 0 };
    let count = datagram.facts().count;
    let ack = AckHeader::new(datagram.header().batch_id.get(), count);
    let len = ACK_HEADER_LEN + usize::from(count);
    out[..ACK_HEADER_LEN].copy_from_slice(ack.as_bytes());
    out[ACK_HEADER_LEN..len].fill(0);
    len
}

/// The drops that the kernel lists for a socket: last column of `/proc/net/udp` and `udp6`.
fn kernel_drops(socket: &UdpSocket) -> u64 {
    let Ok(address) = socket.local_addr() else { return 0 };
    let file = if address.is_ipv4() { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string(file).unwrap_or_default();
    let ours =
        table.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&port)));
    ours.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_counts_what_was_sent_and_stops_when_idle() {
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let click = weir_common::wire::Click::zeroed();
        let sound = crate::malformed::Payload::sound(&click, 1);
        for payload in [sound.bytes(), b"noise", sound.bytes()] {
            sender.send_to(payload, node.local_addr().unwrap()).unwrap();
        }
        let report = run(&node, true, Duration::from_millis(50)).unwrap();
        assert_eq!((report.datagrams, report.clicks, report.malformed), (3, 2, 1));
        let mut buffer = [0; 64];
        assert_eq!(sender.recv(&mut buffer).unwrap(), ACK_HEADER_LEN + 1);
        assert_eq!(report.kernel_drops, 0);
    }
}
