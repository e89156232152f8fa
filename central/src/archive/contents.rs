//! What is in the archive now, kept from one question to the next: of manifest and audit only what is new is read.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::audit::{self, Line};
use super::manifest::{Entry, Hour, ObjectEntry};
use super::place::{Place, PlaceError};

/// What the archive has.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    entries: Vec<Entry>,
    lines: Vec<Line>,
}

impl Contents {
    /// The manifest, and of each object what has become of it.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What was done to objects.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The objects of clicks that were received in these hours.
    pub fn objects(&self, hours: Range<Hour>) -> impl Iterator<Item = &ObjectEntry> {
        let all = self.entries.iter().flat_map(|entry| &entry.objects);
        all.filter(move |object| hours.contains(&object.hour))
    }

    /// How many batches.
    #[must_use]
    pub const fn batches(&self) -> usize {
        self.entries.len()
    }

    /// What stood in Kafka at this time is in it, ms since 1970.
    #[must_use]
    pub fn read_until_ms(&self) -> Option<u64> {
        self.entries.iter().rev().find_map(|entry| entry.read_until_ms)
    }
}

/// An archive, and what was in it when somebody looked last.
#[derive(Debug)]
pub struct Catalog {
    place: Place,
    known: Mutex<Arc<Contents>>,
}

impl Catalog {
    /// Of this archive. Nothing is read yet.
    #[must_use]
    pub fn of(place: Place) -> Self {
        Self { place, known: Mutex::default() }
    }

    /// The archive.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// What is in it now. Of many who look at the same time one reads.
    ///
    /// # Errors
    /// When manifest or audit cannot be read.
    pub async fn look(&self) -> Result<Arc<Contents>, PlaceError> {
        let mut known = self.known.lock().await;
        let new = self.place.manifest_from(known.entries.len() as u64).await?;
        // After the entries: what is deleted meanwhile is known to be.
        let lines = self.place.audit_from(known.lines.len() as u64).await?;
        if !new.is_empty() || !lines.is_empty() {
            let known = Arc::make_mut(&mut known);
            known.entries.extend(new);
            known.lines.extend(lines);
            audit::apply(&mut known.entries, &known.lines);
        }
        Ok(Arc::clone(&known))
    }
}
