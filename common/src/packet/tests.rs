//! The parser's tests on slices; `userspace/tests/xdp_parser.rs` holds it against the kernel.

use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::wire::{CLICK_LEN, Header};

/// 192.0.2.10, 2001:db8::10 and port 8899 are ours.
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

proptest! {
    #[test]
    fn any_bytes_come_to_a_verdict_of_the_right_class(mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4) {
        // Mostly something that looks like IP to us, so that the deeper steps are reached.
        let start: &[u8] = match kind {
            0 => &[],
            1 => &[8, 0, 0x45],
            2 => &[0x86, 0xdd, 0x60],
            _ => &[0x81, 0, 0, 1, 8, 0, 0x46],
        };
        if frame.len() > 12 + start.len() {
            frame[12..12 + start.len()].copy_from_slice(start);
        }
        use crate::reason::Class;
        match parse(&frame[..], &Ours) {
            Verdict::Pass(reason) => prop_assert_eq!(reason.class(), Class::Passed),
            Verdict::Malformed(reason) => prop_assert_eq!(reason.class(), Class::Malformed),
            Verdict::Ours(clicks) => prop_assert!(clicks.payload_offset + clicks.payload_len <= frame.len()),
        }
    }
}
