//! A node whose journal's disk fails as it is told: the build `weir-faulty`, the file it takes its
//! rules from, and the log of what it asked of the disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::node::NodeFolder;
use crate::process::is_built;

const PROGRAM: &str = "weir-faulty";

/// One operation of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `write`, `sync`, or a step of making a segment.
    pub operation: String,
    /// The worker.
    pub worker: u32,
    /// The segment, as the worker counts them since its start.
    pub segment: u32,
    /// `done`, or what was done to it.
    pub what: String,
}

impl Line {
    /// Whether the journal was told that it failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.what.starts_with("Error") || self.what == "Lost"
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let operation = words.next()?.to_owned();
        let (worker, segment) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { operation, worker, segment, what: words.next()?.to_owned() })
    }
}

/// The rules and the log of one node's disk.
#[derive(Debug)]
pub struct FaultyDisk {
    rules: PathBuf,
}

impl FaultyDisk {
    /// Why there is no such node, if it was not built.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        (!is_built(PROGRAM)).then(|| {
            format!("{PROGRAM} is not built; `cargo xtask test` builds it, as does `cargo build -p weir --features disk-faults`")
        })
    }

    /// Lets a folder's nodes run on a disk that can be told to fail; at first it does not.
    #[must_use]
    pub fn of(folder: &mut NodeFolder) -> Self {
        let rules = folder.path().join("faults");
        folder.run_with(PROGRAM, "WEIR_DISK_FAULTS", rules.clone());
        Self { rules }
    }

    /// Sets the rules; those before are over.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn set(&self, rules: &str) -> Result<()> {
        // By way of another name: half a file must not be read.
        let half = self.rules.with_extension("half");
        fs::write(&half, rules)?;
        fs::rename(&half, &self.rules).context("setting the rules")
    }

    /// What was asked of the disk since this was last asked.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn take_log(&self) -> Result<Vec<Line>> {
        let path = self.rules.with_extension("log");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, "")?;
        text.lines().map(|line| Line::parse(line).context("a line of another shape")).collect()
    }
}

/// The (worker, segment) pairs that were used again after an operation on them failed: there may
/// be none.
#[must_use]
pub fn used_after_failure(log: &[Line]) -> Vec<(u32, u32)> {
    let mut failed = BTreeSet::new();
    let mut used = Vec::new();
    for line in log {
        let of = (line.worker, line.segment);
        if failed.contains(&of) {
            used.push(of);
        }
        if line.has_failed() {
            failed.insert(of);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_and_is_used_again_is_found() {
        let log = |text: &str| text.lines().filter_map(Line::parse).collect::<Vec<_>>();
        let sound = "write 0 1 done\nsync 0 1 Lost\nwrite 0 2 Short\nsync 0 2 done\nwrite 1 1 done";
        assert_eq!(used_after_failure(&log(sound)), []);
        let again = "write 0 1 done\nsync 0 1 Error(5)\nsync 0 1 done";
        assert_eq!(used_after_failure(&log(again)), [(0, 1)]);
    }
}
