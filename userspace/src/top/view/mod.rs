//! Draws what was seen on one screen. Pure: what is drawn depends on the nodes, the viewer's choice and the size
//! alone.

mod anycast;
mod cores;
mod drops;
mod figures;
mod forward;
mod help;
mod ledger;
mod nodes;
mod overview;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::model::{Model, Node};
use super::ui::{Ui, View};

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

    pub(super) fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn title(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

/// Draws one node's overview and nothing else: what is printed where there is no terminal.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let reasons: Vec<_> = model.reasons.iter().collect();
    overview::draw(frame, frame.area(), (model, &reasons), theme);
}

/// Draws what the viewer has chosen of these nodes.
pub(super) fn draw_chosen(frame: &mut Frame<'_>, nodes: &[Node], ui: &Ui, theme: Theme) {
    let [body, bar] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(bar_line(nodes, ui, theme)), bar);
    if ui.shows_help {
        return frame.render_widget(Paragraph::new(help::lines(theme)), body);
    }
    if ui.view == View::Overview && nodes.len() > 1 {
        return frame.render_widget(Paragraph::new(nodes::lines(nodes, ui, body, theme)), body);
    }
    let Some(node) = nodes.get(ui.node) else { return };
    let body = trouble(frame, body, node, theme);
    let Some(model) = &node.model else { return };
    let mut head = overview::head_lines(model, body.width, theme);
    head.push(Line::default());
    let room = usize::from(body.height).saturating_sub(head.len());
    let lines = match ui.view {
        View::Overview => return overview::draw(frame, body, (model, &ui.reasons(model)), theme),
        View::Cores => cores::lines(model, ui, room, theme),
        View::Drops => drops::lines(model, ui, (usize::from(body.width), room), theme),
        View::Ledger => ledger::lines(model, theme),
        View::Forward => forward::lines(model, theme),
        View::Anycast => anycast::lines(model, theme),
    };
    frame.render_widget(Paragraph::new([head, lines].concat()), body);
}

/// Says above all else that a node does not answer; what is left of the screen.
fn trouble(frame: &mut Frame<'_>, area: Rect, node: &Node, theme: Theme) -> Rect {
    let Some(trouble) = &node.trouble else { return area };
    let [above, rest] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    let alarm = theme.colour(Color::Red).add_modifier(Modifier::BOLD);
    let text = Line::styled(format!("{} DOES NOT ANSWER: {trouble}", node.name), alarm);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), above);
    rest
}

fn bar_line<'a>(nodes: &'a [Node], ui: &'a Ui, theme: Theme) -> Line<'a> {
    if ui.is_typing {
        return Line::from(format!("/{}_", ui.filter));
    }
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style =
            if view == ui.view { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        // In brackets too: reversal is lost where there is no terminal.
        let (left, right) = if view == ui.view { ("[", "]") } else { (" ", " ") };
        spans.push(Span::styled(format!("{left}{number} {}{right}", view.name()), style));
    }
    // What comes last is what a narrow screen can do without.
    if ui.is_frozen {
        spans.push(Span::styled(" FROZEN", theme.colour(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    if !ui.filter.is_empty() {
        spans.push(Span::raw(format!(" /{}", ui.filter)));
    }
    if nodes.len() > 1 {
        spans.push(Span::raw(format!(" {}", nodes.get(ui.node).map_or("", |node| &node.name))));
    }
    spans.push(Span::raw(" ? help"));
    Line::from(spans)
}

/// A line that says what it counts and the figure, in columns.
fn figure(name: &str, figure: String) -> Line<'static> {
    Line::from(format!("  {name:<26}{figure:>18}"))
}
