//! What is replaced under a running node at SIGHUP: keys, certificate and catalog.
//!
//! Each for itself: what cannot be read stays as it was, and the log says so. Everything else of the config
//! is what it was at the start.

use std::path::PathBuf;
use std::sync::Arc;

use weir_common::time::Minute;

use super::doors::Doors;
use super::settings;
use crate::admission::Admission;
use crate::config::{self, Config, Host};
use crate::published::Published;

/// The parts of a run that can be replaced.
pub(super) struct Replaceable {
    /// Where the config was read.
    pub(super) file: PathBuf,
    /// What it said.
    pub(super) config: Config,
    /// Minutes before this one are final: [`crate::admission::Settings::closed_before`].
    pub(super) closed_before: Minute,
    /// The rules of admission, with the keys.
    pub(super) admission: Arc<Published<Admission>>,
    /// Certificate and catalog.
    pub(super) doors: Doors,
}

impl Replaceable {
    /// Reads all of it again.
    pub(super) fn reload(&mut self) {
        match config::load(&self.file, &Host::this()) {
            Ok(new) => self.replace_keys(new),
            Err(error) => tracing::error!(%error, "the keys are not replaced"),
        }
        self.doors.reload();
    }

    fn replace_keys(&mut self, new: Config) {
        let with_old_keys = Config { keys: self.config.keys.clone(), ..new };
        if with_old_keys != self.config {
            tracing::warn!(
                file = %self.file.display(),
                "the config has changed in more than its keys; for the rest of it restart the node"
            );
        }
        let renewed = Config { keys: new.keys, ..self.config.clone() };
        match settings::admission(&renewed, self.closed_before) {
            Ok(admission) => {
                let keys: Vec<_> = renewed.keys.iter().map(|key| (key.issuer, key.key)).collect();
                tracing::info!(issuers_and_keys = ?keys, "the keys are read again");
                self.admission.publish(admission);
                self.config = renewed;
            }
            Err(error) => tracing::error!(%error, "the keys are not replaced"),
        }
    }

    /// Frees what was replaced and no worker uses any more.
    pub(super) fn free_replaced(&self) {
        self.admission.free_retired();
        self.doors.free_replaced();
    }
}
