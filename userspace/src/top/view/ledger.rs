//! What came in against what became of it: every click has one outcome, and what is left over is in flight or lost.

use ratatui::style::{Color, Modifier};
use ratatui::text::Line;

use super::super::model::{Model, Verdict};
use super::Theme;
use super::figures::{count, si};

pub(super) fn lines(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let clicks = &model.status.clicks;
    let mut lines = vec![Line::styled("  clicks                            total      per s", theme.title())];
    let row = |sign: char, name: &str, total: String, per_s: f64| {
        Line::from(format!("{sign} {name:<22}{total:>19} {:>10}", si(per_s)))
    };
    lines.push(row(' ', "received", count(clicks.received), model.received_per_s));
    lines.extend(model.outcomes.iter().map(|flow| row('-', &flow.name, count(flow.total), flow.per_s)));
    let (said, style) = match model.verdict {
        Verdict::Closed => ("the books close", theme.colour(Color::Green)),
        Verdict::InFlight => ("on their way to an outcome", theme.colour(Color::Yellow)),
        Verdict::Open if clicks.residual < 0 => {
            ("COUNTED TWICE: keep journal and log, and report", alarm(theme))
        }
        Verdict::Open => ("LOST: keep journal and log, and report", alarm(theme)),
    };
    let residual = signed(clicks.residual);
    lines.push(Line::styled(format!("= {:<22}{residual:>19}   {said}", "residual"), style));
    lines.push(Line::default());
    let unseen: u64 = clicks.unseen.values().sum();
    lines.push(super::figure("datagrams lost unseen", count(unseen)));
    lines.push(super::figure("clicks between workers", count(clicks.handed_off)));
    lines.push(super::figure("datagrams that wait", count(clicks.waiting)));
    lines.push(super::figure("malformed, copied", count(clicks.rejects_sampled)));
    lines.push(super::figure("malformed, counted only", count(clicks.rejects_unsampled)));
    lines
}

fn alarm(theme: Theme) -> ratatui::style::Style {
    theme.colour(Color::Red).add_modifier(Modifier::BOLD)
}

fn signed(number: i64) -> String {
    let digits = count(number.unsigned_abs());
    if number < 0 { format!("-{digits}") } else { digits }
}
