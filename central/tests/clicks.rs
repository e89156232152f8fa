//! One click by its impression: from archived blocks to what an auditor is told.

mod archived;
mod served;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use archived::{LIMITS, NOW_MS, offsets, record_of};
use axum::body::Body;
use axum::http::Request;
use futures_util::stream::BoxStream;
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::{Value, json};
use served::{Central, faults};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;
use weir_central::archive::audit::Since;
use weir_central::archive::manifest::{Entry, Hour, ObjectEntry};
use weir_central::archive::place::Place;
use weir_central::archive::{Archiver, Counters, Limits, impression};
use weir_central::config::{Key, Serve};
use weir_central::kafka::Delivered;
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::row::Row;
use weir_common::wire::{Click, click_flags};
use zerocopy::FromZeros;

const HOUR_MS: u64 = 3_600_000;

/// An impression that was made at 09:30, like the first clicks.
fn issued(sequence: u64) -> ImpressionId {
    ImpressionId::issued(Issuer(7), KeyId(3), (NOW_MS / 1000) as u32, sequence)
}

/// A click on it with all that is of a user.
fn row(impression: ImpressionId, received_at_ms: u64) -> (Row, Vec<u8>) {
    let click = Click {
        impression,
        ad: (u64::MAX - 4).into(),
        price_micros: 250_000.into(),
        campaign: 3.into(),
        creative: 4.into(),
        placement: 5.into(),
        publisher: 6.into(),
        tag: 0x7777_7777_7777_7777.into(),
        user_key: 7_654_321_987.into(),
        clicked_at_ms: (received_at_ms - 150).into(),
        latitude_e6: 52_229_675.into(),
        longitude_e6: 21_012_228.into(),
        x: 4711.into(),
        y: 4712.into(),
        country: *b"PL",
        device: 2,
        os: 1,
        extension_len: 6.into(),
        ..Click::new_zeroed()
    };
    let minute = ((received_at_ms / 60_000) as u32).into();
    let row = Row {
        received_at_ms: received_at_ms.into(),
        minute,
        outcome: 0,
        reason: 0,
        flags: 0,
        traffic: 0,
        click,
    };
    (row, b"secret".to_vec())
}

/// Archives batches of these records.
fn archive(store: &Arc<InMemory>, batches: &[&[Delivered]]) {
    let (dir, counters, go) = (tempfile::tempdir().unwrap(), Counters::default(), AtomicBool::new(false));
    let (store, limits) = (Arc::clone(store), Limits { object_bytes: 1 << 30, ..LIMITS });
    let records: Vec<Vec<Delivered>> = batches.iter().map(|records| records.to_vec()).collect();
    let work = move || {
        let place = Place::of(store);
        let mut archiver = Archiver::open(place, dir.path(), limits, (&counters, &go)).unwrap();
        for records in &records {
            records.iter().for_each(|record| archiver.take(record).unwrap());
            archiver.close(&offsets(records.len() as i64)).unwrap();
        }
    };
    // It has a runtime of its own.
    std::thread::spawn(work).join().unwrap();
}

/// A tier with these keys: a name that is `audit` may look at clicks.
fn tier(names: &[&str], place: Option<Place>) -> Central {
    log();
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &&str| {
        let file = dir.path().join(name);
        std::fs::write(&file, key(name)).unwrap();
        Key { name: (*name).to_owned(), file, requests_per_s: None, audit: *name == "audit" }
    };
    let keys = names.iter().map(key).collect();
    Central::over(&Serve { keys, ..Serve::default() }, place)
}

fn key(name: &str) -> String {
    name.repeat(40).chars().take(40).collect()
}

async fn ask(central: &Central, name: &str, path: &str) -> (u16, String) {
    let request = Request::get(path).header("authorization", format!("Bearer {}", key(name)));
    let response = central.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn told(central: &Central, path: &str) -> Value {
    let (status, body) = ask(central, "audit", path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn url(id: ImpressionId) -> String {
    format!("/v1/clicks/{}", impression::text(id))
}

#[tokio::test]
async fn an_impression_is_told_with_every_click_of_every_node_and_nothing_of_its_user() {
    let store = Arc::new(InMemory::new());
    let others = |n: u64| (0..20).map(|m| row(issued(1000 + n * 100 + m), NOW_MS)).collect::<Vec<_>>();
    let mut first = others(1);
    first.insert(3, row(issued(42), NOW_MS + 250));
    let (mut second, extension) = row(issued(42), NOW_MS + 20 * HOUR_MS);
    (second.outcome, second.reason, second.traffic, second.flags) = (4, 129, 0b110, 4);
    (second.click.ordinal, second.click.country, second.click.flags) = (1, [0, 0], click_flags::FOREIGN);
    let mut later = others(2);
    later.push((second, extension));
    archive(&store, &[&[record_of((1, 1), 5, &first)], &[record_of((u64::MAX, 2), 6, &later)]]);

    let central = tier(&["audit"], Some(Place::of(store)));
    let (_, text) = ask(&central, "audit", &url(issued(42))).await;
    for secret in ["7654321987", "522296", "210122", "4711", "4712", "secret", "7777777", "8608480567"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let answer = told(&central, &url(issued(42))).await;
    let document = central.json("/openapi.json").await;
    assert_eq!(faults(&document, &json!({"$ref": "#/components/schemas/ClicksAnswer"}), &answer), [""; 0]);
    assert_eq!(
        answer["clicks"][0],
        json!({
            "received_at": "2026-11-23T09:30:00.25Z", "clicked_at": "2026-11-23T09:30:00.1Z",
            "minute": "2026-11-23T09:30:00Z", "node": 1, "incarnation": "0000000000000001", "epoch": 2, "worker": 0,
            "sequence": 5, "row": 3, "ordinal": 0, "outcome": "accepted", "reason": null, "traffic": [],
            "signed": true, "marked": false, "ad_id": "18446744073709551611", "campaign_id": 3, "creative_id": 4,
            "placement_id": 5, "publisher_id": 6, "price_micros": 250_000, "country": "PL", "device": 2, "os": 1,
            "object": "year=2026/month=11/day=23/hour=09/0000000000000001-2-0-5.parquet",
        })
    );
    let second = &answer["clicks"][1];
    assert_eq!((&second["node"], &second["incarnation"]), (&json!(2), &json!("ffffffffffffffff")));
    assert_eq!((&second["outcome"], &second["ordinal"]), (&json!("filtered"), &json!(1)));
    assert_eq!((&second["signed"], &second["marked"]), (&json!(false), &json!(true)));
    assert_eq!(second["country"], Value::Null);
    assert_eq!((answer["clicks"].as_array().unwrap().len(), &answer["more"]), (2, &json!(false)));
    // As a UUID, and in capitals, it is the same.
    let digits = impression::text(issued(42)).to_uppercase();
    let uuid = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
    assert_eq!(told(&central, &format!("/v1/clicks/{uuid}")).await, answer);
}

#[tokio::test]
async fn a_foreign_id_is_found_in_the_hours_that_are_said() {
    let store = Arc::new(InMemory::new());
    let id = ImpressionId(*b"whatever it says");
    archive(&store, &[&[record_of((1, 1), 5, &[row(id, NOW_MS)])]]);
    let central = tier(&["audit"], Some(Place::of(store)));
    let clicks = async |range: &str| {
        let answer = told(&central, &format!("{}{range}", url(id))).await;
        (answer["clicks"].as_array().unwrap().len(), answer["searched"].clone())
    };
    let searched = json!({"start": "2026-11-23T09:00:00Z", "end": "2026-11-23T10:00:00Z", "objects": 1});
    assert_eq!(clicks("?start=2026-11-23T09:59:00Z&end=2026-11-23T10:00:00Z").await, (1, searched));
    assert_eq!(clicks("?start=2026-11-23T10:00:00Z&end=2026-11-23T11:00:00Z").await.0, 0);
    assert_eq!(clicks("").await.0, 0, "it is of no time, and nothing is searched that nobody asked for");
}

#[tokio::test]
async fn an_answer_says_until_when_the_archive_is_whole_and_what_comes_later_is_found_then() {
    let store = Arc::new(InMemory::new());
    let (place, central) = (
        Place::of(Arc::clone(&store) as Arc<dyn ObjectStore>),
        tier(&["audit"], Some(Place::of(Arc::clone(&store) as _))),
    );
    let answer = told(&central, &url(issued(42))).await;
    assert_eq!(answer["archive"], json!({"batches": 0, "archived_until": null}));
    archive(&store, &[&[record_of((1, 1), 5, &[row(issued(42), NOW_MS)])]]);
    let entry = Entry { batch: 1, read_until_ms: Some(NOW_MS), ..Entry::default() };
    place.put(&Entry::path(1), serde_json::to_vec(&entry).unwrap()).await.unwrap();
    let answer = told(&central, &url(issued(42))).await;
    assert_eq!(answer["archive"], json!({"batches": 2, "archived_until": "2026-11-23T09:30:00Z"}));
    assert_eq!(answer["clicks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_would_take_too_many_objects_is_refused() {
    let place = Place::of(Arc::new(InMemory::new()));
    let object = |n: u64| ObjectEntry {
        path: format!("{n}.parquet"),
        hour: Hour::of(NOW_MS),
        rows: 1,
        bytes: 1,
        crc32c: 0,
        since: Since::Whole,
    };
    let entry = Entry { objects: (0..1001).map(object).collect(), ..Entry::default() };
    place.put(&Entry::path(0), serde_json::to_vec(&entry).unwrap()).await.unwrap();
    let central = tier(&["audit"], Some(place));
    let (status, why) = ask(&central, "audit", &url(issued(42))).await;
    assert!(status == 400 && why.contains("1001 objects") && why.contains("start and end"), "{status} {why}");
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The log of all tests here: one that only this test's thread had would miss what another thread met first.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).init();
        log
    })
}

#[tokio::test]
async fn only_a_key_for_audits_is_told_a_click_and_who_asked_for_which_is_written_down() {
    let place = || Some(Place::of(Arc::new(InMemory::new())));
    // No other test asks for this one.
    let (id, url) = (impression::text(issued(77)), url(issued(77)));
    let asked = async |names: &[&str], name: &str| ask(&tier(names, place()), name, &url).await.0;
    assert_eq!(asked(&[], "").await, 401, "where nobody needs a key, nobody is told a click");
    assert_eq!(asked(&["finance"], "finance").await, 403);
    assert_eq!(asked(&["finance", "audit"], "nobody").await, 401);
    assert_eq!(ask(&tier(&["audit"], None), "audit", &url).await.0, 404, "there is no archive");
    let line = format!("a click is looked up key=audit impression={id}");
    let text = || String::from_utf8(log().0.lock().unwrap().clone()).unwrap();
    assert!(!text().contains(&line));
    assert_eq!(asked(&["finance", "audit"], "audit").await, 200);
    assert!(text().contains(&line), "{}", text());
    assert_eq!(text().matches(&format!("a click is not looked up path=\"/v1/clicks/{id}")).count(), 3);
}

/// A store in memory that counts what is read of it.
#[derive(Debug)]
struct Counting {
    inner: Arc<InMemory>,
    bytes: Arc<AtomicU64>,
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counting({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let found = self.inner.get_opts(at, options).await?;
        self.bytes.fetch_add(found.range.end - found.range.start, Ordering::Relaxed);
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A number that looks like any other (SplitMix64).
const fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[tokio::test]
async fn of_a_large_object_a_look_up_reads_footer_filters_and_the_columns_of_one_group() {
    let store = Arc::new(InMemory::new());
    // Three groups; ids as of many ad servers, so that no group's least and greatest tell them apart.
    let blocks = (0..30_u64).map(|block| {
        let rows: Vec<_> = (0..10_000)
            .map(|n| {
                let of = (block * 10_000 + n) * 4;
                let id = ImpressionId::issued(
                    Issuer(mixed(of) as u16),
                    KeyId(1),
                    (NOW_MS / 1000) as u32,
                    mixed(of + 1),
                );
                let (mut row, _) = row(if (block, n) == (15, 7) { issued(42) } else { id }, NOW_MS + n);
                (row.click.tag, row.click.user_key) = (mixed(of + 2).into(), mixed(of + 3).into());
                row.click.extension_len = 0.into();
                (row, Vec::new())
            })
            .collect();
        record_of((1, 1), block, &rows)
    });
    archive(&store, &[&blocks.collect::<Vec<_>>()]);
    let read = Arc::new(AtomicU64::new(0));
    let counting = Counting { inner: Arc::clone(&store), bytes: Arc::clone(&read) };
    let central = tier(&["audit"], Some(Place::of(Arc::new(counting))));
    let answer = told(&central, &url(issued(42))).await;
    assert_eq!(answer["clicks"].as_array().unwrap().len(), 1);
    let path = ObjectPath::from(answer["clicks"][0]["object"].as_str().unwrap());
    let object = object_store::ObjectStoreExt::head(&*store, &path).await.unwrap().size;
    let found = read.swap(0, Ordering::Relaxed);
    assert!(found < object / 2, "{found} of {object} octets");
    // One that is not there: filters alone.
    assert_eq!(told(&central, &url(issued(43))).await["clicks"], json!([]));
    let missed = read.load(Ordering::Relaxed);
    assert!(missed < object / 10, "{missed} of {object} octets");
}
