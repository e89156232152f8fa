//! What of TCP is judged: whether a segment asks for a connection to a port where that has a rate.
//!
//! Such is every segment with SYN and without ACK, whatever its other flags: ECN sets two of them
//! (RFC 3168), and a SYN with FIN, RST, PSH or URG nobody needs, but a listening socket spends time
//! on each, and none belongs to a connection that stands (RFC 9293, section 3.10.7.4).
//!
//! Everything else passes, damaged or not: a length, an offset or a checksum that is wrong is for
//! the kernel to find, and a segment whose flags cannot be read in place is not taken for a SYN.
//! Fragments are not reassembled here. A first one shows its flags, or is so short that it hides
//! them, which no sender does by accident (RFC 1858) and which counts as a SYN; without it the later
//! ones make no segment, so they pass.

use super::header::Ipv4;
use super::{Family, IPV4_LEN, Policy, Sender, Source, Verdict, protocol};
use crate::reason::Reason;

/// Offset of the flags in a TCP header (RFC 9293, section 3.1).
const FLAGS_OFFSET: usize = 13;
const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

const PASS: Verdict = Verdict::Pass(Reason::NotUdp);

/// An IPv4 packet to one of our addresses that is not UDP.
#[inline(always)]
pub(super) fn judge_v4<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    ip: usize,
    header: Ipv4,
) -> Verdict {
    let header_len = (header.version_and_len & 15) as usize * 4;
    if header.protocol != protocol::TCP || header_len < IPV4_LEN {
        return PASS;
    }
    let sender = Sender { family: Family::V4, ip_offset: ip };
    // More fragments, or an offset.
    let fragment = header.flags_and_offset.get() & 0x3fff;
    if fragment == 0 {
        // The usual header gives the eBPF program a constant offset, which costs less.
        if header_len == IPV4_LEN {
            return judge(packet, policy, sender, ip + IPV4_LEN);
        }
        return judge(packet, policy, sender, ip + header_len);
    }
    if fragment & 0x1fff != 0 {
        return PASS;
    }
    judge_first_fragment(packet, policy, sender, ip + header_len, ip + header.total_len.get() as usize)
}

/// A segment whose header begins at `offset`.
#[inline(always)]
pub(super) fn judge<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    sender: Sender,
    offset: usize,
) -> Verdict {
    let Some(header) = packet.read::<{ FLAGS_OFFSET + 1 }>(offset) else { return PASS };
    let asks = header[FLAGS_OFFSET] & (SYN | ACK) == SYN;
    if asks && policy.limits_syns_to(u16::from_be_bytes([header[2], header[3]])) {
        Verdict::Syn(sender)
    } else {
        PASS
    }
}

/// A first fragment whose TCP header begins at `offset`; its packet ends at `end`.
#[inline(always)]
pub(super) fn judge_first_fragment<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    sender: Sender,
    offset: usize,
    end: usize,
) -> Verdict {
    if end > offset + FLAGS_OFFSET {
        return judge(packet, policy, sender, offset);
    }
    // What follows `end` in the frame is padding and no part of the port.
    match packet.read::<2>(offset + 2) {
        Some(port) if end >= offset + 4 && policy.limits_syns_to(u16::from_be_bytes(port)) => {
            Verdict::Syn(sender)
        }
        _ => PASS,
    }
}
