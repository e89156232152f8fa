//! A drain loses nothing: what was acknowledged is forwarded, and the books close.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_common::id::ImpressionId;
use weir_common::wire::{Click, click_flags};
use weir_labs::{Generator, Load, NodeFolder};
use weir_sdk::{Config, UdpClient};

const LOAD: Load = Load { profile: "demo", rate: 8000, duration: Duration::from_secs(2), seed: 7 };

#[test]
fn a_drained_node_has_forwarded_every_click_and_its_books_close() {
    let folder = NodeFolder::new("").expect("folder");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    let (report, acked) = generator.finish(Duration::from_secs(60)).expect("generator");
    node.drain().expect("drain");

    let status = folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0);
    assert_eq!(status["clicks"]["waiting"], 0);
    assert_eq!(status["clicks"]["handed_off"], status["clicks"]["taken_over"]);
    for (outcome, expected) in report["expected"]["clicks"]["outcomes"].as_object().expect("outcomes") {
        if outcome != "malformed" {
            assert_eq!(status["clicks"]["outcomes"][outcome], *expected, "{outcome}");
        }
    }
    let found = folder.audit(Some(&acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}");
    assert_eq!(found["acked"]["missing"], 0);
    assert_eq!(found["audit"]["rows"], status["forward"]["rows"]);
}

#[test]
fn a_drain_under_load_ends_in_order_and_keeps_what_it_acknowledged() {
    let folder = NodeFolder::new("").expect("folder");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    let mut generator = Generator::start(&folder, LOAD).expect("generator");
    std::thread::sleep(Duration::from_millis(700));
    node.drain().expect("drain");
    assert!(generator.is_running().expect("look"), "the drain was not under load");
    let mut second = folder.start().expect("start");
    second.wait_until_ready().expect("ready");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    second.drain().expect("drain");
    let found = folder.audit(Some(&acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}");
    assert_eq!(found["acked"]["missing"], 0);
    assert_eq!(found["audit"]["rows"], found["acked"]["acknowledged"]);
}

/// Clicks with ids of their own, which stay the same when they are sent again.
fn clicks(count: u128) -> Vec<Click> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let click = |id: u128| Click {
        impression: ImpressionId(id.to_be_bytes()),
        ad: (id as u64 % 7).into(),
        clicked_at_ms: now_ms.into(),
        flags: click_flags::FOREIGN,
        ..Click::zeroed()
    };
    (1..=count).map(click).collect()
}

/// Sends the clicks and waits for their acks: how many were created, how many existed.
fn send(folder: &NodeFolder, clicks: &[Click]) -> (u64, u64) {
    let node = ([127, 0, 0, 1], folder.port()).into();
    let mut client =
        UdpClient::connect(node, Config { seed: rand::random(), ..Config::default() }).expect("client");
    for click in clicks {
        client.offer(click, &[]).expect("room");
    }
    client.flush(Duration::from_secs(30)).expect("acks");
    (client.ledger().acked_created, client.ledger().acked_exists)
}

#[test]
fn a_node_restarted_with_other_cores_knows_every_click_again() {
    let folder = NodeFolder::new("[workers]\ncores = [0]\n").expect("folder");
    let config = folder.path().join("weir.toml");
    let text = std::fs::read_to_string(&config).expect("config");
    let clicks = clicks(10_000);
    for (cores, expected) in [("[0]", (10_000, 0)), ("\"all\"", (0, 10_000)), ("[0]", (0, 10_000))] {
        std::fs::write(&config, text.replace("cores = [0]", &format!("cores = {cores}"))).expect("config");
        let mut node = folder.start().expect("start");
        node.wait_until_ready().expect("ready");
        assert_eq!(send(&folder, &clicks), expected, "on cores {cores}");
        node.drain().expect("drain");
    }
    let audit = &folder.audit(None).expect("audit")["audit"];
    assert_eq!(audit["sound"], true, "{audit:#}");
    assert_eq!(audit["rows"], 10_000);
}

#[test]
fn a_node_with_other_dimensions_does_not_start_on_old_data() {
    let folder = NodeFolder::new("[buckets]\ndimensions = [\"country\"]\n").expect("folder");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    node.drain().expect("drain");
    let config = folder.path().join("weir.toml");
    let text = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, text.replace("[\"country\"]", "[\"device\"]")).expect("config");
    let mut node = folder.start().expect("start");
    let error = node.wait_until_ready().expect_err("buckets of both would count twice").to_string();
    assert!(error.contains("`buckets.dimensions` is [\"device\"]"), "{error}");
}
