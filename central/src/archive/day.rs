//! Days of an archive: of the time at which clicks were received, in UTC.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::manifest::Hour;

const HOURS_PER_DAY: u64 = 24;
const SECONDS_PER_DAY: u64 = 86_400;

/// A day since 1970. Written as 2026-01-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u64);

impl Day {
    /// The day that has this hour in it.
    #[must_use]
    pub const fn of(hour: Hour) -> Self {
        Self(hour.0 / HOURS_PER_DAY)
    }

    /// The day of this name, if it is one.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        let date: Date = name.parse().ok().filter(|_| name.len() == "2026-01-31".len())?;
        let start = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        u64::try_from(start).ok().map(|start| Self(start / SECONDS_PER_DAY))
    }

    /// Its name. A day that no calendar has is told as the last one that is.
    #[must_use]
    pub fn name(self) -> String {
        let seconds = i64::try_from(self.0.saturating_mul(SECONDS_PER_DAY)).unwrap_or(i64::MAX);
        let start = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        start.to_zoned(TimeZone::UTC).date().to_string()
    }

    /// The days whose clicks a count of this one may read, or that may read this one's: a signature lives for one.
    pub fn around(self) -> impl Iterator<Item = Self> {
        (self.0.saturating_sub(1)..=self.0.saturating_add(1)).map(Self)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::read(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no day")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_it_is_read_and_has_its_hours() {
        let day = Day::read("2026-11-23").unwrap();
        assert_eq!((day.name(), Day::of(Hour(day.0 * 24 + 23))), ("2026-11-23".to_owned(), day));
        assert_eq!(
            day.around().map(Day::name).collect::<Vec<_>>(),
            ["2026-11-22", "2026-11-23", "2026-11-24"]
        );
        for name in ["", "2026-11", "2026-02-30", "1969-12-31", "2026-11-23T00:00"] {
            assert_eq!(Day::read(name), None, "{name}");
        }
        assert_eq!(Day(u64::MAX).name(), "9999-12-30");
    }
}
