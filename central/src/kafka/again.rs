//! Going on when a cluster was away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to wait before a cluster that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Does `once` again as long as its errors may pass, until told to stop. Says each error when it is new.
///
/// # Errors
/// The first that does not pass.
pub fn again_while<E: std::fmt::Display>(
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
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
