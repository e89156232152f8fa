//! The real Apache Kafka that labs run against.
//!
//! `WEIR_TEST_KAFKA` names an existing cluster, as `bootstrap.servers` does; else a cluster on
//! loopback is started, if `cargo xtask setup` fetched one.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use weir_kafka_lab::{Cluster, Distribution, Settings};

/// Names a cluster to be used instead of one of our own.
const EXISTING: &str = "WEIR_TEST_KAFKA";

/// The folder cargo builds in.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the running test has a path");
    test.ancestors().nth(3).expect("tests run from target/PROFILE/deps").to_owned()
}

/// Starts a cluster of a lab's own; none where Kafka was not fetched, which is said.
///
/// # Errors
/// When it does not come up.
pub fn start(settings: &Settings) -> Result<Option<Cluster>> {
    let Some(distribution) = Distribution::find(&target()) else {
        println!("skipped: Apache Kafka is not here; `cargo xtask setup` fetches it");
        return Ok(None);
    };
    Cluster::start(&distribution, &target().join("kafka"), settings).map(Some)
}

/// The `bootstrap.servers` of a cluster that all tests of a process share; none where there is
/// no Kafka, which is said.
///
/// # Panics
/// When Kafka is there and does not come up.
pub fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<(String, Option<Cluster>)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var(EXISTING) {
        Ok(existing) => Some((existing, None)),
        // Never dropped: its brokers end with the process.
        Err(_) => start(&Settings::default())
            .expect("Kafka comes up")
            .map(|cluster| (cluster.bootstrap(), Some(cluster))),
    });
    if shared.is_none() {
        println!("skipped: there is no Kafka");
    }
    shared.as_ref().map(|(bootstrap, _)| bootstrap.as_str())
}

/// A prefix for topics that no other test has.
#[must_use]
pub fn fresh_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("lab{:08x}-{}.", rand::random::<u32>(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The part of a node's config that sends to this cluster.
#[must_use]
pub fn config(bootstrap: &str, prefix: &str) -> String {
    let brokers: Vec<_> = bootstrap.split(',').collect();
    format!(
        "[forward]\nsink = \"kafka\"\ninterval = \"200ms\"\n\
         [kafka]\nbrokers = {brokers:?}\ntopic_prefix = {prefix:?}\npartitions = 3\n"
    )
}
