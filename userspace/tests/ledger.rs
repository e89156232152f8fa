//! The ledger against a naive oracle, and against its own replay.
//!
//! The oracle keeps every impression in a hash map and adds every row to its bucket with
//! [`BucketTotals::count`]; it knows nothing of slices, segments, pages or carries.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use weir::admission::{self, Admission, Admitted, Arrival, Judgement, KeyRing, SigningKey};
use weir::ledger::{Agreement, Decision, Entry, Ledger, Settings};
use weir::traffic::Flags;
use weir_common::bucket::{BucketKey, BucketTotals, Dimensions};
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::reason::{Outcome, Reason};
use weir_common::row::Row;
use weir_common::row::row_flags::{MARKED, REFRACTORY};
use weir_common::siphash::SipKey;
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::{Click, click_flags};
use zerocopy::byteorder::little_endian::{U32, U64};

const SECRET: SipKey = SipKey { k0: 11, k1: 12 };
const START_MS: u64 = 1_700_000_000_000;
/// Short, so that slices expire within a test.
const LIFETIME_MS: u64 = 3_600_000;

fn settings() -> Settings {
    Settings {
        lifetime_ms: LIFETIME_MS,
        capacity_impressions: 10_000,
        capacity_buckets: 10_000,
        ..Settings::new(SipKey { k0: 5, k1: 6 })
    }
}

fn admission() -> Admission {
    let key = SigningKey { issuer: Issuer(1), id: KeyId(2), secret: SECRET };
    let limits = admission::Settings { lifetime_ms: LIFETIME_MS, allow_unsigned: true, ..Default::default() };
    Admission::new(limits, KeyRing::new(&[key]).unwrap())
}

/// One step of a run: time passes, a click comes.
#[derive(Clone, Debug)]
struct Step {
    passes_ms: u64,
    /// Which of a few impressions.
    impression: u64,
    /// How long ago it was issued.
    issue_age_s: u32,
    click_age_ms: u64,
    ordinal: u8,
    flags: u8,
    /// What the worker found of the click.
    row_flags: u8,
    ad: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let passes_ms = prop_oneof![6 => 0..3000_u64, 1 => 0..1_200_000_u64];
    let issue_age_s = prop_oneof![4 => 0..3_u32, 1 => 0..25_u32].prop_map(|n| n * 150);
    let click_age_ms = prop_oneof![5 => 0..2000_u64, 1 => 0..700_000_u64, 1 => 0..4_000_000_u64];
    let flags = prop_oneof![
        6 => Just(0_u8), 3 => Just(click_flags::FOREIGN),
        1 => Just(click_flags::PREFETCH), 1 => Just(click_flags::TEST | click_flags::FOREIGN),
    ];
    let row_flags =
        prop_oneof![6 => Just(0), 1 => Just(MARKED), 1 => Just(REFRACTORY), 1 => Just(MARKED | REFRACTORY)];
    (passes_ms, 0..6_u64, issue_age_s, click_age_ms, 0..8_u8, flags, row_flags, 0..4_u64).prop_map(
        |(passes_ms, impression, issue_age_s, click_age_ms, ordinal, flags, row_flags, ad)| Step {
            passes_ms,
            impression,
            issue_age_s,
            click_age_ms,
            ordinal,
            flags,
            row_flags,
            ad,
        },
    )
}

/// The clicks of a run with their receive times, signed.
fn clicks(steps: &[Step]) -> Vec<(UnixMs, Click)> {
    let mut now = START_MS;
    let click = |step: &Step| {
        now += step.passes_ms;
        // Issue times on a grid of 150 s: clicks near in time meet on the same impressions.
        let issued_at_s = (now / 1000 / 150 * 150) as u32 - step.issue_age_s;
        let mut click = Click {
            impression: ImpressionId::issued(Issuer(1), KeyId(2), issued_at_s, step.impression),
            ad: U64::new(step.ad),
            price_micros: U64::new(1000 + step.ad),
            clicked_at_ms: U64::new(now - step.click_age_ms),
            country: *b"DE",
            ordinal: step.ordinal,
            flags: step.flags,
            // A field that means nothing to the ledger brings it to the entry.
            x: u16::from(step.row_flags).into(),
            ..Click::zeroed()
        };
        if click.is_foreign() {
            click.impression = ImpressionId(u128::from(step.impression).to_le_bytes());
        } else {
            click.tag = U64::new(click.expected_tag(&SECRET));
        }
        (UnixMs(now), click)
    };
    steps.iter().map(click).collect()
}

/// What admission lets through of a run.
fn entries(clicks: &[(UnixMs, Click)]) -> Vec<Entry<'_>> {
    let admission = admission();
    let mut entries = Vec::new();
    for (received_at, click) in clicks {
        let mut judged = Vec::new();
        admission.judge(*received_at, &[Arrival { click, extension: &[] }], &mut judged);
        if let Judgement::Admit(admitted) = judged[0] {
            let row_flags = admitted.row_flags | click.x.get() as u8;
            let admitted = Admitted { row_flags, ..admitted };
            entries.push(Entry { received_at: *received_at, admitted, click });
        }
    }
    entries
}

fn row(entry: &Entry, decision: Decision) -> Row {
    Row {
        received_at_ms: U64::new(entry.received_at.0),
        minute: U32::new(entry.admitted.minute.0),
        outcome: decision.outcome as u8,
        reason: decision.reason as u8,
        flags: entry.admitted.row_flags,
        traffic: 0,
        click: *entry.click,
    }
}

const fn has_row(decision: Decision) -> bool {
    matches!(decision.outcome, Outcome::Accepted | Outcome::Repeat | Outcome::Late | Outcome::Filtered)
}

/// What the oracle knows of an impression.
#[derive(Clone)]
struct Known {
    first_at_ms: u64,
    seen: Vec<u8>,
    counted: bool,
}

impl Known {
    fn outcome(&self, entry: &Entry) -> Outcome {
        match () {
            () if self.seen.contains(&entry.click.ordinal) => Outcome::Duplicate,
            () if !entry.admitted.traffic.is_empty() => Outcome::Filtered,
            () if entry.admitted.late => Outcome::Late,
            () if self.counted || entry.admitted.row_flags & REFRACTORY != 0 => Outcome::Repeat,
            () => Outcome::Accepted,
        }
    }
}

#[derive(Default)]
struct Oracle {
    impressions: HashMap<(bool, [u8; 16]), Known>,
    buckets: BTreeMap<BucketKey, BucketTotals>,
}

impl Oracle {
    fn decide(&mut self, entry: &Entry) -> Decision {
        let click = entry.click;
        let fresh = Known { first_at_ms: entry.received_at.0, seen: Vec::new(), counted: false };
        let name = (click.is_foreign(), click.impression.0);
        let known = self.impressions.entry(name).or_insert_with(|| fresh.clone());
        // A foreign id is forgotten a lifetime after the quarter lifetime it was first seen in.
        let quarter_ms = LIFETIME_MS / 4;
        let forgotten_after_ms = (known.first_at_ms / quarter_ms + 1) * quarter_ms + LIFETIME_MS;
        if click.is_foreign() && entry.received_at.0 > forgotten_after_ms {
            *known = fresh;
        }
        let outcome = known.outcome(entry);
        let reason =
            if outcome == Outcome::Filtered { entry.admitted.traffic.reason() } else { Reason::None };
        let decision = Decision { outcome, reason };
        if outcome != Outcome::Duplicate {
            known.seen.push(click.ordinal);
            known.counted |= matches!(outcome, Outcome::Accepted | Outcome::Late);
            let key = Dimensions::DEFAULT.key(entry.admitted.minute.0, click, 1);
            self.buckets.entry(key).or_default().count(&row(entry, decision));
        }
        decision
    }
}

/// Keeps the latest totals of each key, as every consumer of buckets does.
fn keep_latest(ledger: &mut Ledger, kept: &mut BTreeMap<BucketKey, BucketTotals>) {
    let mut changed = Vec::new();
    ledger.take_changed(&mut changed);
    kept.extend(changed);
}

/// Batches of at most `most` entries that end where a minute or more passes: buckets are taken
/// more often than that.
fn batches<'a>(entries: &'a [Entry<'a>], most: usize) -> impl Iterator<Item = &'a [Entry<'a>]> {
    let near = |one: &Entry, next: &Entry| next.received_at.0 - one.received_at.0 < 60_000;
    entries.chunk_by(near).flat_map(move |near| near.chunks(most))
}

proptest! {
    #[test]
    fn outcomes_and_buckets_equal_the_oracles(
        steps in prop::collection::vec(step(), 1..400), batch in 1..70_usize,
    ) {
        let clicks = clicks(&steps);
        let (mut ledger, mut oracle, mut kept) = (Ledger::new(&settings()), Oracle::default(), BTreeMap::new());
        let entries = entries(&clicks);
        for entries in batches(&entries, batch) {
            let mut decisions = Vec::new();
            ledger.apply(entries, &mut decisions);
            for (entry, decision) in entries.iter().zip(decisions) {
                prop_assert_eq!(decision, oracle.decide(entry), "{:?}", entry);
            }
            keep_latest(&mut ledger, &mut kept);
        }
        prop_assert_eq!(kept, oracle.buckets);
    }

    #[test]
    fn a_replay_gives_the_same_buckets_and_the_same_future(
        steps in prop::collection::vec(step(), 2..300), cut in 0.0..1.0_f64,
    ) {
        let clicks = clicks(&steps);
        let entries = entries(&clicks);
        let (before, after) = entries.split_at((cut * entries.len() as f64) as usize);
        let (mut live, mut kept_live) = (Ledger::new(&settings()), BTreeMap::new());
        let (mut replayed, mut kept_replayed) = (Ledger::new(&settings()), BTreeMap::new());
        for batch in batches(before, 20) {
            let mut decisions = Vec::new();
            live.apply(batch, &mut decisions);
            for (entry, decision) in batch.iter().zip(decisions).filter(|(_, decision)| has_row(*decision)) {
                let row = row(entry, decision);
                prop_assert_eq!((replayed.remember(&row), replayed.count(&row)), (Agreement::Same, true));
            }
            keep_latest(&mut live, &mut kept_live);
            keep_latest(&mut replayed, &mut kept_replayed);
        }
        prop_assert_eq!(&kept_live, &kept_replayed);
        let (mut live_says, mut replayed_says) = (Vec::new(), Vec::new());
        for batch in batches(after, 20) {
            live.apply(batch, &mut live_says);
            replayed.apply(batch, &mut replayed_says);
            keep_latest(&mut live, &mut kept_live);
            keep_latest(&mut replayed, &mut kept_replayed);
        }
        prop_assert_eq!(live_says, replayed_says);
        prop_assert_eq!(kept_live, kept_replayed);
    }

    #[test]
    fn no_moment_makes_the_ledger_panic(
        moments in prop::collection::vec(
            prop_oneof![
                Just(0), Just(1), Just(u64::from(u32::MAX)), Just(u64::from(u32::MAX) * 1000),
                Just(u64::MAX - 1), Just(u64::MAX), any::<u64>(),
            ], 1..30),
        issued_at_s in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
        lifetime_ms in prop_oneof![Just(0), Just(1), Just(86_400_000), 0..100_000_000_u64],
        foreign: bool,
    ) {
        let mut ledger = Ledger::new(&Settings { lifetime_ms, ..settings() });
        let mut changed = Vec::new();
        for (ordinal, moment) in moments.into_iter().enumerate() {
            let click = Click {
                impression: ImpressionId::issued(Issuer(1), KeyId(2), issued_at_s, 1),
                ordinal: ordinal as u8,
                flags: u8::from(foreign),
                ..Click::zeroed()
            };
            let entry = entry_at(UnixMs(moment), &click);
            let mut decisions = Vec::new();
            ledger.apply(&[entry], &mut decisions);
            let row = row(&entry, ACCEPTED);
            ledger.remember(&row);
            ledger.count(&row);
            ledger.take_changed(&mut changed);
        }
    }
}

const ACCEPTED: Decision = Decision { outcome: Outcome::Accepted, reason: Reason::None };
const FULL: Decision = Decision { outcome: Outcome::Refused, reason: Reason::TableFull };

fn entry_at(received_at: UnixMs, click: &Click) -> Entry<'_> {
    let admitted = Admitted { minute: received_at.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
    Entry { received_at, admitted, click }
}

fn issued(sequence: u64, ad: u64) -> Click {
    Click {
        impression: ImpressionId::issued(Issuer(1), KeyId(2), (START_MS / 1000) as u32, sequence),
        ad: U64::new(ad),
        ..Click::zeroed()
    }
}

fn apply_all(ledger: &mut Ledger, received_at: UnixMs, clicks: &[Click]) -> Vec<Decision> {
    let entries: Vec<_> = clicks.iter().map(|click| entry_at(received_at, click)).collect();
    let mut decisions = Vec::new();
    ledger.apply(&entries, &mut decisions);
    decisions
}

fn taken(ledger: &mut Ledger) -> Vec<(BucketKey, BucketTotals)> {
    let mut changed = Vec::new();
    ledger.take_changed(&mut changed);
    changed
}

#[test]
fn at_capacity_a_new_impression_is_refused_and_known_ones_are_still_told_apart() {
    let mut ledger = Ledger::new(&Settings { capacity_impressions: 5000, ..settings() });
    // Some in sequence, most scattered as widely as sequences can be.
    let scattered = |n: u64| if n.is_multiple_of(4) { n } else { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    let clicks: Vec<_> = (0..100_000).map(|n| issued(scattered(n), 1)).collect();
    let decisions = apply_all(&mut ledger, UnixMs(START_MS), &clicks);
    let accepted = decisions.iter().filter(|&&decision| decision == ACCEPTED).count();
    assert!((5000..100_000).contains(&accepted), "{accepted}");
    assert_eq!(ledger.impressions_live(), accepted);
    for (first, again) in decisions.iter().zip(apply_all(&mut ledger, UnixMs(START_MS), &clicks)) {
        match first.outcome {
            Outcome::Accepted => assert_eq!(again.outcome, Outcome::Duplicate),
            _ => assert_eq!(again, FULL),
        }
    }
    assert_eq!(taken(&mut ledger)[0].1.accepted.get(), accepted as u64);
}

#[test]
fn what_moves_in_the_middle_of_a_call_is_neither_lost_nor_counted_twice() {
    let mut ledger = Ledger::new(&settings());
    // Each call sees old and new ones side by side, and many a call makes a table grow.
    for call in 0..150_u64 {
        let new = |n: u64| issued(call * 40 + n, call * 20 + n % 20);
        let old = |n: u64| {
            let n = (call * 7 + n * 131) % (call * 40 + 1);
            issued(n, n / 40 * 20 + n % 40 % 20)
        };
        let on_old_ads = |n: u64| Click { ordinal: 1 + (call % 6) as u8, ..old(n) };
        let clicks: Vec<_> =
            (0..40).map(new).chain((0..12).map(old)).chain((0..12).map(on_old_ads)).collect();
        let decisions = apply_all(&mut ledger, UnixMs(START_MS), &clicks);
        assert!(decisions[..40].iter().all(|decision| *decision == ACCEPTED), "call {call}");
        assert!(decisions[40..52].iter().all(|decision| decision.outcome == Outcome::Duplicate));
        assert!(decisions[52..].iter().all(|decision| *decision != ACCEPTED), "call {call}");
        let repeats = decisions.iter().filter(|decision| decision.outcome == Outcome::Repeat).count();
        let changed = taken(&mut ledger);
        let sum =
            |count: fn(&BucketTotals) -> u64| changed.iter().map(|(_, totals)| count(totals)).sum::<u64>();
        // Ads of this call have two accepted clicks each; the repeats went to ads of any call.
        assert!(sum(|totals| totals.repeat.get()) >= repeats as u64, "call {call}");
        let ads_before = changed.iter().filter(|(key, _)| key.ad.get() < call * 20).count() as u64;
        assert_eq!(sum(|totals| totals.accepted.get()), 2 * (20 + ads_before), "call {call}");
    }
    ledger.mark_all_changed();
    let all = taken(&mut ledger);
    assert_eq!((ledger.impressions_live(), all.len()), (6000, 3000));
    assert!(all.iter().all(|(_, totals)| totals.accepted.get() == 2));
}

#[test]
fn expiry_gives_all_room_back() {
    let mut ledger = Ledger::new(&Settings { capacity_impressions: 5000, ..settings() });
    for day in 0..20 {
        let now_ms = START_MS + day * 86_400_000;
        let click = |sequence: u64| Click {
            impression: ImpressionId::issued(Issuer(1), KeyId(2), (now_ms / 1000) as u32, sequence),
            flags: (sequence % 2) as u8 * click_flags::FOREIGN,
            ..Click::zeroed()
        };
        let clicks: Vec<_> = (0..5000).map(click).collect();
        let decisions = apply_all(&mut ledger, UnixMs(now_ms), &clicks);
        assert!(decisions.iter().all(|&decision| decision == ACCEPTED), "day {day}");
        assert_eq!(ledger.impressions_live(), 5000);
        taken(&mut ledger);
    }
}

#[test]
fn keys_past_the_capacity_are_counted_in_the_other_bucket_of_their_minute() {
    let mut ledger = Ledger::new(&Settings { capacity_buckets: 100, ..settings() });
    let clicks: Vec<_> = (0..1000).map(|n| issued(n, n)).collect();
    let decisions = apply_all(&mut ledger, UnixMs(START_MS), &clicks);
    assert!(decisions.iter().all(|&decision| decision == ACCEPTED));
    let changed = taken(&mut ledger);
    assert_eq!(changed.len(), 101);
    let (key, totals) = changed.iter().find(|(key, _)| key.ad.get() == weir::ledger::OTHER_AD).unwrap();
    assert_eq!(totals.accepted.get(), 900);
    assert_eq!(key.minute.get(), UnixMs(START_MS).minute().0);
}

#[test]
fn a_closed_minute_takes_no_more_clicks_and_is_never_sent_again() {
    let mut ledger = Ledger::new(&settings());
    apply_all(&mut ledger, UnixMs(START_MS), &[issued(1, 1)]);
    let later = UnixMs(START_MS + 13 * 60_000);
    apply_all(&mut ledger, later, &[issued(2, 1)]);
    assert_eq!((taken(&mut ledger).len(), ledger.buckets_open()), (2, 1));
    let late_comer = issued(3, 1);
    let entry = Entry { received_at: later, ..entry_at(UnixMs(START_MS), &late_comer) };
    let mut decisions = Vec::new();
    ledger.apply(&[entry], &mut decisions);
    assert_eq!(decisions, [FULL]);
    let row = row(&entry, ACCEPTED);
    assert_eq!((ledger.remember(&row), ledger.count(&row)), (Agreement::Same, false));
    ledger.mark_all_changed();
    let changed = taken(&mut ledger);
    assert_eq!(changed.len(), 1);
    assert_eq!(Minute(changed[0].0.minute.get()), later.minute());
}

#[test]
fn a_minute_is_not_dropped_before_it_was_taken() {
    let mut ledger = Ledger::new(&settings());
    apply_all(&mut ledger, UnixMs(START_MS), &[issued(1, 1)]);
    apply_all(&mut ledger, UnixMs(START_MS + 3_000_000), &[issued(2, 1)]);
    assert_eq!(taken(&mut ledger).len(), 2);
}

#[test]
fn the_same_bytes_as_issued_and_as_foreign_id_are_two_impressions() {
    let mut ledger = Ledger::new(&settings());
    let foreign = Click { flags: click_flags::FOREIGN, ..issued(1, 1) };
    let decisions = apply_all(&mut ledger, UnixMs(START_MS), &[issued(1, 1), foreign]);
    assert_eq!(decisions, [ACCEPTED, ACCEPTED]);
}

#[test]
fn only_changed_buckets_are_taken() {
    let mut ledger = Ledger::new(&settings());
    apply_all(&mut ledger, UnixMs(START_MS), &[issued(1, 1), issued(2, 2)]);
    taken(&mut ledger);
    apply_all(&mut ledger, UnixMs(START_MS), &[issued(3, 2), issued(1, 1)]);
    let changed = taken(&mut ledger);
    assert_eq!(changed.len(), 1, "a duplicate changes no bucket");
    assert_eq!((changed[0].0.ad.get(), changed[0].1.accepted.get()), (2, 2));
}

#[test]
fn a_replayed_row_that_the_rule_would_judge_otherwise_stands_and_is_reported() {
    let mut ledger = Ledger::new(&settings());
    let click = issued(1, 1);
    let entry = entry_at(UnixMs(START_MS), &click);
    let accepted = row(&entry, ACCEPTED);
    assert_eq!((ledger.remember(&accepted), ledger.count(&accepted)), (Agreement::Same, true));
    assert_eq!(ledger.remember(&accepted), Agreement::Differs(Outcome::Duplicate));
    assert!(ledger.count(&accepted));
    let duplicate = row(&entry, Decision { outcome: Outcome::Duplicate, reason: Reason::None });
    assert_eq!((ledger.remember(&duplicate), ledger.count(&duplicate)), (Agreement::NotARow, true));
    assert_eq!(taken(&mut ledger)[0].1.accepted.get(), 2);
}

#[test]
fn a_row_is_counted_without_being_remembered_and_remembered_without_being_counted() {
    // No room for impressions beyond the pages that every slice may begin.
    let mut ledger = Ledger::new(&Settings { capacity_impressions: 0, ..settings() });
    let clicks: Vec<_> = (0..50_000).map(|n| issued(n << 32, 1)).collect();
    let rows = || clicks.iter().map(|click| row(&entry_at(UnixMs(START_MS), click), ACCEPTED));
    assert!(rows().all(|row| ledger.count(&row)));
    assert_eq!((ledger.impressions_live(), taken(&mut ledger)[0].1.accepted.get()), (0, 50_000));
    let (same, other): (Vec<_>, Vec<_>) =
        rows().map(|row| ledger.remember(&row)).partition(|agreement| *agreement == Agreement::Same);
    assert_eq!((ledger.impressions_live(), taken(&mut ledger).len()), (same.len(), 0));
    assert!(!other.is_empty());
    assert!(other.iter().all(|agreement| *agreement == Agreement::NotRemembered(Reason::TableFull)));
}
