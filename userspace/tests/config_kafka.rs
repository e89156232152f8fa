//! `[kafka]`: what is taken, and what is refused in which words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weir::config::{Config, Host, Sink, load};
use weir::forward::kafka::{Compression, SaslMechanism};

#[track_caller]
fn refused(text: &str, expected: &str) {
    let Err(problems) = Config::parse(text) else { panic!("{text:?} is taken") };
    let found = problems.to_string();
    assert!(found.contains(expected), "for {text:?}: {found}");
}

#[test]
fn a_cluster_is_read_as_it_is_written() {
    let text = "forward.sink = \"kafka\"\n[kafka]\nbrokers = [\"k1:9092\", \"[::1]:9093\"]\nreplication = 2\n\
                compression = \"lz4\"\ntopic_prefix = \"ads.\"\n[kafka.tls]\nenabled = true\n";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.forward.sink, Sink::Kafka);
    assert_eq!(config.kafka.cluster.settings.brokers, ["k1:9092", "[::1]:9093"]);
    let topics = &config.kafka.topics;
    assert_eq!((topics.replication, topics.compression), (Some(2), Compression::Lz4));
    assert_eq!((topics.prefix.as_str(), topics.create, topics.partitions), ("ads.", true, 12));
    assert!(config.kafka.cluster.settings.tls.is_some() && config.kafka.cluster.settings.sasl.is_none());
    assert_eq!(Config::default().kafka.topics.replication, None, "as many as there are, up to three");
}

#[test]
fn what_cannot_work_is_refused_with_what_would() {
    refused("forward.sink = \"kafka\"", "kafka.brokers names none");
    refused("[kafka]\nbrokers = [\"k1\"]", "expected a host and a port such as \"kafka1.example:9092\"");
    refused("[kafka]\nbrokers = [\"k1:0\"]", "expected a host and a port");
    refused("[kafka]\nbrokers = [\"k1:1\", \"k1:1\"]", "named twice");
    refused("[kafka]\ntopic_prefix = \"a b\"", "expected up to 200 letters");
    refused("[kafka]\ncompression = \"gzip\"", "one of \"zstd\", \"lz4\", \"none\"");
    refused("[kafka.sasl]\nmechanism = \"scram-sha-512\"", "a log-in takes a user and a password_file");
    refused("[kafka.sasl]\nuser = \"weir\"", "mechanism is \"none\"; choose a mechanism");
    refused("[kafka.tls]\nca_file = \"ca.pem\"", "TLS is off; set enabled = true");
    refused("[kafka.tls]\nenabled = true\nkey_file = \"k.pem\"", "a certificate and its key belong together");
    let plain = "[kafka.sasl]\nmechanism = \"plain\"\nuser = \"a\"\npassword_file = \"b\"\n";
    refused(plain, "sends the password readable without tls.enabled");
}

#[test]
fn buckets_have_a_cluster_of_their_own_where_one_is_named() {
    assert_eq!(Config::parse("[kafka.buckets]\nbrokers = []\n").unwrap().kafka.buckets, None);
    let text = "[kafka]\nbrokers = [\"k:1\"]\n[kafka.buckets]\nbrokers = [\"c:2\"]\ntls.enabled = true\n";
    let kafka = Config::parse(text).unwrap().kafka;
    let buckets = kafka.buckets.unwrap().settings;
    assert_eq!((buckets.brokers, buckets.tls.is_some()), (vec!["c:2".to_owned()], true));
    assert_eq!((kafka.cluster.settings.brokers, kafka.cluster.settings.tls), (vec!["k:1".to_owned()], None));
    refused("[kafka.buckets]\ntls.enabled = true", "for a cluster that has no brokers");
    refused("[kafka]\nbrokers = [\"k:1\"]\nbuckets.brokers = [\"k:1\"]", "leave the section out");
    let plain = "brokers = [\"c:2\"]\nsasl = {mechanism = \"plain\", user = \"a\", password_file = \"b\"}\n";
    refused(&format!("[kafka.buckets]\n{plain}"), "kafka.buckets: sasl.mechanism \"plain\" sends");
}

fn loaded(folder: &Path, more: &str) -> Result<Config, String> {
    let file = folder.join("weir.toml");
    let text = format!("forward.sink = \"kafka\"\n[kafka]\nbrokers = [\"k:1\"]\n{more}");
    fs::write(&file, text).unwrap();
    load(&file, &Host { cores: vec![0] }).map_err(|error| error.to_string())
}

#[test]
fn a_password_comes_from_a_file_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let sasl = "[kafka.sasl]\nmechanism = \"scram-sha-256\"\nuser = \"weir\"\npassword_file = \"password\"\n";
    assert!(loaded(folder.path(), sasl).unwrap_err().contains("password cannot be read"));
    let password = folder.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(loaded(folder.path(), sasl).unwrap_err().contains("anybody may read it"));
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let config = loaded(folder.path(), sasl).unwrap();
    let found = config.kafka.cluster.settings.sasl.clone().unwrap();
    assert_eq!((found.mechanism, found.password.as_str()), (SaslMechanism::ScramSha256, "secret"));
    assert!(!format!("{config:?}").contains("secret"), "a password is never printed");
    for section in ["kafka", "kafka.buckets"] {
        let tls = format!(
            "[kafka.buckets]\nbrokers = [\"c:2\"]\n[{section}.tls]\nenabled = true\nca_file = \"ca.pem\"\n"
        );
        assert!(loaded(folder.path(), &tls).unwrap_err().contains(&format!("{section}.tls.ca_file")));
    }
}
