//! The lines of issued impressions at hand: the one way in which an impression is looked up and its
//! state put, for many clicks in a row or for one.

use super::super::leaf::Leaf;
use super::super::lines::{Branch, Cell, Kind, Lines};
use super::super::pages::Group;
use super::super::spans::Spans;
use super::{IssuedSlice, Name};
use weir_common::verdict::State;

/// The lines of all issued impressions.
pub(in super::super) struct Hand<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) slices: &'a mut Spans<IssuedSlice>,
    pub(super) any_overflowed: bool,
}

impl Hand<'_> {
    /// Reads a word of the home of an impression.
    #[inline(always)]
    pub(in super::super) fn touch(&self, home: usize) -> u64 {
        self.lines.directory.get(home).map_or(0, Group::touch)
    }

    /// Where an impression's home leads; nowhere if its stretch does not stand there.
    #[inline(always)]
    pub(in super::super) fn branch(&self, name: &Name, home: usize) -> Branch {
        self.lines.branch_at_home(name.stretch, name.rest, home)
    }

    /// Reads a word of the line a branch leads to.
    #[inline(always)]
    pub(in super::super) fn touch_line(&self, branch: Branch) -> u64 {
        // What stands in the directory was brought in with its home.
        let has_line = !matches!(branch.kind, Kind::Nowhere | Kind::Inline);
        self.lines.leaves.get(branch.line as usize).filter(|_| has_line).map_or(0, Leaf::touch)
    }

    /// The state of an impression where its branch leads; the first, if it is not there.
    #[inline(always)]
    pub(in super::super) fn state(&self, name: &Name, branch: Branch) -> State {
        self.lines.state(name.rest, branch)
    }

    /// The cell of an impression where its branch leads; `None` when it may be kept elsewhere.
    #[inline(always)]
    pub(in super::super) fn cell(&self, name: &Name, branch: Branch) -> Option<Cell> {
        let cell = self.lines.search(name.rest, branch)?;
        if self.any_overflowed && cell.slot.is_none() && self.has_overflowed(name) {
            return None;
        }
        Some(cell)
    }

    #[cold]
    fn has_overflowed(&self, name: &Name) -> bool {
        self.slices.live(name.slice).is_some_and(|slice| slice.overflowed)
    }

    /// Puts a state into a cell; `false`, and nothing is changed, when it cannot take it as it is, as none
    /// can that leads nowhere.
    #[inline(always)]
    pub(in super::super) fn put(&mut self, name: &Name, cell: Cell, state: State) -> bool {
        let is_put = self.lines.put(name.rest, cell, state);
        if is_put
            && cell.slot.is_none()
            && let Some(slice) = self.slices.live_mut(name.slice)
        {
            slice.len += 1;
        }
        is_put
    }
}
