//! SIGTERM and SIGINT mean: drain. In a process of its own, since a signal is the whole process's.

mod control_fixture;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use control_fixture::Fixture;

/// Far more than a signal takes, for a machine that is busy.
const AT_MOST: Duration = Duration::from_secs(20);

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < AT_MOST, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_sets_the_drain_flag_then_wakes_and_ends_nothing() {
    let fixture = Fixture::new();
    let control = fixture.start();
    assert!(!fixture.drain.load(Ordering::Acquire));
    for (count, signal) in ["-TERM", "-INT", "-TERM"].into_iter().enumerate() {
        fixture.drain.store(false, Ordering::Release);
        assert!(
            Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap().success()
        );
        wait_until("woken", || fixture.wakes.load(Ordering::Acquire) == count + 1);
        assert!(fixture.drain.load(Ordering::Acquire), "woken before the flag was set");
    }
    assert!(control.write_final_status().is_ok());
}
