//! How many series a node costs who watches it.

use std::collections::BTreeMap;

use super::exported::{series, text};

/// Series of a node of two workers, at the most.
const SERIES_MAX: usize = 2000;
/// Series of a metric, at the most, where nothing else is said.
const METRIC_MAX: usize = 10;
/// Metrics with a label of many values: 23 bounds with sum and count for a histogram, a reason each for the others.
const BUDGETS: [(&str, usize); 8] = [
    ("weir_ack_latency_seconds", 26),
    ("weir_click_to_bucket_seconds", 26),
    ("weir_clicks_by_reason_total", 64),
    ("weir_forward_flush_seconds", 26),
    ("weir_frame_bytes_total", 80),
    ("weir_frames_total", 80),
    ("weir_http_request_seconds", 26),
    ("weir_journal_commit_seconds", 26),
];

#[test]
fn a_node_with_everything_counted_stays_within_its_budget_of_series() {
    let text = text();
    let metrics = text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0));
    let mut counts: BTreeMap<&str, usize> = metrics.map(|metric| (metric, 0)).collect();
    let series = series();
    for series in &series {
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.name.strip_suffix(part));
        let metric = parts.filter(|metric| counts.contains_key(metric)).unwrap_or(&series.name);
        *counts.get_mut(metric).unwrap_or_else(|| panic!("{metric} has no type")) += 1;
    }
    for (metric, count) in &counts {
        let budget =
            BUDGETS.iter().find(|(name, _)| name == metric).map_or(METRIC_MAX, |(_, budget)| *budget);
        assert!((1..=budget).contains(count), "{metric}: {count} series; its budget is {budget}");
    }
    for (name, _) in BUDGETS {
        assert!(counts.contains_key(name), "{name} is no metric");
    }
    assert!(series.len() <= SERIES_MAX, "{} series", series.len());
    println!("{} series of {} metrics", series.len(), counts.len());
}
