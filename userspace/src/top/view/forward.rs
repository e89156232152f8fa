//! From the journal to the sink: how fast, how full, how late.

use ratatui::style::{Color, Modifier};
use ratatui::text::Line;

use super::super::model::Model;
use super::figures::{count, latency, si};
use super::{Theme, figure};
use crate::control::status::Quantiles;
use crate::journal::spool::Level;
use crate::stats::JournalHealth;

/// Cells of the gauge of the journal's room.
const GAUGE_CELLS: usize = 40;

pub(super) fn lines(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let (status, alarm) = (&model.status, theme.colour(Color::Red).add_modifier(Modifier::BOLD));
    let (journal, spool, forward) = (&status.journal, &status.spool, &status.forward);
    let title = |name: &'static str| Line::styled(name, theme.title());
    let mut lines = vec![title("journal")];
    lines.push(figure("written", format!("{}B/s", si(model.journal_bytes_per_s))));
    lines.push(figure("blocks", format!("{}/s", si(model.blocks_per_s))));
    lines.push(quantiles("commit", journal.commit_latency_ns));
    if journal.state != JournalHealth::Running {
        let why = journal.last_failure.as_deref().unwrap_or("see the log");
        lines.push(Line::styled(format!("  {:?}: {why}", journal.state), alarm));
    }
    lines.push(title("room"));
    let full = (spool.fraction * GAUGE_CELLS as f64).round() as usize;
    let gauge: String = (0..GAUGE_CELLS).map(|cell| if cell < full { '#' } else { '.' }).collect();
    let gauge = Line::from(format!("  [{gauge}] {:.1} %", spool.fraction * 100.0));
    lines.push(if spool.level > Level::Ok { gauge.style(alarm) } else { gauge });
    let used = format!("{}B of {}B", si(spool.used_bytes as f64), si(spool.capacity_bytes as f64));
    lines.push(figure("used", used));
    let hours = spool.hours_to_full.map_or("does not fill".to_owned(), |hours| format!("{hours:.1} h"));
    lines.push(figure("until it is full", hours));
    lines.push(title("sink"));
    lines.push(figure("rows", format!("{}/s", si(model.rows_per_s))));
    lines.push(figure("raw batches", format!("{}B/s", si(model.raw_bytes_per_s))));
    lines.push(figure("bucket revisions", format!("{}/s", si(model.buckets_per_s))));
    lines.push(figure(
        "flushes, failed",
        format!("{}, {}", count(forward.flushes), count(forward.flush_failures)),
    ));
    lines.push(quantiles("flush", forward.flush_latency_ns));
    lines.push(quantiles("click to bucket", forward.click_to_bucket_ns));
    if let Some(why) = &forward.last_error {
        lines.push(Line::styled(format!("  FAILING: {why}"), alarm));
    }
    lines
}

fn quantiles(name: &str, of: Quantiles) -> Line<'static> {
    let [p50, p99, max] = [of.p50, of.p99, of.max].map(latency);
    Line::from(format!("  {name:<26}{:>18}", format!("p50 {p50}  p99 {p99}  max {max}")))
}
