//! Each reason: how often, where it is met, and of the selected one the cause and the remedy, from the one table.

use ratatui::style::Modifier;
use ratatui::text::Line;
use weir_common::reason::Reason;

use super::super::model::{CoreFlow, Flow, Model};
use super::super::ui::Ui;
use super::Theme;
use super::figures::si;

/// Lines under the list: a blank one, the cores, cause and remedy.
const DETAIL_ROWS: usize = 6;

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
    if !cores.is_empty() {
        lines.extend(folded("Cores", &cores.join("  "), width, 1));
    }
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == flow.name) {
        lines.extend(folded("What", reason.cause(), width, 2));
        lines.extend(folded("Do", reason.remedy(), width, 2));
    }
    lines
}

/// A title and a text beside it, in lines of this width, so many at the most.
fn folded(title: &str, text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let mut lines = vec![format!("{title:<6}")];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.chars().count() + 1 + word.chars().count() > width.max(20) {
            lines.push(format!("      {word}"));
        } else {
            if !line.ends_with(' ') {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.truncate(lines_max);
    lines
}
