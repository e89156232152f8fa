//! Questions a second that the central tier answers, and how long each takes, while it merges.
//!
//!     cargo bench -p weir-central --bench answers
//!
//! The store has an hour of 1,000 ads in eight countries from five nodes, with users of each ad and minute. While `wrk`
//! asks for the last hour of one ad after another, by minute, a thread writes new revisions of the open minute's buckets at
//! the rate of a small installation. Once with kept answers, once with none. Skipped without `wrk`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use datasketches::theta::ThetaSketchBuilder;
use tokio::sync::watch;
use weir_central::config::Serve;
use weir_central::merge::Changes;
use weir_central::merger::Seen;
use weir_central::record::{Life, Revision, Told, Word};
use weir_central::serve::access::Access;
use weir_central::serve::cache::Answers;
use weir_central::serve::{self, Counted, Served};
use weir_central::store::Store;
use weir_central::users::Users;
use weir_central::watermark::{Offsets, Watermarks};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{Incarnation, NodeId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::byteorder::little_endian::{U32, U64};

const ADS: u64 = 1000;
const NODES: u32 = 5;
const MINUTES: u32 = 60;
const COUNTRIES: [[u8; 2]; 8] = [*b"PL", *b"DE", *b"FR", *b"ES", *b"IT", *b"CZ", *b"NL", *b"SE"];
/// Users of an ad, a minute and a node.
const USERS: u64 = 50;
/// Buckets of one write, and how often one is made: some 16,000 buckets a second.
const WRITE: (u64, Duration) = (8000, Duration::from_millis(500));
const SECONDS: u32 = 10;

fn life(node: u32) -> Life {
    Life { node: NodeId(node), incarnation: Incarnation(u64::from(node)) }
}

fn bucket(node: u32, revision: u64, ad: u64, minute: u32, country: [u8; 2]) -> Word {
    let key = BucketKey { ad: U64::new(ad), minute: U32::new(minute), country, ..BucketKey::default() };
    let totals = BucketTotals {
        accepted: U64::new(revision * 7),
        repeat: U64::new(revision),
        cost_micros: U64::new(revision * 3500),
        ..BucketTotals::default()
    };
    Word::Bucket { life: life(node), revision: Revision(revision), key, totals }
}

fn sketch(node: u32, ad: u64, minute: u32) -> Word {
    let mut sketch = ThetaSketchBuilder::default().lg_k(12).build().expect("a sketch");
    // A third of a node's users are new in each minute.
    let first = ad * 1_000_000 + u64::from(node) * 10_000 + u64::from(minute % 1440) * USERS / 3;
    (first..first + USERS).for_each(|user| sketch.update(user));
    sketch.trim();
    let users = Users::read(&sketch.compact(true).serialize()).expect("a sound sketch");
    Word::Sketch { life: life(node), revision: Revision(1), ad, minute: Minute(minute), users }
}

fn take(store: &Store, words: impl Iterator<Item = Word>) {
    let mut changes = Changes::default();
    words.for_each(|word| changes.take(store, word).expect("the store reads"));
    store.apply(&changes, &[], &Offsets::new(), &[]).expect("the store writes");
}

fn fill(store: &Store, now: u32) {
    let began = Instant::now();
    for minute in now - MINUTES..now {
        for node in 1..=NODES {
            let of_ad = |ad| COUNTRIES.into_iter().map(move |country| bucket(node, 1, ad, minute, country));
            take(store, (0..ADS).flat_map(of_ad));
            take(store, (0..ADS).map(|ad| sketch(node, ad, minute)));
        }
    }
    let sketches = u64::from(MINUTES * NODES) * ADS;
    let buckets = sketches * COUNTRIES.len() as u64;
    let seconds = began.elapsed().as_secs_f64();
    let rate = (buckets + sketches) as f64 / seconds;
    println!("{buckets} buckets and {sketches} sketches in {seconds:.1} s: {rate:.0} a second");
}

/// All minutes but the open one are final.
fn seen(now: u32) -> Seen {
    let mut marks = Watermarks::default();
    for node in 1..=NODES {
        let counted_until = Some(UnixMs(u64::from(now) * 60_000));
        marks.tell(life(node), Told { final_before: Minute(now - 1), counted_until, ..Told::default() });
    }
    assert!(marks.asks());
    marks.ends(Some(Offsets::new()));
    marks.read_to(&Offsets::new());
    Seen { progress: marks.progress(&[]), ..Seen::default() }
}

fn main() {
    let is_there = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if is_there.is_err() {
        println!("skipped: wrk is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = Store::open(dir.path()).expect("store");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now = (since.as_secs() / 60) as u32 + 1;
    fill(&store, now);
    for (name, cache_bytes) in [("with kept answers", 256 << 20), ("with none", 1)] {
        measure(&store, now, name, cache_bytes);
    }
}

fn measure(store: &Store, now: u32, name: &str, cache_bytes: u64) {
    let config = Serve { requests_per_s: u32::MAX, ..Serve::default() };
    let (_seen, shown) = watch::channel(seen(now));
    let served = Served {
        store: store.clone(),
        seen: shown,
        counted: Counted::default(),
        archive: None,
        has_alerts: false,
        answers: Answers::new(cache_bytes),
        access: Access::of(&config).expect("no keys"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let listener = runtime.block_on(serve::listen(([127, 0, 0, 1], 0).into())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    runtime.spawn(serve::serve(listener, Arc::new(served), std::future::pending()));
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| write(store, now, &stop, &written));
        println!("\n{name}:\n{}", ask(port));
        stop.store(true, Ordering::Release);
    });
    println!("buckets merged meanwhile: {} a second", written.load(Ordering::Relaxed) / u64::from(SECONDS));
}

/// What `wrk` says of the last hour of one ad after another.
fn ask(port: u16) -> String {
    let dir = tempfile::tempdir().expect("folder");
    let script = dir.path().join("ads.lua");
    let text = format!(
        "local n = 0\nrequest = function()\n  n = n + 1\n\
         \x20 return wrk.format(\"GET\", \"/v1/stats?window=1m&ad_id=\" .. (n * 7919 % {ADS}))\nend\n"
    );
    std::fs::write(&script, text).expect("script");
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c64", "--latency", &format!("-d{SECONDS}s"), "-s"]).arg(&script);
    let output = wrk.arg(format!("http://127.0.0.1:{port}")).output().expect("wrk");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// New revisions of the open minute, as long as it is asked.
fn write(store: &Store, now: u32, stop: &AtomicBool, written: &AtomicU64) {
    let countries = COUNTRIES.len() as u64;
    let mut revision = 2;
    while !stop.load(Ordering::Acquire) {
        let began = Instant::now();
        let node = 1 + (revision % u64::from(NODES)) as u32;
        let of = |n: u64| bucket(node, revision, n / countries, now - 1, COUNTRIES[(n % countries) as usize]);
        take(store, (0..WRITE.0).map(of));
        written.fetch_add(WRITE.0, Ordering::Relaxed);
        revision += 1;
        std::thread::sleep(WRITE.1.saturating_sub(began.elapsed()));
    }
}
