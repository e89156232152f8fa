//! `[score]`: the model that says how likely a click is invalid.

use toml::de::DeValue;

use super::kafka::file;
use super::reader::{Section, integer_in};
use crate::score::{Campaign, Settings, Threshold, Thresholds};

const EXPECTED: &str = "a number from 0 to 1";

pub(super) fn read(mut section: Section<'_, '_>) -> Option<Settings> {
    let model = file(&mut section, "model_file");
    let default =
        section.value("threshold", Threshold::DEFAULT, &format!("{EXPECTED} (default 0.9)"), threshold);
    let own: Vec<_> = section.sections("campaigns").into_iter().filter_map(campaign).collect();
    if model.is_none() && !own.is_empty() {
        section.note("campaigns", "nothing is scored without score.model_file; name a model, or remove them");
    }
    section.finish();
    Some(Settings { model: model?, thresholds: Thresholds::new(default, own) })
}

fn campaign(mut section: Section<'_, '_>) -> Option<(Campaign, Threshold)> {
    let number = |value: &DeValue<'_>| integer_in(value, &(0..=u64::from(u32::MAX)));
    let campaign = section.required("campaign", "a whole number from 0 to 4294967295", number);
    let threshold = section.required("threshold", EXPECTED, threshold);
    section.finish();
    Some((Campaign(campaign?), threshold?))
}

fn threshold(value: &DeValue<'_>) -> Option<Threshold> {
    let number = match value {
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok()?,
        DeValue::Integer(_) => f32::from(integer_in::<u8>(value, &(0..=1))?),
        _ => return None,
    };
    Threshold::new(number).ok()
}
