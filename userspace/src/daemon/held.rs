//! Sockets across a restart: those that the service manager has kept are used again, and all are given to it to keep.
//!
//! What a socket dropped while no process read it is counted by the next one. For that each process writes what it
//! has counted when it hands over; after a crash nobody knows, and counting begins with what comes then.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use socket2::{Socket, Type};

use crate::control::service_manager;
use crate::rx::held::{self, Held};
use crate::rx::udp::socket_drops;

/// Name of the file in the run folder that says what was counted: a line for each socket, its name and its drops.
const FILE_NAME: &str = "held-sockets";

/// What the process before this one left.
pub(super) struct Inheritance {
    held: Held,
    drops_counted: BTreeMap<String, u32>,
    has_counts: bool,
}

/// A socket, and what it is kept as.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) socket: Socket,
    /// Datagrams it has dropped that are counted already, modulo 2^32.
    pub(super) drops_counted: u32,
}

impl Inheritance {
    /// Takes what was left. The counts are good once: a crash leaves none.
    pub(super) fn take(run_dir: &Path) -> Self {
        let file = run_dir.join(FILE_NAME);
        let text = fs::read_to_string(&file).ok();
        let _not_there = fs::remove_file(file);
        let drops_counted = text.as_deref().map(counts).unwrap_or_default();
        Self { held: Held::take(), drops_counted, has_counts: text.is_some() }
    }

    /// The sockets of one address, in worker order: those that were kept, or those that `open` gives. All are
    /// given to the service manager to keep.
    pub(super) fn group<E>(
        &mut self,
        kind: Type,
        address: SocketAddr,
        workers: usize,
        open: impl FnOnce() -> Result<Vec<Socket>, E>,
    ) -> Result<Vec<Kept>, E> {
        match self.held.group(kind, address, workers) {
            Ok(group) => {
                tracing::info!(%address, sockets = group.len(), "the sockets of the last process go on");
                return Ok(group.into_iter().map(|(name, socket)| self.went_on(name, socket)).collect());
            }
            // Before others are kept under these names.
            Err(names) => let_go(names),
        }
        let keep = |(worker, socket): (usize, Socket)| {
            let name = held::name(kind, address, worker);
            service_manager::keep(&name, socket.as_fd());
            Kept { name, socket, drops_counted: 0 }
        };
        Ok(open()?.into_iter().enumerate().map(keep).collect())
    }

    fn went_on(&self, name: String, socket: Socket) -> Kept {
        let unknown = || socket_drops(socket.as_fd()).filter(|_| !self.has_counts).unwrap_or(0);
        let drops_counted = self.drops_counted.get(&name).copied().unwrap_or_else(unknown);
        Kept { name, socket, drops_counted }
    }

    /// Lets go of what nobody asked for.
    pub(super) fn let_go_of_rest(self) {
        let_go(self.held.rest());
    }
}

/// A socket that is kept and that nobody reads would swallow its part of what comes.
fn let_go(names: Vec<String>) {
    for name in names {
        tracing::warn!(name, "a socket of the last process is not used any more; what waited in it is lost");
        service_manager::let_go(&name);
    }
}

fn counts(text: &str) -> BTreeMap<String, u32> {
    let line = |line: &str| {
        let (name, drops) = line.split_once(' ')?;
        Some((name.to_owned(), drops.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Writes for the next process what this one has counted.
pub(super) fn leave_counts(run_dir: &Path, counted: &[(String, u32)]) {
    let path: PathBuf = run_dir.join(FILE_NAME);
    let text: String = counted.iter().map(|(name, drops)| format!("{name} {drops}\n")).collect();
    if let Err(error) = fs::write(&path, text) {
        tracing::warn!(path = %path.display(), %error, "what sockets drop until the next start will not be counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_has_counted_the_next_one_knows_once() {
        let folder = tempfile::tempdir().unwrap();
        leave_counts(
            folder.path(),
            &[("udp-192.0.2.1-9-0".to_owned(), 7), ("udp-192.0.2.1-9-1".to_owned(), 0)],
        );
        let next = Inheritance::take(folder.path());
        assert_eq!(next.drops_counted.get("udp-192.0.2.1-9-0"), Some(&7));
        assert!(next.has_counts && !Inheritance::take(folder.path()).has_counts);
    }
}
