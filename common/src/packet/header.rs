//! The headers before a datagram of clicks, as they stand on the wire.

use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// An IPv4 header without options (RFC 791).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Ipv4 {
    pub(super) version_and_len: u8,
    _service: u8,
    pub(super) total_len: U16,
    _id: U16,
    pub(super) flags_and_offset: U16,
    _ttl: u8,
    pub(super) protocol: u8,
    _checksum: U16,
    _source: [u8; 4],
    pub(super) destination: [u8; 4],
}

/// An IPv6 header (RFC 8200).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Ipv6 {
    pub(super) version_and_class: u8,
    _flow: [u8; 3],
    pub(super) payload_len: U16,
    pub(super) next: u8,
    _hop_limit: u8,
    _source: [u8; 16],
    pub(super) destination: [u8; 16],
}

/// The first bytes of an IPv6 extension header.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Extension {
    pub(super) next: u8,
    pub(super) len: u8,
    /// Of a fragment header.
    pub(super) offset_and_more: U16,
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct UdpHeader {
    _source: U16,
    pub(super) destination: U16,
    pub(super) len: U16,
    _checksum: U16,
}
