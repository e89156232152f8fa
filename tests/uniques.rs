//! Unique users of a real node, killed while their minutes are open, in both sinks. Long: a minute
//! is final six minutes after its end at the earliest. `WEIR_SOAK` asks for it.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_labs::topics::Recount;
use weir_labs::{Generator, Load, NodeFolder, kafka};

/// A minute is final five minutes after these are over.
const SOON: &str = "[admission]\nlateness = \"1m\"\nmax_ahead = \"0ms\"\n";
/// A minute of clicks, the lateness, the five minutes, and some for a busy machine.
const FINAL_MAX: Duration = Duration::from_secs(10 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOAD: Load = Load { profile: "demo", rate: 4000, duration: Duration::from_secs(4), seed: 51 };

fn uniques(status: &Value, field: &str) -> u64 {
    status["forward"]["uniques"][field].as_u64().unwrap_or_default()
}

/// A node that was killed after the first half of its clicks, and drained after their minutes were
/// final; its log of acknowledged clicks.
fn run(folder: &NodeFolder) -> (Value, u64) {
    let mut acknowledged = 0;
    for seed in [51, 52] {
        let mut node = folder.start_ready().expect("ready");
        let generator = Generator::start(folder, Load { seed, ..LOAD }).expect("generator");
        let (_, acked) = generator.finish(Duration::from_secs(60)).expect("generator");
        acknowledged += std::fs::read_to_string(acked).expect("log").lines().count() as u64;
        if seed == 51 {
            node.kill().expect("kill");
            continue;
        }
        let began = Instant::now();
        let is_over = |status: &Value| {
            let is_over = uniques(status, "sketches") > 0 && uniques(status, "held") == 0;
            // From one look to the next: a status is a process of its own.
            std::thread::sleep(if is_over { Duration::ZERO } else { LOOK_EVERY });
            is_over
        };
        while node.wait_until("sketches", is_over).is_err() {
            assert!(began.elapsed() < FINAL_MAX, "{}", folder.log_tail());
        }
        node.drain().expect("drain");
    }
    (folder.final_status().expect("final status"), acknowledged)
}

#[test]
fn a_node_killed_in_open_minutes_has_the_sketches_of_all_its_rows_in_both_sinks() {
    if std::env::var_os("WEIR_SOAK").is_none() {
        println!("skipped: it takes eight minutes; `cargo xtask test --soak` runs it");
        return;
    }
    let embedded = NodeFolder::new(SOON).expect("folder");
    let in_kafka = kafka::shared().map(|bootstrap| {
        let prefix = kafka::fresh_prefix();
        let config = format!("{SOON}{}", kafka::config(bootstrap, &prefix));
        (bootstrap, prefix, NodeFolder::new(&config).expect("folder"))
    });
    std::thread::scope(|scope| {
        let other = in_kafka.as_ref().map(|(_, _, folder)| scope.spawn(|| run(folder)));
        let (status, acknowledged) = run(&embedded);
        let found = embedded.audit(None).expect("audit");
        assert_eq!(found["audit"]["sound"], true, "{found:#}");
        assert_eq!(found["audit"]["sketches"], status["forward"]["uniques"]["sketches"]);
        assert_eq!(found["audit"]["unsketched_minutes"], 0);
        assert!(acknowledged > 1000 && uniques(&status, "sketches") > 100, "{status:#}");
        if let Some(other) = other {
            let (status, _) = other.join().expect("the other node");
            let (bootstrap, prefix, _) = in_kafka.as_ref().expect("a cluster");
            let recount = Recount::of(bootstrap, prefix).expect("recount");
            println!("{recount}");
            recount.check().expect("sound topics");
            assert_eq!(recount.sketches.sketches, uniques(&status, "sketches"));
            assert_eq!(recount.sketches.unsketched_minutes, 0);
        }
    });
}
