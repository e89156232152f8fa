//! Whether requests leave on plan, and whose fault it is when they do not.
//!
//! Latencies begin at the planned time, so a request that waits for a connection makes them longer, never
//! shorter: it waits for the door, which has not answered on any of them. That is the measurement. But one that is
//! late although a connection was idle waits for the generator, which then did not make the load it was told to:
//! such a run says nothing.

/// What is known of first sends.
#[derive(Debug)]
pub struct Lateness {
    /// A send further behind plan is late.
    bound_ns: u64,
    /// Since when requests are due and every connection waits for its reply.
    held_up_since_ns: Option<u64>,
    /// Sends that the generator was late with.
    pub late: u64,
    /// Sends that waited for the door as long.
    pub held_up: u64,
    /// All first sends.
    pub first_sends: u64,
}

impl Lateness {
    /// Nothing sent yet.
    pub const fn new(bound_ns: u64) -> Self {
        Self { bound_ns, held_up_since_ns: None, late: 0, held_up: 0, first_sends: 0 }
    }

    /// Notes, after what could be sent was sent, whether a request is due and no connection idle.
    pub fn look(&mut self, now_ns: u64, is_held_up: bool) {
        self.held_up_since_ns = is_held_up.then(|| self.held_up_since_ns.unwrap_or(now_ns));
    }

    /// Notes a first send.
    pub fn sent(&mut self, planned_ns: u64, now_ns: u64) {
        self.first_sends += 1;
        // What was seen to be due too late was late before any connection was wanting.
        let seen_ns = self.held_up_since_ns.unwrap_or(now_ns);
        if seen_ns.saturating_sub(planned_ns) > self.bound_ns {
            self.late += 1;
        } else if now_ns.saturating_sub(planned_ns) > self.bound_ns {
            self.held_up += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_door_is_held_up_and_who_waits_for_the_generator_is_late() {
        let mut lateness = Lateness::new(10);
        lateness.sent(100, 110);
        assert_eq!((lateness.late, lateness.held_up), (0, 0), "on plan");
        lateness.sent(100, 111);
        assert_eq!((lateness.late, lateness.held_up), (1, 0), "connections were idle");
        lateness.look(120, true);
        lateness.look(140, true);
        lateness.sent(110, 150);
        lateness.sent(130, 150);
        assert_eq!((lateness.late, lateness.held_up), (1, 2), "seen in time, and no connection idle");
        lateness.sent(109, 150);
        assert_eq!((lateness.late, lateness.held_up), (2, 2), "seen too late");
        lateness.look(150, false);
        lateness.sent(130, 150);
        assert_eq!((lateness.late, lateness.held_up, lateness.first_sends), (3, 2, 6));
        // Held up once, then sent; what falls due after that is late again.
        lateness.look(160, true);
        lateness.sent(155, 165);
        lateness.look(165, false);
        lateness.sent(170, 190);
        assert_eq!((lateness.late, lateness.held_up), (4, 2), "an old wait excuses nothing");
    }
}
