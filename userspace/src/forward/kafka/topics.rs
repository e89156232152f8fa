//! The topics: made where they are missing, checked where they are there.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigEntry, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::types::RDKafkaErrorCode;

use super::KafkaError;
use super::client::{ClusterSettings, Context, RECORD_BATCH_BYTES_MAX, REQUEST_TIMEOUT, create};
use super::reader::Reader;

/// How many copies of each record there are to be, if the cluster has as many brokers.
const REPLICATION: u16 = 3;
/// How many of three copies must be written before an answer.
const IN_SYNC: &str = "2";
/// Partitions of the checkpoints: few, for each start reads them all.
const CHECKPOINT_PARTITIONS: u16 = 4;
/// A compacted topic keeps its newest segment as it is, and each start reads it.
const CHECKPOINT_SEGMENT_BYTES: &str = "16777216";
/// How long a topic that was made may take until every broker knows it.
const KNOWN_MAX: Duration = Duration::from_secs(10);

/// How the records on the wire and in the log are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Smallest.
    Zstd,
    /// Fastest.
    Lz4,
    /// Not at all.
    None,
}

impl Compression {
    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }
}

/// What the topics are to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// What every name begins with.
    pub prefix: String,
    /// Make the topics that are missing.
    pub create: bool,
    /// Partitions of a topic that is made; checkpoints have few of their own.
    pub partitions: u16,
    /// Copies of a topic that is made; none for three, or as many as there are brokers.
    pub replication: Option<u16>,
    /// Of what this node sends.
    pub compression: Compression,
}

/// The names of the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    /// Raw batches.
    pub clicks: String,
    /// Changed buckets, by ad.
    pub buckets: String,
    /// Sketches of unique users, by ad.
    pub uniques: String,
    /// How far each node is; compacted.
    pub checkpoints: String,
    /// Malformed input.
    pub rejects: String,
}

impl TopicNames {
    /// The names that begin with `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let name = |word| format!("{prefix}{word}.v1");
        Self {
            clicks: name("clicks"),
            buckets: name("buckets"),
            uniques: name("uniques"),
            checkpoints: name("checkpoints"),
            rejects: name("rejects"),
        }
    }

    /// Those of a cluster that takes this.
    #[must_use]
    pub fn of(&self, takes: Takes) -> Vec<&str> {
        let raw: [&str; 2] = [&self.clicks, &self.rejects];
        let buckets: [&str; 2] = [&self.buckets, &self.uniques];
        let mut names: Vec<&str> = vec![&self.checkpoints];
        names.extend(raw.into_iter().filter(|_| takes.has_raw()));
        names.extend(buckets.into_iter().filter(|_| takes.has_buckets()));
        names
    }
}

/// What a cluster takes of a batch. The checkpoint goes everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// All of it.
    All,
    /// Blocks, and which of them are lost.
    Raw,
    /// Buckets.
    Buckets,
}

impl Takes {
    /// Whether blocks are among it.
    #[must_use]
    pub const fn has_raw(self) -> bool {
        matches!(self, Self::All | Self::Raw)
    }

    /// Whether buckets are among it.
    #[must_use]
    pub const fn has_buckets(self) -> bool {
        matches!(self, Self::All | Self::Buckets)
    }
}

/// The configuration a topic must have, and what goes wrong else.
const REQUIRED: [(&str, &str, &str); 1] = [(
    "message.timestamp.type",
    "LogAppendTime",
    "else a node whose clock is wrong has its records refused, or deleted at once",
)];

/// Sees to it that the topics for this are there and as they must be.
///
/// # Errors
/// When one is missing and may not be made, or is such that clicks would be lost in it.
pub fn ensure(
    settings: &ClusterSettings,
    reader: &Reader,
    topics: &TopicSettings,
    takes: Takes,
) -> Result<(), KafkaError> {
    let names = TopicNames::new(&topics.prefix);
    let admin: AdminClient<Context> =
        create(&settings.consumer("weir-admin", super::client::Isolation::Committed), Context::default())?;
    let mut missing = Vec::new();
    for topic in names.of(takes) {
        if reader.partitions(topic)? == 0 {
            missing.push(topic);
        }
    }
    if let (Some(topic), false) = (missing.first(), topics.create) {
        let problem = "is not there and `kafka.create_topics` is false; make it as docs/kafka.md says";
        return Err(KafkaError::Topic { topic: (*topic).to_owned(), problem: problem.to_owned() });
    }
    if !missing.is_empty() {
        make(settings, &admin, &missing, topics, &names)?;
        for topic in &missing {
            wait_until_known(reader, topic)?;
        }
    }
    check(settings, &admin, &names, takes)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Waits for an answer of the admin client, whose requests have a timeout of their own.
fn wait<T>(answer: impl Future<Output = T>) -> Result<T, KafkaError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    Ok(runtime.map_err(|error| KafkaError::Client(error.to_string()))?.block_on(answer))
}

fn make(
    settings: &ClusterSettings,
    admin: &AdminClient<Context>,
    missing: &[&str],
    topics: &TopicSettings,
    names: &TopicNames,
) -> Result<(), KafkaError> {
    let said = &admin.inner().context().said;
    let away = |error: &dyn std::fmt::Display| settings.away("make its topics", error, said);
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).map_err(|error| away(&error))?;
    let brokers = u16::try_from(metadata.brokers().len()).unwrap_or(u16::MAX);
    let copies = topics.replication.unwrap_or(REPLICATION.min(brokers)).max(1);
    let wanted: Vec<_> =
        missing.iter().map(|topic| (*topic, wanted(*topic == names.checkpoints, copies))).collect();
    let requests: Vec<_> = wanted
        .iter()
        .map(|(topic, config)| {
            let is_checkpoints = *topic == names.checkpoints;
            let partitions = if is_checkpoints { CHECKPOINT_PARTITIONS } else { topics.partitions };
            let copies = TopicReplication::Fixed(i32::from(copies));
            let request = NewTopic::new(topic, i32::from(partitions), copies);
            config.iter().fold(request, |request, (key, value)| request.set(key, value))
        })
        .collect();
    let answers = wait(admin.create_topics(&requests, &options()))?.map_err(|error| away(&error))?;
    for answer in answers {
        match answer {
            Ok(topic) => tracing::info!(topic, copies, "made a topic"),
            // Another node was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let problem = format!("cannot be made: {code}; make it as docs/kafka.md says");
                return Err(KafkaError::Topic { topic, problem });
            }
        }
    }
    Ok(())
}

/// The configuration of a topic that is made.
fn wanted(is_checkpoints: bool, copies: u16) -> Vec<(&'static str, &'static str)> {
    let mut config: Vec<_> = REQUIRED.iter().map(|(name, value, _)| (*name, *value)).collect();
    if copies >= REPLICATION {
        config.push(("min.insync.replicas", IN_SYNC));
    }
    if is_checkpoints {
        config.extend([("cleanup.policy", "compact"), ("segment.bytes", CHECKPOINT_SEGMENT_BYTES)]);
        config.extend([("min.cleanable.dirty.ratio", "0.1"), ("segment.ms", "3600000")]);
    }
    config
}

fn wait_until_known(reader: &Reader, topic: &str) -> Result<(), KafkaError> {
    let deadline = std::time::Instant::now() + KNOWN_MAX;
    while reader.partitions(topic)? == 0 {
        if std::time::Instant::now() >= deadline {
            let problem = "was made and is not known to the brokers yet".to_owned();
            return Err(KafkaError::Topic { topic: topic.to_owned(), problem });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn check(
    settings: &ClusterSettings,
    admin: &AdminClient<Context>,
    names: &TopicNames,
    takes: Takes,
) -> Result<(), KafkaError> {
    let topics = names.of(takes);
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let said = &admin.inner().context().said;
    let answers = wait(admin.describe_configs(&resources, &options()))?
        .map_err(|error| settings.away("describe its topics", &error, said))?;
    for answer in answers {
        let found = match answer {
            Ok(found) => found,
            Err(code) => {
                // The right to write is not the right to look.
                tracing::warn!(%code, "the configuration of a topic cannot be checked");
                continue;
            }
        };
        let OwnedResourceSpecifier::Topic(topic) = found.specifier else { continue };
        let entries: Vec<_> = found.entries.iter().filter_map(entry).collect();
        if let Some(problem) = problem(&topic, topic == names.checkpoints, &entries) {
            return Err(KafkaError::Topic { topic, problem });
        }
    }
    Ok(())
}

fn entry(entry: &ConfigEntry) -> Option<(&str, &str)> {
    Some((&entry.name, entry.value.as_deref()?))
}

/// What is wrong with a topic's configuration, and what mends it.
fn problem(topic: &str, is_checkpoints: bool, entries: &[(&str, &str)]) -> Option<String> {
    let value = |name: &str| entries.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let mend = |name: &str, found: &str, wanted: &str, why: &str| {
        format!(
            "{name} is {found} and must be {wanted}, {why}; run kafka-configs.sh --alter --entity-type topics \
             --entity-name {topic} --add-config {name}={wanted}"
        )
    };
    for (name, wanted, why) in REQUIRED {
        if let Some(found) = value(name).filter(|found| *found != wanted) {
            return Some(mend(name, found, wanted, why));
        }
    }
    let policy = value("cleanup.policy").unwrap_or("");
    let wanted = if is_checkpoints { "compact" } else { "delete" };
    if !policy.is_empty() && policy != wanted {
        let why = if is_checkpoints {
            "else an old checkpoint is deleted and its node sends everything again"
        } else {
            "else records with the same key replace each other"
        };
        return Some(mend("cleanup.policy", policy, wanted, why));
    }
    let bytes_max = value("max.message.bytes").and_then(|text| text.parse::<u64>().ok());
    // A record batch has a header of its own around what the client counts.
    let wanted = u64::from(RECORD_BATCH_BYTES_MAX) + 1024;
    if let Some(found) = bytes_max.filter(|found| *found < wanted) {
        let why = "else whole batches are refused";
        return Some(mend("max.message.bytes", &found.to_string(), &wanted.to_string(), why));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 3] = [
        ("message.timestamp.type", "LogAppendTime"),
        ("cleanup.policy", "delete"),
        ("max.message.bytes", "1048588"),
    ];

    #[test]
    fn a_topic_that_would_lose_clicks_is_refused_with_the_command_that_mends_it() {
        assert_eq!(problem("t", false, &SOUND), None);
        let compacted =
            SOUND.map(|(key, value)| if key == "cleanup.policy" { (key, "compact") } else { (key, value) });
        assert_eq!(problem("t", true, &compacted), None);
        for (at, value, is_checkpoints, expected) in [
            (0, "CreateTime", false, "--entity-name t --add-config message.timestamp.type=LogAppendTime"),
            (1, "compact", false, "--add-config cleanup.policy=delete"),
            (1, "delete", true, "--add-config cleanup.policy=compact"),
            (1, "compact,delete", true, "--add-config cleanup.policy=compact"),
            (2, "65536", false, "max.message.bytes is 65536 and must be 1001024"),
        ] {
            let mut entries = SOUND;
            entries[at].1 = value;
            let found = problem("t", is_checkpoints, &entries).unwrap_or_default();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_topic_that_is_made_passes_its_own_check() {
        for is_checkpoints in [false, true] {
            assert_eq!(problem("t", is_checkpoints, &wanted(is_checkpoints, 3)), None);
        }
        assert!(wanted(false, 3).contains(&("min.insync.replicas", "2")));
        assert!(!wanted(false, 1).iter().any(|(name, _)| *name == "min.insync.replicas"));
    }

    #[test]
    fn each_topic_is_in_one_of_two_clusters_and_checkpoints_are_in_both() {
        let names = TopicNames::new("");
        let (raw, buckets) = (names.of(Takes::Raw), names.of(Takes::Buckets));
        let both: Vec<_> = raw.iter().filter(|name| buckets.contains(name)).copied().collect();
        assert_eq!(both, [names.checkpoints.as_str()]);
        assert_eq!(raw.len() + buckets.len(), names.of(Takes::All).len() + 1);
    }

    #[test]
    fn names_carry_prefix_and_version() {
        let names = TopicNames::new("weir.");
        assert_eq!(names.clicks, "weir.clicks.v1");
        assert_eq!(names.of(Takes::All).len(), 5);
    }
}
