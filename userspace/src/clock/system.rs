//! The system's wall clock, and the switch that sets it wrong in the build for labs.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_common::time::UnixMs;

/// The wall clock; 1970 when it is before that.
#[must_use]
pub fn system_clock() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    shifted(since.as_millis() as u64)
}

#[cfg(not(feature = "disk-faults"))]
const fn shifted(now_ms: u64) -> UnixMs {
    UnixMs(now_ms)
}

/// In the build for labs the file that `WEIR_CLOCK` names says by how many seconds the clock is
/// wrong; it is read each time. A time namespace cannot do this: it has no wall clock of its own.
#[cfg(feature = "disk-faults")]
fn shifted(now_ms: u64) -> UnixMs {
    let told = std::env::var_os("WEIR_CLOCK").and_then(|path| std::fs::read_to_string(path).ok());
    let by_s: i64 = told.and_then(|told| told.trim().parse().ok()).unwrap_or(0);
    UnixMs(now_ms.saturating_add_signed(by_s.saturating_mul(1000)))
}
