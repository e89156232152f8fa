//! A whole node whose system clock is at 1970, at 2050 or stepped by an hour: it says that its time is
//! uncertain, takes clicks, counts none twice, and goes on by itself when the clock is right.

use std::time::Duration;

use serde_json::Value;
use weir_labs::clicks::{Known, send};
use weir_labs::clock::{Error, WrongClock};
use weir_labs::{Generator, Load, Node, NodeFolder};

const LOAD: Load = Load { profile: "demo", rate: 2000, duration: Duration::from_secs(6), seed: 17 };
const HOUR_S: i64 = 3600;
/// 2024: no node can have run before.
const EARLIEST_MS: u64 = 1_704_067_200_000;

/// A node's folder with a clock that can be set wrong; none, with the reason printed, where no such
/// node is built.
fn folder() -> Option<(NodeFolder, WrongClock)> {
    if let Some(why) = WrongClock::unavailable() {
        println!("skipped: {why}");
        return None;
    }
    let mut folder = NodeFolder::new("[forward]\ninterval = \"200ms\"\n").expect("folder");
    let clock = WrongClock::of(&mut folder);
    Some((folder, clock))
}

fn started(folder: &NodeFolder) -> Node<'_> {
    folder.start_ready().expect("ready")
}

fn wait_for_doubt(node: &mut Node<'_>, doubt: &str) {
    node.wait_until("in doubt about its clock", |status| status["time"]["doubt"] == doubt).expect("doubt");
    let status = node.status().expect("status");
    assert!(status["time"]["remedy"].is_string(), "{:#}", status["time"]);
}

fn is_certain(status: &Value) -> bool {
    status["time"]["uncertain"] == false
}

/// All of these are known already, whatever the clock shows.
fn resend(folder: &NodeFolder, known: &Known) {
    let sent = send(folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64), "resends");
}

/// Sets the clock right, and waits until the node sees that it is.
fn set_right(clock: &WrongClock, node: &mut Node<'_>) {
    clock.set(Error::None).expect("clock");
    node.wait_until("certain of its time", is_certain).expect("certain");
}

/// Ends load and node, and holds the store against the acks: the buckets are a recount of the raw
/// batches, and every acknowledged click is there once.
fn finish(folder: &NodeFolder, node: Node<'_>, generator: Generator, known: &[&Known]) {
    let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
    node.drain().expect("drain");
    let status = folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["residual"], 0, "{:#}", status["clicks"]);
    let found = folder.audit(Some(&acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}\n{}", folder.log_tail());
    assert_eq!(found["audit"]["clicks_twice"], 0);
    assert_eq!(found["acked"]["missing"], 0, "{found:#}");
    let acknowledged = found["acked"]["acknowledged"].as_u64().expect("a number");
    let known: usize = known.iter().map(|known| known.with_rows.len()).sum();
    assert_eq!(found["audit"]["rows"], acknowledged + known as u64);
    assert!(folder.log_text().contains("time_uncertain"), "{}", folder.log_tail());
}

/// The clock is right, then wrong while the node runs, and over a crash, then right again.
fn survives(error: Error, while_running: &str, after_a_crash: &str) {
    let Some((folder, clock)) = folder() else { return };
    let mut node = started(&folder);
    let (early, late) = (Known::new(1), Known::new(1000));
    send(&folder, &early.with_rows).expect("answers");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    node.wait_until_counting().expect("clicks");
    clock.set(error).expect("clock");
    wait_for_doubt(&mut node, while_running);
    resend(&folder, &early);
    let sent = send(&folder, &late.with_rows).expect("answers");
    assert_eq!(sent.acked_created, late.with_rows.len() as u64, "clicks are taken");
    node.kill().expect("kill");
    let mut node = started(&folder);
    wait_for_doubt(&mut node, after_a_crash);
    resend(&folder, &early);
    resend(&folder, &late);
    set_right(&clock, &mut node);
    resend(&folder, &early);
    resend(&folder, &late);
    finish(&folder, node, generator, &[&early, &late]);
}

#[test]
fn a_clock_at_1970_counts_nothing_twice_and_expires_nothing() {
    survives(Error::To1970, "implausible", "implausible");
}

#[test]
fn a_clock_at_2050_counts_nothing_twice_and_expires_nothing() {
    survives(Error::To2050, "implausible", "implausible");
}

#[test]
fn a_clock_stepped_a_day_ahead_counts_nothing_twice_and_expires_nothing() {
    survives(Error::Seconds(26 * HOUR_S), "stepped_ahead", "ahead_of_journal");
}

#[test]
fn a_clock_stepped_an_hour_back_counts_nothing_twice_and_expires_nothing() {
    survives(Error::Seconds(-HOUR_S), "stepped_back", "behind_journal");
}

#[test]
fn a_clock_stepped_an_hour_ahead_is_not_followed_and_the_node_goes_on_when_it_is_right_again() {
    let Some((folder, clock)) = folder() else { return };
    let mut node = started(&folder);
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    node.wait_until_counting().expect("clicks");
    clock.set(Error::Seconds(HOUR_S)).expect("clock");
    wait_for_doubt(&mut node, "stepped_ahead");
    let time = &node.status().expect("status")["time"];
    let ahead_ms = time["system_ms"].as_u64().unwrap() - time["node_ms"].as_u64().unwrap();
    assert!(ahead_ms.abs_diff(3_600_000) < 60_000, "{time:#}");
    resend(&folder, &known);
    set_right(&clock, &mut node);
    resend(&folder, &known);
    finish(&folder, node, generator, &[&known]);
}

#[test]
fn a_new_node_at_1970_learns_the_time_from_signed_clicks_and_counts_none_in_1970() {
    let Some((folder, clock)) = folder() else { return };
    clock.set(Error::To1970).expect("clock");
    let mut node = started(&folder);
    wait_for_doubt(&mut node, "no_time");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    wait_for_doubt(&mut node, "implausible");
    let status = node.status().expect("status");
    assert!(status["time"]["node_ms"].as_u64() > Some(EARLIEST_MS), "{:#}", status["time"]);
    assert!(status["clicks"]["reasons"]["time_uncertain"].as_u64() > Some(0), "{:#}", status["clicks"]);
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    resend(&folder, &known);
    set_right(&clock, &mut node);
    resend(&folder, &known);
    finish(&folder, node, generator, &[&known]);
}

#[test]
fn a_new_node_an_hour_behind_is_told_so_by_signed_clicks() {
    let Some((folder, clock)) = folder() else { return };
    clock.set(Error::Seconds(-HOUR_S)).expect("clock");
    let mut node = started(&folder);
    assert!(is_certain(&node.status().expect("status")), "nothing speaks against its clock yet");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    wait_for_doubt(&mut node, "signed_ahead");
    set_right(&clock, &mut node);
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    resend(&folder, &known);
    finish(&folder, node, generator, &[&known]);
}

#[test]
fn a_clock_that_an_operator_vouches_for_is_believed_at_once() {
    let Some((folder, clock)) = folder() else { return };
    let node = started(&folder);
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    node.drain().expect("drain");
    // As if it had been stopped for longer than any upgrade takes.
    clock.set(Error::Seconds(3 * HOUR_S)).expect("clock");
    let mut node = started(&folder);
    wait_for_doubt(&mut node, "ahead_of_journal");
    node.kill().expect("kill");
    let mut node = folder.start_with(&["--clock-is-right"]).expect("start");
    node.wait_until_ready().expect("ready");
    let time = &node.status().expect("status")["time"];
    let behind_ms = time["system_ms"].as_u64().unwrap().abs_diff(time["node_ms"].as_u64().unwrap());
    assert!(time["uncertain"] == false && behind_ms < 60_000, "{time:#}");
    resend(&folder, &known);
    let generator = Generator::start(&folder, LOAD).expect("generator");
    finish(&folder, node, generator, &[&known]);
}
