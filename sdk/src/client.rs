//! A thin UDP client: one connected socket and a [`Sender`].
//!
//! The socket never blocks; only [`UdpClient::flush`] waits, and never longer than it was told. A
//! node that is down, restarting or unreachable looks like loss: clicks wait and are sent again.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weir_common::wire::Click;

use crate::config::{Config, ConfigError};
use crate::ledger::Ledger;
use crate::sender::{Refused, Sender, Settled, Ticket};

/// The largest datagram of acks: senders and nodes keep to one Ethernet frame.
const ACK_DATAGRAM_MAX: usize = 2048;
/// Ack datagrams read in one go before anything is sent; the rest waits in the socket.
const READS_MAX: usize = 256;
/// The longest nap of [`UdpClient::flush`] between two looks at the socket.
const NAP: Duration = Duration::from_millis(1);

/// Why a client could not be made.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ClientError {
    /// the sender's configuration cannot work
    Config(#[from] ConfigError),
    /// no UDP socket towards {1}: check the address and the routes
    Socket(#[source] io::Error, SocketAddr),
}

/// A [`Sender`] on a UDP socket.
pub struct UdpClient {
    sender: Sender,
    socket: UdpSocket,
    started: Instant,
}

impl UdpClient {
    /// Connects a socket to an edge node. Sends nothing yet.
    ///
    /// # Errors
    /// A configuration that cannot work, or no socket.
    pub fn connect(node: SocketAddr, config: Config) -> Result<Self, ClientError> {
        let local: SocketAddr = match node {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)
            .and_then(|socket| socket.connect(node).map(|()| socket))
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|error| ClientError::Socket(error, node))?;
        Ok(Self { sender: Sender::new(config, 0)?, socket, started: Instant::now() })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Offers a click; sends it when its datagram is full or old enough.
    ///
    /// # Errors
    /// Why the click was not taken.
    pub fn offer(&mut self, click: &Click, extension: &[u8]) -> Result<Ticket, Refused> {
        let ticket = self.sender.offer(self.now_ns(), click, extension)?;
        Ok(ticket)
    }

    /// Reads acks, acts on the time, sends what is due. Call it whenever the caller has a moment, at
    /// the latest every few milliseconds. `settled` hears the fate of each click.
    pub fn poll(&mut self, mut settled: impl FnMut(Settled<'_>)) {
        let now_ns = self.now_ns();
        let mut buffer = [0; ACK_DATAGRAM_MAX];
        for _ in 0..READS_MAX {
            match self.socket.recv(&mut buffer) {
                Ok(len) => self.sender.on_datagram(now_ns, &buffer[..len], &mut settled),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send, told once each: to us the same as loss.
                Err(_) => {}
            }
        }
        self.sender.advance(now_ns, &mut settled);
        while let Some(transmit) = self.sender.poll_transmit(now_ns) {
            let bytes = self.sender.datagram(transmit);
            // The first failure may be the ICMP error of an earlier send, which left this datagram
            // unsent. A second one is loss, and the timer takes care of it.
            let _lost = self.socket.send(bytes).or_else(|_| self.socket.send(bytes));
        }
    }

    /// Sends what is held and waits until everything is settled, but not longer than `timeout`.
    ///
    /// # Errors
    /// `TimedOut` when clicks are still held; they stay held.
    pub fn flush(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        self.sender.flush();
        loop {
            self.poll(|_| {});
            if self.sender.is_idle() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::sleep(NAP);
        }
    }

    /// The books.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        self.sender.ledger()
    }
}
