//! A whole node on a disk that fails: one operation, several, or for good. It never uses a
//! segment again on which something failed, never exits, says what is wrong, and has everything
//! it acknowledged after a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_labs::clicks::{Known, send};
use weir_labs::{FaultyDisk, Generator, Line, Load, Node, NodeFolder, Setup, SmallDisk, used_after_failure};

const JOURNAL: &str = "segment_size = \"4MiB\"\ncommit_window = \"1ms\"";
const LOAD: Load = Load { profile: "demo", rate: 6000, duration: Duration::from_secs(5), seed: 13 };
/// The same, with more rows for each worker than a segment holds, however many of them go in one write.
const MORE: Load = Load { rate: 25_000, ..LOAD };
/// A storm of faults and restarts, and its long form.
const STORM: Duration = Duration::from_secs(15);
const STORM_SOAK: Duration = Duration::from_secs(300);

/// A node's folder with a disk that can be told to fail; none, with the reason printed, where no
/// such node is built.
fn faulty() -> Option<(NodeFolder, FaultyDisk)> {
    if let Some(why) = FaultyDisk::unavailable() {
        println!("skipped: {why}");
        return None;
    }
    let mut folder = NodeFolder::with(Setup { journal: Some(JOURNAL), ..Setup::default() }).expect("folder");
    let disk = FaultyDisk::of(&mut folder);
    Some((folder, disk))
}

/// Holds a stopped node's store against the acks of the generator and of the known clicks.
fn audit(folder: &NodeFolder, acked: &Path, known: &Known) {
    let found = folder.audit(Some(acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}\n{}", folder.log_tail());
    assert_eq!(found["audit"]["clicks_twice"], 0);
    assert_eq!(found["acked"]["missing"], 0, "{found:#}");
    let acknowledged = found["acked"]["acknowledged"].as_u64().expect("a number");
    assert_eq!(found["audit"]["rows"], acknowledged + known.with_rows.len() as u64);
}

fn resend(folder: &NodeFolder, known: &Known) {
    let sent = send(folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64), "resends");
}

/// A node that has these clicks and is under load.
fn loaded<'a>(folder: &'a NodeFolder, known: &Known, load: Load) -> (Node<'a>, Generator) {
    let mut node = folder.start_ready().expect("ready");
    send(folder, &known.with_rows).expect("answers");
    let generator = Generator::start(folder, load).expect("generator");
    node.wait_until_counting().expect("clicks");
    (node, generator)
}

/// Lets a node under load meet these faults, until its status says so, and checks that it loses
/// nothing and goes on without a restart. Its status then, and what it asked of the disk.
fn survives(rules: &str, is_met: impl Fn(&Value) -> bool) -> Option<(Value, Vec<Line>)> {
    survives_under(LOAD, rules, is_met)
}

fn survives_under(load: Load, rules: &str, is_met: impl Fn(&Value) -> bool) -> Option<(Value, Vec<Line>)> {
    let (folder, disk) = faulty()?;
    let known = Known::new(1);
    let (mut node, generator) = loaded(&folder, &known, load);
    disk.set(rules).expect("rules");
    node.wait_until("hit by the faults", is_met).expect("faults");
    let status = node.status().expect("status");
    disk.set("").expect("rules");
    let (_, acked) = generator.finish(LOAD.duration + Duration::from_secs(60)).expect("generator");
    resend(&folder, &known);
    let after = node.status().expect("status");
    assert_eq!(after["journal"]["state"], "running", "{after:#}");
    node.drain().expect("drain");
    audit(&folder, &acked, &known);
    let log = disk.take_log().expect("log");
    assert_eq!(used_after_failure(&log), [], "a segment was used after a failure on it");
    Some((status, log))
}

fn has_failures(count: u64) -> impl Fn(&Value) -> bool {
    move |status| status["journal"]["failures"].as_u64() >= Some(count)
}

fn injected(log: &[Line]) -> usize {
    log.iter().filter(|line| line.what != "done").count()
}

#[test]
fn a_failed_fdatasync_that_took_its_data_with_it_is_never_tried_again_on_that_segment() {
    let Some((status, log)) = survives("sync skip 20 lost", has_failures(1)) else { return };
    let why = status["journal"]["last_failure"].as_str().expect("a reason");
    assert!(why.starts_with("fdatasync of a segment failed: Input/output error"), "{why}");
    assert_eq!((status["journal"]["state"].as_str(), injected(&log)), (Some("running"), 1));
}

#[test]
fn a_failed_write_moves_its_group_to_another_segment() {
    let Some((status, log)) = survives("write skip 20 EIO", has_failures(1)) else { return };
    let why = status["journal"]["last_failure"].as_str().expect("a reason");
    assert!(why.starts_with("writing to a segment failed: Input/output error"), "{why}");
    let failed = log.iter().position(Line::has_failed).expect("a failure");
    let next =
        log[failed + 1..].iter().find(|line| line.operation == "write" && line.worker == log[failed].worker);
    assert!(next.is_some_and(|next| next.segment > log[failed].segment), "{next:?}");
}

#[test]
fn short_writes_are_carried_on_and_are_no_failure() {
    let count = |status: &Value| status["journal"]["blocks"].as_u64() > Some(400);
    let Some((status, log)) = survives("write times 100 short", count) else { return };
    assert_eq!((status["journal"]["failures"].as_u64(), injected(&log)), (Some(0), 100));
}

#[test]
fn a_disk_that_is_slow_makes_acks_late_and_nothing_else() {
    let is_late = |status: &Value| status["ack_latency_ns"]["max"].as_u64() > Some(300_000_000);
    let Some((status, _)) = survives("sync skip 5 times 8 delay 300", is_late) else { return };
    assert_eq!(status["journal"]["failures"], 0);
}

#[test]
fn a_segment_whose_folder_could_not_be_synced_is_not_used() {
    let Some((status, log)) = survives_under(MORE, "folder-sync EIO", has_failures(1)) else { return };
    let why = status["journal"]["last_failure"].as_str().expect("a reason");
    assert!(why.starts_with("making a segment failed: Input/output error"), "{why}");
    assert_eq!(injected(&log), 1);
}

#[test]
fn no_space_in_the_middle_of_a_segment_is_no_failure_of_the_disk() {
    let Some((status, _)) = survives("write skip 20 times 3 ENOSPC", has_failures(3)) else { return };
    let why = status["journal"]["last_failure"].as_str().expect("a reason");
    assert!(why.starts_with("writing to a segment failed: No space left"), "{why}");
    assert_ne!(status["journal"]["state"], "halted");
}

#[test]
fn a_disk_that_fails_for_good_halts_the_node_which_says_so_and_has_everything_after_a_restart() {
    for kind in ["lost", "EIO", "EROFS"] {
        let Some((folder, disk)) = faulty() else { return };
        let known = Known::new(1);
        let (mut node, generator) = loaded(&folder, &known, LOAD);
        disk.set(&format!("sync times 1000 {kind}")).expect("rules");
        node.wait_until("halted", is_halted_and_refusing).expect("halted");
        // A disk that works again changes nothing: who knows what it lost.
        disk.set("").expect("rules");
        std::thread::sleep(Duration::from_secs(2));
        let status = node.status().expect("status");
        assert!(is_halted_and_refusing(&status), "{status:#}");
        assert!(status["journal"]["last_failure"].as_str().is_some_and(|why| why.contains("fdatasync")));
        let log = folder.log_text();
        assert!(log.contains("the journal is halted") && log.contains("It was failure 3 in a row"), "{log}");
        node.kill().expect("kill");
        let asked = disk.take_log().expect("log");
        assert_eq!(used_after_failure(&asked), []);
        let node = folder.start_ready().expect("ready");
        resend(&folder, &known);
        let (_, acked) = generator.finish(LOAD.duration + Duration::from_secs(60)).expect("generator");
        node.drain().expect("drain");
        audit(&folder, &acked, &known);
    }
}

/// All workers halted, and senders were told to retry.
fn is_halted_and_refusing(status: &Value) -> bool {
    let workers = status["workers"]
        .as_array()
        .is_some_and(|workers| workers.iter().all(|worker| worker["journal_state"] == "halted"));
    workers && status["clicks"]["reasons"]["journal_full"].as_u64() > Some(100)
}

#[test]
fn whatever_fails_in_whatever_order_and_whenever_the_node_is_killed_nothing_acknowledged_is_lost() {
    const OPERATIONS: [&str; 7] =
        ["create", "allocate", "header", "file-sync", "folder-sync", "write", "sync"];
    const KINDS: [&str; 7] = ["EIO", "ENOSPC", "EDQUOT", "EROFS", "short", "lost", "delay 60"];
    let Some((folder, disk)) = faulty() else { return };
    let mut random = SmallRng::seed_from_u64(weir_labs::seed());
    let storm = if weir_labs::is_soak() { STORM_SOAK } else { STORM };
    let known = Known::new(1);
    let (mut node, generator) = loaded(&folder, &known, Load { duration: storm, ..LOAD });
    let began = Instant::now();
    let (mut kills, mut halts) = (0, 0);
    for step in 1.. {
        if began.elapsed() >= storm {
            break;
        }
        let rules: String = (0..random.random_range(1..4))
            .map(|_| {
                let operation = OPERATIONS[random.random_range(0..OPERATIONS.len())];
                let kind = KINDS[random.random_range(0..KINDS.len())];
                let (skip, times) = (random.random_range(0..40), random.random_range(1..5));
                format!("{operation} skip {skip} times {times} {kind}\n")
            })
            .collect();
        disk.set(&rules).expect("rules");
        std::thread::sleep(Duration::from_millis(random.random_range(50..600)));
        assert_eq!(node.ended().expect("look"), None, "the node ended by itself:\n{}", folder.log_tail());
        let is_halted = node.status().is_ok_and(|status| status["journal"]["state"] == "halted");
        if is_halted || step % 6 == 0 {
            node.kill().expect("kill");
            (kills, halts) = (kills + 1, halts + u32::from(is_halted));
            assert_eq!(used_after_failure(&disk.take_log().expect("log")), []);
            node = folder.start_ready().expect("ready");
        }
    }
    disk.set("").expect("rules");
    node.kill().expect("kill");
    let node = folder.start_ready().expect("ready");
    resend(&folder, &known);
    let (_, acked) = generator.finish(Duration::from_secs(120)).expect("generator");
    node.drain().expect("drain");
    audit(&folder, &acked, &known);
    println!("{kills} kills, {halts} of them of a halted node");
    assert!(kills > 0);
}

#[test]
fn a_device_that_has_less_than_it_promised_stops_the_node_and_a_mended_one_has_everything() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    // The kernel itself fails writes and syncs here, and then turns the file system read-only.
    let device = SmallDisk::overcommitted(512 << 20, 40 << 20).expect("disk");
    let setup = Setup { data: Some(device.path()), journal: Some(JOURNAL), ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let known = Known::new(1);
    let load = Load { duration: Duration::from_secs(20), ..LOAD };
    let (mut node, generator) = loaded(&folder, &known, load);
    // Which error the kernel gives, and whether the file system goes on, depends on what the
    // device refused first: data, or the file system's own journal.
    let is_stuck = |status: &Value| {
        status["workers"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["journal_state"] != "running"))
            && status["clicks"]["reasons"]["journal_full"].as_u64() > Some(100)
    };
    node.wait_until("stuck", is_stuck).expect("stuck");
    let status = node.status().expect("status");
    println!("journal {}, {}", status["journal"]["state"], status["journal"]["last_failure"]);
    assert!(status["journal"]["last_failure"].is_string(), "{status:#}");
    node.kill().expect("kill");
    device.mend(600 << 20).expect("mend");
    let node = folder.start_ready().expect("ready");
    resend(&folder, &known);
    let (_, acked) = generator.finish(load.duration + Duration::from_secs(60)).expect("generator");
    node.drain().expect("drain");
    audit(&folder, &acked, &known);
}
