//! The lines of issued impressions as they lie in memory: reads and writes one impression where
//! its branch leads, whatever form its line has.
//!
//! It makes no room and asks no one else: what does not fit is the caller's affair.

use super::directory::{DirectoryLine, Form, Stretch, StretchKey};
use super::layout::{dense_place, part_of, wide_place};
use super::leaf::{Leaf, Rest, SPARSE_SLOTS, SparseEntry, has_code};
use super::pages::Place;
use weir_common::verdict::State;

/// Where the line of an impression is, as long as its stretch does not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) kind: Kind,
    /// The slot: of its stretch in the directory, or its own in a dense or wide line.
    slot: u8,
    /// The line: of the directory for [`Kind::Inline`], else of the leaves.
    pub(super) line: u32,
}

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None: nothing of its stretch was seen.
    Nowhere,
    /// In the directory.
    Inline,
    /// A sparse line.
    Sparse,
    /// A dense line.
    Dense,
    /// A wide line.
    Wide,
}

impl Branch {
    /// Leads nowhere.
    pub(super) const NOWHERE: Self = Self { kind: Kind::Nowhere, slot: 0, line: 0 };

    /// To the entries that stand with their stretch.
    #[inline]
    pub(super) const fn inline(place: Place) -> Self {
        Self { kind: Kind::Inline, slot: place.slot as u8, line: place.group }
    }

    /// Whether it leads to the same line as long as its slice lives: such stretches do not grow.
    #[inline(always)]
    pub(super) const fn is_final(self) -> bool {
        matches!(self.kind, Kind::Dense | Kind::Wide)
    }

    #[inline(always)]
    const fn place(self) -> Place {
        Place { group: self.line, slot: self.slot as u32 }
    }
}

/// Where an impression is or would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) branch: Branch,
    /// Where in its line it is; `None` if it is not.
    pub(super) slot: Option<u8>,
    /// Its state; of one that is not here, the first.
    pub(super) state: State,
}

impl Cell {
    /// A cell for an impression that is not here.
    #[inline(always)]
    pub(super) const fn vacant(branch: Branch) -> Self {
        Self { branch, slot: None, state: State(0) }
    }
}

/// All lines, of every slice.
pub(super) struct Lines<'a> {
    pub(super) directory: &'a mut [DirectoryLine],
    pub(super) leaves: &'a mut [Leaf],
}

impl Lines<'_> {
    /// Where the line of an impression is; nowhere if its stretch does not stand at this home.
    #[inline(always)]
    pub(super) fn branch_at_home(&self, key: StretchKey, rest: Rest, home: usize) -> Branch {
        let Some(line) = self.directory.get(home) else { return Branch::NOWHERE };
        let Some(slot) = line.slot_of(key) else { return Branch::NOWHERE };
        let slot = slot as u32;
        branch_in(line.stretch(slot), Place { group: home as u32, slot }, rest)
    }

    /// Where the line of an impression of the stretch at this place is.
    pub(super) fn branch_at(&self, place: Place, rest: Rest) -> Branch {
        branch_in(self.stretch(place), place, rest)
    }

    #[inline(always)]
    pub(super) fn stretch(&self, place: Place) -> &Stretch {
        self.directory[place.group as usize].stretch(place.slot)
    }

    #[inline(always)]
    pub(super) fn stretch_mut(&mut self, place: Place) -> &mut Stretch {
        self.directory[place.group as usize].stretch_mut(place.slot)
    }

    #[inline(always)]
    pub(super) fn leaf(&self, line: u32) -> &Leaf {
        &self.leaves[line as usize]
    }

    #[inline(always)]
    pub(super) fn leaf_mut(&mut self, line: u32) -> &mut Leaf {
        &mut self.leaves[line as usize]
    }

    /// The slot and state of an impression where its branch leads. If it is not there, the state is the
    /// first and the slot any.
    #[inline(always)]
    fn entry(&self, rest: Rest, Branch { kind, slot, line }: Branch) -> (u8, State) {
        match kind {
            Kind::Nowhere => (slot, State(0)),
            Kind::Inline => {
                let entries = self.stretch(Place { group: line, slot: u32::from(slot) }).inline();
                let at = entries.iter().position(|entry| entry.is(rest));
                at.map_or((slot, State(0)), |at| (at as u8, entries[at].state()))
            }
            Kind::Sparse => {
                let leaf = self.leaf(line);
                leaf.sparse_find(rest).map_or((slot, State(0)), |at| (at, leaf.sparse_entry(at).state()))
            }
            Kind::Dense => (slot, self.leaf(line).dense_state(slot, rest.second)),
            Kind::Wide => (slot, self.leaf(line).wide_state(slot, rest.second)),
        }
    }

    /// The state of an impression where its branch leads; if it is not there, the first.
    #[inline(always)]
    pub(super) fn state(&self, rest: Rest, branch: Branch) -> State {
        self.entry(rest, branch).1
    }

    /// The cell of an impression where its branch leads; `None` when it is not there and may be
    /// among the outcasts.
    #[inline(always)]
    pub(super) fn search(&self, rest: Rest, branch: Branch) -> Option<Cell> {
        let (slot, state) = self.entry(rest, branch);
        if state != State(0) {
            return Some(Cell { branch, slot: Some(slot), state });
        }
        let has_outcasts = match branch.kind {
            Kind::Nowhere | Kind::Inline => false,
            Kind::Sparse | Kind::Dense | Kind::Wide => self.leaf(branch.line).has_outcasts(),
        };
        (!has_outcasts).then_some(Cell::vacant(branch))
    }

    /// Whether an impression can stand where its branch leads with this state.
    #[inline(always)]
    pub(super) fn can_hold(branch: Branch, state: State) -> bool {
        !branch.is_final() || has_code(state)
    }

    /// Whether an impression that is not here can be inserted as it is.
    #[inline(always)]
    pub(super) fn has_room(&self, rest: Rest, branch: Branch, state: State) -> bool {
        let Branch { kind, slot, line } = branch;
        match kind {
            Kind::Nowhere => false,
            Kind::Inline => !self.stretch(branch.place()).inline_is_full(),
            Kind::Sparse => self.leaf(line).sparse_len() < SPARSE_SLOTS,
            Kind::Dense => has_code(state) && self.leaf(line).dense_has_room(slot, rest.second),
            Kind::Wide => has_code(state) && self.leaf(line).wide_has_room(slot),
        }
    }

    /// Changes the state of an impression that is here, or inserts it; `false`, and nothing is changed,
    /// when its line cannot take that.
    #[inline(always)]
    pub(super) fn put(&mut self, rest: Rest, cell: Cell, state: State) -> bool {
        let Branch { kind, slot, line } = cell.branch;
        let entry = SparseEntry::new(rest, state);
        match (kind, cell.slot) {
            (Kind::Nowhere, _) => return false,
            (Kind::Inline, at) => {
                let stretch = self.stretch_mut(cell.branch.place());
                match at {
                    Some(at) => *stretch.inline_mut(at) = entry,
                    None if stretch.inline_is_full() => return false,
                    None => stretch.inline_push(entry),
                }
            }
            (Kind::Sparse, at) => {
                let leaf = self.leaf_mut(line);
                match at {
                    Some(at) => *leaf.sparse_entry_mut(at) = entry,
                    None if leaf.sparse_len() == SPARSE_SLOTS => return false,
                    None => leaf.sparse_push(entry),
                }
            }
            (Kind::Dense, at) => {
                let leaf = self.leaf_mut(line);
                if !has_code(state) || at.is_none() && !leaf.dense_has_room(slot, rest.second) {
                    return false;
                }
                leaf.dense_put(slot, rest.second, state);
            }
            (Kind::Wide, at) => {
                let leaf = self.leaf_mut(line);
                if !has_code(state) || at.is_none() && !leaf.wide_has_room(slot) {
                    return false;
                }
                leaf.wide_put(slot, rest.second, state);
            }
        }
        true
    }

    /// Takes out an impression that a dense or wide line cannot hold any more.
    pub(super) fn cast_out(&mut self, branch: Branch) {
        match branch.kind {
            Kind::Dense => self.leaf_mut(branch.line).dense_cast_out(branch.slot),
            Kind::Wide => self.leaf_mut(branch.line).wide_cast_out(branch.slot),
            Kind::Nowhere | Kind::Inline | Kind::Sparse => {}
        }
    }
}

/// Where a stretch keeps an impression.
#[inline(always)]
fn branch_in(stretch: &Stretch, place: Place, rest: Rest) -> Branch {
    let leaf = |kind, (line, slot)| Branch { kind, slot, line };
    match stretch.form() {
        Form::Inline => Branch::inline(place),
        Form::Sparse { first, level } => leaf(Kind::Sparse, (first + part_of(rest.slot, level), 0)),
        Form::Dense { first } => leaf(Kind::Dense, dense_place(first, rest)),
        Form::Wide { firsts } => leaf(Kind::Wide, wide_place(firsts, rest)),
    }
}
