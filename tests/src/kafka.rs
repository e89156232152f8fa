//! The real Apache Kafka that labs run against.
//!
//! `WEIR_TEST_KAFKA` names an existing cluster, as `bootstrap.servers` does; else a cluster on
//! loopback is started, if `cargo xtask setup` fetched one.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
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

/// What sends buckets to a cluster of their own, to follow [`config`].
#[must_use]
pub fn config_of_buckets(bootstrap: &str) -> String {
    let brokers: Vec<_> = bootstrap.split(',').collect();
    format!("[kafka.buckets]\nbrokers = {brokers:?}\n")
}

/// Changes topics behind a node's back.
pub struct Operator {
    admin: AdminClient<DefaultClientContext>,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

impl Operator {
    /// One of this cluster.
    ///
    /// # Errors
    /// When there is no client to be made.
    pub fn of(bootstrap: &str) -> Result<Self> {
        Ok(Self { admin: ClientConfig::new().set("bootstrap.servers", bootstrap).create()? })
    }

    /// Sets one configuration of a topic; its others go back to their defaults.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn configure(&self, topic: &str, configs: &[(&str, &str)]) -> Result<()> {
        let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let alter = configs.iter().fold(alter, |alter, (key, value)| alter.set(key, value));
        let answers = wait(self.admin.alter_configs(&[alter], &AdminOptions::new()))?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(|(_, code)| code))?;
        Ok(())
    }

    /// Deletes a topic and all it holds.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn delete(&self, topic: &str) -> Result<()> {
        let answers = wait(self.admin.delete_topics(&[topic], &AdminOptions::new()))?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(|(_, code)| code))?;
        Ok(())
    }
}

/// Waits for an answer of the admin client, which times out by itself.
fn wait<T>(answer: impl Future<Output = KafkaResult<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(answer)?)
}
