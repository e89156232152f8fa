//! One worker's way through a drain: a state machine over what it sees.

use super::phase::Phase;

/// How long a socket must have been silent before it counts as read empty. Longer than a wake-up
/// takes, short beside a restart.
const SILENCE_NS: u64 = 20_000_000;
/// How long a drain reads on when the senders do not stop. They learn of the drain by their
/// unanswered clicks, and resend elsewhere.
const LINGER_NS: u64 = 500_000_000;

/// Where the worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Lingering { since_ns: u64 },
    Stopping,
    Finishing,
    Settled,
}

/// What the loop sees of itself.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Nanoseconds on the worker's clock.
    pub now_ns: u64,
    /// When the last datagram came.
    pub last_datagram_ns: u64,
    /// Receivers still armed.
    pub receivers_armed: usize,
    /// Nothing waits at the desk.
    pub settled: bool,
}

/// What the loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    None,
    /// Stop all receivers.
    StopReceiving,
    /// Seal what is left: no row will follow.
    SealLast,
}

/// A worker's drain.
#[derive(Debug)]
pub struct Drain(Stage);

impl Default for Drain {
    fn default() -> Self {
        Self(Stage::Reading)
    }
}

impl Drain {
    /// Whether the worker still reads, so that a stopped receiver is to be armed again.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        matches!(self.0, Stage::Reading | Stage::Lingering { .. })
    }

    /// Whether a drain is under way.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        !matches!(self.0, Stage::Reading)
    }

    /// Moves on by at most one stage.
    pub fn step(&mut self, phase: &Phase, view: View) -> Step {
        match self.0 {
            Stage::Reading if phase.is_draining() => self.0 = Stage::Lingering { since_ns: view.now_ns },
            Stage::Lingering { since_ns } => {
                let silent_ns = view.now_ns.saturating_sub(view.last_datagram_ns.max(since_ns));
                let is_silent = silent_ns >= SILENCE_NS || phase.is_handing_over();
                if is_silent || view.now_ns.saturating_sub(since_ns) >= LINGER_NS {
                    self.0 = Stage::Stopping;
                    return Step::StopReceiving;
                }
            }
            Stage::Stopping if view.receivers_armed == 0 => {
                phase.stopped_reading();
                self.0 = Stage::Finishing;
            }
            Stage::Finishing if phase.all_stopped_reading() && view.settled => {
                phase.settled();
                self.0 = Stage::Settled;
                return Step::SealLast;
            }
            Stage::Reading | Stage::Stopping | Stage::Finishing | Stage::Settled => {}
        }
        Step::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: View = View { now_ns: 0, last_datagram_ns: 0, receivers_armed: 1, settled: true };

    #[test]
    fn a_drain_reads_on_until_the_socket_was_silent() {
        let (phase, mut drain) = (Phase::new(1), Drain::default());
        assert_eq!(drain.step(&phase, QUIET), Step::None);
        assert!(!drain.has_begun());
        phase.drain();
        drain.step(&phase, QUIET);
        let busy = View { now_ns: SILENCE_NS, last_datagram_ns: SILENCE_NS - 1, ..QUIET };
        assert_eq!(drain.step(&phase, busy), Step::None);
        let silent = View { now_ns: 2 * SILENCE_NS, ..busy };
        assert_eq!(drain.step(&phase, silent), Step::StopReceiving);
        assert!(!drain.is_reading());
    }

    #[test]
    fn who_hands_over_leaves_what_waits_to_the_next_process() {
        let (phase, mut drain) = (Phase::new(1), Drain::default());
        phase.hand_over();
        drain.step(&phase, QUIET);
        assert_eq!(drain.step(&phase, View { last_datagram_ns: 1, now_ns: 1, ..QUIET }), Step::StopReceiving);
    }

    #[test]
    fn senders_that_do_not_stop_do_not_hold_up_a_drain() {
        let (phase, mut drain) = (Phase::new(1), Drain::default());
        phase.drain();
        drain.step(&phase, QUIET);
        let busy = View { now_ns: LINGER_NS, last_datagram_ns: LINGER_NS, ..QUIET };
        assert_eq!(drain.step(&phase, busy), Step::StopReceiving);
    }

    #[test]
    fn no_worker_settles_before_all_stopped_reading() {
        let phase = Phase::new(2);
        let mut drains = [Drain::default(), Drain::default()];
        phase.drain();
        let stopped = View { now_ns: LINGER_NS, receivers_armed: 0, ..QUIET };
        drains[0].step(&phase, QUIET);
        for _ in 0..3 {
            drains[0].step(&phase, stopped);
        }
        assert!(!phase.all_settled() && !phase.all_stopped_reading());
        drains[1].step(&phase, QUIET);
        for _ in 0..2 {
            drains[1].step(&phase, stopped);
        }
        let unsettled = View { settled: false, ..stopped };
        assert_eq!(drains[1].step(&phase, unsettled), Step::None);
        assert_eq!(drains[0].step(&phase, stopped), Step::SealLast);
        assert_eq!(drains[1].step(&phase, stopped), Step::SealLast);
        assert!(phase.all_settled());
        assert_eq!(drains[1].step(&phase, stopped), Step::None);
    }
}
