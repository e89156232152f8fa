//! What the service manager is told, in systemd's protocol (sd_notify(3)): that the node takes clicks, that it
//! drains, and, where its watchdog asks, that it goes on.
//!
//! The watchdog is answered for the workers and not for the thread that answers: a worker turns every few
//! milliseconds, idle or not, so one that did not turn at all between two answers hangs, and what it owns is
//! taken by nobody. A node in which one hangs falls silent, and is restarted.
//!
//! It is given the sockets to keep too, so that they outlive a process (`FDSTORE=1`; the unit says how many with
//! `FileDescriptorStoreMax=`). Without a service manager all of this does nothing.
//!
//! Start reading at [`Progress`].

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::{Sources, State};

/// Answers within the time after which the watchdog gives up: one that comes late must not cost a running node.
const ANSWERS_IN_TIME: u32 = 4;

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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told; it goes by its time limits");
    }
}

/// Answers the watchdog, if there is one, for as long as the workers go on.
pub(super) async fn watch(sources: Arc<Sources>) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    // A limit of nothing would be an answer without end.
    let every = (within / ANSWERS_IN_TIME).max(Duration::from_millis(1));
    let mut progress = Progress::new(sources.workers.len());
    loop {
        tokio::time::sleep(every).await;
        // Before and after that there are start and stop, which have limits of their own.
        if sources.state.get() != State::Running {
            continue;
        }
        match progress.hanging(sources.workers.iter().map(|worker| worker.turns.get())) {
            None => tell(&[NotifyState::Watchdog]),
            Some(worker) => {
                tracing::error!(worker, for_ = ?every, "a worker hangs; if it goes on so, the service manager restarts the node");
            }
        }
    }
}

/// Which workers have turned since the last look.
#[derive(Debug)]
struct Progress {
    seen: Vec<u64>,
}

impl Progress {
    /// Nobody has turned.
    fn new(workers: usize) -> Self {
        Self { seen: vec![0; workers] }
    }

    /// Looks at the turns of all workers; the first that made none since the last look.
    fn hanging(&mut self, turns: impl IntoIterator<Item = u64>) -> Option<usize> {
        let mut hanging = None;
        for (worker, (seen, turns)) in self.seen.iter_mut().zip(turns).enumerate() {
            if *seen == turns {
                hanging = hanging.or(Some(worker));
            }
            *seen = turns;
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_does_not_turn_is_one_too_many_and_turning_again_it_is_well() {
        let mut progress = Progress::new(2);
        assert_eq!(progress.hanging([0, 0]), Some(0), "workers that never turned");
        assert_eq!(progress.hanging([1, 9]), None);
        assert_eq!(progress.hanging([2, 9]), Some(1));
        assert_eq!(progress.hanging([2, 9]), Some(0));
        assert_eq!(progress.hanging([3, 10]), None);
        // A counter that has gone round is another number all the same.
        assert_eq!(progress.hanging([4, 0]), None);
    }
}
