//! The simulation itself under test: sound seeds pass, a seed repeats its run, and every wrong
//! that the harness does on purpose is found.

use weir_labs::sim::{Canary, Run, run, scratch};

const STEPS: u64 = 2000;
/// Seeds within which a wrong must be found. Most find it; damage is rarer.
const SEEDS_TO_FIND: u64 = 60;

fn sound(seed: u64) -> Run {
    Run { seed, steps: STEPS, trace: false, segments_max: None, canary: None }
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
fn a_seed_repeats_its_run_exactly() {
    for seed in 1..=5 {
        let runs = [run(sound(seed), &scratch()), run(sound(seed), &scratch())];
        assert_eq!(runs[0], runs[1], "seed {seed}");
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
        let told = Run { segments_max: Some(10), ..sound(seed) };
        if let Err(wrong) = run(told, &scratch()) {
            panic!("seed {seed}: {wrong}");
        }
    }
}
