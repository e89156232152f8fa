//! Questions: from the parameters of a request to what is to be looked up, every bound checked.

use serde::Deserialize;
use weir_common::time::Minute;

use super::windows::{Windows, moment};

/// Points of one page without a `limit`: a day of minutes.
const POINTS_DEFAULT: u32 = 1440;
/// The most points of one page: a week of minutes, and some 4 MB.
const POINTS_MAX: u32 = 10_080;
/// Ads of a list without a `limit`.
const ADS_DEFAULT: u32 = 10;
/// The most ads of a list.
const ADS_MAX: u32 = 1000;

/// Why a question cannot be answered. What it says goes to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum QueryError {
    /// {name} is missing
    Missing {
        /// The parameter.
        name: &'static str,
    },
    /// {name} is {value:?}: expected {expected}
    Value {
        /// The parameter.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// start is not before end
    Empty,
    /// ad_id and campaign_id are there both; ask about one of them
    Both,
}

/// The parameters of `/v1/stats` and `/v1/stats/stream` as they came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsParameters {
    /// The ad.
    pub ad_id: Option<String>,
    /// Or the campaign.
    pub campaign_id: Option<String>,
    /// The window.
    pub window: Option<String>,
    /// The first window has this moment in it.
    pub start: Option<String>,
    /// The windows end here, or where the one ends that has this moment in it.
    pub end: Option<String>,
    /// A dimension to split by.
    pub by: Option<String>,
    /// `json` or `csv`.
    pub format: Option<String>,
    /// Points of a page.
    pub limit: Option<String>,
}

/// The parameters of `/v1/stats/top` as they came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopParameters {
    /// The window.
    pub window: Option<String>,
    /// As in [`StatsParameters`].
    pub start: Option<String>,
    /// As in [`StatsParameters`].
    pub end: Option<String>,
    /// Whether ads or campaigns.
    pub of: Option<String>,
    /// What they are ordered by.
    pub order: Option<String>,
    /// `json` or `csv`.
    pub format: Option<String>,
    /// How many.
    pub limit: Option<String>,
}

/// The parameters of `/v1/minutes` as they came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinutesParameters {
    /// The first minute has this moment in it.
    pub start: Option<String>,
    /// The minutes end here.
    pub end: Option<String>,
}

impl MinutesParameters {
    /// The minutes, at most `max` of them.
    ///
    /// # Errors
    /// When there are none, or too many.
    pub fn read(&self, max: u32) -> Result<std::ops::Range<Minute>, QueryError> {
        let start = self.start.as_deref().ok_or(QueryError::Missing { name: "start" })?;
        let end = self.end.as_deref().ok_or(QueryError::Missing { name: "end" })?;
        let (first, last) = (moment("start", start)?, moment("end", end)?);
        if first >= last {
            return Err(QueryError::Empty);
        }
        if last.0 - first.0 > max {
            return Err(wrong("end", end, "at most 60 minutes after start"));
        }
        Ok(first..last)
    }
}

/// A dimension to split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The country.
    Country,
    /// The device class.
    Device,
    /// The operating system.
    Os,
    /// The publisher.
    Publisher,
    /// The placement.
    Placement,
    /// The creative.
    Creative,
    /// The version of the traffic rules.
    Rules,
}

impl Dimension {
    const ALL: [Self; 7] = [
        Self::Country,
        Self::Device,
        Self::Os,
        Self::Publisher,
        Self::Placement,
        Self::Creative,
        Self::Rules,
    ];

    /// As it stands in a question.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::Device => "device",
            Self::Os => "os",
            Self::Publisher => "publisher",
            Self::Placement => "placement",
            Self::Creative => "creative",
            Self::Rules => "rules",
        }
    }
}

/// What ads are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// First clicks.
    ClickCount,
    /// All traffic.
    Gross,
    /// Billable clicks.
    Net,
    /// What they cost.
    Cost,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON.
    Json,
    /// CSV, a line a point.
    Csv,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One ad.
    Ad(u64),
    /// All ads of one campaign.
    Campaign(u32),
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listed {
    /// Ads.
    Ads,
    /// Campaigns.
    Campaigns,
}

/// A question about one ad, or one campaign.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stats {
    /// Of what.
    pub of: Subject,
    /// When.
    pub windows: Windows,
    /// What to split by.
    pub by: Option<Dimension>,
    /// The most windows of this page.
    pub limit: u32,
}

/// A question about the busiest ads or campaigns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Top {
    /// Which of them.
    pub of: Listed,
    /// When, summed up.
    pub windows: Windows,
    /// What is most.
    pub order: Order,
    /// How many.
    pub limit: u32,
}

pub(super) fn wrong(name: &'static str, value: &str, expected: &'static str) -> QueryError {
    QueryError::Value { name, value: value.chars().take(64).collect(), expected }
}

/// A number in digits alone: `parse` would take a sign as well.
pub(super) fn digits<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

pub(super) fn number(
    name: &'static str,
    value: Option<&str>,
    (default, max): (u32, u32),
    expected: &'static str,
) -> Result<u32, QueryError> {
    let Some(value) = value else { return Ok(default) };
    let found = digits(value).filter(|number| (1..=max).contains(number));
    found.ok_or_else(|| wrong(name, value, expected))
}

impl Format {
    /// Refuses a stream in anything but JSON: a line of an event has no table.
    ///
    /// # Errors
    /// When it is asked for.
    pub fn read_of_stream(value: Option<&str>) -> Result<(), QueryError> {
        match value {
            None | Some("json") => Ok(()),
            Some(value) => Err(wrong("format", value, "json, as every event of a stream is")),
        }
    }

    /// What an answer is to be written as.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(value: Option<&str>) -> Result<Self, QueryError> {
        match value {
            None | Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some(value) => Err(wrong("format", value, "json or csv")),
        }
    }
}

impl Subject {
    fn read(ad: Option<&str>, campaign: Option<&str>) -> Result<Self, QueryError> {
        match (ad, campaign) {
            (Some(ad), None) => {
                let expected = "a number from 0 to 18446744073709551615";
                digits(ad).map(Self::Ad).ok_or_else(|| wrong("ad_id", ad, expected))
            }
            (None, Some(campaign)) => {
                let expected = "a number from 0 to 4294967295";
                digits(campaign).map(Self::Campaign).ok_or_else(|| wrong("campaign_id", campaign, expected))
            }
            (None, None) => Err(QueryError::Missing { name: "ad_id or campaign_id" }),
            (Some(_), Some(_)) => Err(QueryError::Both),
        }
    }
}

impl Stats {
    /// The question in these parameters, asked in the minute `now`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(parameters: &StatsParameters, now: Minute) -> Result<Self, QueryError> {
        let StatsParameters { ad_id, campaign_id, window, start, end, by, limit, .. } = parameters;
        let of = Subject::read(ad_id.as_deref(), campaign_id.as_deref())?;
        let windows = Windows::read(window.as_deref(), (start.as_deref(), end.as_deref()), now)?;
        let by = by.as_deref().map(|value| {
            let expected = "country, device, os, publisher, placement, creative or rules";
            let found = Dimension::ALL.into_iter().find(|dimension| dimension.name() == value);
            found.ok_or_else(|| wrong("by", value, expected))
        });
        let bounds = (POINTS_DEFAULT, POINTS_MAX);
        let limit = number("limit", limit.as_deref(), bounds, "a number from 1 to 10080")?;
        Ok(Self { of, windows, by: by.transpose()?, limit })
    }

    /// Where the next page begins, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Minute> {
        let Windows { window, start, .. } = &self.windows;
        (self.windows.count() > self.limit).then(|| Minute(start.0 + self.limit * window.minutes()))
    }
}

impl Top {
    /// The question in these parameters, asked in the minute `now`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(parameters: &TopParameters, now: Minute) -> Result<Self, QueryError> {
        let TopParameters { window, start, end, of, order, limit, .. } = parameters;
        let of = match of.as_deref() {
            None | Some("ads") => Listed::Ads,
            Some("campaigns") => Listed::Campaigns,
            Some(value) => return Err(wrong("of", value, "ads or campaigns")),
        };
        let windows = Windows::read(window.as_deref(), (start.as_deref(), end.as_deref()), now)?;
        let order = match order.as_deref() {
            None | Some("click_count") => Order::ClickCount,
            Some("gross") => Order::Gross,
            Some("net") => Order::Net,
            Some("cost_micros") => Order::Cost,
            Some(value) => return Err(wrong("order", value, "click_count, gross, net or cost_micros")),
        };
        let limit = number("limit", limit.as_deref(), (ADS_DEFAULT, ADS_MAX), "a number from 1 to 1000")?;
        Ok(Self { of, windows, order, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::MINUTE_END;
    use super::*;

    const NOW: Minute = Minute(29_000_123);

    fn stats(pairs: &[(&str, &str)]) -> Result<Stats, QueryError> {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        let value = serde_json::Value::Object(object.collect());
        Stats::read(&serde_json::from_value(value).unwrap(), NOW)
    }

    #[test]
    fn without_a_range_the_last_sixty_windows_are_meant_the_open_one_among_them() {
        let asked = stats(&[("ad_id", "7")]).unwrap();
        assert_eq!((asked.windows.end.0, asked.windows.count()), (NOW.0 + 1, 60));
        let asked = stats(&[("ad_id", "7"), ("window", "1h")]).unwrap();
        assert_eq!((asked.windows.end.0 % 60, asked.windows.count()), (0, 60));
        assert!(asked.windows.end > NOW);
    }

    #[test]
    fn a_range_is_widened_to_whole_windows_and_its_end_is_not_in_it() {
        let range = |start: &str, end: &str| {
            let asked = stats(&[("ad_id", "7"), ("window", "5m"), ("start", start), ("end", end)])?;
            Ok((asked.windows.start.0, asked.windows.end.0))
        };
        assert_eq!(range("600", "1200"), Ok((10, 20)));
        assert_eq!(range("660", "1260"), Ok((10, 25)));
        assert_eq!(range("1970-01-01T00:10:00Z", "1970-01-01T01:20:00+01:00"), Ok((10, 20)));
        assert_eq!(range("1200", "1200"), Err(QueryError::Empty));
    }

    #[test]
    fn what_makes_no_question_is_named() {
        let why = |pairs: &[(&str, &str)]| stats(pairs).unwrap_err().to_string();
        assert_eq!(why(&[]), "ad_id or campaign_id is missing");
        assert!(why(&[("ad_id", "1"), ("campaign_id", "2")]).contains("both"));
        assert!(why(&[("campaign_id", "4294967296")]).starts_with("campaign_id is"));
        assert!(why(&[("ad_id", "-1")]).starts_with("ad_id is \"-1\": expected"));
        assert!(why(&[("ad_id", "1"), ("window", "2m")]).contains("1m, 5m, 1h or 1d"));
        assert!(why(&[("ad_id", "1"), ("by", "price")]).contains("country"));
        assert!(why(&[("ad_id", "1"), ("limit", "0")]).contains("1 to 10080"));
        assert!(why(&[("ad_id", "1"), ("start", "yesterday")]).contains("2026-01-31"));
        assert!(why(&[("ad_id", "+1")]).starts_with("ad_id is"));
        assert!(why(&[("ad_id", "1"), ("limit", "+5")]).starts_with("limit is"));
        assert!(why(&[("ad_id", "1"), ("start", "+60")]).starts_with("start is"));
        assert!(why(&[("ad_id", "1"), ("start", "-60")]).starts_with("start is"));
        assert!(why(&[("ad_id", "1"), ("end", "9223372036854775807")]).starts_with("end is"));
        assert!(why(&[("ad_id", "1"), ("end", "9000-01-01T00:00:00Z")]).starts_with("end is"));
        let last = stats(&[("ad_id", "1"), ("window", "1d"), ("end", "8999-12-31T23:59:59Z")]).unwrap();
        assert_eq!(last.windows.end.0, MINUTE_END);
    }

    #[test]
    fn a_page_ends_at_its_limit_and_says_where_the_next_begins() {
        let asked = stats(&[("ad_id", "7"), ("start", "0"), ("end", "6000"), ("limit", "40")]).unwrap();
        assert_eq!(asked.next(), Some(Minute(40)));
        let asked = stats(&[("ad_id", "7"), ("start", "3600"), ("end", "6000"), ("limit", "40")]).unwrap();
        assert_eq!(asked.next(), None);
    }
}
