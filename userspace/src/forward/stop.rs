//! How a forwarder is told to end: set by the main thread, looked at by the forwarder.

use std::sync::atomic::{AtomicU8, Ordering};

const ASKED: u8 = 1;
const IN_HASTE: u8 = 2;

/// Whether to end, and how soon.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// Asks for the end after a last flush; `in_haste` where clicks wait for it, and for no longer than they can.
    pub fn ask(&self, in_haste: bool) {
        self.0.store(if in_haste { IN_HASTE } else { ASKED }, Ordering::Release);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) >= ASKED
    }

    /// Whether somebody waits for the end.
    #[must_use]
    pub fn is_in_haste(&self) -> bool {
        self.0.load(Ordering::Acquire) == IN_HASTE
    }
}
