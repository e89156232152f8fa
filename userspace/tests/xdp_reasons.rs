//! One packet for each reason the XDP program knows: its action and its counter.

mod xdp_lab;

use weir::steer::{Fragments, Object, Policy, Switches, SynRate};
use weir_common::packet::{self, Cut};
use weir_common::reason::{Class, Reason};
use xdp_lab::*;

/// Runs `frame` and holds that it met `action` and counted `reason` once, and nothing else.
#[track_caller]
fn check(object: &Object, frame: &[u8], action: u32, reason: Reason) {
    let before = counted(object);
    let (found, _) = run(object, frame);
    let after = counted(object);
    let grown: Vec<_> =
        after.iter().filter(|count| !before.contains(count)).map(|(reason, _)| *reason).collect();
    assert_eq!(grown, [reason]);
    assert_eq!(found, action, "action for {reason:?}");
}

/// A built packet with some of its bytes changed.
fn changed(packet: &Packet, change: impl FnOnce(&mut Vec<u8>, Offsets)) -> Vec<u8> {
    let (mut frame, offsets) = packet.build();
    change(&mut frame, offsets);
    frame
}

#[test]
fn what_is_not_ours_goes_to_the_kernel_under_its_reason() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let arp = changed(&Packet::v4(), |frame, _| frame[12..14].copy_from_slice(&[8, 6]));
    check(&object, &arp, XDP_PASS, Reason::NotIp);
    check(&object, &Packet::v4().bytes()[..33], XDP_PASS, Reason::NotIp);
    let wrong_version = changed(&Packet::v4(), |frame, at| frame[at.ip] = 0x65);
    check(&object, &wrong_version, XDP_PASS, Reason::NotIp);
    check(&object, &Packet { protocol: 6, ..Packet::v4() }.bytes(), XDP_PASS, Reason::NotUdp);
    check(&object, &Packet { protocol: 58, ..Packet::v6() }.bytes(), XDP_PASS, Reason::NotUdp);
    let other = Packet { destination: "192.0.2.11".parse().unwrap(), ..Packet::v4() };
    check(&object, &other.bytes(), XDP_PASS, Reason::OtherAddress);
    let other = Packet { destination: "2001:db8::11".parse().unwrap(), ..Packet::v6() };
    check(&object, &other.bytes(), XDP_PASS, Reason::OtherAddress);
    check(&object, &Packet { port: 53, ..Packet::v4() }.bytes(), XDP_PASS, Reason::OtherPort);
    check(&object, &Packet { port: 53, ..Packet::v6() }.bytes(), XDP_PASS, Reason::OtherPort);
    let deep = Packet { vlan_tags: vec![VLAN; 5], ..Packet::v4() };
    check(&object, &deep.bytes(), XDP_PASS, Reason::VlanTooDeep);
}

#[test]
fn what_asks_the_door_for_a_connection_is_counted_and_all_other_tcp_is_not_looked_at() {
    let syn_rate = Some(SynRate { syns_per_s: 1_000_000, burst: 1000, new_sources_per_s: 1000 });
    let limited = Policy { syn_rate, syn_ports: vec![DOOR_PORT], ..policy() };
    let Some(object) = load(Switches::default(), &limited) else { return };
    for flags in [SYN, SYN | 0xc0, SYN | FIN, SYN | RST] {
        check(&object, &Packet::tcp(flags).bytes(), XDP_PASS, Reason::SynPassed);
        check(&object, &Packet::tcp_v6(flags).bytes(), XDP_PASS, Reason::SynPassed);
    }
    for flags in [0, ACK, SYN | ACK, FIN | ACK, RST] {
        check(&object, &Packet::tcp(flags).bytes(), XDP_PASS, Reason::NotUdp);
        check(&object, &Packet::tcp_v6(flags).bytes(), XDP_PASS, Reason::NotUdp);
    }
    let other = Packet { port: 22, ..Packet::tcp(SYN) };
    check(&object, &other.bytes(), XDP_PASS, Reason::NotUdp);
    let damaged = changed(&Packet::tcp(ACK), |frame, at| frame[at.ip + 2] = 0xff);
    check(&object, &damaged, XDP_PASS, Reason::NotUdp);
    // A packet that its IPv6 header ends within the extension headers.
    let chain = vec![extension(0, 2), extension(43, 1), extension(60, 3)];
    let damaged = Packet { extensions: chain, ..Packet::tcp_v6(ACK) };
    let damaged = changed(&damaged, |frame, at| frame[at.ip + 5] = 7);
    check(&object, &damaged, XDP_PASS, Reason::NotUdp);
    let later_fragment = changed(&Packet::tcp(SYN), |frame, at| frame[at.ip + 7] = 1);
    check(&object, &later_fragment, XDP_PASS, Reason::NotUdp);
    // Without a rate a SYN is TCP like any other.
    let Some(object) = load(Switches::default(), &policy()) else { return };
    check(&object, &Packet::tcp(SYN).bytes(), XDP_PASS, Reason::NotUdp);
}

#[test]
fn damaged_packets_of_others_are_not_ours_to_drop() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let other = Packet { destination: "192.0.2.11".parse().unwrap(), ..Packet::v4() };
    let short_header = changed(&other, |frame, at| frame[at.ip] = 0x44);
    check(&object, &short_header, XDP_PASS, Reason::OtherAddress);
    let wrong_udp_len = changed(&Packet { port: 53, ..Packet::v4() }, |frame, at| frame[at.udp + 5] = 1);
    check(&object, &wrong_udp_len, XDP_PASS, Reason::OtherPort);
    let first_fragment = changed(&Packet { port: 53, ..Packet::v4() }, |frame, at| frame[at.ip + 6] = 0x20);
    check(&object, &first_fragment, XDP_PASS, Reason::OtherPort);
}

#[test]
fn damaged_packets_of_ours_are_dropped_under_their_reason() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let options = Packet { options_len: 40, ..Packet::v4() };
    check(&object, &options.bytes()[..60], XDP_DROP, Reason::FrameTruncated);
    check(&object, &changed(&Packet::v4(), |f, at| f[at.ip] = 0x44), XDP_DROP, Reason::IpHeaderLength);
    check(&object, &changed(&Packet::v4(), |f, at| f[at.ip + 2] = 0xff), XDP_DROP, Reason::IpLength);
    check(&object, &changed(&Packet::v6(), |f, at| f[at.ip + 4] = 0xff), XDP_DROP, Reason::IpLength);
    check(&object, &changed(&Packet::v4(), |f, at| f[at.ip + 6] = 0x20), XDP_DROP, Reason::Fragment);
    check(&object, &changed(&Packet::v4(), |f, at| f[at.ip + 7] = 1), XDP_DROP, Reason::Fragment);
    let later_fragment = Packet { extensions: vec![fragment(0x0008)], ..Packet::v6() };
    check(&object, &later_fragment.bytes(), XDP_DROP, Reason::Fragment);
    let long_chain = Packet { extensions: vec![extension(60, 1); 7], ..Packet::v6() };
    check(&object, &long_chain.bytes(), XDP_DROP, Reason::ExtensionChain);
    let chain_beyond_its_packet = Packet { extensions: vec![extension(60, 2)], ..Packet::v6() };
    let chain_beyond_its_packet = changed(&chain_beyond_its_packet, |f, at| f[at.ip + 5] = 7);
    check(&object, &chain_beyond_its_packet, XDP_DROP, Reason::ExtensionChain);
    check(&object, &changed(&Packet::v4(), |f, at| f[at.udp + 5] = 7), XDP_DROP, Reason::UdpLength);
    check(&object, &changed(&Packet::v6(), |f, at| f[at.udp + 4] = 9), XDP_DROP, Reason::UdpLength);
}

#[test]
fn unsound_click_headers_are_dropped_under_their_reason() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let short = Packet { payload: vec![b'W'; 23], ..Packet::v4() };
    check(&object, &short.bytes(), XDP_DROP, Reason::HeaderShort);
    let cases = [
        (0, b'w', Reason::BadMagic),
        (4, 2, Reason::BadVersion),
        (5, 1, Reason::BadFlags),
        (6, 0, Reason::BadCount),
        (6, 2, Reason::BadCount),
        (7, 11, Reason::BadShard),
        (9, 4, Reason::BadShard),
        (10, 0, Reason::BadLength),
    ];
    for packet in [Packet::v4(), Packet::v6()] {
        for (offset, byte, reason) in cases {
            check(&object, &changed(&packet, |f, at| f[at.payload + offset] = byte), XDP_DROP, reason);
        }
    }
}

#[test]
fn a_click_header_behind_the_linear_part_is_dropped_as_cut() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let (frame, at) = Packet::v4().build();
    let linear = at.payload + 8;
    match run_cut(&object, &frame, linear) {
        Ok(action) => assert_eq!(action, XDP_DROP),
        Err(error) => return eprintln!("SKIPPED: this kernel cannot cut test packets: {error}"),
    }
    assert_eq!(counted(&object), [(Reason::LinearCut, 1)]);
    let cut = Cut { linear: &frame[..linear], total_len: frame.len() };
    let compiled = policy().compile(0);
    assert_eq!(packet::parse(&cut, &*compiled).reason(), Some(Reason::LinearCut));
}

#[test]
fn sound_datagrams_are_delivered_whatever_stands_before_them() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let sound = [
        Packet::v4(),
        Packet::v6(),
        Packet { vlan_tags: vec![PROVIDER_VLAN, VLAN, VLAN, VLAN], ..Packet::v4() },
        Packet { vlan_tags: vec![VLAN], ..Packet::v6() },
        Packet { options_len: 40, ..Packet::v4() },
        Packet { pad_to: 400, ..Packet::v4() },
        Packet {
            extensions: vec![
                extension(0, 2),
                extension(43, 1),
                authentication(6),
                fragment(0),
                extension(60, 3),
            ],
            ..Packet::v6()
        },
    ];
    for packet in &sound {
        check(&object, &packet.bytes(), XDP_PASS, Reason::Local);
    }
}

#[test]
fn fragments_pass_where_the_policy_says_so() {
    let mut policy = policy();
    policy.fragments = Fragments::Pass;
    let Some(object) = load(Switches::default(), &policy) else { return };
    check(&object, &changed(&Packet::v4(), |f, at| f[at.ip + 7] = 1), XDP_PASS, Reason::FragmentPassed);
}

#[test]
fn in_shadow_mode_a_drop_is_counted_under_both_reasons_and_passed() {
    let mut policy = policy();
    policy.enforce = false;
    let Some(object) = load(Switches::default(), &policy) else { return };
    let bad = changed(&Packet::v4(), |f, at| f[at.payload] = 0);
    assert_eq!(run(&object, &bad).0, XDP_PASS);
    assert_eq!(counted(&object), [(Reason::Shadowed, 1), (Reason::BadMagic, 1)]);
}

#[test]
fn each_reason_of_a_frame_is_counted_in_packets_and_bytes() {
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let frame = Packet::v4().bytes();
    for _ in 0..3 {
        run(&object, &frame);
    }
    let frames = object.frames().unwrap();
    let local = frames.iter().find(|count| count.reason == Reason::Local).unwrap();
    assert_eq!((local.packets, local.bytes), (3, 3 * frame.len() as u64));
    assert!(frames.iter().all(|count| count.reason.class() != Class::Filtered));
}
