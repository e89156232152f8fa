//! Points in time as the counts use them. Wall clock only; nothing here reads a clock.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Milliseconds in a minute.
pub const MS_PER_MINUTE: u64 = 60_000;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The minute this moment belongs to. Moments past the year 10136 share the last minute.
    #[inline]
    #[must_use]
    pub const fn minute(self) -> Minute {
        let minute = self.0 / MS_PER_MINUTE;
        Minute(if minute > u32::MAX as u64 { u32::MAX } else { minute as u32 })
    }

    /// Whole seconds since the epoch, saturating at `u32::MAX` (the year 2106).
    #[inline]
    #[must_use]
    pub const fn seconds(self) -> u32 {
        let seconds = self.0 / 1000;
        if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
    }
}

/// Minutes since the Unix epoch, UTC: the grain of every bucket.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Minute(pub u32);

impl Minute {
    /// The first millisecond of this minute.
    #[inline]
    #[must_use]
    pub const fn start(self) -> UnixMs {
        UnixMs(self.0 as u64 * MS_PER_MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_starts_at_its_own_first_millisecond() {
        let minute = UnixMs(1_700_000_123_456).minute();
        assert_eq!(minute.start().minute(), minute);
        assert_eq!(UnixMs(minute.start().0 - 1).minute(), Minute(minute.0 - 1));
        assert_eq!(UnixMs(minute.start().0 + MS_PER_MINUTE).minute(), Minute(minute.0 + 1));
    }

    #[test]
    fn a_moment_beyond_the_range_saturates_instead_of_wrapping() {
        assert_eq!(UnixMs(u64::MAX).minute(), Minute(u32::MAX));
        assert_eq!(UnixMs(u64::MAX).seconds(), u32::MAX);
    }
}
