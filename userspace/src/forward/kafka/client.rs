//! From settings to librdkafka's clients.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::KafkaError;
use super::topics::Compression;

/// Blocks of one transaction: small enough for a line of 0.3 MB/s to bring them within
/// [`TRANSACTION_TIMEOUT`].
pub const PART_BYTES_MAX: u64 = 16 << 20;
/// How long the broker keeps a transaction that nobody ends.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a record may be on its way. Less than [`TRANSACTION_TIMEOUT`], so that a record is
/// given up before its transaction is.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(12);
/// How long any one request may take. Less than [`MESSAGE_TIMEOUT`], so that one lost answer is
/// asked for again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const _: () = assert!(MESSAGE_TIMEOUT.as_secs() < TRANSACTION_TIMEOUT.as_secs());
const _: () = assert!(PART_BYTES_MAX / TRANSACTION_TIMEOUT.as_secs() < 300_000);
const _: () = assert!(REQUEST_TIMEOUT.as_secs() * 2 < MESSAGE_TIMEOUT.as_secs());
/// Records waiting in librdkafka: a pipe, and not a buffer. A part goes through it.
const QUEUE_KBYTES_MAX: u32 = 16 << 10;
/// The largest record batch, before compression: below the 1,048,588 that a broker takes if
/// nobody told it otherwise.
pub const RECORD_BATCH_BYTES_MAX: u32 = 1_000_000;

/// A cluster, and how to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `host:port` of some of its brokers; the client learns the others from them.
    pub brokers: Vec<String>,
    /// Encryption, if it is on.
    pub tls: Option<Tls>,
    /// Log-in, if one is asked for.
    pub sasl: Option<Sasl>,
}

/// TLS, with a certificate of our own when the cluster wants one (mTLS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates to trust, PEM; those of the system when there is none.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// Log-in by name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// The name.
    pub user: String,
    /// The password; never printed.
    pub password: String,
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sasl({:?}, {:?}, ..)", self.mechanism, self.user)
    }
}

/// The mechanisms that need nothing but OpenSSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// RFC 4616. Only under TLS.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802 with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl ClusterSettings {
    /// What librdkafka is given as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.brokers.join(",")
    }

    /// What all clients of this cluster have in common.
    fn base(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("client.id", client_id);
        config.set("socket.timeout.ms", millis(REQUEST_TIMEOUT));
        config.set("socket.keepalive.enable", "true").set("log.connection.close", "false");
        // A broker that is back is found within a second.
        config.set("reconnect.backoff.max.ms", "1000");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ];
            for (key, file) in files {
                if let Some(file) = file {
                    config.set(key, file.to_string_lossy());
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            config.set("sasl.username", &sasl.user).set("sasl.password", &sasl.password);
        }
        config
    }

    /// A transactional producer's settings.
    #[must_use]
    pub fn producer(&self, transactional_id: &str, compression: Compression) -> ClientConfig {
        let mut config = self.base(transactional_id);
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", millis(TRANSACTION_TIMEOUT));
        config.set("message.timeout.ms", millis(MESSAGE_TIMEOUT));
        config.set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string());
        config.set("message.max.bytes", RECORD_BATCH_BYTES_MAX.to_string());
        config.set("batch.size", RECORD_BATCH_BYTES_MAX.to_string());
        config.set("compression.type", compression.name());
        // As every other Kafka client does it, so that consumers find a key where they expect it.
        config.set("partitioner", "murmur2_random");
        // A flush waits for its last record anyway; until then whole record batches form.
        config.set("linger.ms", "5");
        config
    }

    /// A consumer's settings; it commits no offsets and joins no group.
    #[must_use]
    pub fn consumer(&self, client_id: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.base(client_id);
        // librdkafka wants a name here, whether it is used or not.
        config.set("group.id", client_id).set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("auto.offset.reset", "error");
        config.set("isolation.level", isolation.name()).set("enable.partition.eof", "true");
        config.set("fetch.wait.max.ms", "100").set("check.crcs", "true");
        // Two partitions' worth of what one fetch brings.
        config.set("queued.max.messages.kbytes", "8192");
        config
    }

    /// An error of a client of this cluster.
    pub(super) fn away(&self, what: &'static str, error: &dyn std::fmt::Display, said: &Said) -> KafkaError {
        let error = error.to_string();
        let why = match said.last() {
            Some(word) => format!("{error} ({word})"),
            None => error,
        };
        KafkaError::Away { brokers: self.bootstrap(), what, why }
    }
}

/// What a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only what transactions committed, up to the first that is open.
    Committed,
    /// Everything in the log.
    Uncommitted,
}

impl Isolation {
    const fn name(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Makes a client.
pub(super) fn create<T, C>(config: &ClientConfig, context: C) -> Result<T, KafkaError>
where
    T: FromClientConfigAndContext<C>,
    C: ClientContext,
{
    let mut config = config.clone();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.create_with_context(context).map_err(|error| KafkaError::Client(error.to_string()))
}

/// What a client said last of its connections: librdkafka reports those beside the calls that
/// fail for them.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    last: Option<String>,
    /// The first record that was not taken, and why.
    refused: Option<String>,
}

impl Said {
    fn with<T>(&self, act: impl FnOnce(&mut Words) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The last word.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.with(|words| words.last.clone())
    }

    /// Why a record was refused, if one was since the last call.
    pub(super) fn take_refused(&self) -> Option<String> {
        self.with(|words| words.refused.take())
    }
}

/// Listens to a client.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What it said.
    pub said: Said,
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        // "All brokers are down" says less than what was said of a broker before it.
        let is_sum = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::AllBrokersDown);
        self.said.with(|words| {
            if !is_sum || words.last.is_none() {
                words.last = Some(reason.to_owned());
            }
        });
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let topic = rdkafka::Message::topic(message);
            self.said.with(|words| {
                words.refused.get_or_insert_with(|| format!("a record of topic {topic}: {error}"));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_in_and_encryption_choose_the_protocol() {
        let plain = ClusterSettings { brokers: vec!["a:1".into(), "b:2".into()], ..Default::default() };
        let sasl = Sasl { mechanism: SaslMechanism::ScramSha512, user: "weir".into(), password: "x".into() };
        let tls = Tls { ca_file: Some("/ca.pem".into()), ..Default::default() };
        let with = |tls: Option<&Tls>, sasl: Option<&Sasl>| {
            let settings = ClusterSettings { tls: tls.cloned(), sasl: sasl.cloned(), ..plain.clone() };
            settings.producer("weir.node.1", Compression::Zstd)
        };
        let protocol = |config: &ClientConfig| config.get("security.protocol").map(str::to_owned);
        assert_eq!(protocol(&with(None, None)).as_deref(), Some("plaintext"));
        assert_eq!(protocol(&with(Some(&tls), None)).as_deref(), Some("ssl"));
        assert_eq!(protocol(&with(None, Some(&sasl))).as_deref(), Some("sasl_plaintext"));
        let both = with(Some(&tls), Some(&sasl));
        assert_eq!(protocol(&both).as_deref(), Some("sasl_ssl"));
        assert_eq!(both.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(both.get("ssl.ca.location"), Some("/ca.pem"));
        assert_eq!(both.get("bootstrap.servers"), Some("a:1,b:2"));
        assert!(!format!("{sasl:?}").contains("\"x\""), "a password is never printed");
    }
}
