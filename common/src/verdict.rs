//! The rule itself: what one byte per impression says of the next click on it. Nodes count by it, and
//! whoever counts their clicks again.

use crate::id::{ORDINALS, Ordinal};
use crate::reason::{Outcome, Reason};
use crate::row::row_flags;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What is remembered of an impression: a bit for each ordinal seen, and one for "a click of it
/// was counted".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct State(pub u8);

const COUNTED: u8 = 1 << ORDINALS;
const _: () = assert!(ORDINALS == 7, "seven ordinals and one flag fill the byte");

/// How a click stands that nothing speaks against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It came past the allowed lateness.
    late: bool,
    /// Nobody signed it, and its user clicked this ad moments ago.
    refractory: bool,
}

impl Standing {
    /// By lateness and [`row_flags`].
    #[inline]
    #[must_use]
    pub const fn new(late: bool, flags: u8) -> Self {
        Self { late, refractory: flags & row_flags::REFRACTORY != 0 }
    }
}

impl State {
    /// The outcome of a click with this ordinal (below [`ORDINALS`]), filter and standing.
    ///
    /// An ordinal seen before is a transport retry, whatever else the click says. A filtered
    /// click is not counted, so the real click after a prefetch is accepted; a late one is, by
    /// reconciliation, so what follows it is a repeat. A refractory one is a repeat of another
    /// impression's click and leaves its own uncounted.
    #[inline]
    #[must_use]
    pub const fn judge(self, ordinal: Ordinal, filter: Reason, standing: Standing) -> Outcome {
        if self.has_seen(ordinal) {
            Outcome::Duplicate
        } else if !matches!(filter, Reason::None) {
            Outcome::Filtered
        } else if standing.late {
            Outcome::Late
        } else if self.0 & COUNTED == 0 && !standing.refractory {
            Outcome::Accepted
        } else {
            Outcome::Repeat
        }
    }

    /// Whether a click with this ordinal was here. An ordinal that cannot be told apart was not.
    #[inline]
    #[must_use]
    pub const fn has_seen(self, ordinal: Ordinal) -> bool {
        ordinal.0 < ORDINALS && self.0 >> ordinal.0 & 1 != 0
    }

    /// The state after a click with this ordinal met this outcome.
    #[inline]
    #[must_use]
    pub const fn after(self, ordinal: Ordinal, outcome: Outcome) -> Self {
        let counted = if matches!(outcome, Outcome::Accepted | Outcome::Late) { COUNTED } else { 0 };
        Self(self.0 | 1 << ordinal.0 | counted)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn run(clicks: &[(u8, Reason, bool)]) -> Vec<Outcome> {
        let mut state = State::default();
        let mut outcomes = Vec::new();
        for &(ordinal, filter, late) in clicks {
            let outcome = state.judge(Ordinal(ordinal), filter, Standing::new(late, 0));
            if outcome != Outcome::Duplicate {
                state = state.after(Ordinal(ordinal), outcome);
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    #[test]
    fn the_first_click_is_accepted_its_resend_a_duplicate_the_next_a_repeat() {
        let none = Reason::None;
        let found = run(&[(0, none, false), (0, none, false), (1, none, false), (1, none, false)]);
        assert_eq!(found, [Outcome::Accepted, Outcome::Duplicate, Outcome::Repeat, Outcome::Duplicate]);
    }

    #[test]
    fn a_real_click_after_a_prefetch_is_accepted() {
        let found = run(&[(0, Reason::Prefetch, false), (1, Reason::None, false)]);
        assert_eq!(found, [Outcome::Filtered, Outcome::Accepted]);
    }

    #[test]
    fn a_click_after_a_late_one_is_a_repeat_and_a_second_late_one_stays_late() {
        let found = run(&[(3, Reason::None, true), (0, Reason::None, false), (6, Reason::None, true)]);
        assert_eq!(found, [Outcome::Late, Outcome::Repeat, Outcome::Late]);
    }

    #[test]
    fn a_resend_is_a_duplicate_even_when_it_now_is_late_or_filtered() {
        let found =
            run(&[(2, Reason::None, false), (2, Reason::None, true), (2, Reason::TestTraffic, false)]);
        assert_eq!(found, [Outcome::Accepted, Outcome::Duplicate, Outcome::Duplicate]);
    }

    #[test]
    fn a_click_moments_after_another_of_its_user_is_a_repeat_and_leaves_its_impression_uncounted() {
        let again = Standing::new(false, row_flags::REFRACTORY);
        let judged = |state: State, ordinal, standing| state.judge(Ordinal(ordinal), Reason::None, standing);
        let new = State::default();
        assert_eq!(judged(new, 0, again), Outcome::Repeat);
        let after = new.after(Ordinal(0), Outcome::Repeat);
        assert_eq!(judged(after, 0, Standing::default()), Outcome::Duplicate);
        assert_eq!(judged(after, 1, Standing::default()), Outcome::Accepted);
        assert_eq!(judged(new, 0, Standing::new(true, row_flags::REFRACTORY)), Outcome::Late);
    }
}
