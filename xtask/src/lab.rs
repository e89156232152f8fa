//! Two network namespaces and a veth between them: a POP and a sender, gone when dropped.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// A POP: a veth of its own to the senders.
pub(crate) struct Pop {
    /// The number and the name of its node.
    pub(crate) node: (u32, &'static str),
    /// The node's addresses.
    pub(crate) v4: &'static str,
    /// As [`Pop::v4`].
    pub(crate) v6: &'static str,
    /// The node's interface, where XDP attaches.
    pub(crate) interface: &'static str,
    /// The sender's addresses and interface.
    sdk_v4: &'static str,
    sdk_v6: &'static str,
    pub(crate) sdk_interface: &'static str,
}

/// The POPs of a lab.
pub(crate) static POPS: [Pop; 2] = [
    Pop {
        node: (1, "lab"),
        v4: "10.77.0.1",
        v6: "fd77::1",
        interface: "click0",
        sdk_v4: "10.77.0.2",
        sdk_v6: "fd77::2",
        sdk_interface: "sdk0",
    },
    Pop {
        node: (2, "other"),
        v4: "10.78.0.1",
        v6: "fd78::1",
        interface: "click1",
        sdk_v4: "10.78.0.2",
        sdk_v6: "fd78::2",
        sdk_interface: "sdk1",
    },
];

/// The namespaces. Named by process, so that two demos do not meet.
pub(crate) struct Lab {
    /// Where the node runs.
    pub(crate) pop: Namespace,
    /// Where the senders run.
    pub(crate) sdk: Namespace,
}

impl Lab {
    /// Makes both, with a veth for each POP that has a queue for each core.
    pub(crate) fn build(pops: &[Pop]) -> Result<Self> {
        sweep();
        let pid = std::process::id();
        let lab = Self {
            pop: Namespace::add(format!("weir-pop-{pid}"))?,
            sdk: Namespace::add(format!("weir-sdk-{pid}"))?,
        };
        pops.iter().try_for_each(|pop| lab.join(pop))?;
        Ok(lab)
    }

    fn join(&self, pop: &Pop) -> Result<()> {
        let queues = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
        let mut link = self.pop.ip();
        link.args(["link", "add", pop.interface]).args(queues);
        link.args(["type", "veth", "peer", "name", pop.sdk_interface]);
        command::output(link.args(queues).args(["netns", &self.sdk.name]))?;
        self.pop.configure(pop.interface, pop.v4, pop.v6)?;
        self.sdk.configure(pop.sdk_interface, pop.sdk_v4, pop.sdk_v6)
    }
}

/// A network namespace; deleted when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn add(name: String) -> Result<Self> {
        command::output(Command::new("ip").args(["netns", "add", &name]))
            .context("cannot make a network namespace; are you root?")?;
        Ok(Self { name })
    }

    /// What runs a program inside, by becoming it.
    pub(crate) fn within(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let within = self.within();
        let mut command = Command::new(&within[0]);
        command.args(&within[1..]).arg(program);
        command
    }

    fn ip(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["-netns", &self.name]);
        command
    }

    fn configure(&self, interface: &str, v4: &str, v6: &str) -> Result<()> {
        // A veth hands checksums over unfinished, as if a NIC came after it; a packet that XDP
        // gives to another core is then thrown away as damaged.
        command::output(self.command(Path::new("ethtool")).args(["-K", interface, "tx", "off"]))?;
        command::output(self.ip().args(["address", "add", &format!("{v4}/24"), "dev", interface]))?;
        command::output(self.ip().args(["address", "add", &format!("{v6}/64"), "dev", interface, "nodad"]))?;
        for link in ["lo", interface] {
            command::output(self.ip().args(["link", "set", link, "up"]))?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Takes the veth with it. Whoever still runs inside keeps the namespace alive, but not
        // its name; those children were ended before.
        if let Err(error) = command::output(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Removes namespaces of earlier runs that were killed before they could.
fn sweep() {
    let Ok(folder) = fs::read_dir("/run/netns") else { return };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("weir-pop-").or_else(|| name.strip_prefix("weir-sdk-"));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            println!("removing {name}, left by an earlier run");
            drop(Namespace { name });
        }
    }
}

/// Fails unless this process may make namespaces and load XDP programs.
pub(crate) fn require_root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    if uid.and_then(|ids| ids.split_whitespace().nth(1)) != Some("0") {
        bail!("this needs root: it makes network namespaces and loads an XDP program; run it with sudo -E");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> String {
        command::output(Command::new("ip").args(["netns", "list"])).unwrap()
    }

    #[test]
    fn a_lab_connects_both_families_and_leaves_nothing_behind() {
        if require_root().is_err() || !command::has("ip") || !command::has("ethtool") {
            println!("skipped: needs root, ip and ethtool (cargo xtask setup)");
            return;
        }
        let mine = format!("-{}", std::process::id());
        let lab = Lab::build(&POPS).unwrap();
        assert_eq!(namespaces().matches(&mine).count(), 2);
        for pop in &POPS {
            for (target, source) in [(pop.v4, pop.sdk_v4), (pop.v6, pop.sdk_v6)] {
                // The route inside says that the address is on the veth; no packet is needed.
                let route = command::output(lab.sdk.ip().args(["route", "get", target])).unwrap();
                assert!(route.contains(pop.sdk_interface) && route.contains(source), "{route}");
            }
            let mut asked = lab.sdk.command(Path::new("ethtool"));
            let features = asked.args(["-k", pop.sdk_interface]).output().unwrap();
            let features = String::from_utf8(features.stdout).unwrap();
            assert!(features.contains("tx-checksumming: off"), "{features}");
        }
        drop(lab);
        assert_eq!(namespaces().matches(&mine).count(), 0);
    }
}
