//! Several nodes, a line each.

use std::cmp::Reverse;

use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use ratatui::text::Line;

use super::super::model::{Model, Node, Verdict};
use super::super::ui::{Sort, Ui};
use super::figures::{count, latency, si};
use super::{Theme, overview};

pub(super) fn lines(nodes: &[Node], ui: &Ui, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let title = format!(
        "  node                 state      clicks/s    residual waiting  ack p99  by {}",
        ui.sort.name()
    );
    let mut shown: Vec<_> =
        nodes.iter().enumerate().filter(|(_, node)| node.name.contains(&ui.filter)).collect();
    let rate = |node: &Node| node.model.as_ref().map_or(0.0, |model| model.received_per_s);
    let received = |node: &Node| node.model.as_ref().map_or(0, |model| model.status.clicks.received);
    match ui.sort {
        Sort::Rate => shown.sort_by(|a, b| rate(b.1).total_cmp(&rate(a.1))),
        Sort::Total => shown.sort_by_key(|(_, node)| Reverse(received(node))),
        Sort::Name => shown.sort_by(|a, b| a.1.name.cmp(&b.1.name)),
    }
    let rows = usize::from(area.height).saturating_sub(1);
    let alarm = theme.colour(Color::Red).add_modifier(Modifier::BOLD);
    let line = |(index, node): (usize, &Node)| {
        let (text, is_well) = row(node, index == ui.node);
        if is_well { Line::from(text) } else { Line::styled(text, alarm) }
    };
    std::iter::once(Line::styled(title, theme.title()))
        .chain(shown.into_iter().take(rows).map(line))
        .collect()
}

/// The line of a node, and whether nothing is wrong with it.
fn row(node: &Node, is_chosen: bool) -> (String, bool) {
    let mark = if is_chosen { '>' } else { ' ' };
    let head = format!("{mark} {:<20.20}", node.name);
    if let Some(trouble) = &node.trouble {
        return (format!("{head} DOES NOT ANSWER: {trouble}"), false);
    }
    let Some(model) = &node.model else { return (format!("{head} ..."), true) };
    let Model { status, verdict, received_per_s, .. } = model;
    let residual = match verdict {
        Verdict::Open => format!("{} OPEN", status.clicks.residual),
        Verdict::InFlight | Verdict::Closed => status.clicks.residual.to_string(),
    };
    let (state, waiting) = (status.state.name(), count(status.clicks.waiting));
    let (per_s, ack) = (si(*received_per_s), latency(status.ack_latency_ns.p99));
    let notes = overview::notes(model);
    let note = notes.first().map_or(String::new(), |note| format!("  {note}"));
    let is_well = notes.is_empty() && *verdict != Verdict::Open && status.readiness.ready;
    (format!("{head} {state:<10} {per_s:>8} {residual:>11} {waiting:>7} {ack:>8}{note}"), is_well)
}
