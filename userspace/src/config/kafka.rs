//! `[kafka]`: the cluster, how to log in, and what its topics are like.

use std::path::PathBuf;

use toml::de::DeValue;

use super::reader::Section;
use super::{Cluster, Config, Kafka, Sink};
use crate::forward::kafka::{ClusterSettings, Compression, Sasl, SaslMechanism, Tls, TopicSettings};

/// Kafka's bound for a topic's name, less the longest of ours.
const PREFIX_CHARS_MAX: usize = 200;
/// Beyond this a broker spends more on partitions than on records.
const PARTITIONS_MAX: u64 = 10_000;
/// A cluster names a few of its brokers; the client learns the rest.
const BROKERS_MAX: usize = 64;

pub(super) fn read(mut section: Section<'_, '_>) -> Kafka {
    let cluster = cluster(&mut section);
    let replication = section.integer("replication", 0_u16, 0..=i16::MAX as u64);
    let kafka = Kafka {
        cluster,
        buckets: buckets(section.section("buckets")),
        topics: TopicSettings {
            prefix: prefix(&mut section),
            create: section.boolean("create_topics", true),
            partitions: section.integer("partitions", 12, 1..=PARTITIONS_MAX),
            replication: (replication > 0).then_some(replication),
            compression: section.choice(
                "compression",
                Compression::Zstd,
                &[("zstd", Compression::Zstd), ("lz4", Compression::Lz4), ("none", Compression::None)],
            ),
        },
    };
    section.finish();
    kafka
}

fn cluster(section: &mut Section<'_, '_>) -> Cluster {
    let (sasl, password_file) = sasl(section.section("sasl"));
    let brokers = section.list("brokers", Vec::new(), "addresses such as \"kafka1:9092\"", broker);
    if brokers.len() > BROKERS_MAX {
        section.note("brokers", "more than 64; name some of them, the client learns of the others");
    }
    let settings = ClusterSettings { brokers, tls: tls(section.section("tls")), sasl };
    Cluster { settings, password_file }
}

/// The cluster of buckets, if it names a broker.
fn buckets(mut section: Section<'_, '_>) -> Option<Cluster> {
    let cluster = cluster(&mut section);
    let ClusterSettings { brokers, tls, sasl } = &cluster.settings;
    if brokers.is_empty() && (tls.is_some() || sasl.is_some()) {
        section.note("brokers", "tls or sasl is set for a cluster that has no brokers; name some of them");
    }
    section.finish();
    (!brokers.is_empty()).then_some(cluster)
}

fn broker(value: &DeValue<'_>) -> Result<String, std::borrow::Cow<'static, str>> {
    let sound = |text: &&str| {
        let Some((host, port)) = text.rsplit_once(':') else { return false };
        let of_host = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        !host.is_empty() && host.bytes().all(of_host) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let found = value.as_str().filter(sound).map(str::to_owned);
    found.ok_or("expected a host and a port such as \"kafka1.example:9092\"".into())
}

fn prefix(section: &mut Section<'_, '_>) -> String {
    let expected = "up to 200 letters, digits, \".\", \"_\" and \"-\" (default \"weir.\")";
    section.value("topic_prefix", "weir.".to_owned(), expected, |value| {
        let text = value.as_str()?;
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (text.len() <= PREFIX_CHARS_MAX && text.bytes().all(sound)).then(|| text.to_owned())
    })
}

/// A file's path; `""` for none.
pub(super) fn file(section: &mut Section<'_, '_>, name: &'static str) -> Option<PathBuf> {
    section.value(name, None, "the path of a file, or \"\" for none (default \"\")", |value| {
        value.as_str().map(|path| (!path.is_empty()).then(|| PathBuf::from(path)))
    })
}

fn tls(mut section: Section<'_, '_>) -> Option<Tls> {
    let enabled = section.boolean("enabled", false);
    let tls = Tls {
        ca_file: file(&mut section, "ca_file"),
        certificate_file: file(&mut section, "certificate_file"),
        key_file: file(&mut section, "key_file"),
    };
    if tls.certificate_file.is_some() != tls.key_file.is_some() {
        section.note("certificate_file", "a certificate and its key belong together; name both or neither");
    }
    if !enabled && tls != Tls::default() {
        section.note("enabled", "files are named and TLS is off; set enabled = true, or name no files");
    }
    section.finish();
    enabled.then_some(tls)
}

fn sasl(mut section: Section<'_, '_>) -> (Option<Sasl>, Option<PathBuf>) {
    let mechanisms = [
        ("none", None),
        ("plain", Some(SaslMechanism::Plain)),
        ("scram-sha-256", Some(SaslMechanism::ScramSha256)),
        ("scram-sha-512", Some(SaslMechanism::ScramSha512)),
    ];
    let mechanism = section.choice("mechanism", None, &mechanisms);
    let user = section
        .value("user", String::new(), "a name (default \"\")", |value| value.as_str().map(str::to_owned));
    let password_file = file(&mut section, "password_file");
    if mechanism.is_some() && (user.is_empty() || password_file.is_none()) {
        section.note("mechanism", "a log-in takes a user and a password_file; name both");
    }
    if mechanism.is_none() && (!user.is_empty() || password_file.is_some()) {
        section
            .note("user", "a user or password_file is named and mechanism is \"none\"; choose a mechanism");
    }
    section.finish();
    let sasl = mechanism.map(|mechanism| Sasl { mechanism, user, password: String::new() });
    (sasl, password_file)
}

/// How `[kafka]` agrees with the rest.
pub(super) fn check(root: &Section<'_, '_>, config: &Config) {
    let Kafka { cluster, buckets, .. } = &config.kafka;
    if config.forward.sink == Sink::Kafka && cluster.settings.brokers.is_empty() {
        root.note(
            "kafka",
            "forward.sink is \"kafka\" and kafka.brokers names none; name some of its brokers",
        );
    }
    for (key, cluster) in [("kafka", Some(cluster)), ("kafka.buckets", buckets.as_ref())] {
        let Some(ClusterSettings { tls, sasl, .. }) = cluster.map(|cluster| &cluster.settings) else {
            continue;
        };
        let is_plain = sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain);
        if is_plain && tls.is_none() {
            root.note(
                key,
                "sasl.mechanism \"plain\" sends the password readable without tls.enabled; turn TLS on, or \
                 use \"scram-sha-512\"",
            );
        }
    }
    if buckets.as_ref().is_some_and(|buckets| buckets.settings.brokers == cluster.settings.brokers) {
        root.note(
            "kafka.buckets",
            "it names the brokers of kafka.brokers; leave the section out to send all to one cluster",
        );
    }
}
