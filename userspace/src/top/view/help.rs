//! The keys, from their one table.

use ratatui::text::Line;

use super::super::keys::KEYS;
use super::Theme;

pub(super) fn lines(theme: Theme) -> Vec<Line<'static>> {
    let title = Line::styled("key      what it does", theme.title());
    let said = KEYS.iter().filter(|binding| !binding.help.is_empty());
    let lines = said.map(|binding| Line::from(format!("{:<8} {}", binding.shown, binding.help)));
    std::iter::once(title).chain(lines).collect()
}
