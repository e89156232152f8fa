//! A token bucket over a monotonic clock: how many a second, and at most a second's worth at once.

/// Units of one token: at one token a second, one unit a nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// So many a second.
#[derive(Debug)]
pub(super) struct Rate {
    per_s: u64,
    units: u64,
    at_ns: u64,
}

impl Rate {
    /// A full bucket.
    pub(super) const fn new(per_s: u32) -> Self {
        let per_s = per_s as u64;
        Self { per_s, units: per_s * TOKEN, at_ns: 0 }
    }

    /// Takes a token, if there is one.
    pub(super) const fn take(&mut self, now_ns: u64) -> bool {
        let passed_ns = now_ns.saturating_sub(self.at_ns);
        self.at_ns = now_ns;
        let full = self.per_s * TOKEN;
        let units = self.units.saturating_add(passed_ns.saturating_mul(self.per_s));
        self.units = if units < full { units } else { full };
        let has_one = self.units >= TOKEN;
        if has_one {
            self.units -= TOKEN;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut Rate, now_ns: u64) -> usize {
        (0..100).take_while(|_| rate.take(now_ns)).count()
    }

    #[test]
    fn a_rate_gives_so_many_a_second_and_saves_up_for_one() {
        let mut rate = Rate::new(5);
        assert_eq!(taken(&mut rate, 0), 5);
        assert_eq!(taken(&mut rate, TOKEN / 5 - 1), 0);
        assert_eq!(taken(&mut rate, TOKEN / 5), 1);
        assert_eq!(taken(&mut rate, 100 * TOKEN), 5);
        assert_eq!(taken(&mut Rate::new(0), u64::MAX), 0);
    }
}
