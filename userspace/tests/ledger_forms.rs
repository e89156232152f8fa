//! Impressions of every kind of issuer, in whatever form the ledger keeps them, told apart exactly;
//! and the memory they take.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use weir::admission::Admitted;
use weir::ledger::{Decision, Entry, Ledger, Owned, Settings};
use weir::traffic::Flags;
use weir_common::id::{ImpressionId, Issuer, KeyId, Shard};
use weir_common::reason::{Outcome, Reason};
use weir_common::row::row_flags::MARKED;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::{Click, click_flags};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const NOW_S: u32 = 1_700_000_000;

fn settings(capacity_impressions: usize) -> Settings {
    Settings { capacity_impressions, ..Settings::new(SipKey { k0: 5, k1: 6 }) }
}

fn issued(issuer: u16, age_s: u32, sequence: u64) -> Click {
    let impression = ImpressionId::issued(Issuer(issuer), KeyId(2), NOW_S - age_s, sequence);
    Click { impression, ..Click::zeroed() }
}

/// Impressions as issuers of all habits mint them.
fn impressions(rng: &mut SmallRng) -> Vec<Click> {
    let mut clicks = Vec::new();
    // Many a second, one a second, one in 37 clicked, far apart, anything at all.
    clicks.extend((0..20_000).map(|n| issued(1, 80_000 - n as u32 / 40, 1 << 40 | n)));
    clicks.extend((0..10_000).map(|n| issued(2, 60_000 - n as u32, n)));
    clicks.extend((0..10_000).map(|n| issued(3, 50_000 - n as u32 / 4, 37 * n)));
    clicks.extend((0..2_000).map(|n| issued(4, 40_000 - n as u32, n << 33)));
    clicks.extend((0..5_000).map(|_| issued(5, rng.random_range(0..86_000), rng.random())));
    // The same sequences again within the hour, as after a restart that forgot them.
    clicks.extend((0..10_000).map(|n| issued(6, 30_000 - 40 * (n as u32 / 500), n % 500)));
    clicks.extend((0..10_000).map(|n| issued(7, 20_000 - n as u32 / 40, u64::MAX - n)));
    // One issuer, several keys; and foreign ids that look like issued ones.
    clicks.extend((0..4_000).map(|n| Click {
        impression: ImpressionId::issued(Issuer(1), KeyId(n % 4), NOW_S - 79_990, 1 << 40 | u64::from(n / 4)),
        ..Click::zeroed()
    }));
    let foreign: Vec<_> = clicks.iter().step_by(5).copied().collect();
    clicks.extend(foreign.iter().map(|click| Click { flags: click_flags::FOREIGN, ..*click }));
    clicks
}

/// The same impressions several times, now and then with another ordinal, in an order of its own.
fn traffic(rng: &mut SmallRng) -> Vec<(Click, Admitted)> {
    let mut clicks = Vec::new();
    for mut click in impressions(rng) {
        for _ in 0..rng.random_range(1..4) {
            click.ordinal = if rng.random_bool(0.8) { 0 } else { rng.random_range(0..7) };
            let traffic = Flags::NONE.with(Reason::Prefetch, rng.random_bool(0.02));
            let late = rng.random_bool(0.02);
            let row_flags = if rng.random_bool(0.02) { MARKED } else { 0 };
            clicks.push((click, Admitted { minute: NOW.minute(), row_flags, traffic, late }));
        }
    }
    // Mostly in the order they were minted, as clicks come, but not only.
    let half = clicks.len() / 2;
    let (ordered, scattered) = clicks.split_at_mut(half);
    ordered.chunks_mut(500).for_each(|near| near.shuffle(rng));
    scattered.shuffle(rng);
    clicks
}

/// What is known of each impression: ordinals seen, and whether it was counted.
#[derive(Default)]
struct Model(HashMap<(bool, [u8; 16]), (Vec<u8>, bool)>);

impl Model {
    fn expect(&self, click: &Click, admitted: &Admitted) -> Outcome {
        let known = self.0.get(&(click.is_foreign(), click.impression.0));
        let (seen, counted) =
            known.map_or((false, false), |(seen, counted)| (seen.contains(&click.ordinal), *counted));
        match () {
            () if seen => Outcome::Duplicate,
            () if !admitted.traffic.is_empty() => Outcome::Filtered,
            () if admitted.late => Outcome::Late,
            () if counted => Outcome::Repeat,
            () => Outcome::Accepted,
        }
    }

    fn learn(&mut self, click: &Click, outcome: Outcome) {
        let known = self.0.entry((click.is_foreign(), click.impression.0)).or_default();
        known.0.push(click.ordinal);
        known.1 |= matches!(outcome, Outcome::Accepted | Outcome::Late);
    }
}

/// Runs traffic through a ledger beside the model; the number of clicks refused for want of room.
fn run(ledger: &mut Ledger, traffic: &[(Click, Admitted)]) -> usize {
    let (mut model, mut full) = (Model::default(), 0);
    for batch in traffic.chunks(777) {
        let entry = |(click, admitted)| Entry { received_at: NOW, admitted, click };
        let entries: Vec<_> = batch.iter().map(|(click, admitted)| entry((click, *admitted))).collect();
        let mut decisions = Vec::new();
        ledger.apply(&entries, &mut decisions);
        assert_eq!(decisions.len(), batch.len());
        for ((click, admitted), Decision { outcome, reason }) in batch.iter().zip(decisions) {
            if (outcome, reason) == (Outcome::Refused, Reason::TableFull) {
                full += 1;
                continue;
            }
            assert_eq!(outcome, model.expect(click, admitted), "{click:?}");
            if outcome != Outcome::Duplicate {
                model.learn(click, outcome);
            }
        }
    }
    assert_eq!(ledger.impressions_live(), model.0.len());
    full
}

#[test]
fn impressions_of_all_kinds_of_issuers_are_told_apart() {
    for seed in 0..3 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let traffic = traffic(&mut rng);
        assert_eq!(run(&mut Ledger::new(&settings(200_000)), &traffic), 0, "seed {seed}");
    }
}

#[test]
fn impressions_of_shards_that_are_not_owned_are_told_apart_too() {
    let owned = Owned::Only((300..641).map(Shard).collect());
    let traffic = traffic(&mut SmallRng::seed_from_u64(7));
    let mut ledger = Ledger::new(&Settings { owned, ..settings(200_000) });
    assert_eq!(run(&mut ledger, &traffic), 0);
}

#[test]
fn with_too_little_memory_clicks_are_refused_and_the_others_told_apart() {
    for (seed, capacity) in [(1, 1), (2, 100), (3, 2_000), (4, 20_000)] {
        let traffic = traffic(&mut SmallRng::seed_from_u64(seed));
        let mut ledger = Ledger::new(&settings(capacity));
        assert!(run(&mut ledger, &traffic) > 0, "capacity {capacity}");
        assert!(ledger.impressions_live() >= capacity);
    }
}

/// Applies these, all of one second, and counts each outcome.
fn outcomes(ledger: &mut Ledger, clicks: &[Click]) -> HashMap<Outcome, usize> {
    let admitted = Admitted { minute: NOW.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
    let entries: Vec<_> = clicks.iter().map(|click| Entry { received_at: NOW, admitted, click }).collect();
    let mut decisions = Vec::new();
    ledger.apply(&entries, &mut decisions);
    decisions.iter().fold(HashMap::new(), |mut counts, decision| {
        *counts.entry(decision.outcome).or_default() += 1;
        counts
    })
}

#[test]
fn a_stretch_whose_outcasts_find_too_little_room_keeps_its_form_and_no_impression_twice() {
    // Impressions of shards that are not owned fill the hash table.
    let is_owned = |click: &Click| click.impression.issued_shard().0 < 512;
    let owned = Owned::Only((0..512).map(Shard).collect());
    let ledger = || Ledger::new(&Settings { owned: owned.clone(), ..settings(1) });
    let (own, others): (Vec<_>, Vec<_>) = (0..100_000).map(|n| issued(1, 0, n)).partition(is_owned);
    let room = outcomes(&mut ledger(), &others)[&Outcome::Accepted];
    assert!((100..others.len()).contains(&room));

    // As many as sparse lines hold, 15 in each part of the stretch, some in a state no dense line has.
    let mut stretch: Vec<_> = (0..30).flat_map(|part| own[128 * part..][..15].to_vec()).collect();
    stretch.iter_mut().step_by(12).for_each(|click| click.ordinal = 3);
    let outcasts = stretch.iter().filter(|click| click.ordinal == 3).count();
    for spared in [0, 10, outcasts - 1, outcasts, outcasts + 1] {
        let mut ledger = ledger();
        let filled = room - spared;
        assert_eq!(outcomes(&mut ledger, &others[..filled])[&Outcome::Accepted], filled);
        assert_eq!(outcomes(&mut ledger, &stretch)[&Outcome::Accepted], stretch.len());
        // One more than they hold, and all of them again.
        let fits = spared >= outcasts;
        let expected = if fits { Outcome::Accepted } else { Outcome::Refused };
        assert_eq!(outcomes(&mut ledger, &own[15..16])[&expected], 1, "{spared} spared");
        assert_eq!(outcomes(&mut ledger, &stretch)[&Outcome::Duplicate], stretch.len());
        let live = filled + stretch.len() + usize::from(fits);
        assert_eq!(ledger.impressions_live(), live, "{spared} spared");
        // Where one left its line there is room for another, and only there.
        let more: Vec<_> = (0..30).flat_map(|part| own[128 * part + 16..][..2].to_vec()).collect();
        let accepted = outcomes(&mut ledger, &more).get(&Outcome::Accepted).copied();
        assert_eq!(accepted.unwrap_or(0), if fits { more.len() } else { spared });
        stretch.iter_mut().for_each(|click| click.ordinal += 1);
        assert_eq!(outcomes(&mut ledger, &stretch)[&Outcome::Repeat], stretch.len());
        stretch.iter_mut().for_each(|click| click.ordinal -= 1);
    }
}

#[test]
fn an_impression_that_has_no_place_in_the_form_it_made_a_stretch_take_is_remembered() {
    let mut ledger = Ledger::new(&settings(1000));
    // As many as sparse lines hold, all of one second; then the first sequence again, of another.
    let stretch: Vec<_> = (0..450).map(|n| issued(1, 0, n / 15 * 128 + n % 15)).collect();
    assert_eq!(outcomes(&mut ledger, &stretch)[&Outcome::Accepted], stretch.len());
    let again = [issued(1, 100, 0)];
    assert_eq!(outcomes(&mut ledger, &again)[&Outcome::Accepted], 1);
    assert_eq!(outcomes(&mut ledger, &again)[&Outcome::Duplicate], 1);
    assert_eq!(outcomes(&mut ledger, &stretch)[&Outcome::Duplicate], stretch.len());
}

#[test]
fn impressions_of_stretches_that_find_no_lines_to_grow_into_are_remembered() {
    // So close that a stretch takes many lines for a few. With the fewer stretches they suffice until
    // each needs more for one more click; with the others even their first clicks find none.
    for stretches in [440, 600] {
        let mut ledger = Ledger::new(&settings(1));
        let stretch = |n: u64| (0..15).chain([128]).map(move |slot| issued(1, 0, n * 3840 + slot));
        let few: Vec<_> = (0..stretches).flat_map(stretch).collect();
        let more: Vec<_> = (0..stretches).map(|n| issued(1, 0, n * 3840 + 20)).collect();
        for clicks in [few, more] {
            assert_eq!(outcomes(&mut ledger, &clicks)[&Outcome::Accepted], clicks.len());
            assert_eq!(outcomes(&mut ledger, &clicks)[&Outcome::Duplicate], clicks.len());
        }
    }
}

/// Bytes an impression takes in a ledger that holds all of these, once each.
fn bytes_each(capacity: usize, clicks: impl Iterator<Item = Click>) -> f64 {
    let mut ledger = Ledger::new(&settings(capacity));
    let admitted = Admitted { minute: NOW.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
    let clicks: Vec<_> = clicks.collect();
    let mut decisions = Vec::new();
    for batch in clicks.chunks(1000) {
        let entries: Vec<_> = batch.iter().map(|click| Entry { received_at: NOW, admitted, click }).collect();
        ledger.apply(&entries, &mut decisions);
    }
    assert_eq!(ledger.impressions_live(), clicks.len());
    ledger.impression_bytes() as f64 / clicks.len() as f64
}

#[test]
fn issued_impressions_clicked_in_sequence_take_at_most_two_bytes_each() {
    // Four issuers over a day, 3,000,000 impressions, all clicked: nine a second each.
    let click =
        |n: u32| issued(n as u16 % 4, 85_000 - (u64::from(n) * 85_000 / 3_000_000) as u32, u64::from(n / 4));
    let bytes = bytes_each(3_000_000, (0..3_000_000).map(click));
    assert!(bytes <= 2.0, "{bytes} bytes");
}

#[test]
fn foreign_impressions_take_at_most_24_bytes_each() {
    let click = |n: u64| Click {
        impression: ImpressionId((u128::from(n) << 64 | u128::from(n ^ 0x5555)).to_le_bytes()),
        flags: click_flags::FOREIGN,
        ..Click::zeroed()
    };
    let bytes = bytes_each(3_000_000, (0..3_000_000).map(click));
    assert!(bytes <= 24.0, "{bytes} bytes");
}
