//! Whether clicks should come to this node, and how they reach their worker.

use ratatui::style::{Color, Modifier};
use ratatui::text::Line;

use super::super::model::Model;
use super::Theme;

pub(super) fn lines(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let (readiness, steering) = (&model.status.readiness, &model.status.steering);
    let (good, bad) = (theme.colour(Color::Green), theme.colour(Color::Red).add_modifier(Modifier::BOLD));
    let mut lines = vec![match readiness.ready {
        true => Line::styled("READY: the node's addresses should be announced", good),
        false => Line::styled("NOT READY: the node's addresses should be withdrawn", bad),
    }];
    for check in &readiness.checks {
        lines.push(match &check.fault {
            None => Line::from(format!("  [+] {:<8} ok", check.name)),
            Some(fault) => Line::styled(format!("  [-] {:<8} {fault}", check.name), bad),
        });
    }
    lines.push(Line::default());
    lines.push(Line::styled(format!("steering: {}", steering.rung), theme.title()));
    lines.extend(steering.reasons.iter().map(|reason| Line::from(format!("  {reason}"))));
    lines.push(Line::default());
    lines.push(Line::from("What announces the addresses asks /readyz; it alone knows whether they are."));
    lines
}
