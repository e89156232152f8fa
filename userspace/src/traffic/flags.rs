//! Everything that speaks against one click, and the one reason it is counted under.

use weir_common::reason::{FILTERED_SLOTS, FIRST_FILTERED, Reason};

/// A set of filtered reasons, in one octet: bit n is reason number [`FIRST_FILTERED`] + n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

const _: () = assert!(FILTERED_SLOTS == u8::BITS as usize);

impl Flags {
    /// Nothing speaks against the click.
    pub const NONE: Self = Self(0);

    /// The flags in these bits. All have a meaning, or will get one with a reason.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// As an octet.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether nothing speaks against the click.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this reason does.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & bit(reason) != 0
    }

    /// Adds a reason if it `holds`.
    #[inline]
    #[must_use]
    pub const fn with(self, reason: Reason, holds: bool) -> Self {
        Self(self.0 | if holds { bit(reason) } else { 0 })
    }

    /// The one reason that a bucket counts the click under: of those that hold the one with the
    /// lowest number. [`Reason::None`] when none does.
    ///
    /// So the order is that of the table of reasons: what the sender says himself, then what is
    /// certain by the address alone, then what rests on a user agent, and last what rests on a
    /// sample, on another table, or on other clicks.
    #[inline]
    #[must_use]
    pub const fn reason(self) -> Reason {
        if self.0 == 0 {
            return Reason::None;
        }
        match Reason::from_number(FIRST_FILTERED + self.0.trailing_zeros() as u8) {
            Some(reason) => reason,
            None => Reason::None,
        }
    }

    /// All reasons that hold, in that order.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().filter(move |&reason| self.contains(reason))
    }
}

/// The bit of a filtered reason, none of any other.
const fn bit(reason: Reason) -> u8 {
    let place = (reason as u8).wrapping_sub(FIRST_FILTERED);
    if place < u8::BITS as u8 { 1 << place } else { 0 }
}

#[cfg(test)]
mod tests {
    use weir_common::reason::Class;

    use super::*;

    #[test]
    fn each_filtered_reason_has_a_bit_and_no_other_reason_has() {
        let mut bits = 0;
        for &reason in Reason::ALL {
            let flags = Flags::NONE.with(reason, true);
            assert_eq!(flags.is_empty(), reason.class() != Class::Filtered, "{reason:?}");
            assert_eq!(flags.contains(reason), !flags.is_empty());
            assert_eq!(bits & flags.bits(), 0, "{reason:?}");
            assert_eq!(Flags::NONE.with(reason, false), Flags::NONE);
            bits |= flags.bits();
        }
    }

    #[test]
    fn of_several_reasons_the_first_in_the_fixed_order_is_counted() {
        use Reason::{
            Activity, BadActor, BadPrefix, DataCentre, ImpossibleGeography, Prefetch, Robot, TestTraffic,
        };
        let order =
            [TestTraffic, Prefetch, DataCentre, BadPrefix, Robot, BadActor, ImpossibleGeography, Activity];
        let mut flags = Flags::NONE;
        assert_eq!(flags.reason(), Reason::None);
        for (at, &reason) in order.iter().enumerate().rev() {
            flags = flags.with(reason, true);
            assert_eq!(flags.reason(), reason);
            assert_eq!(flags.reasons().collect::<Vec<_>>(), order[at..]);
            assert_eq!(Flags::from_bits(flags.bits()), flags);
        }
    }
}
