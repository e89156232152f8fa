//! The one key map: what a key does and what the help says of it.

use super::ui::View;

/// A key, as far as anything here listens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// What types this character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Ctrl-C.
    Interrupt,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Shows a view.
    Show(View),
    /// Shows the next node.
    NextNode,
    /// Selects the line above.
    Up,
    /// Selects the line below.
    Down,
    /// Begins to type a filter.
    Filter,
    /// Sorts by the next column.
    Sort,
    /// Holds the picture, or lets it go.
    Freeze,
    /// Shows the keys, or hides them.
    Help,
    /// Takes back help, then the filter, then leaves.
    Back,
    /// Leaves.
    Quit,
}

/// A key and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    /// The key.
    pub(super) key: Key,
    /// Its name in the help; empty where a line before speaks of it.
    pub(super) shown: &'static str,
    /// What it does.
    pub(super) action: Action,
    /// The same in words.
    pub(super) help: &'static str,
}

const fn bind(key: Key, shown: &'static str, action: Action, help: &'static str) -> Binding {
    Binding { key, shown, action, help }
}

/// Every key there is.
pub(super) const KEYS: &[Binding] = &[
    bind(Key::Char('1'), "1", Action::Show(View::Overview), "Overview: ledger, workers, outcomes, reasons"),
    bind(Key::Char('2'), "2", Action::Show(View::Cores), "Cores: each stage on each core"),
    bind(
        Key::Char('3'),
        "3",
        Action::Show(View::Drops),
        "Drops: each reason, where it is met, and what to do",
    ),
    bind(Key::Char('4'), "4", Action::Show(View::Ledger), "Ledger: what came in against what became of it"),
    bind(Key::Char('5'), "5", Action::Show(View::Forward), "Forward: journal, room, and the way to the sink"),
    bind(Key::Char('6'), "6", Action::Show(View::Anycast), "Anycast: whether clicks should come here"),
    bind(Key::Tab, "Tab", Action::NextNode, "the next node"),
    bind(Key::Up, "Up k", Action::Up, "the line above"),
    bind(Key::Char('k'), "", Action::Up, ""),
    bind(Key::Down, "Down j", Action::Down, "the line below"),
    bind(Key::Char('j'), "", Action::Down, ""),
    bind(Key::Char('/'), "/", Action::Filter, "show only lines with a text; Enter ends it"),
    bind(Key::Char('s'), "s", Action::Sort, "sort by the next column"),
    bind(Key::Char('f'), "f", Action::Freeze, "hold the picture, or let it go"),
    bind(Key::Char('?'), "?", Action::Help, "these keys"),
    bind(Key::Escape, "Esc", Action::Back, "take back help, then the filter, then leave"),
    bind(Key::Char('q'), "q", Action::Quit, "leave"),
    bind(Key::Interrupt, "Ctrl-C", Action::Quit, "leave"),
];

/// What this key does.
#[must_use]
pub(super) fn action(key: Key) -> Option<Action> {
    KEYS.iter().find(|binding| binding.key == key).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_and_every_action_is_explained() {
        for (index, binding) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.key != binding.key), "{binding:?}");
            let is_said = |other: &Binding| other.action == binding.action && !other.help.is_empty();
            assert!(KEYS.iter().any(is_said), "{binding:?}");
        }
    }
}
