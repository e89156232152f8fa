//! Equips the journal folder with the keys of its encrypted segments, before anything is read of it.

use std::path::Path;
use std::sync::Arc;

use crate::config;
use crate::journal::keys::share_a_device;
use crate::journal::{DayKeys, Folder, KeyError, check_keys};

/// The same folder with the keys the config names, if it names such, when each encrypted segment in
/// it has its key.
///
/// # Errors
/// Which segment has none, or what is wrong with the keys' folder, and what to do.
pub(super) fn equip(folder: Folder, config: &config::Journal) -> Result<Folder, KeyError> {
    let folder = match &config.keys_dir {
        Some(keys_dir) => with_keys(folder, keys_dir, config.encrypt)?,
        None => folder,
    };
    check_keys(&folder.place())?;
    Ok(folder)
}

fn with_keys(folder: Folder, keys_dir: &Path, encrypt: bool) -> Result<Folder, KeyError> {
    let keys = DayKeys::open(keys_dir, folder.incarnation())?;
    if encrypt && share_a_device(keys.folder(), folder.segments()) {
        tracing::warn!(
            keys = %keys_dir.display(),
            "the journal's keys are on the device of its segments: who has that device has both; put journal.keys_dir elsewhere"
        );
    }
    Ok(if encrypt { folder.with_keys(Arc::new(keys)) } else { folder.reading_with(Arc::new(keys)) })
}
