//! What watches a node, held against what a node says: alert rules, their tests and their runbook, the dashboard, the
//! pages of the reasons, and how many series all that is made of.
//!
//! Start reading at [`exported`], the node in which everything there is was counted.

mod alerts;
mod budget;
mod dashboard;
mod documents;
mod exported;
mod promql;

use std::path::{Path, PathBuf};

/// A path of the tree.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the tree").join(name)
}

/// A file of the tree.
#[track_caller]
fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
