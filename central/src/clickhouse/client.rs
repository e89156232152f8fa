//! Statements over ClickHouse's HTTP interface, each as often as it takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::runtime::Runtime;

use super::{ClickhouseError, Counters};
use crate::config::Clickhouse;

/// How long a server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take for one statement: building a day of a large installation is the longest.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// How long to wait before a statement that failed is tried again, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often a wait looks whether to stop.
const TICK: Duration = Duration::from_millis(50);
/// What is quoted of an answer that is an error: ClickHouse may add its whole stack.
const QUOTED_CHARS: usize = 500;

/// Numbers of errors that an operator has to do something about, so that trying again is of no use; by the names of
/// ClickHouse's `ErrorCodes.cpp`. All others may pass: too many parts, no memory, no quorum, read only, or a peer is away.
const FINAL_CODES: [u32; 22] = [
    6,   // CANNOT_PARSE_TEXT
    16,  // NO_SUCH_COLUMN_IN_TABLE
    20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    33,  // CANNOT_READ_ALL_DATA
    36,  // BAD_ARGUMENTS
    46,  // UNKNOWN_FUNCTION
    47,  // UNKNOWN_IDENTIFIER
    53,  // TYPE_MISMATCH
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    81,  // UNKNOWN_DATABASE
    115, // UNKNOWN_SETTING
    117, // INCORRECT_DATA
    164, // READONLY: the user may only read
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    195, // IP_ADDRESS_NOT_ALLOWED
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
    701, // CLUSTER_DOESNT_EXIST
];

/// What every statement goes with: an answer comes when all is done, an insert is in a part when it is acknowledged, and
/// numbers of 64 bits are numbers.
const SETTINGS: [(&str, &str); 3] =
    [("wait_end_of_query", "1"), ("async_insert", "0"), ("output_format_json_quote_64bit_integers", "0")];
/// On a cluster also: an insert is in most replicas of its shard when it is acknowledged, and what is built from it is
/// read from one that has it. Each shard builds its own windows.
const CLUSTER_SETTINGS: [(&str, &str); 5] = [
    ("distributed_foreground_insert", "1"),
    ("insert_quorum", "auto"),
    ("insert_quorum_parallel", "0"),
    ("select_sequential_consistency", "1"),
    ("parallel_distributed_insert_select", "2"),
];

/// Asks one ClickHouse.
pub(super) struct Client<'a> {
    http: reqwest::Client,
    runtime: Runtime,
    url: String,
    database: String,
    settings: Vec<(String, String)>,
    counters: &'a Counters,
    stop: &'a AtomicBool,
}

/// How one try of a statement ended.
enum Tried {
    Done(String),
    Again(String),
    Stopped,
}

impl<'a> Client<'a> {
    /// Asks nothing yet.
    pub(super) fn open(
        config: &Clickhouse,
        (counters, stop): (&'a Counters, &'a AtomicBool),
    ) -> Result<Self, ClickhouseError> {
        let unusable = |error: &dyn std::fmt::Display| ClickhouseError::Settings(error.to_string());
        let mut headers = HeaderMap::new();
        let mut header = |name: &'static str, value: &str| {
            let mut value = HeaderValue::from_str(value).map_err(|error| unusable(&error))?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<_, ClickhouseError>(())
        };
        header("x-clickhouse-user", &config.user)?;
        if let Some(password) = password(config)? {
            header("x-clickhouse-key", &password)?;
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let of_cluster = CLUSTER_SETTINGS.iter().filter(|_| !config.cluster.is_empty());
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut settings: Vec<_> = SETTINGS.iter().chain(of_cluster).map(own).collect();
        settings.retain(|(name, _)| !config.settings.contains_key(name));
        settings.extend(config.settings.clone());
        Ok(Self {
            http: http.map_err(|error| unusable(&error))?,
            runtime: runtime.map_err(|error| unusable(&error))?,
            url: config.url.clone(),
            database: config.database.clone(),
            settings,
            counters,
            stop,
        })
    }

    /// Where the tables are.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// What counts.
    pub(super) const fn counters(&self) -> &Counters {
        self.counters
    }

    /// Whether to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The answer to a statement.
    pub(super) fn ask(
        &self,
        statement: String,
        settings: &[(&str, &str)],
    ) -> Result<String, ClickhouseError> {
        self.until_done(settings, &statement.into())
    }

    /// Inserts rows.
    pub(super) fn insert(
        &self,
        statement: &str,
        settings: &[(&str, &str)],
        rows: Vec<u8>,
    ) -> Result<(), ClickhouseError> {
        let settings: Vec<_> = [("query", statement)].iter().chain(settings).copied().collect();
        self.until_done(&settings, &rows.into()).map(drop)
    }

    /// Tries until it is done; ends when told to stop before. The log keeps what waits.
    fn until_done(&self, parameters: &[(&str, &str)], body: &Bytes) -> Result<String, ClickhouseError> {
        let mut wait = RETRY.0;
        loop {
            let once = async {
                tokio::select! {
                    tried = self.once(parameters, body.clone()) => tried,
                    () = self.stopped() => Ok(Tried::Stopped),
                }
            };
            let why = match self.runtime.block_on(once)? {
                Tried::Done(answer) => return Ok(answer),
                Tried::Stopped => return Err(ClickhouseError::Stopped),
                Tried::Again(why) => why,
            };
            if self.counters.retries.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                tracing::warn!(url = self.url, why, "ClickHouse is asked again");
            }
            self.runtime.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => (),
                    () = self.stopped() => (),
                }
            });
            wait = (wait * 2).min(RETRY.1);
        }
    }

    async fn stopped(&self) {
        while !self.is_stopped() {
            tokio::time::sleep(TICK).await;
        }
    }

    async fn once(&self, parameters: &[(&str, &str)], body: Bytes) -> Result<Tried, ClickhouseError> {
        let request = self.http.post(&self.url).query(&self.settings).query(parameters).body(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Ok(Tried::Again(causes(&error))),
        };
        let status = answer.status();
        let code = answer.headers().get("x-clickhouse-exception-code").cloned();
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) => return Ok(Tried::Again(causes(&error))),
        };
        if status.is_success() && code.is_none() {
            return Ok(Tried::Done(text));
        }
        let code = code.and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(0);
        let why = format!("{status}: {}", text.chars().take(QUOTED_CHARS).collect::<String>());
        if FINAL_CODES.contains(&code) {
            return Err(ClickhouseError::Refused { url: self.url.clone(), why });
        }
        Ok(Tried::Again(why))
    }

    /// An answer that cannot be read.
    pub(super) fn unreadable(&self, why: &dyn std::fmt::Display) -> ClickhouseError {
        ClickhouseError::Answer { url: self.url.clone(), why: why.to_string() }
    }
}

/// An error and what it comes from: the library's own says only that a request failed.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn password(config: &Clickhouse) -> Result<Option<String>, ClickhouseError> {
    let path = &config.password_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let read = std::fs::read_to_string(path);
    let read = read.map_err(|source| ClickhouseError::Password { path: path.clone(), source })?;
    Ok(Some(read.trim().to_owned()))
}

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
