//! What the XDP program refuses and rewrites beyond the parse: prefixes, rates, tags, VLAN tags.

mod xdp_lab;

use weir::steer::{Object, Policy, Prefix, Rate, Switches, SynRate};
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::wire::{self, Click, click_flags};
use xdp_lab::*;
use zerocopy::FromBytes;

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn from(source: &str) -> Vec<u8> {
    let source: std::net::IpAddr = source.parse().unwrap();
    let packet = if source.is_ipv4() { Packet::v4() } else { Packet::v6() };
    Packet { source, ..packet }.bytes()
}

/// Runs a frame; returns its action and how many packets `reason` counted by it.
fn run_counting(object: &Object, frame: &[u8], reason: Reason) -> (u32, u64) {
    let before = packets(object, reason);
    let (action, _) = run(object, frame);
    (action, packets(object, reason) - before)
}

#[track_caller]
fn is_denied(object: &Object, source: &str) -> bool {
    match run_counting(object, &from(source), Reason::DeniedSource) {
        (XDP_DROP, 1) => true,
        (XDP_PASS, 0) => false,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn the_longest_prefix_decides_between_deny_and_allow() {
    let deny = prefixes(&["203.0.113.0/24", "10.0.0.0/8", "2001:db8:bad::/48", "2a00::/12"]);
    let allow = prefixes(&["203.0.113.7/32", "2001:db8:bad:7::/64"]);
    let Some(object) = load(Switches::default(), &Policy { deny, allow, ..policy() }) else { return };
    let denied = ["203.0.113.0", "203.0.113.255", "10.0.0.0", "10.200.3.4", "10.255.255.255"];
    let denied_v6 = ["2001:db8:bad::1", "2001:db8:bad:8::1", "2a00::1", "2a0f:ffff::1"];
    for source in denied.iter().chain(&denied_v6) {
        assert!(is_denied(&object, source), "{source}");
    }
    let others = ["203.0.113.7", "203.0.112.1", "203.0.114.0", "9.255.255.255", "11.0.0.0"];
    let others_v6 = ["2001:db8:bad:7::1", "2001:db8:bae::1", "2a10::1", "29ff::1"];
    for source in others.iter().chain(&others_v6) {
        assert!(!is_denied(&object, source), "{source}");
    }
}

#[test]
fn a_denied_everything_reaches_every_bucket_of_the_pre_test() {
    let deny = prefixes(&["0.0.0.0/0", "::/0"]);
    let Some(object) = load(Switches::default(), &Policy { deny, ..policy() }) else { return };
    for source in ["0.0.0.1", "127.0.0.1", "255.255.255.254", "::1", "ffff::1", "2001:db8::1"] {
        assert!(is_denied(&object, source), "{source}");
    }
}

#[test]
fn a_swapped_policy_replaces_prefixes_addresses_and_ports() {
    let deny = prefixes(&["198.51.100.7/32"]);
    let Some(mut object) = load(Switches::default(), &Policy { deny, ..policy() }) else { return };
    let frame = Packet::v4().bytes();
    for _ in 0..4 {
        assert_eq!(run(&object, &frame).0, XDP_DROP);
        object.set_policy(&policy()).unwrap();
        assert_eq!(run_counting(&object, &frame, Reason::Local), (XDP_PASS, 1));
        object.set_policy(&Policy::new(vec![OUR_V6.into()], vec![OUR_PORT])).unwrap();
        assert_eq!(run_counting(&object, &frame, Reason::OtherAddress), (XDP_PASS, 1));
        object.set_policy(&Policy::new(vec![OUR_V4.into()], vec![OUR_PORT + 1])).unwrap();
        assert_eq!(run_counting(&object, &frame, Reason::OtherPort), (XDP_PASS, 1));
        let deny = prefixes(&["198.51.100.0/24"]);
        object.set_policy(&Policy { deny, ..policy() }).unwrap();
    }
}

/// One packet a second, so that no second token comes while a test runs.
fn limited(burst: u32, new_sources_per_s: u32) -> Policy {
    // A bucket that holds a day: what ticks away during the test does not fill it.
    Policy { rate: Some(Rate { packets_per_s: 1, burst, new_sources_per_s }), ..policy() }
}

/// Rates are kept for each CPU apart, so a test of them stays on one.
fn stay_on_one_cpu() {
    assert!(core_affinity::set_for_current(core_affinity::get_core_ids().unwrap()[0]));
}

#[test]
fn a_source_is_limited_after_its_burst_and_others_are_not() {
    stay_on_one_cpu();
    let Some(object) = load(Switches::default(), &limited(100, 1000)) else { return };
    let mut passed = 0;
    for _ in 0..300 {
        let (action, limited) = run_counting(&object, &from("198.51.100.7"), Reason::RateLimited);
        assert_eq!(limited, u64::from(action == XDP_DROP));
        passed += u32::from(action == XDP_PASS);
    }
    // The burst, and a token for each second a loaded machine may take.
    assert!((100..110).contains(&passed), "{passed} packets passed");
    assert_eq!(run(&object, &from("198.51.100.8")).0, XDP_PASS);
}

#[test]
fn the_hosts_of_one_ipv6_network_share_a_rate() {
    stay_on_one_cpu();
    let Some(object) = load(Switches::default(), &limited(1, 1000)) else { return };
    assert_eq!(run(&object, &from("2001:db8:1::1")).0, XDP_PASS);
    assert_eq!(run_counting(&object, &from("2001:db8:1::2"), Reason::RateLimited), (XDP_DROP, 1));
    assert_eq!(run(&object, &from("2001:db8:1:1::1")).0, XDP_PASS);
}

#[test]
fn an_allowed_source_is_not_limited() {
    stay_on_one_cpu();
    let allow = prefixes(&["198.51.100.0/24"]);
    let Some(object) = load(Switches::default(), &Policy { allow, ..limited(1, 1000) }) else { return };
    for _ in 0..20 {
        assert_eq!(run(&object, &from("198.51.100.7")).0, XDP_PASS);
    }
    assert_eq!(packets(&object, Reason::RateLimited), 0);
}

#[test]
fn in_a_flood_of_new_sources_no_more_are_remembered_and_known_ones_stay_limited() {
    stay_on_one_cpu();
    const REMEMBERED: u32 = 50;
    let Some(object) = load(Switches::default(), &limited(1, REMEMBERED)) else { return };
    let known = from("198.51.100.7");
    assert_eq!(run(&object, &known).0, XDP_PASS);
    for source in 0..2000 {
        let source = format!("203.0.{}.{}", source / 256, source % 256);
        assert_eq!(run(&object, &from(&source)).0, XDP_PASS);
    }
    let bypassed = packets(&object, Reason::FloodBypass);
    // All but what each begun second remembers.
    assert!(
        (2001 - 5 * u64::from(REMEMBERED)..=2001 - u64::from(REMEMBERED)).contains(&bypassed),
        "{bypassed}"
    );
    assert_eq!(run_counting(&object, &known, Reason::RateLimited), (XDP_DROP, 1));
    assert_eq!(packets(&object, Reason::Local), 2001);
}

/// As [`limited`], of connections to the door.
fn limited_syns(burst: u32, new_sources_per_s: u32) -> Policy {
    let syn_rate = Some(SynRate { syns_per_s: 1, burst, new_sources_per_s });
    Policy { syn_rate, syn_ports: vec![80, DOOR_PORT], ..policy() }
}

fn syn_from(source: &str) -> Vec<u8> {
    let source: std::net::IpAddr = source.parse().unwrap();
    let packet = if source.is_ipv4() { Packet::tcp(SYN) } else { Packet::tcp_v6(SYN) };
    Packet { source, ..packet }.bytes()
}

#[test]
fn a_source_asks_for_its_burst_of_connections_and_is_dropped_then_and_others_are_not() {
    let Some(object) = load(Switches::default(), &limited_syns(100, 1000)) else { return };
    let mut passed = 0;
    for _ in 0..300 {
        let (action, limited) = run_counting(&object, &syn_from("198.51.100.7"), Reason::SynRateLimited);
        assert_eq!(limited, u64::from(action == XDP_DROP));
        passed += u64::from(action == XDP_PASS);
    }
    // The burst, and a token for each second a loaded machine may take.
    assert!((100..110).contains(&passed), "{passed} packets passed");
    assert_eq!(packets(&object, Reason::SynPassed), passed);
    assert_eq!(run(&object, &syn_from("198.51.100.8")).0, XDP_PASS);
}

#[test]
fn the_rest_of_tcp_and_the_datagrams_of_a_limited_source_pass() {
    let Some(object) = load(Switches::default(), &limited_syns(1, 1000)) else { return };
    assert_eq!(run(&object, &Packet::tcp(SYN).bytes()).0, XDP_PASS);
    assert_eq!(run_counting(&object, &Packet::tcp(SYN).bytes(), Reason::SynRateLimited), (XDP_DROP, 1));
    for flags in (0..=u8::MAX).filter(|flags| flags & (SYN | ACK) != SYN) {
        let segment = Packet { payload: vec![0; 100], ..Packet::tcp(flags) };
        assert_eq!(run(&object, &segment.bytes()).0, XDP_PASS, "flags {flags:#b}");
    }
    assert_eq!(run(&object, &Packet { port: 22, ..Packet::tcp(SYN) }.bytes()).0, XDP_PASS);
    assert_eq!(run_counting(&object, &Packet::v4().bytes(), Reason::Local), (XDP_PASS, 1));
    assert_eq!(packets(&object, Reason::SynRateLimited), 1);
}

#[test]
fn a_syn_is_charged_to_its_source_whatever_stands_before_it_and_whichever_port_it_is_for() {
    let shapes = [
        Packet::tcp(SYN),
        Packet { port: 80, ..Packet::tcp(SYN) },
        Packet { options_len: 40, ..Packet::tcp(SYN) },
        Packet { vlan_tags: vec![PROVIDER_VLAN, VLAN], ..Packet::tcp(SYN | FIN) },
        Packet { payload: vec![1; 300], ..Packet::tcp(SYN) },
    ];
    let shapes_v6 = [
        Packet::tcp_v6(SYN),
        Packet { vlan_tags: vec![VLAN; 4], ..Packet::tcp_v6(SYN) },
        Packet {
            extensions: vec![extension(0, 2), authentication(6), extension(60, 3)],
            ..Packet::tcp_v6(SYN)
        },
        Packet { extensions: vec![fragment(1)], ..Packet::tcp_v6(SYN) },
        Packet { port: 80, ..Packet::tcp_v6(SYN) },
    ];
    for shapes in [shapes, shapes_v6] {
        // Each takes one token of the same source, so each is the first that finds none.
        for last in 0..shapes.len() {
            let Some(object) = load(Switches::default(), &limited_syns(4, 1000)) else { return };
            let others = shapes.iter().enumerate().filter(|(index, _)| *index != last);
            for (_, packet) in others {
                assert_eq!(run_counting(&object, &packet.bytes(), Reason::SynPassed), (XDP_PASS, 1));
            }
            let found = run_counting(&object, &shapes[last].bytes(), Reason::SynRateLimited);
            assert_eq!(found, (XDP_DROP, 1), "{:?}", shapes[last]);
        }
    }
}

#[test]
fn the_hosts_of_one_ipv6_network_share_a_rate_of_connections() {
    let Some(object) = load(Switches::default(), &limited_syns(1, 1000)) else { return };
    assert_eq!(run(&object, &syn_from("2001:db8:1::1")).0, XDP_PASS);
    assert_eq!(run(&object, &syn_from("2001:db8:1::2")).0, XDP_DROP);
    assert_eq!(run(&object, &syn_from("2001:db8:1:1::1")).0, XDP_PASS);
}

#[test]
fn an_allowed_source_asks_for_any_number_of_connections_and_a_denied_one_for_its_rate() {
    let allow = prefixes(&["198.51.100.0/24"]);
    let deny = prefixes(&["203.0.113.0/24"]);
    let policy = Policy { allow, deny, ..limited_syns(1, 1000) };
    let Some(object) = load(Switches::default(), &policy) else { return };
    for _ in 0..20 {
        assert_eq!(run(&object, &syn_from("198.51.100.7")).0, XDP_PASS);
    }
    assert_eq!(run(&object, &syn_from("203.0.113.1")).0, XDP_PASS);
    assert_eq!(run_counting(&object, &syn_from("203.0.113.1"), Reason::SynRateLimited), (XDP_DROP, 1));
}

#[test]
fn in_shadow_mode_a_syn_above_the_rate_is_counted_and_passed() {
    let policy = Policy { enforce: false, ..limited_syns(1, 1000) };
    let Some(object) = load(Switches::default(), &policy) else { return };
    assert_eq!(run(&object, &Packet::tcp(SYN).bytes()).0, XDP_PASS);
    assert_eq!(run_counting(&object, &Packet::tcp(SYN).bytes(), Reason::Shadowed), (XDP_PASS, 1));
    assert_eq!(packets(&object, Reason::SynRateLimited), 1);
}

/// The connections of a source are spread over all CPUs, which must not multiply its rate.
#[test]
fn a_source_has_one_rate_of_connections_over_all_cpus_to_the_unit() {
    const BURST: u32 = 500_000;
    const ASKED: u32 = 1_000_000;
    let cores = core_affinity::get_core_ids().unwrap();
    if cores.len() < 2 {
        return eprintln!("SKIPPED: this needs two CPUs");
    }
    let Some(object) = load(Switches::default(), &limited_syns(BURST, 1000)) else { return };
    let started = std::time::Instant::now();
    let at_once = std::sync::Barrier::new(cores.len());
    std::thread::scope(|scope| {
        for &core in &cores {
            let (object, at_once) = (&object, &at_once);
            scope.spawn(move || {
                assert!(core_affinity::set_for_current(core));
                let frame = Packet::tcp(SYN).bytes();
                at_once.wait();
                run_often(object, &frame, ASKED);
            });
        }
    });
    let (passed, dropped) = (packets(&object, Reason::SynPassed), packets(&object, Reason::SynRateLimited));
    assert_eq!(passed + dropped, u64::from(ASKED) * cores.len() as u64);
    let seconds = started.elapsed().as_secs() + 1;
    assert!((u64::from(BURST)..=u64::from(BURST) + seconds).contains(&passed), "{passed} passed");
}

#[test]
fn a_flood_of_new_sources_of_connections_leaves_the_buckets_of_datagrams_alone() {
    stay_on_one_cpu();
    const REMEMBERED: u32 = 50;
    let policy = Policy { rate: limited(1, 1000).rate, ..limited_syns(1, REMEMBERED) };
    let Some(object) = load(Switches::default(), &policy) else { return };
    let known = "198.51.100.7";
    assert_eq!((run(&object, &from(known)).0, run(&object, &syn_from(known)).0), (XDP_PASS, XDP_PASS));
    for source in 0..2000 {
        let source = format!("203.0.{}.{}", source / 256, source % 256);
        assert_eq!(run(&object, &syn_from(&source)).0, XDP_PASS);
    }
    let bypassed = packets(&object, Reason::FloodBypass);
    // All but what each begun second remembers.
    assert!(
        (2001 - 5 * u64::from(REMEMBERED)..=2001 - u64::from(REMEMBERED)).contains(&bypassed),
        "{bypassed}"
    );
    assert_eq!(packets(&object, Reason::SynPassed), 2001);
    // Known sources stay limited, and a new one's datagrams are remembered still.
    assert_eq!((run(&object, &from(known)).0, run(&object, &syn_from(known)).0), (XDP_DROP, XDP_DROP));
    assert_eq!(
        (run(&object, &from("192.0.2.77")).0, run(&object, &from("192.0.2.77")).0),
        (XDP_PASS, XDP_DROP)
    );
}

const VERIFY: Switches = Switches { verify_first: true, strip_vlan: false };
const SIGNING_KEY: SipKey = SipKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };

/// A datagram whose first click was changed after it was signed.
fn signed(packet: &Packet, change: impl FnOnce(&mut Click)) -> Vec<u8> {
    let mut payload = clicks(3, 0, 0);
    let (click, _) = Click::mut_from_prefix(&mut payload[wire::HEADER_LEN..]).unwrap();
    click.ad = 77.into();
    click.tag = click.expected_tag(&SIGNING_KEY).into();
    change(click);
    Packet { payload, ..packet.clone() }.bytes()
}

#[test]
fn a_first_click_must_carry_the_tag_of_a_known_key() {
    let Some(mut object) = load(VERIFY, &policy()) else { return };
    let v4 = Packet::v4();
    assert_eq!(run_counting(&object, &signed(&v4, |_| ()), Reason::UnknownKey), (XDP_DROP, 1));
    object.set_keys(&[(ISSUER, KEY, SIGNING_KEY)]).unwrap();
    let tagged = Packet { vlan_tags: vec![VLAN], options_len: 8, ..Packet::v4() };
    let chained = Packet { extensions: vec![extension(60, 2)], ..Packet::v6() };
    for packet in [&v4, &Packet::v6(), &tagged, &chained] {
        assert_eq!(run_counting(&object, &signed(packet, |_| ()), Reason::Local), (XDP_PASS, 1));
        let forged = signed(packet, |click| click.price_micros = 1.into());
        assert_eq!(run_counting(&object, &forged, Reason::BadTag), (XDP_DROP, 1));
    }
    let foreign = signed(&v4, |click| (click.flags, click.tag) = (click_flags::FOREIGN, 0.into()));
    assert_eq!(run_counting(&object, &foreign, Reason::Local), (XDP_PASS, 1));
    object.set_keys(&[]).unwrap();
    assert_eq!(run_counting(&object, &signed(&v4, |_| ()), Reason::UnknownKey), (XDP_DROP, 1));
}

const STRIP: Switches = Switches { verify_first: false, strip_vlan: true };

#[test]
fn the_vlan_tags_of_our_own_packets_are_taken_off() {
    let Some(object) = load(STRIP, &policy()) else { return };
    for packet in [Packet::v4(), Packet::v6()] {
        let packet = Packet { pad_to: 0, ..packet };
        for tags in 0..=4 {
            let tagged = Packet { vlan_tags: vec![VLAN; tags], ..packet.clone() };
            let (action, frame) = run(&object, &tagged.bytes());
            assert_eq!((action, frame), (XDP_PASS, packet.bytes()), "{tags} tags");
        }
    }
}

#[test]
fn the_vlan_tags_of_others_are_left_alone() {
    let Some(object) = load(STRIP, &policy()) else { return };
    let other = Packet { vlan_tags: vec![VLAN], port: 53, ..Packet::v4() }.bytes();
    assert_eq!(run(&object, &other), (XDP_PASS, other.clone()));
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let ours = Packet { vlan_tags: vec![VLAN], ..Packet::v4() }.bytes();
    assert_eq!(run(&object, &ours), (XDP_PASS, ours.clone()));
}
