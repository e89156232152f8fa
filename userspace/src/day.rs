//! A day, as keys of journals and salts of users are made for.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use weir_common::time::{Minute, UnixMs};

const MS_PER_DAY: u64 = 86_400_000;
const MINUTES_PER_DAY: u32 = 24 * 60;

/// A UTC day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(at: UnixMs) -> Self {
        Self(u32::try_from(at.0 / MS_PER_DAY).unwrap_or(u32::MAX))
    }

    /// The day of a minute.
    #[must_use]
    pub const fn of_minute(minute: Minute) -> Self {
        Self(minute.0 / MINUTES_PER_DAY)
    }

    /// The day after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// When it is over.
    #[must_use]
    pub const fn end(self) -> UnixMs {
        UnixMs((self.0 as u64 + 1) * MS_PER_DAY)
    }
}

impl fmt::Display for Day {
    /// As ISO 8601 has it, or as its number where that has no date.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(i64::from(self.0) * 86_400) {
            Ok(at) => write!(f, "{}", at.to_zoned(jiff::tz::TimeZone::UTC).date()),
            Err(_) => write!(f, "day-{}", self.0),
        }
    }
}

/// A text that no day is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDay;

impl FromStr for Day {
    type Err = NoDay;

    /// The day that is [shown](fmt::Display) as this text, and as no other.
    fn from_str(text: &str) -> Result<Self, NoDay> {
        let date: Date = text.parse().map_err(|_| NoDay)?;
        let days = date.since(Date::constant(1970, 1, 1)).map_err(|_| NoDay)?.get_days();
        let day = u32::try_from(days).map(Self).map_err(|_| NoDay)?;
        if day.to_string() == text { Ok(day) } else { Err(NoDay) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_and_read_as_its_date() {
        assert_eq!(Day::of(UnixMs(0)), Day(0));
        let midnight = UnixMs(20_000 * MS_PER_DAY);
        assert_eq!((Day::of(UnixMs(midnight.0 - 1)), Day::of(midnight)), (Day(19_999), Day(20_000)));
        assert_eq!((Day(19_999).end(), Day(19_999).next()), (midnight, Day(20_000)));
        assert_eq!(
            (Day::of_minute(midnight.minute()), Day(20_000).to_string()),
            (Day(20_000), "2024-10-04".into())
        );
        assert_eq!("2024-10-04".parse(), Ok(Day(20_000)));
        assert_eq!(Day::of(UnixMs(u64::MAX)).to_string(), "day-4294967295");
        for none in ["", "2024-13-01", "2024-1-1", "1969-12-31", "day-4294967295", "2024-10-04 "] {
            assert_eq!(none.parse::<Day>(), Err(NoDay), "{none:?}");
        }
    }
}
