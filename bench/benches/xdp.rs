//! What the XDP program costs a packet, against a program that only drops, in the same run.
//!
//! `BPF_PROG_TEST_RUN` with a warm cache and without driver or DMA: a ratio between programs,
//! not a packet rate. The rows are measured in turn, round after round, so that what disturbs
//! the machine disturbs them alike; the median of the rounds stands in the table.
//!
//! Run with `cargo bench -p weir-bench --bench xdp`, as root.

#[path = "../../userspace/tests/xdp_lab/mod.rs"]
mod xdp_lab;

use aya::TestRunOptions;
use aya::programs::{TestRun, Xdp};
use weir::steer::{Object, Policy, Prefix, Rate, Switches, SynRate};
use weir_common::id::SHARDS;
use weir_common::siphash::SipKey;
use weir_common::wire::{self, Click};
use xdp_lab::*;
use zerocopy::{FromBytes, IntoBytes};

const ROUNDS: usize = 31;
/// Packets of one round and row: about 10 ms, short against what disturbs a machine, long against
/// the cost of starting a test run.
const REPEAT: u32 = 500_000;

/// One line of the table.
struct Row {
    name: &'static str,
    object: Object,
    frame: Vec<u8>,
    action: u32,
    /// The most it may cost, in null programs.
    bar: Option<f64>,
    rounds_ns: Vec<f64>,
}

impl Row {
    fn new(
        name: &'static str,
        policy: &Policy,
        frame: Vec<u8>,
        action: u32,
        bar: Option<f64>,
    ) -> Option<Self> {
        let object = load(Switches::default(), policy)?;
        Some(Self { name, object, frame, action, bar, rounds_ns: Vec::new() })
    }

    fn measure(&mut self) {
        let ns = measure(self.object.xdp().expect("it is loaded"), &self.frame, self.action);
        self.rounds_ns.push(ns);
    }
}

/// Nanoseconds of CPU a packet. The kernel's own figure is rounded to whole ones, and the wall
/// clock counts the time others had the CPU.
fn measure(program: &Xdp, frame: &[u8], action: u32) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..Default::default() };
    let start_ns = cpu_time_ns();
    let result = program.test_run(options).expect("the test run starts");
    let end_ns = cpu_time_ns();
    assert_eq!(result.return_value, action);
    (end_ns - start_ns) as f64 / f64::from(REPEAT)
}

/// Nanoseconds this thread had a CPU. The scheduler brings the figure up to date when it is called.
fn cpu_time_ns() -> u64 {
    std::thread::yield_now();
    let schedstat =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel has CONFIG_SCHED_INFO");
    let first = schedstat.split(' ').next().and_then(|field| field.parse().ok());
    first.expect("its first field is the time on the CPU")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// All shards on another CPU than this one.
fn steering() -> Option<Policy> {
    let cpus = core_affinity::get_core_ids()?;
    let here = *cpus.first()?;
    core_affinity::set_for_current(here);
    let other = cpus.iter().find(|cpu| cpu.id != here.id)?;
    Some(Policy { shard_owner_cpu: [other.id as u16; SHARDS], ..policy() })
}

fn steered(packet: Packet) -> Vec<u8> {
    Packet { payload: clicks(14, 5, 10), ..packet }.bytes()
}

/// A datagram whose first click is signed with `key`.
fn signed(key: &SipKey) -> Vec<u8> {
    let mut payload = clicks(14, 5, 10);
    let (click, _) = Click::mut_from_prefix(&mut payload[wire::HEADER_LEN..]).expect("it has clicks");
    click.tag = click.expected_tag(key).into();
    assert_eq!(click.as_bytes().len(), wire::CLICK_LEN);
    Packet { payload, ..Packet::v4() }.bytes()
}

fn rows(policy: &Policy) -> Option<Vec<Row>> {
    let mut bad = steered(Packet::v4());
    bad[42] = 0;
    let prefix = |text: &str| text.parse::<Prefix>().expect("it is a prefix");
    let apart = Policy { deny: vec![prefix("203.0.113.0/24")], ..policy.clone() };
    let denied = Policy { deny: vec![prefix("198.51.100.0/24")], ..policy.clone() };
    let allowed = Policy { allow: vec![prefix("198.51.100.0/24")], ..policy.clone() };
    let rate = Rate { packets_per_s: 1_000_000_000, burst: u32::MAX, new_sources_per_s: 1000 };
    let limited = Policy { rate: Some(rate), ..policy.clone() };
    let syns = |syns_per_s, burst| {
        let syn_rate = Some(SynRate { syns_per_s, burst, new_sources_per_s: 1000 });
        Policy { syn_rate, syn_ports: vec![80, DOOR_PORT], ..policy.clone() }
    };
    let (unlimited, one_syn) = (syns(1_000_000_000, u32::MAX), syns(1, 1));
    let vlans = Packet { vlan_tags: vec![PROVIDER_VLAN, VLAN], ..Packet::v4() };
    let chain = Packet { extensions: vec![extension(0, 1), extension(60, 1)], ..Packet::v6() };
    let mut rows = vec![
        Row::new("pass: not UDP", policy, Packet { protocol: 6, ..Packet::v4() }.bytes(), XDP_PASS, None)?,
        Row::new("pass: TCP, SYN rate", &unlimited, Packet::tcp(ACK).bytes(), XDP_PASS, None)?,
        Row::new("pass: SYN", &unlimited, Packet::tcp(SYN).bytes(), XDP_PASS, None)?,
        Row::new("drop: SYN, limited", &one_syn, Packet::tcp(SYN).bytes(), XDP_DROP, None)?,
        Row::new("drop: bad magic", policy, bad, XDP_DROP, Some(2.0))?,
        Row::new("drop: denied source", &denied, steered(Packet::v4()), XDP_DROP, None)?,
        Row::new("local", policy, Packet::v4().bytes(), XDP_PASS, None)?,
        Row::new("steer", policy, steered(Packet::v4()), XDP_REDIRECT, Some(3.0))?,
        Row::new("steer, IPv6", policy, steered(Packet::v6()), XDP_REDIRECT, None)?,
        Row::new("steer, 2 VLAN tags", policy, steered(vlans), XDP_REDIRECT, None)?,
        Row::new("steer, IPv6, 2 ext", policy, steered(chain), XDP_REDIRECT, None)?,
        Row::new("steer, prefix miss", &apart, steered(Packet::v4()), XDP_REDIRECT, None)?,
        Row::new("steer, prefix hit", &allowed, steered(Packet::v4()), XDP_REDIRECT, None)?,
        Row::new("steer, rate", &limited, steered(Packet::v4()), XDP_REDIRECT, None)?,
        Row::new("steer, SYN rate", &unlimited, steered(Packet::v4()), XDP_REDIRECT, None)?,
    ];
    let key = SipKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
    let mut object = load(Switches { verify_first: true, ..Default::default() }, policy)?;
    object.set_keys(&[(ISSUER, KEY, key)]).expect("the key is taken");
    let bar = Some(6.0);
    rows.push(Row {
        name: "steer + tag check",
        object,
        frame: signed(&key),
        action: XDP_REDIRECT,
        bar,
        rounds_ns: Vec::new(),
    });
    Some(rows)
}

fn main() {
    let Some(policy) = steering() else { return eprintln!("SKIPPED: steering needs two CPUs") };
    let Some(mut rows) = rows(&policy) else { return };
    let Some(mut null_object) = load(Switches::default(), &policy) else { return };
    let null = null_object.null().expect("the null program loads");
    let null_frame = steered(Packet::v4());
    let mut null_rounds_ns = Vec::new();
    for _ in 0..ROUNDS {
        null_rounds_ns.push(measure(null, &null_frame, XDP_DROP));
        rows.iter_mut().for_each(Row::measure);
    }
    let null_ns = median(&null_rounds_ns);
    println!("{ROUNDS} rounds of {REPEAT} packets; medians");
    println!("{:>20} {:>8} {:>8} {:>8}", "", "ns", "ratio", "bar");
    println!("{:>20} {null_ns:8.2}", "null");
    for row in &rows {
        let ns = median(&row.rounds_ns);
        let bar = row.bar.map_or(String::new(), |bar| format!("{bar:8.1}"));
        let missed = row.bar.is_some_and(|bar| ns / null_ns > bar);
        println!(
            "{:>20} {ns:8.2} {:8.2} {bar} {}",
            row.name,
            ns / null_ns,
            if missed { "MISSED" } else { "" }
        );
    }
}
