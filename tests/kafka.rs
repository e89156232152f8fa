//! The main job into a real Apache Kafka: every acknowledged click is in the log once, and the
//! buckets there are a recount of the raw batches there.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, NodeFolder, binary, kafka};

/// Sends a load to a node with Kafka, and holds the topics against what was acknowledged. The final
/// status, and the generator's report.
fn run(bootstrap: &str, load: Load) -> (Value, Value) {
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::new(&kafka::config(bootstrap, &prefix)).expect("folder");
    let node = folder.start_ready().expect("ready");
    let generator = Generator::start(&folder, load).expect("generator");
    let (report, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    node.drain().expect("drain");

    let status = folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0);
    let recount = Recount::of(bootstrap, &prefix).expect("recount");
    let ms = |of: &str, quantile: &str| status["forward"][of][quantile].as_f64().unwrap_or_default() / 1e6;
    println!(
        "click to committed bucket p50 {:.0} ms, p99 {:.0} ms; a transaction p50 {:.0} ms, p99 {:.0} ms",
        ms("click_to_bucket_ns", "p50"),
        ms("click_to_bucket_ns", "p99"),
        ms("flush_latency_ns", "p50"),
        ms("flush_latency_ns", "p99"),
    );
    recount.is_of(&acked).expect("every acknowledged click once");
    assert!(recount.rows > 100, "{recount}");
    assert_eq!(status["forward"]["rows"].as_u64(), Some(recount.rows));
    assert!(status["forward"]["last_error"].is_null());
    (status, report)
}

fn expected(report: &Value, outcome: &str) -> u64 {
    report["expected"]["clicks"]["outcomes"][outcome].as_u64().unwrap_or_default()
}

#[test]
fn every_acknowledged_click_is_in_kafka_once_and_buckets_are_a_recount() {
    let Some(bootstrap) = kafka::shared() else { return };
    let load = Load { profile: "demo", rate: 8000, duration: Duration::from_secs(3), seed: 11 };
    let (status, report) = run(bootstrap, load);
    let accepted = expected(&report, "accepted");
    assert!(accepted > 1000 && accepted <= status["forward"]["rows"].as_u64().unwrap(), "{accepted}");
}

#[test]
fn of_a_flood_of_resends_each_click_is_in_kafka_once() {
    let Some(bootstrap) = kafka::shared() else { return };
    let load = Load { profile: "resends", rate: 40_000, duration: Duration::from_secs(4), seed: 12 };
    let (status, report) = run(bootstrap, load);
    let duplicates = status["clicks"]["outcomes"]["duplicate"].as_u64().unwrap();
    let all = status["clicks"]["received"].as_u64().unwrap();
    assert!(duplicates > all / 100 * 97, "{duplicates} of {all}");
    assert!(duplicates >= expected(&report, "duplicate"), "{report}");
}

#[test]
fn an_ad_with_nine_clicks_of_ten_is_counted_to_the_unit() {
    let Some(bootstrap) = kafka::shared() else { return };
    let load = Load { profile: "hot-ad", rate: 20_000, duration: Duration::from_secs(4), seed: 13 };
    let (status, report) = run(bootstrap, load);
    assert_eq!(status["clicks"]["outcomes"]["accepted"].as_u64(), Some(expected(&report, "accepted")));
    // Its clicks are of all shards, so no worker has much more to do than another.
    let owned = |worker: &Value| -> i64 {
        let of = |name: &str| worker[name].as_i64().unwrap_or_default();
        of("clicks") - of("handed_off") + of("taken_over")
    };
    let owned: Vec<_> = status["workers"].as_array().expect("workers").iter().map(owned).collect();
    let all: i64 = owned.iter().sum();
    let even = all / owned.len() as i64;
    assert!(owned.iter().all(|own| (own - even).abs() < all / 10), "{owned:?}");
}

#[test]
fn the_doctor_names_the_broker_that_answers() {
    let Some(bootstrap) = kafka::shared() else { return };
    let folder = NodeFolder::new(&kafka::config(bootstrap, &kafka::fresh_prefix())).expect("folder");
    let mut doctor = Command::new(binary("weir"));
    doctor.args(["doctor", "--json", "--config"]).arg(folder.config());
    let told = doctor.output().expect("weir runs");
    let report: Value = serde_json::from_slice(&told.stdout).expect("json");
    let findings = report["findings"].as_array().expect("findings");
    let found: Vec<_> = findings.iter().filter(|found| found["condition"] == "kafka").collect();
    assert_eq!((found.len(), &found[0]["severity"]), (1, &"ok".into()), "{found:?}");
    assert!(found[0]["current"].as_str().expect("text").contains(" answers, one of 1"), "{found:?}");
}

/// Sends a node malformed input: it is kept, and printed.
fn keeps_malformed_input(config: &str) {
    let folder = NodeFolder::new(config).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    for input in [b"GET / HTTP/1.1\xff", b"GET / HTTP/1.0\xff"] {
        socket.send_to(input, ("127.0.0.1", folder.port())).expect("a datagram");
    }
    let are_sampled = |status: &Value| status["clicks"]["rejects_sampled"] == 2;
    node.wait_until("sampling", are_sampled).expect("samples");
    node.drain().expect("drain");
    assert_eq!(folder.final_status().expect("final status")["forward"]["rejects"], 2);
    let mut records = folder.rejects(&[]).expect("rejects");
    records.sort_by_key(|record| record["reject"]["hex"].to_string());
    assert_eq!(records.len(), 2, "{records:#?}");
    let reject = &records[1]["reject"];
    assert_eq!(reject["hex"], "474554202f20485454502f312e31ff", "{reject:#}");
    assert_eq!((&reject["reason"], &reject["reason_number"]), (&json!("header_short"), &json!("48")));
    assert_eq!((&reject["input"], &reject["source"]), (&json!("datagram"), &json!("127.0.0.0/24")));
    assert_eq!((&reject["node"], &reject["cut"]), (&json!("1"), &json!("0")));
    assert!(records[1]["key"].as_str().is_some_and(|key| key.contains("-1-")), "{:#}", records[1]);
    for limit in [0, 1] {
        let printed = folder.rejects(&["--limit", &limit.to_string()]).expect("rejects");
        assert_eq!(printed.len(), limit);
    }
}

#[test]
fn malformed_input_is_in_kafka_with_its_exact_bytes_and_its_reason() {
    let Some(bootstrap) = kafka::shared() else { return };
    keeps_malformed_input(&kafka::config(bootstrap, &kafka::fresh_prefix()));
}

#[test]
fn malformed_input_is_in_the_embedded_store_with_its_exact_bytes_and_its_reason() {
    keeps_malformed_input("");
}
