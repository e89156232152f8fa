//! Raw batches in one cluster, buckets in another: exact together, whichever is away, and when the
//! node dies between the two.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_kafka_lab::Settings;
use weir_labs::topics::{Isolation, Recount, check_resent, read};
use weir_labs::{Generator, Load, NodeFolder, kafka};

/// Kills in one run, each within a few flushes.
const KILLS: u32 = 4;

fn rows(status: &Value) -> u64 {
    status["forward"]["rows"].as_u64().unwrap_or_default()
}

#[test]
fn buckets_in_a_cluster_of_their_own_are_a_recount_of_the_raw_one_after_kills_and_an_outage() {
    let Some(raw) = kafka::shared() else { return };
    let Some(mut central) = kafka::start(&Settings::default()).expect("Kafka comes up") else { return };
    let (buckets, prefix) = (central.bootstrap(), kafka::fresh_prefix());
    let config = kafka::config(raw, &prefix) + &kafka::config_of_buckets(&buckets);
    let folder = NodeFolder::new(&config).expect("folder");
    let mut random = SmallRng::seed_from_u64(61);
    let load = Load { profile: "demo", rate: 4000, duration: Duration::from_secs(30), seed: 61 };

    let mut node = folder.start_ready().expect("ready");
    let generator = Generator::start(&folder, load).expect("generator");
    for _ in 0..KILLS {
        node.wait_until("forwarding", |status| rows(status) > 0).expect("forwards");
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        node.kill().expect("kill");
        node = folder.start().expect("start");
    }
    // The central cluster alone is away: the node says which one, takes clicks, and goes on by itself.
    node.wait_until("forwarding", |status| rows(status) > 0).expect("forwards");
    central.brokers[0].kill();
    let says =
        |status: &Value| status["forward"]["last_error"].as_str().is_some_and(|why| why.contains(&buckets));
    node.wait_until("in trouble", says).expect("says which cluster");
    central.brokers[0].start().expect("start");
    central.brokers[0].wait_until_up().expect("up");
    node.wait_until("well again", |status| status["forward"]["last_error"].is_null()).expect("goes on");
    let (_, acked) = generator.finish(Duration::from_secs(120)).expect("generator");
    node.drain().expect("drain");

    let recount = Recount::of_two(raw, &buckets, &prefix).expect("recount");
    recount.is_of(&acked).expect("every acknowledged click once");
    check_resent(raw, &prefix, false).expect("the same octets");
    for (cluster, topic) in [(raw, "buckets"), (buckets.as_str(), "clicks")] {
        read(cluster, &format!("{prefix}{topic}.v1"), Isolation::Uncommitted)
            .expect_err("there is no such topic");
    }
}
