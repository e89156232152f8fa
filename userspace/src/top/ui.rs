//! What the viewer has chosen to see: a state, and what each key makes of it. Pure.

use std::cmp::Reverse;

use super::keys::{Action, Key, action};
use super::model::{Flow, Model, Node, WorkerRates};

/// Most characters of a filter: a reason's name and then some.
const FILTER_MAX: usize = 32;

/// What can be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// Ledger, workers, outcomes, reasons; of several nodes one line each.
    #[default]
    Overview,
    /// Each stage on each core.
    Cores,
    /// Each reason, where it is met, and what to do.
    Drops,
    /// What came in against what became of it.
    Ledger,
    /// Journal, room and the way to the sink.
    Forward,
    /// Whether clicks should come here.
    Anycast,
}

impl View {
    /// All of them, in the order of their keys.
    pub(super) const ALL: [Self; 6] =
        [Self::Overview, Self::Cores, Self::Drops, Self::Ledger, Self::Forward, Self::Anycast];

    /// Its name on the screen.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Cores => "Cores",
            Self::Drops => "Drops",
            Self::Ledger => "Ledger",
            Self::Forward => "Forward",
            Self::Anycast => "Anycast",
        }
    }
}

/// By which column lines are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Busiest now first.
    #[default]
    Rate,
    /// Most in all first.
    Total,
    /// By name, or by number.
    Name,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Total,
            Self::Total => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Total => "total",
            Self::Name => "name",
        }
    }
}

/// What the viewer has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ui {
    /// The view.
    pub(super) view: View,
    /// Which of the nodes.
    pub(super) node: usize,
    /// Lines have this text in them.
    pub(super) filter: String,
    /// Whether keys are typed into the filter.
    pub(super) is_typing: bool,
    /// How lines are sorted.
    pub(super) sort: Sort,
    /// Whether the picture is held.
    pub(super) is_frozen: bool,
    /// Whether the keys are shown.
    pub(super) shows_help: bool,
    /// The selected line.
    pub(super) selected: usize,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Draw it.
    Draw,
    /// Leave.
    Leave,
}

impl Ui {
    /// Does what a key does, with these nodes to look at.
    pub(super) fn press(&mut self, key: Key, nodes: &[Node]) -> Next {
        let next = self.act(key, nodes.len());
        // A line that is there no more, or never was, is not the selected one.
        self.selected = self.selected.min(self.lines(nodes).saturating_sub(1));
        next
    }

    fn act(&mut self, key: Key, nodes: usize) -> Next {
        if self.is_typing && key != Key::Interrupt {
            self.type_filter(key);
            return Next::Draw;
        }
        match action(key) {
            Some(Action::Show(view)) => (self.view, self.selected, self.shows_help) = (view, 0, false),
            Some(Action::NextNode) => (self.node, self.selected) = ((self.node + 1) % nodes.max(1), 0),
            Some(Action::Up) => self.selected = self.selected.saturating_sub(1),
            Some(Action::Down) => self.selected += 1,
            Some(Action::Filter) => self.is_typing = true,
            Some(Action::Sort) => self.sort = self.sort.next(),
            Some(Action::Freeze) => self.is_frozen = !self.is_frozen,
            Some(Action::Help) => self.shows_help = !self.shows_help,
            Some(Action::Back) => return self.back(),
            Some(Action::Quit) => return Next::Leave,
            None => {}
        }
        Next::Draw
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(typed) if self.filter.chars().count() < FILTER_MAX => self.filter.push(typed),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => (self.is_typing, self.filter) = (false, String::new()),
            _ => {}
        }
        self.selected = 0;
    }

    fn back(&mut self) -> Next {
        if self.shows_help {
            self.shows_help = false;
        } else if self.filter.is_empty() {
            return Next::Leave;
        } else {
            self.filter.clear();
        }
        Next::Draw
    }

    /// How many lines there are to select one of.
    fn lines(&self, nodes: &[Node]) -> usize {
        let Some(model) = nodes.get(self.node).and_then(|node| node.model.as_ref()) else { return 0 };
        match self.view {
            View::Drops => self.reasons(model).len(),
            View::Cores => self.workers(model).len(),
            View::Overview | View::Ledger | View::Forward | View::Anycast => 0,
        }
    }

    /// The reasons to show, in their order.
    #[must_use]
    pub(super) fn reasons<'a>(&self, model: &'a Model) -> Vec<&'a Flow> {
        let mut shown: Vec<_> =
            model.reasons.iter().filter(|flow| flow.name.contains(&self.filter)).collect();
        match self.sort {
            // They come so.
            Sort::Rate => {}
            Sort::Total => shown.sort_by_key(|flow| Reverse(flow.total)),
            Sort::Name => shown.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        shown
    }

    /// The workers to show, in their order.
    #[must_use]
    pub(super) fn workers<'a>(&self, model: &'a Model) -> Vec<&'a WorkerRates> {
        let is_shown = |worker: &&WorkerRates| format!("core {}", worker.now.core).contains(&self.filter);
        let mut shown: Vec<_> = model.workers.iter().filter(is_shown).collect();
        match self.sort {
            Sort::Rate => shown.sort_by(|a, b| b.clicks_per_s.total_cmp(&a.clicks_per_s)),
            Sort::Total => shown.sort_by_key(|worker| Reverse(worker.now.clicks)),
            Sort::Name => {}
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(count: usize) -> Vec<Node> {
        (0..count).map(|number| Node { name: number.to_string(), model: None, trouble: None }).collect()
    }

    fn pressed(keys: &[Key]) -> (Ui, Next) {
        let mut ui = Ui::default();
        let next = keys.iter().map(|&key| ui.press(key, &silent(3))).last().expect("keys");
        (ui, next)
    }

    #[test]
    fn digits_show_views_and_tab_goes_round_the_nodes() {
        for (digit, view) in ('1'..).zip(View::ALL) {
            assert_eq!(pressed(&[Key::Char(digit)]).0.view, view);
        }
        assert_eq!(pressed(&[Key::Tab; 2]).0.node, 2);
        assert_eq!(pressed(&[Key::Tab; 3]).0.node, 0);
    }

    #[test]
    fn what_is_typed_into_a_filter_does_nothing_else() {
        let typed = [Key::Char('/'), Key::Char('q'), Key::Char('s'), Key::Char('3'), Key::Backspace];
        let (ui, next) = pressed(&typed);
        assert_eq!(
            (ui.filter.as_str(), ui.is_typing, ui.view, next),
            ("qs", true, View::Overview, Next::Draw)
        );
        let (ui, _) = pressed(&[&typed[..], &[Key::Enter, Key::Char('3')]].concat());
        assert_eq!((ui.filter.as_str(), ui.is_typing, ui.view), ("qs", false, View::Drops));
        let (ui, _) = pressed(&[&typed[..], &[Key::Escape]].concat());
        assert_eq!((ui.filter.as_str(), ui.is_typing), ("", false));
        assert_eq!(pressed(&[Key::Char('/'), Key::Interrupt]).1, Next::Leave, "Ctrl-C always leaves");
        let long = [&[Key::Char('/')][..], &[Key::Char('x'); 100]].concat();
        assert_eq!(pressed(&long).0.filter.len(), FILTER_MAX);
    }

    #[test]
    fn escape_takes_back_one_thing_after_the_other() {
        let keys = [Key::Char('/'), Key::Char('x'), Key::Enter, Key::Char('?')];
        let mut ui = pressed(&keys).0;
        assert_eq!(
            (ui.press(Key::Escape, &silent(1)), ui.shows_help, ui.filter.as_str()),
            (Next::Draw, false, "x")
        );
        assert_eq!((ui.press(Key::Escape, &silent(1)), ui.filter.as_str()), (Next::Draw, ""));
        assert_eq!(ui.press(Key::Escape, &silent(1)), Next::Leave);
    }

    #[test]
    fn sorting_goes_round_and_a_picture_is_held_and_let_go() {
        let sorts: Vec<_> = (1..=3).map(|times| pressed(&vec![Key::Char('s'); times]).0.sort).collect();
        assert_eq!(sorts, [Sort::Total, Sort::Name, Sort::Rate]);
        assert_eq!([1, 2].map(|times| pressed(&vec![Key::Char('f'); times]).0.is_frozen), [true, false]);
    }
}
