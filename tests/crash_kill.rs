//! A node that is killed at random instants under load loses nothing it acknowledged, counts
//! nothing twice, and answers resends of every outcome as before.
//!
//! Twenty kills in the short form, five hundred in the long one (`cargo xtask test --soak`); as many
//! with an encrypted journal. Each round is a fresh node under one load; it is killed and started
//! again, on other cores each time, until the load is over. Segments are small and flushes frequent,
//! so that kills meet both.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_labs::clicks::{Known, send};
use weir_labs::{Generator, Load, Node, NodeFolder, Setup};

const KILLS: u32 = 20;
const KILLS_SOAK: u32 = 500;
/// The load of one round. A start refolds all that the round has counted, so longer rounds would
/// mostly refold.
const LOAD_S: u64 = 40;
/// How long a node lives beyond the event its kill aims at.
const LIFE_MS_MAX: u64 = 600;
/// A kill at a start comes within this: opening, refolding, making the first segments.
const START_MS_MAX: u64 = 800;
/// How long to wait for the event a kill aims at; then it is a kill under load like any other.
const AIM_MAX: Duration = Duration::from_millis(1500);
/// Workers at the most, where there are as many cores.
const WORKERS_MAX: usize = 4;

/// What a kill aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// The node opens and refolds.
    Start,
    /// It counts clicks.
    Load,
    /// It has just made a segment, or is about to go over to one.
    Segment,
    /// It writes a raw batch of a flush.
    Flush,
}

const AIMS: [Aim; 4] = [Aim::Start, Aim::Load, Aim::Segment, Aim::Flush];

#[test]
fn a_node_killed_at_random_instants_keeps_every_acknowledged_click_once() {
    kill_again_and_again("");
}

#[test]
fn a_node_with_an_encrypted_journal_killed_at_random_instants_keeps_every_acknowledged_click_once() {
    let keys = tempfile::tempdir().expect("folder");
    let journal = format!("encrypt = true\nkeys_dir = {:?}\n", keys.path().join("keys"));
    kill_again_and_again(&journal);
}

/// Kills nodes with these lines in the journal section of their config.
fn kill_again_and_again(journal: &str) {
    let kills_wanted = if weir_labs::is_soak() { KILLS_SOAK } else { KILLS };
    let mut random = SmallRng::seed_from_u64(weir_labs::seed());
    let mut kills = [0_u32; AIMS.len()];
    let mut rows = 0;
    for round in 0_u32.. {
        let left = kills_wanted - kills.iter().sum::<u32>();
        if left == 0 {
            break;
        }
        rows += one_round(&mut random, left, &mut kills, journal);
        println!("round {round}: kills so far {:?}, {rows} rows", AIMS.iter().zip(kills).collect::<Vec<_>>());
    }
    assert!(kills.iter().all(|&kills| kills > 0), "some aim was never met: {kills:?}");
}

/// One node and one load; at most `kills_max` kills. The rows in its store at the end.
fn one_round(random: &mut SmallRng, kills_max: u32, kills: &mut [u32; AIMS.len()], journal: &str) -> u64 {
    let window = if random.random_ratio(1, 2) { "0ms" } else { "2ms" };
    let journal = format!("segment_size = \"4MiB\"\ncommit_window = \"{window}\"\n{journal}");
    let config = "[forward]\ninterval = \"100ms\"\n[workers]\ncores = \"all\"\n";
    let setup = Setup { journal: Some(&journal), config, ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let known = Known::new(1);
    let node = folder.start_ready().expect("ready");
    let sent = send(&folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (known.with_rows.len() as u64, 0));
    let sent = send(&folder, &known.refused).expect("answers");
    assert_eq!(sent.dropped_malformed, known.refused.len() as u64);
    node.kill().expect("kill");

    let duration = Duration::from_secs(LOAD_S);
    let load = Load { profile: "demo", rate: 8000, duration, seed: random.random() };
    let mut generator = Generator::start(&folder, load).expect("generator");
    for life in 0..kills_max {
        let aim = AIMS[(life as usize) % AIMS.len()];
        move_workers(random, &folder);
        let mut node = folder.start().expect("start");
        let met = await_aim(random, &folder, &mut node, &mut generator, aim);
        assert_eq!(node.ended().expect("look"), None, "life {life} ended by itself:\n{}", folder.log_tail());
        if !generator.is_running().expect("look") {
            node.kill().expect("kill");
            break;
        }
        node.kill().expect("kill");
        kills[AIMS.iter().position(|&aim| aim == met).expect("an aim")] += 1;
    }
    settle(&folder, generator, &known)
}

/// Gives the next start other cores: the shards go to other workers with it.
fn move_workers(random: &mut SmallRng, folder: &NodeFolder) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let first = random.random_range(0..cores);
    let count = random.random_range(1..=cores - first);
    let cores: Vec<_> = (first..first + count).collect();
    folder.reconfigure("cores =", &format!("cores = {cores:?}")).expect("config");
}

/// Waits until the moment to kill has come; what was met of what was aimed at.
fn await_aim(
    random: &mut SmallRng,
    folder: &NodeFolder,
    node: &mut Node<'_>,
    generator: &mut Generator,
    aim: Aim,
) -> Aim {
    let nap = |ms| std::thread::sleep(Duration::from_millis(ms));
    if aim == Aim::Start {
        nap(random.random_range(0..START_MS_MAX));
        return aim;
    }
    // At the end of the load there may be no click left to count.
    let is_counting = |status: &Value| {
        status["clicks"]["received"].as_u64() > Some(0) || !generator.is_running().expect("look")
    };
    node.wait_until("counting", is_counting).expect("clicks");
    let event: &dyn Fn() -> bool = match aim {
        Aim::Start | Aim::Load => {
            nap(random.random_range(0..LIFE_MS_MAX));
            return Aim::Load;
        }
        Aim::Segment => {
            let before = folder.segments().expect("segments").len();
            &move || folder.segments().is_ok_and(|segments| segments.len() > before)
        }
        Aim::Flush => &|| has_half_batch(&folder.data().join("store/raw")),
    };
    let deadline = Instant::now() + AIM_MAX;
    while !event() {
        if Instant::now() >= deadline {
            return Aim::Load;
        }
    }
    if random.random_ratio(1, 2) {
        std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
    }
    aim
}

/// Whether a raw batch is being written: it gets its name when it is whole.
fn has_half_batch(raw: &Path) -> bool {
    let Ok(mut folder) = std::fs::read_dir(raw) else { return false };
    folder
        .any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|suffix| suffix == "new")))
}

/// The last life: the load ends, everything is sent again, and the store is held against both.
fn settle(folder: &NodeFolder, generator: Generator, known: &Known) -> u64 {
    folder.reconfigure("cores =", "cores = \"all\"").expect("config");
    let last = folder.start_ready().expect("ready");
    let (report, acked) = generator.finish(Duration::from_secs(LOAD_S + 90)).expect("generator");
    let sent = send(folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64), "resends");
    let sent = send(folder, &known.refused).expect("answers");
    assert_eq!(sent.dropped_malformed, known.refused.len() as u64, "refused again");
    last.drain().expect("drain");
    let found = folder.audit(Some(&acked)).expect("audit");
    let (audit, acked) = (&found["audit"], &found["acked"]);
    assert_eq!(audit["sound"], true, "{audit:#}\n{}", folder.log_tail());
    assert_eq!(audit["clicks_twice"], 0);
    assert_eq!(audit["bucket_mismatches"], 0);
    assert_eq!(acked["missing"], 0, "{acked:#}");
    let acknowledged = acked["acknowledged"].as_u64().expect("a number");
    let created = report["acks"]["created"].as_u64().expect("a number");
    assert!(acknowledged > 0 && created > 0);
    // Every click of the generator was acknowledged in the end, so there is no other row.
    let rows = audit["rows"].as_u64().expect("a number");
    assert_eq!(rows, acknowledged + known.with_rows.len() as u64);
    rows
}
