//! Windows in time: from what a request says to minutes, every bound checked.

use jiff::Timestamp;
use weir_common::time::Minute;

use super::query::{QueryError, digits, wrong};
use crate::span::Span;

/// How far back a question without a `start` begins, in windows.
const WINDOWS_DEFAULT: u32 = 60;
/// Times are before this minute, the first of the year 9000: behind it there is room for whole windows in what RFC 3339
/// can write.
pub(super) const MINUTE_END: u32 = 3_697_423_200;

/// How much time one point of an answer covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// A minute.
    OneMinute,
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    OneHour,
    /// A day, in UTC.
    OneDay,
}

impl Window {
    const ALL: [Self; 4] = [Self::OneMinute, Self::FiveMinutes, Self::OneHour, Self::OneDay];

    /// As it stands in a question.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneMinute => "1m",
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
            Self::OneDay => "1d",
        }
    }

    /// How many minutes it has.
    #[must_use]
    pub const fn minutes(self) -> u32 {
        match self {
            Self::OneMinute => 1,
            Self::FiveMinutes => 5,
            Self::OneHour => 60,
            Self::OneDay => 1440,
        }
    }

    /// The sums it is made of.
    #[must_use]
    pub const fn span(self) -> Span {
        match self {
            Self::OneMinute | Self::FiveMinutes => Span::Minute,
            Self::OneHour => Span::Hour,
            Self::OneDay => Span::Day,
        }
    }

    /// The first minute of the window that has this one in it.
    #[must_use]
    pub const fn start_of(self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0 % self.minutes())
    }

    fn read(value: Option<&str>) -> Result<Self, QueryError> {
        let Some(value) = value else { return Ok(Self::OneMinute) };
        let found = Self::ALL.into_iter().find(|window| window.name() == value);
        found.ok_or_else(|| wrong("window", value, "1m, 5m, 1h or 1d"))
    }
}

/// Windows in a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// What each covers.
    pub window: Window,
    /// The first minute of the first.
    pub start: Minute,
    /// The minute after the last.
    pub end: Minute,
}

/// A moment in RFC 3339, or in seconds since 1970.
pub(super) fn moment(name: &'static str, value: &str) -> Result<Minute, QueryError> {
    let seconds = digits(value).or_else(|| Some(value.parse::<Timestamp>().ok()?.as_second()));
    let minute = seconds.and_then(|seconds: i64| u32::try_from(seconds.div_euclid(60)).ok());
    let minute = minute.filter(|minute| *minute < MINUTE_END);
    let expected = "a time as 2026-01-31T12:00:00Z, or seconds since 1970";
    minute.map(Minute).ok_or_else(|| wrong(name, value, expected))
}

impl Windows {
    /// Those of a request that came in the minute `now`.
    pub(super) fn read(
        window: Option<&str>,
        (start, end): (Option<&str>, Option<&str>),
        now: Minute,
    ) -> Result<Self, QueryError> {
        let window = Window::read(window)?;
        // The end is exclusive, unless it is within a window: then that is the last.
        let end = match end {
            Some(end) => window.start_of(Minute(moment("end", end)?.0 + window.minutes() - 1)),
            None => Minute(window.start_of(now).0 + window.minutes()),
        };
        let start = match start {
            Some(start) => window.start_of(moment("start", start)?),
            None => Minute(end.0.saturating_sub(WINDOWS_DEFAULT * window.minutes())),
        };
        if start >= end {
            return Err(QueryError::Empty);
        }
        Ok(Self { window, start, end })
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        (self.end.0 - self.start.0) / self.window.minutes()
    }
}
