//! The node's time: one for all workers and the forwarder, and whether it can be relied on.
//!
//! A system clock may be at 1970 after a power cut, years ahead, or stepped while clicks come in.
//! The [`judge`] decides what to make of it, by values alone; [`NodeClock`] carries the decision to
//! those who need the time, without a lock; [`Watch`] is the loop between the two. So a worker
//! reads the monotonic clock and adds what was decided, and never sees a clock that jumps.
//!
//! While the time is in [`Doubt`] it goes on by the monotonic clock from the last moment that was
//! relied on. Clicks are taken; nothing becomes final, and nothing is deleted for its age.
//! Start reading at [`judge`].

mod doubt;
pub mod judge;
mod system;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weir_common::time::UnixMs;

pub use doubt::Doubt;
use judge::ISSUES_HEARD;
pub use judge::{Judge, Settings, Signed, Time};
pub use system::system_clock;

/// Two readings further apart than this were not of one moment, for something came between them.
const ONE_MOMENT: Duration = Duration::from_millis(100);
/// How often one moment is tried for. A machine that never manages is judged by what it gives.
const MOMENT_ATTEMPTS: u32 = 5;

/// What the node takes for the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time. From one thread's reading to its next it never runs backwards.
    pub time: UnixMs,
    /// Why it cannot be relied on, if it cannot.
    pub doubt: Option<Doubt>,
}

/// The node's time as every thread reads it: a few relaxed loads.
#[derive(Debug)]
pub struct NodeClock {
    origin: Instant,
    /// Node time less monotonic time since the origin.
    offset_ms: AtomicI64,
    floor_ms: AtomicU64,
    /// [`Doubt::number`]; 0 for none.
    doubt: AtomicU8,
    /// What the system clock said when it was last looked at.
    system_ms: AtomicU64,
    /// Whether signed clicks are to be noted.
    is_hearing: AtomicBool,
    /// Whether they should be.
    is_alert: AtomicBool,
    /// Signed clicks since the last look that are in time by the node's.
    in_time: AtomicU64,
    /// Those that it takes for issued in the future, and when the last of them were issued.
    future: AtomicUsize,
    issued_ms: [AtomicU64; ISSUES_HEARD],
}

impl Default for NodeClock {
    /// A clock that takes the system's word, once; until a [`Watch`] tells it better.
    fn default() -> Self {
        let (origin, system) = (Instant::now(), system_clock());
        Self {
            origin,
            offset_ms: AtomicI64::new(system.0.cast_signed()),
            floor_ms: AtomicU64::new(0),
            doubt: AtomicU8::new(0),
            system_ms: AtomicU64::new(system.0),
            is_hearing: AtomicBool::new(false),
            is_alert: AtomicBool::new(false),
            in_time: AtomicU64::new(0),
            future: AtomicUsize::new(0),
            issued_ms: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl NodeClock {
    /// Nanoseconds since the clock was made.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// The node's time when the monotonic clock shows this.
    #[inline]
    #[must_use]
    pub fn at(&self, monotonic_ns: u64) -> Reading {
        let monotonic_ms = (monotonic_ns / 1_000_000).cast_signed();
        let doubt = Doubt::from_number(self.doubt.load(Ordering::Acquire));
        let time = monotonic_ms.saturating_add(self.offset_ms.load(Ordering::Relaxed)).max(0);
        let floor = self.floor_ms.load(Ordering::Relaxed);
        Reading { time: UnixMs(time.cast_unsigned().max(floor)), doubt }
    }

    /// The node's time now.
    #[must_use]
    pub fn read(&self) -> Reading {
        self.at(self.monotonic_ns())
    }

    /// What the system clock said when it was last looked at.
    #[must_use]
    pub fn system(&self) -> UnixMs {
        UnixMs(self.system_ms.load(Ordering::Relaxed))
    }

    /// There was a click as for [`NodeClock::note_future`] among clicks of which none are noted,
    /// because the clock was not [hearing](NodeClock::is_hearing) when they were looked at.
    pub fn alert(&self) {
        self.is_alert.store(true, Ordering::Relaxed);
    }

    /// A click whose signature is right was issued at a time that the node takes for the future.
    /// Whoever notes these notes those in time likewise: it is the majority that counts.
    pub fn note_future(&self, issued_at: UnixMs) {
        let at = self.future.fetch_add(1, Ordering::Relaxed) % ISSUES_HEARD;
        self.issued_ms[at].store(issued_at.0, Ordering::Relaxed);
    }

    /// Whether it matters how many signed clicks are in time: the time is in doubt, or some are not.
    /// Otherwise none are to be noted: workers would share a cache line for nothing.
    #[inline]
    #[must_use]
    pub fn is_hearing(&self) -> bool {
        self.is_hearing.load(Ordering::Relaxed)
    }

    /// So many clicks whose signature is right are in time.
    pub fn note_in_time(&self, clicks: u64) {
        self.in_time.fetch_add(clicks, Ordering::Relaxed);
    }

    fn take_signed(&self) -> Signed {
        let in_time = self.in_time.swap(0, Ordering::Relaxed);
        let future = self.future.swap(0, Ordering::Relaxed);
        let issued = self.issued_ms.iter().take(future.min(ISSUES_HEARD));
        // One that is counted and not there yet says what stood there before: an older issue, or zero.
        // The middle of many hardly moves for it.
        let issued = issued.map(|ms| UnixMs(ms.load(Ordering::Relaxed))).collect();
        let is_alert = self.is_alert.swap(false, Ordering::Relaxed);
        Signed { in_time, future: future as u64, issued, is_alert }
    }

    /// What holds from now on.
    pub fn set(&self, time: Time, system: UnixMs) {
        self.system_ms.store(system.0, Ordering::Relaxed);
        self.floor_ms.store(time.floor.0, Ordering::Relaxed);
        self.offset_ms.store(time.offset_ms, Ordering::Relaxed);
        self.doubt.store(time.doubt.map_or(0, Doubt::number), Ordering::Release);
    }
}

/// Looks at the clocks now and then, and tells all threads what to make of them.
#[derive(Debug)]
pub struct Watch {
    judge: Judge,
    told: Option<Doubt>,
}

impl Watch {
    /// A watch that begins with `newest`, the latest time in the journal, if there is one.
    /// `is_vouched_for`: an operator says that the system clock is right.
    #[must_use]
    pub fn begin(
        clock: &NodeClock,
        settings: Settings,
        newest: Option<UnixMs>,
        is_vouched_for: bool,
    ) -> Self {
        let (monotonic_ns, system) = one_moment(clock);
        Self::begin_at(clock, settings, (monotonic_ns, system), newest, is_vouched_for)
    }

    /// As [`Watch::begin`], when the two clocks show this.
    #[must_use]
    pub fn begin_at(
        clock: &NodeClock,
        settings: Settings,
        (monotonic_ns, system): (u64, UnixMs),
        newest: Option<UnixMs>,
        is_vouched_for: bool,
    ) -> Self {
        let judge = Judge::begin(settings, monotonic_ns / 1_000_000, system, newest, is_vouched_for);
        let mut watch = Self { judge, told: None };
        watch.tell(clock, system, monotonic_ns);
        watch
    }

    /// Looks at the clocks.
    pub fn look(&mut self, clock: &NodeClock) {
        let (monotonic_ns, system) = one_moment(clock);
        self.look_at(clock, monotonic_ns, system);
    }

    /// Takes note that the clocks show this.
    pub fn look_at(&mut self, clock: &NodeClock, monotonic_ns: u64, system: UnixMs) {
        self.judge.look(monotonic_ns / 1_000_000, system, clock.take_signed());
        self.tell(clock, system, monotonic_ns);
    }

    fn tell(&mut self, clock: &NodeClock, system: UnixMs, monotonic_ns: u64) {
        let time = self.judge.time();
        clock.set(time, system);
        clock.is_hearing.store(self.judge.is_hearing(), Ordering::Relaxed);
        if time.doubt == self.told {
            return;
        }
        let node_ms = clock.at(monotonic_ns).time.0;
        match time.doubt {
            Some(doubt) => tracing::error!(
                doubt = doubt.name(),
                system_ms = system.0,
                node_ms,
                remedy = doubt.remedy(),
                "time_uncertain: {} Clicks are taken; no minute becomes final and nothing is deleted for its age until it is over",
                doubt.cause()
            ),
            None => tracing::info!(system_ms = system.0, node_ms, "the node's time is certain again"),
        }
        self.told = time.doubt;
    }
}

/// Both clocks at one moment, as near as the machine allows.
fn one_moment(clock: &NodeClock) -> (u64, UnixMs) {
    let mut read = (0, UnixMs(0));
    for _ in 0..MOMENT_ATTEMPTS {
        let before = Instant::now();
        read = (clock.monotonic_ns(), system_clock());
        if before.elapsed() <= ONE_MOMENT {
            break;
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn clock_at(system: UnixMs) -> (NodeClock, Watch) {
        let clock = NodeClock::default();
        let settings = Settings::new(86_400_000, 60_000);
        let watch = Watch::begin_at(&clock, settings, (0, system), None, false);
        (clock, watch)
    }

    #[test]
    fn threads_read_what_was_decided_and_not_what_the_system_says() {
        let (clock, mut watch) = clock_at(NOW);
        assert_eq!(clock.at(7_000_000), Reading { time: UnixMs(NOW.0 + 7), doubt: None });
        watch.look_at(&clock, 10_000_000, UnixMs(NOW.0 + 3_600_010));
        let doubted = Reading { time: UnixMs(NOW.0 + 20), doubt: Some(Doubt::SteppedAhead) };
        assert_eq!(clock.at(20_000_000), doubted);
        assert_eq!(clock.system(), UnixMs(NOW.0 + 3_600_010));
    }

    #[test]
    fn what_signed_clicks_say_is_heard_once() {
        let (clock, _) = clock_at(NOW);
        clock.note_future(UnixMs(5));
        clock.note_future(UnixMs(3));
        clock.note_in_time(7);
        clock.alert();
        let heard = Signed { in_time: 7, future: 2, issued: vec![UnixMs(5), UnixMs(3)], is_alert: true };
        assert_eq!(clock.take_signed(), heard);
        assert_eq!(clock.take_signed(), Signed::default());
    }

    #[test]
    fn the_default_clock_is_the_systems() {
        let (read, system) = (NodeClock::default().read(), system_clock());
        assert!(read.time.0.abs_diff(system.0) < 10_000 && read.doubt.is_none(), "{read:?}");
    }
}
