//! Nodes whose address is anycast: a router, two nodes and a client in namespaces, real BIRDs on the three of them, and
//! what the router's kernel does with clicks when a node comes, dies, freezes or fills up.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use weir_labs::anycast::{Announcer, Bird, PROTOCOLS, Pop, SERVICE, unavailable};
use weir_labs::clicks::numbered;
use weir_labs::{Generator, Load, Node, NodeFolder, Setup, SmallDisk, binary};
use weir_sdk::{Config, Ledger, UdpClient};

/// Shorter than an operator's, for a lab that waits for it.
const RISE: Duration = Duration::from_millis(300);
/// Whatever is waited for comes within this.
const SOON: Duration = Duration::from_secs(30);

/// One lab at a time: they measure, and each would be the other's noise. None where they cannot run.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = unavailable() {
        println!("skipped: {why}");
        return None;
    }
    Some(alone)
}

/// A node's folder with the addresses that are announced, and the port of another node.
fn folder(node: usize, port: Option<u16>, setup: Setup<'_>) -> NodeFolder {
    let folder = NodeFolder::with(setup).expect("folder");
    folder.reconfigure("id", &format!("id = {}", node + 1)).expect("an id");
    let addresses = format!("addresses = [\"127.0.0.1\", \"{}\", \"{}\"]", SERVICE[0], SERVICE[1]);
    folder.reconfigure("addresses", &addresses).expect("addresses");
    if let Some(port) = port {
        folder.reconfigure("port", &format!("port = {port}")).expect("a port");
    }
    folder
}

fn folders() -> [NodeFolder; 2] {
    let first = folder(0, None, Setup::default());
    let second = folder(1, Some(first.port()), Setup::default());
    [first, second]
}

/// A host of the POP with all that runs on it.
struct Site<'a> {
    pop: &'a Pop,
    number: usize,
    folder: &'a NodeFolder,
    rise: Duration,
    node: Option<Node<'a>>,
    bird: Option<Bird>,
    announcer: Option<Announcer>,
}

impl<'a> Site<'a> {
    /// BIRD and the announcer; no node yet.
    fn new(pop: &'a Pop, number: usize, folder: &'a NodeFolder, rise: Duration) -> Self {
        let bird = Some(pop.start_bird(number).expect("bird"));
        let mut site = Self { pop, number, folder, rise, node: None, bird, announcer: None };
        site.start_announcer();
        site
    }

    fn start_announcer(&mut self) {
        self.announcer =
            Some(self.pop.start_announcer(self.number, self.folder.path(), self.rise).expect("an announcer"));
    }

    fn start_node(&mut self) {
        self.node = Some(self.pop.at_node(self.number, || self.folder.start_ready()).expect("ready"));
    }

    fn kill_node(&mut self) {
        self.node.take().expect("a node").kill().expect("killed");
    }

    fn signal_node(&self, signal: Signal) {
        let id = self.node.as_ref().expect("a node").id();
        kill_process(Pid::from_raw(id.cast_signed()).expect("a process"), signal).expect("a signal");
    }

    fn log(&self) -> String {
        self.announcer.as_ref().expect("an announcer").log()
    }
}

/// Both nodes, announced.
fn both<'a>(pop: &'a Pop, folders: &'a [NodeFolder; 2]) -> [Site<'a>; 2] {
    let mut sites = [0, 1].map(|number| Site::new(pop, number, &folders[number], RISE));
    sites.iter_mut().for_each(Site::start_node);
    pop.wait_until_announced(&[0, 1], Instant::now()).expect("both are announced");
    sites
}

/// The first node, announced.
fn first<'a>(pop: &'a Pop, folder: &'a NodeFolder) -> Site<'a> {
    let mut site = Site::new(pop, 0, folder, RISE);
    site.start_node();
    pop.wait_until_announced(&[0], Instant::now()).expect("announced");
    site
}

/// Clients that send clicks to the announced address, a few at a time, until they are told to stop.
struct Clicking {
    stop: Arc<AtomicBool>,
    flows: Vec<JoinHandle<Result<Ledger>>>,
}

impl Clicking {
    fn start(pop: &Pop, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flow = |number: u128| {
            let (stop, client) = (Arc::clone(&stop), pop.client());
            thread::spawn(move || {
                client.enter()?;
                let node = format!("{}:{port}", SERVICE[0]).parse()?;
                // A resend finds the way that the router knows by then.
                let config = Config { seed: rand::random(), attempts_max: 60, ..Config::default() };
                let mut client = UdpClient::connect(node, config)?;
                for round in 0.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    for click in numbered(number << 64 | round << 8, 5) {
                        client.offer(&click, &[]).context("the sender has no room")?;
                    }
                    client.flush(SOON).context("clicks without an answer")?;
                }
                Ok(*client.ledger())
            })
        };
        // Enough for both nodes to have some, whatever their ports are hashed to.
        Self { flows: (1..=12).map(flow).collect(), stop }
    }

    /// Clicks that were sent, and those that were acknowledged.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Release);
        let books = self.flows.into_iter().map(|flow| flow.join().expect("a flow").expect("answers"));
        books.fold((0, 0), |(sent, acked), books| (sent + books.created, acked + books.acked()))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Listens to the heartbeat of a node that starts; when it says for the first time that it is ready.
fn first_ready(folder: &NodeFolder) -> JoinHandle<Instant> {
    let path = folder.path().join("run/heartbeat.sock");
    thread::spawn(move || {
        let deadline = Instant::now() + SOON;
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(1));
        };
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut beats = BufReader::new(stream).lines();
        assert!(beats.any(|beat| beat.expect("a beat") == "1"), "it ended before it was ready");
        Instant::now()
    })
}

#[test]
fn nodes_are_announced_only_after_they_are_ready() {
    let Some(_alone) = alone() else { return };
    let (pop, folders) = (Pop::new().expect("a POP"), folders());
    let rise = Duration::from_secs(1);
    let mut sites = [0, 1].map(|number| Site::new(&pop, number, &folders[number], rise));
    pop.wait_for_sessions(&[0, 1]).expect("sessions");
    assert_eq!(pop.announced().expect("routes"), Some(vec![]), "there is no node yet");
    let mut so_far = Vec::new();
    for site in &mut sites {
        let started = Instant::now();
        let ready = first_ready(site.folder);
        site.start_node();
        so_far.push(site.number);
        let announced = started + pop.wait_until_announced(&so_far, started).expect("announced");
        let took = announced.saturating_duration_since(ready.join().expect("a beat"));
        println!("announced {took:?} after it was ready for the first time");
        // The announcer heard of it at the same beat, and maybe some moments before this test.
        assert!(took >= rise - Duration::from_millis(100), "{took:?}");
    }
    assert!(sites[0].log().contains("announced: the node has been ready"), "{}", sites[0].log());
}

#[test]
fn a_node_that_dies_is_withdrawn_at_once_and_announced_again_when_it_is_ready() {
    let Some(_alone) = alone() else { return };
    let (pop, folders) = (Pop::new().expect("a POP"), folders());
    let mut sites = both(&pop, &folders);
    let clicking = Clicking::start(&pop, folders[0].port());
    for site in &mut sites {
        site.node.as_mut().expect("a node").wait_until_counting().expect("both nodes get clicks");
    }
    let mut times = Vec::new();
    for dying in [0, 1, 0, 1, 0] {
        let killed = Instant::now();
        sites[dying].kill_node();
        times.push(pop.wait_until_announced(&[1 - dying], killed).expect("withdrawn"));
        let started = Instant::now();
        sites[dying].start_node();
        let took = pop.wait_until_announced(&[0, 1], started).expect("announced again");
        assert!(took >= RISE, "{took:?}");
    }
    let (sent, acked) = clicking.finish();
    println!("from kill -9 to the router's kernel: {times:?}; {acked} of {sent} clicks were acknowledged");
    assert!(times.iter().all(|time| *time <= Duration::from_millis(150)), "{times:?}");
    assert!(median(times.clone()) <= Duration::from_millis(50), "{times:?}");
    assert!(times.iter().all(|time| !time.is_zero()), "no change was seen: {times:?}");
    assert!(sent > 100 && acked == sent, "{acked} of {sent} clicks were acknowledged");
}

#[test]
fn a_node_that_freezes_is_withdrawn_within_300_ms_and_announced_again_when_it_goes_on() {
    let Some(_alone) = alone() else { return };
    let (pop, folders) = (Pop::new().expect("a POP"), folders());
    let sites = both(&pop, &folders);
    let mut times = Vec::new();
    for _ in 0..3 {
        let frozen = Instant::now();
        sites[0].signal_node(Signal::STOP);
        times.push(pop.wait_until_announced(&[1], frozen).expect("withdrawn"));
        let thawed = Instant::now();
        sites[0].signal_node(Signal::CONT);
        let took = pop.wait_until_announced(&[0, 1], thawed).expect("announced again");
        assert!(took >= RISE, "{took:?}");
    }
    println!("from SIGSTOP to the router's kernel: {times:?}");
    let log = sites[0].log();
    assert!(log.contains("withdrawn: the node is frozen: no beat for 200 ms"), "{log}");
    assert!(median(times.clone()) <= Duration::from_millis(300), "{times:?}");
}

#[test]
fn a_host_that_freezes_is_withdrawn_by_the_router_itself() {
    let Some(_alone) = alone() else { return };
    let (pop, folders) = (Pop::new().expect("a POP"), folders());
    let sites = both(&pop, &folders);
    let bird = sites[0].bird.as_ref().expect("a BIRD");
    let frozen = Instant::now();
    bird.freeze().expect("frozen");
    let took = pop.wait_until_announced(&[1], frozen).expect("withdrawn");
    println!("from a frozen BIRD to the router's kernel, by BFD: {took:?}");
    // Without BFD it would be the hold time of BGP, minutes.
    assert!(took <= Duration::from_secs(1), "{took:?}");
    bird.thaw().expect("thawed");
    pop.wait_until_announced(&[0, 1], frozen).expect("announced again");
}

#[test]
fn a_node_whose_journal_is_full_is_withdrawn_and_comes_back_when_there_is_space() {
    let Some(_alone) = alone() else { return };
    if let Some(why) = SmallDisk::unavailable() {
        return println!("skipped: {why}");
    }
    let disk = SmallDisk::ext4(256 << 20).expect("disk");
    let journal = Some("segment_size = \"4MiB\"\nmax_size = \"64GiB\"\ncommit_window = \"1ms\"");
    let folder = folder(0, None, Setup { data: Some(disk.path()), journal, ..Setup::default() });
    let pop = Pop::new().expect("a POP");
    let site = first(&pop, &folder);
    let load = Load { profile: "demo", rate: 6000, duration: Duration::from_secs(8), seed: 11 };
    let generator = pop.at_node(0, || Generator::start(&folder, load)).expect("generator");
    let ballast = disk.fill().expect("ballast");
    pop.wait_until_announced(&[], Instant::now()).expect("withdrawn");
    assert!(site.log().contains("withdrawn: the node says: the journal is full"), "{}", site.log());
    drop(ballast);
    pop.wait_until_announced(&[0], Instant::now()).expect("announced again");
    drop(generator);
}

#[test]
fn a_bird_that_was_restarted_or_whose_config_was_read_again_is_told_again() {
    let Some(_alone) = alone() else { return };
    let (pop, folder) = (Pop::new().expect("a POP"), folder(0, None, Setup::default()));
    let mut site = first(&pop, &folder);
    let (read, changes) = (Instant::now(), pop.changes());
    site.bird.as_ref().expect("a BIRD").reconfigure().expect("configure");
    while !site.log().contains("BIRD did not have it as it was told") {
        assert!(read.elapsed() < SOON, "{}", site.log());
        thread::sleep(Duration::from_millis(10));
    }
    let back = pop.wait_until_announced(&[0], read).expect("announced again");
    assert!(pop.changes() > changes, "it was never withdrawn");
    println!("after `birdc configure` announced again in {back:?}");
    let killed = Instant::now();
    site.bird = None;
    pop.wait_until_announced(&[], killed).expect("withdrawn");
    site.bird = Some(pop.start_bird(0).expect("a new BIRD"));
    let back = pop.wait_until_announced(&[0], killed).expect("announced again");
    println!("with a new BIRD announced {back:?} after the old one was killed");
}

#[test]
fn an_announcer_that_ends_leaves_the_announcement_and_the_next_one_goes_on() {
    let Some(_alone) = alone() else { return };
    let (pop, folder) = (Pop::new().expect("a POP"), folder(0, None, Setup::default()));
    let mut site = first(&pop, &folder);
    let changes = pop.changes();
    for signal in [Signal::TERM, Signal::KILL] {
        site.announcer.take().expect("an announcer").end(signal).expect("ended");
        let ended = site.folder.path().join("announce.log");
        let decisions = || std::fs::read_to_string(&ended).expect("a log").matches(" announced: ").count();
        let before = decisions();
        site.start_announcer();
        let deadline = Instant::now() + SOON;
        while decisions() == before {
            assert!(Instant::now() < deadline, "the next announcer decides nothing: {}", site.log());
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(pop.changes(), changes, "{signal:?}: {}", pop.told());
    }
    let killed = Instant::now();
    site.kill_node();
    pop.wait_until_announced(&[], killed).expect("the last announcer withdraws");
    // A node that dies while no announcer is there is withdrawn by the next one.
    site.start_node();
    pop.wait_until_announced(&[0], killed).expect("announced");
    site.announcer.take().expect("an announcer").end(Signal::KILL).expect("ended");
    site.kill_node();
    let started = Instant::now();
    site.start_announcer();
    let took = pop.wait_until_announced(&[], started).expect("withdrawn");
    assert!(took <= Duration::from_secs(5), "{took:?}");
}

/// `weir announce --dry-run`, killed when dropped.
struct DryRun {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl DryRun {
    fn start(folder: &NodeFolder, manager: &Path) -> Self {
        let mut command = Command::new(binary("weir"));
        command.args(["announce", "--dry-run", "--rise", "0.1", "--heartbeat"]);
        command.arg(folder.path().join("run/heartbeat.sock")).args(["--bird", "/nowhere"]);
        command.args(PROTOCOLS.iter().flat_map(|name| ["--protocol", name]));
        command.env("NOTIFY_SOCKET", manager).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("an announcer");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// What it would tell BIRD next.
    fn next(&mut self) -> [String; 2] {
        [(); 2].map(|()| self.lines.next().expect("a line").expect("text"))
    }
}

impl Drop for DryRun {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn more_protocols_than_a_withdrawal_can_wait_for_are_refused() {
    let announce = |protocols: usize| {
        let mut command = Command::new(binary("weir"));
        command.args(["announce", "--dry-run", "--heartbeat", "/nowhere"]);
        command.args((0..protocols).flat_map(|number| ["--protocol".to_owned(), format!("weir_{number}")]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("an announcer")
    };
    let refused = announce(17).wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--protocol was given 17 times, and may be given 16 times at the most"), "{said}");
    let mut taken = announce(16);
    let mut lines = BufReader::new(taken.stdout.take().expect("a pipe")).lines();
    let told = (0..16).filter(|_| lines.next().is_some_and(|line| line.is_ok())).count();
    taken.kill().and_then(|()| taken.wait()).expect("an end");
    assert_eq!(told, 16);
}

#[test]
fn a_dry_run_prints_what_bird_would_be_told_and_the_service_manager_hears_how_it_stands() {
    let folder = NodeFolder::new("").expect("folder");
    let path = folder.path().join("manager");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a timeout");
    let told = |expected: &str| {
        let mut buffer = [0; 512];
        loop {
            let len = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{expected}: {error}"));
            if String::from_utf8_lossy(&buffer[..len]).contains(expected) {
                return;
            }
        }
    };
    let mut dry_run = DryRun::start(&folder, &path);
    told("READY=1");
    assert_eq!(dry_run.next(), ["disable weir_v4", "disable weir_v6"], "there is no node");
    told("STATUS=withdrawn: no node answers");
    let node = folder.start_ready().expect("ready");
    assert_eq!(dry_run.next(), ["enable weir_v4", "enable weir_v6"]);
    told("STATUS=announced");
    node.kill().expect("killed");
    assert_eq!(dry_run.next(), ["disable weir_v4", "disable weir_v6"]);
    told("STATUS=withdrawn: ");
}
