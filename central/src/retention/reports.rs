//! Which days were reconciled, and from how many batches: by the reports that are in the archive.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::archive::day::Day;
use crate::archive::place::{Place, PlaceError};

/// The part of a report that is of interest here.
#[derive(Deserialize)]
struct Report {
    batches: u64,
    unexplained_total: u64,
}

/// What was read of the reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    asked: BTreeSet<Day>,
    reconciled: BTreeMap<Day, u64>,
}

impl Reports {
    /// From how many batches each of these days was reconciled at last. If that left counts that no row explains it
    /// was not: its rows are what somebody has to look at.
    pub(super) async fn of(
        &mut self,
        place: &Place,
        days: BTreeSet<Day>,
    ) -> Result<&BTreeMap<Day, u64>, PlaceError> {
        for day in days {
            if !self.asked.insert(day) {
                continue;
            }
            // The name ends in the number of batches.
            let batches = |name: &String| name.rsplit('-').next().map(str::to_owned);
            let mut names = place.names(&format!("_reconciled/{day}")).await?;
            // What was billed was reconciled first.
            names.extend(place.names(&format!("_billed/{day}")).await?);
            let Some(name) = names.into_iter().max_by_key(batches) else { continue };
            let report: Report = serde_json::from_slice(&place.get(&name).await?)
                .map_err(|error| PlaceError::Manifest { path: name, why: error.to_string() })?;
            if report.unexplained_total == 0 {
                self.reconciled.insert(day, report.batches);
            }
        }
        Ok(&self.reconciled)
    }
}
