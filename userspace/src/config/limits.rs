//! `[limits]`: budgets of clicks a second.

use super::reader::Section;
use crate::limits::{Budget, Settings};

/// Payers that can be told apart: 256 MiB of memory.
const KEYS_MAX: u64 = 1 << 24;
/// Above a node's own rate no budget means anything.
const CLICKS_PER_S_MAX: u64 = 1_000_000_000;

pub(super) fn read(mut section: Section<'_, '_>) -> Settings {
    let keys = section.integer("keys", 1 << 20, 1000..=KEYS_MAX);
    let names = ["source", "user", "ad", "publisher"];
    let limits = Settings { budgets: names.map(|name| budget(section.section(name))), keys };
    section.finish();
    limits
}

fn budget(mut section: Section<'_, '_>) -> Option<Budget> {
    let clicks_per_s = section.integer("clicks_per_s", 0, 0..=CLICKS_PER_S_MAX);
    let burst = section.integer("burst", 100, 1..=CLICKS_PER_S_MAX);
    section.finish();
    (clicks_per_s > 0).then_some(Budget { clicks_per_s, burst })
}
