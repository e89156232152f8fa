//! Each reason: how often, where it is met, and of the selected one the cause and the remedy, from the one table.

use ratatui::style::Modifier;
use ratatui::text::Line;
use weir_common::reason::Reason;

use super::super::model::{CoreFlow, Flow, Model};
use super::super::ui::Ui;
use super::Theme;
use super::figures::si;
use crate::folding::folded;

/// Lines under the list: a blank one, the cores, cause and remedy.
const DETAIL_ROWS: usize = 6;
/// What is folded narrower than this cannot be read.
const COLUMNS_MIN: usize = 20;

pub(super) fn lines(
    model: &Model,
    ui: &Ui,
    (width, room): (usize, usize),
    theme: Theme,
) -> Vec<Line<'static>> {
    let reasons = ui.reasons(model);
    if reasons.is_empty() {
        let none = if ui.filter.is_empty() {
            "nothing dropped, refused or filtered"
        } else {
            "no reason has this text"
        };
        return vec![Line::from(none)];
    }
    let title =
        format!("  reason                 of        per s    total  most on core      by {}", ui.sort.name());
    let mut lines = vec![Line::styled(title, theme.title())];
    let rows = room.saturating_sub(1 + DETAIL_ROWS).max(1);
    let selected = ui.selected.min(reasons.len() - 1);
    let first = (selected + 1).saturating_sub(rows);
    for (index, flow) in reasons.iter().enumerate().skip(first).take(rows) {
        let line = Line::from(row(flow, index == selected));
        lines.push(if index == selected { line.style(Modifier::REVERSED) } else { line });
    }
    lines.push(Line::default());
    lines.extend(detail(reasons[selected], width).into_iter().map(Line::from));
    lines
}

fn row(flow: &Flow, is_selected: bool) -> String {
    let mark = if is_selected { '>' } else { ' ' };
    let (per_s, total) = (si(flow.per_s), si(flow.total as f64));
    let most = flow.by_core.iter().max_by_key(|share| share.total);
    let most = most.map_or(String::new(), |share| {
        format!("{} ({:.0} %)", share.core, share.total as f64 / flow.total.max(1) as f64 * 100.0)
    });
    format!("{mark} {:<22.22} {:<6} {per_s:>8} {total:>8}  {most:<12}", flow.name, flow.of)
}

/// Of one reason: where, why, and what to do.
fn detail(flow: &Flow, width: usize) -> Vec<String> {
    let share = |share: &CoreFlow| format!("{}: {}", share.core, si(share.total as f64));
    let cores: Vec<_> = flow.by_core.iter().map(share).collect();
    let mut lines = Vec::new();
    let mut titled = |title, text: &str, lines_max| {
        let all = folded(&format!("{title:<6}"), "      ", text, width.max(COLUMNS_MIN));
        lines.extend(all.into_iter().take(lines_max));
    };
    if !cores.is_empty() {
        titled("Cores", &cores.join("  "), 1);
    }
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == flow.name) {
        titled("What", reason.cause(), 2);
        titled("Do", reason.remedy(), 2);
    }
    lines
}
