//! The interface that clicks arrive on: queues, rings, RSS, XDP, interrupts.

use std::fs;
use std::path::{Path, PathBuf};

use super::Condition;
use super::cores::{CoreSet, list_text, read_list};
use super::finding::{Finding, Read, Severity, Unread, Verdict, read_text};
use super::netlink::{Attached, Channels, Netlink, Ring};
use super::node::Holder;
use crate::config::{Steer, SteerMode};

const NET: &str = "/sys/class/net";
/// Bits of `enum netdev_xdp_act`: programs that pass and drop, and those that send to another core.
const XDP_BASIC: u64 = 1;
const XDP_REDIRECT: u64 = 2;
/// Fewer descriptors than this hold less than a millisecond of a million packets a second.
const RING_MIN: u32 = 1024;
/// Drivers put a frame for XDP on one page, of which some is taken up by themselves.
const MTU_MAX: u32 = 3000;

/// How much the config wants the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steered {
    /// The node does not start without it.
    Demanded,
    /// The best there is.
    Wished,
    /// Not at all.
    Off,
}

impl Steered {
    pub(super) const fn of(steer: &Steer) -> Self {
        match (steer.mode, &steer.interface) {
            (SteerMode::None, _) | (_, None) => Self::Off,
            (SteerMode::Native | SteerMode::Generic, Some(_)) => Self::Demanded,
            (SteerMode::Auto, Some(_)) => Self::Wished,
        }
    }

    /// How bad it is to go without.
    pub(super) const fn severity_without(self) -> Severity {
        match self {
            Self::Demanded => Severity::Fatal,
            Self::Wished => Severity::Warning,
            Self::Off => Severity::Note,
        }
    }
}

/// What is known of an interface that is there.
#[derive(Debug)]
struct Interface {
    index: u32,
    state: Read<String>,
    mtu: Read<u32>,
    driver: Read<String>,
    interrupts: Read<Vec<CoreSet>>,
}

impl Interface {
    /// None when there is no such interface.
    fn read(name: &str) -> Read<Option<Self>> {
        let folder = Path::new(NET).join(name);
        if !Path::new(NET).is_dir() {
            return Err(Unread(format!("{NET} is not there: /sys is not mounted")));
        }
        if !folder.is_dir() {
            return Ok(None);
        }
        let file = |file: &str| read_text(&folder.join(file).to_string_lossy());
        let number = |text: String| text.parse().map_err(|_| Unread(format!("{text:?} is no number")));
        let driver = fs::read_link(folder.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Some(Self {
            index: file("ifindex").and_then(number)?,
            state: file("operstate"),
            mtu: file("mtu").and_then(number),
            driver: driver
                .ok_or_else(|| Unread("it has no device: it is made by the kernel, as veth is".to_owned())),
            interrupts: interrupts(&folder.join("device")),
        }))
    }
}

/// The cores of each interrupt that brings packets.
fn interrupts(device: &Path) -> Read<Vec<CoreSet>> {
    let none = || Unread("its interrupts are not listed under its device".to_owned());
    let device = device.canonicalize().map_err(|_| none())?;
    // A virtio device has those of the PCI device above it.
    let listed = |folder: &Path| fs::read_dir(folder.join("msi_irqs")).ok();
    let listed = listed(&device).or_else(|| listed(device.parent()?)).ok_or_else(none)?;
    let numbers: Vec<u32> =
        listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let all: Vec<(u32, Vec<String>)> = numbers.into_iter().map(|number| (number, actions(number))).collect();
    // Where names tell which ones receive, only those count; `config` and `tx` are no matter.
    let brings = |(_, names): &&(u32, Vec<String>)| names.iter().any(|name| is_of_receiving(name));
    let receiving: Vec<_> = all.iter().filter(brings).collect();
    let chosen = if receiving.is_empty() { all.iter().collect() } else { receiving };
    let cores = |(number, _): &(u32, Vec<String>)| {
        let folder = format!("/proc/irq/{number}");
        read_list(&format!("{folder}/effective_affinity_list"))
            .or_else(|_| read_list(&format!("{folder}/smp_affinity_list")))
    };
    let found: Vec<CoreSet> = chosen.into_iter().map(cores).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// Who waits for an interrupt: the folders in its own.
fn actions(number: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/irq/{number}")).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_of_receiving(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("rx") || name.contains("input")
}

/// Everything that there is to say of the config's interface.
pub(super) fn examine(steer: &Steer, workers: &CoreSet, holder: Holder) -> Vec<Finding> {
    const OF_INTERFACE: [Condition; 7] = [
        Condition::Interface,
        Condition::Driver,
        Condition::Queues,
        Condition::Rings,
        Condition::Rss,
        Condition::Xdp,
        Condition::Irq,
    ];
    let name = match &steer.interface {
        Some(name) if Steered::of(steer) != Steered::Off => name,
        _ => {
            let off = |condition: &Condition| Verdict::not_needed("steering is off").of(*condition, None);
            return OF_INTERFACE.iter().map(off).collect();
        }
    };
    let subject = || Some(name.clone());
    let read = Interface::read(name);
    let state = read.as_ref().map(|found| found.as_ref().map(|found| found.state.clone()));
    let mut findings = vec![judge_interface(state).of(Condition::Interface, subject())];
    let found = match read {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => {
            let why = Unread(format!("{name} cannot be looked at"));
            let unknown = |condition: &Condition| Verdict::unknown("known", &why).of(*condition, subject());
            findings.extend(OF_INTERFACE[1..].iter().map(unknown));
            return findings;
        }
    };
    let netlink = Netlink::open();
    let ask = netlink.as_ref().map_err(Clone::clone);
    let index = found.index;
    let channels = ask.clone().and_then(|netlink| netlink.channels(index)).or_else(|_| queues_listed(name));
    let ring = ask.clone().and_then(|netlink| netlink.ring(index));
    let table = ask.clone().and_then(|netlink| netlink.indirection(index));
    let features = ask.clone().and_then(|netlink| netlink.xdp_features(index));
    let attached = ask.and_then(|netlink| netlink.attached(index));
    let queues = channels.as_ref().map_or(1, |channels| channels.receive as usize);
    let on = Xdp { features, attached, mtu: found.mtu, holder };
    let judged = [
        judge_driver(&found.driver),
        judge_queues(&channels, workers.len(), name),
        judge_ring(&ring, name),
        judge_rss(&table, queues, name),
        judge_xdp(&on, steer.mode, name),
        judge_irq(&found.interrupts, workers),
    ];
    findings.extend(
        OF_INTERFACE[1..].iter().zip(judged).map(|(condition, judged)| judged.of(*condition, subject())),
    );
    findings
}

/// Queues that the kernel has for an interface whose driver does not say more.
fn queues_listed(name: &str) -> Read<Channels> {
    let folder: PathBuf = Path::new(NET).join(name).join("queues");
    let entries = fs::read_dir(&folder).map_err(super::finding::unread(&folder.to_string_lossy()))?;
    let receive =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count();
    Ok(Channels { receive: receive as u32, receive_max: receive as u32 })
}

fn judge_interface(found: Result<Option<Read<String>>, &Unread>) -> Verdict {
    let required = "there, and up";
    match found {
        Err(why) => Verdict::unknown(required, why),
        Ok(None) => Verdict::fatal(required, "there is no such interface"),
        Ok(Some(Err(why))) => Verdict::unknown(required, &why),
        // Interfaces without a carrier of their own, such as lo, say that they do not know.
        Ok(Some(Ok(state))) if state == "up" || state == "unknown" => Verdict::ok(required, state),
        Ok(Some(Ok(state))) => Verdict::warning(required, state)
            .fix("Run `ip link set INTERFACE up`, and see that its cable is in."),
    }
}

fn judge_driver(driver: &Read<String>) -> Verdict {
    let required = "known";
    match driver {
        Ok(driver) => Verdict::ok(required, driver),
        Err(why) => Verdict::unknown(required, why),
    }
}

fn judge_queues(channels: &Read<Channels>, workers: usize, name: &str) -> Verdict {
    let required = format!("{workers}, one a worker");
    match channels {
        Err(why) => Verdict::unknown(required, why),
        Ok(Channels { receive, receive_max }) => {
            let current = format!("{receive}, at most {receive_max}");
            let wanted = workers.min(*receive_max as usize);
            if *receive as usize >= workers {
                Verdict::ok(required, current)
            } else if *receive as usize >= wanted {
                Verdict::note(required, current)
                    .fix("The NIC has no more; the XDP program brings packets to the other workers.")
            } else {
                Verdict::warning(required, current).fix(format!("Run `ethtool -L {name} combined {wanted}`."))
            }
        }
    }
}

fn judge_ring(ring: &Read<Ring>, name: &str) -> Verdict {
    let required = format!("at least {RING_MIN} descriptors, or all there are");
    match ring {
        Err(why) => Verdict::unknown(required, why),
        Ok(Ring { receive, receive_max }) => {
            let current = format!("{receive}, at most {receive_max}");
            let wanted = RING_MIN.min(*receive_max);
            if *receive >= wanted {
                Verdict::ok(required, current)
            } else {
                Verdict::warning(required, current).fix(format!("Run `ethtool -G {name} rx {wanted}`."))
            }
        }
    }
}

fn judge_rss(table: &Read<Vec<u32>>, queues: usize, name: &str) -> Verdict {
    let required = format!("flows go to all {queues} queues");
    match table {
        _ if queues == 1 => Verdict::not_needed("one queue: there is nothing to spread"),
        Err(why) => Verdict::unknown(required, why),
        Ok(table) => {
            let used: CoreSet = table.iter().map(|&queue| queue as usize).collect();
            let current = format!("to queues {}", list_text(&used));
            if used.len() >= queues {
                Verdict::ok(required, current)
            } else {
                Verdict::warning(required, current).fix(format!("Run `ethtool -X {name} equal {queues}`."))
            }
        }
    }
}

/// What the kernel says of XDP on an interface.
#[derive(Debug)]
struct Xdp {
    features: Read<u64>,
    attached: Read<Option<Attached>>,
    mtu: Read<u32>,
    /// Whose a program is that is there.
    holder: Holder,
}

fn judge_xdp(found: &Xdp, mode: SteerMode, name: &str) -> Verdict {
    let required = match mode {
        SteerMode::Generic => "no program of somebody else",
        _ => "in the driver, and no program of somebody else",
    };
    let refused = if mode == SteerMode::Auto { Severity::Warning } else { Severity::Fatal };
    match &found.attached {
        Err(why) => return Verdict::unknown(required, why),
        Ok(Some(Attached { program })) if found.holder == Holder::Unknown => {
            return Verdict::unknown(
                required,
                &Unread(format!(
                    "program {program} is attached, and the node may not be asked whether it is its own"
                )),
            )
            .fix("Ask as the user that the node runs as.");
        }
        Ok(Some(Attached { program })) if found.holder == Holder::Other => {
            return Verdict::new(refused, required, format!("program {program} is attached"))
                .fix(format!("Run `ip link set {name} xdp off`, when nobody needs it."));
        }
        Ok(_) => {}
    }
    if mode == SteerMode::Generic {
        return Verdict::ok(required, "none is attached");
    }
    match (&found.features, &found.mtu) {
        (Err(why), _) => Verdict::unknown(required, why),
        (Ok(features), _) if features & XDP_BASIC == 0 => {
            Verdict::new(refused, required, "the driver runs no XDP programs")
        }
        (Ok(features), _) if features & XDP_REDIRECT == 0 => {
            Verdict::warning(required, "the driver runs XDP programs, but sends no packet to another core")
        }
        (Ok(_), Ok(mtu)) if *mtu > MTU_MAX => {
            Verdict::warning(required, format!("the driver runs XDP programs; MTU {mtu}")).fix(format!(
                "Run `ip link set {name} mtu 1500`: many drivers refuse XDP on frames over a page."
            ))
        }
        (Ok(_), _) => Verdict::ok(required, "the driver runs XDP programs"),
    }
}

fn judge_irq(interrupts: &Read<Vec<CoreSet>>, workers: &CoreSet) -> Verdict {
    let required = format!("on the workers' cores {}, spread", list_text(workers));
    let interrupts = match interrupts {
        Ok(interrupts) => interrupts,
        Err(why) => return Verdict::unknown(required, why),
    };
    let used: CoreSet = interrupts.iter().flatten().copied().collect();
    let current = format!("{} on cores {}", interrupts.len(), list_text(&used));
    let wanted = interrupts.len().min(workers.len());
    if used.len() == 1 && wanted > 1 {
        Verdict::warning(required, current)
    } else if !used.is_subset(workers) || used.len() < wanted {
        Verdict::note(required, current)
    } else {
        Verdict::ok(required, current)
    }
}

#[cfg(test)]
mod tests;
