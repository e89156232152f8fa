//! Answers: from a view of the store to what is written. Every one says how complete and how fresh it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::reason::{FIRST_FILTERED, Reason};
use weir_common::time::{Minute, UnixMs};

use super::query::{Dimension, Listed, Order, Stats, Subject, Top};
use super::windows::{Window, Windows};
use crate::store::{StoreError, View};
use crate::watermark::Progress;

/// Entries that one answer may look at: about a second of one core, and 200 MB of a list of ads.
const ENTRIES_MAX: usize = 1_000_000;

/// Windows times ads of which users are counted in one answer: each is a union of sketches of up to 32 kB.
const UNIONS_MAX: usize = 50_000;

/// Why there is no answer.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum AnswerError {
    /// the range has more than 1,000,000 entries; ask for less of it, or for a longer window
    TooWide,
    /// {0}
    Store(#[from] StoreError),
}

/// What is counted in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BucketTotals);

/// The columns of [`Counts`], in order.
pub const COUNT_COLUMNS: [&str; 9] =
    ["click_count", "gross", "net", "repeat", "filtered", "late", "unsigned", "marked", "cost_micros"];

impl Counts {
    /// The values of [`COUNT_COLUMNS`].
    #[must_use]
    pub fn values(&self) -> [u64; 9] {
        let totals = &self.0;
        [
            totals.accepted.get(),
            totals.gross(),
            totals.billable(),
            totals.repeat.get(),
            totals.filtered.iter().fold(0, |sum, count| sum.wrapping_add(count.get())),
            totals.late.get(),
            totals.unsigned.get(),
            totals.marked.get(),
            totals.cost_micros.get(),
        ]
    }

    /// Filtered clicks by the name of their reason, where there are any.
    fn filtered_by_reason(&self) -> BTreeMap<String, u64> {
        let named = |(slot, count): (usize, u64)| {
            let reason = Reason::from_number(FIRST_FILTERED + slot as u8);
            let name = reason.map_or_else(
                || format!("reason_{}", FIRST_FILTERED + slot as u8),
                |reason| reason.name().to_owned(),
            );
            (name, count)
        };
        let counts = self.0.filtered.iter().map(|count| count.get()).enumerate();
        counts.filter(|(_, count)| *count > 0).map(named).collect()
    }

    fn order(&self, order: Order) -> u64 {
        match order {
            Order::ClickCount => self.0.accepted.get(),
            Order::Gross => self.0.gross(),
            Order::Net => self.0.billable(),
            Order::Cost => self.0.cost_micros.get(),
        }
    }
}

impl Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in COUNT_COLUMNS.iter().zip(self.values()) {
            map.serialize_entry(name, &value)?;
        }
        let by_reason = self.filtered_by_reason();
        if !by_reason.is_empty() {
            map.serialize_entry("filtered_by_reason", &by_reason)?;
        }
        map.end()
    }
}

/// One window of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// When the window begins.
    pub timestamp: String,
    /// The value of the dimension that the answer is split by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// How many users clicked; none while the window is open, and where that is not known.
    pub unique_users: Option<u64>,
    /// Whether it does not change any more.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// How complete and how fresh an answer is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completeness {
    /// Whether nothing in the answer changes any more.
    pub complete: bool,
    /// What is before this does not change any more.
    pub final_until: Option<String>,
    /// Every click acknowledged before this is counted.
    pub counted_until: Option<String>,
    /// How many nodes there are.
    pub nodes: usize,
    /// The node that is furthest behind.
    pub slowest_node: Option<u32>,
    /// Of campaigns: how many ads are counted of which the campaign is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unassigned_ads: Option<usize>,
}

/// What an answer is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Named {
    /// An ad.
    Ad {
        /// A string, for it may be larger than a JSON number can say everywhere.
        ad_id: String,
    },
    /// A campaign.
    Campaign {
        /// Its number.
        campaign_id: u32,
        /// How many ads it has.
        ads: usize,
    },
}

/// The answer about one ad, or one campaign.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatsAnswer {
    /// Which.
    #[serde(flatten)]
    pub of: Named,
    /// The window.
    pub window: &'static str,
    /// When the first one begins.
    pub start: String,
    /// When the last one ends.
    pub end: String,
    /// What it is split by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'static str>,
    /// The windows; split, only those with clicks.
    pub data: Vec<Point>,
    /// The `start` of the next page, if there is one.
    pub next: Option<String>,
    /// How complete and how fresh it is.
    pub completeness: Completeness,
}

/// What stands in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// An ad.
    Ad {
        /// As in [`Named`].
        ad_id: String,
    },
    /// A campaign; none for the ads of which that is not known yet.
    Campaign {
        /// Its number.
        campaign_id: Option<u32>,
    },
}

/// One ad or campaign of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopEntry {
    /// Which.
    #[serde(flatten)]
    pub of: Entry,
    /// What is counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The busiest ads or campaigns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopAnswer {
    /// The window that was summed up.
    pub window: &'static str,
    /// When it begins.
    pub start: String,
    /// When it ends.
    pub end: String,
    /// Busiest first.
    pub data: Vec<TopEntry>,
    /// All together.
    pub total: Counts,
    /// How many ads had clicks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ads: Option<usize>,
    /// Or how many campaigns; the ads of none count as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaigns: Option<usize>,
    /// How complete and how fresh it is.
    pub completeness: Completeness,
}

/// A moment in RFC 3339.
pub(crate) fn text(at: UnixMs) -> String {
    Timestamp::from_millisecond(at.0 as i64).map_or_else(|_| at.0.to_string(), |time| time.to_string())
}

impl Completeness {
    /// Of an answer that ends here.
    #[must_use]
    pub fn of(progress: &Progress, end: Minute) -> Self {
        let final_before = progress.final_before();
        let slowest = progress.nodes.iter().min_by_key(|(_, node)| (node.counted_until, node.final_before));
        Self {
            complete: final_before.is_some_and(|minute| end <= minute),
            final_until: final_before.filter(|minute| minute.0 > 0).map(|minute| text(minute.start())),
            counted_until: progress.counted_until().map(text),
            nodes: progress.nodes.len(),
            slowest_node: slowest.map(|(node, _)| node.0),
            unassigned_ads: None,
        }
    }

    /// Of an answer about campaigns: as long as there are ads of none it may lack their clicks.
    fn of_campaigns(self, view: &View) -> Result<Self, StoreError> {
        let unassigned = view.unassigned_ads()?;
        Ok(Self { complete: self.complete && unassigned == 0, unassigned_ads: Some(unassigned), ..self })
    }
}

/// Answers a question about one ad or campaign.
///
/// # Errors
/// When it is too wide, or the store fails.
pub fn stats(view: &View, progress: &Progress, asked: &Stats) -> Result<StatsAnswer, AnswerError> {
    let Windows { window, start, .. } = asked.windows;
    let end = asked.next().unwrap_or(asked.windows.end);
    let ads = match asked.of {
        Subject::Ad(ad) => vec![ad],
        Subject::Campaign(campaign) => view.ads_of(campaign)?,
    };
    let data = match asked.by {
        None => points(view, progress, (&ads, window), start..end)?,
        Some(dimension) => split_points(view, progress, (&ads, window), dimension, start..end)?,
    };
    let completeness = Completeness::of(progress, end);
    let (of, completeness) = match asked.of {
        Subject::Ad(ad) => (Named::Ad { ad_id: ad.to_string() }, completeness),
        Subject::Campaign(campaign_id) => {
            (Named::Campaign { campaign_id, ads: ads.len() }, completeness.of_campaigns(view)?)
        }
    };
    Ok(StatsAnswer {
        of,
        window: window.name(),
        start: text(start.start()),
        end: text(end.start()),
        by: asked.by.map(Dimension::name),
        data,
        next: asked.next().map(|next| text(next.start())),
        completeness,
    })
}

/// Every window of the range, those without clicks as well.
fn points(
    view: &View,
    progress: &Progress,
    (ads, window): (&[u64], Window),
    minutes: std::ops::Range<Minute>,
) -> Result<Vec<Point>, AnswerError> {
    let mut counts: BTreeMap<Minute, BucketTotals> = BTreeMap::new();
    let sums = ads.iter().flat_map(|ad| view.sums(window.span(), *ad, minutes.clone()));
    for (seen, sum) in sums.enumerate() {
        if seen == ENTRIES_MAX {
            return Err(AnswerError::TooWide);
        }
        let sum = sum?;
        counts.entry(window.start_of(sum.start)).or_default().merge(&sum.totals);
    }
    let unsketched = view.unsketched(minutes.clone())?;
    let final_before = progress.final_before().unwrap_or(Minute(0));
    let has_users = ads.len() * counts.len() <= UNIONS_MAX;
    let mut points = Vec::new();
    for start in (minutes.start.0..minutes.end.0).step_by(window.minutes() as usize).map(Minute) {
        let end = Minute(start.0 + window.minutes());
        let is_final = end <= final_before;
        let is_known = has_users && is_final && unsketched.range(start..end).next().is_none();
        let unique_users = if is_known && counts.contains_key(&start) {
            Some(users(view, window, ads, start..end)?)
        } else {
            is_known.then_some(0)
        };
        let counts = Counts(counts.get(&start).copied().unwrap_or_default());
        points.push(Point { timestamp: text(start.start()), value: None, counts, unique_users, is_final });
    }
    Ok(points)
}

/// A window whose ad has clicks and no sketch had none of a known user.
fn users(
    view: &View,
    window: Window,
    ads: &[u64],
    minutes: std::ops::Range<Minute>,
) -> Result<u64, StoreError> {
    Ok(view.users(window.span(), ads, minutes)?.unwrap_or(0.0).round() as u64)
}

/// The windows and values that have clicks. Users are not known by dimension.
fn split_points(
    view: &View,
    progress: &Progress,
    (ads, window): (&[u64], Window),
    dimension: Dimension,
    minutes: std::ops::Range<Minute>,
) -> Result<Vec<Point>, AnswerError> {
    let mut counts: BTreeMap<(Minute, String), BucketTotals> = BTreeMap::new();
    let splits = ads.iter().flat_map(|ad| view.splits(window.span(), *ad, minutes.clone()));
    for (seen, split) in splits.enumerate() {
        if seen == ENTRIES_MAX {
            return Err(AnswerError::TooWide);
        }
        let (key, totals) = split?;
        let start = window.start_of(Minute(key.minute.get()));
        counts.entry((start, value(&key, dimension))).or_default().merge(&totals);
    }
    let final_before = progress.final_before().unwrap_or(Minute(0));
    let point = |((start, value), totals): ((Minute, String), BucketTotals)| Point {
        timestamp: text(start.start()),
        value: Some(value),
        counts: Counts(totals),
        unique_users: None,
        is_final: start.0 + window.minutes() <= final_before.0,
    };
    Ok(counts.into_iter().map(point).collect())
}

fn value(key: &BucketKey, dimension: Dimension) -> String {
    match dimension {
        Dimension::Country if key.country == [0, 0] => String::new(),
        Dimension::Country => String::from_utf8_lossy(&key.country).into_owned(),
        Dimension::Device => key.device.to_string(),
        Dimension::Os => key.os.to_string(),
        Dimension::Publisher => key.publisher.to_string(),
        Dimension::Placement => key.placement.to_string(),
        Dimension::Creative => key.creative.to_string(),
        Dimension::Rules => key.rules.to_string(),
    }
}

/// Answers a question about the busiest ads or campaigns.
///
/// # Errors
/// When it is too wide, or the store fails.
pub fn top(view: &View, progress: &Progress, asked: &Top) -> Result<TopAnswer, AnswerError> {
    let Windows { window, start, end } = asked.windows;
    let mut ads: BTreeMap<u64, BucketTotals> = BTreeMap::new();
    let mut total = BucketTotals::default();
    for (seen, sum) in view.tops(window.span(), start..end).enumerate() {
        if seen == ENTRIES_MAX {
            return Err(AnswerError::TooWide);
        }
        let (ad, sum) = sum?;
        ads.entry(ad).or_default().merge(&sum.totals);
        total.merge(&sum.totals);
    }
    let completeness = Completeness::of(progress, end);
    let (data, ads, campaigns, completeness) = match asked.of {
        Listed::Ads => {
            let count = ads.len();
            let named = |ad: u64| Entry::Ad { ad_id: ad.to_string() };
            (busiest(ads, asked, named), Some(count), None, completeness)
        }
        Listed::Campaigns => {
            let mut campaigns: BTreeMap<Option<u32>, BucketTotals> = BTreeMap::new();
            for (ad, totals) in ads {
                campaigns.entry(view.campaign_of(ad)?).or_default().merge(&totals);
            }
            let count = campaigns.len();
            let named = |campaign_id| Entry::Campaign { campaign_id };
            (busiest(campaigns, asked, named), None, Some(count), completeness.of_campaigns(view)?)
        }
    };
    Ok(TopAnswer {
        window: window.name(),
        start: text(start.start()),
        end: text(end.start()),
        data,
        total: Counts(total),
        ads,
        campaigns,
        completeness,
    })
}

/// The first of them in the order that is asked for; of equals the lower number.
fn busiest<K: Ord + Copy>(
    found: BTreeMap<K, BucketTotals>,
    asked: &Top,
    named: impl Fn(K) -> Entry,
) -> Vec<TopEntry> {
    let mut found: Vec<_> = found.into_iter().map(|(key, totals)| (key, Counts(totals))).collect();
    found.sort_by_key(|(key, counts)| (std::cmp::Reverse(counts.order(asked.order)), *key));
    found.truncate(asked.limit as usize);
    found.into_iter().map(|(key, counts)| TopEntry { of: named(key), counts }).collect()
}
