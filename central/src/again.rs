//! Doing things again: what a cluster that was away made fail, and what is done every so often. Always
//! ready to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long to wait before a cluster that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How soon a rest ends when it is time to stop.
const TICK: Duration = Duration::from_millis(50);

/// Rests for this long, unless told to stop.
pub(crate) fn rest(stop: &AtomicBool, duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until && !stop.load(Ordering::Acquire) {
        std::thread::sleep(TICK.min(duration));
    }
}

/// Does `once` again as long as its errors may pass, until told to stop. Says each error when it is new.
///
/// # Errors
/// The first that does not pass.
pub(crate) fn again_while<E: std::fmt::Display>(
    stop: &AtomicBool,
    what: &'static str,
    passes: impl Fn(&E) -> bool,
    mut once: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let mut last = String::new();
    while !stop.load(Ordering::Acquire) {
        match once() {
            Ok(()) => return Ok(()),
            Err(error) if passes(&error) => {
                let why = error.to_string();
                if why != last {
                    tracing::warn!(why, "{what}");
                    last = why;
                }
                rest(stop, RETRY);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
