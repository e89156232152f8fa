//! A whole node whose system clock is at 1970, at 2050 or stepped by an hour: it says that its time is
//! uncertain, takes clicks, counts none twice, and goes on by itself when the clock is right.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weir_labs::clicks::{Known, send};
use weir_labs::clock::{Error, WrongClock};
use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, Node, NodeFolder, kafka};

const LOAD: Load = Load { profile: "demo", rate: 2000, duration: Duration::from_secs(6), seed: 17 };
const HOUR_S: i64 = 3600;
/// 2024: no node can have run before.
const EARLIEST_MS: u64 = 1_704_067_200_000;

/// A node's folder with a clock that can be set wrong, and where its clicks go.
struct Lab {
    folder: NodeFolder,
    clock: WrongClock,
    /// Kafka and a prefix of topics; none for the node's own store.
    topics: Option<(&'static str, String)>,
}

impl Lab {
    /// None, with the reason printed, where no such node is built.
    fn new() -> Option<Self> {
        Self::with("[forward]\ninterval = \"200ms\"\n", None)
    }

    /// None, with the reason printed, where there is no Kafka either.
    fn in_kafka() -> Option<Self> {
        let (bootstrap, prefix) = (kafka::shared()?, kafka::fresh_prefix());
        Self::with(&kafka::config(bootstrap, &prefix), Some((bootstrap, prefix)))
    }

    fn with(config: &str, topics: Option<(&'static str, String)>) -> Option<Self> {
        if let Some(why) = WrongClock::unavailable() {
            println!("skipped: {why}");
            return None;
        }
        let mut folder = NodeFolder::new(config).expect("folder");
        let clock = WrongClock::of(&mut folder);
        Some(Self { folder, clock, topics })
    }

    /// Sets the clock right, and waits until the node sees that it is.
    fn set_right(&self, node: &mut Node<'_>) {
        self.clock.set(Error::None).expect("clock");
        node.wait_until("certain of its time", is_certain).expect("certain");
    }

    /// Ends load and node, and holds what was forwarded against the acks: the buckets are a recount
    /// of the raw batches, and every acknowledged click is there once.
    fn finish(&self, node: Node<'_>, generator: Generator, known: &[&Known]) {
        let (_, acked) = generator.finish(Duration::from_secs(90)).expect("generator");
        node.drain().expect("drain");
        let status = self.folder.final_status().expect("final status");
        assert_eq!(status["clicks"]["residual"], 0, "{:#}", status["clicks"]);
        let (rows, acknowledged) = match &self.topics {
            None => in_the_store(&self.folder, &acked),
            Some((bootstrap, prefix)) => in_topics(bootstrap, prefix, &acked),
        };
        let known: usize = known.iter().map(|known| known.with_rows.len()).sum();
        assert_eq!(rows, acknowledged + known as u64);
        assert!(self.folder.log_text().contains("time_uncertain"), "{}", self.folder.log_tail());
    }
}

/// All rows, and how many clicks the log names, each of which must be there.
fn in_the_store(folder: &NodeFolder, acked: &Path) -> (u64, u64) {
    let found = folder.audit(Some(acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}\n{}", folder.log_tail());
    assert_eq!(found["audit"]["clicks_twice"], 0);
    assert_eq!(found["acked"]["missing"], 0, "{found:#}");
    let number = |value: &Value| value.as_u64().expect("a number");
    (number(&found["audit"]["rows"]), number(&found["acked"]["acknowledged"]))
}

fn in_topics(bootstrap: &str, prefix: &str, acked: &Path) -> (u64, u64) {
    let recount = Recount::of(bootstrap, prefix).expect("recount");
    println!("{recount}");
    recount.check().expect("sound topics");
    let (missing, named) = recount.missing(acked).expect("acked log");
    assert_eq!(missing, 0, "{recount}");
    (recount.rows, named)
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

/// The clock is right, then wrong while the node runs, and over a crash, then right again.
fn survives(lab: Option<Lab>, error: Error, while_running: &str, after_a_crash: &str) {
    let Some(lab) = lab else { return };
    let Lab { folder, clock, .. } = &lab;
    let mut node = started(folder);
    let (early, late) = (Known::new(1), Known::new(1000));
    send(folder, &early.with_rows).expect("answers");
    let generator = Generator::start(folder, LOAD).expect("generator");
    node.wait_until_counting().expect("clicks");
    clock.set(error).expect("clock");
    wait_for_doubt(&mut node, while_running);
    resend(folder, &early);
    let sent = send(folder, &late.with_rows).expect("answers");
    assert_eq!(sent.acked_created, late.with_rows.len() as u64, "clicks are taken");
    node.kill().expect("kill");
    let mut node = started(folder);
    wait_for_doubt(&mut node, after_a_crash);
    resend(folder, &early);
    resend(folder, &late);
    lab.set_right(&mut node);
    resend(folder, &early);
    resend(folder, &late);
    lab.finish(node, generator, &[&early, &late]);
}

#[test]
fn a_clock_at_1970_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::new(), Error::To1970, "implausible", "implausible");
}

#[test]
fn a_clock_at_2050_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::new(), Error::To2050, "implausible", "implausible");
}

#[test]
fn a_clock_stepped_a_day_ahead_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::new(), Error::Seconds(26 * HOUR_S), "stepped_ahead", "ahead_of_journal");
}

#[test]
fn a_clock_stepped_an_hour_back_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::new(), Error::Seconds(-HOUR_S), "stepped_back", "behind_journal");
}

#[test]
fn in_kafka_too_a_clock_at_1970_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::in_kafka(), Error::To1970, "implausible", "implausible");
}

#[test]
fn in_kafka_too_a_clock_at_2050_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::in_kafka(), Error::To2050, "implausible", "implausible");
}

#[test]
fn in_kafka_too_a_clock_stepped_an_hour_counts_nothing_twice_and_expires_nothing() {
    survives(Lab::in_kafka(), Error::Seconds(-HOUR_S), "stepped_back", "behind_journal");
}

#[test]
fn a_clock_stepped_an_hour_ahead_is_not_followed_and_the_node_goes_on_when_it_is_right_again() {
    let Some(lab) = Lab::new() else { return };
    let Lab { folder, clock, .. } = &lab;
    let mut node = started(folder);
    let known = Known::new(1);
    send(folder, &known.with_rows).expect("answers");
    let generator = Generator::start(folder, LOAD).expect("generator");
    node.wait_until_counting().expect("clicks");
    clock.set(Error::Seconds(HOUR_S)).expect("clock");
    wait_for_doubt(&mut node, "stepped_ahead");
    let time = &node.status().expect("status")["time"];
    let ahead_ms = time["system_ms"].as_u64().unwrap() - time["node_ms"].as_u64().unwrap();
    assert!(ahead_ms.abs_diff(3_600_000) < 60_000, "{time:#}");
    resend(folder, &known);
    lab.set_right(&mut node);
    resend(folder, &known);
    lab.finish(node, generator, &[&known]);
}

#[test]
fn a_new_node_at_1970_learns_the_time_from_signed_clicks_and_counts_none_in_1970() {
    let Some(lab) = Lab::new() else { return };
    let Lab { folder, clock, .. } = &lab;
    clock.set(Error::To1970).expect("clock");
    let mut node = started(folder);
    wait_for_doubt(&mut node, "no_time");
    let generator = Generator::start(folder, LOAD).expect("generator");
    wait_for_doubt(&mut node, "implausible");
    let status = node.status().expect("status");
    assert!(status["time"]["node_ms"].as_u64() > Some(EARLIEST_MS), "{:#}", status["time"]);
    assert!(status["clicks"]["reasons"]["time_uncertain"].as_u64() > Some(0), "{:#}", status["clicks"]);
    let known = Known::new(1);
    send(folder, &known.with_rows).expect("answers");
    resend(folder, &known);
    lab.set_right(&mut node);
    resend(folder, &known);
    lab.finish(node, generator, &[&known]);
}

#[test]
fn a_new_node_an_hour_behind_is_told_so_by_signed_clicks() {
    let Some(lab) = Lab::new() else { return };
    let Lab { folder, clock, .. } = &lab;
    clock.set(Error::Seconds(-HOUR_S)).expect("clock");
    let mut node = started(folder);
    assert!(is_certain(&node.status().expect("status")), "nothing speaks against its clock yet");
    let generator = Generator::start(folder, LOAD).expect("generator");
    wait_for_doubt(&mut node, "signed_ahead");
    lab.set_right(&mut node);
    let known = Known::new(1);
    send(folder, &known.with_rows).expect("answers");
    resend(folder, &known);
    lab.finish(node, generator, &[&known]);
}

#[test]
fn a_clock_that_an_operator_vouches_for_is_believed_at_once() {
    let Some(lab) = Lab::new() else { return };
    let Lab { folder, clock, .. } = &lab;
    let node = started(folder);
    let known = Known::new(1);
    send(folder, &known.with_rows).expect("answers");
    node.drain().expect("drain");
    // As if it had been stopped for longer than any upgrade takes.
    clock.set(Error::Seconds(3 * HOUR_S)).expect("clock");
    let mut node = started(folder);
    wait_for_doubt(&mut node, "ahead_of_journal");
    node.kill().expect("kill");
    let mut node = folder.start_with(&["--clock-is-right"]).expect("start");
    node.wait_until_ready().expect("ready");
    let time = &node.status().expect("status")["time"];
    let behind_ms = time["system_ms"].as_u64().unwrap().abs_diff(time["node_ms"].as_u64().unwrap());
    assert!(time["uncertain"] == false && behind_ms < 60_000, "{time:#}");
    resend(folder, &known);
    let more = Known::new(1000);
    let sent = send(folder, &more.with_rows).expect("answers");
    assert_eq!(sent.acked_created, more.with_rows.len() as u64, "clicks are taken");
    node.drain().expect("drain");
    let found = folder.audit(None).expect("audit");
    assert_eq!((&found["audit"]["sound"], &found["audit"]["clicks_twice"]), (&true.into(), &0.into()));
    let all = known.with_rows.len() + more.with_rows.len();
    assert_eq!(found["audit"]["rows"].as_u64(), Some(all as u64));
}
