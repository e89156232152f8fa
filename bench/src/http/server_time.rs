//! CPU time of the server under load, thread by thread: the fairer figure where the generator, not the
//! server, is what is busy.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// What a process ran meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerTime {
    /// Which.
    pub pid: u32,
    /// Seconds, user and system together, of all threads that lived to the end.
    pub cpu_s: f64,
    /// A response.
    pub us_per_request: f64,
    /// A click with a final status.
    pub ns_per_click: f64,
    /// Seconds by the threads' names.
    pub threads: BTreeMap<String, f64>,
}

/// Threads below this share of the whole are not shown.
const SHOWN_SHARE_MIN: f64 = 0.01;

impl ServerTime {
    /// The threads that count, as text.
    #[must_use]
    pub fn threads_text(&self) -> String {
        let shown = self.threads.iter().filter(|(_, cpu_s)| **cpu_s > self.cpu_s * SHOWN_SHARE_MIN);
        let texts: Vec<String> = shown.map(|(name, cpu_s)| format!("{name} {cpu_s:.2} s")).collect();
        if texts.len() > 1 { format!(" ({})", texts.join(", ")) } else { String::new() }
    }
}

/// Time on a processor so far, in seconds, of each thread, as `/proc/PID/task/TID/schedstat` has it.
///
/// # Errors
/// There is no such process.
pub fn read(pid: u32) -> std::io::Result<BTreeMap<u32, (String, f64)>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        // A thread may end meanwhile.
        let (Ok(stat), Ok(name)) =
            (fs::read_to_string(path.join("schedstat")), fs::read_to_string(path.join("comm")))
        else {
            continue;
        };
        let thread = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let ns: Option<f64> = stat.split_whitespace().next().and_then(|ns| ns.parse().ok());
        if let (Some(thread), Some(ns)) = (thread, ns) {
            threads.insert(thread, (name.trim().to_owned(), ns / 1e9));
        }
    }
    Ok(threads)
}

/// What ran between two readings.
#[must_use]
pub fn between(
    pid: u32,
    before: &BTreeMap<u32, (String, f64)>,
    after: &BTreeMap<u32, (String, f64)>,
    replies: u64,
    clicks: u64,
) -> ServerTime {
    let mut time = ServerTime { pid, ..ServerTime::default() };
    for (thread, (name, total_s)) in after {
        let cpu_s = total_s - before.get(thread).map_or(0.0, |(_, total_s)| *total_s);
        time.cpu_s += cpu_s;
        *time.threads.entry(name.clone()).or_default() += cpu_s;
    }
    time.us_per_request = time.cpu_s * 1e6 / replies.max(1) as f64;
    time.ns_per_click = time.cpu_s * 1e9 / clicks.max(1) as f64;
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_between_two_readings_counts_and_threads_of_one_name_are_added() {
        let named = |name: &str, total_s| (name.to_owned(), total_s);
        let before = BTreeMap::from([(1, named("worker", 10.0)), (9, named("gone", 3.0))]);
        let after = BTreeMap::from([(1, named("worker", 12.0)), (2, named("worker", 1.0))]);
        let time = between(1, &before, &after, 1_000_000, 3_000_000);
        assert_eq!((time.cpu_s, time.us_per_request, time.ns_per_click), (3.0, 3.0, 1000.0));
        assert_eq!(time.threads, BTreeMap::from([("worker".to_owned(), 3.0)]));
    }

    #[test]
    fn a_process_knows_its_own_threads() {
        assert!(!read(std::process::id()).unwrap().is_empty());
    }
}
