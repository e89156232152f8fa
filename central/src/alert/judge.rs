//! Whether the clicks of a window are out of the ordinary: a function over numbers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What is out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Standard deviations over the mean.
    pub z_score: f64,
    /// Times the mean.
    pub times: f64,
    /// No window with fewer clicks is.
    pub least_clicks: u64,
    /// Nothing is before so many windows were seen.
    pub least_windows: usize,
    /// Windows of a baseline.
    pub history_windows: usize,
}

/// What is ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Clicks of a window on average.
    pub mean: f64,
    /// Their standard deviation: at least that of clicks that come by chance, the root of the mean.
    pub deviation: f64,
    /// From how many windows.
    pub windows: usize,
}

/// Why a window is out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Too many deviations over the mean.
    ZScore,
    /// Too many times the mean.
    Volume,
}

/// What was found of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its clicks, all traffic.
    pub clicks: u64,
    /// How many deviations over the mean.
    pub z_score: f64,
    /// How many times the mean; of a mean below one click, times one click.
    pub times: f64,
    /// What it was held against.
    pub baseline: Baseline,
    /// Why it is out of the ordinary, sorted.
    pub reasons: Vec<Reason>,
}

impl Baseline {
    /// Of these windows; none without any.
    #[must_use]
    pub fn of(history: &VecDeque<u32>) -> Option<Self> {
        let windows = history.len();
        let count = f64::from(u32::try_from(windows).ok().filter(|count| *count > 0)?);
        let mean = history.iter().map(|clicks| f64::from(*clicks)).sum::<f64>() / count;
        let variance = history.iter().map(|clicks| (f64::from(*clicks) - mean).powi(2)).sum::<f64>() / count;
        Some(Self { mean, deviation: variance.sqrt().max(mean.sqrt()).max(1.0), windows })
    }
}

/// Holds a window against those before it; none when it is ordinary, or when too little is known.
#[must_use]
pub fn judge(history: &VecDeque<u32>, clicks: u64, limits: &Limits) -> Option<Finding> {
    if clicks < limits.least_clicks || history.len() < limits.least_windows {
        return None;
    }
    let baseline = Baseline::of(history)?;
    let z_score = (clicks as f64 - baseline.mean) / baseline.deviation;
    let times = clicks as f64 / baseline.mean.max(1.0);
    let found = [(Reason::ZScore, z_score > limits.z_score), (Reason::Volume, times > limits.times)];
    let reasons: Vec<_> = found.into_iter().filter(|(_, is_so)| *is_so).map(|(reason, _)| reason).collect();
    (!reasons.is_empty()).then_some(Finding { clicks, z_score, times, baseline, reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { z_score: 3.0, times: 5.0, least_clicks: 50, least_windows: 12, history_windows: 288 };

    fn reasons(history: &[u32], clicks: u64) -> Vec<Reason> {
        let history = history.iter().copied().collect();
        judge(&history, clicks, &LIMITS).map(|found| found.reasons).unwrap_or_default()
    }

    #[test]
    fn three_deviations_are_ordinary_and_more_are_not() {
        // Mean 100, deviation 20.
        let history = [80, 120].repeat(10);
        assert_eq!(reasons(&history, 160), []);
        assert_eq!(reasons(&history, 161), [Reason::ZScore]);
        assert_eq!(reasons(&history, 500), [Reason::ZScore]);
        assert_eq!(reasons(&history, 501), [Reason::ZScore, Reason::Volume]);
    }

    #[test]
    fn where_clicks_vary_widely_five_times_the_mean_is_too_much_all_the_same() {
        let history = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3000].repeat(2);
        // Mean 187.5, deviation 726: 5 times the mean is one deviation.
        assert_eq!(reasons(&history, 1000), [Reason::Volume]);
    }

    #[test]
    fn clicks_that_come_by_chance_are_ordinary_however_even_those_before_were() {
        assert_eq!(reasons(&[100; 20], 130), []);
        assert_eq!(reasons(&[100; 20], 131), [Reason::ZScore]);
    }

    #[test]
    fn little_traffic_and_a_new_campaign_raise_nothing() {
        assert_eq!(reasons(&[0; 20], 49), []);
        assert_eq!(reasons(&[0; 20], 50), [Reason::ZScore, Reason::Volume]);
        assert_eq!(reasons(&[10; 11], 10_000), []);
        assert_eq!(reasons(&[10; 12], 10_000), [Reason::ZScore, Reason::Volume]);
    }
}
