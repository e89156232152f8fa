//! `[clickhouse]`

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// `[clickhouse]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clickhouse {
    /// Its HTTP interface, such as `http://clickhouse-1:8123`.
    pub url: String,
    /// Where the tables are.
    #[serde(default = "default_database")]
    pub database: String,
    /// Who inserts.
    #[serde(default = "default_user")]
    pub user: String,
    /// A file with the user's password, relative to the config; empty where there is none.
    #[serde(default)]
    pub password_file: PathBuf,
    /// The cluster, as ClickHouse names it; empty for one machine.
    #[serde(default)]
    pub cluster: String,
    /// Settings of ClickHouse that every statement goes with.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

fn default_database() -> String {
    "weir".to_owned()
}

fn default_user() -> String {
    "default".to_owned()
}

impl Clickhouse {
    /// What cannot be: the key, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let url = reqwest::Url::parse(&self.url);
        if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(("clickhouse.url", "an address such as \"http://clickhouse-1:8123\"".to_owned()));
        }
        // Both are written into statements.
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.database.is_empty() || !self.database.chars().all(is_word) {
            return Err(("clickhouse.database", "letters, digits and _".to_owned()));
        }
        if !self.cluster.chars().all(|c| is_word(c) || c == '-' || c == '.') {
            return Err(("clickhouse.cluster", "letters, digits, _, - and .".to_owned()));
        }
        Ok(())
    }
}
