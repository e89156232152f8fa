//! The processor time of a thread: what others do on the machine meanwhile costs it caches, but no
//! time it did not run.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the calling thread has run.
#[must_use]
pub fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}
