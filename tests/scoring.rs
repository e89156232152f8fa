//! A model that says how likely clicks are invalid, at a whole node: what it marks stays paid for and has a
//! counter and a cost of its own.

use std::path::Path;

use serde_json::Value;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::wire::Click;
use weir_labs::Node;
use weir_labs::clicks::send;
use weir_labs::door::Door;
use weir_sdk::{Minter, Offer};

const PRICE_MICROS: u64 = 1_000;

/// The door of a node that scores by `model`, by these thresholds.
fn door(thresholds: &str) -> Door {
    let door = Door::folder(&format!(
        "\n[workers]\ncores = [0, 1]\n[score]\nmodel_file = \"model.onnx\"\n{thresholds}"
    ));
    door.expect("folder")
}

fn give_model(door: &Door) {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/score/sample.onnx");
    std::fs::copy(sample, door.folder.path().join("model.onnx")).expect("the sample");
}

/// Signed clicks of a campaign, of impressions that nobody clicked before.
fn clicks(door: &Door, campaign: u32, sequences: std::ops::Range<u64>) -> Vec<Click> {
    let secret = std::fs::read_to_string(door.folder.key()).expect("key");
    let secret = u128::from_str_radix(secret.trim(), 16).expect("hex");
    let key = SipKey::from_bytes(secret.to_be_bytes());
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis() as u64;
    let mut minter = Minter::new(Issuer(1), KeyId(1), key, sequences.start);
    let offer = Offer { ad: 1, price_micros: PRICE_MICROS, campaign, ..Offer::default() };
    let click = |_| Click { clicked_at_ms: now_ms.into(), ..minter.mint(&offer, (now_ms / 1000) as u32 - 2) };
    sequences.map(click).collect()
}

fn audited(door: &Door, node: Node<'_>) -> Value {
    node.drain().expect("drain");
    let audit = door.folder.audit(None).expect("audit")["audit"].clone();
    assert_eq!(audit["sound"], true, "{audit:#}");
    audit
}

#[test]
fn a_campaigns_threshold_marks_its_clicks_and_they_have_a_cost_of_their_own() {
    let door = door("threshold = 1.0\n[[score.campaigns]]\ncampaign = 7\nthreshold = 0.0\n");
    give_model(&door);
    let node = door.folder.start_ready().expect("ready");
    send(&door.folder, &clicks(&door, 7, 0..30)).expect("acks");
    send(&door.folder, &clicks(&door, 8, 100..120)).expect("acks");
    let audit = audited(&door, node);
    assert_eq!((&audit["outcomes"][0], &audit["unsigned"]), (&50.into(), &0.into()));
    assert_eq!((&audit["marked"], &audit["unscored"]), (&30.into(), &0.into()));
    assert_eq!(audit["cost_micros"], 50 * PRICE_MICROS, "what is marked is billable as before");
    assert_eq!(audit["marked_cost_micros"], 30 * PRICE_MICROS);
}

#[test]
fn without_a_model_clicks_are_marked_as_unscored_and_a_reload_brings_it() {
    let door = door("threshold = 0.0\n");
    let mut node = door.folder.start_ready().expect("ready without a model");
    send(&door.folder, &clicks(&door, 7, 0..10)).expect("acks");
    let reload = |node: &mut Node<'_>, told: &str| {
        node.reload().expect("SIGHUP");
        node.wait_until(told, |_| door.folder.log_text().contains(told)).expect("reload");
    };
    give_model(&door);
    reload(&mut node, "clicks are scored by this model");
    send(&door.folder, &clicks(&door, 7, 100..110)).expect("acks");
    door.folder.write_private("model.onnx", "no model").expect("file");
    reload(&mut node, "the model is not replaced");
    send(&door.folder, &clicks(&door, 7, 200..210)).expect("acks");
    let audit = audited(&door, node);
    assert_eq!(
        (&audit["outcomes"][0], &audit["marked"], &audit["unscored"]),
        (&30.into(), &20.into(), &10.into())
    );
    let by_rules = audit["gross_by_rules"].as_object().expect("a map");
    let mut gross: Vec<_> = by_rules.values().filter_map(Value::as_u64).collect();
    gross.sort_unstable();
    assert_eq!(gross, [10, 20], "of no model and of one: {by_rules:?}");
}
