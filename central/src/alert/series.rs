//! One campaign in the course of time: its baseline, and its alert while there is one. Functions over
//! values, without clock and store.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use weir_common::time::Minute;

use super::judge::{Finding, Limits, judge};

/// Ordinary windows in a row after which an alert is over.
const CALM_WINDOWS: usize = 3;

/// An alert of one campaign. It is opened once, and closed once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The campaign and the minute its first window begins with: the same however often it is found.
    pub id: String,
    /// The campaign.
    pub campaign_id: u32,
    /// The first minute of its first window, since 1970.
    pub first_minute: u32,
    /// The first minute of the window that is furthest out of the ordinary.
    pub peak_minute: u32,
    /// What was found of that window.
    #[serde(flatten)]
    pub peak: Finding,
    /// The minute after its last window; none while it is open.
    pub closed_minute: Option<u32>,
}

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It is new.
    Opened,
    /// There is another reason for it.
    Raised,
    /// Its campaign is ordinary again, or what it does has become the ordinary.
    Closed,
}

/// A window of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first minute.
    pub start: Minute,
    /// Its clicks, all traffic.
    pub clicks: u64,
}

/// What is known of a campaign.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Clicks of ordinary windows, the last ones.
    history: VecDeque<u32>,
    /// Clicks of the windows since an alert is open: they are no baseline until it has lasted as long as one.
    pending: VecDeque<u32>,
    calm: usize,
    open: Option<Alert>,
}

fn push(windows: &mut VecDeque<u32>, clicks: u64, limits: &Limits) {
    // Before the first click there is no campaign.
    if !(windows.is_empty() && clicks == 0) {
        windows.push_back(u32::try_from(clicks).unwrap_or(u32::MAX));
    }
    while windows.len() > limits.history_windows {
        windows.pop_front();
    }
}

impl Series {
    /// One whose alert was open before.
    #[must_use]
    pub fn with(open: Alert) -> Self {
        Self { open: Some(open), ..Self::default() }
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.history.iter().all(|clicks| *clicks == 0)
    }

    /// Judges a window that may still grow: it may open or raise an alert, and close none.
    pub fn judge(&mut self, campaign: u32, window: Window, limits: &Limits) -> Option<(Happened, Alert)> {
        let found = judge(&self.history, window.clicks, limits)?;
        let start = window.start.0;
        let Some(open) = &mut self.open else {
            let alert = Alert {
                id: format!("{campaign}-{start}"),
                campaign_id: campaign,
                first_minute: start,
                peak_minute: start,
                peak: found,
                closed_minute: None,
            };
            (self.open, self.calm) = (Some(alert.clone()), 0);
            return Some((Happened::Opened, alert));
        };
        if start < open.first_minute || found.clicks <= open.peak.clicks {
            return None;
        }
        let is_new = found.reasons.iter().any(|reason| !open.peak.reasons.contains(reason));
        let mut reasons = [&open.peak.reasons[..], &found.reasons].concat();
        reasons.sort_unstable();
        reasons.dedup();
        (open.peak_minute, open.peak) = (start, Finding { reasons, ..found });
        is_new.then(|| (Happened::Raised, open.clone()))
    }

    /// Takes a window that does not grow any more.
    pub fn settle(&mut self, window: Window, limits: &Limits) -> Option<(Happened, Alert)> {
        let Some(open) = &mut self.open else {
            push(&mut self.history, window.clicks, limits);
            return None;
        };
        if window.start.0 < open.first_minute {
            push(&mut self.history, window.clicks, limits);
            return None;
        }
        push(&mut self.pending, window.clicks, limits);
        let is_hot = judge(&self.history, window.clicks, limits).is_some();
        self.calm = if is_hot { 0 } else { self.calm + 1 };
        let is_ordinary_now = self.pending.len() >= limits.history_windows;
        if self.calm < CALM_WINDOWS && !is_ordinary_now {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        if is_ordinary_now {
            self.history = pending;
        }
        let mut alert = self.open.take()?;
        alert.closed_minute = Some(window.start.0);
        Some((Happened::Closed, alert))
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::Reason;
    use super::*;

    const LIMITS: Limits =
        Limits { z_score: 3.0, times: 5.0, least_clicks: 50, least_windows: 12, history_windows: 40 };

    const fn window(number: u32, clicks: u64) -> Window {
        Window { start: Minute(number * 5), clicks }
    }

    /// A campaign that had 100 clicks in each of 20 windows.
    fn ordinary() -> Series {
        let mut series = Series::default();
        for number in 0..20 {
            assert_eq!(series.settle(window(number, 100), &LIMITS), None);
        }
        series
    }

    #[test]
    fn an_alert_is_opened_once_raised_with_its_second_reason_and_closed_after_three_ordinary_windows() {
        let mut series = ordinary();
        assert_eq!(series.judge(7, window(20, 110), &LIMITS), None);
        let (happened, alert) = series.judge(7, window(20, 200), &LIMITS).unwrap();
        assert_eq!((happened, &*alert.id), (Happened::Opened, "7-100"));
        assert_eq!(alert.peak.reasons, [Reason::ZScore]);
        assert_eq!(series.judge(7, window(20, 300), &LIMITS), None);
        let (happened, alert) = series.judge(7, window(20, 501), &LIMITS).unwrap();
        assert_eq!((happened, alert.peak.clicks), (Happened::Raised, 501));
        assert_eq!(alert.peak.reasons, [Reason::ZScore, Reason::Volume]);
        assert_eq!(series.judge(7, window(21, 900), &LIMITS), None, "no reason is new");
        for (number, clicks) in [(20, 501), (21, 900), (22, 100), (23, 100), (24, 600), (25, 100), (26, 100)]
        {
            assert_eq!(series.settle(window(number, clicks), &LIMITS), None, "{number}");
        }
        let (happened, alert) = series.settle(window(27, 100), &LIMITS).unwrap();
        assert_eq!((happened, alert.closed_minute, alert.peak.clicks), (Happened::Closed, Some(135), 900));
        // What happened meanwhile is no baseline: the next one is found as the first was.
        let (happened, alert) = series.judge(7, window(28, 200), &LIMITS).unwrap();
        assert_eq!((happened, &*alert.id), (Happened::Opened, "7-140"));
    }

    #[test]
    fn what_lasts_as_long_as_a_baseline_is_one() {
        let mut series = ordinary();
        series.judge(7, window(20, 1000), &LIMITS).unwrap();
        let closed: Vec<_> =
            (20..60).filter_map(|number| series.settle(window(number, 1000), &LIMITS)).collect();
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].1.closed_minute, Some(59 * 5));
        assert_eq!(series.judge(7, window(60, 1000), &LIMITS), None);
    }

    #[test]
    fn an_alert_that_was_open_before_a_restart_is_not_opened_again() {
        let mut series = ordinary();
        let (_, alert) = series.judge(7, window(20, 1000), &LIMITS).unwrap();
        let mut after = Series::with(alert);
        // The windows of the last day are settled anew; those of the alert are no baseline.
        for number in 0..20 {
            assert_eq!(after.settle(window(number, 100), &LIMITS), None);
        }
        assert_eq!(after.settle(window(20, 1000), &LIMITS), None);
        assert_eq!(after.judge(7, window(21, 900), &LIMITS), None);
        let series: Vec<_> =
            (21..24).filter_map(|number| after.settle(window(number, 100), &LIMITS)).collect();
        assert!(matches!(&series[..], [(Happened::Closed, _)]), "{series:?}");
    }
}
