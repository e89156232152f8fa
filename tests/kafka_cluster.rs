//! Three brokers, one of which is always somewhere else. Long: `WEIR_SOAK` asks for it.

use std::time::Duration;

use serde_json::Value;
use weir_kafka_lab::Settings;
use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, NodeFolder, kafka};

/// How long a frozen broker stays so: longer than every timeout of the client but the
/// transaction's.
const FROZEN: Duration = Duration::from_secs(45);
/// Clicks a second, and for how long.
const RATE: u32 = 4000;
const LOAD: Duration = Duration::from_secs(260);

fn rows(status: &Value) -> u64 {
    status["forward"]["rows"].as_u64().unwrap_or_default()
}

fn settled(status: &Value) -> bool {
    rows(status) > 0 && status["forward"]["last_error"].is_null()
}

#[test]
fn three_brokers_that_restart_or_freeze_one_after_another_lose_and_repeat_nothing() {
    if std::env::var_os("WEIR_SOAK").is_none() {
        println!("skipped: it takes five minutes; `cargo xtask test --soak` runs it");
        return;
    }
    let settings = Settings { brokers: 3, ..Settings::default() };
    let Some(mut cluster) = kafka::start(&settings).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let folder = NodeFolder::new(&kafka::config(&bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let load = Load { profile: "demo", rate: RATE, duration: LOAD, seed: 41 };
    let mut generator = Generator::start(&folder, load).expect("generator");
    for broker in &mut cluster.brokers {
        node.wait_until("settled", settled).expect("settled");
        broker.stop().expect("stop");
        broker.start().expect("start");
        broker.wait_until_up().expect("up");
    }
    for broker in &cluster.brokers[..2] {
        node.wait_until("settled", settled).expect("settled");
        broker.freeze().expect("freeze");
        std::thread::sleep(FROZEN);
        broker.thaw().expect("thaw");
    }
    assert!(generator.is_running().expect("look"), "the faults outlasted the load");
    let (_, acked) = generator.finish(LOAD + Duration::from_secs(90)).expect("generator");
    node.wait_until("settled", settled).expect("settled");
    node.drain().expect("drain");
    let recount = Recount::of(&bootstrap, &prefix).expect("recount");
    recount.is_of(&acked).expect("every acknowledged click once");
}
