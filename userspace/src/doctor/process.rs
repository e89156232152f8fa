//! What this process may do: capabilities, open files, buffers of sockets, memory.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::finding::{Read, Unread, Verdict, read_text};
use super::interface::Steered;
use crate::config::MemoryEstimate;
use crate::config::quantity::size_text;

/// Bits of the effective set, `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const SYS_ADMIN: u64 = 1 << 21;

/// The effective capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    pub(super) fn read() -> Read<Self> {
        Self::parse(&read_text("/proc/self/status")?)
    }

    fn parse(status: &str) -> Read<Self> {
        let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        bits.map(Self).ok_or_else(|| Unread("/proc/self/status has no CapEff".to_owned()))
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Those that steering needs and that are not there.
    fn missing(self) -> Vec<&'static str> {
        // CAP_SYS_ADMIN stands for the two that Linux 5.8 took out of it. The verifier lets nobody else without
        // CAP_PERFMON work out how long a packet is: it takes that for a pointer that gets out.
        let wanted = [
            ("CAP_BPF", BPF | SYS_ADMIN),
            ("CAP_PERFMON", PERFMON | SYS_ADMIN),
            ("CAP_NET_ADMIN", NET_ADMIN),
        ];
        wanted.iter().filter(|(_, bits)| !self.has(*bits)).map(|(name, _)| *name).collect()
    }
}

pub(super) fn judge_capabilities(found: &Read<Capabilities>, steered: Steered) -> Verdict {
    let required = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
    match found {
        Err(why) => Verdict::unknown(required, why),
        Ok(found) => match found.missing()[..] {
            [] => Verdict::ok(required, "all of them"),
            ref missing => {
                let current = format!("without {}", missing.join(", "));
                Verdict::new(steered.severity_without(), required, current)
            }
        },
    }
}

/// What is allowed of open files.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFiles {
    limit: Rlimit,
    /// What no limit may be raised beyond.
    most: Option<u64>,
}

impl OpenFiles {
    pub(super) fn read() -> Self {
        let most = read_text("/proc/sys/fs/nr_open").ok().and_then(|text| text.parse().ok());
        Self { limit: getrlimit(Resource::Nofile), most }
    }
}

pub(super) fn judge_open_files(found: OpenFiles, needed: u64, may: &Read<Capabilities>) -> Verdict {
    let required = format!("{needed}");
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    let text = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let OpenFiles { limit, most } = found;
    let current = format!("{}, hard limit {}", text(limit.current), text(limit.maximum));
    if is_enough(limit.current) || is_enough(limit.maximum) {
        return Verdict::ok(required, current);
    }
    let raise = format!(
        "Set `LimitNOFILE={needed}` in the unit, or `ulimit -Hn {needed}`, or lower `rx.http.connections_per_worker`."
    );
    match may {
        Ok(may) if may.has(SYS_RESOURCE) && is_enough(most) => {
            Verdict::ok(required, format!("{current}, which CAP_SYS_RESOURCE raises"))
        }
        Ok(_) => Verdict::fatal(required, current).fix(raise),
        Err(why) => Verdict::unknown(required, &Unread(format!("{current}; {}", why.0))).fix(raise),
    }
}

/// The largest receive buffer that a socket may ask for without a privilege.
pub(super) fn rmem_max() -> Read<u64> {
    let path = "/proc/sys/net/core/rmem_max";
    read_text(path)?.parse().map_err(|_| Unread(format!("{path} is no number")))
}

pub(super) fn judge_socket_buffer(wanted: u64, max: &Read<u64>, may: &Read<Capabilities>) -> Verdict {
    let required = size_text(wanted);
    match (may, max) {
        (Ok(may), _) if may.has(NET_ADMIN) => Verdict::ok(required, "any size: CAP_NET_ADMIN is there"),
        (_, Ok(max)) if *max >= wanted => Verdict::ok(required, format!("net.core.rmem_max is {max}")),
        (_, Ok(max)) => Verdict::warning(required, format!("net.core.rmem_max is {max}"))
            .fix(format!("Give the node CAP_NET_ADMIN, or run `sysctl net.core.rmem_max={wanted}`.")),
        (_, Err(why)) => Verdict::unknown(required, why),
    }
}

/// Bytes that can be had without swapping: of the machine, and of the cgroup where it says less.
pub(super) fn memory_available() -> Read<u64> {
    let machine = available(&read_text("/proc/meminfo")?)?;
    let cgroup = read_text("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.parse().ok());
    Ok(cgroup.map_or(machine, |most: u64| machine.min(most)))
}

fn available(meminfo: &str) -> Read<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Unread("/proc/meminfo has no MemAvailable".to_owned()))
}

pub(super) fn judge_memory(available: &Read<u64>, estimate: &MemoryEstimate) -> Verdict {
    let mib = |bytes: u64| size_text(bytes >> 20 << 20);
    let total = estimate.total_bytes();
    let required = format!("{} at the bounds", mib(total));
    match available {
        Ok(bytes) if *bytes >= total => Verdict::ok(required, format!("{} available", mib(*bytes))),
        Ok(bytes) => Verdict::warning(required, format!("{} available", mib(*bytes))),
        Err(why) => Verdict::unknown(required, why),
    }
}

/// What the kernel does about huge pages.
pub(super) fn huge_pages() -> Read<String> {
    read_text("/sys/kernel/mm/transparent_hugepage/enabled")
}

pub(super) fn judge_huge_pages(setting: &Read<String>) -> Verdict {
    let required = "madvise or always";
    let chosen = |text: &str| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned());
    match setting.as_deref().map(chosen) {
        Ok(Some(chosen)) if ["madvise", "always"].contains(&chosen.as_str()) => Verdict::ok(required, chosen),
        Ok(Some(chosen)) => Verdict::warning(required, chosen),
        Ok(None) => Verdict::unknown(required, &Unread("the kernel marks none as chosen".to_owned())),
        Err(why) => Verdict::unknown(required, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown, Warning};
    use super::super::finding::unreadable;
    use super::*;
    use crate::config::Config;

    #[test]
    fn capabilities_are_the_effective_ones() {
        let status = "CapPrm:\t000001fffeffffff\nCapEff:\t0000008000001000\nCapBnd:\t0\n";
        let found = Capabilities::parse(status).expect("a set");
        assert!(found.has(BPF) && found.has(NET_ADMIN) && !found.has(SYS_RESOURCE));
        assert!(Capabilities::parse("CapEff: xyz").is_err() && Capabilities::parse("").is_err());
    }

    #[test]
    fn a_missing_capability_is_named_and_weighs_as_much_as_the_config_wants_it() {
        let all = Ok(Capabilities(BPF | PERFMON | NET_ADMIN));
        let old_way = Ok(Capabilities(SYS_ADMIN | NET_ADMIN));
        let none = Ok(Capabilities(0));
        for (steered, severity) in
            [(Steered::Demanded, Fatal), (Steered::Wished, Warning), (Steered::Off, Note)]
        {
            assert_eq!(judge_capabilities(&all, steered).severity, Fine);
            assert_eq!(judge_capabilities(&old_way, steered).severity, Fine);
            let missing = judge_capabilities(&none, steered);
            assert_eq!(
                (missing.severity, missing.current.as_str()),
                (severity, "without CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN")
            );
            assert_eq!(judge_capabilities(&unreadable(), steered).severity, Unknown);
        }
        assert_eq!(
            judge_capabilities(&Ok(Capabilities(BPF | NET_ADMIN)), Steered::Off).current,
            "without CAP_PERFMON"
        );
    }

    #[test]
    fn a_limit_on_files_that_no_start_can_raise_is_fatal() {
        let files = |current, maximum, most| OpenFiles { limit: Rlimit { current, maximum }, most };
        let (plain, able) = (Ok(Capabilities(0)), Ok(Capabilities(SYS_RESOURCE)));
        let judged = |found, may| judge_open_files(found, 1000, may).severity;
        assert_eq!(judged(files(Some(1000), Some(1000), None), &plain), Fine);
        assert_eq!(judged(files(Some(10), None, None), &plain), Fine);
        assert_eq!(judged(files(Some(10), Some(999), None), &plain), Fatal);
        assert_eq!(judged(files(Some(10), Some(999), Some(1000)), &able), Fine);
        assert_eq!(judged(files(Some(10), Some(999), Some(999)), &able), Fatal);
        assert_eq!(judged(files(Some(10), Some(999), None), &unreadable()), Unknown);
    }

    #[test]
    fn a_socket_buffer_is_had_by_privilege_or_by_the_systems_bound() {
        let (plain, able) = (Ok(Capabilities(0)), Ok(Capabilities(NET_ADMIN)));
        assert_eq!(judge_socket_buffer(1 << 24, &Ok(212_992), &able).severity, Fine);
        assert_eq!(judge_socket_buffer(1 << 24, &Ok(212_992), &plain).severity, Warning);
        assert_eq!(judge_socket_buffer(1 << 24, &Ok(1 << 24), &unreadable()).severity, Fine);
        assert_eq!(judge_socket_buffer(1 << 24, &unreadable(), &plain).severity, Unknown);
    }

    #[test]
    fn memory_is_judged_at_the_bounds() {
        let estimate = MemoryEstimate::of(&Config::default(), 2);
        let total = estimate.total_bytes();
        assert_eq!(judge_memory(&Ok(total), &estimate).severity, Fine);
        assert_eq!(judge_memory(&Ok(total - 1), &estimate).severity, Warning);
        assert_eq!(judge_memory(&unreadable(), &estimate).severity, Unknown);
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Ok(2 << 20));
        assert!(available("MemFree: 1 kB\n").is_err());
    }

    #[test]
    fn huge_pages_are_there_for_who_asks_or_for_all() {
        let judged = |text: &str| judge_huge_pages(&Ok(text.to_owned())).severity;
        assert_eq!(judged("always [madvise] never"), Fine);
        assert_eq!(judged("[always] madvise never"), Fine);
        assert_eq!(judged("always madvise [never]"), Warning);
        assert_eq!(judged("what"), Unknown);
        assert_eq!(judge_huge_pages(&unreadable()).severity, Unknown);
    }
}
