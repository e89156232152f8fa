//! One path to the node: a sender on a connected socket, and a second socket for what is made by
//! hand, so that strange datagrams and their acks never touch the sender's books.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags};
use weir_common::wire::{AckStatus, Acks};
use weir_sdk::{Config, Sender, Settled, Ticket, Transmit};

use crate::report::Acks as AckCounts;

/// Datagrams given to the kernel in one call.
const SEND_BATCH: usize = 32;
/// Ack datagrams read before the next look at the schedule.
const READS_MAX: usize = 128;
/// Acks of several batches may share a datagram of one Ethernet frame.
const ACK_DATAGRAM_MAX: usize = 2048;
/// The kernel's answer to a full send queue is to wait; never longer than this.
const SEND_TIMEOUT: Duration = Duration::from_millis(20);
/// Acks of a whole group commit come at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A sender and its sockets.
pub struct Lane {
    /// The SDK's core.
    pub sender: Sender,
    tracked: UdpSocket,
    by_hand: UdpSocket,
    /// Status bytes seen on the by-hand socket.
    pub by_hand_acks: AckCounts,
    /// Datagrams the kernel refused twice.
    pub send_failures: u64,
}

fn connect(node: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(node), socket2::Type::DGRAM, None)
        .context("no UDP socket")?;
    // As far as the system allows: the kernel caps it silently.
    socket.set_recv_buffer_size(RECEIVE_BUFFER).context("receive buffer")?;
    socket.set_write_timeout(Some(SEND_TIMEOUT)).context("send timeout")?;
    socket
        .connect(&node.into())
        .with_context(|| format!("no route to {node}: check the address and the namespace"))?;
    Ok(socket.into())
}

impl Lane {
    /// Connects both sockets.
    ///
    /// # Errors
    /// No socket, no route, or a sender configuration that cannot work.
    pub fn connect(node: SocketAddr, config: Config, now_ns: u64) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(config, now_ns)?,
            tracked: connect(node)?,
            by_hand: connect(node)?,
            by_hand_acks: AckCounts::default(),
            send_failures: 0,
        })
    }

    /// Where frames made by hand must claim to come from, so that their acks are read here.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn by_hand_address(&self) -> io::Result<SocketAddr> {
        self.by_hand.local_addr()
    }

    /// Reads acks; `settled` hears of each click whose fate they decide. Gives how many datagrams
    /// were read.
    pub fn receive(&mut self, now_ns: u64, mut settled: impl FnMut(Settled<'_>)) -> usize {
        let mut buffer = [0; ACK_DATAGRAM_MAX];
        let mut reads = 0;
        while reads < READS_MAX {
            match receive_one(&self.tracked, &mut buffer) {
                Some(len) => self.sender.on_datagram(now_ns, &buffer[..len], &mut settled),
                None => break,
            }
            reads += 1;
        }
        while reads < READS_MAX {
            let Some(len) = receive_one(&self.by_hand, &mut buffer) else { break };
            reads += 1;
            for ack in Acks::new(&buffer[..len]) {
                for &status in ack.statuses {
                    self.by_hand_acks.count(AckStatus::from_number(status));
                }
            }
        }
        reads
    }

    /// Sends every datagram that is due; `sent` hears of each that the kernel took.
    pub fn transmit(&mut self, now_ns: u64, mut sent: impl FnMut(Transmit, &[Ticket])) -> usize {
        let mut total = 0;
        loop {
            let mut due = [None; SEND_BATCH];
            let mut count = 0;
            while count < SEND_BATCH {
                let Some(transmit) = self.sender.poll_transmit(now_ns) else { break };
                due[count] = Some(transmit);
                count += 1;
            }
            if count == 0 {
                return total;
            }
            let mut from = 0;
            while from < count {
                let taken = self.send_some(&due[from..count]);
                for transmit in due[from..from + taken].iter().flatten() {
                    sent(*transmit, self.sender.tickets(*transmit));
                }
                if taken == 0 {
                    // Lost; the sender's timer takes care of it.
                    self.send_failures += 1;
                }
                from += taken.max(1);
            }
            total += count;
        }
    }

    /// Gives datagrams to the kernel and says how many it took. The first error may be the ICMP
    /// answer to an earlier send, told once and leaving this one unsent, so one more try is made.
    fn send_some(&self, due: &[Option<Transmit>]) -> usize {
        let bytes = |at: usize| match due.get(at) {
            Some(Some(transmit)) => self.sender.datagram(*transmit),
            _ => &[],
        };
        let slices: [IoSlice<'_>; SEND_BATCH] = std::array::from_fn(|at| IoSlice::new(bytes(at)));
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; SEND_BATCH] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut parts = slices.chunks(1).zip(controls.iter_mut());
        let mut messages: [MMsgHdr<'_>; SEND_BATCH] = std::array::from_fn(|_| {
            let (slice, control) = parts.next().expect("as many parts as messages");
            MMsgHdr::new(slice, control)
        });
        let messages = &mut messages[..due.len()];
        rustix::net::sendmmsg(&self.tracked, messages, SendFlags::empty())
            .or_else(|_| rustix::net::sendmmsg(&self.tracked, messages, SendFlags::empty()))
            .unwrap_or(0)
    }

    /// Sends a datagram made by hand, once. Says whether the kernel took it.
    pub fn send_by_hand(&mut self, payload: &[u8]) -> bool {
        let taken = self.by_hand.send(payload).or_else(|_| self.by_hand.send(payload)).is_ok();
        self.send_failures += u64::from(!taken);
        taken
    }
}

/// One datagram, if there is one. ICMP errors of earlier sends are read away: to us they are loss.
fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> Option<usize> {
    // A connected socket keeps one error at a time: after it comes data or nothing.
    for _ in 0..2 {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => return Some(len),
            Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => return None,
            Err(_) => {}
        }
    }
    None
}

impl AckCounts {
    /// Counts one status.
    pub fn count(&mut self, status: Option<AckStatus>) {
        match status {
            Some(AckStatus::Created) => self.created += 1,
            Some(AckStatus::Exists) => self.exists += 1,
            Some(AckStatus::Retry) => self.retry += 1,
            Some(AckStatus::Malformed) => self.malformed += 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::wire::Click;

    use super::*;

    #[test]
    fn a_node_that_is_back_gets_the_next_datagram_although_an_error_waits_in_the_socket() {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut lane = Lane::connect(address, Config::default(), 0).unwrap();
        let send = |lane: &mut Lane| {
            lane.sender.offer(0, &Click::zeroed(), &[]).unwrap();
            lane.sender.flush();
            lane.transmit(0, |_, _| {});
        };
        // Nobody listens: on loopback the ICMP error is there when the call returns.
        send(&mut lane);
        let node = UdpSocket::bind(address).unwrap();
        node.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        send(&mut lane);
        assert_eq!(lane.send_failures, 0);
        let mut buffer = [0; 2048];
        assert!(node.recv(&mut buffer).unwrap() > 0);
    }
}
