//! What to make of the system clock: a decision over values.
//!
//! Three witnesses tell the time, and none of them all of it. The *system clock* may show anything.
//! The *monotonic clock* says exactly how much time has passed since a moment that was relied on,
//! and nothing of the time before the node started. *What was written and signed before*, the newest
//! receive time in the journal and the issue times of signed clicks, says how late it is at least.
//! The system clock is believed as long as it agrees with the others; when it does not, the node's
//! time goes on by the monotonic clock, and is in [`Doubt`], until they agree again.
//!
//! The node's time never runs backwards, whatever is decided: so what has expired once is refused
//! as expired for good, and no click is counted twice for the sake of a clock.

use weir_common::time::UnixMs;

use super::doubt::Doubt;

/// No node has run before this: 2024-01-01, when nothing of Weir was written yet. Where a clock
/// that lost its power begins (1970, or the year its firmware was built) is before it, as a rule.
pub const EARLIEST: UnixMs = UnixMs(1_704_067_200_000);
/// No node of this release runs after this: 2044-01-01. Neither keys nor kernels live that long.
pub const LATEST: UnixMs = UnixMs(2_335_219_200_000);
const _: () = assert!(EARLIEST.0 < LATEST.0 && LATEST.seconds() < u32::MAX);

/// A difference to the monotonic clock that is no step. Clocks are slewed by 0.05 %, leap seconds
/// are one second, and time daemons step a running clock by less than that or because it is wrong.
/// Far less than what clicks may be late or ahead, so following it harms nothing.
pub const STEP_MS: i64 = 5_000;
/// How long a node may have been stopped when its clock, ahead of the journal by as much, is
/// believed at once: longer than an upgrade or a reboot. The dedupe state expires early by as much
/// if it was wrong, which the slack of its slices covers, at the usual lifetime.
const STOP_MS: u64 = 3_600_000;
/// How long a clock must run steadily before it is believed without another witness: twice what
/// time daemons need after a boot until they set a wrong clock right.
const SETTLE_MS: u64 = 2 * 60_000;
/// Signed clicks that are heard as one witness: fewer may all be of an ad server under test.
const WITNESSES: u64 = 8;
/// Issue times of which the middle one is taken. An ad server whose clock is wrong is a minority.
pub const ISSUES_HEARD: usize = 64;
/// How long what signed clicks say counts while nothing else is in doubt.
const HEARD_FOR_MS: u64 = 10_000;
/// How long ago the impressions that are clicked now were issued, the middle one of them.
const FRESH_MS: u64 = 10 * 60_000;

/// What a judge is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How far ahead of the journal a clock is believed at once.
    pub stop_ms: u64,
    /// How far from the node's time a clock may be that is believed when it has settled: beyond
    /// half a lifetime, dedupe would forget what it has to know.
    pub settled_gap_ms: u64,
    /// How long that takes.
    pub settle_ms: u64,
    /// How far ahead of the node honest clocks may be; admission's own.
    pub max_ahead_ms: u64,
}

impl Settings {
    /// The defaults for this lifetime of impressions and disagreement of honest clocks, in ms.
    #[must_use]
    pub const fn new(lifetime_ms: u64, max_ahead_ms: u64) -> Self {
        let half = lifetime_ms / 2;
        let stop_ms = if STOP_MS < half { STOP_MS } else { half };
        Self { stop_ms, settled_gap_ms: half, settle_ms: SETTLE_MS, max_ahead_ms }
    }
}

/// What clicks with a right signature say of the node's time. A resend says it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Clicks that are in time by it.
    pub in_time: u64,
    /// Clicks that were issued in its future.
    pub future: u64,
    /// When the last of those were issued, [`ISSUES_HEARD`] at the most.
    pub issued: Vec<UnixMs>,
    /// One from the future came while none were counted: a reason to count, and no verdict, for
    /// nobody knows how many were in time.
    pub is_alert: bool,
}

impl Signed {
    fn add(&mut self, more: Self) {
        self.in_time += more.in_time;
        self.future += more.future;
        self.is_alert |= more.is_alert;
        self.issued.extend(more.issued);
        let surplus = self.issued.len().saturating_sub(ISSUES_HEARD);
        self.issued.drain(..surplus);
    }

    /// The time that most of them say it is at least, when it is later than the node's.
    fn later_time(&self) -> Option<UnixMs> {
        if self.future < WITNESSES || self.future <= self.in_time {
            return None;
        }
        let mut issued = self.issued.clone();
        issued.sort_unstable();
        issued.get(issued.len() / 2).copied()
    }

    /// Whether most of them say that the node's time is right. Asked before there are so many
    /// resends of clicks from the future that those are the most.
    const fn confirm(&self) -> bool {
        self.in_time >= WITNESSES && self.in_time >= self.future
    }
}

/// What was decided: the node's time is the monotonic clock plus the offset, and never before the
/// floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Node time less monotonic time.
    pub offset_ms: i64,
    /// What the node's time has been already.
    pub floor: UnixMs,
    /// Why it cannot be relied on, if it cannot.
    pub doubt: Option<Doubt>,
}

impl Time {
    /// The node's time when the monotonic clock shows this.
    #[must_use]
    pub fn at(&self, monotonic_ms: u64) -> UnixMs {
        let time = monotonic_ms.cast_signed().saturating_add(self.offset_ms).max(0);
        UnixMs(time.cast_unsigned()).max(self.floor)
    }
}

/// What the node's time rests on while it is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    /// The monotonic clock, since a moment that was certain: it is exact.
    Moment,
    /// Something written or signed: it is at least so late.
    AtLeast,
    /// Nothing.
    Nothing,
}

/// What signed clicks have said of the node's time.
#[derive(Clone, Debug, Default)]
struct Heard {
    since_ms: u64,
    signed: Signed,
    /// Most were in time once: no other time is needed.
    is_confirmed: bool,
    /// When the last was heard that was issued in the future.
    future_at_ms: u64,
}

impl Heard {
    fn since(monotonic_ms: u64) -> Self {
        Self { since_ms: monotonic_ms, future_at_ms: monotonic_ms, ..Self::default() }
    }

    fn add(&mut self, monotonic_ms: u64, signed: Signed) {
        if signed.future > 0 || signed.is_alert {
            self.future_at_ms = monotonic_ms;
        }
        self.signed.add(signed);
        self.is_confirmed |= self.signed.confirm();
    }

    /// The time that they say it is at least, when it is later than the node's.
    fn later_time(&self) -> Option<UnixMs> {
        self.signed.later_time().filter(|_| !self.is_confirmed)
    }
}

/// Decides about the time, look by look.
#[derive(Clone, Debug)]
pub struct Judge {
    settings: Settings,
    time: Time,
    anchor: Anchor,
    /// The system clock less the monotonic one, at the last look.
    system_offset_ms: i64,
    /// Since when the system clock has not jumped.
    steady_since_ms: u64,
    heard: Heard,
}

impl Judge {
    /// Decides at the start of a node, whose journal has nothing newer than `newest`.
    /// `is_vouched_for`: an operator says that the system clock is right.
    #[must_use]
    pub fn begin(
        settings: Settings,
        monotonic_ms: u64,
        system: UnixMs,
        newest: Option<UnixMs>,
        is_vouched_for: bool,
    ) -> Self {
        // What a node wrote that did not know the time tells none.
        let newest = newest.filter(|newest| *newest >= EARLIEST);
        let from = newest.unwrap_or_default();
        let mut judge = Self {
            settings,
            time: Time { offset_ms: less(from, monotonic_ms), floor: from, doubt: None },
            anchor: if newest.is_some() { Anchor::AtLeast } else { Anchor::Nothing },
            system_offset_ms: less(system, monotonic_ms),
            steady_since_ms: monotonic_ms,
            heard: Heard::since(monotonic_ms),
        };
        let gap_ms = less(system, from.0);
        judge.time.doubt = match newest {
            Some(_) if is_vouched_for && gap_ms < -STEP_MS => Some(Doubt::BehindJournal),
            _ if is_vouched_for => None,
            None if is_plausible(system) => None,
            None => Some(Doubt::NoTime),
            Some(_) if !is_plausible(system) => Some(Doubt::Implausible),
            Some(_) if gap_ms > settings.stop_ms.cast_signed() => Some(Doubt::AheadOfJournal),
            Some(_) if gap_ms < -STEP_MS => Some(Doubt::BehindJournal),
            Some(_) => None,
        };
        if judge.time.doubt.is_none() {
            judge.believe(monotonic_ms);
        } else if is_vouched_for {
            judge.wait_for_system(monotonic_ms);
        }
        judge
    }

    /// What holds since the last look.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// Whether signed clicks are to be counted.
    #[must_use]
    pub const fn is_hearing(&self) -> bool {
        self.time.doubt.is_some() || self.heard.signed.future > 0 || self.heard.signed.is_alert
    }

    /// Takes note that the clocks show this, and of what signed clicks said since the last look.
    pub fn look(&mut self, monotonic_ms: u64, system: UnixMs, signed: Signed) {
        let system_offset_ms = less(system, monotonic_ms);
        if system_offset_ms.abs_diff(self.system_offset_ms) > STEP_MS.cast_unsigned() {
            self.steady_since_ms = monotonic_ms;
            self.heard = Heard::since(monotonic_ms);
        }
        self.system_offset_ms = system_offset_ms;
        self.heard.add(monotonic_ms, signed);
        let gap_ms = less(system, self.time.at(monotonic_ms).0);
        if self.time.doubt.is_some() {
            self.reconsider(monotonic_ms, system, gap_ms);
        } else if !is_plausible(system) || gap_ms.abs() > STEP_MS {
            self.doubt(monotonic_ms, doubt_of(system, gap_ms));
        } else if self.heard.later_time().is_some() {
            self.doubt(monotonic_ms, Doubt::SignedAhead);
        } else {
            self.follow(monotonic_ms);
        }
    }

    /// The system clock is believed as before.
    fn follow(&mut self, monotonic_ms: u64) {
        let floor = self.time.at(monotonic_ms);
        self.time = Time { offset_ms: self.system_offset_ms, floor, doubt: None };
        if monotonic_ms.saturating_sub(self.heard.since_ms) >= HEARD_FOR_MS {
            self.heard = Heard::since(monotonic_ms);
        }
    }

    /// The system clock is right from now on. Where it is behind, the node's time waits for it.
    fn believe(&mut self, monotonic_ms: u64) {
        self.follow(monotonic_ms);
        self.anchor = Anchor::Moment;
        self.heard = Heard::since(monotonic_ms);
    }

    fn doubt(&mut self, monotonic_ms: u64, doubt: Doubt) {
        // A clock that was believed and waited for goes on from where the node's time is.
        self.time.offset_ms = less(self.time.at(monotonic_ms), monotonic_ms);
        self.time.doubt = Some(doubt);
        self.anchor = Anchor::Moment;
        self.steady_since_ms = monotonic_ms;
        self.heard = Heard::since(monotonic_ms);
    }

    fn reconsider(&mut self, monotonic_ms: u64, system: UnixMs, gap_ms: i64) {
        let agrees = self.agrees(gap_ms) && self.is_answered(monotonic_ms);
        if is_plausible(system) && (agrees || self.is_borne_out(system, gap_ms)) {
            self.believe(monotonic_ms);
            return;
        }
        if self.time.doubt == Some(Doubt::SignedAhead) && gap_ms.abs() > STEP_MS {
            // Somebody sets the clock: from here it is a step like any other.
            self.time.doubt = Some(doubt_of(system, gap_ms));
        }
        let has_settled = monotonic_ms.saturating_sub(self.steady_since_ms) >= self.settings.settle_ms;
        let is_near = gap_ms.unsigned_abs() <= self.settings.settled_gap_ms;
        if is_plausible(system) && has_settled && is_near && !self.is_contradicted(system) {
            if gap_ms < 0 {
                self.wait_for_system(monotonic_ms);
                return;
            }
            if self.anchor == Anchor::AtLeast {
                self.believe(monotonic_ms);
                return;
            }
        }
        self.follow_signed(monotonic_ms, system, gap_ms);
    }

    /// Whether the system clock is where it may be by what the node's time rests on.
    fn agrees(&self, gap_ms: i64) -> bool {
        match self.anchor {
            Anchor::Moment => gap_ms.abs() <= STEP_MS,
            Anchor::AtLeast => (-STEP_MS..=self.settings.stop_ms.cast_signed()).contains(&gap_ms),
            Anchor::Nothing => true,
        }
    }

    /// Whether those who signed clicks from the future have nothing more to say.
    const fn is_answered(&self, monotonic_ms: u64) -> bool {
        let silent_ms = monotonic_ms.saturating_sub(self.heard.future_at_ms);
        !matches!(self.time.doubt, Some(Doubt::SignedAhead))
            || self.heard.is_confirmed
            || silent_ms >= self.settings.settle_ms
    }

    /// Whether signed clicks say that the node's time is behind, and that the system's is right.
    fn is_borne_out(&self, system: UnixMs, gap_ms: i64) -> bool {
        let is_near = |signed: UnixMs| signed.0.saturating_add(FRESH_MS) >= system.0;
        gap_ms > STEP_MS && self.heard.later_time().is_some_and(is_near) && !self.is_contradicted(system)
    }

    /// Whether signed clicks say that the system clock is behind.
    fn is_contradicted(&self, system: UnixMs) -> bool {
        let latest_ms = system.0.saturating_add(self.settings.max_ahead_ms);
        self.heard.later_time().is_some_and(|signed| signed.0 > latest_ms)
    }

    /// The system clock is behind, and right: settled for so long, or vouched for. The node's time stands
    /// still until it has caught up. That takes as long as the clock was wrong; meanwhile the time
    /// is in doubt, and nothing expires or becomes final by it.
    fn wait_for_system(&mut self, monotonic_ms: u64) {
        self.time.floor = self.time.at(monotonic_ms);
        self.time.offset_ms = self.system_offset_ms;
        self.anchor = Anchor::AtLeast;
    }

    /// It is as late, at least, as what was signed; as long as nothing exact is known, and the
    /// system clock, if it can be right at all, does not say that it is earlier.
    fn follow_signed(&mut self, monotonic_ms: u64, system: UnixMs, gap_ms: i64) {
        let Some(signed) = self.heard.later_time().filter(|signed| is_plausible(*signed)) else { return };
        let is_denied = is_plausible(system) && gap_ms > 0 && self.is_contradicted(system);
        let is_later = signed > self.time.at(monotonic_ms);
        if self.anchor == Anchor::Moment || is_denied || !is_later {
            return;
        }
        self.time.offset_ms = less(signed, monotonic_ms);
        self.anchor = Anchor::AtLeast;
        self.heard = Heard::since(monotonic_ms);
        if self.time.doubt == Some(Doubt::NoTime) {
            self.time.doubt = Some(Doubt::Implausible);
        }
    }
}

fn doubt_of(system: UnixMs, gap_ms: i64) -> Doubt {
    match gap_ms {
        _ if !is_plausible(system) => Doubt::Implausible,
        0.. => Doubt::SteppedAhead,
        _ => Doubt::SteppedBack,
    }
}

fn is_plausible(time: UnixMs) -> bool {
    (EARLIEST..=LATEST).contains(&time)
}

/// One moment less another, in ms.
const fn less(time: UnixMs, ms: u64) -> i64 {
    // Both are below 2^63 for the next 292 million years.
    time.0.cast_signed().saturating_sub(ms.cast_signed())
}

#[cfg(test)]
mod tests;
