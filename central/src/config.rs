//! The config: read and checked once.

mod alerts;
mod clickhouse;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weir_common::id::NodeId;

use crate::bill::settings::Billing;
use crate::kafka::ClusterSettings;
use crate::retention::plan::Policy;
pub use alerts::{Alerts, Webhook};
pub use clickhouse::Clickhouse;

/// Why there is no config.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ConfigError {
    /// the config {path} cannot be read: {source}
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// the config {path} is not valid: {source}
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// {key} in {path}: {why}
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// The config file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where things are kept.
    pub central: Central,
    /// What is read.
    pub kafka: Kafka,
    /// Who is answered.
    #[serde(default)]
    pub serve: Serve,
    /// Where raw batches go; without it they stay in Kafka alone.
    pub archive: Option<Archive>,
    /// Which traffic is out of the ordinary; without it none is.
    pub alerts: Option<Alerts>,
    /// What buckets are inserted into; without it they are in the embedded store alone.
    pub clickhouse: Option<Clickhouse>,
    /// Where days are billed.
    pub billing: Option<Billing>,
}

/// `[archive]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// A folder, or `s3://bucket/prefix`.
    pub url: String,
    /// Of an S3: `aws_endpoint`, `aws_region` and what else object_store takes. Who logs in stands in the
    /// environment.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// A batch is closed when its files have this many octets.
    #[serde(default = "default_object_bytes")]
    pub object_bytes: u64,
    /// Or when its first block came so many milliseconds ago.
    #[serde(default = "default_close_after_ms")]
    pub close_after_ms: u64,
    /// How long what is kept; without it all of it for ever.
    pub retention: Option<Policy>,
}

/// 128 MB: large enough for a reader to spend its time on reading, small enough to be held whole.
const fn default_object_bytes() -> u64 {
    128_000_000
}

/// Ten minutes: what Kafka has to keep of the raw batches is not more than that.
const fn default_close_after_ms() -> u64 {
    600_000
}

/// `[central]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Central {
    /// The folder of everything that is kept.
    pub data_dir: PathBuf,
    /// Nodes that will not come back: what they did not send any more is not waited for.
    #[serde(default)]
    pub retired_nodes: Vec<u32>,
}

/// `[kafka]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// What the names of the topics begin with, as the nodes have it.
    #[serde(default = "default_prefix")]
    pub topic_prefix: String,
    /// What librdkafka is told beside, by its own names: TLS and log-in.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

fn default_prefix() -> String {
    "weir.".to_owned()
}

/// `[serve]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Where questions are answered.
    pub listen: SocketAddr,
    /// Memory of answers that are kept.
    pub cache_bytes: u64,
    /// Questions a second of one key, or of everybody without a key.
    pub requests_per_s: u32,
    /// Who may ask. Without any, everybody who can connect.
    pub keys: Vec<Key>,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            // Nobody but this machine: without keys whoever connects sees every advertiser's figures.
            listen: SocketAddr::from(([127, 0, 0, 1], 8600)),
            cache_bytes: 256 << 20,
            requests_per_s: 50_000,
            keys: Vec::new(),
        }
    }
}

/// `[[serve.keys]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Who has it, for logs.
    pub name: String,
    /// A file with the key, for its owner's eyes alone; relative to the config.
    pub file: PathBuf,
    /// Questions a second; that of `[serve]` without it.
    pub requests_per_s: Option<u32>,
    /// Whether it may look at single clicks.
    #[serde(default)]
    pub audit: bool,
}

impl Config {
    /// Reads and checks a config.
    ///
    /// # Errors
    /// When it cannot be read, or has what cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let parse = |source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
        let mut config: Self = toml::from_str(&text).map_err(parse)?;
        config.check().map_err(|(key, why)| ConfigError::Value { path: path.to_owned(), key, why })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for key in &mut config.serve.keys {
            key.file = folder.join(&key.file);
        }
        if let Some(webhook) = config.alerts.as_mut().and_then(|alerts| alerts.webhook.as_mut()) {
            webhook.secret_file = folder.join(&webhook.secret_file);
        }
        if let Some(clickhouse) = &mut config.clickhouse
            && !clickhouse.password_file.as_os_str().is_empty()
        {
            clickhouse.password_file = folder.join(&clickhouse.password_file);
        }
        if let Some(billing) = &mut config.billing {
            let value = |(key, why)| ConfigError::Value { path: path.to_owned(), key, why };
            billing.settle(folder).map_err(value)?;
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.kafka.brokers.is_empty() {
            return Err(("kafka.brokers", "at least one broker, such as \"kafka-1:9092\"".to_owned()));
        }
        let is_open = !self.serve.listen.ip().is_loopback() && self.serve.keys.is_empty();
        if is_open {
            let why = "answers everybody who can connect; name [[serve.keys]], or listen on 127.0.0.1";
            return Err(("serve.listen", why.to_owned()));
        }
        if let Some(archive) = &self.archive
            && !(1 << 16..=1 << 30).contains(&archive.object_bytes)
        {
            // A reader holds an object whole.
            return Err(("archive.object_bytes", "from 65536 to 1073741824".to_owned()));
        }
        if let Some(alerts) = &self.alerts {
            alerts.check()?;
            if self.archive.is_none() {
                let why = "campaigns are learned from raw batches, so it takes an [archive] that reads them";
                return Err(("alerts", why.to_owned()));
            }
        }
        self.clickhouse.as_ref().map_or(Ok(()), Clickhouse::check)?;
        if let Some(policy) = self.archive.as_ref().and_then(|archive| archive.retention) {
            policy.check().map_err(|why| ("archive.retention", why))?;
        }
        let rates = self.serve.keys.iter().filter_map(|key| key.requests_per_s);
        if rates.chain([self.serve.requests_per_s]).any(|rate| rate == 0) {
            return Err(("serve.requests_per_s", "at least 1".to_owned()));
        }
        Ok(())
    }

    /// How to reach the cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterSettings {
        let Kafka { brokers, properties, .. } = &self.kafka;
        ClusterSettings { brokers: brokers.clone(), properties: properties.clone() }
    }

    /// The nodes that will not come back.
    #[must_use]
    pub fn retired(&self) -> Vec<NodeId> {
        self.central.retired_nodes.iter().copied().map(NodeId).collect()
    }

    /// The folder of batches on their way to the archive.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.central.data_dir.join("archive")
    }

    /// The folder of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.central.data_dir.join("store")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| error.to_string())
    }

    const LEAST: &str = "[central]\ndata_dir = \"/tmp/x\"\n[kafka]\nbrokers = [\"a:1\"]\n";

    #[test]
    fn the_least_config_answers_this_machine_alone() {
        let config = load(LEAST).unwrap();
        assert!(config.serve.listen.ip().is_loopback());
        assert_eq!(config.kafka.topic_prefix, "weir.");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |more: &str| load(&format!("{LEAST}{more}")).unwrap_err();
        assert!(refused("[serve]\nlisten = \"0.0.0.0:8600\"\n").contains("serve.listen"));
        assert!(refused("[serve]\nrequests_per_s = 0\n").contains("serve.requests_per_s"));
        assert!(refused("[serve]\nlisen = 1\n").contains("lisen"));
        let kept = |days: &str| refused(&format!("[archive]\nurl = \"/tmp/a\"\n[archive.retention]\n{days}"));
        assert!(kept("full_days = 30\nbilled_days = 30\n").contains("less than billed_days"));
        assert!(kept("full_days = 0\n").contains("full_days = 0"));
        assert!(kept("").contains("archive.retention"));
        assert!(refused("[alerts]\n").contains("[archive]"));
        let refused = |more: &str| refused(&format!("[archive]\nurl = \"/tmp/a\"\n[alerts]\n{more}"));
        assert!(refused("window_minutes = 7\n").contains("alerts.window_minutes"));
        assert!(refused("times = nan\n").contains("alerts.times"));
        assert!(refused("history_windows = 2017\n").contains("2016"));
        let webhook = |url: &str| format!("[alerts.webhook]\nurl = \"{url}\"\nsecret_file = \"s\"\n");
        for url in ["http://example.org/", "http://127.0.0.1.example.org/", "ftp://x"] {
            assert!(refused(&webhook(url)).contains("alerts.webhook.url"), "{url}");
        }
        assert!(
            load("[central]\ndata_dir = \"/x\"\n[kafka]\nbrokers = []\n")
                .unwrap_err()
                .contains("kafka.brokers")
        );
    }
}
