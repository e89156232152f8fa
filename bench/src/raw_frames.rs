//! Frames that no UDP socket would send: cut, fragmented, with wrong lengths, options, VLAN tags,
//! extension headers, or none of the node's business.
//!
//! Each wrong frame is wrong in one way. Those that only an XDP program may judge are also such that
//! a kernel without it delivers nothing from them. VLAN tags carry id 0 (priority tags, IEEE 802.1Q
//! 9.6), so that a kernel without VLAN devices still delivers what is inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::kind::Kind;
use crate::lane::Lane;
use crate::packet_socket::PacketSocket;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// Local experimental use (IEEE 802): nobody answers it.
const ETHERTYPE_EXPERIMENTAL: u16 = 0x88b5;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
const NEXT_HOP_BY_HOP: u8 = 0;
const NEXT_FRAGMENT: u8 = 44;
const NEXT_DESTINATION: u8 = 60;
/// More extension headers than any node follows.
const TOO_MANY_EXTENSIONS: usize = 12;
/// The discard port (RFC 863).
const OTHER_PORT: u16 = 9;
/// An address of TEST-NET-2 (RFC 5737): nobody's.
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Where raw frames leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface.
    pub interface: String,
    /// The next hop's address; `None` asks the kernel's neighbour table.
    pub gateway: Option<[u8; 6]>,
    /// A source that the node's XDP program denies, if it has one.
    pub denied: Option<Ipv4Addr>,
}

/// Builds and sends raw frames.
pub struct RawFrames {
    socket: PacketSocket,
    gateway: [u8; 6],
    v4: Option<Flow<Ipv4Addr>>,
    v6: Option<Flow<Ipv6Addr>>,
    denied: Ipv4Addr,
    /// Frames the kernel did not take.
    pub send_failures: u64,
}

/// Addresses and ports, ours first.
#[derive(Clone, Copy, Debug)]
struct Flow<A> {
    source: A,
    target: A,
    source_port: u16,
    target_port: u16,
}

impl RawFrames {
    /// Opens the packet socket and finds the next hop. Frames claim to come from each lane's
    /// by-hand socket, so that acks are read there.
    ///
    /// # Errors
    /// No permission, no interface, no neighbour.
    pub fn open(link: &Link, targets: &[SocketAddr], lanes: &[Lane]) -> anyhow::Result<Self> {
        let socket = PacketSocket::open(&link.interface)?;
        let (mut v4, mut v6) = (None, None);
        for (target, lane) in targets.iter().zip(lanes) {
            let own = lane.by_hand_address().context("own address")?;
            let (source_port, target_port) = (own.port(), target.port());
            match (own.ip(), target.ip()) {
                (IpAddr::V4(source), IpAddr::V4(target)) => {
                    v4 = Some(Flow { source, target, source_port, target_port });
                }
                (IpAddr::V6(source), IpAddr::V6(target)) => {
                    v6 = Some(Flow { source, target, source_port, target_port });
                }
                _ => bail!("{own} cannot reach {target}"),
            }
        }
        let gateway = match (link.gateway, &v4) {
            (Some(mac), _) => mac,
            (None, Some(flow)) => resolve(flow.target)?,
            (None, None) => bail!("with IPv6 alone the neighbour cannot be looked up: give --gateway-mac"),
        };
        let denied = link.denied.unwrap_or(Ipv4Addr::UNSPECIFIED);
        Ok(Self { socket, gateway, v4, v6, denied, send_failures: 0 })
    }

    /// Sends a frame of this kind around the payload. Says whether the kernel took it.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let frame = if kind.needs_ipv6() {
            self.v6.map(|flow| frame_v6(kind, &flow, payload))
        } else {
            self.v4.map(|flow| frame_v4(kind, &flow, self.denied, payload))
        };
        let Some(mut frame) = frame else { return false };
        frame[..6].copy_from_slice(&self.gateway);
        frame[6..12].copy_from_slice(&self.socket.mac());
        let taken = self.socket.send(&frame).is_ok();
        self.send_failures += u64::from(!taken);
        taken
    }
}

/// A frame of this kind around the payload, link addresses left zero, as [`RawFrames::send`] sends
/// it. `None` where source and target are not of the family that the kind needs.
#[must_use]
pub fn frame(
    kind: Kind,
    source: SocketAddr,
    target: SocketAddr,
    denied: Ipv4Addr,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let (source_port, target_port) = (source.port(), target.port());
    match (source.ip(), target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) if !kind.needs_ipv6() => {
            let flow = Flow { source, target, source_port, target_port };
            Some(frame_v4(kind, &flow, denied, payload))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) if kind.needs_ipv6() => {
            let flow = Flow { source, target, source_port, target_port };
            Some(frame_v6(kind, &flow, payload))
        }
        _ => None,
    }
}

/// Asks the kernel for a neighbour's address, after giving it a reason to know it.
///
/// # Errors
/// No answer from such a neighbour.
pub fn resolve(target: Ipv4Addr) -> anyhow::Result<[u8; 6]> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("probe socket")?;
    let started = Instant::now();
    while started.elapsed() < RESOLVE_MAX {
        // To the discard port: the node's kernel answers for it, and the link address is learnt.
        let _unreachable = probe.send_to(&[], (target, OTHER_PORT));
        let table = std::fs::read_to_string("/proc/self/net/arp").context("neighbour table")?;
        if let Some(mac) = find_neighbour(&table, target) {
            return Ok(mac);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no neighbour {target}: if it is behind a gateway, give --gateway-mac")
}

/// Finds a complete entry in the text of `/proc/net/arp`.
fn find_neighbour(table: &str, target: Ipv4Addr) -> Option<[u8; 6]> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let address: Ipv4Addr = columns.next()?.parse().ok()?;
        let (_hardware, flags, mac) = (columns.next()?, columns.next()?, columns.next()?);
        (address == target && flags != "0x0").then(|| parse_mac(mac)).flatten()
    })
}

/// Six hexadecimal bytes with colons.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn ethernet(tags: usize, vlan_id: u8, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    for _ in 0..tags {
        frame.extend(ETHERTYPE_VLAN.to_be_bytes());
        frame.extend([0, vlan_id]); // priority 0
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn udp(source_port: u16, target_port: u16, len: u16) -> [u8; 8] {
    let mut header = [0; 8];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&target_port.to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header
}

fn frame_v4(kind: Kind, flow: &Flow<Ipv4Addr>, denied: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let tags = match kind {
        Kind::Vlan1 => 1,
        Kind::Vlan2 => 2,
        Kind::Vlan3 => 3,
        Kind::Vlan4 => 4,
        Kind::VlanTooDeep => 5,
        _ => 0,
    };
    let ethertype = if kind == Kind::NotIp { ETHERTYPE_EXPERIMENTAL } else { ETHERTYPE_IPV4 };
    // A kernel strips any number of priority tags, but delivers nothing from a VLAN it has not.
    let vlan_id = u8::from(kind == Kind::VlanTooDeep);
    let mut frame = ethernet(tags, vlan_id, ethertype);
    let with_options = matches!(kind, Kind::Ipv4Options | Kind::FrameTruncated);
    let options: &[u8] = if with_options { &[1; 8] } else { &[] }; // no operation
    let udp_len = 8 + payload.len() as u16;
    let ip_len = 20 + options.len() as u16 + udp_len;

    let start = frame.len();
    let mut ip = [0; 20];
    ip[0] = 0x45 + (options.len() / 4) as u8;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&flow.source.octets());
    ip[16..20].copy_from_slice(&flow.target.octets());
    let (mut target_port, mut udp_claims) = (flow.target_port, udp_len);
    match kind {
        Kind::IpHeaderLength => ip[0] = 0x44,
        Kind::IpLength => ip[2..4].copy_from_slice(&(ip_len + 8).to_be_bytes()),
        Kind::Fragment => ip[6] = 0x20, // more fragments follow
        Kind::NotUdp => ip[9] = PROTOCOL_ICMP,
        Kind::OtherAddress => ip[16..20].copy_from_slice(&OTHER_ADDRESS.octets()),
        Kind::OtherPort => target_port = OTHER_PORT,
        Kind::DeniedSource => ip[12..16].copy_from_slice(&denied.octets()),
        Kind::UdpLength => udp_claims += 4,
        _ => {}
    }
    frame.extend(ip);
    frame.extend(options);
    let checksum = !sum(&frame[start..], 0);
    frame[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
    if kind == Kind::NotUdp {
        let echo_start = frame.len();
        frame.extend([8, 0, 0, 0, 0, 1, 0, 1]);
        frame.extend(payload);
        let checksum = !sum(&frame[echo_start..], 0);
        frame[echo_start + 2..echo_start + 4].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame.extend(udp(flow.source_port, target_port, udp_claims)); // checksum 0: none
        frame.extend(payload);
    }
    if kind == Kind::FrameTruncated {
        // Inside the options: who reads the fixed part knows that the packet is ours.
        frame.truncate(ETHERNET + 24);
    }
    frame
}

/// An ordinary frame, link addresses left zero.
pub(crate) fn plain_v4(source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let flow = Flow {
        source: *source.ip(),
        target: *target.ip(),
        source_port: source.port(),
        target_port: target.port(),
    };
    frame_v4(Kind::Fresh, &flow, Ipv4Addr::UNSPECIFIED, payload)
}

fn frame_v6(kind: Kind, flow: &Flow<Ipv6Addr>, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(0, 0, ETHERTYPE_IPV6);
    let udp_len = 8 + payload.len() as u16;
    let (first, extensions) = extension_headers(kind);
    let mut ip = [0; 40];
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(udp_len + extensions.len() as u16).to_be_bytes());
    ip[6] = first;
    ip[7] = 64;
    ip[8..24].copy_from_slice(&flow.source.octets());
    ip[24..40].copy_from_slice(&flow.target.octets());
    frame.extend(ip);
    frame.extend(extensions);
    let start = frame.len();
    frame.extend(udp(flow.source_port, flow.target_port, udp_len));
    frame.extend(payload);
    let pseudo = sum(&ip[8..40], u32::from(udp_len) + u32::from(PROTOCOL_UDP));
    let mut checksum = !sum(&frame[start..], u32::from(pseudo));
    if checksum == 0 {
        checksum = 0xffff;
    }
    if kind == Kind::ExtensionChain {
        // A kernel follows any number of headers: the wrong sum keeps it from delivering this.
        checksum ^= 0x0101;
    }
    frame[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The chain of extension headers, and the number of its first.
fn extension_headers(kind: Kind) -> (u8, Vec<u8>) {
    let mut headers = Vec::new();
    // Each is eight bytes: next header, length 0, and a PadN option of six.
    let padding = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    match kind {
        Kind::FragmentV6 => {
            headers.extend([PROTOCOL_UDP, 0, 0, 1, 0, 0, 0, 7]); // offset 0, more follow
            (NEXT_FRAGMENT, headers)
        }
        Kind::ExtensionChain => {
            for _ in 1..TOO_MANY_EXTENSIONS {
                headers.extend(padding(NEXT_DESTINATION));
            }
            headers.extend(padding(PROTOCOL_UDP));
            (NEXT_DESTINATION, headers)
        }
        _ => {
            headers.extend(padding(NEXT_DESTINATION));
            headers.extend(padding(PROTOCOL_UDP));
            (NEXT_HOP_BY_HOP, headers)
        }
    }
}

/// The Internet checksum's one's complement sum (RFC 1071), not yet complemented.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        total += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow<Ipv4Addr> = Flow {
        source: Ipv4Addr::new(10, 0, 0, 1),
        target: Ipv4Addr::new(10, 0, 0, 2),
        source_port: 5,
        target_port: 4500,
    };

    const DENIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn an_ipv4_header_with_and_without_options_sums_to_its_checksum() {
        for (kind, words) in [(Kind::OtherPort, 5), (Kind::Ipv4Options, 7)] {
            let frame = frame_v4(kind, &FLOW, DENIED, b"payload");
            assert_eq!(frame[ETHERNET] & 15, words);
            let header = &frame[ETHERNET..ETHERNET + usize::from(words) * 4];
            assert_eq!(sum(header, 0), 0xffff);
            assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - ETHERNET);
        }
    }

    #[test]
    fn vlan_tags_stand_before_the_packet_as_often_as_the_kind_says() {
        let plain = frame_v4(Kind::OtherPort, &FLOW, DENIED, b"x").len();
        for (kind, tags) in [(Kind::Vlan1, 1), (Kind::Vlan4, 4), (Kind::VlanTooDeep, 5)] {
            let frame = frame_v4(kind, &FLOW, DENIED, b"x");
            assert_eq!(frame.len(), plain + 4 * tags);
            assert_eq!(frame[12..14], [0x81, 0]);
            assert_eq!(frame[12 + 4 * tags..14 + 4 * tags], [8, 0]);
        }
    }

    #[test]
    fn a_neighbour_is_found_only_when_its_entry_is_complete() {
        let table = "IP address HW type Flags HW address Mask Device\n\
                     10.0.0.2 0x1 0x0 00:00:00:00:00:00 * veth0\n\
                     10.0.0.3 0x1 0x2 02:00:00:00:00:0a * veth0\n";
        assert_eq!(find_neighbour(table, Ipv4Addr::new(10, 0, 0, 2)), None);
        assert_eq!(find_neighbour(table, Ipv4Addr::new(10, 0, 0, 3)), Some([2, 0, 0, 0, 0, 10]));
    }
}
