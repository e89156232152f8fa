//! Each key's default, range and reason. The words for operators stand in the sample config.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};
use tracing::Level;
use weir_common::bucket::Dimensions;
use weir_common::id::SHARDS;
use weir_common::maps::MAX_KEYS;

use super::http::{self, Http};
use super::reader::{Notes, Section, integer_in};
use super::traffic;
use super::{
    AckLevel, Admission, Buckets, Config, Cores, Dedupe, Forward, Fragments, Journal, Key, Log, Metrics,
    Node, Privacy, Rate, Rejects, Salting, Secret, Sink, Steer, SteerMode, SynRate, Udp, Workers,
};
use super::{kafka, limits, score};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Far below what a sketch keeps exactly.
const USERS_MIN_MAX: u64 = 1000;

/// A worker without a shard of its own would be idle.
const WORKERS_MAX: usize = SHARDS;
/// Prefixes beyond about a thousand make the lookup cost more than the packet.
const PREFIXES_MAX: usize = 1024;
/// The kernel's bound for a ring of provided buffers (`IORING_REGISTER_PBUF_RING`, Linux 5.19).
const BUFFERS_MAX: u64 = 1 << 15;
/// An interface name takes `IFNAMSIZ` bytes, the last of them zero.
const INTERFACE_CHARS_MAX: usize = 15;
/// Labels appear in every metric and bucket.
const LABEL_CHARS_MAX: usize = 32;
/// A folder of the BPF file system that systemd mounts; the package makes it.
const PIN_DIR: &str = "/sys/fs/bpf/weir";
/// Buckets leave within 5 s: that is promised, so no interval may be longer.
const FLUSH_INTERVAL_MAX: Duration = Duration::from_secs(5);

pub(super) fn read(notes: &Notes<'_>, table: &DeTable<'_>) -> Config {
    let mut root = Section::root(notes, table);
    let node = node(root.section("node"));
    let (udp, http) = rx(root.section("rx"));
    let config = Config {
        privacy: privacy(root.section("privacy"), &node.data_dir),
        node,
        workers: workers(root.section("workers")),
        udp,
        http,
        traffic: traffic::read(root.section("traffic")),
        score: score::read(root.section("score")),
        limits: limits::read(root.section("limits")),
        steer: steer(root.section("steer")),
        admission: admission(root.section("admission")),
        keys: root.sections("keys").into_iter().filter_map(key).collect(),
        dedupe: dedupe(root.section("dedupe")),
        buckets: buckets(root.section("buckets")),
        journal: journal(root.section("journal")),
        forward: forward(root.section("forward")),
        rejects: rejects(root.section("rejects")),
        kafka: kafka::read(root.section("kafka")),
        metrics: metrics(root.section("metrics")),
        log: log(root.section("log")),
    };
    check_keys(&root, &config);
    check_syn_rate(&root, &config);
    check_verify_first(&root, &config);
    kafka::check(&root, &config);
    root.finish();
    config
}

fn node(mut section: Section<'_, '_>) -> Node {
    let node = Node {
        id: section.integer("id", 1, 1..=u64::from(u32::MAX)),
        region: label(&mut section, "region"),
        pop: label(&mut section, "pop"),
        data_dir: folder(&mut section, "data_dir", "/var/lib/weir"),
        run_dir: folder(&mut section, "run_dir", "/run/weir"),
    };
    section.finish();
    node
}

fn label(section: &mut Section<'_, '_>, name: &'static str) -> String {
    let expected = "1 to 32 lower-case letters, digits, \"-\" and \"_\" (default \"local\")";
    section.value(name, "local".to_owned(), expected, |value| {
        let text = value.as_str()?;
        let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        ((1..=LABEL_CHARS_MAX).contains(&text.len()) && text.bytes().all(sound)).then(|| text.to_owned())
    })
}

fn folder(section: &mut Section<'_, '_>, name: &'static str, default: &str) -> PathBuf {
    section.value(name, default.into(), &format!("an absolute path (default {default:?})"), |value| {
        value.as_str().map(PathBuf::from).filter(|path| path.is_absolute())
    })
}

/// `privacy.salts`
#[derive(Clone, Copy)]
enum Salts {
    Drawn,
    Brought,
    None,
}

fn privacy(mut section: Section<'_, '_>, data_dir: &Path) -> Privacy {
    let words = [("drawn", Salts::Drawn), ("brought", Salts::Brought), ("none", Salts::None)];
    let salts = section.choice("salts", Salts::Drawn, &words);
    let salting = match (salts, optional_folder(&mut section, "salts_dir", "")) {
        (Salts::Drawn, folder) => Salting::Drawn(folder.unwrap_or_else(|| data_dir.join("salts"))),
        (Salts::Brought, Some(folder)) => Salting::Brought(folder),
        (Salts::None, None) => Salting::None,
        (Salts::Brought, None) => {
            section.note("salts", "there is no folder to bring them to; name one as salts_dir");
            Salting::None
        }
        (Salts::None, Some(_)) => {
            section.note("salts_dir", "salts = \"none\" writes users' keys as they are sent; name no folder");
            Salting::None
        }
    };
    section.finish();
    Privacy { salting }
}

/// A folder; "" is none.
fn optional_folder(section: &mut Section<'_, '_>, name: &'static str, default: &str) -> Option<PathBuf> {
    let expected = format!("an absolute path, or \"\" for none (default {default:?})");
    let default = (!default.is_empty()).then(|| default.into());
    section.value(name, default, &expected, |value| {
        let path = value.as_str()?;
        (path.is_empty() || Path::new(path).is_absolute())
            .then(|| (!path.is_empty()).then(|| PathBuf::from(path)))
    })
}

fn workers(mut section: Section<'_, '_>) -> Workers {
    let expected = "\"all\" or a list of core numbers such as [0, 1], each once (default \"all\")";
    let cores = section.value("cores", Cores::All, expected, |value| match value {
        DeValue::String(word) if word == "all" => Some(Cores::All),
        DeValue::Array(list) if (1..=WORKERS_MAX).contains(&list.len()) => {
            let read = |core: &toml::Spanned<DeValue<'_>>| integer_in::<usize>(core.get_ref(), &(0..=4095));
            let cores = list.iter().map(read).collect::<Option<Vec<_>>>()?;
            let once = cores.iter().enumerate().all(|(index, core)| !cores[..index].contains(core));
            once.then_some(Cores::These(cores))
        }
        _ => None,
    });
    section.finish();
    Workers { cores }
}

fn rx(mut section: Section<'_, '_>) -> (Udp, Http) {
    let both = (udp(section.section("udp")), http::read(section.section("http")));
    section.finish();
    both
}

fn udp(mut section: Section<'_, '_>) -> Udp {
    let any = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let port = section.integer("port", 4500, 1..=u64::from(u16::MAX));
    let addresses = section.list("addresses", any, "IP addresses", address);
    if addresses.is_empty() {
        section.note("addresses", "no address to listen on; name one, or \"0.0.0.0\" and \"::\" for all");
    }
    let socket_buffer_bytes = section.size("socket_buffer", 16 * MIB, 64 * KIB..=GIB) as usize;
    let expected = "a power of two from 64 to 32768 (default 64)";
    let buffers_per_worker = section.value("buffers_per_worker", 64, expected, |value| {
        integer_in(value, &(64..=BUFFERS_MAX)).filter(|count: &u16| count.is_power_of_two())
    });
    section.finish();
    Udp { port, addresses, socket_buffer_bytes, buffers_per_worker }
}

pub(super) fn address(value: &DeValue<'_>) -> Result<IpAddr, std::borrow::Cow<'static, str>> {
    let found = value.as_str().and_then(|text| text.parse().ok());
    found.ok_or("expected an IP address such as \"192.0.2.1\" or \"2001:db8::1\"".into())
}

fn steer(mut section: Section<'_, '_>) -> Steer {
    let modes = [
        ("auto", SteerMode::Auto),
        ("native", SteerMode::Native),
        ("generic", SteerMode::Generic),
        ("none", SteerMode::None),
    ];
    let expected = "an interface name of at most 15 letters, or \"\" for none (default \"\")";
    let mode = section.choice("mode", SteerMode::Auto, &modes);
    let interface = section.value("interface", String::new(), expected, |value| {
        let sound = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let text = value.as_str()?;
        (text.len() <= INTERFACE_CHARS_MAX && text.chars().all(sound)).then(|| text.to_owned())
    });
    if interface.is_empty() && matches!(mode, SteerMode::Native | SteerMode::Generic) {
        section.note("mode", "this mode needs to know where; set steer.interface, or mode = \"auto\"");
    }
    let steer = Steer {
        mode,
        interface: (!interface.is_empty()).then_some(interface),
        addresses: section.list("addresses", Vec::new(), "IP addresses", address),
        enforce: section.boolean("enforce", true),
        fragments: section.choice(
            "fragments",
            Fragments::Drop,
            &[("drop", Fragments::Drop), ("pass", Fragments::Pass)],
        ),
        strip_vlan: section.boolean("strip_vlan", true),
        verify_first: section.boolean("verify_first", false),
        deny: prefixes(&mut section, "deny"),
        allow: prefixes(&mut section, "allow"),
        rate: rate(section.section("rate")),
        syn_rate: syn_rate(section.section("syn_rate")),
        pin_dir: optional_folder(&mut section, "pin_dir", PIN_DIR),
    };
    if steer.syn_rate.is_some() && (steer.interface.is_none() || steer.mode == SteerMode::None) {
        section.note(
            "syn_rate",
            "the XDP program keeps this limit; set steer.interface and a mode, or remove it",
        );
    }
    if let Some(both) = steer.allow.iter().find(|prefix| steer.deny.contains(prefix)) {
        section.note("allow", &format!("{both} is in steer.deny too; keep it in one of them"));
    }
    section.finish();
    steer
}

fn prefixes(section: &mut Section<'_, '_>, name: &'static str) -> Vec<IpNet> {
    let list = section.list(name, Vec::new(), "IP prefixes such as \"203.0.113.0/24\"", prefix);
    if list.len() > PREFIXES_MAX {
        section.note(name, &format!("{} prefixes; at most {PREFIXES_MAX} fit, so merge some", list.len()));
    }
    list
}

fn prefix(value: &DeValue<'_>) -> Result<IpNet, std::borrow::Cow<'static, str>> {
    let found: Option<IpNet> = value.as_str().and_then(|text| text.parse().ok());
    match found {
        None => Err("expected an IP prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\"".into()),
        Some(net) if net != net.trunc() => {
            Err(format!("bits beyond the prefix are set; did you mean \"{}\"?", net.trunc()).into())
        }
        Some(net) => Ok(net),
    }
}

fn rate(mut section: Section<'_, '_>) -> Option<Rate> {
    let most = u64::from(u32::MAX);
    let rate = Rate {
        packets_per_s: section.integer("packets_per_s", 0, 0..=most),
        burst: section.integer("burst", 1000, 1..=most),
        new_sources_per_s: section.integer("new_sources_per_s", 100_000, 1..=most),
    };
    section.finish();
    (rate.packets_per_s > 0).then_some(rate)
}

fn syn_rate(mut section: Section<'_, '_>) -> Option<SynRate> {
    let most = u64::from(u32::MAX);
    let rate = SynRate {
        syns_per_s: section.integer("syns_per_s", 0, 0..=1_000_000_000),
        burst: section.integer("burst", 100, 1..=most),
        new_sources_per_s: section.integer("new_sources_per_s", 100_000, 1..=most),
    };
    section.finish();
    (rate.syns_per_s > 0).then_some(rate)
}

fn admission(mut section: Section<'_, '_>) -> Admission {
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
    let admission = Admission {
        allow_unsigned: section.boolean("allow_unsigned", true),
        lifetime: section.duration("lifetime", day, minute..=7 * day),
        lateness: section.duration("lateness", 10 * minute, minute..=day),
        max_ahead: section.duration("max_ahead", minute, Duration::ZERO..=10 * minute),
    };
    if admission.lateness > admission.lifetime {
        section.note("lateness", "longer than admission.lifetime; such a click has expired already");
    }
    section.finish();
    admission
}

fn key(mut section: Section<'_, '_>) -> Option<Key> {
    let number = |value: &DeValue<'_>| integer_in(value, &(0..=u64::from(u16::MAX)));
    let issuer = section.required("issuer", "a whole number from 0 to 65535", number);
    let key = section.required("key", "a whole number from 0 to 65535", number);
    let file = section.required("file", "the path of a file with 32 hex digits", |value| {
        value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    section.finish();
    Some(Key { issuer: issuer?, key: key?, file: file?, secret: Secret::default() })
}

fn check_keys(root: &Section<'_, '_>, config: &Config) {
    for (index, key) in config.keys.iter().enumerate() {
        let same = |other: &Key| (other.issuer, other.key) == (key.issuer, key.key);
        if config.keys[..index].iter().any(same) {
            let message = format!("issuer {} has key {} twice; remove one", key.issuer, key.key);
            root.note("keys", &message);
        }
    }
    if config.keys.is_empty() && !config.admission.allow_unsigned {
        let message = "there is none and admission.allow_unsigned is false, so every click would be refused";
        root.note("keys", message);
    }
}

/// The program looks at packets to its own addresses alone; where none are listed it takes the interface's.
fn check_syn_rate(root: &Section<'_, '_>, config: &Config) {
    let listed = [&config.steer.addresses, &config.udp.addresses].into_iter().find(|list| !list.is_empty());
    let own: Vec<_> = listed.into_iter().flatten().filter(|address| !address.is_unspecified()).collect();
    let mut of_door = config.http.addresses.iter().filter(|address| !address.is_unspecified());
    let missed = of_door.find(|address| !own.is_empty() && !own.contains(address));
    if let (Some(_), Some(address)) = (config.steer.syn_rate, missed) {
        let message =
            format!("syn_rate does not hold for {address} of rx.http.addresses; add it to steer.addresses");
        root.note("steer", &message);
    }
}

fn check_verify_first(root: &Section<'_, '_>, config: &Config) {
    if !config.steer.verify_first {
        return;
    }
    if config.keys.is_empty() {
        root.note("steer", "verify_first has no key to check tags by; add [[keys]], or leave it out");
    } else if config.keys.len() > MAX_KEYS {
        let keys = config.keys.len();
        root.note(
            "steer",
            &format!("verify_first: the kernel holds {MAX_KEYS} keys, not {keys}; leave it out"),
        );
    }
}

fn dedupe(mut section: Section<'_, '_>) -> Dedupe {
    let capacity = section.integer("capacity", 100_000_000, 1_000..=10_000_000_000);
    section.finish();
    Dedupe { capacity }
}

fn buckets(mut section: Section<'_, '_>) -> Buckets {
    const NAMES: [&str; 6] = ["country", "device", "os", "publisher", "placement", "creative"];
    let names = section.list("dimensions", vec!["country", "device"], "dimensions", |value| {
        let found = NAMES.into_iter().find(|name| value.as_str() == Some(name));
        found.ok_or_else(|| format!("expected one of {}", NAMES.join(", ")).into())
    });
    let has = |name| names.contains(&name);
    let dimensions = Dimensions {
        country: has("country"),
        device: has("device"),
        os: has("os"),
        publisher: has("publisher"),
        placement: has("placement"),
        creative: has("creative"),
    };
    let capacity = section.integer("capacity", 1_000_000, 1_000..=1_000_000_000);
    section.finish();
    Buckets { dimensions, capacity }
}

fn journal(mut section: Section<'_, '_>) -> Journal {
    let (no_wait, longest) = (Duration::ZERO, Duration::from_millis(100));
    let journal = Journal {
        commit_window: section.duration("commit_window", Duration::from_millis(2), no_wait..=longest),
        segment_bytes: section.size("segment_size", 64 * MIB, 4 * MIB..=4 * GIB),
        max_bytes: section.size("max_size", 64 * GIB, 16 * MIB..=64 * TIB),
        ack: section.choice("ack", AckLevel::Disk, &[("disk", AckLevel::Disk)]),
        encrypt: section.boolean("encrypt", false),
        keys_dir: optional_folder(&mut section, "keys_dir", ""),
    };
    if journal.encrypt && journal.keys_dir.is_none() {
        section.note("encrypt", "on, and journal.keys_dir names no folder for the keys; name one that is not on the journal's disk");
    }
    // One segment is written, one waits to be forwarded, one is being removed.
    if journal.max_bytes < 4 * journal.segment_bytes {
        section.note("max_size", "less than four times journal.segment_size; raise it or lower the other");
    }
    section.finish();
    journal
}

fn forward(mut section: Section<'_, '_>) -> Forward {
    let forward = Forward {
        sink: section.choice("sink", Sink::Embedded, &[("embedded", Sink::Embedded), ("kafka", Sink::Kafka)]),
        interval: section.duration(
            "interval",
            Duration::from_secs(2),
            Duration::from_millis(100)..=FLUSH_INTERVAL_MAX,
        ),
        uniques_bytes_max: section.size("uniques_memory", GIB, 0..=TIB),
        uniques_users_min: section.integer("uniques_users_min", 1, 1..=USERS_MIN_MAX),
    };
    section.finish();
    forward
}

fn rejects(mut section: Section<'_, '_>) -> Rejects {
    let rejects = Rejects { samples_per_s: section.integer("samples_per_s", 10, 0..=1000) };
    section.finish();
    rejects
}

fn metrics(mut section: Section<'_, '_>) -> Metrics {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let expected = "an address and port, or \"\" to turn it off (default \"127.0.0.1:9464\")";
    let listen = section.value("listen", Some(default), expected, |value| match value.as_str()? {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    });
    section.finish();
    Metrics { listen }
}

fn log(mut section: Section<'_, '_>) -> Log {
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let level = section.choice("level", Level::INFO, &levels);
    section.finish();
    Log { level }
}
