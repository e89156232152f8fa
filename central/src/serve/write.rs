//! Answers as octets: JSON, or CSV with a line a point.

use serde::Serialize;

use super::answer::{COUNT_COLUMNS, Counts, Entry, Named, StatsAnswer, TopAnswer};
use super::cache::Body;
use super::query::Format;
use crate::watermark::Progress;

/// As JSON.
pub(super) fn json(answer: &impl Serialize) -> Body {
    // Strings, numbers and maps with text for keys: nothing that JSON does not have.
    serde_json::to_vec(answer).unwrap_or_default().into()
}

/// A table; a value is quoted where it has to be.
fn csv(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Body {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Into memory, rows as long as the head: neither fails.
    let _ = writer.write_record(head);
    rows.for_each(|row| _ = writer.write_record(&row));
    writer.into_inner().unwrap_or_default().into()
}

fn columns(counts: &Counts) -> impl Iterator<Item = String> + '_ {
    counts.values().into_iter().map(|value| value.to_string())
}

/// An answer about one ad or campaign.
pub(super) fn stats(answer: &StatsAnswer, format: Format) -> Body {
    if format == Format::Json {
        return json(answer);
    }
    let (name, id) = match &answer.of {
        Named::Ad { ad_id } => ("ad_id", ad_id.clone()),
        Named::Campaign { campaign_id, .. } => ("campaign_id", campaign_id.to_string()),
    };
    let head: Vec<_> = [name, "window", "timestamp"]
        .into_iter()
        .chain(answer.by)
        .chain(COUNT_COLUMNS)
        .chain(["unique_users", "final"])
        .collect();
    let row = |point: &super::answer::Point| {
        let before = [id.clone(), answer.window.to_owned(), point.timestamp.clone()];
        let users = point.unique_users.map_or_else(String::new, |users| users.to_string());
        let after = [users, point.is_final.to_string()];
        before.into_iter().chain(point.value.clone()).chain(columns(&point.counts)).chain(after).collect()
    };
    csv(&head, answer.data.iter().map(row))
}

/// The busiest ads or campaigns.
pub(super) fn top(answer: &TopAnswer, format: Format) -> Body {
    if format == Format::Json {
        return json(answer);
    }
    let name = if answer.campaigns.is_some() { "campaign_id" } else { "ad_id" };
    let head: Vec<_> = [name].into_iter().chain(COUNT_COLUMNS).collect();
    let id = |of: &Entry| match of {
        Entry::Ad { ad_id } => ad_id.clone(),
        Entry::Campaign { campaign_id } => campaign_id.map_or_else(String::new, |id| id.to_string()),
    };
    let row =
        |entry: &super::answer::TopEntry| [id(&entry.of)].into_iter().chain(columns(&entry.counts)).collect();
    csv(&head, answer.data.iter().map(row))
}

#[derive(Serialize)]
struct Node<'a> {
    node: u32,
    incarnation: String,
    region: &'a str,
    pop: &'a str,
    told_at_ms: u64,
    final_before_minute: u32,
    counted_until_ms: Option<u64>,
}

/// How far each node is.
pub(super) fn nodes(progress: &Progress) -> Body {
    let nodes = progress.nodes.iter().map(|(node, state)| Node {
        node: node.0,
        incarnation: format!("{:016x}", state.incarnation.0),
        region: &state.region,
        pop: &state.pop,
        told_at_ms: state.told_at.0,
        final_before_minute: state.final_before.0,
        counted_until_ms: state.counted_until.map(|time| time.0),
    });
    json(&serde_json::json!({ "nodes": nodes.collect::<Vec<_>>() }))
}
