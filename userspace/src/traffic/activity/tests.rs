use std::collections::HashMap;

use proptest::prelude::*;

use weir_common::siphash::SipKey;

use super::*;
use crate::traffic::actors::ActorKey;

const START: u64 = 1_790_000_000_000;

const KEY: SipKey = SipKey { k0: 3, k1: 4 };

/// At the default limits.
struct Watched {
    activity: Activity,
    pushed_out: usize,
}

impl Watched {
    fn is_too_much(&mut self, actor: &ActorKey, at: UnixMs) -> bool {
        let counted = self.activity.count(actor.hash(&KEY), at, Limits::default());
        self.pushed_out += usize::from(counted.has_pushed_out);
        counted.is_too_much
    }
}

fn activity(keys: usize) -> Watched {
    Watched { activity: Activity::new(keys), pushed_out: 0 }
}

fn user(key: u64) -> ActorKey {
    ActorKey::user(key).unwrap()
}

/// Whether each click, in ms from the start, is one too many.
fn judged(times_ms: impl IntoIterator<Item = u64>) -> Vec<bool> {
    let mut activity = activity(64);
    times_ms.into_iter().map(|at| activity.is_too_much(&user(7), UnixMs(START + at))).collect()
}

#[test]
fn a_hundred_clicks_in_a_minute_are_fine_and_the_next_is_not() {
    let every_half_second = judged((0..101).map(|n| n * 590));
    assert_eq!(every_half_second.iter().position(|&over| over), Some(100));
}

#[test]
fn ten_clicks_in_a_second_are_fine_and_the_next_is_not() {
    assert_eq!(judged([0; 10]), [false; 10]);
    assert_eq!(judged([0; 11]).iter().position(|&over| over), Some(10));
    let within = judged((0..10).chain([999]));
    assert_eq!(within.iter().position(|&over| over), Some(10));
}

#[test]
fn a_click_exactly_a_second_or_a_minute_old_has_left_the_window() {
    assert!(!judged((0..10).chain([1000])).contains(&true));
    let hundred = (0..100).map(|n| n * 600);
    assert!(!judged(hundred.clone().chain([60_000])).contains(&true));
    assert!(judged(hundred.chain([59_999])).contains(&true));
}

#[test]
fn the_window_rolls_and_marks_as_long_as_it_is_too_much() {
    // One each 590 ms: from the 101st on there are always more than a hundred in a minute.
    let steady = judged((0..400).map(|n| n * 590));
    assert!(steady[..100].iter().all(|over| !over) && steady[100..].iter().all(|over| *over));
    // After a pause of a minute all is forgotten.
    let paused = judged((0..100).map(|n| n * 590).chain((0..100).map(|n| 58_410 + 60_000 + n * 590)));
    assert!(!paused.contains(&true));
}

#[test]
fn limits_are_those_of_the_moment_and_one_that_cannot_be_remembered_is_never_reached() {
    let mut activity = Activity::new(64);
    let mut judge = |per_minute, per_second| {
        activity.count(7, UnixMs(START), Limits { per_minute, per_second }).is_too_much
    };
    assert!(!judge(2, 9) && !judge(2, 9) && judge(2, 9) && !judge(9, 9) && judge(9, 2));
    assert!((0..300).all(|_| !judge(101, 255)));
    assert!(judge(100, 255) && judge(255, 100) && judge(0, 255) && judge(255, 0));
}

#[test]
fn users_and_addresses_are_counted_apart() {
    let mut activity = activity(64);
    let address = ActorKey::address("192.0.2.7".parse().unwrap());
    let at = UnixMs(START);
    for _ in 0..10 {
        assert!(!activity.is_too_much(&user(7), at));
        assert!(!activity.is_too_much(&address, at));
    }
    assert!(activity.is_too_much(&user(7), at) && activity.is_too_much(&address, at));
    assert!(!activity.is_too_much(&user(8), at));
    // Of IPv6 it is the /64 that clicks.
    let host = |low: u16| ActorKey::address(format!("2001:db8::{low:x}").parse().unwrap());
    let over: Vec<_> = (0..11).map(|low| activity.is_too_much(&host(low), at)).collect();
    assert_eq!(over.iter().position(|&over| over), Some(10));
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let mut activity = activity(64);
    let over: Vec<_> = (0..11).map(|n| activity.is_too_much(&user(7), UnixMs(START - n * 5_000))).collect();
    assert_eq!(over.iter().position(|&over| over), Some(10));
    assert!(!activity.is_too_much(&user(7), UnixMs(START + 1_000)));
    assert!(!activity.is_too_much(&user(9), UnixMs(u64::MAX)));
    assert!(!activity.is_too_much(&user(9), UnixMs(0)), "no moment makes it panic");
}

#[test]
fn who_clicks_steadily_keeps_his_place_in_a_full_table() {
    let mut activity = activity(64);
    let mut marked = 0;
    for n in 0..10_000 {
        let at = UnixMs(START + n * 10);
        // Each click is another user's, but for one who clicks every 90 ms.
        let innocent = activity.is_too_much(&user(1_000 + n), at);
        assert!(!innocent, "who clicks once is never marked");
        marked += u64::from(n.is_multiple_of(9) && activity.is_too_much(&user(7), at));
    }
    assert!(marked > 1_000, "{marked} of 1,112 clicks, 10 of which were fine");
    assert!(activity.pushed_out > 5_000, "{}", activity.pushed_out);
}

#[test]
fn a_key_takes_less_than_256_octets() {
    for keys in [8_000, 8_200] {
        let octets = Activity::new(keys).len_octets();
        assert!(octets <= keys * 256, "{octets} for {keys}");
    }
}

/// Counts in lists of times what [`Activity`] counts in rings.
#[derive(Default)]
struct Oracle {
    times: HashMap<u64, Vec<u64>>,
}

impl Oracle {
    fn is_too_much(&mut self, key: u64, at_ms: u64) -> bool {
        let times = self.times.entry(key).or_default();
        let within = |window: u64| times.iter().filter(|&&time| at_ms - time < window).count();
        let over = within(1_000) >= 10 || within(60_000) >= 100;
        times.push(at_ms);
        over
    }
}

proptest! {
    #[test]
    fn as_long_as_nobody_is_pushed_out_it_agrees_with_a_list_of_all_times(
        // Pauses of all lengths, those around the windows above all.
        clicks in prop::collection::vec(
            (1..4_u64, prop_oneof![
                8 => 0..900_u64,
                4 => 0..20_u64,
                1 => 990..1_010_u64,
                1 => prop_oneof![59_990..60_010_u64, 65_530..65_540_u64, 119_990..120_010_u64],
            ]),
            0..900,
        ),
    ) {
        let (mut activity, mut oracle) = (activity(1_024), Oracle::default());
        let mut at = START;
        for (key, pause) in clicks {
            at += pause;
            prop_assert_eq!(activity.is_too_much(&user(key), UnixMs(at)), oracle.is_too_much(key, at));
        }
        prop_assert_eq!(activity.pushed_out, 0);
    }
}
