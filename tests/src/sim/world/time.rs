//! What the clocks show, and what time it really is.

use weir::clock::Doubt;
use weir::clock::judge::STEP_MS;
use weir_common::time::UnixMs;

use super::super::Canary;
use super::super::host::Shown;
use super::super::oracle::Verdict;
use super::World;

impl World {
    /// Time passes.
    pub(super) fn pass(&mut self, ns: u64) {
        let now = self.clocks.get();
        let monotonic_ns = now.monotonic_ns + ns;
        let ms = monotonic_ns / 1_000_000 - now.monotonic_ns / 1_000_000;
        self.show(Shown { wall: UnixMs(now.wall.0 + ms), monotonic_ns });
    }

    /// The clocks show this now; the node looks at them, and the oracle at the node.
    pub(super) fn show(&mut self, shown: Shown) {
        self.clocks.set(shown);
        self.oracle.time(self.true_ms());
        let is_vouched_for = self.run.canary == Some(Canary::BelievedClock);
        let Some(node) = &mut self.node else { return };
        node.look(shown, is_vouched_for);
        let reading = node.clock.at(shown.monotonic_ns);
        if reading.doubt != Some(Doubt::NoTime) {
            self.oracle.time(reading.time.0);
        }
    }

    /// The true time: ad servers and senders have it, whatever the node's clock shows.
    pub(super) fn true_ms(&self) -> u64 {
        self.plan.starts_at_ms() + self.clocks.get().monotonic_ns / 1_000_000
    }

    /// Whether the system's wall clock is further off than any step that is followed.
    pub(super) fn clock_is_wrong(&self) -> bool {
        self.clocks.get().wall.0.abs_diff(self.true_ms()) > STEP_MS.unsigned_abs()
    }

    /// A clock that is far off, and at other times right, is never believed when it is not.
    ///
    /// # Errors
    /// When the node's time is ahead of the true one.
    pub(super) fn time_is_true(&self) -> Verdict {
        let Some(node) = self.node.as_ref().filter(|_| self.plan.clock_is_wild && !self.is_misled) else {
            return Ok(());
        };
        let node_ms = node.clock.at(self.clocks.get().monotonic_ns).time.0;
        let true_ms = self.true_ms();
        if node_ms <= true_ms + STEP_MS.unsigned_abs() {
            return Ok(());
        }
        Err(format!("the node takes {node_ms} for the time, and it is {true_ms}"))
    }

    pub(super) fn step_clock(&mut self) {
        let now = self.clocks.get();
        let wall = if self.plan.clock_is_wild {
            self.wild_clock()
        } else {
            let far = self.chance.pick(&[1000, 60_000, 600_000]);
            let by = self.chance.below(far);
            if self.chance.one_in(2) { now.wall.0 + by } else { now.wall.0 - by }
        };
        self.tell(|| format!("the wall clock goes from {} to {wall}", now.wall.0));
        self.show(Shown { wall: UnixMs(wall), ..now });
    }

    /// Right, an hour or years off, or at 1970.
    pub(super) fn wild_clock(&mut self) -> u64 {
        const HOUR_MS: u64 = 3_600_000;
        const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
        let true_ms = self.true_ms();
        let by = self.chance.pick(&[0, 0, HOUR_MS, 3 * HOUR_MS, YEAR_MS, 23 * YEAR_MS]);
        match self.chance.below(5) {
            0 => self.chance.below(YEAR_MS),
            1 | 2 => true_ms - by.min(2 * YEAR_MS),
            _ => true_ms + by,
        }
    }
}
