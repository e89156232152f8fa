//! Draws the model on one screen. Pure: what it draws depends on the model and the size alone.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::model::{Flow, Model, Verdict, WorkerRates};
use crate::journal::spool::Level;
use crate::stats::JournalHealth;

/// From this width on tables have all their columns, and the ledger all its digits.
const WIDE: u16 = 80;
/// From this height on sections are parted by a blank line.
const TALL: u16 = 20;
/// Rows for outcomes: seven of them and a title.
const OUTCOME_ROWS: u16 = 8;
/// Columns for outcomes; reasons have the rest.
const OUTCOME_COLUMNS: u16 = 28;

/// Colours, or none. Nothing is told by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Use colours.
    pub colours: bool,
}

impl Theme {
    /// Colours unless `NO_COLOR` says otherwise (no-color.org).
    #[must_use]
    pub fn from_environment() -> Self {
        Self { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn title(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

/// Draws one screen.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let gap = u16::from(frame.area().height >= TALL);
    // On a node with more workers than rows the rest of the screen matters more than the last ones.
    let notes = notes(model);
    let foot_rows = 3 + notes.len() as u16;
    let rows = frame.area().height.saturating_sub(2 + gap + gap + OUTCOME_ROWS + foot_rows).max(2);
    let rows = rows.min(1 + model.workers.len() as u16);
    let [head, workers, _, flows, foot] = Layout::vertical([
        Constraint::Length(2 + gap),
        Constraint::Length(rows),
        Constraint::Length(gap),
        Constraint::Min(OUTCOME_ROWS),
        Constraint::Length(foot_rows),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(model, head.width, theme)), head);
    frame.render_widget(Paragraph::new(worker_lines(model, workers, theme)), workers);
    let [outcomes, reasons] =
        Layout::horizontal([Constraint::Length(OUTCOME_COLUMNS), Constraint::Min(0)]).areas(flows);
    frame.render_widget(Paragraph::new(outcome_lines(model, theme)), outcomes);
    frame.render_widget(Paragraph::new(reason_lines(model, reasons, theme)), reasons);
    let alarm = theme.colour(Color::Red).add_modifier(Modifier::BOLD);
    let notes = notes.into_iter().map(|note| Line::styled(note, alarm));
    let lines: Vec<_> = foot_lines(model, theme).into_iter().chain(notes).collect();
    frame.render_widget(Paragraph::new(lines), foot);
}

fn head_lines(model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let status = &model.status;
    let clicks = &status.clicks;
    // The ledger is exact to the click wherever there is room.
    let exact = |number: u64| if width >= WIDE { count(number) } else { si(number as f64) };
    let decided = clicks.received.cast_signed().saturating_sub(clicks.residual);
    let (verdict, style) = match model.verdict {
        Verdict::Closed => ("closed".to_owned(), theme.colour(Color::Green)),
        Verdict::InFlight => ("in flight".to_owned(), theme.colour(Color::Yellow)),
        Verdict::Open => (
            "NOT CLOSED".to_owned(),
            theme.colour(Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED),
        ),
    };
    vec![
        Line::from(vec![
            Span::styled(format!("weir {}", status.version), theme.title()),
            Span::raw(format!(
                "  node {} {}/{}  {}  up {}  xdp {}",
                status.node,
                status.region,
                status.pop,
                status.state.name(),
                uptime(status.uptime_s),
                status.steering.rung
            )),
        ]),
        Line::from(vec![
            Span::styled("ledger", theme.title()),
            Span::raw("  "),
            Span::styled(format!("residual {}", clicks.residual), style),
            Span::raw(" "),
            Span::styled(verdict, style),
            Span::raw(format!("  in {}  decided {}", exact(clicks.received), exact(decided.unsigned_abs()))),
            Span::raw(if width >= WIDE {
                format!("  {}/s", si(model.received_per_s))
            } else {
                String::new()
            }),
        ]),
    ]
}

fn worker_lines(model: &Model, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let wide = area.width >= WIDE;
    let title = if wide {
        "worker core clicks/s dgrams/s   acks/s hand-off/s waiting   ack p99 commit p99"
    } else {
        "worker core clicks/s waiting   ack p99 commit p99"
    };
    let row = |worker: &WorkerRates| {
        let now = &worker.now;
        let first = format!("{:>6} {:>4} {:>8}", now.worker, now.core, si(worker.clicks_per_s));
        let middle = format!(
            " {:>8} {:>8} {:>10}",
            si(worker.datagrams_per_s),
            si(worker.acks_per_s),
            si(worker.handed_off_per_s)
        );
        let last = format!(
            " {:>7} {:>9} {:>10}",
            count(now.waiting),
            latency(now.ack_latency_ns.p99),
            latency(now.commit_latency_ns.p99)
        );
        Line::from(if wide { first + &middle + &last } else { first + &last })
    };
    let rows = usize::from(area.height).saturating_sub(1);
    let shown = if model.workers.len() > rows { rows.saturating_sub(1) } else { rows };
    let title = Line::styled(title, theme.title());
    let mut lines: Vec<_> = std::iter::once(title).chain(model.workers.iter().take(shown).map(row)).collect();
    if model.workers.len() > shown {
        lines.push(Line::from(format!("   and {} more workers", model.workers.len() - shown)));
    }
    lines
}

fn outcome_lines(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let title = Line::styled("outcome       per s    total", theme.title());
    let row = |flow: &Flow| {
        Line::from(format!("{:<10} {:>8} {:>8}", flow.name, si(flow.per_s), si(flow.total as f64)))
    };
    std::iter::once(title).chain(model.outcomes.iter().map(row)).collect()
}

fn reason_lines(model: &Model, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let wide = area.width >= WIDE - OUTCOME_COLUMNS;
    let title = if wide {
        "  reason                 of        per s    total"
    } else {
        "  reason             per s total"
    };
    let title = Line::styled(title, theme.title());
    let rows = usize::from(area.height).saturating_sub(1);
    let row = |flow: &Flow| {
        let (per_s, total) = (si(flow.per_s), si(flow.total as f64));
        Line::from(if wide {
            format!("  {:<22.22} {:<6} {per_s:>8} {total:>8}", flow.name, flow.of)
        } else {
            format!("  {:<18.18} {per_s:>5} {total:>5}", flow.name)
        })
    };
    let hidden = model.reasons.len().saturating_sub(rows);
    let shown = if hidden > 0 { rows.saturating_sub(1) } else { model.reasons.len() };
    let mut lines: Vec<_> = std::iter::once(title).chain(model.reasons.iter().take(shown).map(row)).collect();
    match (model.reasons.is_empty(), model.reasons.len() - shown) {
        (true, _) => lines.push(Line::from("  nothing dropped, refused or filtered")),
        (false, 0) => {}
        (false, more) => lines.push(Line::from(format!("  and {more} more"))),
    }
    lines
}

/// What an operator must know beside the figures, each in one line; none when all is well.
fn notes(model: &Model) -> Vec<String> {
    let status = &model.status;
    let journal = &status.journal;
    let why = journal.last_failure.as_deref().unwrap_or("see the log");
    let mut notes = Vec::new();
    if let (Some(cause), Some(remedy)) = (&status.time.cause, &status.time.remedy) {
        notes.push(format!("TIME UNCERTAIN: {cause} {remedy}"));
    }
    match journal.state {
        JournalHealth::Running if journal.failures > 0 => {
            notes.push(format!("journal: {} operations failed; the last: {why}", journal.failures));
        }
        JournalHealth::Running => {}
        JournalHealth::NoSpace => {
            notes.push(format!("journal NO SPACE: clicks are or will be told to retry: {why}"));
        }
        JournalHealth::Halted => {
            notes.push(format!("journal HALTED: clicks are told to retry until a restart: {why}"));
        }
    }
    if status.spool.level > Level::Ok {
        let full = format!("journal {:.0} % FULL", status.spool.fraction * 100.0);
        let left = status
            .spool
            .hours_to_full
            .map_or(String::new(), |hours| format!(", {hours:.1} h until clicks are told to retry"));
        notes.push(full + &left);
    }
    notes.extend(status.forward.last_error.as_ref().map(|why| format!("forward FAILING: {why}")));
    if let Some(recovery) =
        status.recovery.as_ref().filter(|recovery| recovery.findings > recovery.torn_tails)
    {
        notes.push(format!(
            "recovery: {} findings, {} blocks LOST; the log and `weir status --json` name them",
            recovery.findings, recovery.lost_blocks
        ));
    }
    notes
}

fn foot_lines(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let status = &model.status;
    let ack = status.ack_latency_ns;
    let forward = &status.forward;
    vec![
        Line::from(vec![
            Span::styled("journal", theme.title()),
            Span::raw(format!(
                "  {}B/s  {} blocks/s  commit p99 {}",
                si(model.journal_bytes_per_s),
                si(model.blocks_per_s),
                latency(status.journal.commit_latency_ns.p99)
            )),
        ]),
        Line::from(vec![
            Span::styled("forward", theme.title()),
            Span::raw(format!(
                "  {} flushes, {} failed  {} buckets",
                count(forward.flushes),
                count(forward.flush_failures),
                si(forward.buckets as f64)
            )),
        ]),
        Line::from(vec![
            Span::styled("ack", theme.title()),
            Span::raw(format!(
                "      p50 {}  p99 {}  p99.9 {}  max {}",
                latency(ack.p50),
                latency(ack.p99),
                latency(ack.p999),
                latency(ack.max)
            )),
        ]),
    ]
}

/// A number in four digits or fewer and its power of a thousand.
fn si(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G", "T"] {
        if scaled < 999.5 {
            return match unit {
                "" => format!("{scaled:.0}"),
                unit if scaled < 9.995 => format!("{scaled:.2}{unit}"),
                unit if scaled < 99.95 => format!("{scaled:.1}{unit}"),
                unit => format!("{scaled:.0}{unit}"),
            };
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.0}P")
}

/// A number with its thousands marked off.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn latency(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.0}us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}ms", ns as f64 / 1e6),
        _ => format!("{:.1}s", ns as f64 / 1e9),
    }
}

fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_columns() {
        let cases = [
            (0.0, "0"),
            (999.4, "999"),
            (999.5, "1.00k"),
            (1_234.0, "1.23k"),
            (9_995.0, "10.0k"),
            (99_950.0, "100k"),
            (999_500.0, "1.00M"),
            (12_345_678.0, "12.3M"),
        ];
        for (number, text) in cases {
            assert_eq!(si(number), text, "{number}");
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(latency(12_345_678), "12.3ms");
        assert_eq!(
            (uptime(61.0), uptime(7_261.0), uptime(90_000.0)),
            ("1m01s".into(), "2h01m".into(), "1d01h".into())
        );
    }
}
