//! An archive of some days in a folder, and what is to be seen of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::archived::{LIMITS, NOW_MS, block_on, offsets, record_of};
use serde_json::json;
use weir_central::archive::audit::{Line, Since};
use weir_central::archive::day::Day;
use weir_central::archive::manifest::{Entry, ObjectEntry};
use weir_central::archive::place::Place;
use weir_central::archive::{Archiver, Counters};
use weir_central::reconcile::report::Report;
use weir_central::reconcile::rules::Rules;
use weir_central::reconcile::{self, ReconcileError};
use weir_central::retention::plan::{Policy, Why};
use weir_central::retention::{Actor, Keeper, RetentionError};
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::row::Row;
use weir_common::wire::{Click, click_flags};
use zerocopy::FromZeros;

pub(crate) const DAY_MS: u64 = 86_400_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// The clicks of a day.
pub(crate) const CLICKS: u64 = 20;

/// The day of the first clicks.
pub(crate) fn first() -> Day {
    Day(NOW_MS / DAY_MS)
}

pub(crate) fn day(n: u64) -> Day {
    Day(first().0 + n)
}

pub(crate) fn issued(n: u64, of: Day) -> ImpressionId {
    ImpressionId::issued(Issuer(7), KeyId(3), ((of.0 * DAY_MS + HOUR_MS) / 1000) as u32, n)
}

/// Click `n` of a day with all that is of a user: every fourth is a second one on an impression of another node.
pub(crate) fn row(n: u64, of: Day) -> (Row, Vec<u8>) {
    let received_at_ms = of.0 * DAY_MS + HOUR_MS + n * 1000;
    let click = Click {
        impression: issued(n - n % 4 / 3, of),
        ad: (5 + n % 3).into(),
        price_micros: (1000 + n).into(),
        campaign: 3.into(),
        tag: 0x7777_7777_7777_7777.into(),
        user_key: (7_654_321_000 + n).into(),
        clicked_at_ms: (received_at_ms - 150).into(),
        latitude_e6: 52_229_675.into(),
        longitude_e6: 21_012_228.into(),
        x: 4711.into(),
        y: 4712.into(),
        country: *b"PL",
        device: 2,
        os: 1,
        flags: click_flags::POSITION | click_flags::POINT,
        extension_len: 6.into(),
        ..Click::new_zeroed()
    };
    let minute = ((received_at_ms / 60_000) as u32).into();
    let received_at_ms = received_at_ms.into();
    (Row { received_at_ms, minute, outcome: 0, reason: 0, flags: 0, traffic: 0, click }, b"secret".to_vec())
}

/// Archives a batch of two blocks of each of these days: one of each node, and so an object of each.
pub(crate) fn archive(folder: &Path, days: &[Day]) {
    let (staging, counters, go) = (tempfile::tempdir().unwrap(), Counters::default(), AtomicBool::new(false));
    for node in 0..2 {
        let mut archiver = Archiver::open(place(folder), staging.path(), LIMITS, (&counters, &go)).unwrap();
        let next = archiver.offset(3).unwrap_or(0);
        for of in days {
            let rows: Vec<_> = (0..CLICKS).filter(|n| n % 2 == node).map(|n| row(n, *of)).collect();
            archiver.take(&record_of((node, node as u32), next as u64 * 1000 + of.0, &rows)).unwrap();
        }
        archiver.close(&offsets(next + days.len() as i64)).unwrap();
    }
}

pub(crate) fn place(folder: &Path) -> Place {
    Place::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap()
}

/// Says that these days were reconciled from all that is there.
pub(crate) fn reconciled(folder: &Path, days: impl IntoIterator<Item = Day>) {
    let place = place(folder);
    let batches = block_on(place.manifest()).unwrap().len();
    for day in days {
        let report = json!({"batches": batches, "unexplained_total": 0});
        let path = format!("_reconciled/{day}/recorded-{batches:012}.json");
        block_on(place.put(&path, serde_json::to_vec(&report).unwrap())).unwrap();
    }
}

/// Three days, all of them reconciled.
pub(crate) fn three_days() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    archive(dir.path(), &[day(0), day(1), day(2)]);
    reconciled(dir.path(), (0..3).map(day));
    dir
}

pub(crate) fn policy(full_days: u32, billed_days: u32) -> Policy {
    Policy { full_days: full_days.try_into().ok(), billed_days: billed_days.try_into().ok() }
}

/// Lets somebody act at noon of a day.
pub(crate) fn on<T>(place: Place, today: Day, act: impl AsyncFnOnce(&Keeper<'_>) -> T) -> T {
    let now = || today.0 * DAY_MS + 12 * HOUR_MS;
    block_on(act(&Keeper::of(place, Actor { by: "ann", now_ms: &now })))
}

pub(crate) fn retain(
    place: Place,
    today: Day,
    policy: Policy,
) -> std::result::Result<Vec<(Day, Why)>, RetentionError> {
    let plan = on(place, today, async |keeper| keeper.retain(&policy).await)?;
    assert_eq!(plan.steps, [], "all that can be done is done");
    Ok(plan.kept.into_iter().map(|kept| (kept.day, kept.why)).collect())
}

pub(crate) fn objects(folder: &Path) -> Vec<ObjectEntry> {
    block_on(place(folder).manifest()).unwrap().into_iter().flat_map(|entry| entry.objects).collect()
}

pub(crate) fn lines(folder: &Path) -> Vec<Line> {
    block_on(place(folder).audit_from(0)).unwrap()
}

/// How objects of a day are, in a word each.
pub(crate) fn states(folder: &Path, of: Day) -> Vec<&'static str> {
    let state = |object: &ObjectEntry| match object.since {
        Since::Whole => "whole",
        Since::Thinning(_) => "thinning",
        Since::Thinned => "thinned",
        Since::Deleted(_) => "deleted",
    };
    objects(folder).iter().filter(|object| Day::of(object.hour) == of).map(state).collect()
}

/// What a day comes to when it is counted again by this manifest.
pub(crate) fn counted(
    place: &Place,
    manifest: &[Entry],
    of: Day,
) -> std::result::Result<Report, ReconcileError> {
    let (of, rules) = (reconcile::Day::read(&of.name()).unwrap(), Rules::recorded());
    let [differences] = block_on(reconcile::differences(place, manifest, &of.minutes(), [&rules]))?;
    Ok(Report::of(&of, &rules, 0, &differences, &BTreeMap::new()))
}

/// What a day comes to when it is counted again.
pub(crate) fn recounted(folder: &Path, of: Day) -> std::result::Result<Report, ReconcileError> {
    let place = place(folder);
    counted(&place, &block_on(place.manifest())?, of)
}

/// The names of all that lies in a folder, and the checksums; so two are told apart by what an engine finds in them.
pub(crate) fn found(folder: &Path, under: &Path, into: &mut BTreeMap<String, u32>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found(folder, &path, into);
        } else {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            into.insert(name, crc32c::crc32c(&std::fs::read(&path).unwrap()));
        }
    }
}

/// The objects, as an engine finds them that knows nothing of ours.
pub(crate) fn engine_finds(folder: &Path) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    found(folder, folder, &mut all);
    all.retain(|name, _| !name.starts_with('_'));
    all
}
