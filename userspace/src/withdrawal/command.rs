//! `weir drain` and `weir undrain`: what an operator says to a node, and what it answers by its status.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Withdrawal, WithdrawalError};
use crate::config::Config;
use crate::control::{SOCKET_NAME, Status, fetch};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A node looks at the file much more often; one that does not answer to it in this time is of another version.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Why a node is not out of service.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum CommandError {
    /// {0}
    File(#[from] WithdrawalError),
    /// the node does not do as {0} says: is its data folder that of this config?
    Unheard(String),
    /// cannot print: {0}
    Print(#[from] std::io::Error),
}

/// Takes a node out of service: lets its connections end, at most this long, and then says that it is not ready.
///
/// # Errors
/// When the file cannot be written, or the node does not answer to it.
pub fn drain(config: &Config, wait: Duration, out: &mut impl Write) -> Result<(), CommandError> {
    let data_dir = &config.node.data_dir;
    if Withdrawal::read(data_dir)? < Withdrawal::Finishing {
        Withdrawal::Finishing.write(data_dir)?;
    }
    let deadline = Instant::now() + wait;
    let mut last = None;
    let open = loop {
        let Ok(status) = fetch(&config.node.run_dir.join(SOCKET_NAME)) else {
            Withdrawal::Withdrawn.write(data_dir)?;
            writeln!(out, "the node does not run; it will start out of service")?;
            return Ok(());
        };
        let open = status.http.connections_open;
        if open == 0 || Instant::now() >= deadline {
            break open;
        }
        if last.replace(open) != Some(open) {
            writeln!(out, "{open} connections are open")?;
        }
        thread::sleep(LOOK);
    };
    Withdrawal::Withdrawn.write(data_dir)?;
    // Not whether it is ready: a node that is unready for another reason need not have heard of this one.
    until_heard(config, |status| status.readiness.fault_of("operator").is_some())?;
    match open {
        0 => writeln!(out, "out of service: not ready, and no connection is open")?,
        open => writeln!(out, "out of service: not ready; {open} connections are still open")?,
    }
    Ok(())
}

/// Takes a node into service again.
///
/// # Errors
/// As [`drain`].
pub fn undrain(config: &Config, out: &mut impl Write) -> Result<(), CommandError> {
    Withdrawal::None.write(&config.node.data_dir)?;
    if fetch(&config.node.run_dir.join(SOCKET_NAME)).is_err() {
        writeln!(out, "the node does not run; it will start in service")?;
        return Ok(());
    }
    let is_in_service = |status: &Status| status.readiness.fault_of("operator").is_none();
    let status = until_heard(config, is_in_service)?;
    match status.readiness.fault() {
        None => writeln!(out, "in service")?,
        Some(fault) => writeln!(out, "in service, but not ready: {fault}")?,
    }
    Ok(())
}

/// Waits until the node's status says so; that status.
fn until_heard(config: &Config, is_so: impl Fn(&Status) -> bool) -> Result<Status, CommandError> {
    let deadline = Instant::now() + HEARD_WITHIN;
    let socket = config.node.run_dir.join(SOCKET_NAME);
    loop {
        match fetch(&socket) {
            Ok(status) if is_so(&status) => return Ok(status),
            _ if Instant::now() >= deadline => {
                return Err(CommandError::Unheard(name(&config.node.data_dir)));
            }
            _ => thread::sleep(LOOK),
        }
    }
}

fn name(data_dir: &Path) -> String {
    data_dir.join(super::FILE_NAME).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::control::State;
    use crate::control::readiness::Readiness;
    use crate::stats::JournalHealth;

    /// The look at which the node below has heard its operator.
    const HEARD_AT: usize = 4;

    /// What answers as a node does whose journal is full; how often it was asked.
    fn unready_node(run_dir: &Path) -> Arc<AtomicUsize> {
        let listener = UnixListener::bind(run_dir.join(SOCKET_NAME)).unwrap();
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                let has_heard = counted.fetch_add(1, Ordering::AcqRel) + 1 >= HEARD_AT;
                let withdrawal = if has_heard { Withdrawal::Withdrawn } else { Withdrawal::None };
                let readiness = Readiness::of(State::Running, withdrawal, JournalHealth::NoSpace, None);
                let status = Status { readiness, ..Status::default() };
                writeln!(stream, "{}", serde_json::to_string(&status).unwrap()).unwrap();
            }
        });
        looks
    }

    #[test]
    fn a_node_that_is_unready_for_another_reason_is_waited_for_until_it_has_heard_its_operator() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.data_dir = folder.path().to_owned();
        config.node.run_dir = folder.path().to_owned();
        let looks = unready_node(folder.path());
        let mut told = Vec::new();
        drain(&config, Duration::ZERO, &mut told).unwrap();
        assert_eq!(looks.load(Ordering::Acquire), HEARD_AT);
        let told = String::from_utf8(told).unwrap();
        assert_eq!(told, "out of service: not ready, and no connection is open\n");
    }
}
