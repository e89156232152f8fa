//! Kafka's bad days: away and back, a topic deleted, records refused, a password refused. A node
//! takes clicks meanwhile, says what is wrong, and goes on by itself when it is mended.

use std::time::Duration;

use serde_json::Value;
use weir_kafka_lab::{Authority, Holder, Settings, TlsFiles};
use weir_labs::topics::{Recount, check_resent};
use weir_labs::{Generator, Load, NodeFolder, kafka};

fn load(seconds: u64, seed: u64) -> Load {
    Load { profile: "demo", rate: 4000, duration: Duration::from_secs(seconds), seed }
}

fn trouble(status: &Value) -> &str {
    status["forward"]["last_error"].as_str().unwrap_or_default()
}

fn rows(status: &Value) -> u64 {
    status["forward"]["rows"].as_u64().unwrap_or_default()
}

/// Waits until the node has an error for its operator that says this.
fn wait_for_trouble(node: &mut weir_labs::Node<'_>, words: &str) {
    let says = |status: &Value| trouble(status).to_lowercase().contains(words);
    node.wait_until("in trouble", says).unwrap_or_else(|error| panic!("{words}: {error}"));
}

/// Drains the node; then every acknowledged click must be in Kafka once.
fn drain_and_check(node: weir_labs::Node<'_>, bootstrap: &str, prefix: &str, acked: &std::path::Path) {
    node.drain().expect("drain");
    let recount = Recount::of(bootstrap, prefix).expect("recount");
    recount.is_of(acked).expect("every acknowledged click once");
}

#[test]
fn a_broker_that_stops_and_comes_back_costs_no_click_no_memory_and_no_restart() {
    let Some(mut cluster) = kafka::start(&Settings::default()).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let folder = NodeFolder::new(&kafka::config(&bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let mut generator = Generator::start(&folder, load(25, 21)).expect("generator");
    node.wait_until("forwarding", |status| rows(status) > 5000).expect("forwards");
    cluster.brokers[0].kill();
    let (status, resident) = (node.status().expect("status"), node.resident_kib().expect("memory"));
    wait_for_trouble(&mut node, "did not");
    let received = |status: &Value| status["clicks"]["received"].as_u64();
    node.wait_until("counting on", |now| received(now) > received(&status).map(|n| n + 20_000))
        .expect("counts");
    let grown = node.resident_kib().expect("memory").saturating_sub(resident);
    assert!(grown < 64 << 10, "20,000 clicks that wait are on the disk, not in {grown} KiB of memory");
    assert!(generator.is_running().expect("look"), "the outage outlasted the load");
    cluster.brokers[0].start().expect("start");
    cluster.brokers[0].wait_until_up().expect("up");
    node.wait_until("well again", |status| trouble(status).is_empty()).expect("goes on by itself");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    drain_and_check(node, &bootstrap, &prefix, &acked);
    check_resent(&bootstrap, &prefix, true).expect("the same octets");
}

#[test]
fn a_topic_that_refuses_a_batch_holds_it_back_until_it_takes_it() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::new(&kafka::config(bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let operator = kafka::Operator::of(bootstrap).expect("operator");
    let topic = format!("{prefix}buckets.v1");
    let sound = ("message.timestamp.type", "LogAppendTime");
    operator.configure(&topic, &[sound, ("max.message.bytes", "200")]).expect("configure");
    let generator = Generator::start(&folder, load(2, 22)).expect("generator");
    wait_for_trouble(&mut node, "max.message.bytes is 200 and must be");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    assert_eq!(Recount::of(bootstrap, &prefix).expect("recount").rows, 0, "a batch is whole or not there");
    operator.configure(&topic, &[sound]).expect("configure");
    node.wait_until("well again", |status| trouble(status).is_empty()).expect("goes on by itself");
    drain_and_check(node, bootstrap, &prefix, &acked);
    // Its blocks were written before its buckets were refused, and aborted with them.
    let again = check_resent(bootstrap, &prefix, true).expect("the same octets");
    assert!(again > 0, "a batch was sent again");
}

#[test]
fn a_deleted_topic_is_made_anew_and_later_clicks_reach_it_without_a_restart() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::new(&kafka::config(bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let generator = Generator::start(&folder, load(1, 23)).expect("generator");
    generator.finish(Duration::from_secs(90)).expect("generator");
    let forwarded_all = |status: &Value| rows(status) > 0 && Some(rows(status)) == counted(status);
    node.wait_until("forwarded", forwarded_all).expect("forwards");
    let before = rows(&node.status().expect("status"));
    let operator = kafka::Operator::of(bootstrap).expect("operator");
    for topic in ["clicks", "buckets", "checkpoints"] {
        operator.delete(&format!("{prefix}{topic}.v1")).expect("delete");
    }
    let generator = Generator::start(&folder, load(2, 24)).expect("generator");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    node.wait_until("forwarded", |status| rows(status) > before && forwarded_all(status)).expect("forwards");
    node.drain().expect("drain");
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    println!("{recount}");
    assert_eq!((recount.blocks_twice, recount.clicks_twice), (0, 0));
    assert_eq!(recount.missing(&acked).expect("acked log").0, 0, "of what came after");

    let node = folder.start_ready().expect("ready");
    node.drain().expect("drain");
    let again = Recount::of(bootstrap, &prefix).expect("recount");
    assert_eq!(again.rows, recount.rows, "the new topic has the checkpoint too");
}

/// The clicks that have a row.
fn counted(status: &Value) -> Option<u64> {
    let outcomes = &status["clicks"]["outcomes"];
    ["accepted", "repeat", "late", "filtered"].iter().map(|name| outcomes[name].as_u64()).sum()
}

/// The one user of a cluster, whose password is right.
fn user() -> Vec<String> {
    vec!["SCRAM-SHA-512=[name=weir,password=right]".to_owned()]
}

/// A folder of a node that logs in as that user.
fn folder_with_password(password: &str, bootstrap: &str, prefix: &str) -> NodeFolder {
    let config = kafka::config(bootstrap, prefix)
        + "[kafka.sasl]\nmechanism = \"scram-sha-512\"\nuser = \"weir\"\npassword_file = \"password\"\n";
    let folder = NodeFolder::new(&config).expect("folder");
    folder.write_private("password", &format!("{password}\n")).expect("password");
    folder
}

#[test]
fn a_refused_password_is_said_and_the_right_one_brings_everything() {
    let settings = Settings { users: user(), ..Settings::default() };
    let Some(cluster) = kafka::start(&settings).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let folder = folder_with_password("wrong", &bootstrap, &prefix);
    let mut node = folder.start_ready().expect("a node takes clicks without Kafka");
    let generator = Generator::start(&folder, load(1, 25)).expect("generator");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    wait_for_trouble(&mut node, "authentication failed");
    assert!(!folder.log_text().contains("wrong"), "a password is never logged");
    node.kill().expect("kill");
    folder.write_private("password", "right\n").expect("password");
    let node = folder.start_ready().expect("ready");
    drain_and_check(node, &cluster.back_door(), &prefix, &acked);
}

/// What lets nobody in but the brokers themselves and these users.
fn rights_of(users: &str) -> String {
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS{users}\n"
    )
}

#[test]
fn a_node_without_rights_says_so_and_goes_on_when_it_gets_them() {
    let settings = Settings { users: user(), properties: rights_of(""), ..Settings::default() };
    let Some(mut cluster) = kafka::start(&settings).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let folder = folder_with_password("right", &bootstrap, &prefix);
    let mut node = folder.start_ready().expect("a node takes clicks without rights");
    let generator = Generator::start(&folder, load(20, 27)).expect("generator");
    let mut give = |users: &str| {
        cluster.brokers[0].stop().expect("stop");
        cluster.brokers[0].configure(&rights_of(users)).expect("configure");
        cluster.brokers[0].start().expect("start");
        cluster.brokers[0].wait_until_up().expect("up");
    };
    wait_for_trouble(&mut node, "authorization");
    give(";User:weir");
    node.wait_until("forwarding", |status| rows(status) > 5000).expect("goes on by itself");
    // Taken away in the middle, and given back.
    give("");
    wait_for_trouble(&mut node, "authorization");
    give(";User:weir");
    node.wait_until("well again", |status| trouble(status).is_empty()).expect("goes on by itself");
    let (_, acked) = generator.finish(Duration::from_secs(120)).expect("generator");
    drain_and_check(node, &cluster.back_door(), &prefix, &acked);
}

/// A certificate authority, and keys and certificates of a broker on loopback and of a node.
fn make_certificates(folder: &std::path::Path) {
    let authority = Authority::new(folder).expect("authority");
    for name in ["broker", "node"] {
        authority.issue(name, Holder::Address("127.0.0.1"), 2).expect("certificate");
    }
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("read");
    let keystore = read("broker.key") + &read("broker.pem");
    std::fs::write(folder.join("keystore.pem"), keystore).expect("write");
}

#[test]
fn a_node_with_a_certificate_reaches_brokers_that_ask_for_one_and_one_without_says_so() {
    let certificates = tempfile::tempdir().expect("folder");
    make_certificates(certificates.path());
    let at = |name: &str| certificates.path().join(name);
    let tls = TlsFiles { keystore: at("keystore.pem"), truststore: at("ca.pem") };
    let settings = Settings { tls: Some(tls), ..Settings::default() };
    let Some(cluster) = kafka::start(&settings).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let trusting = kafka::config(&bootstrap, &prefix)
        + &format!("[kafka.tls]\nenabled = true\nca_file = {:?}\n", at("ca.pem"));
    let folder = NodeFolder::new(&trusting).expect("folder");
    let mut node = folder.start_ready().expect("a node takes clicks without Kafka");
    let generator = Generator::start(&folder, load(1, 26)).expect("generator");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    wait_for_trouble(&mut node, "ssl");
    node.kill().expect("kill");
    let config = std::fs::read_to_string(folder.config()).expect("config");
    let both = format!("{config}certificate_file = {:?}\nkey_file = {:?}\n", at("node.pem"), at("node.key"));
    std::fs::write(folder.config(), both).expect("config");
    let node = folder.start_ready().expect("ready");
    drain_and_check(node, &cluster.back_door(), &prefix, &acked);
}
