//! An archive in a folder, from which what is of a user goes, and then everything: by whose word, and never too early.

mod archived;
mod kept;
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use archived::{NOW_MS, block_on};
use axum::body::Body;
use axum::http::Request;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, future, stream};
use http_body_util::BodyExt;
use kept::{
    CLICKS, DAY_MS, HOUR_MS, archive, counted, day, engine_finds, issued, lines, objects, on, place, policy,
    reconciled, recounted, retain, states, three_days,
};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::{Value, json};
use served::{Central, faults};
use tower::ServiceExt;
use weir_central::archive::audit::{Act, Line, Since};
use weir_central::archive::day::Day;
use weir_central::archive::impression;
use weir_central::archive::place::Place;
use weir_central::archive::read::{Object, Values};
use weir_central::config::{Key, Serve};
use weir_central::reconcile::ReconcileError;
use weir_central::retention::plan::{Archive, Why};
use weir_central::retention::thin::OF_A_USER;
use weir_central::retention::{Actor, Keeper, RetentionError};

#[test]
fn a_thinned_day_comes_to_the_same_counts_and_has_nothing_of_a_user_left() {
    let dir = three_days();
    let (before, names) = (recounted(dir.path(), day(0)).unwrap(), engine_finds(dir.path()));
    assert!(before.clicks_by_cause.values().sum::<u64>() > 0, "clicks of an impression came to both nodes");
    let sizes: u64 = objects(dir.path()).iter().map(|object| object.bytes).sum();
    assert_eq!(retain(place(dir.path()), day(9), policy(7, 30)).unwrap(), []);
    assert_eq!([0, 1, 2].map(|n| states(dir.path(), day(n))[0]), ["thinned", "thinned", "whole"]);
    assert_eq!(recounted(dir.path(), day(0)).unwrap(), before);
    assert!(objects(dir.path()).iter().map(|object| object.bytes).sum::<u64>() < sizes);
    let after = engine_finds(dir.path());
    assert!(after.keys().eq(names.keys()), "the same names and no other: {after:?}");
    for object in objects(dir.path()) {
        let octets = block_on(place(dir.path()).get(&object.path)).unwrap();
        assert!(object.is(&octets) && octets.len() as u64 == object.bytes, "{}", object.path);
        let read = Object::of(octets).unwrap();
        let is_thinned = object.since == Since::Thinned;
        for name in OF_A_USER {
            let [values] = read.columns(0, [name]).unwrap();
            let is_nothing = match &values {
                Values::Ints(values) => values.iter().all(|value| *value == 0),
                Values::Longs(values) => values.iter().all(|value| *value == 0),
                Values::Octets(values) => values.iter().all(|value| value.data().is_empty()),
            };
            assert_eq!(is_nothing, is_thinned, "{name} of {}", object.path);
        }
        let [flags, device, rows, tag] = read.columns(0, ["click_flags", "device", "row", "tag"]).unwrap();
        assert_eq!(flags.ints()[0], if is_thinned { 0 } else { 24 }, "nobody takes 0 for a place");
        assert_eq!((device.ints()[0], tag.longs()[0]), (2, 0x7777_7777_7777_7777));
        assert_eq!(rows.longs().len() as u64, object.rows);
    }
}

#[test]
fn a_day_goes_when_it_is_due_and_leaves_a_line_before_and_one_after() {
    let dir = three_days();
    let last = block_on(place(dir.path()).manifest()).unwrap().len();
    for (today, expected) in [
        (7, ["whole", "whole", "whole"]),
        (8, ["thinned", "whole", "whole"]),
        (31, ["deleted", "thinned", "thinned"]),
        (33, ["deleted", "deleted", "deleted"]),
    ] {
        assert_eq!(retain(place(dir.path()), day(today), policy(7, 30)).unwrap(), []);
        assert_eq!([0, 1, 2].map(|n| states(dir.path(), day(n))[1]), expected, "on day {today}");
    }
    assert_eq!(engine_finds(dir.path()).len(), 0);
    let lines = lines(dir.path());
    let what = |line: &Line| match &line.act {
        Act::Thinning { .. } => "thinning",
        Act::Thinned(_) => "thinned",
        Act::Deleting { .. } => "deleting",
        Act::Deleted(_) => "deleted",
        _ => "another",
    };
    let acts: Vec<_> = lines.chunks(2).map(|pair| [what(&pair[0]), what(&pair[1])]).collect();
    let (thin, delete) = (["thinning", "thinned"], ["deleting", "deleted"]);
    assert_eq!(acts, [thin, delete, thin, thin, delete, delete]);
    let (begun, ended) = (&lines[0], &lines[1]);
    assert_eq!((begun.by.as_str(), begun.reason.as_str()), ("ann", "policy: full_days = 7"));
    assert_eq!(begun.at_ms, day(8).0 * DAY_MS + 12 * HOUR_MS);
    let (of, objects) = begun.intent().unwrap();
    let end = ended.end().unwrap();
    assert_eq!((of, end.of, end.objects.as_slice()), (day(0), 0, objects));
    assert_eq!(objects.iter().map(|change| change.before.rows).sum::<u64>(), CLICKS);
    // The archiver goes on where it was.
    assert_eq!(block_on(place(dir.path()).manifest()).unwrap().len(), last);
    archive(dir.path(), &[day(40)]);
    assert_eq!(states(dir.path(), day(40)), ["whole", "whole"]);
}

#[test]
fn what_was_not_reconciled_with_all_that_is_there_of_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    archive(dir.path(), &[day(0), day(1), day(2)]);
    let kept =
        |days: &[u64]| -> Vec<_> { days.iter().map(|n| (day(*n), Why::NotReconciled(day(*n)))).collect() };
    let thin = |dir: &tempfile::TempDir| retain(place(dir.path()), day(99), policy(7, 0)).unwrap();
    assert_eq!(thin(&dir), kept(&[0, 1, 2]));
    // Nor what left counts that nothing explains.
    let report = br#"{"batches": 9, "unexplained_total": 1}"#.to_vec();
    let path = format!("_reconciled/{}/recorded-000000000009.json", day(2));
    block_on(place(dir.path()).put(&path, report)).unwrap();
    reconciled(dir.path(), [day(0), day(1)]);
    assert_eq!(thin(&dir), kept(&[2]));
    // More of it came afterwards.
    archive(dir.path(), &[day(1)]);
    assert_eq!(thin(&dir), kept(&[1, 2]));
    assert_eq!(states(dir.path(), day(1)), ["thinned", "thinned", "whole", "whole"]);
    // A day is counted with the days beside it, so all three have to be done before one is deleted.
    let delete = |dir: &tempfile::TempDir| retain(place(dir.path()), day(99), policy(0, 30)).unwrap();
    let why = |n: u64, of: u64| (day(n), Why::NotReconciled(day(of)));
    assert_eq!(delete(&dir), [why(0, 1), why(1, 0), why(2, 1)], "a count of day 1 reads what came on day 0");
    assert!(states(dir.path(), day(0)).iter().all(|state| *state == "thinned"));
    std::fs::remove_file(dir.path().join(&path)).unwrap();
    // What was billed was reconciled.
    reconciled(dir.path(), [day(0), day(1)]);
    let billed = format!("_billed/{}/recorded-000000000009.json", day(2));
    block_on(place(dir.path()).put(&billed, br#"{"batches": 9, "unexplained_total": 0}"#.to_vec())).unwrap();
    assert_eq!(delete(&dir), []);
    assert_eq!(engine_finds(dir.path()).len(), 0);
    // What comes of a deleted day nobody can count again: it stays until somebody says so.
    archive(dir.path(), &[day(0)]);
    assert_eq!(delete(&dir), [(day(0), Why::Late)]);
    on(place(dir.path()), day(99), async |keeper| keeper.forget(day(0)..day(1), "late").await).unwrap();
    assert_eq!(engine_finds(dir.path()).len(), 0);
}

#[test]
fn what_is_held_and_the_days_beside_it_stay_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let days = || (0..5).map(day);
    archive(dir.path(), &days().collect::<Vec<_>>());
    reconciled(dir.path(), days());
    let at = |today: u64| (place(dir.path()), day(today));
    let hold = || {
        let (place, today) = at(50);
        on(place, today, async |keeper| keeper.hold("case 7", day(1)..day(2), "a court").await)
    };
    hold().unwrap();
    assert!(matches!(hold(), Err(RetentionError::Held(_))), "one name, one hold");
    let held = |n| (day(n), Why::Held("case 7".to_owned()));
    let kept = retain(place(dir.path()), day(99), policy(7, 30)).unwrap();
    assert_eq!(kept, [held(0), held(1), held(2)]);
    assert_eq!(
        (0..5).map(|n| states(dir.path(), day(n))[0]).collect::<Vec<_>>(),
        ["whole", "whole", "whole", "deleted", "deleted"]
    );
    let (folder, today) = at(99);
    let forget = on(folder, today, async |keeper| keeper.forget(day(0)..day(1), "please").await);
    let refused = forget.unwrap_err().to_string();
    assert!(refused.contains("held by \"case 7\""), "{refused}");
    assert!(
        matches!(lines(dir.path()).last().unwrap().act, Act::Refused { .. }),
        "who wanted it is written down"
    );
    let holds = on(place(dir.path()), day(99), async |keeper| keeper.holds().await).unwrap();
    assert_eq!((holds.len(), holds[0].by.as_str(), holds[0].reason.as_str()), (1, "ann", "a court"));
    let release = || {
        let (place, today) = at(99);
        on(place, today, async |keeper| keeper.release("case 7", "it is over").await)
    };
    release().unwrap();
    assert!(matches!(release(), Err(RetentionError::NoHold(_))));
    assert_eq!(retain(place(dir.path()), day(99), policy(7, 30)).unwrap(), []);
    assert_eq!(engine_finds(dir.path()).len(), 0);
}

#[test]
fn days_are_deleted_by_hand_where_nothing_forbids_it() {
    let dir = three_days();
    let forget = |today: u64, days: std::ops::Range<u64>| {
        let range = day(days.start)..day(days.end);
        on(place(dir.path()), day(today), async |keeper| keeper.forget(range, "asked for").await)
    };
    let why = |today, days| forget(today, days).unwrap_err().to_string();
    assert!(why(3, 2..3).contains("may still come"));
    assert!(why(9, 3..9).contains("nothing of these days"));
    archive(dir.path(), &[day(3)]);
    assert!(
        why(9, 2..3).contains(&format!("{} has not been reconciled", day(3))),
        "a count of day 3 reads day 2"
    );
    forget(9, 0..2).unwrap();
    assert_eq!(
        (0..4).map(|n| states(dir.path(), day(n))[0]).collect::<Vec<_>>(),
        ["deleted", "deleted", "whole", "whole"]
    );
    let deletion = objects(dir.path())[0].deletion().unwrap().clone();
    assert_eq!(deletion.reason, "asked for");
    assert_eq!(lines(dir.path()).iter().filter(|line| matches!(line.act, Act::Refused { .. })).count(), 3);
}

/// A folder of one that dies: from some write on it takes nothing more.
#[derive(Debug)]
struct Dying {
    inner: LocalFileSystem,
    left: AtomicU32,
}

impl std::fmt::Display for Dying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dying({})", self.inner)
    }
}

impl Dying {
    fn place(folder: &Path, writes: u32) -> Place {
        let inner = LocalFileSystem::new_with_prefix(folder).unwrap();
        Place::of(Arc::new(Self { inner, left: AtomicU32::new(writes) }))
    }

    fn lives(&self) -> Result<()> {
        let left = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| Error::Generic { store: "dying", source: "dead".into() }).map(|_| ())
    }
}

#[async_trait::async_trait]
impl ObjectStore for Dying {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.lives()?;
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.lives()?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        match self.lives() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => stream::once(future::ready(Err(error))).boxed(),
        }
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

#[test]
fn cut_off_after_any_write_the_next_run_ends_in_the_same_archive() {
    // One day is deleted, two are thinned.
    let (today, policy) = (day(31), policy(7, 30));
    let whole = three_days();
    retain(place(whole.path()), today, policy).unwrap();
    let expected = engine_finds(whole.path());
    let counts = recounted(whole.path(), day(2)).unwrap();
    let mut is_cut = true;
    let mut writes = 0;
    while is_cut {
        let dir = three_days();
        is_cut = retain(Dying::place(dir.path(), writes), today, policy).is_err();
        // Whoever reads the folder by its names finds each object once, as it was or as it is to be.
        let before = engine_finds(three_days().path());
        for (name, crc) in engine_finds(dir.path()) {
            let is_one = before.get(&name) == Some(&crc) || expected.get(&name) == Some(&crc);
            assert!(is_one, "{name} after {writes} writes");
        }
        // Whoever reads by manifest and audit is right, too.
        assert_eq!(recounted(dir.path(), day(2)).unwrap(), counts, "after {writes} writes");
        retain(place(dir.path()), today, policy).unwrap();
        assert_eq!(engine_finds(dir.path()), expected, "after {writes} writes");
        assert_eq!([0, 1, 2].map(|n| states(dir.path(), day(n))[1]), ["deleted", "thinned", "thinned"]);
        let lines = lines(dir.path());
        let ended: Vec<_> = lines.iter().filter_map(|line| Some(line.end()?.of)).collect();
        let begun: Vec<_> =
            lines.iter().filter(|line| line.intent().is_some()).map(|line| line.number).collect();
        assert_eq!(
            (begun, lines.len()),
            (ended, 6),
            "each that was begun is ended once, after {writes} writes"
        );
        writes += 1;
    }
    assert_eq!(writes, 13, "three lines before, three after, two objects of each of three days");
}

#[test]
fn a_hold_that_meets_something_in_the_middle_stops_it_there() {
    for (writes, deleted) in [(1, 0), (2, 1), (3, 2)] {
        let dir = three_days();
        let delete = || policy(0, 30);
        retain(Dying::place(dir.path(), writes), day(31), delete()).unwrap_err();
        assert_eq!(
            states(dir.path(), day(0)),
            ["deleted", "deleted"],
            "gone for readers from the first line on"
        );
        on(place(dir.path()), day(31), async |keeper| keeper.hold("h", day(0)..day(1), "a court").await)
            .unwrap();
        let held = vec![(day(0), Why::Held("h".to_owned()))];
        let kept = retain(place(dir.path()), day(31), delete()).unwrap();
        assert_eq!(kept, if deleted == 2 { vec![] } else { held });
        let left = states(dir.path(), day(0)).iter().filter(|state| **state == "whole").count();
        assert_eq!(left, 2 - deleted, "after {writes} writes");
        assert_eq!(engine_finds(dir.path()).len(), 6 - deleted);
        let Act::Stopped(ended) = lines(dir.path()).last().unwrap().act.clone() else { panic!("stopped") };
        assert_eq!(ended.objects.len(), deleted);
    }
}

#[test]
fn of_many_who_write_at_once_each_has_a_line_and_a_hold_is_one() {
    let dir = three_days();
    let now = || NOW_MS;
    let (folder, now): (_, &dyn Fn() -> u64) = (place(dir.path()), &now);
    let names: Vec<_> = (0..8).map(|n| format!("h{}", n / 2)).collect();
    let hold = |name: &String| {
        let (folder, name) = (folder.clone(), name.clone());
        async move {
            let keeper = Keeper::of(folder, Actor { by: &name, now_ms: now });
            keeper.hold(&name, day(0)..day(1), "").await
        }
    };
    let done = block_on(future::join_all(names.iter().map(hold)));
    // Two that say the very same at the same moment are one, too.
    assert!(done.iter().all(|done| matches!(done, Ok(()) | Err(RetentionError::Held(_)))), "{done:?}");
    let (lines, holds) = (
        lines(dir.path()),
        block_on(async { Keeper::of(folder, Actor { by: "", now_ms: now }).holds().await }),
    );
    assert_eq!((lines.len(), holds.unwrap().len()), (4, 4));
    assert!(lines.iter().enumerate().all(|(n, line)| line.number == n as u64));
}

#[test]
fn two_who_apply_the_policy_at_once_do_each_thing_once() {
    let dir = three_days();
    let now = || day(31).0 * DAY_MS;
    let keeper = |by| Keeper::of(place(dir.path()), Actor { by, now_ms: &now });
    let (ann, bob) = (keeper("ann"), keeper("bob"));
    let policy = policy(7, 30);
    let (one, other) = block_on(future::join(ann.retain(&policy), bob.retain(&policy)));
    assert_eq!((one.unwrap().steps, other.unwrap().steps), (vec![], vec![]));
    let whole = three_days();
    retain(place(whole.path()), day(31), policy).unwrap();
    assert_eq!(engine_finds(dir.path()), engine_finds(whole.path()));
    let ended: BTreeSet<_> = lines(dir.path()).iter().filter_map(|line| Some(line.end()?.of)).collect();
    assert_eq!((ended.len(), lines(dir.path()).len()), (3, 6));
}

#[test]
fn a_day_that_was_deleted_is_not_counted_again_and_one_beside_it_is_not_either() {
    let dir = three_days();
    retain(place(dir.path()), day(31), policy(7, 30)).unwrap();
    for n in [0, 1] {
        let why = recounted(dir.path(), day(n)).unwrap_err().to_string();
        let said = format!("of what was received on {} something was deleted on {}", day(0), day(31));
        assert!(
            why.contains(&said) && why.contains("policy: billed_days = 30") && why.contains("line 1"),
            "{why}"
        );
    }
    assert!(recounted(dir.path(), day(2)).is_ok());
    // One who read the manifest before is told the same, and one who read it before something was thinned reads it.
    let other = three_days();
    let place = place(other.path());
    let manifest = block_on(place.manifest()).unwrap();
    let before = recounted(other.path(), day(2)).unwrap();
    retain(place.clone(), day(31), policy(7, 30)).unwrap();
    let count = |n| counted(&place, &manifest, day(n));
    assert!(matches!(count(0), Err(ReconcileError::Deleted { .. })));
    assert_eq!(count(2).unwrap(), before);
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_not_mixed_with_itself() {
    let dir = three_days();
    let (place, object) = (place(dir.path()), objects(dir.path()).remove(0));
    let (_, version) = block_on(place.tail(&object.path, 100)).unwrap();
    assert_eq!(version.bytes, object.bytes);
    let ranges = [0..4, 10..20];
    assert_eq!(block_on(place.ranges(&object.path, &version, &ranges)).unwrap()[0], b"PAR1"[..]);
    retain(place.clone(), day(9), policy(7, 0)).unwrap();
    let error = block_on(place.ranges(&object.path, &version, &ranges)).unwrap_err();
    assert!(error.has_changed(), "{error}");
}

/// A tier that tells clicks of this archive.
fn tier(folder: &Path) -> Central {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "k".repeat(40)).unwrap();
    let key = Key { name: "audit".to_owned(), file, requests_per_s: None, audit: true };
    Central::over(&Serve { keys: vec![key], ..Serve::default() }, Some(place(folder)))
}

async fn ask(central: &Central, of: Day) -> (u16, Value) {
    let url = format!("/v1/clicks/{}", impression::text(issued(2, of)));
    let request = Request::get(url).header("authorization", format!("Bearer {}", "k".repeat(40)));
    let response = central.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_click_of_a_thinned_day_is_told_as_before_and_one_of_a_deleted_day_is_gone() {
    let dir = three_days();
    let central = tier(dir.path());
    let (status, before) = block_on(ask(&central, day(0)));
    assert_eq!((status, before["clicks"].as_array().unwrap().len()), (200, 2), "{before}");
    retain(place(dir.path()), day(9), policy(7, 0)).unwrap();
    assert_eq!(block_on(ask(&central, day(0))), (200, before));
    retain(place(dir.path()), day(31), policy(7, 30)).unwrap();
    let (status, why) = block_on(ask(&central, day(0)));
    assert_eq!(status, 410, "{why}");
    assert!(why["detail"].as_str().unwrap().contains("policy: billed_days = 30"), "{why}");
    let document = block_on(central.json("/openapi.json"));
    assert_eq!(faults(&document, &json!({"$ref": "#/components/schemas/Problem"}), &why), [""; 0]);
    let said = &document["paths"]["/v1/clicks/{id}"]["get"]["responses"];
    assert!(said["410"].is_object(), "{said}");
    assert_eq!(block_on(ask(&central, day(2))).0, 200);
}

#[test]
fn a_line_is_written_as_it_is_read_and_a_plan_over_nothing_is_none() {
    let dir = three_days();
    retain(place(dir.path()), day(31), policy(7, 30)).unwrap();
    let text = std::fs::read_to_string(dir.path().join("_audit/000000000000.json")).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["what"], &line["number"], &line["by"]), (&json!("deleting"), &json!(0), &json!("ann")));
    assert_eq!((&line["day"], &line["objects"][0]["after"]), (&json!(day(0).name()), &Value::Null));
    assert_eq!(serde_json::from_value::<Line>(line).unwrap(), lines(dir.path())[0]);
    let plan = Archive::of(&[], &[]).plan(&policy(1, 2), day(99), &BTreeMap::new());
    assert_eq!((plan.steps, plan.kept), (vec![], vec![]));
}
