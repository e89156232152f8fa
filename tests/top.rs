//! `weir top` as its users have it: in a terminal, over HTTP, and from a recording.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_labs::clicks::{numbered, send};
use weir_labs::{NodeFolder, binary};

/// A screen shows what it is to show within this.
const SHOWN_MAX: Duration = Duration::from_secs(20);

/// `weir top` in a pseudo-terminal of 80 by 24, as the default of the parser is, whose screen is read as a terminal would.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn open(arguments: &str) -> Self {
        let top = binary("weir");
        // As under nohup: a terminal that goes away does not end it by a signal.
        let shell = format!("trap '' HUP; stty rows 24 cols 80; exec {} top {arguments}", top.display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &shell, "/dev/null"]);
        command
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("script, of bsdutils, which every Debian has");
        let (keys, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let screen = Arc::new(Mutex::new(vt100::Parser::default()));
        let drawn = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                drawn.lock().expect("screen").process(&bytes[..len]);
            }
        });
        Self { child, keys, screen }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("keys");
    }

    fn text(&self) -> String {
        self.screen.lock().expect("screen").screen().contents()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let until = Instant::now() + SHOWN_MAX;
        while !self.text().contains(text) {
            assert!(Instant::now() < until, "{text:?} is not on the screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(folder: &NodeFolder) -> String {
    format!("--socket {}", folder.path().join("run/weir.sock").display())
}

#[test]
fn in_a_terminal_keys_show_what_they_say_and_it_is_left_as_it_was() {
    let folder = NodeFolder::new("").expect("folder");
    let node = folder.start_ready().expect("ready");
    let mut terminal = Terminal::open(&format!("{} --interval-ms 100", socket(&folder)));
    terminal.wait_for("[1 Overview]");
    assert!(terminal.screen.lock().expect("screen").screen().alternate_screen());
    send(&folder, &numbered(1, 40)).expect("answers");
    terminal.wait_for("in 40  decided 40");
    for (key, shown) in
        [("2", "Heat:"), ("3", "nothing dropped"), ("4", "the books close"), ("5", "until it is full")]
    {
        terminal.press(key);
        terminal.wait_for(shown);
    }
    terminal.press("6");
    terminal.wait_for("READY: the node's addresses should be announced");
    terminal.press("f");
    terminal.wait_for("FROZEN");
    drop(node);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!terminal.text().contains("DOES NOT ANSWER"), "a held picture stays");
    terminal.press("f");
    terminal.wait_for("DOES NOT ANSWER");
    terminal.press("q");
    assert!(terminal.child.wait().expect("it ends").success());
    let until = Instant::now() + SHOWN_MAX;
    loop {
        let parser = terminal.screen.lock().expect("screen");
        let screen = parser.screen();
        if !screen.alternate_screen() && !screen.hide_cursor() {
            break;
        }
        assert!(Instant::now() < until, "the terminal is not restored");
        drop(parser);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn top(arguments: &[&str], file: (&str, &Path)) -> (bool, Value) {
    let output = Command::new(binary("weir")).arg("top").args(arguments).arg(file.0).arg(file.1).output();
    let output = output.expect("weir top runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}")))
}

#[test]
fn nodes_are_watched_over_http_recorded_and_replayed() {
    let folder = NodeFolder::new("").expect("folder");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    folder.reconfigure("listen", &format!("listen = \"{address}\"")).expect("config");
    let node = folder.start_ready().expect("ready");
    send(&folder, &numbered(1, 40)).expect("answers");
    let recording = folder.path().join("recording");
    // Port 1 of loopback: nobody is there.
    let hosts = format!("{address},127.0.0.1:1");
    let looked =
        top(&["--host", &hosts, "--once", "--json", "--interval-ms", "100"], ("--record", &recording));
    let (is_well, nodes) = looked;
    assert!(!is_well, "a node that is silent is not well");
    assert_eq!(nodes[0]["name"], address.to_string());
    assert_eq!(nodes[0]["model"]["status"]["clicks"]["received"], 40, "{nodes:#}");
    assert!(nodes[1]["trouble"].as_str().is_some_and(|why| why.contains("127.0.0.1:1")), "{nodes:#}");
    node.drain().expect("drain");
    let (_, replayed) = top(&["--once", "--json"], ("--replay", &recording));
    assert_eq!(replayed, nodes, "long after the node is gone");
}

/// The processor time of a process, of all its threads whose name is this or of all, in ns.
fn cpu_ns(pid: u32, name: Option<&str>) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let tasks = tasks.map(|task| task.expect("task").path());
    let is_meant = |task: &std::path::PathBuf| {
        name.is_none_or(|name| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
    };
    let spent = |task: std::path::PathBuf| -> u64 {
        let stat = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    tasks.filter(is_meant).map(spent).sum()
}

#[test]
fn attached_it_costs_at_most_half_a_percent_of_a_core() {
    const WATCHED: Duration = Duration::from_secs(6);
    let folder = NodeFolder::new("").expect("folder");
    let node = folder.start_ready().expect("ready");
    let terminal = Terminal::open(&socket(&folder));
    terminal.wait_for("[1 Overview]");
    let top_pid = child_of(terminal.child.id());
    let spent = || (cpu_ns(top_pid, None), cpu_ns(node.id(), Some("weir-control")));
    let before = spent();
    std::thread::sleep(WATCHED);
    let after = spent();
    let share = |before: u64, after: u64| (after - before) as f64 / WATCHED.as_nanos() as f64;
    let (viewer, viewed) = (share(before.0, after.0), share(before.1, after.1));
    println!(
        "of a core: the viewer {:.3} %, the node that is watched {:.3} %",
        viewer * 100.0,
        viewed * 100.0
    );
    assert!(viewer + viewed <= 0.005, "viewer {viewer}, node {viewed}");
    assert!(viewer > 0.0 && viewed > 0.0, "it was watched");
}

#[test]
fn a_viewer_whose_terminal_is_gone_ends_though_nobody_may_hang_it_up() {
    let folder = NodeFolder::new("").expect("folder");
    let _node = folder.start_ready().expect("ready");
    let terminal = Terminal::open(&socket(&folder));
    terminal.wait_for("[1 Overview]");
    let top_pid = child_of(terminal.child.id());
    let ignored = std::fs::read_to_string(format!("/proc/{top_pid}/status")).expect("it runs");
    let ignored = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("signals");
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).expect("a mask") & 1, 1, "SIGHUP is ignored");
    drop(terminal);
    let until = Instant::now() + SHOWN_MAX;
    while Path::new(&format!("/proc/{top_pid}")).exists() {
        assert!(Instant::now() < until, "it goes on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The one child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    children.trim().parse().expect("one child")
}
