//! What other rules change: what stands and the shadow, side by side.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_common::bucket::BucketTotals;
use weir_common::time::Minute;

use crate::reconcile::difference::{Cause, Cell};
use crate::reconcile::rules::Rules;
use crate::serve::answer::{Counts, text};

/// Campaigns that are printed: those that change most.
const SHOWN_MAX: usize = 20;

/// A count as it stands, and as it is in the shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Pair {
    pub(super) standing: Counts,
    pub(super) shadow: Counts,
}

/// What stands and what is in the shadow, by cell.
pub(super) fn paired(
    standing: BTreeMap<Cell, BucketTotals>,
    shadow: BTreeMap<Cell, BucketTotals>,
) -> BTreeMap<Cell, Pair> {
    let mut pairs: BTreeMap<Cell, Pair> = BTreeMap::new();
    for (cell, totals) in standing {
        pairs.entry(cell).or_default().standing = Counts(totals);
    }
    for (cell, totals) in shadow {
        pairs.entry(cell).or_default().shadow = Counts(totals);
    }
    pairs
}

impl Pair {
    fn add(&mut self, other: &Self) {
        self.standing.0.merge(&other.standing.0);
        self.shadow.0.merge(&other.shadow.0);
    }

    /// By how much billable clicks and cost change.
    fn change(&self) -> (i128, i128) {
        let [.., cost] = self.standing.values().map(i128::from);
        let [.., shadow_cost] = self.shadow.values().map(i128::from);
        let net = i128::from(self.shadow.0.billable()) - i128::from(self.standing.0.billable());
        (net, shadow_cost - cost)
    }
}

/// An object of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowObject {
    /// Where it stands.
    pub path: String,
    /// Its rows.
    pub rows: u64,
}

impl ShadowObject {
    pub(super) fn of(name: &str, start: Minute, rows: u64) -> Self {
        let time = text(start.start());
        let (day, time) = time.split_once('T').unwrap_or((&time, ""));
        let time: String = time.chars().filter(char::is_ascii_digit).collect();
        Self { path: format!("_shadow/{name}/day={day}/{time}.parquet"), rows }
    }
}

/// As a list: a number is no key of JSON.
fn listed<S: serde::Serializer>(campaigns: &BTreeMap<u32, Pair>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Campaign<'a> {
        campaign_id: u32,
        #[serde(flatten)]
        pair: &'a Pair,
    }
    to.collect_seq(campaigns.iter().map(|(id, pair)| Campaign { campaign_id: *id, pair }))
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The table.
    pub name: String,
    /// The rules that it was counted by.
    pub rules: String,
    /// The first moment of the range.
    pub start: String,
    /// The first one behind it.
    pub end: String,
    /// How many batches of the archive there were.
    pub batches: u64,
    #[serde(flatten)]
    total: Pair,
    #[serde(serialize_with = "listed")]
    campaigns: BTreeMap<u32, Pair>,
    /// Clicks that the shadow counts in another way than their node, by cause.
    pub clicks_by_cause: BTreeMap<Cause, u64>,
    /// The table's objects.
    pub objects: Vec<ShadowObject>,
}

impl Comparison {
    pub(super) fn of(name: &str, minutes: &std::ops::Range<Minute>, rules: &Rules, batches: u64) -> Self {
        Self {
            name: name.to_owned(),
            rules: rules.version.clone(),
            start: text(minutes.start.start()),
            end: text(minutes.end.start()),
            batches,
            total: Pair::default(),
            campaigns: BTreeMap::new(),
            clicks_by_cause: BTreeMap::new(),
            objects: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, cell: &Cell, pair: &Pair) {
        self.total.add(pair);
        self.campaigns.entry(cell.campaign).or_default().add(pair);
    }

    pub(super) fn note(&mut self, cause: Cause, clicks: u64) {
        *self.clicks_by_cause.entry(cause).or_default() += clicks;
    }

    pub(super) fn path(&self) -> String {
        format!("_shadow/{}/comparison.json", self.name)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // numbers and names: JSON has them
    }
}

/// For people: what changes, of all and of the campaigns that change most.
impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, rules, start, end, batches, .. } = self;
        writeln!(f, "{name}: {start} to {end} by rules {rules}, from {batches} batches")?;
        writeln!(f, "{:>12} {:>14} {:>14} {:>14} {:>18}", "", "clicks", "gross", "net", "cost in micros")?;
        for (name, counts) in [("standing", &self.total.standing), ("shadow", &self.total.shadow)] {
            let [clicks, gross, net, .., cost] = counts.values();
            writeln!(f, "{name:>12} {clicks:>14} {gross:>14} {net:>14} {cost:>18}")?;
        }
        let mut changed: Vec<_> =
            self.campaigns.iter().filter(|(_, pair)| pair.standing != pair.shadow).collect();
        changed.sort_by_key(|(campaign, pair)| (std::cmp::Reverse(pair.change().1.abs()), **campaign));
        writeln!(f, "{} of {} campaigns change", changed.len(), self.campaigns.len())?;
        for (campaign, pair) in changed.iter().take(SHOWN_MAX) {
            let (net, cost) = pair.change();
            writeln!(f, "{campaign:>12} {:>14} {:>14} {net:>+14} {cost:>+18}", "", "")?;
        }
        Ok(())
    }
}
