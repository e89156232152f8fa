//! A drain loses nothing: what was acknowledged is forwarded, and the books close.

use std::time::Duration;

use weir_labs::{Generator, Load, NodeFolder};

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

#[test]
fn a_node_restarted_with_other_cores_counts_resends_as_duplicates() {
    let folder = NodeFolder::new("[workers]\ncores = [0]\n").expect("folder");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    let generator = Generator::start(&folder, Load { profile: "clean", ..LOAD }).expect("generator");
    generator.finish(Duration::from_secs(60)).expect("generator");
    node.drain().expect("drain");
    let sent_once = folder.final_status().expect("final status")["clicks"]["outcomes"]["accepted"].clone();

    let config = folder.path().join("weir.toml");
    let text = std::fs::read_to_string(&config).expect("config").replace("cores = [0]", "cores = \"all\"");
    std::fs::write(&config, text).expect("config");
    let mut node = folder.start().expect("start");
    node.wait_until_ready().expect("ready");
    // The same seed mints the same clicks.
    let generator = Generator::start(&folder, Load { profile: "clean", ..LOAD }).expect("generator");
    generator.finish(Duration::from_secs(60)).expect("generator");
    node.drain().expect("drain");
    let status = folder.final_status().expect("final status");
    println!("{:#}", status["clicks"]);
    assert_eq!(status["clicks"]["outcomes"]["duplicate"], sent_once);
    assert_eq!(folder.audit(None).expect("audit")["audit"]["sound"], true);
}
