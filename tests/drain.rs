//! A drain loses nothing: what was acknowledged is forwarded, and the books close.

use std::time::Duration;

use weir_labs::clicks::{numbered, send};
use weir_labs::{Generator, Load, NodeFolder};

const LOAD: Load = Load { profile: "demo", rate: 8000, duration: Duration::from_secs(2), seed: 7 };

#[test]
fn a_drained_node_has_forwarded_every_click_and_its_books_close() {
    let folder = NodeFolder::new("").expect("folder");
    let node = folder.start_ready().expect("ready");
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
    let node = folder.start_ready().expect("ready");
    let mut generator = Generator::start(&folder, LOAD).expect("generator");
    std::thread::sleep(Duration::from_millis(700));
    node.drain().expect("drain");
    assert!(generator.is_running().expect("look"), "the drain was not under load");
    let second = folder.start_ready().expect("ready");
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    second.drain().expect("drain");
    let found = folder.audit(Some(&acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}");
    assert_eq!(found["acked"]["missing"], 0);
    assert_eq!(found["audit"]["rows"], found["acked"]["acknowledged"]);
}

#[test]
fn a_node_restarted_with_other_cores_knows_every_click_again() {
    let folder = NodeFolder::new("[workers]\ncores = [0]\n").expect("folder");
    let config = folder.path().join("weir.toml");
    let text = std::fs::read_to_string(&config).expect("config");
    let clicks = numbered(1, 10_000);
    for (cores, expected) in [("[0]", (10_000, 0)), ("\"all\"", (0, 10_000)), ("[0]", (0, 10_000))] {
        std::fs::write(&config, text.replace("cores = [0]", &format!("cores = {cores}"))).expect("config");
        let node = folder.start_ready().expect("ready");
        let sent = send(&folder, &clicks).expect("answers");
        assert_eq!((sent.acked_created, sent.acked_exists), expected, "on cores {cores}");
        node.drain().expect("drain");
    }
    let audit = &folder.audit(None).expect("audit")["audit"];
    assert_eq!(audit["sound"], true, "{audit:#}");
    assert_eq!(audit["rows"], 10_000);
}

#[test]
fn a_node_with_other_dimensions_does_not_start_on_old_data() {
    let folder = NodeFolder::new("[buckets]\ndimensions = [\"country\"]\n").expect("folder");
    let node = folder.start_ready().expect("ready");
    node.drain().expect("drain");
    let config = folder.path().join("weir.toml");
    let text = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, text.replace("[\"country\"]", "[\"device\"]")).expect("config");
    let mut node = folder.start().expect("start");
    let error = node.wait_until_ready().expect_err("buckets of both would count twice").to_string();
    assert!(error.contains("`buckets.dimensions` is [\"device\"]"), "{error}");
}
