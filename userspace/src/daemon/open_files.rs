//! Room for open files: every connection is one, and so is every segment.
//!
//! A node that ran out of them could not create its next segment, and would have to halt. So a start makes
//! the room that the config may need, or says what is missing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of connections and sockets: those of the store (a few hundred when it merges), of
/// librdkafka's connections, of BPF maps and links, of the status socket and whoever asks there. Small enough
/// that without a door the usual limit of 1,024 does for 28 workers.
const RESERVED: u64 = 512;
/// Files of one worker: its ring, and the segments that it writes, creates, syncs and has just sealed.
const OF_A_WORKER: u64 = 16;

/// The limit on open files is too low.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node may need {needed} open files and is allowed {allowed}; raise the limit (`LimitNOFILE={needed}` in the unit, \
     or `ulimit -n {needed}`), or lower `rx.http.connections_per_worker`"
)]
pub struct OpenFilesError {
    needed: u64,
    allowed: u64,
}

/// Makes room for all files that a run with so many workers may have open at once.
///
/// # Errors
/// When the limit is too low and may not be raised.
pub(super) fn make_room(config: &Config, workers: usize) -> Result<(), OpenFilesError> {
    let needed = needed(config, workers as u64);
    let Some(wanted) = wanted(getrlimit(Resource::Nofile), needed) else { return Ok(()) };
    // Up to the hard limit anybody may go; to raise that one is a privilege.
    setrlimit(Resource::Nofile, wanted).map_err(|errno| {
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        tracing::debug!(%errno, needed, allowed, "the limit on open files stays");
        OpenFilesError { needed, allowed }
    })
}

/// The files that a run with so many workers may have open at once.
pub(crate) fn needed(config: &Config, workers: u64) -> u64 {
    let sockets = 2 * config.udp.addresses.len() as u64; // each has a second descriptor
    let connections = u64::from(config.http.connections_per_worker) + config.http.listeners().count() as u64;
    let connections = if config.http.is_on() { connections } else { 0 };
    RESERVED + workers * (OF_A_WORKER + sockets + connections)
}

/// The limit to set; none when the present one is enough.
fn wanted(present: Rlimit, needed: u64) -> Option<Rlimit> {
    // No limit at all is none.
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    (!is_enough(present.current)).then(|| Rlimit {
        current: Some(needed),
        maximum: if is_enough(present.maximum) { present.maximum } else { Some(needed) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_as_far_as_needed_and_never_lowered() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(wanted(limit(Some(1000), Some(2000)), 1000), None);
        assert_eq!(wanted(limit(None, None), 1000), None);
        assert_eq!(wanted(limit(Some(1000), Some(2000)), 1001), Some(limit(Some(1001), Some(2000))));
        assert_eq!(wanted(limit(Some(1000), None), 3000), Some(limit(Some(3000), None)));
        assert_eq!(wanted(limit(Some(1000), Some(2000)), 3000), Some(limit(Some(3000), Some(3000))));
    }

    #[test]
    fn every_connection_of_every_worker_is_a_file_where_there_is_a_door() {
        let config = |text: &str| crate::config::Config::parse(text).expect("a config");
        let without = needed(&config("[node]\nid = 1\n"), 4);
        let with =
            needed(&config("[node]\nid = 1\n[rx.http]\nport = 80\nconnections_per_worker = 5000\n"), 4);
        assert!(without < 1024, "{without}");
        assert!(with >= without + 4 * 5000, "{with}");
    }
}
