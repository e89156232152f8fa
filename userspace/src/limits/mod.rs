//! Budgets: how many clicks a second a network, a user, an ad and a publisher may bring to this node.
//!
//! A click is taken when all four have room for it, and then it is charged to all four; else to none. What is
//! refused is counted, and its sender told to come back. Only clicks that admission has passed are
//! charged, so nobody can spend another's budget with forged ones.
//!
//! [`Refractory`] is the one budget whose end refuses nothing: of the unsigned clicks of a user on an ad one in
//! some seconds is countable, the others are repeats.
//!
//! All workers share one table, without locks: see [`pace`]. It never waits and never reads a clock. Start
//! reading at [`Limits::charge`].

mod pace;
mod refractory;

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::siphash::{SipKey, siphash24};

use pace::Table;
pub use pace::{Budget, Pace};
pub use refractory::{Refractory, Window};

/// After so long a sender may try again whose budget is spent: none is less than a click a second.
pub const RETRY_AFTER_MS: u32 = 1000;

/// Whose budgets there are, from the widest to the narrowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The network of the source: /24 of IPv4, /48 of IPv6.
    Source,
    /// The user, by key.
    User,
    /// The ad.
    Ad,
    /// The publisher.
    Publisher,
}

impl Level {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 4] = [Self::Source, Self::User, Self::Ad, Self::Publisher];
}

/// The budgets of a node; one that is not there is without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// By [`Level`].
    pub budgets: [Option<Budget>; 4],
    /// Payers that can be told apart at once, 16 octets each.
    pub keys: usize,
}

impl Settings {
    /// Whether there is any budget.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.keys > 0 && self.budgets.iter().any(Option::is_some)
    }
}

/// Whose click it is. A value of 0, and no source, is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payers {
    /// Where it came from; none where that is a forwarder of others' clicks.
    pub source: Option<IpAddr>,
    /// The user key.
    pub user_key: u64,
    /// The ad.
    pub ad: u64,
    /// The publisher.
    pub publisher: u32,
}

/// The budgets, and what was spent of them.
#[derive(Debug)]
pub struct Limits {
    paces: [Option<Pace>; 4],
    table: Table,
    key: SipKey,
}

impl Limits {
    /// Nothing is spent yet. The key should be another at every start: who knows it can make others share a
    /// budget with him.
    #[must_use]
    pub fn new(settings: &Settings, key: SipKey) -> Arc<Self> {
        let paces = settings.budgets.map(|budget| budget.map(Pace::of));
        Arc::new(Self { paces, table: Table::new(settings.keys), key })
    }

    /// Charges a click to all who have a budget, and says how many of them it could not be charged to because
    /// their place was not to be had: others are spending at this moment in every place it could be.
    ///
    /// # Errors
    /// Who has spent his, the first of them; nobody is charged then.
    pub fn charge(&self, now_ns: u64, payers: &Payers) -> Result<u64, Level> {
        let names = Level::ALL.map(|level| payers.value(level).map(|value| self.name(level, value)));
        let charged = || {
            let each = Level::ALL.into_iter().zip(self.paces).zip(names);
            each.filter_map(|((level, pace), name)| Some((level, pace?, name?)))
        };
        for (level, pace, name) in charged() {
            if self.table.wait_ns(name, pace, now_ns) > 0 {
                return Err(level);
            }
        }
        let uncharged = charged().filter(|&(_, pace, name)| !self.table.spend(name, pace, now_ns));
        Ok(uncharged.count() as u64)
    }

    fn name(&self, level: Level, value: u64) -> u64 {
        // 0 is the name of an empty place.
        siphash24(&self.key, &[level as u64, value]).max(1)
    }
}

impl Payers {
    /// The number of a payer; none where there is none.
    fn value(&self, level: Level) -> Option<u64> {
        let number = |value: u64| (value > 0).then_some(value);
        match level {
            Level::Source => self.source.map(network),
            Level::User => number(self.user_key),
            Level::Ad => number(self.ad),
            Level::Publisher => number(u64::from(self.publisher)),
        }
    }
}

/// Who has one address of such a network has others of it too.
fn network(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(source) => u64::from(source.to_bits() >> 8),
        // No network of IPv4 has a bit up there.
        IpAddr::V6(source) => 1 << 63 | (source.to_bits() >> 80) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SipKey = SipKey { k0: 1, k1: 2 };
    const SECOND: u64 = 1_000_000_000;
    const PAYERS: Payers = Payers { source: None, user_key: 1, ad: 2, publisher: 3 };

    fn limits(budgets: [Option<Budget>; 4]) -> Arc<Limits> {
        Limits::new(&Settings { budgets, keys: 1024 }, KEY)
    }

    fn taken(limits: &Limits, now_ns: u64, payers: &Payers) -> usize {
        (0..100).take_while(|_| limits.charge(now_ns, payers).is_ok()).count()
    }

    #[test]
    fn each_payer_gets_his_burst_and_then_his_rate() {
        let limits = limits([None, Some(Budget { clicks_per_s: 2, burst: 5 }), None, None]);
        let other = Payers { user_key: 9, ..PAYERS };
        let now = 7 * SECOND;
        assert_eq!((taken(&limits, now, &PAYERS), taken(&limits, now, &other)), (5, 5));
        assert_eq!(limits.charge(now, &PAYERS), Err(Level::User));
        assert_eq!(taken(&limits, now + SECOND / 2 - 1, &PAYERS), 0);
        assert_eq!(taken(&limits, now + SECOND, &PAYERS), 2);
        assert_eq!(taken(&limits, now + 100 * SECOND, &PAYERS), 5, "no more than the burst is saved");
    }

    #[test]
    fn who_has_spent_his_budget_costs_the_others_nothing() {
        let small = Budget { clicks_per_s: 1, burst: 1 };
        let limits = limits([None, Some(small), Some(Budget { clicks_per_s: 1, burst: 3 }), None]);
        assert_eq!(taken(&limits, SECOND, &PAYERS), 1);
        // A hundred more of the one user did not spend what the ad has left for others.
        for user_key in [5, 6] {
            assert_eq!(taken(&limits, SECOND, &Payers { user_key, ..PAYERS }), 1);
        }
        assert_eq!(limits.charge(SECOND, &Payers { user_key: 7, ..PAYERS }), Err(Level::Ad));
    }

    #[test]
    fn what_could_not_be_charged_for_want_of_a_place_is_told() {
        let slow = Budget { clicks_per_s: 1, burst: 1 };
        let limits = Limits::new(&Settings { budgets: [None, Some(slow), None, None], keys: 1 }, KEY);
        let charged = (1..100).map(|user_key| limits.charge(SECOND, &Payers { user_key, ..PAYERS }));
        let uncharged: u64 = charged.map(|charged| charged.expect("each is new")).sum();
        assert_eq!(uncharged, 99 - 8, "there is one set of places");
    }

    #[test]
    fn a_network_is_one_source_and_nobody_pays_for_what_is_nobodys() {
        let limits = limits([Some(Budget { clicks_per_s: 1, burst: 1 }); 4]);
        let of = |source: &str| Payers { source: source.parse().ok(), user_key: 0, ad: 0, publisher: 0 };
        assert!(limits.charge(SECOND, &of("192.0.2.1")).is_ok());
        assert!(limits.charge(SECOND, &of("192.0.2.99")).is_err());
        assert!(limits.charge(SECOND, &of("::ffff:192.0.2.5")).is_err(), "IPv4 in IPv6 is IPv4");
        assert!(limits.charge(SECOND, &of("192.0.3.1")).is_ok());
        assert!(limits.charge(SECOND, &of("2001:db8:1:1::1")).is_ok());
        assert!(limits.charge(SECOND, &of("2001:db8:1:2::1")).is_err());
        let nobody = Payers { source: None, user_key: 0, ad: 0, publisher: 0 };
        assert_eq!(taken(&limits, SECOND, &nobody), 100);
    }
}
