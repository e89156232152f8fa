//! What the tests of the XDP program share: packets to build, and a loaded program to run them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::TestRunOptions;
use aya::programs::TestRun;
use weir::steer::{Object, Policy, Switches};
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::reason::Reason;
use weir_common::wire::{self, Click, Header};
use zerocopy::IntoBytes;

pub(crate) const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
pub(crate) const SENDER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const SENDER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x7);
pub(crate) const OUR_PORT: u16 = 8899;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const PROVIDER_VLAN: u16 = 0x88a8;
const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
/// The port of HTTPS.
pub(crate) const DOOR_PORT: u16 = 443;

/// TCP flags.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 1 << 1;
pub(crate) const RST: u8 = 1 << 2;
pub(crate) const ACK: u8 = 1 << 4;

/// A policy for our addresses and port.
pub(crate) fn policy() -> Policy {
    Policy::new(vec![OUR_V4.into(), OUR_V6.into()], vec![OUR_PORT])
}

/// The loaded program; or `None`, having said why the test is skipped.
pub(crate) fn load(switches: Switches, policy: &Policy) -> Option<Object> {
    match Object::load(switches, policy) {
        Ok(object) => Some(object),
        Err(error) if lacks_capability(&error) => {
            eprintln!("SKIPPED: no CAP_BPF, so the program cannot be loaded ({error})");
            None
        }
        Err(error) => panic!("the program does not load: {error}"),
    }
}

fn lacks_capability(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Runs the program once; returns its action and the frame as it left it.
pub(crate) fn run(object: &Object, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
    let result = object.xdp().unwrap().test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// Runs the program once on a packet of which only `linear_len` bytes are in its linear part.
pub(crate) fn run_cut(
    object: &Object,
    frame: &[u8],
    linear_len: usize,
) -> Result<u32, aya::programs::ProgramError> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, linear_len as u32, 0, 0, 0, 0];
    let options =
        TestRunOptions { data_in: Some(frame), ctx_in: Some(context.as_bytes()), ..Default::default() };
    object.xdp().unwrap().test_run(options).map(|result| result.return_value)
}

/// Packets counted for `reason`.
pub(crate) fn packets(object: &Object, reason: Reason) -> u64 {
    object.count(reason).unwrap().packets
}

/// The reasons that count packets, with their counts.
pub(crate) fn counted(object: &Object) -> Vec<(Reason, u64)> {
    let frames = object.frames().unwrap();
    frames.iter().filter(|f| f.packets != 0).map(|f| (f.reason, f.packets)).collect()
}

/// A packet as its layers; [`Packet::build`] gives its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Types of the VLAN tags, outermost first.
    pub(crate) vlan_tags: Vec<u16>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IPv4: bytes of options, a multiple of 4 up to 40.
    pub(crate) options_len: usize,
    /// IPv6: kinds and bytes of extension headers.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// [`TCP`] has a TCP header; everything else has that of UDP.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Of a TCP header.
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    /// The frame's least length, as Ethernet pads it.
    pub(crate) pad_to: usize,
}

/// Where the layers of a built packet begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets {
    pub(crate) ip: usize,
    pub(crate) udp: usize,
    pub(crate) payload: usize,
}

impl Packet {
    /// A sound datagram of one click to one of our addresses.
    pub(crate) fn v4() -> Self {
        Self {
            vlan_tags: Vec::new(),
            source: SENDER_V4.into(),
            destination: OUR_V4.into(),
            options_len: 0,
            extensions: Vec::new(),
            protocol: UDP,
            port: OUR_PORT,
            flags: 0,
            payload: clicks(1, 0, 0),
            pad_to: 60,
        }
    }

    pub(crate) fn v6() -> Self {
        Self { source: SENDER_V6.into(), destination: OUR_V6.into(), ..Self::v4() }
    }

    /// A segment to the door without data.
    pub(crate) fn tcp(flags: u8) -> Self {
        Self { protocol: TCP, port: DOOR_PORT, flags, payload: Vec::new(), ..Self::v4() }
    }

    /// As [`Packet::tcp`].
    pub(crate) fn tcp_v6(flags: u8) -> Self {
        Self { source: SENDER_V6.into(), destination: OUR_V6.into(), ..Self::tcp(flags) }
    }

    /// Bytes of the header behind that of IP.
    fn transport_len(&self) -> usize {
        if self.protocol == TCP { 20 } else { 8 }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.build().0
    }

    pub(crate) fn build(&self) -> (Vec<u8>, Offsets) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (i, tag) in (1_u16..).zip(&self.vlan_tags) {
            frame.extend(tag.to_be_bytes());
            frame.extend(i.to_be_bytes());
        }
        let ether_type = if self.destination.is_ipv4() { ETHER_IPV4 } else { ETHER_IPV6 };
        frame.extend(ether_type.to_be_bytes());
        let ip = frame.len();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.build_v4(&mut frame, source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.build_v6(&mut frame, source, destination),
            _ => panic!("source and destination are of two families"),
        }
        let udp = frame.len();
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        if self.protocol == TCP {
            frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            frame.extend((8 + self.payload.len() as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
        let payload = frame.len();
        frame.extend(&self.payload);
        if frame.len() < self.pad_to {
            frame.resize(self.pad_to, 0);
        }
        (frame, Offsets { ip, udp, payload })
    }

    fn build_v4(&self, frame: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr) {
        let header_len = 20 + self.options_len;
        let total_len = (header_len + self.transport_len() + self.payload.len()) as u16;
        frame.extend([0x40 | (header_len / 4) as u8, 0]);
        frame.extend(total_len.to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, self.protocol, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(std::iter::repeat_n(1, self.options_len));
    }

    fn build_v6(&self, frame: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) {
        let extensions_len: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let payload_len = (extensions_len + self.transport_len() + self.payload.len()) as u16;
        let first = self.extensions.first().map_or(self.protocol, |(kind, _)| *kind);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(payload_len.to_be_bytes());
        frame.extend([first, 64]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        for (i, (_, bytes)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(i + 1).map_or(self.protocol, |(kind, _)| *kind);
            frame.push(next);
            frame.extend(&bytes[1..]);
        }
    }
}

/// An IPv6 extension header of `units` * 8 bytes (hop-by-hop, routing, destination).
pub(crate) fn extension(kind: u8, units: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; units * 8];
    bytes[1] = (units - 1) as u8;
    (kind, bytes)
}

/// An IPv6 fragment header.
pub(crate) fn fragment(offset_and_more: u16) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; 8];
    bytes[2..4].copy_from_slice(&offset_and_more.to_be_bytes());
    (44, bytes)
}

/// An authentication header of `words` * 4 bytes.
pub(crate) fn authentication(words: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; words * 4];
    bytes[1] = (words - 2) as u8;
    (51, bytes)
}

/// The key that signs the first click of [`clicks`].
pub(crate) const ISSUER: Issuer = Issuer(3);
pub(crate) const KEY: KeyId = KeyId(9);

/// A sound payload of `count` unsigned clicks that share `shared_bits` bits of `shard`.
pub(crate) fn clicks(count: u8, shard: u16, shared_bits: u8) -> Vec<u8> {
    let header = Header {
        shared_bits,
        shard: shard.into(),
        batch_id: 7.into(),
        ..Header::new(count, usize::from(count) * wire::CLICK_LEN)
    };
    let mut payload = header.as_bytes().to_vec();
    for sequence in 0..u64::from(count) {
        let click = Click { impression: ImpressionId::issued(ISSUER, KEY, 1, sequence), ..Click::zeroed() };
        payload.extend(click.as_bytes());
    }
    payload
}

/// Runs the program `repeat` times without a pause, on the CPU this thread is on.
pub(crate) fn run_often(object: &Object, frame: &[u8], repeat: u32) {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..Default::default() };
    object.xdp().unwrap().test_run(options).unwrap();
}

/// Runs the program once; returns its action only.
pub(crate) fn run_blind(object: &Object, frame: &[u8]) -> u32 {
    let options = TestRunOptions { data_in: Some(frame), ..Default::default() };
    object.xdp().unwrap().test_run(options).unwrap().return_value
}
