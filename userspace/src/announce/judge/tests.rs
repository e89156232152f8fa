//! Single cases, and what holds over all of them.

use proptest::prelude::*;

use super::*;

const RISE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(50);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Beats of a ready node until a step; the step and its time.
fn beats_until_step(judge: &mut Judge, mut now: Duration) -> (Step, Duration) {
    for _ in 0..10_000 {
        now += BEAT;
        match judge.take(now, Event::Ready) {
            Step::Nothing => {}
            step => return (step, now),
        }
    }
    panic!("no step");
}

/// An announced node, and the time.
fn announced() -> (Judge, Duration) {
    let mut judge = Judge::new(ms(0), RISE);
    let (step, now) = beats_until_step(&mut judge, ms(0));
    assert_eq!((step, judge.is_announced()), (Step::Announce, Some(true)));
    (judge, now)
}

#[test]
fn a_node_is_announced_after_it_was_ready_for_the_rise_without_a_break() {
    let mut judge = Judge::new(ms(0), RISE);
    assert_eq!(judge.is_announced(), None);
    assert_eq!(beats_until_step(&mut judge, ms(0)), (Step::Announce, BEAT + RISE));
    let mut broken = Judge::new(ms(0), RISE);
    for beat in 1..=59 {
        assert_eq!(broken.take(beat * BEAT, Event::Ready), Step::Nothing);
    }
    let fault = Event::Unready("recovering".to_owned());
    assert!(matches!(broken.take(ms(2960), fault), Step::Withdraw(_)));
    assert_eq!(beats_until_step(&mut broken, ms(2960)), (Step::Announce, ms(2960) + BEAT + RISE));
}

#[test]
fn a_bad_beat_and_an_end_withdraw_at_once_and_only_once() {
    for (event, reason) in [
        (Event::Unready("draining".to_owned()), "the node says: draining"),
        (Event::Ended, "the node died: its heartbeat ended"),
    ] {
        let (mut judge, now) = announced();
        let Step::Withdraw(said) = judge.take(now, event.clone()) else { panic!("{event:?}") };
        assert_eq!((said.to_string().as_str(), judge.is_announced()), (reason, Some(false)));
        assert_eq!(judge.take(now, event), Step::Nothing);
        assert_eq!(judge.take(now, Event::Unreachable("gone".to_owned())), Step::Nothing);
        assert_eq!(judge.why(), Some(&Reason::Unreachable("gone".to_owned())), "the present reason is known");
    }
}

#[test]
fn two_hundred_milliseconds_without_a_beat_withdraw_and_less_do_not() {
    let (mut judge, now) = announced();
    assert_eq!(judge.deadline(), Some(now + SILENCE_MAX));
    assert_eq!(judge.take(now + ms(199), Event::Nothing), Step::Nothing);
    assert_eq!(judge.take(now + ms(200), Event::Nothing), Step::Withdraw(Reason::Silent));
    assert_eq!(Reason::Silent.to_string(), "the node is frozen: no beat for 200 ms");
    assert_eq!(SILENCE_MAX, ms(200), "as the reason says");
    assert_eq!(judge.deadline(), None, "there is nothing to wait for but beats");
}

#[test]
fn beats_that_were_only_read_late_do_not_withdraw() {
    let (mut judge, now) = announced();
    assert_eq!(judge.take(now + ms(900), Event::Ready), Step::Nothing);
    assert_eq!(judge.is_announced(), Some(true));
}

#[test]
fn nothing_is_decided_at_the_start_before_a_node_could_be_reached() {
    let mut judge = Judge::new(ms(500), RISE);
    let away = || Event::Unreachable("no such file".to_owned());
    assert_eq!(judge.take(ms(500), away()), Step::Nothing);
    assert_eq!(judge.take(ms(1499), away()), Step::Nothing);
    assert_eq!(judge.is_announced(), None);
    assert!(matches!(judge.take(ms(1500), away()), Step::Withdraw(Reason::Unreachable(_))));
    // One that is there and says nothing is given up at the same time.
    let mut mute = Judge::new(ms(500), RISE);
    assert_eq!(mute.deadline(), Some(ms(1500)));
    assert_eq!(mute.take(ms(1499), Event::Nothing), Step::Nothing);
    assert_eq!(mute.take(ms(1500), Event::Nothing), Step::Withdraw(Reason::Silent));
}

#[test]
fn a_node_that_flaps_has_to_be_ready_for_longer_and_one_that_stood_is_trusted_again() {
    let (mut judge, mut now) = announced();
    for factor in [2, 4, 8, 16, 16] {
        assert!(matches!(judge.take(now, Event::Ended), Step::Withdraw(_)));
        let from = now;
        let (step, at) = beats_until_step(&mut judge, now);
        assert_eq!((step, at - from), (Step::Announce, BEAT + RISE * factor));
        now = at;
    }
    now += RISE * STEADY_RISES;
    assert_eq!(judge.take(now, Event::Ready), Step::Nothing);
    assert!(matches!(judge.take(now, Event::Ended), Step::Withdraw(_)));
    assert_eq!(beats_until_step(&mut judge, now), (Step::Announce, now + BEAT + RISE));
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => Just(Event::Ready),
        1 => Just(Event::Unready("the journal is full".to_owned())),
        1 => Just(Event::Ended),
        1 => Just(Event::Unreachable("gone".to_owned())),
        3 => Just(Event::Nothing),
    ]
}

/// Events, each some milliseconds after the one before; most as beats come, some late.
fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let gap = prop_oneof![30 => 40..=60_u64, 1 => 0..=450_u64];
    prop::collection::vec((gap, event()), 1..600)
}

proptest! {
    #[test]
    fn whatever_is_heard_only_a_node_that_was_ready_for_the_rise_is_announced(heard in events()) {
        let rise = ms(500);
        let mut judge = Judge::new(ms(0), rise);
        let mut now = ms(0);
        // The beats that all were good, none of them late; none since anything else was heard.
        let mut unbroken: Option<(Duration, Duration)> = None;
        for (gap, event) in heard {
            now += ms(gap);
            let before = judge.is_announced();
            let is_due = judge.deadline().is_some_and(|deadline| now >= deadline);
            let step = judge.take(now, event.clone());
            unbroken = match &event {
                Event::Ready => match unbroken {
                    Some((first, last)) if now - last < SILENCE_MAX => Some((first, now)),
                    _ => Some((now, now)),
                },
                Event::Nothing if !is_due => unbroken,
                _ => None,
            };
            match &step {
                Step::Announce => {
                    prop_assert_ne!(before, Some(true));
                    let (first, last) = unbroken.expect("beats");
                    prop_assert!(last - first >= rise && last - first <= rise * 16 + SILENCE_MAX);
                }
                Step::Withdraw(_) => prop_assert_ne!(before, Some(false)),
                Step::Nothing => prop_assert_eq!(before, judge.is_announced()),
            }
            // What withdraws, withdraws.
            let is_bad = matches!(event, Event::Unready(_) | Event::Ended)
                || matches!(event, Event::Unreachable(_)) && now >= START_MAX
                || event == Event::Nothing && is_due;
            if is_bad {
                prop_assert_eq!(judge.is_announced(), Some(false));
            }
            // An announced node is never without a time at which it is given up.
            if judge.is_announced() == Some(true) {
                prop_assert!(judge.deadline().is_some_and(|deadline| deadline <= now + SILENCE_MAX));
                prop_assert_eq!(judge.why(), None);
            }
        }
    }
}
