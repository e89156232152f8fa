//! The packet parser over any frame, with one policy, held against what it promises of its
//! verdicts. There is no second reader here: the kernel's run of the same code is held against
//! this one in `userspace/tests/xdp_parser.rs`.

use weir_common::packet::{Clicks, Cut, Family, MAX_VLAN_TAGS, Policy, Sender, Verdict, parse};
use weir_common::reason::{Class, Reason};
use weir_common::wire::{HEADER_LEN, check_header};

/// Our addresses and port; the stored frames are sent to them.
const V4: [u8; 4] = [192, 0, 2, 10];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const PORT: u16 = 8899;
/// The TCP port whose connections have a rate.
const SYN_PORT: u16 = 443;
/// Every cut of a frame's first bytes is tried; headers rarely reach further.
const CUT_MAX: usize = 160;

struct Ours {
    passes_fragments: bool,
}

impl Policy for Ours {
    fn has_v4(&self, address: [u8; 4]) -> bool {
        address == V4
    }

    fn has_v6(&self, address: [u8; 16]) -> bool {
        address == V6
    }

    fn has_port(&self, port: u16) -> bool {
        port == PORT
    }

    fn passes_fragments(&self) -> bool {
        self.passes_fragments
    }

    fn limits_syns_to(&self, port: u16) -> bool {
        port == SYN_PORT
    }
}

/// Any frame, as it is and once more sent to our address: otherwise most would end there.
pub fn packet(frame: &[u8]) {
    judge(frame);
    let mut ours = frame.to_vec();
    match ours.get(12..14) {
        Some([8, 0]) if ours.len() >= 34 => ours[30..34].copy_from_slice(&V4),
        Some([0x86, 0xdd]) if ours.len() >= 54 => ours[38..54].copy_from_slice(&V6),
        _ => return,
    }
    judge(&ours);
}

fn judge(frame: &[u8]) {
    for passes_fragments in [false, true] {
        let policy = Ours { passes_fragments };
        let whole = parse(frame, &policy);
        match whole {
            Verdict::Pass(reason) => {
                assert_eq!(reason.class(), Class::Passed);
                assert!(reason != Reason::FragmentPassed || passes_fragments);
            }
            Verdict::Malformed(reason) => {
                assert_eq!(reason.class(), Class::Malformed);
                assert!(reason != Reason::LinearCut, "nothing of this frame is cut off");
                assert!(reason != Reason::Fragment || !passes_fragments);
            }
            Verdict::Ours(clicks) => check_ours(frame, &clicks, &policy),
            Verdict::Syn(sender) => check_syn(frame, sender),
        }
        for linear_len in 0..=frame.len().min(CUT_MAX) {
            check_cut(frame, linear_len, whole, &policy);
        }
    }
}

/// What is said of a packet of ours stands in its bytes.
fn check_ours(frame: &[u8], clicks: &Clicks, policy: &Ours) {
    let tags = usize::from(clicks.vlan_tags);
    assert!(tags <= MAX_VLAN_TAGS);
    assert_eq!(clicks.ip_offset, 14 + 4 * tags);
    assert_eq!(frame[clicks.ip_offset] >> 4, clicks.family as u8);
    let source_end = clicks.source_offset() + if clicks.family == Family::V4 { 4 } else { 16 };
    // The destination follows the source in both families.
    let destination = &frame[source_end..];
    assert!(destination.starts_with(if clicks.family == Family::V4 { &V4 } else { &V6 }));

    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let ip_end = match clicks.family {
        Family::V4 => clicks.ip_offset + number(clicks.ip_offset + 2),
        Family::V6 => clicks.ip_offset + 40 + number(clicks.ip_offset + 4),
    };
    let end = clicks.payload_offset + clicks.payload_len;
    assert!(end <= ip_end, "the payload goes beyond its packet");
    assert!(ip_end <= frame.len(), "the packet goes beyond the frame");
    let payload = &frame[clicks.payload_offset..end];
    let udp_offset = clicks.payload_offset - 8;
    assert_eq!(number(udp_offset + 2), usize::from(PORT));
    assert_eq!(number(udp_offset + 4), 8 + clicks.payload_len);
    let header: &[u8; HEADER_LEN] = payload.first_chunk().expect("a header");
    assert_eq!(check_header(header, payload.len()), Ok(clicks.header));
    assert_eq!(clicks.shard().is_some(), clicks.header.shared_bits > 0);

    // What follows the packet is padding, and the clicks themselves are not looked at.
    let mut other = [frame, &[0xa5; 7]].concat();
    other[clicks.payload_offset + HEADER_LEN..].fill(0x5a);
    assert_eq!(parse(&other[..], policy), Verdict::Ours(*clicks));
}

/// What asks for a connection is TCP to our address and port, with SYN and without ACK or too short
/// to show either.
fn check_syn(frame: &[u8], sender: Sender) {
    let ip = sender.ip_offset;
    assert_eq!(frame[ip] >> 4, sender.family as u8);
    let (source_len, destination): (usize, &[u8]) = match sender.family {
        Family::V4 => (4, &V4),
        Family::V6 => (16, &V6),
    };
    assert!(frame[sender.address_offset() + source_len..].starts_with(destination));
    let port = SYN_PORT.to_be_bytes();
    if sender.family == Family::V4 {
        let tcp = ip + 4 * usize::from(frame[ip] & 15);
        assert_eq!((frame[ip + 9], &frame[tcp + 2..tcp + 4]), (6, &port[..]));
        let fragment = u16::from_be_bytes([frame[ip + 6], frame[ip + 7]]) & 0x3fff;
        assert_eq!(fragment & 0x1fff, 0, "a later fragment has no port");
        let shown = u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]);
        let hidden = fragment != 0 && ip + usize::from(shown) <= tcp + 13;
        assert!(hidden || frame[tcp + 13] & 0b1_0010 == 0b10);
    } else {
        // Where the header begins the extensions say; a port of ours must be somewhere behind them.
        assert!(frame[ip + 40..].windows(2).any(|bytes| bytes == port));
    }
}

/// A driver may leave but a part of the packet to be read in place. That never makes a packet
/// ours that is not, nor another of ours, nor puts the blame on the sender for what was cut off.
fn check_cut(frame: &[u8], linear_len: usize, whole: Verdict, policy: &Ours) {
    let cut = Cut { linear: &frame[..linear_len], total_len: frame.len() };
    let verdict = parse(&cut, policy);
    if verdict == whole {
        return;
    }
    if let Verdict::Ours(clicks) = whole {
        assert!(linear_len < clicks.payload_offset + HEADER_LEN, "all that is read could be read");
    }
    assert!(linear_len < frame.len(), "nothing is cut off");
    let allowed = match verdict {
        // Whose it is could not be read, or could and the rest not.
        Verdict::Pass(Reason::NotIp) | Verdict::Malformed(Reason::LinearCut) => true,
        // Its port or its flags could not be read.
        Verdict::Pass(Reason::NotUdp) => matches!(whole, Verdict::Syn(_)),
        // A first fragment's port could not be read, so it counts as one to us.
        Verdict::Pass(Reason::FragmentPassed) | Verdict::Malformed(Reason::Fragment) => {
            whole == Verdict::Pass(Reason::OtherPort)
        }
        _ => false,
    };
    assert!(allowed, "{verdict:?} of {linear_len} linear bytes, {whole:?} of all");
}
