//! A node that is killed at random instants under load loses nothing it acknowledged and counts
//! nothing twice.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weir_labs::{Generator, Load, NodeFolder};

/// Kills in one run. `WEIR_KILLS` asks for more.
const KILLS: u32 = 20;
/// A life that is to end under load goes on at most this long after the node counted its first click.
const LIFE_MS_MAX: u64 = 1500;
/// One life in four ends before this, while the node opens and refolds.
const START_MS_MAX: u64 = 800;
/// What a life may take with its start, on a slow machine: the load must outlast all of them.
const LIFE_WITH_START_S: u64 = 4;

#[test]
fn a_node_killed_at_twenty_random_instants_keeps_every_acknowledged_click_once() {
    let kills = std::env::var("WEIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed =
        std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: repeat with WEIR_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = NodeFolder::new("").expect("folder");
    let mut first = folder.start().expect("start");
    first.wait_until_ready().expect("ready");
    first.kill().expect("kill");

    // Long enough that every kill finds clicks on their way.
    let duration = Duration::from_secs(LIFE_WITH_START_S * u64::from(kills));
    let load = Load { profile: "demo", rate: 8000, duration, seed };
    let mut generator = Generator::start(&folder, load).expect("generator");
    for kill in 0..kills {
        let mut node = folder.start().expect("start");
        let life_ms = if random.random_ratio(1, 4) {
            random.random_range(0..START_MS_MAX)
        } else {
            node.wait_until_counting().expect("clicks");
            random.random_range(0..LIFE_MS_MAX)
        };
        std::thread::sleep(Duration::from_millis(life_ms));
        assert_eq!(node.ended().expect("look"), None, "life {kill} ended by itself:\n{}", folder.log_tail());
        node.kill().expect("kill");
        assert!(generator.is_running().expect("look"), "the load ended before kill {kill}");
    }

    let mut last = folder.start().expect("start");
    last.wait_until_ready().expect("ready");
    let (report, acked) = generator.finish(duration + Duration::from_secs(90)).expect("generator");
    last.drain().expect("drain");
    let found = folder.audit(Some(&acked)).expect("audit");
    let (audit, acked) = (&found["audit"], &found["acked"]);
    println!(
        "{} rows, {} clicks acknowledged, {} orphans",
        audit["rows"], acked["acknowledged"], audit["orphans"]
    );
    assert_eq!(audit["sound"], true, "{audit:#}\n{}", folder.log_tail());
    assert_eq!(audit["clicks_twice"], 0);
    assert_eq!(audit["bucket_mismatches"], 0);
    assert_eq!(acked["missing"], 0, "{acked:#}");
    let acknowledged = acked["acknowledged"].as_u64().expect("a number");
    let created = report["acks"]["created"].as_u64().expect("a number");
    assert!(acknowledged > 0 && created > 0);
    // Every click of the generator was acknowledged in the end, so there is no other row.
    assert_eq!(audit["rows"].as_u64(), Some(acknowledged));
}
