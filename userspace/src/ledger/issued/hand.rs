//! The lines of issued impressions at hand: the one way in which an impression is looked up and its
//! state put, for many clicks in a row or for one.

use super::super::leaf::{Leaf, Sighting};
use super::super::lines::{Branch, Lines};
use super::super::pages::Group;
use super::super::spans::Spans;
use super::super::verdict::State;
use super::{IssuedSlice, Name};

/// The lines of all issued impressions.
pub(in super::super) struct Hand<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) slices: &'a mut Spans<IssuedSlice>,
    pub(super) any_overflowed: bool,
}

/// Where an impression is or would come.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Cell {
    pub(in super::super) branch: Branch,
    /// Where in its line it is; `None` if it is not.
    pub(in super::super) slot: Option<u8>,
    /// Its state; of one that is not here, the first.
    pub(in super::super) state: State,
}

impl Cell {
    /// A cell for an impression that is not here.
    #[inline(always)]
    pub(in super::super) const fn vacant(branch: Branch) -> Self {
        Self { branch, slot: None, state: State(0) }
    }
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
        self.lines.branch_at_home(name.stretch, name.rest, home).unwrap_or(Branch::Nowhere)
    }

    /// Reads a word of the line a branch leads to.
    #[inline(always)]
    pub(in super::super) fn touch_line(&self, branch: Branch) -> u64 {
        self.lines.leaves.get(branch.line() as usize).map_or(0, Leaf::touch)
    }

    /// The cell of an impression where its branch leads; `None` when it may be kept elsewhere.
    #[inline(always)]
    pub(in super::super) fn cell(&self, name: &Name, branch: Branch) -> Option<Cell> {
        match self.lines.search(name.rest, branch) {
            Sighting::Here(slot) => {
                Some(Cell { branch, slot: Some(slot), state: self.lines.state(branch, slot) })
            }
            Sighting::Absent if !self.any_overflowed || !self.has_overflowed(name) => {
                Some(Cell::vacant(branch))
            }
            Sighting::Absent | Sighting::Elsewhere => None,
        }
    }

    #[cold]
    fn has_overflowed(&self, name: &Name) -> bool {
        self.slices.live(name.slice).is_some_and(|slice| slice.overflowed)
    }

    /// Whether a cell can take a state as it is; one that leads nowhere cannot.
    #[inline(always)]
    pub(in super::super) fn has_room(&self, name: &Name, cell: Cell, state: State) -> bool {
        match cell.slot {
            Some(_) => Lines::can_hold(cell.branch, state),
            None => self.lines.has_room(name.rest, cell.branch, state),
        }
    }

    /// Puts a state into a cell that [has room](Self::has_room) for it.
    #[inline(always)]
    pub(in super::super) fn put(&mut self, name: &Name, cell: Cell, state: State) {
        match cell.slot {
            Some(slot) => self.lines.set_state(cell.branch, slot, state),
            None => {
                self.lines.insert(name.rest, cell.branch, state);
                if let Some(slice) = self.slices.live_mut(name.slice) {
                    slice.len += 1;
                }
            }
        }
    }
}
