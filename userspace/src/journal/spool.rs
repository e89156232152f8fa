//! How full the journal is, how fast it fills, and when to say so: a decision over values.
//!
//! The journal is the buffer for a sink that is away, so what matters is when there will be no room
//! for the next segment: within `journal.max_size`, or on the device, whichever comes first. What is
//! given up as it fills, and in which order, hangs on the [`Level`]; acknowledged clicks never are.
//! Start reading at [`Spool::look`].

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stats::Counter;

/// The room is remembered at this distance, ...
const SAMPLE_EVERY_MS: u64 = 10_000;
/// ... for a quarter of an hour: long enough that segments, which are taken whole, make a slope.
const SAMPLES_MAX: usize = 90;
/// Less than this is no slope yet.
const SPAN_MIN_MS: u64 = 60_000;
/// A level is left when it is this much, in thousandths, behind: so that a segment that comes and
/// goes is not an alarm each time.
const HYSTERESIS: u64 = 50;

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// Less than half.
    #[default]
    Ok = 0,
    /// Half or more: an alarm.
    Half = 1,
    /// Three quarters or more: an alarm, and no more samples of malformed input.
    ThreeQuarters = 2,
    /// Nine tenths or more: the last alarm before clicks are told to retry.
    Critical = 3,
}

impl Level {
    /// All levels, rising.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Half, Self::ThreeQuarters, Self::Critical];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Half => "half",
            Self::ThreeQuarters => "three_quarters",
            Self::Critical => "critical",
        }
    }

    /// Where it begins, in thousandths.
    const fn from(self) -> u64 {
        match self {
            Self::Ok => 0,
            Self::Half => 500,
            Self::ThreeQuarters => 750,
            Self::Critical => 900,
        }
    }

    /// The level at so many thousandths, after this one.
    fn after(self, per_mille: u64) -> Self {
        let is_reached = |level: &Self| {
            let slack = if *level <= self { HYSTERESIS } else { 0 };
            per_mille + slack >= level.from()
        };
        Self::ALL.into_iter().rev().find(is_reached).unwrap_or_default()
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Bytes of segments and digests.
    pub used: u64,
    /// `journal.max_size`.
    pub bytes_max: u64,
    /// Bytes free on the device; `u64::MAX` where that cannot be told.
    pub device_free: u64,
}

impl Measured {
    /// Bytes that are left for it.
    const fn room(self) -> u64 {
        let within = self.bytes_max.saturating_sub(self.used);
        if within < self.device_free { within } else { self.device_free }
    }
}

/// What is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes of segments and digests.
    pub used: u64,
    /// Bytes there may be of them, as things stand.
    pub capacity: u64,
    /// The first in thousandths of the second.
    pub per_mille: u64,
    /// Seconds until there is no room, at the rate of the last quarter of an hour; none when the
    /// room does not shrink.
    pub seconds_to_full: Option<u64>,
    /// How full it is.
    pub level: Level,
}

/// The room of the last quarter of an hour, and the level that was told.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    /// (when, room), oldest first.
    samples: VecDeque<(u64, u64)>,
    level: Level,
}

impl Spool {
    /// Takes note of what is measured now.
    pub fn look(&mut self, now_ms: u64, measured: Measured) -> Found {
        let room = measured.room();
        let seconds_to_full = self.seconds_to_full(now_ms, room);
        let is_due = |&(at_ms, _): &(u64, u64)| now_ms.saturating_sub(at_ms) >= SAMPLE_EVERY_MS;
        if self.samples.back().is_none_or(is_due) {
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back((now_ms, room));
        }
        let capacity = measured.used.saturating_add(room);
        let per_mille = u128::from(measured.used) * 1000 / u128::from(capacity.max(1));
        let per_mille = if room == 0 { 1000 } else { per_mille as u64 };
        self.level = self.level.after(per_mille);
        Found { used: measured.used, capacity, per_mille, seconds_to_full, level: self.level }
    }

    fn seconds_to_full(&self, now_ms: u64, room: u64) -> Option<u64> {
        if room == 0 {
            return Some(0);
        }
        let &(since_ms, before) = self.samples.front()?;
        let span_ms = now_ms.saturating_sub(since_ms);
        let shrunk = before.checked_sub(room).filter(|shrunk| *shrunk > 0)?;
        if span_ms < SPAN_MIN_MS {
            return None;
        }
        u64::try_from(u128::from(room) * u128::from(span_ms) / u128::from(shrunk) / 1000).ok()
    }
}

/// The last that was found, for who reads it; one writer.
#[derive(Debug, Default)]
pub struct SpoolGauges {
    used: Counter,
    capacity: Counter,
    per_mille: Counter,
    /// One more than the seconds; 0 for none.
    seconds_to_full: Counter,
    level: Counter,
}

impl SpoolGauges {
    /// Keeps it.
    pub fn set(&self, found: &Found) {
        self.used.set(found.used);
        self.capacity.set(found.capacity);
        self.per_mille.set(found.per_mille);
        self.seconds_to_full.set(found.seconds_to_full.map_or(0, |seconds| seconds.saturating_add(1)));
        self.level.set(found.level as u64);
    }

    /// What was kept.
    #[must_use]
    pub fn get(&self) -> Found {
        Found {
            used: self.used.get(),
            capacity: self.capacity.get(),
            per_mille: self.per_mille.get(),
            seconds_to_full: self.seconds_to_full.get().checked_sub(1),
            level: Level::ALL.get(self.level.get() as usize).copied().unwrap_or_default(),
        }
    }
}

/// Watches the spool of a running node and says when its level changes.
#[derive(Debug)]
pub struct SpoolWatch {
    spool: Spool,
    gauges: Arc<SpoolGauges>,
}

impl SpoolWatch {
    /// A watch that writes to these gauges.
    #[must_use]
    pub fn new(gauges: Arc<SpoolGauges>) -> Self {
        Self { spool: Spool::default(), gauges }
    }

    /// Takes note of what is measured now; the level.
    pub fn look(&mut self, now_ms: u64, measured: Measured) -> Level {
        let before = self.spool.level;
        let found = self.spool.look(now_ms, measured);
        self.gauges.set(&found);
        let Found { used, capacity, per_mille, seconds_to_full, level } = found;
        let percent = per_mille / 10;
        if level > before {
            tracing::warn!(
                level = level.name(),
                used,
                capacity,
                seconds_to_full,
                "the journal is {percent} % full: see why the sink does not take what waits (`forward` in `weir status`), free space on its disk, or raise `journal.max_size`; when it is full clicks are told to retry, and nothing acknowledged is lost"
            );
        } else if level < before {
            tracing::info!(level = level.name(), used, capacity, "the journal is {percent} % full again");
        }
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    const fn measured(used: u64) -> Measured {
        Measured { used: used * GIB, bytes_max: 100 * GIB, device_free: u64::MAX }
    }

    #[test]
    fn a_filling_spool_is_an_alarm_at_half_three_quarters_and_nine_tenths() {
        let mut spool = Spool::default();
        let mut levels = |used: &[u64]| -> Vec<Level> {
            used.iter().map(|&used| spool.look(0, measured(used)).level).collect()
        };
        use Level::{Critical, Half, Ok, ThreeQuarters};
        assert_eq!(
            levels(&[0, 49, 50, 74, 75, 89, 90, 100]),
            [Ok, Ok, Half, Half, ThreeQuarters, ThreeQuarters, Critical, Critical]
        );
        // On the way down each is left five points later: what goes and comes back is no alarm.
        assert_eq!(
            levels(&[86, 90, 84, 71, 75, 69, 46, 50, 44, 49]),
            [Critical, Critical, ThreeQuarters, ThreeQuarters, ThreeQuarters, Half, Half, Half, Ok, Ok]
        );
        assert_eq!(levels(&[95, 0]), [Critical, Ok]);
    }

    #[test]
    fn a_device_with_less_room_than_the_bound_is_what_counts() {
        let mut spool = Spool::default();
        let found = spool.look(0, Measured { device_free: 10 * GIB, ..measured(30) });
        assert_eq!((found.capacity, found.per_mille, found.level), (40 * GIB, 750, Level::ThreeQuarters));
        let found = spool.look(0, Measured { device_free: 0, ..measured(30) });
        assert_eq!((found.per_mille, found.seconds_to_full), (1000, Some(0)));
        let found = spool.look(0, Measured { used: 0, bytes_max: 0, device_free: 0 });
        assert_eq!((found.per_mille, found.level), (1000, Level::Critical));
    }

    #[test]
    fn the_time_until_it_is_full_follows_the_last_quarter_of_an_hour() {
        let mut spool = Spool::default();
        let mut after = None;
        // A gibibyte a minute, from the first minute on.
        for second in 0..=1800 {
            after = spool.look(second * 1000, measured(second / 60)).seconds_to_full;
            assert!(second >= 60 || after.is_none(), "too early to say");
        }
        let minutes = after.unwrap() / 60;
        assert!((68..=72).contains(&minutes), "{minutes} minutes for the 70 that are left");
        // It stands, and then empties.
        for second in 1801..=2800 {
            after = spool.look(second * 1000, measured(30)).seconds_to_full;
        }
        assert_eq!(after, None);
        assert_eq!(spool.look(2_900_000, measured(10)).seconds_to_full, None);
        assert!(spool.samples.len() <= SAMPLES_MAX);
    }

    #[test]
    fn gauges_give_back_what_was_found() {
        let gauges = SpoolGauges::default();
        for seconds_to_full in [None, Some(0), Some(7)] {
            let found =
                Found { used: 5, capacity: 6, per_mille: 833, seconds_to_full, level: Level::ThreeQuarters };
            gauges.set(&found);
            assert_eq!(gauges.get(), found);
        }
    }
}
