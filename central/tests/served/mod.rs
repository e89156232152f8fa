//! A store filled with what nodes say, and the routes that answer from it: no socket, no Kafka.
#![allow(dead_code, reason = "each test takes the part it needs")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use datasketches::theta::ThetaSketchBuilder;
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;
use weir_central::alert::series::{Series, Window};
use weir_central::archive::contents::Catalog;
use weir_central::archive::place::Place;
use weir_central::campaigns::Known;
use weir_central::clickhouse;
use weir_central::config::{Alerts, Serve};
use weir_central::merge::Changes;
use weir_central::merger::Seen;
use weir_central::record::{Life, Revision, Told, Word};
use weir_central::serve::access::Access;
use weir_central::serve::cache::Answers;
use weir_central::serve::{Counted, Served, router};
use weir_central::store::Store;
use weir_central::users::Users;
use weir_central::watermark::{Offsets, Watermarks};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{Incarnation, NodeId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::byteorder::little_endian::{U32, U64};

/// 2026-11-23T00:00:00Z.
pub(crate) const DAY: u32 = 29_923_200;

pub(crate) struct Central {
    _dir: tempfile::TempDir,
    store: Store,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) router: Router,
}

pub(crate) fn life(node: u32) -> Life {
    Life { node: NodeId(node), incarnation: Incarnation(u64::from(node) * 100) }
}

/// What a test says of one bucket.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    pub(crate) node: u32,
    pub(crate) revision: u64,
    pub(crate) ad: u64,
    pub(crate) minute: u32,
    pub(crate) country: [u8; 2],
    pub(crate) accepted: u64,
}

impl Said {
    pub(crate) const fn new(ad: u64, minute: u32, accepted: u64) -> Self {
        Self { node: 1, revision: 1, ad, minute, country: *b"PL", accepted }
    }

    pub(crate) fn word(self) -> Word {
        let key = BucketKey {
            ad: U64::new(self.ad),
            minute: U32::new(self.minute),
            country: self.country,
            ..BucketKey::default()
        };
        let count = |count: u64| U64::new(count);
        let mut totals = BucketTotals {
            accepted: count(self.accepted),
            repeat: count(1),
            unsigned: count(1),
            cost_micros: count((self.accepted - 1) * 500),
            ..BucketTotals::default()
        };
        totals.filtered[1] = count(2);
        Word::Bucket { life: life(self.node), revision: Revision(self.revision), key, totals }
    }
}

pub(crate) fn sketch(node: u32, ad: u64, minute: u32, users: std::ops::Range<u64>) -> Word {
    let mut sketch = ThetaSketchBuilder::default().lg_k(12).build().unwrap();
    users.for_each(|user| sketch.update(user));
    let users = Users::read(&sketch.compact(true).serialize()).unwrap();
    Word::Sketch { life: life(node), revision: Revision(1), ad, minute: Minute(minute), users }
}

impl Central {
    pub(crate) fn new(config: &Serve) -> Self {
        Self::with(config, true)
    }

    /// One with an empty archive, and so one that learns and watches campaigns; or none.
    pub(crate) fn with(config: &Serve, has_archive: bool) -> Self {
        let archive = has_archive.then(|| Place::of(Arc::new(InMemory::new())));
        Self::over(config, archive)
    }

    /// One with this archive.
    pub(crate) fn over(config: &Serve, archive: Option<Place>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (seen, shown) = watch::channel(Seen::default());
        let inserted = clickhouse::Counters { counted_until_ms: 1.into(), ..Default::default() };
        let served = Served {
            store: store.clone(),
            seen: shown,
            counted: Counted { inserted: Arc::new(inserted), ..Counted::default() },
            has_alerts: archive.is_some(),
            archive: archive.map(Catalog::of),
            answers: Answers::new(1 << 20),
            access: Access::of(config).unwrap(),
        };
        Self { _dir: dir, store, seen, router: router(Arc::new(served)) }
    }

    /// These ads are of this campaign.
    pub(crate) fn assign(&self, campaign: u32, ads: &[u64]) {
        for ad in ads {
            self.store.assign(*ad, None, Known { campaign, is_signed: true, since_ms: 1 }).unwrap();
        }
    }

    /// A campaign that had far too many clicks once, and has them again.
    pub(crate) fn had_an_alert(&self, campaign: u32) {
        let limits = Alerts { least_windows: 2, ..Alerts::default() }.limits();
        let mut series = Series::default();
        let mut happened = Vec::new();
        for (number, clicks) in [100, 100, 900, 100, 100, 100, 5000].into_iter().enumerate() {
            let window = Window { start: Minute(DAY + 5 * number as u32), clicks };
            happened.extend(series.judge(campaign, window, &limits));
            happened.extend(series.settle(window, &limits));
        }
        self.store.note_alerts(&happened, &[], Minute(DAY + 35)).unwrap();
    }

    pub(crate) fn take(&self, words: impl IntoIterator<Item = Word>) {
        let mut changes = Changes::default();
        words.into_iter().for_each(|word| changes.take(&self.store, word).unwrap());
        self.store.apply(&changes, &[], &Offsets::new(), &[]).unwrap();
    }

    /// Each of these nodes is final before this minute, and counted until five minutes later.
    pub(crate) fn is_final_before(&self, nodes: &[(u32, u32)]) {
        let mut marks = Watermarks::default();
        for (node, minute) in nodes {
            let counted_until = Some(UnixMs(u64::from(*minute + 5) * 60_000));
            let told = Told { final_before: Minute(*minute), counted_until, ..Told::default() };
            marks.tell(life(*node), told);
        }
        assert!(marks.asks());
        marks.ends(Some(Offsets::new()));
        marks.read_to(&Offsets::new());
        self.seen.send_modify(|seen| seen.progress = marks.progress(&[]));
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// Why a value is not as a schema of the document has it.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
    let validator = validator.unwrap_or_else(|error| panic!("{error}: {schema}"));
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}
