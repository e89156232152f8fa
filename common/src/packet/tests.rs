//! The parser's tests on slices; `userspace/tests/xdp_parser.rs` holds it against the kernel.

use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::wire::{CLICK_LEN, Header};

/// 192.0.2.10, 2001:db8::10 and port 8899 are ours; connections to port 443 have a rate.
struct Ours;

impl Policy for Ours {
    fn has_v4(&self, address: [u8; 4]) -> bool {
        address == [192, 0, 2, 10]
    }

    fn has_v6(&self, address: [u8; 16]) -> bool {
        address == [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]
    }

    fn has_port(&self, port: u16) -> bool {
        port == 8899
    }

    fn passes_fragments(&self) -> bool {
        false
    }

    fn limits_syns_to(&self, port: u16) -> bool {
        port == 443
    }
}

fn payload() -> Vec<u8> {
    let header = Header { shared_bits: 10, shard: 700.into(), ..Header::new(1, CLICK_LEN) };
    let mut payload = header.as_bytes().to_vec();
    payload.resize(120, 0);
    payload
}

fn v4() -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 148, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 10]);
    frame.extend([0x9c, 0x40, 0x22, 0xc3, 0, 128, 0, 0]);
    frame.extend(payload());
    frame
}

#[test]
fn a_sound_packet_gives_its_places_and_its_shard() {
    let Verdict::Ours(clicks) = parse(&v4()[..], &Ours) else { panic!("it is ours") };
    assert_eq!((clicks.family, clicks.vlan_tags), (Family::V4, 0));
    assert_eq!((clicks.ip_offset, clicks.payload_offset, clicks.payload_len), (14, 42, 120));
    assert_eq!(clicks.shard(), Some(Shard(700)));
    assert_eq!(v4()[clicks.source_offset()..][..4], [198, 51, 100, 7]);
}

#[test]
fn bytes_behind_the_ip_packet_are_padding() {
    let mut frame = v4();
    frame.extend([0xff; 40]);
    assert_eq!(parse(&frame[..], &Ours), parse(&v4()[..], &Ours));
}

#[test]
fn a_udp_length_below_the_ip_length_leaves_a_surplus_area() {
    let mut frame = v4();
    frame[17] += 4;
    frame.extend([0; 4]);
    assert_eq!(parse(&frame[..], &Ours), parse(&v4()[..], &Ours));
    frame[39] += 5;
    assert_eq!(parse(&frame[..], &Ours), Verdict::Malformed(Reason::UdpLength));
}

#[test]
fn a_header_that_says_no_shard_names_none() {
    let mut frame = v4();
    frame[42 + 7..42 + 10].fill(0);
    let Verdict::Ours(clicks) = parse(&frame[..], &Ours) else { panic!("it is ours") };
    assert_eq!(clicks.shard(), None);
}

#[test]
fn a_packet_cut_at_any_byte_is_never_taken_and_never_read_beyond() {
    let frame = v4();
    for len in 0..frame.len() {
        let verdict = parse(&frame[..len], &Ours);
        // Up to the address it could be anybody's; from there on its lengths do not add up.
        let reason = if len < 34 { Reason::NotIp } else { Reason::IpLength };
        assert_eq!(verdict.reason(), Some(reason), "{len} bytes");
    }
}

#[test]
fn a_linear_part_that_ends_early_is_told_from_a_short_packet() {
    let frame = v4();
    for len in 34..frame.len() {
        let cut = Cut { linear: &frame[..len], total_len: frame.len() };
        let cut = parse(&cut, &Ours);
        if len < 42 + wire::HEADER_LEN {
            assert_eq!(cut, Verdict::Malformed(Reason::LinearCut), "{len} bytes");
        } else {
            assert_eq!(cut, parse(&frame[..], &Ours), "{len} bytes");
        }
    }
}

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const PSH: u8 = 1 << 3;
const ACK: u8 = 1 << 4;
const ECE: u8 = 1 << 6;
const CWR: u8 = 1 << 7;

/// A TCP segment to port 443 without data.
fn segment(flags: u8) -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 10]);
    frame.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

/// The same over IPv6, behind destination options and a fragment header with this offset field.
fn segment_v6(flags: u8, offset_and_more: u8) -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 36, 60, 64]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    frame.extend([44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, offset_and_more, 0, 0, 0, 0]);
    frame.extend(&segment(flags)[34..]);
    frame
}

const V4_SENDER: Verdict = Verdict::Syn(Sender { family: Family::V4, ip_offset: 14 });
const V6_SENDER: Verdict = Verdict::Syn(Sender { family: Family::V6, ip_offset: 14 });
const PASSED: Verdict = Verdict::Pass(Reason::NotUdp);

#[test]
fn what_has_syn_without_ack_asks_for_a_connection_whatever_else_it_has_and_nothing_else_does() {
    for flags in 0..=u8::MAX {
        let asks = flags & SYN != 0 && flags & ACK == 0;
        assert_eq!(parse(&segment(flags)[..], &Ours), if asks { V4_SENDER } else { PASSED }, "{flags:#b}");
        assert_eq!(parse(&segment_v6(flags, 0)[..], &Ours), if asks { V6_SENDER } else { PASSED });
    }
    for asks in [SYN, SYN | ECE | CWR, SYN | FIN, SYN | RST, SYN | PSH] {
        assert_eq!(parse(&segment(asks)[..], &Ours), V4_SENDER);
    }
    assert_eq!(V4_SENDER.reason(), None);
}

#[test]
fn the_source_of_a_syn_is_found_behind_tags() {
    let mut frame = segment(SYN);
    frame.splice(12..12, [0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]);
    let Verdict::Syn(sender) = parse(&frame[..], &Ours) else { panic!("it asks for a connection") };
    assert_eq!(frame[sender.address_offset()..][..4], [198, 51, 100, 7]);
    let frame = segment_v6(SYN, 0);
    let Verdict::Syn(sender) = parse(&frame[..], &Ours) else { panic!("it asks for a connection") };
    assert_eq!(frame[sender.address_offset()..][..8], [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0]);
}

#[test]
fn a_syn_to_another_port_or_address_passes() {
    let mut other_port = segment(SYN);
    other_port[37] += 1;
    assert_eq!(parse(&other_port[..], &Ours), PASSED);
    let mut other_address = segment(SYN);
    other_address[33] += 1;
    assert_eq!(parse(&other_address[..], &Ours), Verdict::Pass(Reason::OtherAddress));
    // The port of the clicks is a UDP port.
    let mut click_port = segment(SYN);
    click_port[36..38].copy_from_slice(&8899_u16.to_be_bytes());
    assert_eq!(parse(&click_port[..], &Ours), PASSED);
}

#[test]
fn a_first_fragment_shows_its_flags_or_counts_as_a_syn_and_later_ones_pass() {
    let mut first = segment(SYN);
    first[20] = 0x20;
    assert_eq!(parse(&first[..], &Ours), V4_SENDER);
    first[47] = ACK;
    assert_eq!(parse(&first[..], &Ours), PASSED);
    // Eight bytes of TCP and padding that looks like flags; port 443 is in it, so it is judged.
    first[17] = 28;
    assert_eq!(parse(&first[..], &Ours), V4_SENDER);
    first[37] += 1;
    assert_eq!(parse(&first[..], &Ours), PASSED);
    // Too short for a port: nothing says that it is for 443.
    let mut portless = segment(SYN);
    (portless[17], portless[20]) = (23, 0x20);
    assert_eq!(parse(&portless[..], &Ours), PASSED);
    let mut later = segment(SYN);
    later[21] = 1;
    assert_eq!(parse(&later[..], &Ours), PASSED);
    assert_eq!(parse(&segment_v6(SYN, 1)[..], &Ours), V6_SENDER);
    assert_eq!(parse(&segment_v6(ACK, 1)[..], &Ours), PASSED);
    let mut short = segment_v6(ACK, 1);
    short[19] = 24;
    assert_eq!(parse(&short[..], &Ours), V6_SENDER);
    assert_eq!(parse(&segment_v6(SYN, 8)[..], &Ours), PASSED);
}

#[test]
fn a_segment_whose_flags_cannot_be_read_passes() {
    for frame in [segment(SYN), segment_v6(SYN, 0)] {
        let flags = frame.len() - 7;
        assert_eq!(frame[flags], SYN);
        for len in frame.len() - 19..=frame.len() {
            let cut = Cut { linear: &frame[..len], total_len: frame.len() };
            let asks = len > flags;
            for verdict in [parse(&cut, &Ours), parse(&frame[..len], &Ours)] {
                assert_eq!(matches!(verdict, Verdict::Syn(_)), asks, "{len} bytes");
                assert!(asks || verdict == PASSED);
            }
        }
    }
}

/// A packet over IPv6 to us with this protocol behind `headers` destination options.
fn behind_options(headers: usize, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = segment_v6(0, 0);
    frame.truncate(54);
    for number in 1..=headers {
        frame.extend([if number < headers { 60 } else { protocol }, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame.extend(payload);
    frame[18..20].copy_from_slice(&((8 * headers + payload.len()) as u16).to_be_bytes());
    frame
}

#[test]
fn a_chain_of_extensions_beyond_its_packet_is_ours_to_drop_only_if_it_leads_to_udp() {
    let tcp = segment(SYN)[34..].to_vec();
    let answer = [&tcp[..13], &[SYN | ACK], &tcp[14..]].concat();
    for headers in 1..=MAX_EXTENSION_HEADERS {
        let wrong_length = |protocol, payload| {
            let mut frame = behind_options(headers, protocol, payload);
            frame[18..20].copy_from_slice(&7_u16.to_be_bytes());
            parse(&frame[..], &Ours)
        };
        assert_eq!(wrong_length(protocol::TCP, &answer), PASSED);
        assert_eq!(wrong_length(protocol::TCP, &tcp), V6_SENDER);
        // ICMPv6.
        assert_eq!(wrong_length(58, &[128, 0, 0, 0]), PASSED);
        assert_eq!(wrong_length(protocol::UDP, &v4()[34..]), Verdict::Malformed(Reason::ExtensionChain));
    }
}

#[test]
fn a_fragment_beyond_its_packet_is_ours_to_drop_only_if_it_may_be_udp() {
    for offset_and_more in [1, 8] {
        let mut frame = segment_v6(SYN, offset_and_more);
        frame[19] = 7;
        assert_eq!(parse(&frame[..], &Ours), PASSED);
        for next in [protocol::UDP, protocol::DESTINATION] {
            frame[62] = next;
            assert_eq!(parse(&frame[..], &Ours), Verdict::Malformed(Reason::ExtensionChain));
        }
    }
}

#[test]
fn what_stands_behind_more_headers_than_there_are_kinds_is_dropped_whatever_it_is() {
    for protocol in [protocol::TCP, protocol::UDP, 58] {
        let frame = behind_options(MAX_EXTENSION_HEADERS + 1, protocol, &segment(ACK)[34..]);
        assert_eq!(parse(&frame[..], &Ours), Verdict::Malformed(Reason::ExtensionChain));
    }
}

proptest! {
    #[test]
    fn any_bytes_come_to_a_verdict_of_the_right_class(mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..5) {
        // Mostly something that looks like IP to us, so that the deeper steps are reached.
        let start: &[u8] = match kind {
            0 => &[],
            1 => &[8, 0, 0x45],
            2 => &[0x86, 0xdd, 0x60],
            3 => &[0x81, 0, 0, 1, 8, 0, 0x46],
            // A plain segment to us; what follows its address is any.
            _ => &[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 10],
        };
        if frame.len() > 12 + start.len() {
            frame[12..12 + start.len()].copy_from_slice(start);
        }
        use crate::reason::Class;
        match parse(&frame[..], &Ours) {
            Verdict::Pass(reason) => prop_assert_eq!(reason.class(), Class::Passed),
            Verdict::Malformed(reason) => prop_assert_eq!(reason.class(), Class::Malformed),
            Verdict::Ours(clicks) => prop_assert!(clicks.payload_offset + clicks.payload_len <= frame.len()),
            Verdict::Syn(sender) => prop_assert!(sender.address_offset() + 8 <= frame.len()),
        }
    }
}
