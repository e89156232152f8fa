//! What the checks for general invalid traffic cost a click, each by itself and all together, and
//! what a filter of known-bad actors takes to build.
//!
//! `cargo bench -p weir-bench --bench traffic`: checks over large lists, ns a click.
//! `cargo bench -p weir-bench --bench traffic -- actors 100000000`: a filter of that many actors,
//! from list to answers. Needs 1.7 GB of disk for the list and 0.8 GB for the spill.
//!
//! Processor time of the thread, which is pinned nowhere: the median of rounds and the best.
//! Addresses and keys are random and each is used once a round, so no cache knows them.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir::traffic::actors::{self, ActorFilter, Progress};
use weir::traffic::{ActorKey, Crowd, Facts, Flags, Limits, Lists, Memory, Settings, UserAgent, judge};
use weir_bench::thread_time::thread_time;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;

const ROUNDS: usize = 15;
const CLICKS: usize = 1 << 18;
const START: u64 = 1_790_000_000_000;
/// As large as data-centre lists are.
const DATA_CENTRE_PREFIXES: u32 = 100_000;
/// As large as country tables are.
const COUNTRY_PREFIXES: u32 = 900_000;
const ACTORS: u64 = 10_000_000;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => checks(),
        ["actors", count] => build(count.parse().expect("how many actors")),
        _ => eprintln!("arguments: none, or: actors COUNT"),
    }
}

/// Prints the median and the best of rounds, in ns a click; each round gets clicks of its own.
fn measure<T>(name: &str, mut prepare: impl FnMut(usize) -> Vec<T>, mut check: impl FnMut(&T) -> bool) {
    let mut found = 0;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let clicks = prepare(round);
            let began = thread_time();
            for click in &clicks {
                found += usize::from(black_box(check(black_box(click))));
            }
            (thread_time() - began).as_nanos() as f64 / clicks.len() as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let share = found as f64 / (ROUNDS * CLICKS) as f64 * 100.0;
    println!("| {name} | {:.1} | {:.1} | {share:.2} % |", rounds[ROUNDS / 2], rounds[0]);
}

fn addresses_v4(round: usize) -> Vec<IpAddr> {
    let mut random = StdRng::seed_from_u64(round as u64);
    (0..CLICKS).map(|_| Ipv4Addr::from_bits(random.random()).into()).collect()
}

/// Among the providers that the tables are made of.
fn addresses_v6(round: usize) -> Vec<IpAddr> {
    let mut random = StdRng::seed_from_u64(round as u64);
    (0..CLICKS)
        .map(|_| Ipv6Addr::from_bits(provider(&mut random) | random.random::<u128>() >> 32).into())
        .collect()
}

/// A /32 in one of seven /12s, as registries give them out.
fn provider(random: &mut StdRng) -> u128 {
    const BLOCKS: [u128; 7] = [0x2400, 0x2600, 0x2610, 0x2800, 0x2a00, 0x2a10, 0x2c00];
    (BLOCKS[random.random_range(0..7)] << 112) | u128::from(random.random::<u32>() >> 12) << 96
}

fn write_list(folder: &Path, name: &str, mut lines: impl FnMut(&mut dyn Write)) -> Option<PathBuf> {
    let path = folder.join(name);
    let mut writer = BufWriter::new(File::create(&path).expect("a list"));
    lines(&mut writer);
    writer.flush().expect("room for a list");
    Some(path)
}

/// Prefixes of random places and usual lengths, each once.
fn prefixes(count: u32, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lines: Vec<String> = (0..count)
        .map(|n| {
            if n % 3 == 0 {
                let len = random.random_range(32..=48);
                let bits = provider(&mut random) | u128::from(random.random::<u16>()) << 80;
                format!("{}/{len}", Ipv6Addr::from_bits(bits >> (128 - len) << (128 - len)))
            } else {
                let len = random.random_range(16..=24);
                format!("{}/{len}", Ipv4Addr::from_bits(random.random::<u32>() >> (32 - len) << (32 - len)))
            }
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn lists(folder: &Path) -> Lists {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/lists");
    let plain = |name, seed| {
        write_list(folder, name, |out| {
            prefixes(DATA_CENTRE_PREFIXES, seed)
                .iter()
                .for_each(|line| writeln!(out, "{line}").expect("room"));
        })
    };
    let countries = write_list(folder, "countries", |out| {
        for (n, line) in prefixes(COUNTRY_PREFIXES, 3).iter().enumerate() {
            let letters = [n % 26, n / 26 % 26].map(|n| char::from(b'A' + n as u8));
            writeln!(out, "{line} {}{}", letters[0], letters[1]).expect("room");
        }
    });
    let filter = folder.join("actors.filter");
    let list =
        write_list(folder, "actors", |out| (1..=ACTORS).for_each(|n| writeln!(out, "{n}").expect("room")));
    actors::build(&list.expect("a list"), &filter, UnixMs(START), &mut |_| {}).expect("a filter");
    let settings = Settings {
        data_centres: plain("data_centres", 1),
        bad_prefixes: plain("bad_prefixes", 2),
        bad_actors: Some(filter),
        browsers: Some(deployed.join("browsers.list")),
        known_robots: Some(deployed.join("robots.list")),
        countries,
        ..Settings::default()
    };
    let began = Instant::now();
    let lists = Lists::load(&settings, UnixMs(START)).unwrap_or_else(|error| panic!("{error}"));
    println!("loaded in {:.2} s:", began.elapsed().as_secs_f64());
    lists.versions().for_each(|version| println!("  {version}"));
    lists
}

fn checks() {
    let folder = tempfile::tempdir().expect("a folder");
    let lists = lists(folder.path());
    let (centres, filter) =
        (lists.data_centres.as_ref().expect("read"), lists.bad_actors.as_ref().expect("read"));
    let table = lists.geography.as_ref().expect("read");
    println!(
        "memory: {} + {} + {} octets",
        centres.memory_bytes(),
        filter.memory_bytes(),
        table.memory_bytes()
    );
    println!("\n| check | ns, median | ns, best | found |\n|---|---|---|---|");
    measure("nothing", addresses_v4, |_| false);
    measure("prefix list, IPv4", addresses_v4, |&address| centres.contains(address));
    measure("prefix list, IPv6", addresses_v6, |&address| centres.contains(address));
    measure("country, IPv4", addresses_v4, |&address| table.contradicts(address, *b"DE"));
    measure("country, IPv6", addresses_v6, |&address| table.contradicts(address, *b"DE"));
    measure("known-bad actor by address", addresses_v4, |&address| filter.contains_address(address));
    let robots = &lists.robots;
    measure("robot, browsers' user agents", agents, |agent| {
        robots.judge_agent(UserAgent::Sent(agent.as_bytes())).is_robot()
    });
    activity("activity, a million users in a table for them", 1 << 20, 1 << 20);
    activity("activity, a million users in a table for 65,536", 1 << 20, 1 << 16);
    activity("activity, 1,000 users", 1_000, 1 << 16);
    all(&lists, 1);
    all(&lists, 64);
}

/// Whole judgements, so many clicks at a time as a worker reads at once.
fn all(lists: &Lists, together: usize) {
    let mut memory = Memory::new(Some(Crowd::new(1 << 18, SipKey::from_bytes([1; 16]))));
    let mut found = Vec::new();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let clicks = clicks(round, &AGENTS);
            let began = thread_time();
            for group in clicks.chunks(together) {
                found.clear();
                judge(lists, &mut memory, black_box(group), &mut found);
                black_box(&found);
            }
            (thread_time() - began).as_nanos() as f64 / CLICKS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let name = format!("all, by address and user, {together} together");
    println!("| {name} | {:.1} | {:.1} | |", rounds[ROUNDS / 2], rounds[0]);
}

fn agents(round: usize) -> Vec<&'static str> {
    let mut random = StdRng::seed_from_u64(round as u64);
    (0..CLICKS).map(|_| AGENTS[random.random_range(0..AGENTS.len())]).collect()
}

fn activity(name: &str, users: u64, keys: usize) {
    let crowd = Crowd::new(keys, SipKey::from_bytes([1; 16]));
    let (mut clicks, mut pushed_out) = (0, 0);
    let draw = |round: usize| -> Vec<ActorKey> {
        let mut random = StdRng::seed_from_u64(round as u64);
        (0..CLICKS).map(|_| ActorKey::user(random.random_range(1..=users)).expect("not 0")).collect()
    };
    // 100,000 clicks a second.
    measure(name, draw, |user| {
        clicks += 1;
        let at = UnixMs(START + clicks / 100);
        let counted = crowd.count(crowd.name(user), at, Limits::default()).expect("one thread");
        pushed_out += u64::from(counted.has_pushed_out);
        counted.is_too_much
    });
    println!("  ({pushed_out} pushed out)");
}

fn clicks<'a>(round: usize, agents: &[&'a str]) -> Vec<Facts<'a>> {
    let mut random = StdRng::seed_from_u64(round as u64);
    let mut click = |n: usize| Facts {
        address: Some(Ipv4Addr::from_bits(random.random()).into()),
        user_agent: UserAgent::Sent(agents[random.random_range(0..agents.len())].as_bytes()),
        country: *b"DE",
        user_key: random.random_range(ACTORS + 1..u64::MAX),
        received_at: UnixMs(START + ((round * CLICKS + n) / 100) as u64),
        said: Flags::NONE,
        is_new: true,
    };
    (0..CLICKS).map(&mut click).collect()
}

/// One line of `/proc/self/status`, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find(|line| line.starts_with(name)).expect(name);
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn build(count: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("actors.filter");
    let list = write_list(folder.path(), "actors", |out| {
        for n in 1..=count {
            // Half of them users, half of them addresses; all different.
            match n % 2 {
                0 => writeln!(out, "{:#x}", mixed(n)).expect("room"),
                _ => writeln!(out, "{}", Ipv4Addr::from_bits((n / 2) as u32 * 3)).expect("room"),
            }
        }
    });
    let (before, began) = (status_kib("VmHWM"), Instant::now());
    let summary = actors::build(&list.expect("a list"), &out, UnixMs(START), &mut |progress| {
        if let Progress::Built { shards: 0, of } = progress {
            println!("{of} shards");
        }
    });
    let summary = summary.unwrap_or_else(|error| panic!("{error}"));
    let seconds = began.elapsed().as_secs_f64();
    let bits = summary.bytes as f64 * 8.0 / summary.actors as f64;
    println!("{summary:?}, {bits:.3} bits an actor");
    println!("built in {seconds:.1} s, {before} KiB resident before, {} KiB at most", status_kib("VmHWM"));
    ask(&out, count);
}

fn mixed(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn ask(filter: &Path, count: u64) {
    let began = Instant::now();
    let filter =
        ActorFilter::open("bad_actors", filter, UnixMs(START)).unwrap_or_else(|error| panic!("{error}"));
    println!(
        "read and checked in {:.2} s, {} octets of memory",
        began.elapsed().as_secs_f64(),
        filter.memory_bytes()
    );
    let missed = (1..=count).filter(|&n| match n % 2 {
        0 => !filter.contains(&ActorKey::user(mixed(n)).expect("not 0")),
        _ => !filter.contains_address(Ipv4Addr::from_bits((n / 2) as u32 * 3).into()),
    });
    println!("missed: {} of {count}", missed.count());
    const OTHERS: u64 = 100_000_000;
    let others = (count + 1..=count + OTHERS).map(|n| ActorKey::user(mixed(n)).expect("not 0"));
    let wrong = others.filter(|other| filter.contains(other)).count();
    println!("taken for listed: {wrong} of {OTHERS}, {:.4} %", wrong as f64 / OTHERS as f64 * 100.0);
    println!("\n| check | ns, median | ns, best | found |\n|---|---|---|---|");
    measure("known-bad actor by address", addresses_v4, |&address| filter.contains_address(address));
}
