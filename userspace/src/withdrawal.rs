//! A node that its operator takes out of service: in two steps, and until he says otherwise, also over restarts.
//!
//! First it lets connections end: each request is the last of its connection. Then it says that it is not ready, and
//! whoever announces its addresses withdraws them. Clicks that come all the same are taken as ever. A file in the data
//! folder says how far it is; this module reads, writes and passes on, and decides nothing.

pub mod command;

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{fs, io};

use crate::state_file::{self, StateFileError};

/// Name of the file in the data folder.
const FILE_NAME: &str = "drained";

/// How far a node is out of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Withdrawal {
    /// Not at all.
    #[default]
    None = 0,
    /// Each request is the last of its connection.
    Finishing = 1,
    /// That, and it is not ready.
    Withdrawn = 2,
}

/// {0}; ask as the node's user, or as root
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub struct WithdrawalError(#[from] StateFileError);

impl Withdrawal {
    /// What the file in this data folder says. A text it does not know is the safe one: that nobody should come.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(data_dir: &Path) -> Result<Self, WithdrawalError> {
        let path = data_dir.join(FILE_NAME);
        match fs::read_to_string(&path) {
            Ok(text) if text == Self::Finishing.text() => Ok(Self::Finishing),
            Ok(_) => Ok(Self::Withdrawn),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Self::None),
            Err(source) => Err(StateFileError { doing: "read", path, source }.into()),
        }
    }

    /// Says so in this data folder, also for after a loss of power.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(self, data_dir: &Path) -> Result<(), WithdrawalError> {
        let path = data_dir.join(FILE_NAME);
        match self {
            Self::None => state_file::remove(&path)?,
            Self::Finishing | Self::Withdrawn => state_file::replace(&path, self.text())?,
        }
        Ok(())
    }

    const fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Finishing => "finishing\n",
            Self::Withdrawn => "withdrawn\n",
        }
    }
}

/// How far it is, as the main thread sets it and all others read it.
#[derive(Debug, Default)]
pub struct AtomicWithdrawal(AtomicU8);

impl AtomicWithdrawal {
    /// Sets it; what it was before.
    pub fn set(&self, withdrawal: Withdrawal) -> Withdrawal {
        of(self.0.swap(withdrawal as u8, Ordering::AcqRel))
    }

    /// How far it is now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Withdrawal {
        of(self.0.load(Ordering::Acquire))
    }
}

const fn of(number: u8) -> Withdrawal {
    match number {
        0 => Withdrawal::None,
        1 => Withdrawal::Finishing,
        _ => Withdrawal::Withdrawn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_said_is_read_again_and_half_a_word_keeps_clicks_away() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Withdrawal::read(folder.path()).unwrap(), Withdrawal::None);
        for said in [Withdrawal::Finishing, Withdrawal::Withdrawn, Withdrawal::None, Withdrawal::None] {
            said.write(folder.path()).unwrap();
            assert_eq!(Withdrawal::read(folder.path()).unwrap(), said);
        }
        fs::write(folder.path().join(FILE_NAME), "fini").unwrap();
        assert_eq!(Withdrawal::read(folder.path()).unwrap(), Withdrawal::Withdrawn);
    }
}
