//! A node whose system clock is wrong as it is told: the build `weir-faulty`, and the file it takes
//! the error from.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::node::NodeFolder;

const PROGRAM: &str = "weir-faulty";

/// How wrong a clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is right.
    None,
    /// By so many seconds.
    Seconds(i64),
    /// It begins at 1970.
    To1970,
    /// It is at 2050.
    To2050,
}

/// The clock of one node.
#[derive(Debug)]
pub struct WrongClock(PathBuf);

impl WrongClock {
    /// Why there is no such node, if it was not built.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        crate::FaultyDisk::unavailable()
    }

    /// Lets a folder's nodes run on a clock that can be set wrong; at first it is right.
    #[must_use]
    pub fn of(folder: &mut NodeFolder) -> Self {
        let path = folder.path().join("clock");
        folder.run_with(PROGRAM, "WEIR_CLOCK", path.clone());
        Self(path)
    }

    /// Sets the clock.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, error: Error) -> Result<()> {
        const Y2050_S: i64 = 2_524_608_000;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed();
        let by_s = match error {
            Error::None => 0,
            Error::Seconds(seconds) => seconds,
            Error::To1970 => -now_s,
            Error::To2050 => Y2050_S - now_s,
        };
        // By way of another name: half a file must not be read.
        let half = self.0.with_extension("half");
        fs::write(&half, by_s.to_string())?;
        fs::rename(&half, &self.0).context("setting the clock")
    }
}
