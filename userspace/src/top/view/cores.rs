//! Each stage on each core. A cell has its figure and, for the eye, how it stands to the highest of its stage.

use ratatui::style::Color;
use ratatui::text::{Line, Span};

use super::super::model::{Model, WorkerRates};
use super::super::ui::Ui;
use super::Theme;
use super::figures::{latency, si};

/// From nothing to the highest of all cores.
const HEAT: [char; 5] = [' ', '\u{2591}', '\u{2592}', '\u{2593}', '\u{2588}'];

struct Stage {
    name: &'static str,
    value: fn(&WorkerRates) -> f64,
    shown: fn(f64) -> String,
}

/// In the order a click goes through them.
const STAGES: [Stage; 8] = [
    Stage { name: "frames", value: |worker| worker.frames_per_s, shown: si },
    Stage { name: "dgrams", value: |worker| worker.datagrams_per_s, shown: si },
    Stage { name: "clicks", value: |worker| worker.clicks_per_s, shown: si },
    Stage { name: "given", value: |worker| worker.handed_off_per_s, shown: si },
    Stage { name: "taken", value: |worker| worker.taken_over_per_s, shown: si },
    Stage { name: "journal", value: |worker| worker.journal_bytes_per_s, shown: si },
    Stage { name: "acks", value: |worker| worker.acks_per_s, shown: si },
    Stage {
        name: "ack p99",
        value: |worker| worker.now.ack_latency_ns.p99 as f64,
        shown: |ns| latency(ns as u64),
    },
];

pub(super) fn lines(model: &Model, ui: &Ui, room: usize, theme: Theme) -> Vec<Line<'static>> {
    let workers = ui.workers(model);
    let titles: String = STAGES.iter().map(|stage| format!("{:>7} ", stage.name)).collect();
    let title = format!("worker core {titles}");
    let mut lines = vec![Line::styled(title, theme.title())];
    let highest = STAGES.map(|stage| model.workers.iter().map(stage.value).fold(0.0, f64::max));
    // The title, a blank line and what the columns are.
    let rows = room.saturating_sub(5);
    for worker in workers.iter().skip(ui.selected.min(workers.len().saturating_sub(rows))).take(rows) {
        let mut spans = vec![Span::raw(format!("{:>6} {:>4} ", worker.now.worker, worker.now.core))];
        for (stage, highest) in STAGES.iter().zip(highest) {
            let value = (stage.value)(worker);
            let (mark, colour) = heat(value, highest);
            spans.push(Span::raw(format!("{:>7}", (stage.shown)(value))));
            spans.push(Span::styled(mark.to_string(), theme.colour(colour)));
        }
        lines.push(Line::from(spans));
    }
    if workers.len() > rows {
        lines.push(Line::from(format!("       {} of {} workers; j and k move on", rows, workers.len())));
    }
    lines.push(Line::default());
    lines.push(Line::from("A second, by stage: frames at the NIC, datagrams, clicks, clicks given to other"));
    lines.push(Line::from("workers and taken from them, bytes made durable, acks. Heat: to the highest."));
    lines.push(Line::from(format!("Sorted by {}.", ui.sort.name())));
    lines
}

/// How a figure stands to the highest: nothing, or the quarter it is in.
fn heat(value: f64, highest: f64) -> (char, Color) {
    let quarter = if highest > 0.0 { (value / highest * 4.0).ceil() as usize } else { 0 };
    let colours = [Color::Reset, Color::Blue, Color::Green, Color::Yellow, Color::Red];
    (HEAT[quarter.min(4)], colours[quarter.min(4)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_goes_by_quarters_of_the_highest() {
        let marks = [0.0, 1.0, 25.0, 26.0, 75.0, 76.0, 100.0]
            .map(|value| HEAT.iter().position(|&mark| mark == heat(value, 100.0).0));
        assert_eq!(marks, [0, 1, 1, 2, 3, 4, 4].map(Some));
        assert_eq!(heat(0.0, 0.0).0, ' ', "where nothing happens nothing is hot");
    }
}
