//! The simulation itself under test: sound seeds pass, a seed repeats its run, and every wrong
//! that the harness does on purpose is found.

use weir_labs::sim::world::Tally;
use weir_labs::sim::{Canary, Run, run, scratch};

const STEPS: u64 = 2000;
/// Seeds within which a wrong must be found. Most find it; damage is rarer.
const SEEDS_TO_FIND: u64 = 60;
/// Seeds that all have an encrypted journal, whatever they would have by themselves.
const ENCRYPTED_SEEDS: u64 = 40;

fn sound(seed: u64) -> Run {
    Run { seed, steps: STEPS, trace: false, segments_max: None, encrypted: None, canary: None }
}

/// The number of the first seed that finds the wrong, and what it says.
fn first_to_find(canary: Canary) -> (u64, String) {
    for seed in 1..=SEEDS_TO_FIND {
        let told = Run { canary: Some(canary), ..sound(seed) };
        if let Err(wrong) = run(told, &scratch()) {
            return (seed, wrong);
        }
    }
    panic!("{SEEDS_TO_FIND} seeds did not find {canary:?}");
}

#[test]
fn whatever_happens_every_acknowledged_click_is_counted_once_and_the_books_close() {
    for seed in 1..=40 {
        if let Err(wrong) = run(sound(seed), &scratch()) {
            panic!("{wrong}\nreplay it: cargo xtask sim --seed {seed} --steps {STEPS} --trace");
        }
    }
}

#[test]
fn with_an_encrypted_journal_over_days_every_acknowledged_click_is_counted_once() {
    let mut seen = Tally::default();
    for seed in 1..=ENCRYPTED_SEEDS {
        let told = Run { encrypted: Some(true), ..sound(seed) };
        match run(told, &scratch()) {
            Ok(tally) => {
                seen.keys_taken += tally.keys_taken;
                seen.keys_refused += tally.keys_refused;
                seen.keys_destroyed += tally.keys_destroyed;
                seen.digests += tally.digests;
            }
            Err(wrong) => panic!(
                "{wrong}\nreplay it: cargo xtask sim --seed {seed} --steps {STEPS} --encrypted true --trace"
            ),
        }
    }
    let all = [seen.keys_taken, seen.keys_refused, seen.keys_destroyed, seen.digests];
    assert!(all.iter().all(|&count| count > 0), "the seeds leave out what they are for: {seen:?}");
}

#[test]
fn a_seed_repeats_its_run_exactly() {
    for seed in 1..=5 {
        for encrypted in [false, true] {
            let told = Run { encrypted: Some(encrypted), ..sound(seed) };
            let runs = [run(told, &scratch()), run(told, &scratch())];
            assert_eq!(runs[0], runs[1], "seed {seed}");
        }
    }
}

#[test]
fn an_ack_before_the_click_is_durable_is_found() {
    let (_, wrong) = first_to_find(Canary::WrongAck);
    // Of a click that was durable by then, the node's own ack is the second that says `created`.
    let is_it = ["acknowledged before it was durable", "created twice"].iter().any(|it| wrong.contains(it));
    assert!(is_it, "{wrong}");
}

#[test]
fn a_click_counted_twice_is_found() {
    let (_, wrong) = first_to_find(Canary::DoubleCount);
    assert!(wrong.contains("bucket"), "{wrong}");
}

#[test]
fn a_block_lost_on_its_way_to_the_sink_is_found() {
    let (_, wrong) = first_to_find(Canary::LostRow);
    assert!(wrong.contains("the sink has"), "{wrong}");
}

#[test]
fn damage_that_a_start_does_not_report_is_found() {
    let (_, wrong) = first_to_find(Canary::SilentDamage);
    assert!(wrong.contains("did not report it"), "{wrong}");
}

#[test]
fn a_sketch_with_a_user_it_should_not_have_is_found() {
    let (_, wrong) = first_to_find(Canary::WrongSketch);
    assert!(wrong.contains("sketch"), "{wrong}");
}

#[test]
fn a_clock_that_is_believed_when_it_is_wrong_is_found() {
    let (_, wrong) = first_to_find(Canary::BelievedClock);
    // Said of its time, or of minutes that became final too early for it.
    let is_it = ["for the time, and it is", "the bucket of ad"].iter().any(|it| wrong.contains(it));
    assert!(is_it, "{wrong}");
}

#[test]
fn a_full_journal_gets_room_by_trimming_alone() {
    for seed in 1..=20 {
        // Two for each of four workers, as few as can work, and two that were given up.
        for encrypted in [false, true] {
            let told = Run { segments_max: Some(10), encrypted: Some(encrypted), ..sound(seed) };
            if let Err(wrong) = run(told, &scratch()) {
                panic!("seed {seed}, encrypted {encrypted}: {wrong}");
            }
        }
    }
}

#[test]
fn a_share_of_the_seeds_has_an_encrypted_journal_and_the_tally_says_so() {
    let is_encrypted = |seed: &u64| sound(*seed).is_encrypted();
    let share = (1..=300).filter(is_encrypted).count();
    assert!((60..140).contains(&share), "{share} of 300");
    for seed in 1..=6 {
        let tally = run(Run { steps: 200, ..sound(seed) }, &scratch()).expect("a sound run");
        assert_eq!(tally.is_encrypted, is_encrypted(&seed), "seed {seed}");
    }
}

#[test]
fn a_key_that_is_gone_too_early_is_found() {
    let (_, wrong) = first_to_find(Canary::LostKey);
    assert!(wrong.contains("cannot be read without their keys"), "{wrong}");
}

#[test]
fn a_click_that_stands_unencrypted_in_an_encrypted_segment_is_found() {
    let (_, wrong) = first_to_find(Canary::PlainClick);
    assert!(wrong.contains("bytes of a click stand in"), "{wrong}");
}
