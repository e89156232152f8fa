//! What the node's heartbeat says, to whom, and when it falls silent.

mod control_fixture;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use control_fixture::Fixture;
use weir::control::{BEAT, HEARTBEAT_NAME, State};
use weir::stats::JournalHealth;

/// Whatever is waited for comes within this.
const SOON: Duration = Duration::from_secs(20);

fn listen(fixture: &Fixture) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(fixture.settings().run_dir.join(HEARTBEAT_NAME)).expect("a heartbeat");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    BufReader::new(stream)
}

/// The next beat; nothing when the heart has stopped.
fn beat(listener: &mut impl BufRead) -> String {
    let mut line = String::new();
    listener.read_line(&mut line).expect("a beat in time");
    line
}

#[track_caller]
fn wait_for(listener: &mut impl BufRead, expected: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let line = beat(listener);
        if line == expected {
            return;
        }
        assert!(!line.is_empty() && Instant::now() < deadline, "{line:?} and not {expected:?}");
    }
}

/// Workers that turn, all or all but one.
struct Turning {
    stop: Arc<AtomicBool>,
    one_hangs: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Turning {
    fn of(fixture: &Fixture) -> Self {
        let (stop, one_hangs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, hangs) = (Arc::clone(&stop), Arc::clone(&one_hangs));
        let workers = Arc::clone(&fixture.workers);
        let turn = move || {
            while !stopped.load(Ordering::Acquire) {
                workers[0].turns.add(1);
                workers[1].turns.add(u64::from(!hangs.load(Ordering::Acquire)));
                thread::sleep(Duration::from_millis(5));
            }
        };
        Self { stop, one_hangs, thread: Some(thread::spawn(turn)) }
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_beat_says_that_clicks_should_come_here_or_why_not() {
    let fixture = Fixture::new();
    let _turning = Turning::of(&fixture);
    let _control = fixture.start();
    let mut listener = listen(&fixture);
    assert_eq!(beat(&mut listener), "0 recovering\n");
    fixture.state.set(State::Running);
    wait_for(&mut listener, "1\n");
    fixture.workers[1].journal_health.set(JournalHealth::NoSpace as u64);
    wait_for(&mut listener, "0 the journal is full\n");
    fixture.workers[1].journal_health.set(JournalHealth::Running as u64);
    wait_for(&mut listener, "1\n");
    fixture.state.set(State::Draining);
    wait_for(&mut listener, "0 draining\n");
}

#[test]
fn beats_come_every_50_ms() {
    let fixture = Fixture::new();
    let _control = fixture.start();
    let mut listener = listen(&fixture);
    beat(&mut listener);
    let started = Instant::now();
    for _ in 0..20 {
        beat(&mut listener);
    }
    let took = started.elapsed();
    assert!(took >= 19 * BEAT, "{took:?}: never faster");
    assert_eq!(BEAT, Duration::from_millis(50));
}

#[test]
fn a_worker_that_hangs_makes_the_beat_say_so_and_turning_again_it_is_well() {
    let fixture = Fixture::new();
    fixture.state.set(State::Running);
    let turning = Turning::of(&fixture);
    let _control = fixture.start();
    let mut listener = listen(&fixture);
    wait_for(&mut listener, "1\n");
    turning.one_hangs.store(true, Ordering::Release);
    wait_for(&mut listener, "0 a worker hangs\n");
    turning.one_hangs.store(false, Ordering::Release);
    wait_for(&mut listener, "1\n");
}

#[test]
fn a_listener_that_does_not_read_is_dropped_and_the_others_hear_every_beat() {
    let fixture = Fixture::new();
    let _control = fixture.start();
    let mut deaf = listen(&fixture);
    let mut listener = listen(&fixture);
    let deadline = Instant::now() + SOON;
    // The socket of one that was dropped reports it; nothing is read of what waits in it.
    let is_dropped = |deaf: &BufReader<UnixStream>| {
        let mut look = [rustix::event::PollFd::new(deaf.get_ref(), rustix::event::PollFlags::RDHUP)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut look, Some(&now)).expect("poll") > 0
    };
    while !is_dropped(&deaf) {
        assert_eq!(beat(&mut listener), "0 recovering\n");
        assert!(Instant::now() < deadline, "one that does not read is kept");
    }
    let mut unread = String::new();
    deaf.read_to_string(&mut unread).expect("what waited");
    assert!(unread.lines().all(|line| line == "0 recovering"), "{unread:?}");
    assert_eq!(beat(&mut listener), "0 recovering\n");
}

#[test]
fn the_seventeenth_listener_is_turned_away_and_a_place_that_becomes_free_is_given_again() {
    let fixture = Fixture::new();
    let _control = fixture.start();
    let mut listeners: Vec<_> = (0..16).map(|_| listen(&fixture)).collect();
    for listener in &mut listeners {
        assert_eq!(beat(listener), "0 recovering\n");
    }
    assert_eq!(beat(&mut listen(&fixture)), "");
    drop(listeners.pop());
    let deadline = Instant::now() + SOON;
    while beat(&mut listen(&fixture)).is_empty() {
        assert!(Instant::now() < deadline, "a place that is free is not given");
    }
}

#[test]
fn the_heartbeat_ends_with_the_node_and_is_not_everybodys_to_hear() {
    let fixture = Fixture::new();
    let control = fixture.start();
    let path = fixture.settings().run_dir.join(HEARTBEAT_NAME);
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut listener = listen(&fixture);
    beat(&mut listener);
    drop(control);
    wait_for_end(&mut listener);
    assert!(!path.exists());
}

fn wait_for_end(listener: &mut impl BufRead) {
    while !beat(listener).is_empty() {}
}
