//! The refractory window: of the unsigned clicks of one user on one ad, one in some seconds is countable.
//!
//! A signed click is told from another by its impression. Unsigned ones bring an impression nobody vouches for,
//! so a user who taps twice looks like two; the window makes the second one a repeat. It is a budget of one
//! click, kept as all budgets are ([`pace`](super::pace)): shared by the workers, in memory alone, gone with the
//! process. A click in the window does not make it longer.

use std::sync::Arc;

use weir_common::siphash::{SipKey, siphash24};

use super::pace::{Pace, Table};

const NS_PER_MS: u64 = 1_000_000;

/// Who clicked which ad moments ago. Of fixed size.
#[derive(Debug)]
pub struct Refractory {
    table: Table,
    pace: Pace,
    key: SipKey,
}

/// What a click of a user on an ad is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The first in a window, which began with it.
    Begins,
    /// A further one in a window.
    IsOpen,
    /// The first, and there was no room for its window: the next one will look like the first too.
    NoRoom,
}

impl Refractory {
    /// Windows of so many milliseconds, with room for so many users and ads at once, 16 octets each. The key should
    /// be another at every start: who knows it can make others share a window with him.
    #[must_use]
    pub fn new(window_ms: u32, keys: usize, key: SipKey) -> Arc<Self> {
        let pace = Pace::one_in(u64::from(window_ms) * NS_PER_MS);
        Arc::new(Self { table: Table::new(keys), pace, key })
    }

    /// What this click of a user on an ad is, and begins a window with it if none is open. Two clicks that two
    /// workers ask about in the very same moment may both begin one.
    pub fn note(&self, now_ns: u64, user_key: u64, ad: u64) -> Window {
        // 0 is the name of an empty place.
        let name = siphash24(&self.key, &[user_key, ad]).max(1);
        if self.table.wait_ns(name, self.pace, now_ns) > 0 {
            Window::IsOpen
        } else if self.table.spend(name, self.pace, now_ns) {
            Window::Begins
        } else {
            Window::NoRoom
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Window::{Begins, IsOpen, NoRoom};
    use super::*;

    const MS: u64 = NS_PER_MS;
    const KEY: SipKey = SipKey { k0: 1, k1: 2 };

    #[test]
    fn of_the_clicks_of_one_user_on_one_ad_one_a_window_is_the_first() {
        let clicks = Refractory::new(10_000, 1000, KEY);
        let note = |at_ms: u64, user_key, ad| clicks.note((1_000 + at_ms) * MS, user_key, ad);
        assert_eq!(note(0, 7, 1), Begins);
        assert_eq!([note(0, 7, 1), note(9_999, 7, 1)], [IsOpen; 2], "moments after it");
        assert_eq!([note(9_999, 7, 2), note(9_999, 8, 1)], [Begins; 2], "another ad, another user");
        assert_eq!(note(10_000, 7, 1), Begins, "what is in the window does not make it longer");
        assert_eq!(note(19_999, 7, 1), IsOpen);
    }

    #[test]
    fn without_room_nobody_is_taken_for_another_and_it_is_told() {
        let clicks = Refractory::new(10_000, 1, KEY);
        let noted: Vec<_> = (1..1000).map(|user_key| clicks.note(MS, user_key, 1)).collect();
        let begun = noted.iter().filter(|&&window| window == Begins).count();
        assert_eq!(begun, 8, "there is one set of places");
        assert!(noted[begun..].iter().all(|&window| window == NoRoom));
    }
}
