//! The main job into a real Apache Kafka: every acknowledged click is in the log once, and the
//! buckets there are a recount of the raw batches there.

use std::time::Duration;

use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, NodeFolder, kafka};

const LOAD: Load = Load { profile: "demo", rate: 8000, duration: Duration::from_secs(3), seed: 11 };

#[test]
fn every_acknowledged_click_is_in_kafka_once_and_buckets_are_a_recount() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::new(&kafka::config(bootstrap, &prefix)).expect("folder");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    let (report, acked) = generator.finish(Duration::from_secs(60)).expect("generator");
    node.drain().expect("drain");

    let status = folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0);
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    println!("{recount}");
    recount.check().expect("sound topics");
    let (missing, acknowledged) = recount.missing(&acked).expect("acked log");
    assert!(acknowledged > 1000, "{acknowledged}");
    assert_eq!((missing, recount.rows), (0, acknowledged));
    assert_eq!(status["forward"]["rows"].as_u64(), Some(recount.rows));
    assert!(status["forward"]["last_error"].is_null());
    let accepted = report["expected"]["clicks"]["outcomes"]["accepted"].as_u64();
    assert!(accepted.is_some_and(|accepted| accepted > 0 && accepted <= recount.rows), "{accepted:?}");
}
