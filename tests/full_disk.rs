//! A whole node on a disk that is really full: it tells senders to retry, goes on living, loses
//! nothing it acknowledged, and takes clicks again by itself once there is space.

use std::net::UdpSocket;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_common::row::ROW_LEN;
use weir_labs::clicks::{Known, send};
use weir_labs::{Generator, Load, Node, NodeFolder, Setup, SmallDisk};

/// Room for store, journal and some segments of load; small enough to fill at once.
const DISK_BYTES: u64 = 256 << 20;
/// Far more than the disk has: the disk itself is to say no.
const JOURNAL: &str = "segment_size = \"4MiB\"\nmax_size = \"64GiB\"\ncommit_window = \"1ms\"";
const LOAD: Load = Load { profile: "demo", rate: 6000, duration: Duration::from_secs(15), seed: 11 };
/// A journal that the rows of [`OVERFLOW`] alone fill, however few groups a slow machine puts them in.
const BOUND_MIB: u64 = 16;
const OVERFLOW: Load = Load { profile: "demo", rate: 12_000, duration: Duration::from_secs(20), seed: 11 };
const _: () =
    assert!(OVERFLOW.rate as u64 * OVERFLOW.duration.as_secs() * ROW_LEN as u64 > (BOUND_MIB << 20) * 3 / 2);
/// A node that refused clicks for so long and lives has got used to it.
const REFUSALS: u64 = 5_000;

fn is_refusing(status: &Value) -> bool {
    status["journal"]["state"] == "no_space"
        && status["clicks"]["reasons"]["journal_full"].as_u64() > Some(REFUSALS)
}

fn takes_clicks_beyond(accepted: u64) -> impl Fn(&Value) -> bool {
    move |status| {
        status["journal"]["state"] == "running"
            && status["forward"]["last_error"].is_null()
            && status["clicks"]["outcomes"]["accepted"].as_u64() > Some(accepted)
    }
}

/// Fills the disk under load, frees it again, and holds the store against the acks.
fn fill_and_free(disk: &SmallDisk) {
    let setup = Setup { data: Some(disk.path()), journal: Some(JOURNAL), ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    let generator = Generator::start(&folder, LOAD).expect("generator");
    node.wait_until_counting().expect("clicks");
    let ballast = disk.fill().expect("ballast");
    node.wait_until("refusing clicks", is_refusing).expect("refusing");
    let full = node.status().expect("status");
    let why = full["journal"]["last_failure"].as_str().expect("a reason");
    assert!(why.contains("making a segment failed: No space left on device"), "{why}");
    assert!(full["forward"]["last_error"].is_string(), "the store has no space either: {full:#}");
    drop(ballast);
    let accepted = full["clicks"]["outcomes"]["accepted"].as_u64().expect("a number");
    node.wait_until("taking clicks again", takes_clicks_beyond(accepted)).expect("taking clicks");
    let sent = send(&folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64));
    finish(&folder, node, generator, &known, LOAD);
}

fn finish(folder: &NodeFolder, node: Node<'_>, generator: Generator, known: &Known, load: Load) {
    let (report, acked) = generator.finish(load.duration + Duration::from_secs(60)).expect("generator");
    assert!(load.rate < LOAD.rate || report["acks"]["retry"].as_u64() >= Some(REFUSALS), "{report:#}");
    node.drain().expect("drain");
    let found = folder.audit(Some(&acked)).expect("audit");
    assert_eq!(found["audit"]["sound"], true, "{found:#}\n{}", folder.log_tail());
    assert_eq!(found["acked"]["missing"], 0, "{found:#}");
    let acknowledged = found["acked"]["acknowledged"].as_u64().expect("a number");
    assert_eq!(found["audit"]["rows"], acknowledged + known.with_rows.len() as u64);
}

#[test]
fn a_node_on_a_full_ext4_refuses_with_retry_and_goes_on_by_itself() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    fill_and_free(&SmallDisk::ext4(DISK_BYTES).expect("disk"));
}

#[test]
fn a_node_on_a_full_tmpfs_refuses_with_retry_and_goes_on_by_itself() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    fill_and_free(&SmallDisk::tmpfs(DISK_BYTES).expect("disk"));
}

/// Rounds of filling and freeing that any machine gets through while clicks come.
const ROUNDS_MIN: u64 = 3;

#[test]
fn a_disk_that_fills_and_frees_again_and_again_needs_no_restart() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    let rounds = if weir_labs::is_soak() { 100 } else { 12 };
    let disk = SmallDisk::ext4(2 * DISK_BYTES).expect("disk");
    let config = "[forward]\ninterval = \"100ms\"\n";
    let setup = Setup { data: Some(disk.path()), journal: Some(JOURNAL), config };
    let folder = NodeFolder::with(setup).expect("folder");
    let mut random = SmallRng::seed_from_u64(weir_labs::seed());
    let mut node = folder.start_ready().expect("ready");
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    let load = Load { rate: 1000, duration: Duration::from_secs(4 * rounds), ..LOAD };
    let mut generator = Generator::start(&folder, load).expect("generator");
    node.wait_until_counting().expect("clicks");
    for round in 0..rounds {
        let ballast = disk.fill().expect("ballast");
        // Raw batches, database and segments meet the full disk at other places each time.
        let failing = node.wait_until("failing to forward, or refusing", |status| {
            // A journal that has met the full disk first takes no clicks, and the sink has nothing to do.
            status["forward"]["last_error"].is_string() || status["journal"]["state"] == "no_space"
        });
        // Without clicks nothing is forwarded: a slow machine gets through fewer rounds.
        if failing.is_err() && round >= ROUNDS_MIN && !generator.is_running().expect("generator") {
            break;
        }
        failing.expect("a failed flush or a refused click");
        std::thread::sleep(Duration::from_millis(random.random_range(0..1000)));
        drop(ballast);
        let is_well = |status: &Value| {
            status["forward"]["last_error"].is_null() && status["journal"]["state"] == "running"
        };
        node.wait_until("forwarding again", is_well)
            .unwrap_or_else(|error| panic!("round {round}: {error:#}"));
    }
    println!(
        "the store was opened again {} times",
        folder.log_text().matches("the sink is open again").count()
    );
    finish(&folder, node, generator, &known, load);
}

#[test]
fn a_journal_at_its_bound_refuses_with_retry_and_a_larger_bound_takes_all_of_it() {
    let journal = format!("segment_size = \"4MiB\"\nmax_size = \"{BOUND_MIB}MiB\"\ncommit_window = \"1ms\"");
    let folder = NodeFolder::with(Setup { journal: Some(&journal), ..Setup::default() }).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    let generator = Generator::start(&folder, OVERFLOW).expect("generator");
    node.wait_until("refusing clicks", is_refusing).expect("refusing");
    let status = node.status().expect("status");
    assert_eq!(status["journal"]["last_failure"], "the next segment would not fit `journal.max_size`");
    assert!(status["forward"]["last_error"].is_null(), "the store has space: {status:#}");
    node.drain().expect("drain");
    folder.reconfigure("max_size", "max_size = \"4GiB\"").expect("config");
    let node = folder.start_ready().expect("ready");
    finish(&folder, node, generator, &known, OVERFLOW);
}

#[test]
fn a_node_that_cannot_start_on_a_full_disk_says_what_to_free_and_starts_once_it_is() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    let disk = SmallDisk::ext4(DISK_BYTES).expect("disk");
    let setup = Setup { data: Some(disk.path()), journal: Some(JOURNAL), ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let known = Known::new(1);
    let node = folder.start_ready().expect("ready");
    send(&folder, &known.with_rows).expect("answers");
    node.kill().expect("kill");
    let ballast = disk.fill().expect("ballast");
    let mut node = folder.start().expect("start");
    let error =
        node.wait_until_ready().expect_err("there is no room for the number of the start").to_string();
    assert!(error.contains("No space left on device") && error.contains("epoch"), "{error}");
    drop(ballast);
    let node = folder.start_ready().expect("ready");
    let sent = send(&folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64));
    node.drain().expect("drain");
}

/// A datagram that is none of ours, so often that the samples of several seconds are used up.
fn send_garbage(folder: &NodeFolder) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    for _ in 0..50 {
        socket.send_to(b"GET / HTTP/1.1", ("127.0.0.1", folder.port())).expect("a datagram");
    }
}

fn count(status: &Value, name: &str) -> u64 {
    status["clicks"][name].as_u64().expect("a number")
}

#[test]
fn a_journal_that_fills_says_so_and_gives_up_samples_before_it_refuses_clicks() {
    // The sink is away from the start: nobody listens there.
    let away = "[forward]\nsink = \"kafka\"\n[kafka]\nbrokers = [\"127.0.0.1:1\"]\n";
    let journal = "segment_size = \"4MiB\"\nmax_size = \"64MiB\"\ncommit_window = \"1ms\"";
    let setup = Setup { journal: Some(journal), config: away, ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let mut node = folder.start_ready().expect("ready");
    let known = Known::new(1);
    send(&folder, &known.with_rows).expect("answers");
    send_garbage(&folder);
    node.wait_until("sampling", |status| count(status, "rejects_sampled") > 0).expect("samples");
    let load = Load { duration: Duration::from_secs(40), ..LOAD };
    let generator = Generator::start(&folder, load).expect("generator");
    let is_three_quarters = |status: &Value| {
        ["three_quarters", "critical"].iter().any(|level| status["spool"]["level"] == *level)
    };
    node.wait_until("three quarters full", is_three_quarters).expect("alarm");
    let before = node.status().expect("status");
    assert!(before["spool"]["fraction"].as_f64() >= Some(0.7), "{:#}", before["spool"]);
    // Samples are the first to go, and malformed input is still counted.
    send_garbage(&folder);
    let unsampled = count(&before, "rejects_unsampled");
    node.wait_until("counting", |status| count(status, "rejects_unsampled") >= unsampled + 50)
        .expect("count");
    let after = node.status().expect("status");
    assert_eq!(count(&after, "rejects_sampled"), count(&before, "rejects_sampled"), "no more samples");
    assert!(count(&after, "received") > count(&before, "received"), "clicks are taken");
    // Then clicks are told to retry; nothing acknowledged goes.
    node.wait_until("refusing clicks", is_refusing).expect("refusing");
    assert_eq!(node.status().expect("status")["spool"]["level"], "critical");
    for level in ["half", "critical"] {
        assert!(folder.log_text().contains(&format!("level=\"{level}\"")), "{level}: {}", folder.log_tail());
    }
    node.kill().expect("kill");
    // A sink that is there has everything that was acknowledged.
    folder.reconfigure("sink", "sink = \"embedded\"").expect("config");
    folder.reconfigure("max_size", "max_size = \"4GiB\"").expect("config");
    let node = folder.start_ready().expect("ready");
    let sent = send(&folder, &known.with_rows).expect("answers");
    assert_eq!((sent.acked_created, sent.acked_exists), (0, known.with_rows.len() as u64));
    finish(&folder, node, generator, &known, load);
}
