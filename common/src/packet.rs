//! The packet parser: from an Ethernet frame to the header of a datagram of clicks, or to the flags of
//! a TCP segment for the HTTP door.
//!
//! One parser for both sides of the kernel boundary: the eBPF program runs it over packet
//! pointers, the daemon, the tests and the fuzzers over slices. It is pure, bounded (4 VLAN
//! tags, 6 IPv6 extension headers) and cannot panic; what is *ours* it asks a [`Policy`], what
//! the bytes are it asks a [`Source`].
//!
//! It says [`Verdict::Malformed`] only of a packet that is surely for one of our addresses, and
//! for one of our ports once the port is known; the damaged packets of others are the kernel's.
//! It does not verify the UDP checksum (the NIC or the kernel does) and does not reassemble. Of TCP
//! it knows what asks for a connection, [`Verdict::Syn`]; everything else of it is the kernel's.
//!
//! Start reading at [`parse`]. Sources: IEEE 802.3, 802.1Q; RFC 791, 768, 8200, 6946, 9293, 9868.

mod extensions;
mod header;
mod tcp;

use zerocopy::transmute;

use self::header::{Ipv4, Ipv6, UdpHeader};
use crate::id::Shard;
use crate::reason::Reason;
use crate::wire::{self, HeaderFacts};

/// VLAN tags (802.1Q, 802.1ad) that are read through. Provider networks stack two.
pub const MAX_VLAN_TAGS: usize = 4;
/// IPv6 extension headers that are read through: each kind of RFC 8200 section 4.1 once, and
/// destination options twice.
pub const MAX_EXTENSION_HEADERS: usize = 6;
/// Bytes of one VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

const IPV4_LEN: usize = size_of::<Ipv4>();
const IPV6_LEN: usize = size_of::<Ipv6>();
const UDP_LEN: usize = size_of::<UdpHeader>();
const _: () = assert!(IPV4_LEN == 20 && IPV6_LEN == 40 && UDP_LEN == 8);

mod ether_type {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const PROVIDER_VLAN: u16 = 0x88a8;
}

/// IANA protocol numbers that matter here.
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// Bytes of a packet, of which only the leading, linear part can be read in place.
pub trait Source {
    /// The `N` bytes at `offset`, or `None` where the linear part ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Bytes of the linear part.
    fn linear_len(&self) -> usize;

    /// Bytes of the whole packet: more than [`Source::linear_len`] for a multi-buffer packet.
    fn total_len(&self) -> usize;
}

impl Source for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn linear_len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        self.len()
    }
}

/// A slice as the linear part of a longer packet.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    /// What can be read.
    pub linear: &'a [u8],
    /// Bytes of the whole packet.
    pub total_len: usize,
}

impl Source for Cut<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.linear.read(offset)
    }

    fn linear_len(&self) -> usize {
        self.linear.len()
    }

    fn total_len(&self) -> usize {
        self.total_len
    }
}

/// What is ours. Addresses are in network order, as on the wire.
pub trait Policy {
    /// Whether this IPv4 address takes clicks.
    fn has_v4(&self, address: [u8; 4]) -> bool;
    /// Whether this IPv6 address takes clicks.
    fn has_v6(&self, address: [u8; 16]) -> bool;
    /// Whether this UDP port takes clicks.
    fn has_port(&self, port: u16) -> bool;
    /// Whether fragments go to the kernel instead of being malformed.
    fn passes_fragments(&self) -> bool;
    /// Whether a source may ask for connections to this TCP port only at a rate.
    fn limits_syns_to(&self, port: u16) -> bool;
}

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Where the clicks of a packet are, and what their header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clicks {
    /// The IP version.
    pub family: Family,
    /// VLAN tags before the IP header, 0 to [`MAX_VLAN_TAGS`].
    pub vlan_tags: u8,
    /// Offset of the IP header.
    pub ip_offset: usize,
    /// Offset of the UDP payload.
    pub payload_offset: usize,
    /// Bytes of the UDP payload.
    pub payload_len: usize,
    /// What the click header says.
    pub header: HeaderFacts,
}

/// Where the source address of a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The IP version.
    pub family: Family,
    /// Offset of the IP header.
    pub ip_offset: usize,
}

impl Sender {
    /// Offset of the source address: 4 bytes for [`Family::V4`], 16 for [`Family::V6`].
    #[inline(always)]
    #[must_use]
    pub const fn address_offset(&self) -> usize {
        match self.family {
            Family::V4 => self.ip_offset + 12,
            Family::V6 => self.ip_offset + 8,
        }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours, for a reason of class passed.
    Pass(Reason),
    /// Ours and broken, for a reason of class malformed.
    Malformed(Reason),
    /// Ours, with a sound click header.
    Ours(Clicks),
    /// Asks for a connection to a port where [`Policy::limits_syns_to`] says so.
    Syn(Sender),
}

impl Verdict {
    /// The reason, where there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match *self {
            Self::Pass(reason) | Self::Malformed(reason) => Some(reason),
            Self::Ours(_) | Self::Syn(_) => None,
        }
    }
}

impl Clicks {
    /// The shard the sender names, unless the header says that the clicks share none.
    #[inline(always)]
    #[must_use]
    pub const fn shard(&self) -> Option<Shard> {
        if self.header.shared_bits == 0 { None } else { Some(self.header.shard) }
    }

    /// Who sent them.
    #[inline(always)]
    #[must_use]
    pub const fn sender(&self) -> Sender {
        Sender { family: self.family, ip_offset: self.ip_offset }
    }

    /// Offset of the source address: 4 bytes for [`Family::V4`], 16 for [`Family::V6`].
    #[inline(always)]
    #[must_use]
    pub const fn source_offset(&self) -> usize {
        self.sender().address_offset()
    }
}

/// A step's result: go on, or the verdict is known.
type Step<T> = Result<T, Verdict>;

#[inline(always)]
const fn pass<T>(reason: Reason) -> Step<T> {
    Err(Verdict::Pass(reason))
}

#[inline(always)]
const fn malformed<T>(reason: Reason) -> Step<T> {
    Err(Verdict::Malformed(reason))
}

/// Reads a packet as far as its click header.
#[inline(always)]
pub fn parse<S: Source + ?Sized, P: Policy + ?Sized>(packet: &S, policy: &P) -> Verdict {
    match parse_frame(packet, policy) {
        Ok(clicks) => Verdict::Ours(clicks),
        Err(verdict) => verdict,
    }
}

/// Ethernet, IP, UDP. The code for tags and options would do for frames without them as well;
/// these are told apart all the same, because with constants for its offsets the usual frame
/// costs the eBPF program a good deal less.
#[inline(always)]
fn parse_frame<S: Source + ?Sized, P: Policy + ?Sized>(packet: &S, policy: &P) -> Step<Clicks> {
    // A frame too short for its type has no address of ours.
    let Some(bytes) = packet.read::<2>(ETHERNET_LEN - 2) else { return pass(Reason::NotIp) };
    let untagged = Link { ether_type: u16::from_be_bytes(bytes), ip_offset: ETHERNET_LEN, vlan_tags: 0 };
    if is_vlan(untagged.ether_type) {
        let link = parse_tags(packet, untagged)?;
        let udp = parse_ip(packet, policy, link)?;
        return parse_udp(packet, policy, link, udp);
    }
    let udp = parse_ip(packet, policy, untagged)?;
    match (udp.family, udp.offset) {
        (Family::V4, offset @ V4_UDP_OFFSET) | (Family::V6, offset @ V6_UDP_OFFSET) => {
            parse_udp(packet, policy, untagged, Udp { offset, ..udp })
        }
        _ => parse_udp(packet, policy, untagged, udp),
    }
}

/// Where the UDP header of an untagged frame is if its IP header is plain.
const V4_UDP_OFFSET: usize = ETHERNET_LEN + IPV4_LEN;
const V6_UDP_OFFSET: usize = ETHERNET_LEN + IPV6_LEN;

#[inline(always)]
fn parse_ip<S: Source + ?Sized, P: Policy + ?Sized>(packet: &S, policy: &P, link: Link) -> Step<Udp> {
    match link.ether_type {
        ether_type::IPV4 => parse_v4(packet, policy, link.ip_offset),
        ether_type::IPV6 => parse_v6(packet, policy, link.ip_offset),
        _ => pass(Reason::NotIp),
    }
}

#[derive(Clone, Copy)]
struct Link {
    ether_type: u16,
    ip_offset: usize,
    vlan_tags: u8,
}

#[inline(always)]
fn parse_tags<S: Source + ?Sized>(packet: &S, mut link: Link) -> Step<Link> {
    for _ in 0..MAX_VLAN_TAGS {
        // The tag's control field, then the type of what follows.
        let Some(bytes) = packet.read::<2>(link.ip_offset + 2) else { return pass(Reason::NotIp) };
        link.ether_type = u16::from_be_bytes(bytes);
        link.ip_offset += VLAN_TAG_LEN;
        link.vlan_tags += 1;
        if !is_vlan(link.ether_type) {
            return Ok(link);
        }
    }
    pass(Reason::VlanTooDeep)
}

#[inline(always)]
const fn is_vlan(ether_type: u16) -> bool {
    ether_type == ether_type::VLAN || ether_type == ether_type::PROVIDER_VLAN
}

/// A UDP header's place.
#[derive(Clone, Copy)]
struct Udp {
    family: Family,
    offset: usize,
    /// Bytes from `offset` to the end of the IP packet, at least [`UDP_LEN`]; all of them are in
    /// the frame.
    space: usize,
}

#[inline(always)]
fn parse_v4<S: Source + ?Sized, P: Policy + ?Sized>(packet: &S, policy: &P, ip: usize) -> Step<Udp> {
    let Some(bytes) = packet.read::<IPV4_LEN>(ip) else { return pass(Reason::NotIp) };
    let header: Ipv4 = transmute!(bytes);
    if header.version_and_len >> 4 != 4 {
        return pass(Reason::NotIp);
    }
    if !policy.has_v4(header.destination) {
        return pass(Reason::OtherAddress);
    }
    if header.protocol != protocol::UDP {
        return Err(tcp::judge_v4(packet, policy, ip, header));
    }
    let header_len = (header.version_and_len & 15) as usize * 4;
    if header_len < IPV4_LEN {
        return malformed(Reason::IpHeaderLength);
    }
    if !is_whole(packet, ip + header_len) {
        return malformed(Reason::FrameTruncated);
    }
    let total_len = header.total_len.get() as usize;
    if total_len < header_len + UDP_LEN || !is_whole(packet, ip + total_len) {
        return malformed(Reason::IpLength);
    }
    // More fragments, or an offset.
    let fragment = header.flags_and_offset.get() & 0x3fff;
    if fragment != 0 {
        let first = fragment & 0x1fff == 0;
        return Err(judge_fragment(packet, policy, if first { Some(ip + header_len) } else { None }));
    }
    Ok(Udp { family: Family::V4, offset: ip + header_len, space: total_len - header_len })
}

#[inline(always)]
fn parse_v6<S: Source + ?Sized, P: Policy + ?Sized>(packet: &S, policy: &P, ip: usize) -> Step<Udp> {
    let Some(bytes) = packet.read::<IPV6_LEN>(ip) else { return pass(Reason::NotIp) };
    let header: Ipv6 = transmute!(bytes);
    if header.version_and_class >> 4 != 6 {
        return pass(Reason::NotIp);
    }
    if !policy.has_v6(header.destination) {
        return pass(Reason::OtherAddress);
    }
    // Zero means a jumbogram (RFC 2675), which a datagram of clicks never is.
    let payload_len = header.payload_len.get() as usize;
    let end = ip + IPV6_LEN + payload_len;
    let mut offset = ip + IPV6_LEN;
    if header.next != protocol::UDP {
        offset = extensions::walk(packet, policy, ip, header.next, offset, end)?;
    }
    if offset + UDP_LEN > end || !is_whole(packet, end) {
        return malformed(Reason::IpLength);
    }
    Ok(Udp { family: Family::V6, offset, space: end - offset })
}

/// A fragment of a packet to our address, with the offset of its UDP header where it has one.
#[inline(always)]
fn judge_fragment<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    udp_offset: Option<usize>,
) -> Verdict {
    let port = match udp_offset {
        Some(offset) => packet.read::<2>(offset + 2),
        None => None,
    };
    if let Some(port) = port
        && !policy.has_port(u16::from_be_bytes(port))
    {
        return Verdict::Pass(Reason::OtherPort);
    }
    if policy.passes_fragments() {
        Verdict::Pass(Reason::FragmentPassed)
    } else {
        Verdict::Malformed(Reason::Fragment)
    }
}

/// Port and length, then the click header. A length shorter than the IP packet is sound: what
/// follows it is RFC 9868's surplus area, which the kernel cuts off.
#[inline(always)]
fn parse_udp<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    link: Link,
    udp: Udp,
) -> Step<Clicks> {
    let Some(bytes) = packet.read::<UDP_LEN>(udp.offset) else { return malformed(Reason::LinearCut) };
    let header: UdpHeader = transmute!(bytes);
    if !policy.has_port(header.destination.get()) {
        return pass(Reason::OtherPort);
    }
    let len = header.len.get() as usize;
    if len < UDP_LEN || len > udp.space {
        return malformed(Reason::UdpLength);
    }
    if len < UDP_LEN + wire::HEADER_LEN {
        return malformed(Reason::HeaderShort);
    }
    let (payload_offset, payload_len) = (udp.offset + UDP_LEN, len - UDP_LEN);
    let Some(bytes) = packet.read::<{ wire::HEADER_LEN }>(payload_offset) else {
        return malformed(Reason::LinearCut);
    };
    match wire::check_header(&bytes, payload_len) {
        Ok(header) => Ok(Clicks {
            family: udp.family,
            vlan_tags: link.vlan_tags,
            ip_offset: link.ip_offset,
            payload_offset,
            payload_len,
            header,
        }),
        Err(reason) => malformed(reason),
    }
}

/// Whether the packet has at least `end` bytes. The whole length costs the kernel a call, so it
/// is asked only when the linear part does not answer.
#[inline(always)]
fn is_whole<S: Source + ?Sized>(packet: &S, end: usize) -> bool {
    end <= packet.linear_len() || end <= packet.total_len()
}

#[cfg(test)]
mod tests;
