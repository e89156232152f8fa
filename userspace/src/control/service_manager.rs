//! What the service manager is told, in systemd's protocol (sd_notify(3)): that the node takes clicks, that it
//! drains, and, where its watchdog asks, that it goes on. The announcer tells its own by the same functions.
//!
//! The watchdog is answered for the workers and not for the thread that answers: a worker turns every few
//! milliseconds, idle or not, so one that did not turn at all between two answers hangs, and what it owns is
//! taken by nobody. A node in which one hangs falls silent, and is restarted.
//!
//! It is given the sockets to keep too, so that they outlive a process (`FDSTORE=1`; the unit says how many with
//! `FileDescriptorStoreMax=`). Without a service manager all of this does nothing.
//!
//! Start reading at [`watch`]; whether a worker hangs, [`super::turning`] says.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::turning::Turning;
use super::{Sources, State};

/// Answers within the time after which the watchdog gives up: one that comes late must not cost a running process.
const ANSWERS_IN_TIME: u32 = 4;
/// Answers without a turn after which a worker hangs: between two there is time for hundreds.
const STILL_ANSWERS_MAX: u32 = 1;

/// The node takes clicks.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("taking clicks")]);
}

/// The node drains, and ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Whether there is one.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Gives it a socket to keep for the next process, under this name.
pub fn keep(name: &str, socket: BorrowedFd<'_>) {
    let states = [NotifyState::FdStore, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[socket]) {
        tracing::warn!(name, %error, "the service manager does not keep a socket; what waits in it at a restart is lost");
    }
}

/// Takes back what it keeps under this name.
pub fn let_go(name: &str) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Tells it these things, if there is one.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told; it goes by its time limits");
    }
}

/// How long after one answer its watchdog is to have the next, where there is one.
#[must_use]
pub fn answer_interval() -> Option<Duration> {
    // A limit of nothing would be an answer without end.
    sd_notify::watchdog_enabled().map(|within| (within / ANSWERS_IN_TIME).max(Duration::from_millis(1)))
}

/// Answers the watchdog, if there is one, for as long as the workers go on.
pub(super) async fn watch(sources: Arc<Sources>) {
    let Some(every) = answer_interval() else { return };
    let mut turning = Turning::new(sources.workers.len(), STILL_ANSWERS_MAX);
    loop {
        tokio::time::sleep(every).await;
        // Before and after that there are start and stop, which have limits of their own.
        if sources.state.get() != State::Running {
            continue;
        }
        match turning.hanging(sources.workers.iter().map(|worker| worker.turns.get())) {
            None => tell(&[NotifyState::Watchdog]),
            Some(worker) => {
                tracing::error!(worker, for_ = ?every, "a worker hangs; if it goes on so, the service manager restarts the node");
            }
        }
    }
}
