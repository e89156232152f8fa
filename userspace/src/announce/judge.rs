//! When a node is announced, and when not: a fold over what is heard of it, without clock or I/O.
//!
//! A node is withdrawn at the first sign that clicks should not go there, and announced again only after it has been
//! ready for a while without a break: a withdrawal costs clicks a detour, an announcement of a node that cannot take
//! them costs the clicks. Start reading at [`Judge::take`].

use std::time::Duration;

/// Beats come every 50 ms. A node that misses four of them in a row is frozen, or its machine is.
pub const SILENCE_MAX: Duration = Duration::from_millis(200);
/// How long a node that cannot be reached is waited for at the start, while what BIRD does is not known: the announcer
/// may be the one that was away, and a node that goes on must not be withdrawn for that.
pub const START_MAX: Duration = Duration::from_secs(1);
/// An announcement that lasted for so many rises was a good one; a node whose last one was shorter flaps.
const STEADY_RISES: u32 = 20;
/// Each flap doubles the rise, up to sixteen times: 48 s at the default.
const FLAPS_MAX: u32 = 4;

/// What was heard of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A beat: clicks should come here.
    Ready,
    /// A beat: they should not, and why.
    Unready(String),
    /// The heartbeat's connection ended.
    Ended,
    /// There is no heartbeat to listen to, and why.
    Unreachable(String),
    /// Nothing; time has passed.
    Nothing,
}

/// Why a node is not announced.
#[derive(Clone, Debug, PartialEq, Eq, displaydoc::Display)]
pub enum Reason {
    /// the node says: {0}
    Unready(String),
    /// the node died: its heartbeat ended
    Ended,
    /// the node is frozen: no beat for 200 ms
    Silent,
    /// no node answers: {0}
    Unreachable(String),
    /// it is ready, and has to stay so for {0:?}
    Rising(Duration),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Nothing,
    /// Announce the node.
    Announce,
    /// Withdraw it.
    Withdraw(Reason),
}

/// How the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing was decided yet: it is announced, or not, as whoever was here before left it.
    Unknown,
    Announced {
        since: Duration,
    },
    Withdrawn,
}

/// Decides. Times are those of any clock that never goes back.
#[derive(Clone, Debug)]
pub struct Judge {
    rise: Duration,
    started: Duration,
    standing: Standing,
    /// The last beat of this connection; none once it was missed.
    last_beat: Option<Duration>,
    /// The first of the beats that all said that the node is ready, none missing.
    ready_since: Option<Duration>,
    /// Announcements in a row that were short.
    flaps: u32,
    /// Why the node is not announced, as far as that is known.
    why: Option<Reason>,
}

impl Judge {
    /// Nothing was heard yet.
    #[must_use]
    pub const fn new(started: Duration, rise: Duration) -> Self {
        let (standing, last_beat, ready_since, why) = (Standing::Unknown, None, None, None);
        Self { rise, started, standing, last_beat, ready_since, flaps: 0, why }
    }

    /// Takes what was heard, and when.
    pub fn take(&mut self, now: Duration, event: Event) -> Step {
        match event {
            Event::Ready => self.beat(now),
            Event::Unready(fault) => {
                self.last_beat = Some(now);
                self.withdraw(now, Reason::Unready(fault))
            }
            Event::Ended => {
                self.last_beat = None;
                self.withdraw(now, Reason::Ended)
            }
            Event::Unreachable(why) => {
                self.last_beat = None;
                if self.is_starting(now) {
                    self.ready_since = None;
                    return Step::Nothing;
                }
                self.withdraw(now, Reason::Unreachable(why))
            }
            Event::Nothing if self.deadline().is_some_and(|deadline| now >= deadline) => {
                self.last_beat = None;
                self.withdraw(now, Reason::Silent)
            }
            Event::Nothing => Step::Nothing,
        }
    }

    /// When [`Event::Nothing`] is an event.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let of_start = (self.standing == Standing::Unknown).then_some(self.started + START_MAX);
        self.last_beat.map(|beat| beat + SILENCE_MAX).or(of_start)
    }

    /// Whether the node is announced, if that was decided.
    #[must_use]
    pub const fn is_announced(&self) -> Option<bool> {
        match self.standing {
            Standing::Unknown => None,
            Standing::Announced { .. } => Some(true),
            Standing::Withdrawn => Some(false),
        }
    }

    /// Why it is not announced; none when it is, or when nobody knows.
    #[must_use]
    pub const fn why(&self) -> Option<&Reason> {
        self.why.as_ref()
    }

    fn beat(&mut self, now: Duration) -> Step {
        // Beats that were late, but are here before anybody looked, break the rise and not the announcement.
        let is_unbroken = self.last_beat.is_some_and(|beat| now.saturating_sub(beat) < SILENCE_MAX);
        let since = self.ready_since.filter(|_| is_unbroken).unwrap_or(now);
        (self.last_beat, self.ready_since) = (Some(now), Some(since));
        if matches!(self.standing, Standing::Announced { .. }) {
            return Step::Nothing;
        }
        let rise = self.rise_now();
        if now.saturating_sub(since) < rise {
            self.why = Some(Reason::Rising(rise));
            return Step::Nothing;
        }
        (self.standing, self.why) = (Standing::Announced { since: now }, None);
        Step::Announce
    }

    fn withdraw(&mut self, now: Duration, reason: Reason) -> Step {
        self.ready_since = None;
        self.why = Some(reason.clone());
        match self.standing {
            Standing::Withdrawn => return Step::Nothing,
            Standing::Unknown => {}
            Standing::Announced { since } => {
                let is_short = now.saturating_sub(since) < self.rise * STEADY_RISES;
                self.flaps = if is_short { (self.flaps + 1).min(FLAPS_MAX) } else { 0 };
            }
        }
        self.standing = Standing::Withdrawn;
        Step::Withdraw(reason)
    }

    fn rise_now(&self) -> Duration {
        self.rise * (1 << self.flaps)
    }

    fn is_starting(&self, now: Duration) -> bool {
        self.standing == Standing::Unknown && now.saturating_sub(self.started) < START_MAX
    }
}

#[cfg(test)]
mod tests;
