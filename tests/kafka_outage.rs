//! An outage of Kafka under load: clicks are taken at the same rate all along, what waits is on the
//! disk, and when the broker is back the backlog drains several times faster than clicks come.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_kafka_lab::Settings;
use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, Node, NodeFolder, kafka};

/// What CI has time for.
const SHORT: Outage = Outage { rate: 6_000, before_s: 3, away_s: 8, after_s: 24 };
/// The long form, which `WEIR_SOAK` asks for: as many clicks as generator, node and broker manage
/// together on two cores.
const SOAK: Outage = Outage { rate: 40_000, before_s: 10, away_s: 180, after_s: 90 };
/// The least that the backlog drains at in the long form, as a multiple of the clicks that come.
const DRAIN_LEAST: f64 = 3.0;
/// What a node may take for itself while it waits, in KiB.
const GROWTH_KIB: u64 = 64 << 10;
/// And for each impression it has to remember: the bound of dedupe.
const IMPRESSION_BYTES: u64 = 32;
/// How often the drain is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A backlog of less than this many seconds of clicks is none: a flush takes as long.
const CAUGHT_UP_S: u64 = 1;

struct Outage {
    rate: u32,
    before_s: u64,
    away_s: u64,
    after_s: u64,
}

impl Outage {
    const fn load(&self) -> Load {
        let duration = Duration::from_secs(self.before_s + self.away_s + self.after_s);
        Load { profile: "clean", rate: self.rate, duration, seed: 71 }
    }
}

fn rows(status: &Value) -> u64 {
    status["forward"]["rows"].as_u64().unwrap_or_default()
}

fn accepted(status: &Value) -> u64 {
    status["clicks"]["outcomes"]["accepted"].as_u64().unwrap_or_default()
}

/// The 99th percentile of the time to an ack so far, in ms.
fn ack_p99_ms(status: &Value) -> f64 {
    status["ack_latency_ns"]["p99"].as_f64().unwrap_or_default() / 1e6
}

/// Rows forwarded a second until the backlog is gone, and the clicks accepted a second meanwhile.
fn drain_rates(node: &Node<'_>, rate: u32) -> (f64, f64) {
    let first = node.status().expect("status");
    let began = Instant::now();
    loop {
        std::thread::sleep(LOOK);
        let now = node.status().expect("status");
        if accepted(&now) - rows(&now) < u64::from(rate) * CAUGHT_UP_S {
            let seconds = began.elapsed().as_secs_f64();
            let per_second = |of: fn(&Value) -> u64| (of(&now) - of(&first)) as f64 / seconds;
            return (per_second(rows), per_second(accepted));
        }
        assert!(began.elapsed() < Duration::from_secs(600), "the backlog does not drain: {now:#}");
    }
}

#[test]
fn a_backlog_drains_while_clicks_go_on_and_memory_stays_flat() {
    let is_long = std::env::var_os("WEIR_SOAK").is_some();
    let outage = if is_long { SOAK } else { SHORT };
    let Some(mut cluster) = kafka::start(&Settings::default()).expect("Kafka comes up") else { return };
    let (bootstrap, prefix) = (cluster.bootstrap(), kafka::fresh_prefix());
    let folder = NodeFolder::new(&kafka::config(&bootstrap, &prefix)).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let generator = Generator::start(&folder, outage.load()).expect("generator");
    let warm = u64::from(outage.rate) * outage.before_s;
    node.wait_until("forwarding", |status| accepted(status) > warm && rows(status) > 0).expect("forwards");

    cluster.brokers[0].kill();
    let (before, resident) = (node.status().expect("status"), node.resident_kib().expect("memory"));
    std::thread::sleep(Duration::from_secs(outage.away_s));
    let away = node.status().expect("status");
    let grown_kib = node.resident_kib().expect("memory").saturating_sub(resident);
    let taken = accepted(&away) - accepted(&before);
    assert!(grown_kib < GROWTH_KIB + taken * IMPRESSION_BYTES / 1024, "{grown_kib} KiB for {taken} clicks");
    // Kafka's absence is nothing to those who click: as many are taken as are sent.
    assert!(taken > u64::from(outage.rate) * outage.away_s / 2, "{taken} clicks were taken");
    assert!(rows(&away) < accepted(&before) + u64::from(outage.rate), "it forwards to nobody");

    cluster.brokers[0].start().expect("start");
    cluster.brokers[0].wait_until_up().expect("up");
    let at_return = rows(&node.status().expect("status"));
    node.wait_until("forwarding again", |status| rows(status) > at_return).expect("goes on by itself");
    let (drained, came) = drain_rates(&node, outage.rate);
    let after = node.status().expect("status");
    println!(
        "{taken} clicks waited {} s in {grown_kib} KiB more memory; then {drained:.0} rows/s went out while {came:.0} \
         clicks/s came, {:.1} times as many; acks so far p99 {:.1} ms, {:.1} ms before",
        outage.away_s,
        drained / came.max(1.0),
        ack_p99_ms(&after),
        ack_p99_ms(&before),
    );
    assert!(!is_long || drained >= DRAIN_LEAST * came, "{drained:.0} rows/s for {came:.0} clicks/s");
    let (_, acked) = generator.finish(outage.load().duration + Duration::from_secs(120)).expect("generator");
    node.drain().expect("drain");
    let recount = Recount::of(&bootstrap, &prefix).expect("recount");
    recount.is_of(&acked).expect("every acknowledged click once");
}
