//! A POP in network namespaces: a router, two nodes that announce one address to it, and a client. Each of the three
//! hosts runs a BIRD of its own, the nodes with the config of `deploy/bird/`. Needs root, `ip` and `bird`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::process::{Process, binary};
use crate::veth::{Namespace, ip};

/// The addresses that both nodes have, as `deploy/bird/weir.conf` announces them.
pub const SERVICE: [&str; 2] = ["198.51.100.53", "2001:db8:53::53"];
/// What the nodes announce, as the same file names it.
pub const PROTOCOLS: [&str; 2] = ["weir_v4", "weir_v6"];
/// Nodes of the POP.
pub const NODES: usize = 2;
/// The router's next hops, by node and family.
const NEXT_HOPS: [[&str; 2]; NODES] =
    [["192.0.2.11", "2001:db8:0:2::11"], ["192.0.2.12", "2001:db8:0:2::12"]];
/// The router: ECMP over what the nodes announce, and BFD at the pace of theirs.
const ROUTER: &str = "
log stderr { warning, error, auth, fatal, bug };
router id 192.0.2.1;
protocol device { }
protocol kernel { ipv4 { import none; export all; }; merge paths on; }
protocol kernel { ipv6 { import none; export all; }; merge paths on; }
protocol bfd {
    interface \"*\" { min rx interval 50 ms; min tx interval 50 ms; idle tx interval 300 ms; multiplier 3; };
}
template bgp to_node {
    local as 64512;
    bfd on;
    connect delay time 1;
    connect retry time 5;
    error wait time 1, 10;
}
protocol bgp node_1_v4 from to_node { neighbor 192.0.2.11 as 64513; ipv4 { import all; export none; }; }
protocol bgp node_1_v6 from to_node { neighbor 2001:db8:0:2::11 as 64513; ipv6 { import all; export none; }; }
protocol bgp node_2_v4 from to_node { neighbor 192.0.2.12 as 64513; ipv4 { import all; export none; }; }
protocol bgp node_2_v6 from to_node { neighbor 2001:db8:0:2::12 as 64513; ipv6 { import all; export none; }; }
";
/// Whatever is waited for comes within this.
const SOON: Duration = Duration::from_secs(30);
/// How often a wait looks.
const TICK: Duration = Duration::from_millis(2);

/// Why there can be no such POP here, if so; a lab prints it and is skipped.
#[must_use]
pub fn unavailable() -> Option<String> {
    let bird = Command::new("bird").arg("--version").output();
    if !bird.is_ok_and(|output| output.status.success()) {
        return Some("there is no bird (apt install bird2)".to_owned());
    }
    Namespace::new("probe").err().map(|error| format!("no network namespaces: {error:#}"))
}

/// The network of the POP, its router and what the router knows.
#[derive(Debug)]
pub struct Pop {
    // In the order in which they go: processes before the namespaces they are in.
    _monitor: Process,
    _bird: Process,
    routes: Arc<Mutex<Vec<(Instant, String)>>>,
    folder: tempfile::TempDir,
    router: Namespace,
    nodes: Vec<Namespace>,
    client: Arc<Namespace>,
}

impl Pop {
    /// Lays the cables and starts the router. Nothing is announced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let router = Namespace::new("router")?;
        let client = Arc::new(Namespace::new("client")?);
        let nodes = (0..NODES).map(|_| Namespace::new("node")).collect::<Result<Vec<_>>>()?;
        lay(&router, &client, &nodes)?;
        let config = folder.path().join("router.conf");
        std::fs::write(&config, ROUTER)?;
        let routes = Arc::default();
        let monitor = router.within(|| monitor(&routes))?;
        let bird = router.within(|| start_bird(folder.path(), "router", &config))?;
        Ok(Self { _monitor: monitor, _bird: bird, routes, folder, router, nodes, client })
    }

    /// Does this on the host of a node.
    ///
    /// # Errors
    /// As what is done.
    pub fn at_node<T>(&self, node: usize, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.nodes[node].within(act)
    }

    /// The client's host.
    #[must_use]
    pub fn client(&self) -> Arc<Namespace> {
        Arc::clone(&self.client)
    }

    /// Starts a node's BIRD with the config that operators are given.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_bird(&self, node: usize) -> Result<Bird> {
        let name = format!("node-{node}");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/bird/weir.conf");
        let process = self.at_node(node, || start_bird(self.folder.path(), &name, &config))?;
        Ok(Bird { process, socket: socket(self.folder.path(), &name) })
    }

    /// Starts an announcer at a node: for the node that runs in `folder`, and the BIRD of that host.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_announcer(&self, node: usize, folder: &Path, rise: Duration) -> Result<Announcer> {
        let log = folder.join("announce.log");
        let mut command = Command::new(binary("weir"));
        command.arg("announce").arg("--heartbeat").arg(folder.join("run/heartbeat.sock"));
        command.arg("--bird").arg(socket(self.folder.path(), &format!("node-{node}")));
        command.args(PROTOCOLS.iter().flat_map(|name| ["--protocol", name]));
        command.args(["--rise", &rise.as_secs_f64().to_string()]);
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Announcer { process: Process::start("the announcer", &mut command)?, log })
    }

    /// Waits until the router has a session to each node that is named here, for each family.
    ///
    /// # Errors
    /// When it has none in time.
    pub fn wait_for_sessions(&self, nodes: &[usize]) -> Result<()> {
        let socket = socket(self.folder.path(), "router");
        let deadline = Instant::now() + SOON;
        loop {
            let said = birdc(&socket, "show protocols")?;
            let is_up = |name: String| {
                said.lines().any(|line| line.starts_with(&name) && line.contains("Established"))
            };
            if nodes.iter().all(|node| ["v4", "v6"].iter().all(|v| is_up(format!("node_{}_{v}", node + 1)))) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no sessions to {nodes:?}:\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The nodes that the router's kernel sends clicks to, in both families; none in between of two changes.
    ///
    /// # Errors
    /// When `ip` does not say.
    pub fn announced(&self) -> Result<Option<Vec<usize>>> {
        let router = self.router.name();
        let v4 = ip(&["-o", "-n", router, "-4", "route", "show", SERVICE[0]])?;
        let v6 = ip(&["-o", "-n", router, "-6", "route", "show", SERVICE[1]])?;
        let [v4, v6] = [next_hops(&v4, 0), next_hops(&v6, 1)];
        Ok((v4 == v6).then_some(v4))
    }

    /// Waits until clicks go to these nodes and no others. How long after `since` the router's kernel changed to that, as
    /// its own messages came; an instant before `since` counts as nothing.
    ///
    /// # Errors
    /// When that is not so in time.
    pub fn wait_until_announced(&self, nodes: &[usize], since: Instant) -> Result<Duration> {
        let deadline = Instant::now() + SOON;
        while self.announced()?.as_deref() != Some(nodes) {
            if Instant::now() >= deadline {
                bail!("the router sends to {:?} and not to {nodes:?}:\n{}", self.announced()?, self.told());
            }
            thread::sleep(TICK);
        }
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // Both families: the later of their changes to that.
        let of_family = |family: usize| {
            let is_so = |line: &str| line.contains(SERVICE[family]) && next_hops(line, family) == nodes;
            let found = routes.iter().find(|(at, line)| *at >= since && is_so(line));
            found.map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(since))
        };
        Ok(of_family(0).max(of_family(1)))
    }

    /// How often the router's kernel has changed where clicks go.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What the router's kernel said of its routes.
    #[must_use]
    pub fn told(&self) -> String {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

/// The nodes in a line of `ip route`; none of one that was deleted.
fn next_hops(line: &str, family: usize) -> Vec<usize> {
    let words: Vec<_> = line.split_whitespace().collect();
    if words.first() == Some(&"Deleted") {
        return Vec::new();
    }
    (0..NODES).filter(|&node| words.contains(&NEXT_HOPS[node][family])).collect()
}

/// A BIRD of a node's host; killed when dropped.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    socket: PathBuf,
}

impl Bird {
    /// Its config is read again, as after a change.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reconfigure(&self) -> Result<String> {
        birdc(&self.socket, "configure")
    }

    /// Freezes it, as its host would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }
}

/// A running `weir announce`; killed when dropped.
#[derive(Debug)]
pub struct Announcer {
    process: Process,
    log: PathBuf,
}

impl Announcer {
    /// Ends it by a signal, and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        self.process.wait(SOON).map(drop)
    }

    /// All that announcers at this node have logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn lay(router: &Namespace, client: &Namespace, nodes: &[Namespace]) -> Result<()> {
    let within = |host: &Namespace, arguments: &[&str]| ip(&[&["-n", host.name()], arguments].concat());
    for (index, host) in nodes.iter().chain([router, client]).enumerate() {
        // An address is used at once: nobody else is here that may have it.
        host.within(|| set(&["net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"]))
            .with_context(|| format!("host {index}"))?;
        within(host, &["link", "set", "lo", "up"])?;
    }
    within(router, &["link", "add", "lan", "type", "bridge"])?;
    within(router, &["addr", "add", "192.0.2.1/24", "dev", "lan"])?;
    within(router, &["addr", "add", "2001:db8:0:2::1/64", "dev", "lan", "nodad"])?;
    within(router, &["link", "set", "lan", "up"])?;
    router.within(|| set(&["net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1"]))?;
    for (node, host) in nodes.iter().enumerate() {
        let port = format!("n{node}");
        within(router, &["link", "add", &port, "type", "veth", "peer", "name", "w0", "netns", host.name()])?;
        within(router, &["link", "set", &port, "master", "lan", "up"])?;
        within(host, &["addr", "add", &format!("{}/24", NEXT_HOPS[node][0]), "dev", "w0"])?;
        within(host, &["addr", "add", &format!("{}/64", NEXT_HOPS[node][1]), "dev", "w0", "nodad"])?;
        within(host, &["addr", "add", &format!("{}/32", SERVICE[0]), "dev", "lo"])?;
        within(host, &["addr", "add", &format!("{}/128", SERVICE[1]), "dev", "lo"])?;
        within(host, &["link", "set", "w0", "up"])?;
        within(host, &["route", "add", "default", "via", "192.0.2.1"])?;
    }
    within(router, &["link", "add", "c0", "type", "veth", "peer", "name", "w1", "netns", client.name()])?;
    within(router, &["addr", "add", "203.0.113.1/24", "dev", "c0"])?;
    within(router, &["link", "set", "c0", "up"])?;
    within(client, &["addr", "add", "203.0.113.2/24", "dev", "w1"])?;
    within(client, &["link", "set", "w1", "up"])?;
    within(client, &["route", "add", "default", "via", "203.0.113.1"]).map(drop)
}

fn set(settings: &[&str]) -> Result<()> {
    let output = Command::new("sysctl").arg("-qw").args(settings).output().context("sysctl")?;
    ensure!(output.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes down what the kernel says of its routes, and when.
fn monitor(routes: &Arc<Mutex<Vec<(Instant, String)>>>) -> Result<Process> {
    let mut command = Command::new("ip");
    command.args(["-o", "monitor", "route"]).stdout(Stdio::piped());
    let mut process = Process::start("ip monitor", &mut command)?;
    let output = process.take_stdout().context("no output of ip monitor")?;
    let routes = Arc::clone(routes);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let is_ours = SERVICE.iter().any(|address| line.contains(address));
            let mut routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
            if is_ours {
                routes.push((Instant::now(), line));
            }
        }
    });
    Ok(process)
}

fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.ctl"))
}

fn start_bird(folder: &Path, name: &str, config: &Path) -> Result<Process> {
    let log = File::create(folder.join(format!("{name}.log")))?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(config).arg("-s").arg(socket(folder, name));
    command.arg("-P").arg(folder.join(format!("{name}.pid"))).stdout(log.try_clone()?).stderr(log);
    Process::start("bird", &mut command)
}

/// What BIRD says to a command; nothing while it does not run yet.
fn birdc(socket: &Path, command: &str) -> Result<String> {
    let output = Command::new("birdc").arg("-s").arg(socket).arg(command).output().context("birdc")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
