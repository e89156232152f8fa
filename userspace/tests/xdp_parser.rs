//! The kernel's parser against the daemon's: a million generated packets of each kind, not one apart.
//!
//! Both are the same source, compiled by two compilers for two machines and then changed by the
//! verifier's and the JIT's rewriting. Packets come from a seeded generator that builds them
//! layer by layer, mostly sound, and then damages some. The run prints its seed when it fails.

mod xdp_lab;

use weir::steer::{Fragments, Object, Policy, Switches, SynRate};
use weir_common::id::SHARDS;
use weir_common::maps::{self, NO_CPU};
use weir_common::packet::{self, Cut, Verdict};
use weir_common::reason::{REASON_SLOTS, Reason};
use xdp_lab::*;

const SEED: u64 = 0x5745_4952;
/// Half of them are TCP.
const PACKETS: u64 = 2_000_000;
/// The most that fits the first page of a test packet beside its head and tail room.
const LINEAR_LEN_MAX: usize = 3000;

/// SplitMix64 (Steele, Lea, Flood 2014): every packet has its own seed, so one alone can be rerun.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A packet and how much of it is in its linear part.
struct Case {
    frame: Vec<u8>,
    linear_len: usize,
}

fn generate(random: &mut Random) -> Case {
    let packet = layers(random);
    let (mut frame, offsets) = packet.build();
    if random.one_in(2) {
        damage(random, &mut frame, offsets);
    }
    // The kernel takes no test packet below an Ethernet header.
    frame.resize(frame.len().max(14), 0);
    let mut linear_len = frame.len().min(LINEAR_LEN_MAX);
    if random.one_in(20) {
        linear_len = 14 + random.below(linear_len - 13);
    }
    Case { frame, linear_len }
}

/// Layers that fit together, mostly ours.
fn layers(random: &mut Random) -> Packet {
    let mut packet = if random.one_in(2) { Packet::v4() } else { Packet::v6() };
    let tags = if random.one_in(2) { 0 } else { random.below(7) };
    packet.vlan_tags = (0..tags).map(|_| random.pick(&[VLAN, PROVIDER_VLAN])).collect();
    packet.options_len = if random.one_in(3) { random.below(11) * 4 } else { 0 };
    if random.one_in(2) {
        let count = random.below(8);
        packet.extensions = (0..count).map(|_| extension_header(random)).collect();
    }
    if random.one_in(2) {
        (packet.protocol, packet.port) = (TCP, random.pick(&[DOOR_PORT, DOOR_PORT, 80, 8080, 0]));
        packet.flags = if random.one_in(2) { SYN } else { random.next() as u8 };
    }
    if random.one_in(20) {
        packet.protocol = random.next() as u8;
    }
    if random.one_in(20) {
        packet.port = random.pick(&[53, OUR_PORT + 1, 0, u16::MAX]);
    }
    if random.one_in(20) {
        let other = Packet { destination: "192.0.2.11".parse().unwrap(), ..packet.clone() };
        packet = if packet.destination.is_ipv4() { other } else { packet };
    }
    let shared_bits = random.below(11) as u8;
    let mask = !((1_u16 << (10 - shared_bits)) - 1) & 1023;
    packet.payload = clicks(1 + random.below(14) as u8, random.next() as u16 & mask, shared_bits);
    if packet.protocol == TCP && random.one_in(2) {
        packet.payload.clear();
    }
    packet.pad_to = random.pick(&[0, 60, 60, 64, 300, 1514]);
    packet
}

fn extension_header(random: &mut Random) -> (u8, Vec<u8>) {
    let units = if random.one_in(30) { 1 + random.below(256) } else { 1 + random.below(3) };
    match random.below(6) {
        0 => extension(0, units),
        1 => extension(43, units),
        2 => fragment(random.pick(&[0, 0, 0, 1, 8, 6])),
        3 => authentication(2 + units),
        _ => extension(60, units),
    }
}

/// One to three faults: a header byte, a length, an end.
fn damage(random: &mut Random, frame: &mut Vec<u8>, at: Offsets) {
    let headers_end = (at.payload + 24).min(frame.len());
    for _ in 0..=random.below(3) {
        match random.below(8) {
            0 => frame.truncate(random.below(frame.len() + 1).max(14)),
            1 => frame.resize(frame.len() + random.below(64), 0xa5),
            // The fields that steer the parse: version and header length, length, fragment, ports.
            2 => set(frame, at.ip, random.next() as u8),
            3 => set(frame, at.ip + random.pick(&[2, 3, 4, 5, 6, 7, 9]), random.pick(&[0, 1, 8, 0x20, 0xff])),
            4 => set(frame, at.udp + 2 + random.below(4), random.pick(&[0, 1, 7, 8, 31, 32, 0xff])),
            // The flags of TCP, or some byte of a datagram's clicks.
            5 if random.one_in(2) => set(frame, at.udp + 13, random.next() as u8),
            5 => set(frame, at.payload + random.below(12), random.pick(&[0, 1, 2, 10, 11, 0xff])),
            6 => set(frame, 12 + random.below(2), random.next() as u8),
            _ => {
                let offset = 12 + random.below(headers_end - 12);
                if let Some(byte) = frame.get_mut(offset) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

fn set(frame: &mut [u8], offset: usize, byte: u8) {
    if let Some(place) = frame.get_mut(offset) {
        *place = byte;
    }
}

/// What the daemon's parser and the policy make of a packet on CPU `here`.
fn expect(case: &Case, policy: &maps::Policy, here: u16) -> (u32, Reason) {
    let cut = Cut { linear: &case.frame[..case.linear_len], total_len: case.frame.len() };
    match packet::parse(&cut, policy) {
        Verdict::Pass(reason) => (XDP_PASS, reason),
        Verdict::Malformed(reason) => (XDP_DROP, reason),
        Verdict::Ours(clicks) => match clicks.shard().map(|shard| policy.owner_cpu(shard)) {
            Some(cpu) if cpu != NO_CPU && cpu != here => (XDP_REDIRECT, Reason::Steered),
            _ => (XDP_PASS, Reason::Local),
        },
        Verdict::Syn(_) => (XDP_PASS, Reason::SynPassed),
    }
}

/// A third of the shards on each of the first two CPUs, a third on none.
fn owners() -> [u16; SHARDS] {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::array::from_fn(|shard| match shard % 3 {
        0 => 0,
        1 if cpus > 1 => 1,
        _ => NO_CPU,
    })
}

/// A rate of connections to the door that no source reaches.
fn unreached() -> Policy {
    let syn_rate = Some(SynRate { syns_per_s: 1_000_000_000, burst: u32::MAX, new_sources_per_s: u32::MAX });
    Policy { syn_rate, syn_ports: vec![DOOR_PORT, 80], ..policy() }
}

/// Runs packets until `count` are through; returns how often each reason was met.
fn compare(object: &Object, policy: &Policy, seed: u64, count: u64) -> [u64; REASON_SLOTS] {
    let here = core_affinity::get_core_ids().unwrap()[0];
    assert!(core_affinity::set_for_current(here));
    let compiled = policy.compile(0);
    let mut met = [0_u64; REASON_SLOTS];
    for i in 0..count {
        let mut random = Random(seed ^ i.wrapping_mul(0xd134_2543_de82_ef95));
        let case = generate(&mut random);
        let (action, reason) = expect(&case, &compiled, here.id as u16);
        met[reason as usize] += 1;
        let found = if case.linear_len == case.frame.len() {
            run_blind(object, &case.frame)
        } else {
            run_cut(object, &case.frame, case.linear_len).unwrap()
        };
        let counted = packets(object, reason);
        assert!(
            found == action && counted == met[reason as usize],
            "seed {seed:#x}, packet {i}: expected action {action} for {reason:?}, found action {found} and \
             {counted} packets for that reason instead of {}; linear part {} of {:02x?}",
            met[reason as usize],
            case.linear_len,
            case.frame
        );
    }
    met
}

#[test]
fn a_million_generated_packets_meet_the_same_verdict_in_kernel_and_daemon() {
    let policy = Policy { shard_owner_cpu: owners(), ..unreached() };
    let Some(object) = load(Switches::default(), &policy) else { return };
    let (frame, at) = Packet::v4().build();
    if let Err(error) = run_cut(&object, &frame, at.payload) {
        return eprintln!("SKIPPED: this kernel cannot cut test packets (6.18 can): {error}");
    }
    let before = packets(&object, Reason::LinearCut);
    assert_eq!(before, 1);
    let Some(object) = load(Switches::default(), &policy) else { return };
    let met = compare(&object, &policy, SEED, PACKETS);
    // Every packet counted one reason, and only the one expected: so the sums agree as well.
    for count in object.frames().unwrap() {
        assert_eq!(count.packets, met[count.reason as usize], "{:?}", count.reason);
        println!("{:>20} {}", count.reason.name(), count.packets);
    }
    assert_eq!(met.iter().sum::<u64>(), PACKETS);
    // The generator reaches what a parser can say.
    for reason in Reason::ALL.iter().filter(|&&reason| is_parsed(reason)) {
        assert!(met[*reason as usize] > 100, "{reason:?} was met {} times", met[*reason as usize]);
    }
}

#[test]
fn passed_fragments_meet_the_same_verdict_in_kernel_and_daemon() {
    let policy = Policy { fragments: Fragments::Pass, ..unreached() };
    let Some(object) = load(Switches::default(), &policy) else { return };
    let met = compare(&object, &policy, SEED + 1, 50_000);
    assert!(met[Reason::FragmentPassed as usize] > 100 && met[Reason::Fragment as usize] == 0);
    assert!(met[Reason::SynPassed as usize] > 100);
}

/// Whether the parser alone can come to this reason, with fragments dropped.
fn is_parsed(reason: Reason) -> bool {
    use weir_common::reason::Class;
    let passed = reason.class() == Class::Passed && reason < Reason::Shadowed;
    passed || reason == Reason::SynPassed || (reason.class() == Class::Malformed && reason < Reason::ClickCut)
}
