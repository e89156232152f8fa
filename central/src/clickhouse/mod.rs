//! The way into ClickHouse: what nodes say as rows of its tables, and windows of closed minutes built from them.
//!
//! ```text
//! read -> insert buckets -> build windows -> insert nodes, closed, positions
//! ```
//!
//! Nothing is added up as it comes in. A bucket is replaced by its higher revision and a window by the one
//! that was built from more of the log, so whatever is done twice changes nothing: positions are written last,
//! and after a crash everything since is done again. `deploy/clickhouse/schema.sql` has the tables.

mod batch;
mod client;
mod progress;
pub mod schema;
mod sink;
pub mod windows;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};

use weir_common::id::NodeId;

use crate::config::Clickhouse;
use crate::kafka::{ClusterSettings, KafkaError};
use client::Client;
use sink::Sink;

/// Why inserting ended.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ClickhouseError {
    /// {0}
    Kafka(KafkaError),
    /// a partition of {topics} begins after what is in ClickHouse, or was made anew: records are missing there. Count them from the archive; to go on without them, empty the table positions
    Trimmed {
        /// The topics.
        topics: String,
    },
    /// the password {path} cannot be read: {source}; look at clickhouse.password_file
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// the settings make no HTTP client: {0}; look at [clickhouse]
    Settings(String),
    /// ClickHouse at {url} refuses, and will go on to: {why}. Look at [clickhouse], and whether what `weir-central clickhouse-schema` prints was run there
    Refused {
        /// Where.
        url: String,
        /// What it says.
        why: String,
    },
    /// ClickHouse at {url} answers what nobody asked for: {why}
    Answer {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// told to stop
    Stopped,
}

impl From<KafkaError> for ClickhouseError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::Trimmed(topics) => Self::Trimmed { topics },
            error => Self::Kafka(error),
        }
    }
}

/// Counters of the inserting thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Buckets that were inserted since the start, each revision of one by itself.
    pub rows: AtomicU64,
    /// Statements that built windows.
    pub builds: AtomicU64,
    /// Requests that failed and were tried again.
    pub retries: AtomicU64,
    /// Every click that was acknowledged before this time is in the tables, ms since 1970; 0 while it is not known.
    pub counted_until_ms: AtomicU64,
}

/// Inserts what nodes say until told to stop. What fails and may pass is tried again: Kafka keeps what waits.
///
/// # Errors
/// When ClickHouse refuses for good, or records are missing from the log.
pub fn feed(
    (cluster, prefix): (&ClusterSettings, &str),
    (settings, retired): (&Clickhouse, &[NodeId]),
    (counters, stop): (&Counters, &AtomicBool),
) -> Result<(), ClickhouseError> {
    let client = Client::open(settings, (counters, stop))?;
    let once = || Sink::open(&client, (cluster, prefix), retired)?.run();
    let passes = |error: &ClickhouseError| matches!(error, ClickhouseError::Kafka(error) if error.may_pass());
    match crate::again::again_while(stop, "inserting into ClickHouse waits", passes, once) {
        Err(ClickhouseError::Stopped) => Ok(()),
        ended => ended,
    }
}
