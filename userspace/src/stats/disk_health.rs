//! How a worker's journal stands with its disk, in numbers that fit a counter each.
//!
//! A worker may neither lock nor allocate to say why its disk failed, so it leaves an operation
//! and an error number; the control side makes words of them.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::journal::JournalState;

/// Whether blocks can become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalHealth {
    /// As it should be.
    #[default]
    Running = 0,
    /// The next segment cannot be made for want of space; it goes on by itself.
    NoSpace = 1,
    /// It takes nothing more until the daemon is started again.
    Halted = 2,
}

impl JournalHealth {
    /// All of them, the worst last.
    pub const ALL: [Self; 3] = [Self::Running, Self::NoSpace, Self::Halted];

    /// The name in the status and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NoSpace => "no_space",
            Self::Halted => "halted",
        }
    }

    /// What a gauge holds. A number it never held is the worst.
    #[must_use]
    pub fn from_gauge(number: u64) -> Self {
        Self::ALL.into_iter().find(|health| *health as u64 == number).unwrap_or(Self::Halted)
    }
}

impl From<&JournalState> for JournalHealth {
    fn from(state: &JournalState) -> Self {
        match state {
            JournalState::Running => Self::Running,
            JournalState::NoSpace => Self::NoSpace,
            JournalState::Halted(_) => Self::Halted,
        }
    }
}

/// What a journal asked of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// To make a segment: create, allocate, sync, and sync the folder.
    Create = 1,
    /// To write a block.
    Write = 2,
    /// To sync a group.
    Sync = 3,
    /// To make a segment within `journal.max_size`, which was not even tried.
    Bound = 4,
}

/// One operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// What was asked.
    pub operation: DiskOperation,
    /// The system's error number; 0 where there was none, as when a write took no byte.
    pub os_error: i32,
}

impl DiskFailure {
    /// An operation that failed with this error.
    #[must_use]
    pub fn new(operation: DiskOperation, error: &io::Error) -> Self {
        Self { operation, os_error: error.raw_os_error().unwrap_or(0) }
    }

    /// As one number, never 0.
    #[must_use]
    pub const fn to_number(self) -> u64 {
        (self.operation as u64) << 32 | self.os_error.cast_unsigned() as u64
    }

    /// From that number; 0 is no failure.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        let operation = match number >> 32 {
            1 => DiskOperation::Create,
            2 => DiskOperation::Write,
            3 => DiskOperation::Sync,
            4 => DiskOperation::Bound,
            _ => return None,
        };
        Some(Self { operation, os_error: (number as u32).cast_signed() })
    }
}

impl fmt::Display for DiskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.operation {
            DiskOperation::Create => "making a segment",
            DiskOperation::Write => "writing to a segment",
            DiskOperation::Sync => "fdatasync of a segment",
            DiskOperation::Bound => return f.write_str("the next segment would not fit `journal.max_size`"),
        };
        match self.os_error {
            0 => write!(f, "{what} failed without an error number"),
            code => write!(f, "{what} failed: {}", io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_after_its_way_through_a_counter() {
        use DiskOperation::{Bound, Create, Sync, Write};
        for operation in [Create, Write, Sync, Bound] {
            for os_error in [0, 5, 28, i32::MAX] {
                let failure = DiskFailure { operation, os_error };
                assert_eq!(DiskFailure::from_number(failure.to_number()), Some(failure));
            }
        }
        assert_eq!(DiskFailure::from_number(0), None);
        let failure = DiskFailure::new(DiskOperation::Sync, &io::Error::from_raw_os_error(5));
        assert_eq!(failure.to_string(), "fdatasync of a segment failed: Input/output error (os error 5)");
    }

    #[test]
    fn a_gauge_gives_back_the_health_it_was_set_to() {
        for health in JournalHealth::ALL {
            assert_eq!(JournalHealth::from_gauge(health as u64), health);
        }
        assert_eq!(JournalHealth::from_gauge(9), JournalHealth::Halted);
    }
}
