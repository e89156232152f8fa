//! From counts to a webhook that fails: what is out of the ordinary is found once, told at least once and
//! signed, whatever is killed between. A real store and a real port; the clock is a number.

mod receiver;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use receiver::{Receiver, Says};
use weir_central::alert::outbox::Message;
use weir_central::alert::series::{Alert, Happened};
use weir_central::alert::webhook::Webhook;
use weir_central::alert::{Counters, Watch, tell};
use weir_central::campaigns::Known;
use weir_central::config::Alerts;
use weir_central::merge::Changes;
use weir_central::record::{Life, Revision, Word};
use weir_central::store::Store;
use weir_central::watermark::Offsets;
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{Incarnation, NodeId};
use weir_common::time::{Minute, UnixMs};

/// 2026-11-23T00:00:00Z, where a window of five minutes begins.
const DAY: u32 = 29_923_200;
const CAMPAIGN: u32 = 3;

const fn at(minute: u32) -> UnixMs {
    Minute(minute).start()
}

struct Lab {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Lab {
    /// A store in which ads 7 and 8 are of one campaign, and had 100 clicks in each of 20 windows before [`DAY`].
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for ad in [7, 8] {
            store.assign(ad, None, Known { campaign: CAMPAIGN, is_signed: true, since_ms: 1 }).unwrap();
        }
        let lab = Self { _dir: dir, store };
        for window in 1..=20 {
            lab.count(7, DAY - window * 5, 1, 60);
            lab.count(8, DAY - window * 5 + 4, 1, 40);
        }
        lab
    }

    /// An ad has so many clicks in a minute, says this revision: some are accepted, the others filtered.
    fn count(&self, ad: u64, minute: u32, revision: u64, clicks: u64) {
        let key = BucketKey { ad: ad.into(), minute: minute.into(), ..BucketKey::default() };
        let mut totals = BucketTotals { accepted: (clicks / 2).into(), ..BucketTotals::default() };
        totals.filtered[0] = (clicks - clicks / 2).into();
        let life = Life { node: NodeId(1), incarnation: Incarnation(9) };
        let mut changes = Changes::default();
        changes.take(&self.store, Word::Bucket { life, revision: Revision(revision), key, totals }).unwrap();
        self.store.apply(&changes, &[], &Offsets::new(), &[]).unwrap();
    }

    fn watch(&self, now: u32) -> Watch {
        let settings = Alerts::default();
        Watch::open(&self.store, settings.limits(), settings.window_minutes, at(now)).unwrap()
    }

    /// One look at what is counted, and what came of it is kept.
    fn look(&self, watch: &mut Watch, final_before: u32, now: u32) -> Vec<(Happened, Alert)> {
        let happened = watch.turn(&self.store.view(), Some(Minute(final_before)), at(now)).unwrap();
        let messages: Vec<_> =
            happened.iter().map(|(happened, alert)| Message::of(*happened, alert, at(now))).collect();
        self.store.note_alerts(&happened, &messages, watch.settled()).unwrap();
        happened
    }

    fn ids(&self) -> Vec<String> {
        self.store.messages().unwrap().into_iter().map(|message| message.id).collect()
    }
}

fn kinds(happened: &[(Happened, Alert)]) -> Vec<Happened> {
    happened.iter().map(|(happened, _)| *happened).collect()
}

#[test]
fn a_campaign_is_judged_by_all_its_ads_while_the_window_is_open_and_by_what_is_final_before() {
    let lab = Lab::new();
    let mut watch = lab.watch(DAY + 1);
    assert_eq!(lab.look(&mut watch, DAY, DAY + 1), []);
    lab.count(7, DAY, 1, 60);
    lab.count(8, DAY + 1, 1, 60);
    assert_eq!(lab.look(&mut watch, DAY, DAY + 2), []);
    // 131 clicks are more than three deviations over 100; together they have 132.
    lab.count(8, DAY + 1, 2, 72);
    let happened = lab.look(&mut watch, DAY, DAY + 2);
    assert_eq!(kinds(&happened), [Happened::Opened]);
    let found = &happened[0].1.peak;
    assert_eq!((found.clicks, found.baseline.windows, found.baseline.mean), (132, 20, 100.0));
    assert_eq!(lab.look(&mut watch, DAY, DAY + 2), [], "found once");
    lab.count(7, DAY + 2, 1, 600);
    assert_eq!(kinds(&lab.look(&mut watch, DAY, DAY + 3)), [Happened::Raised]);
    // Three windows like those before, and all of it final.
    for window in 1..=3 {
        lab.count(7, DAY + window * 5, 1, 100);
    }
    assert_eq!(lab.look(&mut watch, DAY, DAY + 19), [], "nothing is over before it is final");
    assert_eq!(kinds(&lab.look(&mut watch, DAY + 20, DAY + 30)), [Happened::Closed]);
    let id = |what| format!("{CAMPAIGN}-{DAY}-{what}");
    assert_eq!(lab.ids(), [id("closed"), id("opened"), id("raised")]);
}

#[test]
fn a_tier_that_dies_finds_no_alert_twice_and_takes_no_attack_for_the_ordinary() {
    let lab = Lab::new();
    lab.count(7, DAY, 1, 1000);
    assert_eq!(kinds(&lab.look(&mut lab.watch(DAY + 1), DAY, DAY + 1)), [Happened::Opened]);
    let mut after = lab.watch(DAY + 2);
    assert_eq!(lab.look(&mut after, DAY, DAY + 2), [], "it is open already");
    for window in 1..=3 {
        lab.count(7, DAY + window * 5, 1, 100);
    }
    assert_eq!(kinds(&lab.look(&mut after, DAY + 20, DAY + 30)), [Happened::Closed]);
    let mut after = lab.watch(DAY + 31);
    lab.count(7, DAY + 30, 1, 140);
    let happened = lab.look(&mut after, DAY + 20, DAY + 31);
    assert_eq!(kinds(&happened), [Happened::Opened]);
    assert_eq!(happened[0].1.peak.baseline.mean, 100.0, "without the windows of the alert");
}

#[test]
fn a_node_that_is_away_for_long_does_not_end_the_watch() {
    let lab = Lab::new();
    let mut watch = lab.watch(DAY);
    // Nothing is final any more, and two hours later the windows before are a baseline all the same.
    assert_eq!(lab.look(&mut watch, 0, DAY + 1), []);
    lab.count(7, DAY + 180, 1, 1000);
    assert_eq!(kinds(&lab.look(&mut watch, 0, DAY + 181)), [Happened::Opened]);
}

/// Tells until the receiver has so many requests, then stops as a signal does.
fn tell_until(store: &Store, webhook: &Webhook, receiver: &Receiver, requests: usize) -> Counters {
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let telling = scope.spawn(|| tell(store, webhook, (&counters, &stop)).unwrap());
        let has_all = receiver.wait_for(requests, Duration::from_secs(20));
        let is_empty = || store.messages().unwrap().is_empty();
        while has_all && requests > 1 && !is_empty() && !telling.is_finished() {
            std::thread::yield_now(); // the last one is being removed
        }
        stop.store(true, Ordering::Release);
        telling.join().unwrap();
        assert!(has_all, "{:?}", receiver.received());
    });
    counters
}

#[test]
fn a_webhook_that_fails_is_told_again_under_the_same_id_until_it_has_it_and_then_never_more() {
    let lab = Lab::new();
    lab.count(7, DAY, 1, 1000);
    lab.look(&mut lab.watch(DAY + 1), DAY, DAY + 1);
    let receiver = Receiver::start(&[Says::Failure, Says::Nothing, Says::Elsewhere, Says::Success]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    let text = data_encoding::BASE64.encode(&[7; 32]);
    std::fs::write(secret.path(), format!("whsec_{text}\n")).unwrap();
    let webhook = Webhook::open(&receiver.url(), secret.path()).unwrap();
    // The first run ends after a failure; the message waits in the store.
    tell_until(&lab.store, &webhook, &receiver, 1);
    assert_eq!(lab.ids().len(), 1);
    let counters = tell_until(&lab.store, &webhook, &receiver, 4);
    assert_eq!((counters.sent.into_inner(), counters.failed.into_inner()), (1, 2));
    assert_eq!(lab.ids(), [""; 0]);
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    for request in &received {
        assert_eq!(request.header("webhook-id"), format!("{CAMPAIGN}-{DAY}-opened"));
        assert_eq!(request.body, received[0].body);
        request.verify(&[7; 32]);
    }
    let body: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!((&body["type"], &body["data"]["campaign_id"]), (&"alert.opened".into(), &CAMPAIGN.into()));
    assert_eq!(body["data"]["first_window"], "2026-11-23T00:00:00Z");
}
