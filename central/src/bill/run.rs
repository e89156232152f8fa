//! What a reconciliation found, as its report in the archive says it: the figures of each campaign, and of
//! what they are made up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::figures::{Figures, Micros, Overflow};
use crate::reconcile::difference::Cause;

/// Why a report cannot be billed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RunError {
    /// the report of {name} cannot be read: {source}; this is a defect
    Report {
        /// The run.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// {total} counts of {day} are not explained by the archive's rows; nothing was billed. `reconcile` lists them
    Unexplained {
        /// The day.
        day: String,
        /// How many.
        total: u64,
    },
    /// the report of {name} does not add up at {place}; nothing was billed. This is a defect
    Sums {
        /// The run.
        name: String,
        /// Where.
        place: String,
    },
    /// {0}
    Overflow(#[from] Overflow),
}

/// Why clicks are billed, or are not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Their nodes counted them so.
    Recorded,
    /// A reconciliation counts them in another way than their nodes.
    Reconciled(Cause),
    /// It is not known.
    Unknown,
}

impl Why {
    /// What tables call it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Reconciled(Cause::Late) => "late",
            Self::Reconciled(Cause::CrossNodeDuplicate) => "cross_node_duplicate",
            Self::Reconciled(Cause::CrossNodeRepeat) => "cross_node_repeat",
            Self::Reconciled(Cause::RuleChange) => "rule_change",
            Self::Reconciled(Cause::Consequence) => "consequence",
            Self::Unknown => "unknown",
        }
    }
}

impl Serialize for Why {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// A campaign's day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Campaign {
    /// What is to be billed.
    pub figures: Figures,
    /// What that is made up of.
    pub parts: BTreeMap<Why, Figures>,
}

/// What a reconciliation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What names it: day, rules and batches.
    pub name: String,
    /// SHA-256 of its report, in hexadecimal digits.
    pub checksum: String,
    /// The day.
    pub day: String,
    /// The rules.
    pub rules: String,
    /// How many batches of the archive there were.
    pub batches: i64,
    /// All campaigns together.
    pub total: Figures,
    /// Each campaign with figures.
    pub campaigns: BTreeMap<u32, Campaign>,
}

#[derive(Deserialize)]
struct ReportFile {
    day: String,
    rules: String,
    batches: u64,
    reconciled: Counted,
    campaigns: Vec<CampaignFile>,
    adjustments: Vec<AdjustmentFile>,
    unexplained_total: u64,
}

#[derive(Deserialize)]
struct CampaignFile {
    campaign_id: u32,
    recorded: Counted,
    reconciled: Counted,
}

#[derive(Deserialize)]
struct AdjustmentFile {
    campaign_id: u32,
    cause: Cause,
    #[serde(flatten)]
    change: Figures,
}

/// Counts as they are told: without a sign.
#[derive(Deserialize)]
struct Counted {
    click_count: u64,
    gross: u64,
    net: u64,
    cost_micros: u64,
}

impl Counted {
    fn figures(&self) -> Result<Figures, Overflow> {
        let figure = |count: u64| i64::try_from(count).map_err(|_| Overflow);
        Ok(Figures {
            click_count: figure(self.click_count)?,
            gross: figure(self.gross)?,
            net: figure(self.net)?,
            cost_micros: Micros(figure(self.cost_micros)?),
        })
    }
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn sha256(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Run {
    /// Reads the report of this name.
    ///
    /// # Errors
    /// When it is none, has counts that nothing explains, or does not add up.
    pub fn read(name: &str, report: &[u8]) -> Result<Self, RunError> {
        let parsed = serde_json::from_slice(report);
        let file: ReportFile = parsed.map_err(|source| RunError::Report { name: name.to_owned(), source })?;
        if file.unexplained_total > 0 {
            return Err(RunError::Unexplained { day: file.day, total: file.unexplained_total });
        }
        let mut campaigns: BTreeMap<u32, Campaign> = BTreeMap::new();
        for found in &file.campaigns {
            let parts = BTreeMap::from([(Why::Recorded, found.recorded.figures()?)]);
            let campaign = Campaign { figures: found.reconciled.figures()?, parts };
            campaigns.insert(found.campaign_id, campaign);
        }
        for found in &file.adjustments {
            let part = campaigns.entry(found.campaign_id).or_default();
            let part = part.parts.entry(Why::Reconciled(found.cause)).or_default();
            *part = part.plus(found.change)?;
        }
        let sums = |place: String| RunError::Sums { name: name.to_owned(), place };
        for (id, campaign) in &campaigns {
            if sum(campaign.parts.values())? != campaign.figures {
                return Err(sums(format!("campaign {id}")));
            }
        }
        // What was counted modulo 2^64 on its way here shows here.
        let total = file.reconciled.figures()?;
        if sum(campaigns.values().map(|campaign| &campaign.figures))? != total {
            return Err(sums("the total".to_owned()));
        }
        campaigns.retain(|_, campaign| !campaign.figures.is_zero());
        let batches = i64::try_from(file.batches).map_err(|_| Overflow)?;
        let (name, checksum) = (name.to_owned(), sha256(report));
        Ok(Self { name, checksum, day: file.day, rules: file.rules, batches, total, campaigns })
    }

    /// What a campaign's figures are made up of.
    #[must_use]
    pub fn part(&self, campaign: u32, why: Why) -> Figures {
        let found = self.campaigns.get(&campaign).and_then(|found| found.parts.get(&why));
        found.copied().unwrap_or_default()
    }
}

/// All of them together.
///
/// # Errors
/// When a figure has no room for that.
pub fn sum<'a>(figures: impl IntoIterator<Item = &'a Figures>) -> Result<Figures, Overflow> {
    figures.into_iter().try_fold(Figures::default(), |sum, figures| sum.plus(*figures))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        let counts = |clicks: u64, cost: u64| json!({"click_count": clicks, "gross": clicks + 1, "net": clicks, "late": 1, "cost_micros": cost});
        json!({
            "day": "2026-11-22", "rules": "recorded", "batches": 8, "unexplained_total": 0, "unexplained": [],
            "recorded": counts(10, 5000), "reconciled": {"click_count": 9, "gross": 10, "net": 9, "cost_micros": 4500},
            "campaigns": [{"campaign_id": 7, "recorded": counts(10, 5000), "reconciled": counts(9, 4500)}],
            "adjustments": [{"ad_id": "1", "campaign_id": 7, "minute": 9, "cause": "cross_node_repeat",
                             "click_count": -1, "gross": -1, "net": -1, "cost_micros": -500}],
        })
    }

    fn read(report: &Value) -> Result<Run, RunError> {
        Run::read("2026-11-22/recorded-000000000008", report.to_string().as_bytes())
    }

    #[test]
    fn a_report_says_what_each_campaign_is_made_up_of() {
        let run = read(&report()).unwrap();
        assert_eq!(run.total, Figures::of([9, 10, 9, 4500]));
        assert_eq!(run.campaigns[&7].figures, run.total);
        assert_eq!(run.part(7, Why::Recorded), Figures::of([10, 11, 10, 5000]));
        assert_eq!(run.part(7, Why::Reconciled(Cause::CrossNodeRepeat)), Figures::of([-1, -1, -1, -500]));
        assert_eq!(run.part(8, Why::Recorded), Figures::default());
    }

    #[test]
    fn what_is_unexplained_does_not_add_up_or_has_no_room_is_not_billed() {
        let refused = |pointer: &str, value: Value| {
            let mut report = report();
            *report.pointer_mut(pointer).unwrap() = value;
            read(&report).unwrap_err()
        };
        assert!(matches!(refused("/unexplained_total", json!(1)), RunError::Unexplained { .. }));
        assert!(matches!(refused("/adjustments/0/net", json!(-2)), RunError::Sums { .. }));
        assert!(matches!(refused("/reconciled/cost_micros", json!(4501)), RunError::Sums { .. }));
        let beyond = json!(u64::MAX);
        assert!(matches!(refused("/campaigns/0/reconciled/cost_micros", beyond), RunError::Overflow(_)));
        assert!(matches!(refused("/adjustments/0/cause", json!("moon")), RunError::Report { .. }));
    }

    #[test]
    fn tables_and_reports_call_causes_the_same() {
        let causes = [
            Cause::Late,
            Cause::CrossNodeDuplicate,
            Cause::CrossNodeRepeat,
            Cause::RuleChange,
            Cause::Consequence,
        ];
        for cause in causes {
            assert_eq!(serde_json::to_value(cause).unwrap(), Why::Reconciled(cause).code());
        }
    }
}
