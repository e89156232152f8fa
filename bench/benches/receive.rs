//! Receiving datagrams: the daemon's io_uring layer beside plain recvmmsg, in one run.
//!
//! Each round fills one socket's buffer, then lets one engine drain it and takes the CPU time of
//! the draining thread. So the sender costs neither anything, and a noisy machine costs both the
//! same: the engines take turns, and the ratio is that of each pair of rounds.
//!
//! `cargo bench -p weir-bench --bench receive`

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir::rx::udp::{open_group, resize};
use weir::uring::{Completion, ReceiverId, Settings, Uring};
use weir_bench::recvmmsg::Batch;
use weir_bench::thread_time::thread_time;

/// Datagrams of one round: many times what a ring holds, so that stopping and starting it counts.
const DATAGRAMS: usize = 3000;
/// The daemon's default, and a ring that leaves the core's cache: what the default is there for.
const RECEIVE_BUFFERS: [u16; 2] = [64, 4096];
/// Room for a round of the largest datagrams with the kernel's own overhead.
const SOCKET_BYTES: usize = 64 << 20;
const ROUNDS: usize = 101;
/// A single plain click, and the 14 of a full datagram.
const SIZES: [usize; 2] = [24 + 96, 24 + 14 * 96];

fn main() -> Result<()> {
    println!(
        "CPU ns a datagram, median of {ROUNDS} rounds of {DATAGRAMS}; ratio of pairs, median (least, most)"
    );
    println!("  bytes  buffers   recvmmsg     + cmsgs    io_uring  io_uring / recvmmsg   io_uring / + cmsgs");
    for size in SIZES {
        for buffers in RECEIVE_BUFFERS {
            compare(size, buffers)?;
        }
    }
    Ok(())
}

fn compare(size: usize, buffers: u16) -> Result<()> {
    let mut plain = Recvmmsg::new(plain_socket()?);
    let mut with_cmsgs = Recvmmsg::new(daemon_socket()?.into());
    let mut uring = IoUring::new(buffers)?;
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let round = [
            measure(size, plain.address()?, || plain.drain())?,
            measure(size, with_cmsgs.address()?, || with_cmsgs.drain())?,
            measure(size, uring.address, || uring.drain())?,
        ];
        costs.iter_mut().zip(round).for_each(|(all, cost)| all.push(cost));
        ratios[0].push(round[2] / round[0]);
        ratios[1].push(round[2] / round[1]);
    }
    let [plain, with_cmsgs, uring] = costs.map(|mut all| median(&mut all));
    let [to_plain, to_cmsgs] = ratios.map(|mut all| {
        let middle = median(&mut all);
        format!("{middle:.2} ({:.2}, {:.2})", all[0], all[all.len() - 1])
    });
    println!(
        "{size:>7}  {buffers:>7}  {plain:>9.0}  {with_cmsgs:>10.0}  {uring:>10.0}  {to_plain:>19}  {to_cmsgs:>19}"
    );
    Ok(())
}

/// Fills the socket at `address`, then takes the CPU nanoseconds a datagram that `drain` needs.
fn measure(size: usize, address: SocketAddr, mut drain: impl FnMut() -> Result<()>) -> Result<f64> {
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let payload = vec![7; size];
    for _ in 0..DATAGRAMS {
        sender.send_to(&payload, address)?;
    }
    let began = thread_time();
    drain()?;
    Ok((thread_time() - began).as_nanos() as f64 / DATAGRAMS as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A socket as any program opens it, but for the room.
fn plain_socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// A socket as the daemon opens it: with destination addresses and drop counts.
fn daemon_socket() -> Result<socket2::Socket> {
    let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let socket = open_group(free, 1)?.pop().context("one socket")?;
    resize(&socket, free, SOCKET_BYTES)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

struct Recvmmsg {
    socket: UdpSocket,
    batch: Batch,
}

impl Recvmmsg {
    fn new(socket: UdpSocket) -> Self {
        Self { socket, batch: Batch::new() }
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    fn drain(&mut self) -> Result<()> {
        let (mut seen, mut sum) = (0, 0);
        while seen < DATAGRAMS {
            let count = self.batch.receive(&self.socket).context("datagrams are missing")?;
            for at in 0..count {
                sum += self.batch.datagram(at).len();
            }
            seen += count;
        }
        ensure!(sum > 0, "empty datagrams");
        Ok(())
    }
}

struct IoUring {
    uring: Uring,
    receiver: ReceiverId,
    address: SocketAddr,
    completions: Vec<Completion>,
}

impl IoUring {
    fn new(buffers: u16) -> Result<Self> {
        let mut uring = Uring::new(Settings::datagrams(buffers, 1))?;
        let socket = daemon_socket()?;
        let address = socket.local_addr()?.as_socket().context("an internet address")?;
        let receiver = uring.add_receiver(OwnedFd::from(socket));
        uring.wait(Duration::ZERO, &mut Vec::new())?;
        Ok(Self { uring, receiver, address, completions: Vec::with_capacity(4096) })
    }

    fn drain(&mut self) -> Result<()> {
        let (mut seen, mut sum) = (0, 0);
        while seen < DATAGRAMS {
            self.uring.wait(Duration::from_secs(5), &mut self.completions)?;
            ensure!(!self.completions.is_empty(), "datagrams are missing");
            for completion in self.completions.drain(..) {
                match completion {
                    Completion::Received { buffer, filled, .. } => {
                        sum += self.uring.datagram(&buffer, filled).context("framing")?.payload.len();
                        self.uring.recycle(buffer);
                        seen += 1;
                    }
                    Completion::ReceiverStopped { .. } => self.uring.arm(self.receiver),
                    other => anyhow::bail!("nothing else was asked for: {other:?}"),
                }
            }
        }
        ensure!(sum > 0, "empty datagrams");
        Ok(())
    }
}
