//! What a reconciliation says: the counts before and after, the adjustments between them, and what nothing
//! explains.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_common::bucket::BucketTotals;
use weir_common::time::Minute;

use super::Day;
use super::difference::{Cause, Cell, Change, Differences};
use super::rules::Rules;
use crate::serve::answer::Counts;

/// The most entries that nothing explains which are listed; all are counted.
const UNEXPLAINED_MAX: usize = 100;

/// One adjustment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjustment {
    /// The ad.
    pub ad_id: String,
    /// Its campaign.
    pub campaign_id: u32,
    /// Minutes since 1970.
    pub minute: u32,
    /// Why.
    pub cause: Cause,
    /// By how much.
    #[serde(flatten)]
    pub change: Change,
}

/// A count that no rows explain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unexplained {
    /// The ad.
    pub ad_id: String,
    /// Minutes since 1970.
    pub minute: u32,
    /// What the archive's rows add up to.
    pub archived: Counts,
    /// What was counted.
    pub counted: Counts,
}

/// A campaign's day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CampaignDay {
    /// The campaign.
    pub campaign_id: u32,
    /// As the nodes counted it.
    pub recorded: Counts,
    /// As it is to be counted.
    pub reconciled: Counts,
}

/// What a reconciliation came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The day.
    pub day: String,
    /// The rules that were applied.
    pub rules: String,
    /// How many batches of the archive there were.
    pub batches: u64,
    /// All ads together, as the nodes counted them.
    pub recorded: Counts,
    /// All ads together, as they are to be counted.
    pub reconciled: Counts,
    /// By campaign.
    pub campaigns: Vec<CampaignDay>,
    /// Clicks that are counted in another way than by their node, by cause.
    pub clicks_by_cause: BTreeMap<Cause, u64>,
    /// By ad, minute and cause.
    pub adjustments: Vec<Adjustment>,
    /// How many counts no rows explain. With any of them the day is not to be billed.
    pub unexplained_total: u64,
    /// The first of them.
    pub unexplained: Vec<Unexplained>,
}

fn total(cells: &BTreeMap<Cell, BucketTotals>) -> Counts {
    let mut total = BucketTotals::default();
    cells.values().for_each(|totals| total.merge(totals));
    Counts(total)
}

impl Report {
    /// The report of a day.
    #[must_use]
    pub fn of(
        day: &Day,
        rules: &Rules,
        batches: u64,
        differences: &Differences,
        unexplained: &BTreeMap<(u64, Minute), (BucketTotals, BucketTotals)>,
    ) -> Self {
        let Differences { recorded, recounted, changes, clicks } = differences;
        let mut campaigns: BTreeMap<u32, (BucketTotals, BucketTotals)> = BTreeMap::new();
        for (cell, totals) in recorded {
            campaigns.entry(cell.campaign).or_default().0.merge(totals);
        }
        for (cell, totals) in recounted {
            campaigns.entry(cell.campaign).or_default().1.merge(totals);
        }
        let campaign = |(campaign_id, (recorded, reconciled)): (u32, (BucketTotals, BucketTotals))| {
            CampaignDay { campaign_id, recorded: Counts(recorded), reconciled: Counts(reconciled) }
        };
        let adjustment = |((cell, cause), change): (&(Cell, Cause), &Change)| Adjustment {
            ad_id: cell.ad.to_string(),
            campaign_id: cell.campaign,
            minute: cell.minute.0,
            cause: *cause,
            change: *change,
        };
        let listed = unexplained.iter().take(UNEXPLAINED_MAX);
        let entry = |((ad, minute), (archived, counted)): (&(u64, Minute), &(BucketTotals, BucketTotals))| {
            let (archived, counted) = (Counts(*archived), Counts(*counted));
            Unexplained { ad_id: ad.to_string(), minute: minute.0, archived, counted }
        };
        Self {
            day: day.name(),
            rules: rules.version.clone(),
            batches,
            recorded: total(recorded),
            reconciled: total(recounted),
            campaigns: campaigns.into_iter().map(campaign).collect(),
            clicks_by_cause: clicks.clone(),
            adjustments: changes.iter().filter(|(_, change)| !change.is_none()).map(adjustment).collect(),
            unexplained_total: unexplained.len() as u64,
            unexplained: listed.map(entry).collect(),
        }
    }

    /// What names it: the day, the rules and the batches it rests on.
    #[must_use]
    pub fn name(&self) -> String {
        let rules: String =
            self.rules.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("{}/{rules}-{:012}", self.day, self.batches)
    }

    /// Where it stands in the archive.
    #[must_use]
    pub fn path(&self) -> String {
        format!("_reconciled/{}.json", self.name())
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // numbers and names: JSON has them
    }
}

/// For people: what was counted, what changes and why.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} by rules {}, from {} batches", self.day, self.rules, self.batches)?;
        writeln!(f, "{:>12} {:>14} {:>14} {:>14} {:>18}", "", "clicks", "gross", "net", "cost in micros")?;
        for (name, counts) in [("recorded", &self.recorded), ("reconciled", &self.reconciled)] {
            let [clicks, gross, net, .., cost] = counts.values();
            writeln!(f, "{name:>12} {clicks:>14} {gross:>14} {net:>14} {cost:>18}")?;
        }
        for (cause, clicks) in &self.clicks_by_cause {
            writeln!(f, "{clicks:>12} clicks are counted in another way: {}", cause.name())?;
        }
        match self.unexplained_total {
            0 => writeln!(f, "Every count is explained by its rows."),
            total => {
                writeln!(f, "{total} counts are NOT explained by the archive's rows; do not bill this day.")
            }
        }
    }
}
