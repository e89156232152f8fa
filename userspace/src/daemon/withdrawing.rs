//! Looks now and then whether the operator has taken the node out of service, or into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::withdrawal::{AtomicWithdrawal, Withdrawal, WithdrawalError};

/// One look costs a few microseconds of the main thread, and an operator waits for it.
const LOOK: Duration = Duration::from_millis(100);

/// The file, and who is told.
pub(super) struct Withdrawing {
    data_dir: PathBuf,
    told: Arc<AtomicWithdrawal>,
    looked: Instant,
    is_readable: bool,
}

impl Withdrawing {
    /// Looks for the first time.
    pub(super) fn begin(data_dir: &Path, told: &Arc<AtomicWithdrawal>) -> Result<Self, WithdrawalError> {
        let withdrawal = Withdrawal::read(data_dir)?;
        told.set(withdrawal);
        if withdrawal > Withdrawal::None {
            tracing::warn!(?withdrawal, "the node starts out of service; `weir undrain` ends that");
        }
        let (data_dir, told) = (data_dir.to_owned(), Arc::clone(told));
        Ok(Self { data_dir, told, looked: Instant::now(), is_readable: true })
    }

    /// Looks, if it is time. What cannot be read changes nothing, and is said once.
    pub(super) fn look_now_and_then(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        match Withdrawal::read(&self.data_dir) {
            Ok(now) => {
                self.is_readable = true;
                let before = self.told.set(now);
                if before != now {
                    tracing::info!(?before, ?now, "the operator takes the node out of service, or into it");
                }
            }
            Err(error) if self.is_readable => {
                self.is_readable = false;
                tracing::warn!(%error, "whether the node is in service stays as it was");
            }
            Err(_) => {}
        }
    }
}
