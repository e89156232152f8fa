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
    key: SipKey,
}

impl Refractory {
    /// Room for so many users and ads at once, 16 octets each. The key should be another at every start: who
    /// knows it can make others share a window with him.
    #[must_use]
    pub fn new(keys: usize, key: SipKey) -> Arc<Self> {
        Arc::new(Self { table: Table::new(keys), key })
    }

    /// Whether this user clicked this ad less than a window ago; a window begins with this click if not.
    ///
    /// What finds no room for its window begins none. Two clicks that two workers ask about in the very same
    /// moment may both be the first.
    pub fn is_again(&self, now_ns: u64, window_ms: u32, user_key: u64, ad: u64) -> bool {
        // 0 is the name of an empty place.
        let name = siphash24(&self.key, &[user_key, ad]).max(1);
        let pace = Pace::one_in(u64::from(window_ms) * NS_PER_MS);
        if self.table.wait_ns(name, pace, now_ns) > 0 {
            return true;
        }
        self.table.spend(name, pace, now_ns);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NS_PER_MS;

    #[test]
    fn of_the_clicks_of_one_user_on_one_ad_one_a_window_is_the_first() {
        let clicks = Refractory::new(1000, SipKey { k0: 1, k1: 2 });
        let is_again = |at_ms: u64, user_key, ad| clicks.is_again((1_000 + at_ms) * MS, 10_000, user_key, ad);
        assert!(!is_again(0, 7, 1), "the first");
        assert!(is_again(0, 7, 1) && is_again(9_999, 7, 1), "moments after it");
        assert!(!is_again(9_999, 7, 2) && !is_again(9_999, 8, 1), "another ad, another user");
        assert!(!is_again(10_000, 7, 1), "what is in the window does not make it longer");
        assert!(is_again(19_999, 7, 1));
    }

    #[test]
    fn without_room_nobody_is_taken_for_another() {
        let clicks = Refractory::new(1, SipKey { k0: 1, k1: 2 });
        assert!((1..1000).all(|user_key| !clicks.is_again(MS, 10_000, user_key, 1)));
    }
}
