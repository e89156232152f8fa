//! What a seed makes of its run: sizes, rates, which faults there are.

use super::chance::Chance;
use super::limits::Limits;

/// The wall clock at the beginning of a run that midnight is not near to.
pub const START_MS: u64 = 1_800_000_000_000;

/// Of a run whose journal is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Encryption {
    /// The wall clock at the beginning of the run.
    pub starts_at_ms: u64,
    /// Keys that cannot be taken, of a thousand.
    pub fails: u64,
    /// Steps, of a hundred thousand, at which none can be taken for a while.
    pub goes_away: u64,
}

/// Shares of a thousand, unless the name says otherwise. A fault whose share is 0 does not occur:
/// each run has some of them, so that none hides behind another.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What clicks are held to.
    pub limits: Limits,
    /// Senders.
    pub senders: usize,
    /// The most workers of one start.
    pub workers_max: u64,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// How long a block's first row waits for company.
    pub commit_window_ms: u64,
    /// From flush to flush.
    pub flush_ms: u64,
    /// Bytes of a part of a batch.
    pub part_bytes: u64,
    /// Segments the journal may take.
    pub segments_max: u64,
    /// Memory for unique users.
    pub uniques_bytes: u64,
    /// Datagrams that reach the worker they should.
    pub steered: u64,
    /// Datagrams lost, either way.
    pub lost: u64,
    /// Datagrams that come twice.
    pub doubled: u64,
    /// Clicks that no node should take.
    pub unsound: u64,
    /// Clicks sent again long after they were acknowledged.
    pub resent: u64,
    /// Datagrams that are garbage.
    pub garbage: u64,
    /// Writes that fail.
    pub write_fails: u64,
    /// Writes that are short.
    pub write_is_short: u64,
    /// Syncs that fail.
    pub sync_fails: u64,
    /// Calls of a creation that fail.
    pub create_fails: u64,
    /// Removals that fail.
    pub remove_fails: u64,
    /// Commits of the sink that are refused.
    pub sink_refuses: u64,
    /// Commits whose answer is lost.
    pub sink_answer_lost: u64,
    /// Commits that take long.
    pub sink_is_slow: u64,
    /// Steps, of a hundred thousand, at which the disk fills up or has room again.
    pub disk_fills: u64,
    /// ... at which it can only be read, until a restart.
    pub disk_read_only: u64,
    /// ... at which the node dies, at some call soon after.
    pub crashes: u64,
    /// ... at which it is drained and started again.
    pub drains: u64,
    /// ... at which the wall clock is stepped.
    pub clock_steps: u64,
    /// Whether steps are of hours and years, and the clock is right at times; otherwise they are of
    /// up to ten minutes, and add up.
    pub clock_is_wild: bool,
    /// ... at which a closed segment is digested.
    pub digests: u64,
    /// ... at which minutes pass.
    pub pauses: u64,
    /// ... at which the disk destroys something that was durable.
    pub damage: u64,
    /// Whether the journal is encrypted, and what that meets with.
    pub encryption: Option<Encryption>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(chance: &mut Chance) -> Self {
        let mut sometimes = |share: u64| if chance.one_in(2) { chance.between(1, share) } else { 0 };
        Self {
            limits: Limits { lifetime_ms: 20 * 60_000, lateness_ms: 120_000, max_ahead_ms: 60_000 },
            lost: sometimes(200),
            doubled: sometimes(200),
            unsound: sometimes(100),
            resent: sometimes(300),
            garbage: sometimes(50),
            write_fails: sometimes(50),
            write_is_short: sometimes(100),
            sync_fails: sometimes(100),
            create_fails: sometimes(100),
            remove_fails: sometimes(300),
            sink_refuses: sometimes(300),
            sink_answer_lost: sometimes(300),
            sink_is_slow: sometimes(100),
            disk_fills: sometimes(500),
            disk_read_only: sometimes(50),
            crashes: sometimes(400),
            drains: sometimes(100),
            clock_steps: sometimes(300),
            pauses: sometimes(300),
            digests: sometimes(4000),
            // Less often: what is destroyed is excused, and the oracle sees less.
            damage: if sometimes(2) == 2 { sometimes(100) } else { 0 },
            clock_is_wild: chance.one_in(2),
            steered: chance.pick(&[0, 300, 700, 1000]),
            senders: chance.between(1, 3) as usize,
            workers_max: chance.between(1, 4),
            block_bytes: chance.pick(&[20_480, 20_480, 32_768]),
            commit_window_ms: chance.pick(&[0, 1, 5]),
            flush_ms: chance.pick(&[20, 200, 2000]),
            part_bytes: chance.pick(&[1, 4096, 64 << 20]),
            segments_max: chance.pick(&[12, 40, 1000, 1000]),
            uniques_bytes: chance.pick(&[1000, 1 << 20, 1 << 20, 1 << 20]),
            encryption: None,
        }
    }

    /// The wall clock at the beginning of the run.
    #[must_use]
    pub fn starts_at_ms(&self) -> u64 {
        self.encryption.map_or(START_MS, |encryption| encryption.starts_at_ms)
    }

    /// The same without any fault.
    #[must_use]
    pub fn healed(&self) -> Self {
        Self {
            lost: 0,
            doubled: 0,
            unsound: 0,
            resent: 0,
            garbage: 0,
            write_fails: 0,
            write_is_short: 0,
            sync_fails: 0,
            create_fails: 0,
            remove_fails: 0,
            sink_refuses: 0,
            sink_answer_lost: 0,
            sink_is_slow: 0,
            disk_fills: 0,
            disk_read_only: 0,
            crashes: 0,
            drains: 0,
            clock_steps: 0,
            pauses: 0,
            damage: 0,
            segments_max: 100_000,
            encryption: self.encryption.map(|it| Encryption { fails: 0, goes_away: 0, ..it }),
            ..self.clone()
        }
    }
}
