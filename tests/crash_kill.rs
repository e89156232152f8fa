//! A node that is killed at random instants under load loses nothing it acknowledged and counts
//! nothing twice.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weir_labs::{Generator, Load, NodeFolder};

/// Kills in one run. `WEIR_KILLS` asks for more.
const KILLS: u32 = 20;
/// A life is at most this long.
const LIFE_MS_MAX: u64 = 2500;
/// One life in four ends before this, while the node opens and refolds; the others under load.
const START_MS: u64 = 800;

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
    let duration = Duration::from_millis(LIFE_MS_MAX * 3 / 4 * u64::from(kills) + 10_000);
    let load = Load { profile: "demo", rate: 8000, duration, seed };
    let mut generator = Generator::start(&folder, load).expect("generator");
    let mut ready = 0;
    for kill in 0..kills {
        let mut node = folder.start().expect("start");
        let starts = random.random_ratio(1, 4);
        let life_ms = if starts {
            random.random_range(0..START_MS)
        } else {
            random.random_range(START_MS..LIFE_MS_MAX)
        };
        std::thread::sleep(Duration::from_millis(life_ms));
        assert_eq!(node.ended().expect("look"), None, "life {kill} ended by itself:\n{}", folder.log_tail());
        ready += u32::from(node.status().is_ok_and(|status| status["clicks"]["received"].as_u64() > Some(0)));
        node.kill().expect("kill");
        assert!(generator.is_running().expect("look"), "the load ended before kill {kill}");
    }
    println!("{ready} of {kills} lives had counted clicks when they were killed");
    assert!(ready >= kills / 4, "too few kills under load: {ready} of {kills}");

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
