//! The workers' cores: there, isolated, and how their clocks are governed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::finding::{Read, Unread, Verdict, read_text};

/// Cores, by number.
pub(super) type CoreSet = BTreeSet<usize>;

const CPU: &str = "/sys/devices/system/cpu";

/// A list of cores as the kernel writes it: `0-3,8`.
pub(super) fn parse_list(text: &str) -> Option<CoreSet> {
    let mut cores = CoreSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            None => drop(cores.insert(part.parse().ok()?)),
            Some((first, last)) => cores.extend(first.parse().ok()?..=last.parse::<usize>().ok()?),
        }
    }
    Some(cores)
}

/// The same, from a file.
pub(super) fn read_list(path: &str) -> Read<CoreSet> {
    parse_list(&read_text(path)?).ok_or_else(|| Unread(format!("{path} is no list of cores")))
}

/// Cores as the kernel writes them.
pub(super) fn list_text(cores: &CoreSet) -> String {
    let mut text = String::new();
    let mut rest = cores.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|&next| next == last + 1) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ =
            if last > first { write!(text, "{comma}{first}-{last}") } else { write!(text, "{comma}{first}") };
    }
    text
}

/// The cores that are online.
pub(super) fn online() -> Read<CoreSet> {
    read_list(&format!("{CPU}/online"))
}

/// Workers' cores, against those online and those that this process may use.
pub(super) fn judge_cores(workers: &CoreSet, online: &Read<CoreSet>, allowed: &CoreSet) -> Verdict {
    let required = list_text(workers);
    if workers.is_empty() {
        return Verdict::fatal("at least one", "none: the system does not say which cores there are");
    }
    let online = match online {
        Ok(online) => online,
        Err(why) => return Verdict::unknown(required, why),
    };
    let lacking = |of: &CoreSet| list_text(&workers.difference(of).copied().collect());
    let (offline, forbidden) = (lacking(online), lacking(allowed));
    if !offline.is_empty() {
        return Verdict::fatal(required, format!("not online: {offline}"));
    }
    if !forbidden.is_empty() {
        return Verdict::fatal(required, format!("not allowed to this process: {forbidden}"));
    }
    Verdict::ok(required, format!("online {}, allowed {}", list_text(online), list_text(allowed)))
}

/// The cores that the scheduler keeps free.
pub(super) fn isolated() -> Read<CoreSet> {
    read_list(&format!("{CPU}/isolated"))
}

pub(super) fn judge_isolation(workers: &CoreSet, isolated: &Read<CoreSet>) -> Verdict {
    let required = list_text(workers);
    match isolated {
        Err(why) => Verdict::unknown(required, why),
        Ok(isolated) if workers.is_subset(isolated) => Verdict::ok(required, list_text(isolated)),
        Ok(isolated) if isolated.is_empty() => Verdict::note(required, "none"),
        Ok(isolated) => Verdict::note(required, list_text(isolated)),
    }
}

/// The governor of each worker's core.
pub(super) fn governors(workers: &CoreSet) -> Read<Vec<String>> {
    let governor = |core| read_text(&format!("{CPU}/cpu{core}/cpufreq/scaling_governor"));
    workers
        .iter()
        .map(governor)
        .collect::<Result<_, _>>()
        .map_err(|Unread(why)| Unread(format!("{why}; in a virtual machine the host governs")))
}

pub(super) fn judge_governor(governors: &Read<Vec<String>>) -> Verdict {
    let required = "performance";
    match governors {
        Err(why) => Verdict::unknown(required, why),
        Ok(all) if all.iter().all(|one| one == required) => Verdict::ok(required, required),
        Ok(all) => {
            let others: BTreeSet<_> = all.iter().map(String::as_str).collect();
            Verdict::note(required, others.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

/// Whether cores may clock higher for a while: by the driver of Intel, or of the others.
pub(super) fn turbo() -> Read<bool> {
    let intel = read_text(&format!("{CPU}/intel_pstate/no_turbo")).map(|no| no == "0");
    intel.or_else(|_| read_text(&format!("{CPU}/cpufreq/boost")).map(|boost| boost == "1")).map_err(|_| {
        Unread(format!(
            "{CPU} has neither intel_pstate/no_turbo nor cpufreq/boost; in a virtual machine the host decides"
        ))
    })
}

pub(super) fn judge_turbo(is_on: &Read<bool>) -> Verdict {
    let required = "on";
    match is_on {
        Ok(true) => Verdict::ok(required, "on"),
        Ok(false) => Verdict::note(required, "off"),
        Err(why) => Verdict::unknown(required, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown};
    use super::super::finding::unreadable;
    use super::*;

    fn set(text: &str) -> CoreSet {
        parse_list(text).expect("a list")
    }

    #[test]
    fn a_list_of_cores_is_read_and_written_as_the_kernel_does() {
        for text in ["", "0", "0-1", "0-3,8", "1,3,5-7"] {
            assert_eq!(list_text(&set(text)), text);
        }
        assert_eq!(set("0-3,8\n").len(), 5);
        assert_eq!(parse_list("0-"), None);
        assert_eq!(parse_list("all"), None);
    }

    #[test]
    fn a_core_that_is_offline_or_forbidden_is_fatal_and_named() {
        let judged = |workers, online, allowed| judge_cores(&set(workers), &Ok(set(online)), &set(allowed));
        assert_eq!(judged("0-1", "0-3", "0-3").severity, Fine);
        let offline = judged("0-4", "0-3", "0-7");
        assert_eq!((offline.severity, offline.current.as_str()), (Fatal, "not online: 4"));
        let forbidden = judged("2-3", "0-3", "0-2");
        assert_eq!(
            (forbidden.severity, forbidden.current.as_str()),
            (Fatal, "not allowed to this process: 3")
        );
        assert_eq!(judged("", "0", "0").severity, Fatal);
        assert_eq!(judge_cores(&set("0"), &unreadable(), &set("0")).severity, Unknown);
    }

    #[test]
    fn cores_without_isolation_are_a_note() {
        assert_eq!(judge_isolation(&set("2-3"), &Ok(set("2-7"))).severity, Fine);
        assert_eq!(judge_isolation(&set("1-3"), &Ok(set("2-7"))).severity, Note);
        assert_eq!(judge_isolation(&set("1-3"), &Ok(set(""))).current, "none");
        assert_eq!(judge_isolation(&set("1-3"), &unreadable()).severity, Unknown);
    }

    #[test]
    fn a_governor_that_saves_power_on_one_core_is_a_note() {
        let governors = |names: &[&str]| Ok(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(judge_governor(&governors(&["performance", "performance"])).severity, Fine);
        let mixed = judge_governor(&governors(&["performance", "powersave"]));
        assert_eq!((mixed.severity, mixed.current.as_str()), (Note, "performance, powersave"));
        assert_eq!(judge_governor(&unreadable()).severity, Unknown);
    }

    #[test]
    fn turbo_that_is_off_is_a_note() {
        assert_eq!(judge_turbo(&Ok(true)).severity, Fine);
        assert_eq!(judge_turbo(&Ok(false)).severity, Note);
        assert_eq!(judge_turbo(&unreadable()).severity, Unknown);
    }
}
