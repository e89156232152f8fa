//! Malformed input: always counted, and a bounded share of it kept as samples, with its exact bytes
//! and the reason, for whoever has to find the sender's mistake.
//!
//! A worker offers what it refuses as malformed to its [`Sampler`], which copies it into a ring that
//! was allocated at the start, or drops it and counts that: it never waits and never allocates. The
//! forwarder [takes](Samples::take) what is in the rings into its next transaction. Samples are no
//! billing data: a crash loses those that were not forwarded, and a spool that fills stops them first.
//!
//! Never here: a full source address. Start reading at [`Sampler::offer`].

mod rate;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use rtrb::{Consumer, Producer, RingBuffer};
use weir_common::id::{Epoch, Incarnation, WorkerId};
use weir_common::reason::Reason;
use weir_common::time::UnixMs;

use rate::Rate;

/// Bytes of a sample at the most: all of any datagram that fits a receive buffer.
pub const SAMPLE_BYTES_MAX: usize = 2048;
/// Samples that wait for the forwarder in a worker's ring: several seconds at the default rate,
/// 130 KiB of memory.
const RING_SAMPLES: usize = 64;
/// What is kept of a source address: enough to find a broken sender's network, not the person. The
/// full address is never on a disk.
const IPV4_BITS: u8 = 24;
const IPV6_BITS: u8 = 48;

/// What was malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Input {
    /// A whole datagram.
    Datagram = 0,
    /// One click of a sound datagram: its fixed part and its extension.
    Click = 1,
    /// The body of a request, or the token of a link.
    Body = 2,
}

impl Input {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Click => "click",
            Self::Body => "body",
        }
    }
}

/// A sample on its way from a worker to the forwarder.
struct Sample {
    number: u64,
    received_at: UnixMs,
    reason: Reason,
    input: Input,
    source: IpNet,
    is_cut: bool,
    len: u16,
    bytes: [u8; SAMPLE_BYTES_MAX],
}

/// A sample as sinks take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The start of the daemon.
    pub epoch: Epoch,
    /// The worker that met it.
    pub worker: WorkerId,
    /// Counts the worker's samples since that start, from 0.
    pub number: u64,
    /// When it was read, by the node's time.
    pub received_at: UnixMs,
    /// Why it is malformed.
    pub reason: Reason,
    /// What it is.
    pub input: Input,
    /// The network it came from.
    pub source: IpNet,
    /// There was more of it than could be read.
    pub is_cut: bool,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
}

impl Reject {
    /// What names it: (incarnation, epoch, worker, number) as text.
    #[must_use]
    pub fn key(&self, incarnation: Incarnation) -> String {
        format!("{:016x}-{}-{}-{}", incarnation.0, self.epoch.0, self.worker.0, self.number)
    }
}

/// Bytes as hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _cannot_fail = write!(text, "{byte:02x}");
        text
    })
}

/// The network of an address, as far as it is kept.
#[must_use]
pub fn network_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { IPV4_BITS } else { IPV6_BITS };
    // Both lengths are within their families', so this never fails; then nothing would be kept.
    IpNet::new(address, bits).map_or_else(|_| IpNet::default(), |net| net.trunc())
}

/// Whether samples are taken at all; closed while the spool is too full for them.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Closes or opens it.
    pub fn set_closed(&self, is_closed: bool) {
        self.0.store(is_closed, Ordering::Relaxed);
    }

    /// Whether no samples are taken.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A worker's end.
pub struct Sampler {
    ring: Producer<Sample>,
    rate: Rate,
    gate: Gate,
    next: u64,
}

impl Sampler {
    /// A sampler that takes none.
    #[must_use]
    pub fn off() -> Self {
        Self { ring: RingBuffer::new(0).0, rate: Rate::new(0), gate: Gate::default(), next: 0 }
    }

    /// Keeps a copy of malformed input, whose bytes are `parts` in a row, if the rate, the ring and
    /// the gate allow it. Whether it did.
    #[cold]
    pub fn offer(
        &mut self,
        (received_at, monotonic_ns): (UnixMs, u64),
        reason: Reason,
        input: Input,
        source: SocketAddr,
        parts: [&[u8]; 2],
        is_cut: bool,
    ) -> bool {
        if self.gate.is_closed() || self.ring.is_full() || !self.rate.take(monotonic_ns) {
            return false;
        }
        let mut bytes = [0; SAMPLE_BYTES_MAX];
        let mut len = 0;
        for part in parts {
            let taken = part.len().min(SAMPLE_BYTES_MAX - len);
            bytes[len..len + taken].copy_from_slice(&part[..taken]);
            len += taken;
        }
        let is_cut = is_cut || parts[0].len() + parts[1].len() > len;
        let (source, number) = (network_of(source.ip()), self.next);
        self.next += 1;
        let sample = Sample { number, received_at, reason, input, source, is_cut, len: len as u16, bytes };
        self.ring.push(sample).is_ok()
    }
}

/// The forwarder's end.
pub struct Samples {
    epoch: Epoch,
    rings: Vec<Consumer<Sample>>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").field("rings", &self.rings.len()).finish_non_exhaustive()
    }
}

impl Samples {
    /// All samples that wait: at most a ring of each worker.
    pub fn take(&mut self) -> Vec<Reject> {
        let epoch = self.epoch;
        let mut taken = Vec::new();
        for (worker, ring) in self.rings.iter_mut().enumerate() {
            for _ in 0..RING_SAMPLES {
                let Ok(sample) = ring.pop() else { break };
                taken.push(Reject {
                    epoch,
                    worker: WorkerId(worker as u16),
                    number: sample.number,
                    received_at: sample.received_at,
                    reason: sample.reason,
                    input: sample.input,
                    source: sample.source,
                    is_cut: sample.is_cut,
                    bytes: sample.bytes[..usize::from(sample.len)].to_vec(),
                });
            }
        }
        taken
    }
}

/// Samplers for workers 0 to `workers - 1`, each of so many samples a second, and their other end.
#[must_use]
pub fn samplers(workers: u16, samples_per_s: u32, epoch: Epoch, gate: &Gate) -> (Vec<Sampler>, Samples) {
    let mut rings = Vec::new();
    let samplers = (0..workers).map(|_| {
        let (ring, end) = RingBuffer::new(RING_SAMPLES);
        rings.push(end);
        Sampler { ring, rate: Rate::new(samples_per_s), gate: gate.clone(), next: 0 }
    });
    (samplers.collect(), Samples { epoch, rings })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (UnixMs, u64) = (UnixMs(1_800_000_000_000), 0);

    fn offer(sampler: &mut Sampler, bytes: &[u8]) -> bool {
        let source = ([203, 0, 113, 77], 9).into();
        sampler.offer(NOW, Reason::BadMagic, Input::Datagram, source, [bytes, &[]], false)
    }

    #[test]
    fn a_sample_has_the_exact_bytes_and_of_its_source_the_network_alone() {
        let (mut samplers, mut samples) = samplers(2, 5, Epoch(3), &Gate::default());
        assert!(offer(&mut samplers[1], b"\0not a click\xff"));
        let taken = samples.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].bytes, b"\0not a click\xff");
        assert_eq!(
            (taken[0].source.to_string(), taken[0].worker),
            ("203.0.113.0/24".to_owned(), WorkerId(1))
        );
        assert_eq!(taken[0].key(Incarnation(0xab)), "00000000000000ab-3-1-0");
        assert_eq!(hex(&taken[0].bytes), "006e6f74206120636c69636bff");
        assert!(samples.take().is_empty());
    }

    #[test]
    fn addresses_are_kept_as_their_networks() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2::3"), "2001:db8:1::/48");
        assert_eq!(network("::ffff:198.51.100.9"), "198.51.100.0/24");
    }

    #[test]
    fn a_flood_is_sampled_at_the_rate_and_a_full_ring_drops() {
        let (mut samplers, mut samples) = samplers(1, 1000, Epoch(1), &Gate::default());
        let taken = (0..200).filter(|_| offer(&mut samplers[0], b"x")).count();
        assert_eq!((taken, samples.take().len()), (RING_SAMPLES, RING_SAMPLES), "the ring is the bound");
        let (mut samplers, mut samples) = super::samplers(1, 10, Epoch(1), &Gate::default());
        let taken = (0..200).filter(|_| offer(&mut samplers[0], b"x")).count();
        assert_eq!((taken, samples.take().len()), (10, 10), "the rate is");
        assert!(!offer(&mut Sampler::off(), b"x"));
    }

    #[test]
    fn a_closed_gate_takes_none() {
        let gate = Gate::default();
        let (mut samplers, _samples) = samplers(1, 10, Epoch(1), &gate);
        gate.set_closed(true);
        assert!(!offer(&mut samplers[0], b"x"));
        gate.set_closed(false);
        assert!(offer(&mut samplers[0], b"x"));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said_to_be() {
        let (mut samplers, mut samples) = samplers(1, 10, Epoch(1), &Gate::default());
        assert!(offer(&mut samplers[0], &[7; SAMPLE_BYTES_MAX + 1]));
        assert!(offer(&mut samplers[0], &[7; SAMPLE_BYTES_MAX]));
        let taken: Vec<_> = samples.take().iter().map(|reject| (reject.is_cut, reject.bytes.len())).collect();
        assert_eq!(taken, [(true, SAMPLE_BYTES_MAX), (false, SAMPLE_BYTES_MAX)]);
    }
}
