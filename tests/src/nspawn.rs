//! A POP of hosts in containers, each a small Debian with a systemd of its own, behind a router. Needs root, and what
//! `cargo xtask setup` makes under the target folder.
//!
//! Hosts and router are network namespaces at one bridge; the addresses are those of `deploy/ansible/inventory/sample.yml`.
//! Every process of a POP is in one cgroup, and killed with it. Start reading at [`Pop::boot`].

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::veth::{Namespace, ip};

/// The router's address, and the host's of a number from 1.
pub const ROUTER: &str = "192.0.2.1";
/// The address that the nodes announce.
pub const ANYCAST: &str = "198.51.100.1";
/// How often BFD speaks here, and after how many silences a path is down: a machine that is busy with other tests is silent for
/// a while, too.
pub const BFD_INTERVAL_MS: u32 = 300;
/// See [`BFD_INTERVAL_MS`].
pub const BFD_MULTIPLIER: u32 = 5;
/// A container is up, and a router has learnt, within this.
const SOON: Duration = Duration::from_secs(60);
/// How often a wait looks.
const TICK: Duration = Duration::from_millis(50);
/// Where cgroups of the second version are, beside those of the first or alone.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Where systemd-nspawn makes the same cgroups once more, on machines that have both versions. Nothing is ever in them.
const CGROUPS_TWIN: &str = "/sys/fs/cgroup/systemd";
/// How the cgroup of every POP begins; the process follows.
const PREFIX: &str = "weir-pop-";

/// Lays a layer over the Debian that belongs to this host alone, in a mount namespace that goes with it.
const LAYER: &str = "echo $$ > \"$CGROUP/cgroup.procs\"; mount --make-rprivate /; \
    mount -t overlay overlay -o lowerdir=\"$DEBIAN\",upperdir=\"$HOST/own\",workdir=\"$HOST/work\" \"$HOST/root\"; ";
/// Boots a host. It needs a `/run` without the marks of the machine's own systemd, and the calls of io_uring and BPF, as a
/// machine has them.
const BOOT: &str = "exec 3<\"/run/netns/$NETNS\"; mount -t tmpfs tmpfs /run; \
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network; \
    exec systemd-nspawn --quiet --boot --directory=\"$HOST/root\" --machine=\"$NAME\" --register=no --keep-unit \
    --network-namespace-path=/proc/self/fd/3 --capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON \
    --system-call-filter='@aio bpf perf_event_open' --console=pipe";
/// Runs the router's BIRD, out of the same Debian.
const ROUTE: &str = "exec chroot \"$HOST/root\" /usr/sbin/bird -f -c /etc/bird/bird.conf -s /run/bird.ctl";

/// A POP: a router, and hosts with nothing on them.
#[derive(Debug)]
pub struct Pop {
    // Processes before what they run in.
    bird: Option<Process>,
    hosts: Vec<Host>,
    cgroup: Cgroup,
    router: Namespace,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Host {
    netns: Namespace,
    process: Option<Process>,
}

impl Pop {
    /// Why this machine can have none, if it can not.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let there = |program: &str| {
            let mut asked = Command::new(program);
            asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        if !rustix::process::getuid().is_root() {
            Some("only root can boot hosts in containers".to_owned())
        } else if !there("systemd-nspawn") || !nspawn_folder().join("made-of").exists() {
            Some("there is no systemd-nspawn, or no Debian for it: `cargo xtask setup` makes both".to_owned())
        } else {
            None
        }
    }

    /// Boots a router and so many hosts, and waits until each can be reached. This thread is then where the router is, and so
    /// is what it starts.
    ///
    /// # Errors
    /// When the system refuses, or a host does not come up.
    pub fn boot(hosts: usize) -> Result<Self> {
        sweep();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(nspawn_folder())?;
        let (cgroup, router) = (Cgroup::new()?, Namespace::new("router")?);
        let mut pop = Self { bird: None, hosts: Vec::new(), cgroup, router, folder };
        pop.router.enter()?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "pop", "type", "bridge"])?;
        ip(&["addr", "add", &format!("{ROUTER}/24"), "dev", "pop"])?;
        ip(&["link", "set", "pop", "up"])?;
        whole_checksums("pop")?;
        // Flows, not only addresses, are spread over the nodes.
        fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1").context("the router's hash")?;
        pop.make_key()?;
        for number in 1..=hosts {
            let netns = Namespace::new("host")?;
            pop.hosts.push(Host { netns, process: None });
            pop.cable(number)?;
            pop.start(number)?;
        }
        pop.start_router()?;
        (1..=hosts).try_for_each(|number| pop.wait_until_reachable(number))?;
        Ok(pop)
    }

    /// A folder for whatever belongs to this POP.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The private key that hosts let in, and the file of their own public keys.
    #[must_use]
    pub fn ssh_files(&self) -> (PathBuf, PathBuf) {
        (self.folder().join("ssh-key"), self.folder().join("known-hosts"))
    }

    /// Puts a command that is started here under what ends with the POP.
    #[must_use]
    pub fn bound(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]);
        command.arg(self.cgroup.below("here")).arg(program);
        command
    }

    /// Runs a command on a host and gives back what it printed; it must succeed.
    ///
    /// # Errors
    /// When it does not, with what it said.
    pub fn on(&self, number: usize, command: &str) -> Result<String> {
        let (key, known) = self.ssh_files();
        let mut ssh = self.bound(Path::new("ssh"));
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-i"]).arg(key);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        let output = ssh.arg(format!("root@{}", address(number))).arg(command).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pop-{number}: {command}: {}: {said}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills a host as a power cut does: its processes are gone, its disk is not.
    ///
    /// # Errors
    /// When it does not end.
    pub fn lose(&mut self, number: usize) -> Result<()> {
        let cgroup = self.cgroup.below(&format!("pop-{number}"));
        fs::write(cgroup.join("cgroup.kill"), "1")?;
        let mut process = self.hosts[number - 1].process.take().context("it runs")?;
        process.wait(SOON).map(drop)
    }

    /// Boots a host that was lost, with the disk it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot_again(&mut self, number: usize) -> Result<()> {
        self.start(number)?;
        self.wait_until_reachable(number)
    }

    /// Waits until so many nodes are what the router sends clicks to.
    ///
    /// # Errors
    /// When it takes too long, with the route there is.
    pub fn wait_until_announced(&self, nodes: usize) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let route = ip(&["route", "show", ANYCAST])?;
            if route.matches("via").count() == nodes {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{nodes} nodes are not announced: {route:?}");
            std::thread::sleep(TICK);
        }
    }

    /// Draws a key and lets it in everywhere; the hosts' own keys are those of their Debian.
    fn make_key(&self) -> Result<()> {
        let (key, known) = self.ssh_files();
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key);
        ensure!(keygen.status()?.success(), "ssh-keygen failed");
        let own = fs::read_to_string(debian().join("etc/ssh/ssh_host_ed25519_key.pub"))?;
        let own = own.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let line = |number| format!("{} {own}\n", address(number));
        Ok(fs::write(known, (1..10).map(line).collect::<String>())?)
    }

    /// A cable from a host to the bridge.
    fn cable(&self, number: usize) -> Result<()> {
        let (host, port) = (self.hosts[number - 1].netns.name(), format!("port-{number}"));
        ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", host])?;
        ip(&["link", "set", &port, "master", "pop", "up"])?;
        whole_checksums(&port)?;
        ip(&["-n", host, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"])?;
        ip(&["-n", host, "link", "set", "eth0", "up"])?;
        ip(&["-n", host, "link", "set", "lo", "up"])?;
        ip(&["-n", host, "route", "add", "default", "via", ROUTER]).map(drop)
    }

    /// The folders of a layer, what is to be in it, and the shell that enters it.
    fn layer(&self, name: &str, then: &str) -> Result<(PathBuf, Command)> {
        let host = self.folder().join(name);
        for part in ["own", "work", "root"] {
            fs::create_dir_all(host.join(part))?;
        }
        let log = fs::File::create(host.join("console.log"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec"]).arg(format!("{LAYER}{then}"));
        command.env("DEBIAN", debian()).env("HOST", &host).env("NAME", name);
        command.env("CGROUP", self.cgroup.below(name));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((host, command))
    }

    fn start(&mut self, number: usize) -> Result<()> {
        let name = format!("pop-{number}");
        let (host, mut command) = self.layer(&name, BOOT)?;
        let ssh = host.join("own/root/.ssh");
        fs::create_dir_all(&ssh)?;
        for folder in [ssh.as_path(), &host.join("own/root")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        fs::copy(self.folder().join("ssh-key.pub"), ssh.join("authorized_keys"))?;
        let etc = host.join("own/etc");
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("hostname"), format!("{name}\n"))?;
        let started = &mut self.hosts[number - 1];
        command.env("NETNS", started.netns.name());
        started.process = Some(Process::start("a host", &mut command)?);
        Ok(())
    }

    fn start_router(&mut self) -> Result<()> {
        let (host, mut command) = self.layer("router", ROUTE)?;
        let config = host.join("own/etc/bird");
        fs::create_dir_all(&config)?;
        fs::write(config.join("bird.conf"), router_config(self.hosts.len()))?;
        self.bird = Some(Process::start("the router", &mut command)?);
        Ok(())
    }

    fn wait_until_reachable(&self, number: usize) -> Result<()> {
        let deadline = Instant::now() + SOON;
        let at: SocketAddr = format!("{}:22", address(number)).parse()?;
        while TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_err() {
            let log = self.folder().join(format!("pop-{number}/console.log"));
            ensure!(
                Instant::now() < deadline,
                "pop-{number} is not reachable:\n{}",
                fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

/// The address of a host.
#[must_use]
pub fn address(number: usize) -> String {
    format!("192.0.2.{}", 10 + number)
}

/// As `deploy/ansible/inventory/sample.yml` has the other end.
fn router_config(hosts: usize) -> String {
    let mut text = format!(
        "router id {ROUTER};\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ interval {BFD_INTERVAL_MS} ms; multiplier {BFD_MULTIPLIER}; }}; }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export all; }}; }}\n"
    );
    for number in 1..=hosts {
        text += &format!(
            "protocol bgp node{number} {{ local {ROUTER} as 65000; neighbor {} as 65010; bfd on; \
             connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
            address(number)
        );
    }
    text
}

/// What a card would fill in is missing where XDP sends a packet to another CPU.
fn whole_checksums(interface: &str) -> Result<()> {
    let turned_off = Command::new("ethtool").args(["-K", interface, "tx", "off"]).output()?;
    ensure!(turned_off.status.success(), "ethtool -K {interface}: {turned_off:?}");
    Ok(())
}

/// Where `cargo xtask setup` makes what containers are made of: beside the profile that this test is of.
fn nspawn_folder() -> PathBuf {
    target().join("nspawn")
}

fn debian() -> PathBuf {
    nspawn_folder().join("root")
}

/// The target folder.
pub(crate) fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(3).map(Path::to_path_buf).unwrap_or_default()
}

/// A cgroup with one below it for each host; when it goes, so does every process in them.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let base = CGROUPS.iter().map(Path::new).find(|base| base.join("cgroup.procs").exists());
        let base = base.context("there are no cgroups of the second version")?;
        let cgroup = Self(base.join(format!("{PREFIX}{}-{}", std::process::id(), rand::random::<u16>())));
        for name in ["router", "here", "pop-1", "pop-2", "pop-3"] {
            fs::create_dir_all(cgroup.below(name))?;
        }
        Ok(cgroup)
    }

    fn below(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
        if let Some(name) = self.0.file_name() {
            let _ = try_remove(&Path::new(CGROUPS_TWIN).join(name));
        }
    }
}

/// Kills what is in a cgroup, and removes it with all below it.
fn remove(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let deadline = Instant::now() + SOON;
    while !try_remove(cgroup) && Instant::now() < deadline {
        std::thread::sleep(TICK);
    }
}

/// Whether it is gone. It can be as soon as nothing is in it any more.
fn try_remove(cgroup: &Path) -> bool {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    below.filter(|path| !try_remove(path)).count() == 0 && fs::remove_dir(cgroup).is_ok()
}

/// Removes what runs left that were killed: processes first, then their networks and disks.
fn sweep() {
    for base in CGROUPS {
        left(Path::new(base), PREFIX).iter().for_each(|cgroup| remove(cgroup));
    }
    left(Path::new(CGROUPS_TWIN), PREFIX).iter().for_each(|cgroup| _ = try_remove(cgroup));
    for role in ["weir-router-", "weir-host-"] {
        for netns in left(Path::new("/run/netns"), role) {
            let _ = ip(&["netns", "del", &netns.file_name().unwrap_or_default().to_string_lossy()]);
        }
    }
    for folder in left(&nspawn_folder(), PREFIX) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// What is named so, and after a process that is gone.
fn left(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let owner = rest.and_then(|rest| rest.split('-').next());
        owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists())
    };
    entries.filter(is_left).map(|entry| entry.path()).collect()
}
