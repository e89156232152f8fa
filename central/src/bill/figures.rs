//! What is billed of a campaign's day: three counts and an amount. Nothing here wraps or rounds.

use serde::{Deserialize, Serialize};

/// Millionths of the account's currency unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// How many are one unit.
const MICROS_PER_UNIT: u64 = 1_000_000;

/// In units, with all six decimals.
impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:06}", micros / MICROS_PER_UNIT, micros % MICROS_PER_UNIT)
    }
}

/// a figure is beyond 9,223,372,036,854,775,807; nothing was billed, so look for a price that is none
#[derive(Clone, Copy, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub struct Overflow;

/// What is billed, or by how much that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Figures {
    /// First clicks.
    pub click_count: i64,
    /// All traffic.
    pub gross: i64,
    /// Billable clicks.
    pub net: i64,
    /// What they cost.
    pub cost_micros: Micros,
}

impl Figures {
    /// The figures in the order in which tables have them.
    #[must_use]
    pub const fn values(&self) -> [i64; 4] {
        [self.click_count, self.gross, self.net, self.cost_micros.0]
    }

    /// Of values in that order.
    #[must_use]
    pub const fn of([click_count, gross, net, cost_micros]: [i64; 4]) -> Self {
        Self { click_count, gross, net, cost_micros: Micros(cost_micros) }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    ///
    /// # Errors
    /// When a figure has no room for that.
    pub fn plus(self, other: Self) -> Result<Self, Overflow> {
        self.each(other, i64::checked_add)
    }

    /// By how much this is more than the other.
    ///
    /// # Errors
    /// When a figure has no room for that.
    pub fn less(self, other: Self) -> Result<Self, Overflow> {
        self.each(other, i64::checked_sub)
    }

    fn each(self, other: Self, work: impl Fn(i64, i64) -> Option<i64>) -> Result<Self, Overflow> {
        let mut values = self.values();
        for (value, other) in values.iter_mut().zip(other.values()) {
            *value = work(*value, other).ok_or(Overflow)?;
        }
        Ok(Self::of(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_to_the_last_millionth() {
        let written = [0, 1, -1, 1_000_000, -12_345_678, i64::MAX, i64::MIN].map(|n| Micros(n).to_string());
        let expected = [
            "0.000000",
            "0.000001",
            "-0.000001",
            "1.000000",
            "-12.345678",
            "9223372036854.775807",
            "-9223372036854.775808",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_figure_without_room_is_an_error_and_no_other_figure() {
        for index in 0..4 {
            let (mut most, mut one) = ([0; 4], [0; 4]);
            (most[index], one[index]) = (i64::MAX, 1);
            let (most, one) = (Figures::of(most), Figures::of(one));
            assert_eq!(most.plus(one), Err(Overflow));
            assert_eq!(
                Figures::default().less(most).and_then(|least| least.less(one)?.less(one)),
                Err(Overflow)
            );
            assert_eq!(most.less(one).and_then(|less| less.plus(one)), Ok(most));
        }
    }
}
