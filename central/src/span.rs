//! Spans of time that are summed up beforehand.

use weir_common::time::Minute;

/// How much time one sum covers. All begin and end at UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Span {
    /// A minute.
    Minute = 0,
    /// An hour.
    Hour = 1,
    /// A day.
    Day = 2,
}

impl Span {
    /// All of them, shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// How many minutes it has.
    #[must_use]
    pub const fn minutes(self) -> u32 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }

    /// The first minute of the span that has this one in it.
    #[must_use]
    pub const fn start_of(self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0 % self.minutes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_begins_at_its_own_first_minute() {
        let minute = Minute(29_000_123);
        for span in Span::ALL {
            let start = span.start_of(minute);
            assert_eq!((start.0 % span.minutes(), span.start_of(start)), (0, start));
            assert!(start <= minute && minute.0 - start.0 < span.minutes());
        }
    }
}
