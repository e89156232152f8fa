//! A batch that is staged whole, and what is to become of it: written down before anything is put.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{Entry, ObjectEntry};

const NAME: &str = "plan.json";

/// A batch that is staged whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// What becomes part of the manifest.
    pub(super) entry: Entry,
    /// The staged file of each object, in the same order.
    pub(super) staged: Vec<PathBuf>,
}

impl Plan {
    /// The plan in a folder, if there is one. One that was not written whole is none.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(NAME)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, durable and whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(folder.join(NAME))?;
        File::open(folder)?.sync_all()
    }

    /// Forgets it, and its files.
    pub(super) fn remove(&self, folder: &Path) -> io::Result<()> {
        fs::remove_file(folder.join(NAME))?;
        for staged in &self.staged {
            let _ = fs::remove_file(staged); // what is left the next spool removes
        }
        Ok(())
    }

    /// Whether all its files are still there.
    pub(super) fn is_staged(&self) -> bool {
        let is_there = |(object, staged): (&ObjectEntry, &PathBuf)| {
            fs::metadata(staged).is_ok_and(|found| found.len() == object.bytes)
        };
        self.entry.objects.len() == self.staged.len()
            && self.entry.objects.iter().zip(&self.staged).all(is_there)
    }
}
