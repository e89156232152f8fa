//! The overview: ledger, workers, outcomes, reasons, and what an operator must know beside the figures.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::model::{Flow, Model, Verdict, WorkerRates};
use super::Theme;
use super::figures::{count, latency, si, uptime};
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

/// Draws it, with these reasons.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, (model, shown): (&Model, &[&Flow]), theme: Theme) {
    let gap = u16::from(area.height >= TALL);
    // On a node with more workers than rows the rest of the screen matters more than the last ones.
    let notes = notes(model);
    let foot_rows = 3 + notes.len() as u16;
    let rows = area.height.saturating_sub(2 + gap + gap + OUTCOME_ROWS + foot_rows).max(2);
    let rows = rows.min(1 + model.workers.len() as u16);
    let [head, workers, _, flows, foot] = Layout::vertical([
        Constraint::Length(2 + gap),
        Constraint::Length(rows),
        Constraint::Length(gap),
        Constraint::Min(OUTCOME_ROWS),
        Constraint::Length(foot_rows),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(model, head.width, theme)), head);
    frame.render_widget(Paragraph::new(worker_lines(model, workers, theme)), workers);
    let [outcomes, reasons] =
        Layout::horizontal([Constraint::Length(OUTCOME_COLUMNS), Constraint::Min(0)]).areas(flows);
    frame.render_widget(Paragraph::new(outcome_lines(model, theme)), outcomes);
    frame.render_widget(Paragraph::new(reason_lines(shown, reasons, theme)), reasons);
    let alarm = theme.colour(Color::Red).add_modifier(Modifier::BOLD);
    let notes = notes.into_iter().map(|note| Line::styled(note, alarm));
    let lines: Vec<_> = foot_lines(model, theme).into_iter().chain(notes).collect();
    frame.render_widget(Paragraph::new(lines), foot);
}

pub(super) fn head_lines(model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
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

fn reason_lines(shown: &[&Flow], area: Rect, theme: Theme) -> Vec<Line<'static>> {
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
    let hidden = shown.len().saturating_sub(rows);
    let rows_shown = if hidden > 0 { rows.saturating_sub(1) } else { shown.len() };
    let mut lines: Vec<_> =
        std::iter::once(title).chain(shown.iter().take(rows_shown).map(|flow| row(flow))).collect();
    match (shown.is_empty(), shown.len() - rows_shown) {
        (true, _) => lines.push(Line::from("  nothing dropped, refused or filtered")),
        (false, 0) => {}
        (false, more) => lines.push(Line::from(format!("  and {more} more"))),
    }
    lines
}

/// What an operator must know beside the figures, each in one line; none when all is well.
pub(super) fn notes(model: &Model) -> Vec<String> {
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
