//! The time by this machine's clock: which window is the open one, when something was done and by what
//! age something goes. What is counted never rests on it.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_common::time::UnixMs;

/// Now.
#[must_use]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}
