//! IPv6 extension headers: the way through them to UDP or TCP (RFC 8200, section 4).

use zerocopy::transmute;

use super::header::Extension;
use super::{
    Family, MAX_EXTENSION_HEADERS, Policy, Sender, Source, Step, Verdict, judge_fragment, malformed, pass,
    protocol, tcp,
};
use crate::reason::Reason;

const EXTENSION_LEN: usize = size_of::<Extension>();
const _: () = assert!(EXTENSION_LEN == 4);

/// Walks the extension headers; returns the offset of the UDP header behind them.
///
/// A chain that goes beyond the packet's `end` is walked all the same: only what is at its end says
/// whether the damage is ours to drop. What stands behind too many headers is not known, and dropped:
/// passed, a datagram of clicks would evade the policy by its headers alone.
#[inline(always)]
pub(super) fn walk<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    ip: usize,
    mut next: u8,
    mut offset: usize,
    end: usize,
) -> Step<usize> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            break;
        }
        let Some(bytes) = packet.read::<EXTENSION_LEN>(offset) else {
            return malformed(cut_or(packet, offset + EXTENSION_LEN, Reason::FrameTruncated));
        };
        let extension: Extension = transmute!(bytes);
        if next == protocol::FRAGMENT && is_fragment(extension) {
            return Err(judge_v6_fragment(packet, policy, ip, extension, offset, end));
        }
        offset += extension_len(next, extension.len);
        next = extension.next;
    }
    match next {
        protocol::UDP if offset > end => malformed(Reason::ExtensionChain),
        protocol::UDP => Ok(offset),
        protocol::TCP => {
            Err(tcp::judge(packet, policy, Sender { family: Family::V6, ip_offset: ip }, offset))
        }
        _ if is_extension(next) => malformed(Reason::ExtensionChain),
        _ => pass(Reason::NotUdp),
    }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// Bytes of an extension header, by its kind and its length field.
#[inline(always)]
const fn extension_len(kind: u8, length: u8) -> usize {
    match kind {
        protocol::FRAGMENT => 8,
        protocol::AUTHENTICATION => (length as usize + 2) * 4,
        _ => (length as usize + 1) * 8,
    }
}

/// Whether a fragment header is more than an atomic fragment (RFC 6946): offset, or more to come.
#[inline(always)]
const fn is_fragment(extension: Extension) -> bool {
    extension.offset_and_more.get() & 0xfff9 != 0
}

#[inline(always)]
fn judge_v6_fragment<S: Source + ?Sized, P: Policy + ?Sized>(
    packet: &S,
    policy: &P,
    ip: usize,
    extension: Extension,
    offset: usize,
    end: usize,
) -> Verdict {
    let first = extension.offset_and_more.get() & 0xfff8 == 0;
    let next = extension.next;
    if next == protocol::TCP && first {
        let sender = Sender { family: Family::V6, ip_offset: ip };
        return tcp::judge_first_fragment(packet, policy, sender, offset + 8, end);
    }
    if next != protocol::UDP && !is_extension(next) {
        return Verdict::Pass(Reason::NotUdp);
    }
    if offset > end {
        return Verdict::Malformed(Reason::ExtensionChain);
    }
    judge_fragment(packet, policy, if first && next == protocol::UDP { Some(offset + 8) } else { None })
}

/// The reason for bytes up to `end` that cannot be read: cut by the driver, or not there.
#[inline(always)]
fn cut_or<S: Source + ?Sized>(packet: &S, end: usize, reason: Reason) -> Reason {
    if end <= packet.total_len() { Reason::LinearCut } else { reason }
}
