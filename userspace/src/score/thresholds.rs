//! From which score on a click is marked: a threshold for each campaign, and one for all others.

use std::collections::HashMap;

/// A campaign, by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Campaign(pub u32);

// A score is never NaN.
impl Eq for Score {}
impl Eq for Threshold {}

/// How likely a click is invalid: 0 not at all, 1 surely.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score(f32);

impl Score {
    /// The nearest score to this number; NaN, which no model gives, is 0: unmarked.
    #[inline]
    #[must_use]
    pub const fn clamped(value: f32) -> Self {
        Self(if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) })
    }

    /// As a number from 0 to 1.
    #[inline]
    #[must_use]
    pub const fn get(self) -> f32 {
        self.0
    }
}

/// The least score that is marked.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Threshold(Score);

/// {0} is no threshold; give a number from 0, which marks every scored click, to 1
#[derive(Clone, Copy, Debug, PartialEq, displaydoc::Display, thiserror::Error)]
pub struct NotAShare(pub f32);

impl Threshold {
    /// 0.9: a model whose scores are probabilities then marks a valid click once in ten marks, at worst.
    pub const DEFAULT: Self = Self(Score(0.9));

    /// A threshold at this score.
    ///
    /// # Errors
    /// What is below 0, above 1 or not a number.
    pub const fn new(score: f32) -> Result<Self, NotAShare> {
        if score >= 0.0 && score <= 1.0 { Ok(Self(Score(score))) } else { Err(NotAShare(score)) }
    }

    /// Whether a click with this score is marked.
    #[inline]
    #[must_use]
    pub fn is_reached_by(self, score: Score) -> bool {
        score >= self.0
    }
}

/// The thresholds of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    default: Threshold,
    by_campaign: HashMap<Campaign, Threshold>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { default: Threshold::DEFAULT, by_campaign: HashMap::new() }
    }
}

impl Thresholds {
    /// A threshold for all campaigns but those that have one of their own.
    #[must_use]
    pub fn new(default: Threshold, own: impl IntoIterator<Item = (Campaign, Threshold)>) -> Self {
        Self { default, by_campaign: own.into_iter().collect() }
    }

    /// The CRC-32C of all of them, after what `crc` is of.
    #[must_use]
    pub(super) fn checksum(&self, crc: u32) -> u32 {
        let mut own: Vec<_> =
            self.by_campaign.iter().map(|(campaign, at)| (campaign.0, at.0.get())).collect();
        own.sort_unstable_by_key(|(campaign, _)| *campaign);
        let crc = crc32c::crc32c_append(crc, &self.default.0.get().to_le_bytes());
        own.into_iter().fold(crc, |crc, (campaign, at)| {
            let crc = crc32c::crc32c_append(crc, &campaign.to_le_bytes());
            crc32c::crc32c_append(crc, &at.to_le_bytes())
        })
    }

    /// The threshold of a campaign.
    #[inline]
    #[must_use]
    pub fn of(&self, campaign: Campaign) -> Threshold {
        if self.by_campaign.is_empty() {
            return self.default;
        }
        self.by_campaign.get(&campaign).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(score: f32) -> Threshold {
        Threshold::new(score).expect("a share")
    }

    #[test]
    fn a_campaign_without_a_threshold_has_the_default() {
        let thresholds = Thresholds::new(at(0.7), [(Campaign(5), at(0.2))]);
        assert_eq!(thresholds.of(Campaign(5)), at(0.2));
        assert_eq!(thresholds.of(Campaign(6)), at(0.7));
        assert_eq!(Thresholds::default().of(Campaign(5)), at(0.9));
    }

    #[test]
    fn a_threshold_is_reached_at_its_own_score() {
        assert!(at(0.5).is_reached_by(Score::clamped(0.5)));
        assert!(!at(0.5).is_reached_by(Score::clamped(0.5_f32.next_down())));
        assert!(at(0.0).is_reached_by(Score::clamped(0.0)));
    }

    #[test]
    fn each_threshold_counts_in_the_checksum_and_their_order_does_not() {
        let of = |default, own: &[(u32, f32)]| {
            let own = own.iter().map(|&(campaign, score)| (Campaign(campaign), at(score)));
            Thresholds::new(at(default), own).checksum(7)
        };
        let sum = of(0.5, &[(1, 0.6), (2, 0.7)]);
        assert_eq!(sum, of(0.5, &[(2, 0.7), (1, 0.6)]));
        for other in [of(0.4, &[(1, 0.6), (2, 0.7)]), of(0.5, &[(1, 0.7), (2, 0.6)]), of(0.5, &[(1, 0.6)])] {
            assert_ne!(sum, other);
        }
    }

    #[test]
    fn only_shares_are_thresholds() {
        for wrong in [-0.01, 1.01, f32::NAN, f32::INFINITY] {
            let error = Threshold::new(wrong).expect_err("no share");
            assert!(error.to_string().contains("from 0"), "{error}");
        }
        assert!(Threshold::new(0.0).is_ok() && Threshold::new(1.0).is_ok());
    }

    #[test]
    fn a_score_is_always_from_0_to_1() {
        for (value, score) in [(-3.0, 0.0), (7.0, 1.0), (f32::NAN, 0.0), (f32::INFINITY, 1.0), (0.25, 0.25)] {
            assert_eq!(Score::clamped(value).get(), score);
        }
    }
}
