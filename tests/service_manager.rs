//! What a node tells its service manager: a socket stands where systemd's would.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use weir_labs::{Node, NodeFolder};

/// The watchdog's limit in these labs: a node answers four times within it.
const WATCHDOG: Duration = Duration::from_millis(400);
/// Whatever is waited for comes within this.
const SOON: Duration = Duration::from_secs(30);

/// The socket that a node tells things to.
struct Manager(UnixDatagram);

impl Manager {
    fn of(folder: &mut NodeFolder) -> Self {
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        folder.run_with("weir", "NOTIFY_SOCKET", path);
        folder.run_with("weir", "WATCHDOG_USEC", WATCHDOG.as_micros().to_string().into());
        Self(socket)
    }

    /// The next thing that is told within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).expect("a timeout");
        let mut buffer = [0; 256];
        let len = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).expect("text"))
    }

    /// Waits until a thing is told that begins so; what was told before.
    fn wait_for(&self, start: &str) -> Vec<String> {
        let deadline = Instant::now() + SOON;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            match self.next(SOON) {
                Some(told) if told.starts_with(start) => return before,
                Some(told) => before.push(told),
                None => break,
            }
        }
        panic!("{start} was not told; told was {before:?}");
    }

    /// Forgets what was told so far.
    fn forget(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}

#[test]
fn a_node_says_when_it_takes_clicks_that_it_goes_on_and_when_it_drains() {
    let mut folder = NodeFolder::new("").expect("folder");
    let manager = Manager::of(&mut folder);
    let node = folder.start().expect("start");
    let before = manager.wait_for("READY=1\n");
    let is_socket = |told: &String| told.starts_with("FDSTORE=1\n");
    assert!(
        !before.is_empty() && before.iter().all(is_socket),
        "sockets to keep, and nothing else: {before:?}"
    );
    assert_eq!(node.status().expect("status")["state"], "running");
    manager.wait_for("WATCHDOG=1\n");
    manager.wait_for("WATCHDOG=1\n");
    node.drain().expect("drain");
    manager.wait_for("STOPPING=1\n");
    assert_eq!(manager.next(Duration::from_millis(1)), None, "a node that drains has limits of another kind");
}

/// A worker that hangs in its next call to the kernel, for as long as this is kept.
struct Hanging(Child);

impl Hanging {
    fn worker(node: &Node<'_>) -> Self {
        let threads = format!("/proc/{}/task", node.id());
        let is_worker = |thread: &Path| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim_end() == "weir-worker-0")
        };
        let mut threads = std::fs::read_dir(threads).expect("threads").flatten().map(|entry| entry.path());
        let worker = threads.find(|thread| is_worker(thread)).expect("a worker");
        let thread = worker.file_name().and_then(|name| name.to_str()).expect("a number").to_owned();
        let hang = ["-e", "trace=io_uring_enter", "-e", "inject=io_uring_enter:delay_enter=600000000"];
        let child = Command::new("strace")
            .args(hang)
            .args(["-o", "/dev/null", "-p", &thread])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        Self(child)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Asked and not killed: else the worker is held until its time is over, and no signal ends the node before.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn the_watchdog_gets_no_answer_while_one_worker_hangs() {
    let mut folder = NodeFolder::new("").expect("folder");
    let manager = Manager::of(&mut folder);
    let node = folder.start_ready().expect("ready");
    manager.wait_for("WATCHDOG=1\n");
    let hanging = Hanging::worker(&node);
    // strace takes hold of it some time from now; then nothing more comes.
    let deadline = Instant::now() + SOON;
    while manager.next(2 * WATCHDOG).is_some() {
        assert!(Instant::now() < deadline, "the watchdog is answered for a worker that hangs");
    }
    assert_eq!(node.status().expect("status")["state"], "running", "the rest of the node goes on");
    assert!(folder.log_text().contains("a worker hangs"), "{}", folder.log_tail());
    manager.forget();
    drop(hanging);
    manager.wait_for("WATCHDOG=1\n");
    node.drain().expect("drain");
}
