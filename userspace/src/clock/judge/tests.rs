//! Stories of clocks, told in seconds since one moment that is the true time.

use super::*;

/// The true time when a story begins.
const TRUTH_S: i64 = 1_800_000_000;
const HOUR_S: i64 = 3600;
const YEARS_S: i64 = 23 * 365 * 86_400;
/// 1970, as an error of the clock.
const TO_1970_S: i64 = -TRUTH_S;

const fn at(s: i64) -> UnixMs {
    UnixMs(((TRUTH_S + s) * 1000).unsigned_abs())
}

/// A node under a true time, with a clock that is wrong by some seconds.
struct Story {
    judge: Judge,
    s: i64,
    wrong_s: i64,
}

impl Story {
    /// Starts now; the journal's newest row is from `newest_s`.
    fn start(wrong_s: i64, newest_s: Option<i64>) -> Self {
        Self::vouched(wrong_s, newest_s, false)
    }

    fn vouched(wrong_s: i64, newest_s: Option<i64>, is_vouched_for: bool) -> Self {
        let settings = Settings::new(86_400_000, 60_000);
        let judge = Judge::begin(settings, 0, at(wrong_s), newest_s.map(at), is_vouched_for);
        Self { judge, s: 0, wrong_s }
    }

    /// Time passes, with a look each second; how far the node's time then is from the true one.
    fn pass(&mut self, seconds: i64) -> i64 {
        for _ in 0..seconds {
            self.s += 1;
            self.look(Signed::default());
        }
        self.error_s()
    }

    fn look(&mut self, signed: Signed) {
        let before = self.time();
        self.judge.look(self.s.unsigned_abs() * 1000, at(self.s + self.wrong_s), signed);
        assert!(self.time() >= before, "the node's time ran backwards");
    }

    fn set_wrong(&mut self, wrong_s: i64) {
        self.wrong_s = wrong_s;
        self.look(Signed::default());
    }

    /// Clicks are heard whose impressions were issued so long ago by the true time, if the node
    /// takes that for the future; one more has told it to listen.
    fn hear(&mut self, clicks: u64, issued_ago_s: i64) {
        let issued = at(self.s - issued_ago_s);
        let mut signed = Signed::default();
        if issued.0 > self.time().0 + 60_000 {
            if !self.judge.is_hearing() {
                self.look(Signed { is_alert: true, ..Signed::default() });
            }
            signed.future = clicks;
            signed.issued = vec![issued; clicks.min(ISSUES_HEARD as u64) as usize];
        } else {
            signed.in_time = clicks;
        }
        self.look(signed);
    }

    fn time(&self) -> UnixMs {
        self.judge.time().at(self.s.unsigned_abs() * 1000)
    }

    fn error_s(&self) -> i64 {
        less(self.time(), at(self.s).0) / 1000
    }

    fn doubt(&self) -> Option<Doubt> {
        self.judge.time().doubt
    }
}

#[test]
fn a_clock_that_agrees_is_followed() {
    let mut story = Story::start(0, Some(-600));
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    for second in 1..=60 {
        // Slewed by half a permille, or set by a little.
        story.set_wrong(second / 30);
        story.pass(30);
    }
    assert_eq!((story.doubt(), story.error_s()), (None, 2));
}

#[test]
fn a_clock_that_is_set_back_a_little_is_waited_for() {
    let mut story = Story::start(0, None);
    story.pass(10);
    story.set_wrong(-4);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    assert_eq!(story.pass(3), -3, "the node's time stands still until the clock is there");
    assert_eq!(story.pass(100), -4);
}

#[test]
fn a_step_of_an_hour_is_noticed_and_time_goes_on_without_it() {
    for (by_s, doubt) in [(HOUR_S, Doubt::SteppedAhead), (-HOUR_S, Doubt::SteppedBack)] {
        let mut story = Story::start(0, None);
        story.pass(10);
        story.set_wrong(by_s);
        assert_eq!(story.doubt(), Some(doubt));
        assert_eq!(story.pass(100), 0, "the true time goes on, by the monotonic clock");
        story.set_wrong(0);
        assert_eq!((story.doubt(), story.error_s()), (None, 0), "it was set right again");
    }
}

#[test]
fn a_clock_at_1970_or_2050_tells_nothing_and_the_journal_does() {
    for wrong_s in [TO_1970_S, YEARS_S] {
        let mut story = Story::start(wrong_s, Some(-20));
        assert_eq!(story.doubt(), Some(Doubt::Implausible));
        assert_eq!(story.pass(86_400), -20, "it is as late as the journal, at least, and goes on");
        assert_eq!(story.doubt(), Some(Doubt::Implausible), "no patience makes such a clock right");
        story.set_wrong(0);
        assert_eq!((story.doubt(), story.error_s()), (None, 0));
        story.set_wrong(wrong_s);
        assert_eq!(story.doubt(), Some(Doubt::Implausible));
        assert_eq!(story.pass(100), 0);
    }
}

#[test]
fn a_node_that_never_knew_the_time_hears_it_from_signed_clicks() {
    let mut story = Story::start(TO_1970_S, None);
    assert_eq!(story.doubt(), Some(Doubt::NoTime));
    assert_eq!(story.time(), UnixMs(0));
    story.hear(WITNESSES - 1, 30);
    assert_eq!(story.doubt(), Some(Doubt::NoTime), "fewer than it takes");
    story.hear(1, 40);
    assert_eq!((story.doubt(), story.error_s()), (Some(Doubt::Implausible), -30));
    story.hear(WITNESSES, 20);
    // And when the clock is set it is believed: what was signed is a bound from below only.
    story.set_wrong(0);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    // Without any click it is believed just so.
    let mut story = Story::start(TO_1970_S, None);
    story.pass(50);
    story.set_wrong(0);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn what_a_node_wrote_that_did_not_know_the_time_is_no_witness() {
    let story = Story::start(0, Some(TO_1970_S + 60));
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn a_short_stop_is_believed_at_once_a_long_one_when_the_clock_has_settled() {
    assert_eq!(Story::start(0, Some(-HOUR_S)).doubt(), None);
    let mut story = Story::start(0, Some(-2 * HOUR_S));
    assert_eq!(story.doubt(), Some(Doubt::AheadOfJournal));
    assert_eq!(story.pass(119), -2 * HOUR_S);
    assert_eq!((story.pass(2), story.doubt()), (0, None));
}

#[test]
fn a_clock_two_hours_ahead_at_the_boot_that_is_set_right_soon_does_no_harm() {
    let mut story = Story::start(2 * HOUR_S, Some(-60));
    assert_eq!((story.doubt(), story.pass(45)), (Some(Doubt::AheadOfJournal), -60));
    story.set_wrong(0);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn a_stop_longer_than_dedupe_remembers_needs_signed_clicks_or_an_operator() {
    let long_s = 13 * HOUR_S;
    let mut story = Story::start(0, Some(-long_s));
    assert_eq!((story.pass(HOUR_S), story.doubt()), (-long_s, Some(Doubt::AheadOfJournal)));
    story.hear(WITNESSES, 90);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    let story = Story::vouched(0, Some(-long_s), true);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn signed_clicks_do_not_make_a_clock_right_that_is_further_ahead_than_they_are() {
    let mut story = Story::start(20 * HOUR_S, Some(-HOUR_S));
    story.hear(WITNESSES, 5);
    assert_eq!(story.doubt(), Some(Doubt::AheadOfJournal));
    assert_eq!(story.error_s(), -5, "it is as late as what was signed");
    // An hour or less ahead of that it would be believed as after a stop.
    story.set_wrong(0);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn a_wrong_clock_that_is_set_right_by_a_step_ahead_is_borne_out_by_signed_clicks() {
    // Nothing was in the journal, so the clock was believed.
    let mut story = Story::start(-HOUR_S, None);
    assert_eq!((story.doubt(), story.error_s()), (None, -HOUR_S));
    story.set_wrong(0);
    assert_eq!(story.doubt(), Some(Doubt::SteppedAhead));
    story.hear(WITNESSES, 20);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn an_ad_server_with_a_clock_of_its_own_does_not_move_an_exact_time() {
    let mut story = Story::start(0, None);
    story.pass(10);
    story.set_wrong(TO_1970_S);
    story.hear(1000, -HOUR_S);
    assert_eq!((story.pass(10), story.doubt()), (0, Some(Doubt::Implausible)));
}

#[test]
fn a_clock_that_was_ahead_and_is_set_back_is_waited_for_once_it_has_settled() {
    let mut story = Story::start(HOUR_S, None);
    story.pass(10);
    story.set_wrong(0);
    assert_eq!(story.doubt(), Some(Doubt::SteppedBack));
    assert_eq!(story.pass(119), HOUR_S, "which of the two was wrong is not known yet");
    story.pass(2);
    let stood = story.time();
    story.pass(HOUR_S - 10);
    assert_eq!((story.time(), story.doubt()), (stood, Some(Doubt::SteppedBack)));
    story.pass(10);
    assert_eq!((story.doubt(), story.error_s()), (None, 0), "it has caught up");
}

#[test]
fn a_clock_behind_the_journal_that_an_operator_vouches_for_is_waited_for_however_far_it_is() {
    let mut story = Story::vouched(0, Some(13 * HOUR_S), true);
    assert_eq!((story.doubt(), story.pass(HOUR_S)), (Some(Doubt::BehindJournal), 12 * HOUR_S));
    story.pass(12 * HOUR_S);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    let mut story = Story::vouched(0, Some(13 * HOUR_S), false);
    story.pass(14 * HOUR_S);
    assert_eq!((story.doubt(), story.error_s()), (Some(Doubt::BehindJournal), 13 * HOUR_S));
}

#[test]
fn a_clock_behind_the_journal_by_years_is_never_waited_for() {
    let mut story = Story::start(-365 * 86_400, Some(-5));
    assert_eq!(story.doubt(), Some(Doubt::BehindJournal));
    assert_eq!((story.pass(86_400), story.doubt()), (-5, Some(Doubt::BehindJournal)));
}

#[test]
fn a_clock_that_an_operator_vouches_for_is_waited_for_however_far_behind_it_is() {
    let mut story = Story::vouched(0, Some(20 * HOUR_S), true);
    let stood = story.time();
    story.pass(20 * HOUR_S - 10);
    assert_eq!((story.time(), story.doubt()), (stood, Some(Doubt::BehindJournal)));
    assert_eq!((story.pass(10), story.doubt()), (0, None));
}

#[test]
fn a_clock_that_is_waited_for_and_set_ahead_again_is_believed_where_it_may_be() {
    let mut story = Story::start(0, Some(HOUR_S));
    story.pass(400);
    assert_eq!(story.doubt(), Some(Doubt::BehindJournal));
    story.set_wrong(HOUR_S);
    assert_eq!((story.doubt(), story.error_s()), (None, HOUR_S));
}

#[test]
fn an_ad_server_whose_clock_is_ahead_is_outvoted() {
    // Of those that say something one in four is ten minutes ahead.
    let mut story = Story::start(TO_1970_S, None);
    story.hear(6, 10);
    story.hear(2, -600);
    assert_eq!((story.doubt(), story.error_s()), (Some(Doubt::Implausible), -10));
    // From now on the others are in time, and however often it sends again moves nothing.
    story.hear(WITNESSES, 5);
    for _ in 0..100 {
        story.hear(100, -600);
        story.pass(1);
    }
    assert_eq!(story.error_s(), -10);
    story.set_wrong(0);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
}

#[test]
fn most_signed_clicks_from_the_future_are_a_doubt_and_a_few_are_none() {
    // Nothing was in the journal, so the clock was believed, and it is an hour behind.
    let mut story = Story::start(-HOUR_S, None);
    story.hear(WITNESSES, 20);
    assert_eq!((story.doubt(), story.error_s()), (Some(Doubt::SignedAhead), -HOUR_S));
    story.hear(1000, 10);
    assert_eq!((story.doubt(), story.pass(30)), (Some(Doubt::SignedAhead), -HOUR_S));
    story.set_wrong(0);
    story.hear(WITNESSES, 20);
    assert_eq!((story.doubt(), story.error_s()), (None, 0));
    // One ad server of several is ahead.
    story.hear(2 * WITNESSES, 30);
    story.hear(WITNESSES, -600);
    assert_eq!((story.doubt(), story.pass(20)), (None, 0));
}

#[test]
fn a_single_ad_server_that_is_ahead_moves_no_time_and_is_forgotten_when_it_is_silent() {
    let mut story = Story::start(0, None);
    story.hear(WITNESSES, -600);
    assert_eq!((story.doubt(), story.error_s()), (Some(Doubt::SignedAhead), 0));
    story.hear(100, -600);
    assert_eq!(story.pass(119), 0);
    assert_eq!(story.doubt(), Some(Doubt::SignedAhead));
    assert_eq!((story.pass(2), story.doubt()), (0, None));
    // Or its clock is set, and its clicks are in time.
    story.hear(WITNESSES, -600);
    story.hear(WITNESSES, 20);
    assert_eq!((story.pass(1), story.doubt()), (0, None));
}

#[test]
fn clicks_from_the_future_are_no_doubt_while_nobody_has_counted_those_in_time() {
    let mut story = Story::start(0, None);
    assert!(!story.judge.is_hearing());
    story.look(Signed { is_alert: true, ..Signed::default() });
    assert!(story.judge.is_hearing() && story.doubt().is_none());
    // Now both are counted.
    let issued = vec![at(3 * HOUR_S); ISSUES_HEARD];
    story.look(Signed { in_time: 1000, future: 100, issued, is_alert: false });
    assert_eq!((story.doubt(), story.pass(20)), (None, 0));
    assert!(!story.judge.is_hearing(), "they are silent, and forgotten");
}
