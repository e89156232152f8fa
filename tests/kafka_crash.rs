//! A node that is killed at random instants, inside its transactions and between them, is in Kafka
//! once; of two nodes with one identity one forwards.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use weir_labs::topics::{Recount, check_resent};
use weir_labs::{Generator, Load, NodeFolder, kafka};

/// Kills in one run. `WEIR_KILLS` asks for more.
const KILLS: u32 = 6;
/// Kills in the long form, which `WEIR_SOAK` asks for.
const KILLS_SOAK: u32 = 200;
/// A life goes on at most this long after it forwarded its first batch: a few flushes.
const LIFE_MS_MAX: u64 = 700;
/// What a life may take with its start, on a slow machine: the load must outlast all of them.
const LIFE_WITH_START_S: u64 = 6;

fn load(duration: Duration, seed: u64) -> Load {
    Load { profile: "demo", rate: 4000, duration, seed }
}

#[test]
fn a_node_killed_inside_and_outside_transactions_is_in_kafka_once() {
    let Some(bootstrap) = kafka::shared() else { return };
    let usual = if std::env::var_os("WEIR_SOAK").is_some() { KILLS_SOAK } else { KILLS };
    let kills = std::env::var("WEIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let seed =
        std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: repeat with WEIR_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let prefix = kafka::fresh_prefix();
    // Flushes as often as can be: most of the time a transaction is open.
    let config = kafka::config(bootstrap, &prefix).replace("200ms", "100ms");
    let folder = NodeFolder::new(&config).expect("folder");
    let duration = Duration::from_secs(LIFE_WITH_START_S * u64::from(kills));
    let first = folder.start_ready().expect("ready");
    let mut generator = Generator::start(&folder, load(duration, seed)).expect("generator");
    first.kill().expect("kill");
    for kill in 0..kills {
        let mut node = folder.start().expect("start");
        if random.random_ratio(3, 4) {
            node.wait_until("forwarding", |status| status["forward"]["rows"].as_u64() > Some(0))
                .expect("forwards");
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..LIFE_MS_MAX)));
        assert_eq!(node.ended().expect("look"), None, "life {kill} ended by itself:\n{}", folder.log_tail());
        node.kill().expect("kill");
        assert!(generator.is_running().expect("look"), "the load ended before kill {kill}");
    }
    let last = folder.start_ready().expect("ready");
    let (_, acked) = generator.finish(duration + Duration::from_secs(90)).expect("generator");
    last.drain().expect("drain");
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    // Every click of the generator was acknowledged in the end, so there is no other row.
    recount.is_of(&acked).expect("every acknowledged click once");
    let again = check_resent(bootstrap, &prefix, false).expect("the same octets");
    println!("{again} blocks were sent again after a kill inside a transaction");
}

#[test]
fn a_copied_folder_does_not_take_the_identity_from_a_node_that_went_on() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let config = kafka::config(bootstrap, &prefix);
    let folder = NodeFolder::new(&config).expect("folder");
    let node = folder.start_ready().expect("ready");
    node.drain().expect("drain");
    let copy = NodeFolder::new(&config).expect("folder");
    copy.copy_data(&folder).expect("copy");

    let mut node = folder.start_ready().expect("ready");
    let send = |seed| {
        let generator = Generator::start(&folder, load(Duration::from_secs(1), seed)).expect("generator");
        generator.finish(Duration::from_secs(60)).expect("generator").1
    };
    send(31);
    node.wait_until("forwarding", |status| status["forward"]["rows"].as_u64() > Some(0)).expect("forwards");
    let mut other = copy.start().expect("start");
    let error = other.wait_until_ready().expect_err("it is a copy").to_string();
    assert!(error.contains("start with an empty folder instead"), "{error}");
    let acked = send(32);
    node.drain().expect("the node that went on forwards to its end");
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    recount.check().expect("sound topics");
    assert_eq!(recount.missing(&acked).expect("acked log").0, 0);
}

#[test]
fn a_start_waits_until_no_transaction_of_another_node_hides_its_checkpoint() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::new(&kafka::config(bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("transactional.id", format!("{prefix}other"));
    config.set("transaction.timeout.ms", "10000").set("message.timeout.ms", "5000");
    let other: BaseProducer = config.create().expect("producer");
    other.init_transactions(Duration::from_secs(30)).expect("the other node's id");
    other.begin_transaction().expect("begin");
    let topic = format!("{prefix}checkpoints.v1");
    for partition in 0..4 {
        let record = BaseRecord::to(&topic).key("checkpoint:2:0").payload("{}").partition(partition);
        other.send(record).map_err(|(error, _)| error).expect("send");
    }
    other.flush(Duration::from_secs(10)).expect("flush");

    // What the node commits from now on is hidden behind the other's open transaction.
    let generator = Generator::start(&folder, load(Duration::from_secs(2), 5)).expect("generator");
    let (_, acked) = generator.finish(Duration::from_secs(60)).expect("generator");
    node.wait_until("forwarding", |status| status["forward"]["rows"].as_u64() > Some(1000))
        .expect("forwards");
    node.kill().expect("kill");
    let node = folder.start_ready().expect("ready");
    node.drain().expect("drain");
    drop(other);
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    recount.check().expect("sound topics");
    assert_eq!(recount.missing(&acked).expect("acked log").0, 0);
}

#[test]
fn of_two_nodes_with_one_identity_one_forwards_and_the_other_says_why_it_stopped() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let config = kafka::config(bootstrap, &prefix);
    let folders = [NodeFolder::new(&config).expect("folder"), NodeFolder::new(&config).expect("folder")];
    let mut first = folders[0].start_ready().expect("ready");
    let mut second = folders[1].start_ready().expect("ready");
    let send = |folder, seed| {
        let generator = Generator::start(folder, load(Duration::from_secs(2), seed)).expect("generator");
        generator.finish(Duration::from_secs(60)).expect("generator").1
    };
    let (first_acked, second_acked) = (send(&folders[0], 1), send(&folders[1], 2));
    let says_why = |status: &serde_json::Value| {
        status["forward"]["last_error"].as_str().is_some_and(|why| why.contains("belongs to another owner"))
    };
    first.wait_until("stopped", says_why).expect("the first says why");
    let status = first.status().expect("status");
    assert_eq!(status["state"], "running", "it takes clicks and keeps them");
    assert_eq!(status["forward"]["rows"], 0);
    // It stays stopped: it does not take the identity back.
    second
        .wait_until("forwarding", |status| status["forward"]["flushes"].as_u64() > Some(2))
        .expect("forwards");
    assert!(says_why(&first.status().expect("status")));
    second.drain().expect("the owner forwards to its end");
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    recount.is_of(&second_acked).expect("every acknowledged click once");
    assert!(first.drain().is_err(), "what was not forwarded is said at the end");
    assert!(folders[0].log_text().contains("belongs to another owner"));

    // The other is gone: a restart of the first takes the identity and brings the rest.
    let first = folders[0].start_ready().expect("ready");
    first.drain().expect("drain");
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    recount.check().expect("sound topics");
    assert_eq!(recount.missing(&first_acked).expect("acked log").0, 0);
}
