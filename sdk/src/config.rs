//! What a sender may use and how patient it is.

use weir_common::id::SHARD_BITS;

/// The most batches a sender can hold: a batch id carries its slot in 16 bits.
const BATCHES_MAX: usize = 1 << 16;

/// Bounds and delays of a [`crate::Sender`]. All durations are nanoseconds of the caller's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The sender's own number, 0 when it has none; stands in every datagram.
    pub source_id: u32,
    /// Clicks are grouped by this many leading bits of their shard, so 2^n datagrams fill at a time.
    /// 0 fills datagrams fastest; as many bits as the node has cores lets it steer each datagram to
    /// the core that owns all of its clicks.
    pub group_bits: u32,
    /// The most datagrams held, open or unacknowledged; about 1.7 KiB each.
    pub batches: usize,
    /// The longest a click waits for its datagram to fill.
    pub flush_after_ns: u64,
    /// The least wait for an ack. Above the node's group commit and the round trip.
    pub ack_timeout_ns: u64,
    /// Full jitter: the n-th wait is drawn from 0 to `backoff_base_ns` * 2^(n-1) ...
    pub backoff_base_ns: u64,
    /// ... but never from more than this.
    pub backoff_cap_ns: u64,
    /// After this many sends without a final answer a click is dropped as given up.
    pub attempts_max: u16,
    /// Seeds jitter and batch ids: draw it at random, so that nobody off the path can guess
    /// a batch id and acknowledge in the node's name.
    pub seed: u64,
}

impl Default for Config {
    /// One group, 1,024 datagrams (14,336 clicks), 5 ms to fill, 200 ms for an ack, 10 attempts
    /// over about half a minute. The seed is 0: set it.
    fn default() -> Self {
        Self {
            source_id: 0,
            group_bits: 0,
            batches: 1024,
            flush_after_ns: 5_000_000,
            ack_timeout_ns: 200_000_000,
            backoff_base_ns: 100_000_000,
            backoff_cap_ns: 10_000_000_000,
            attempts_max: 10,
            seed: 0,
        }
    }
}

/// Why a configuration cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum ConfigError {
    /// group_bits is {0}, but a shard has only 10 bits: set 0 to 10
    GroupBits(u32),
    /// batches is {0}: it must be above the number of groups (2^group_bits) and at most 65536
    Batches(usize),
    /// attempts_max is 0, so nothing would ever be sent: set at least 1
    NoAttempts,
}

impl Config {
    /// Number of groups.
    #[must_use]
    pub const fn groups(&self) -> usize {
        1 << self.group_bits
    }

    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub const fn check(&self) -> Result<(), ConfigError> {
        if self.group_bits > SHARD_BITS {
            return Err(ConfigError::GroupBits(self.group_bits));
        }
        if self.batches <= self.groups() || self.batches > BATCHES_MAX {
            return Err(ConfigError::Batches(self.batches));
        }
        if self.attempts_max == 0 {
            return Err(ConfigError::NoAttempts);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_works_and_each_bound_is_checked() {
        assert_eq!(Config::default().check(), Ok(()));
        let bad = |config: Config| config.check().unwrap_err();
        assert_eq!(bad(Config { group_bits: 11, ..Config::default() }), ConfigError::GroupBits(11));
        assert_eq!(bad(Config { batches: 1, ..Config::default() }), ConfigError::Batches(1));
        assert_eq!(bad(Config { batches: 65_537, ..Config::default() }), ConfigError::Batches(65_537));
        assert_eq!(bad(Config { attempts_max: 0, ..Config::default() }), ConfigError::NoAttempts);
    }
}
