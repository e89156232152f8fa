//! The lines of issued impressions as they lie in memory: reads and writes one impression where
//! its branch leads, whatever form its line has.
//!
//! It makes no room and asks no one else: what does not fit is the caller's affair.

use super::directory::{DirectoryLine, Form, Stretch, StretchKey};
use super::layout::{dense_slot, part_of, wide_line, wide_slot};
use super::leaf::{DENSE_SLOTS, Leaf, Rest, SPARSE_SLOTS, Sighting, SparseEntry, has_code};
use super::pages::Place;
use super::verdict::State;

/// Where the line of an impression is, as long as its stretch does not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    /// Nothing of its stretch was seen.
    Nowhere,
    /// In the directory.
    Inline(Place),
    /// A sparse line.
    Sparse(u32),
    /// A dense line.
    Dense(u32),
    /// A wide line.
    Wide(u32),
}

impl Branch {
    /// Whether it leads to the same line as long as its slice lives: such stretches do not grow.
    #[inline(always)]
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Self::Dense(_) | Self::Wide(_))
    }

    /// The line it leads to; any, if that is in the directory.
    #[inline(always)]
    pub(super) const fn line(self) -> u32 {
        match self {
            Self::Sparse(line) | Self::Dense(line) | Self::Wide(line) => line,
            Self::Nowhere | Self::Inline(_) => 0,
        }
    }
}

/// All lines, of every slice.
pub(super) struct Lines<'a> {
    pub(super) directory: &'a mut [DirectoryLine],
    pub(super) leaves: &'a mut [Leaf],
}

impl Lines<'_> {
    /// Where the line of an impression is, if its stretch stands at this home.
    #[inline(always)]
    pub(super) fn branch_at_home(&self, key: StretchKey, rest: Rest, home: usize) -> Option<Branch> {
        let line = self.directory.get(home)?;
        let slot = line.slot_of(key)? as u32;
        Some(branch_in(line.stretch(slot), Place { group: home as u32, slot }, rest))
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

    /// Looks for an impression where its branch leads.
    #[inline(always)]
    pub(super) fn search(&self, rest: Rest, branch: Branch) -> Sighting {
        match branch {
            Branch::Nowhere => Sighting::Absent,
            Branch::Inline(place) => {
                let slot = self.stretch(place).inline().iter().position(|entry| entry.is(rest));
                slot.map_or(Sighting::Absent, |slot| Sighting::Here(slot as u8))
            }
            Branch::Sparse(line) => self.leaf(line).sparse_find(rest),
            Branch::Dense(line) => self.leaf(line).dense_find(dense_slot(rest), rest.second),
            Branch::Wide(line) => self.leaf(line).wide_find(wide_slot(rest), rest.second),
        }
    }

    /// The state in a slot that a [search](Self::search) saw.
    #[inline(always)]
    pub(super) fn state(&self, branch: Branch, slot: u8) -> State {
        match branch {
            Branch::Nowhere => State::default(),
            Branch::Inline(place) => {
                let entry = self.stretch(place).inline().get(usize::from(slot));
                entry.map_or(State::default(), |entry| entry.state())
            }
            Branch::Sparse(line) => self.leaf(line).sparse_entry(slot).state(),
            Branch::Dense(line) => self.leaf(line).dense_state(slot),
            Branch::Wide(line) => self.leaf(line).wide_state(slot),
        }
    }

    /// Whether an impression can stand where its branch leads with this state.
    #[inline(always)]
    pub(super) fn can_hold(branch: Branch, state: State) -> bool {
        !matches!(branch, Branch::Dense(_) | Branch::Wide(_)) || has_code(state)
    }

    /// Changes a state to one that it [can hold](Self::can_hold).
    #[inline(always)]
    pub(super) fn set_state(&mut self, branch: Branch, slot: u8, state: State) {
        match branch {
            Branch::Nowhere => {}
            Branch::Inline(place) => self.stretch_mut(place).inline_mut(slot).set_state(state),
            Branch::Sparse(line) => self.leaf_mut(line).sparse_entry_mut(slot).set_state(state),
            Branch::Dense(line) => self.leaf_mut(line).dense_set_state(slot, state),
            Branch::Wide(line) => self.leaf_mut(line).wide_set_state(slot, state),
        }
    }

    /// Whether an impression that is not here can be inserted as it is.
    #[inline(always)]
    pub(super) fn has_room(&self, rest: Rest, branch: Branch, state: State) -> bool {
        match branch {
            Branch::Nowhere => false,
            Branch::Inline(place) => !self.stretch(place).inline_is_full(),
            Branch::Sparse(line) => self.leaf(line).sparse_len() < SPARSE_SLOTS,
            Branch::Dense(line) => {
                has_code(state) && self.leaf(line).dense_has_room(dense_slot(rest), rest.second)
            }
            Branch::Wide(line) => has_code(state) && self.leaf(line).wide_has_room(wide_slot(rest)),
        }
    }

    /// Inserts an impression; only with [room](Self::has_room).
    #[inline(always)]
    pub(super) fn insert(&mut self, rest: Rest, branch: Branch, state: State) {
        let entry = SparseEntry::new(rest, state);
        match branch {
            Branch::Nowhere => {}
            Branch::Inline(place) => self.stretch_mut(place).inline_push(entry),
            Branch::Sparse(line) => self.leaf_mut(line).sparse_push(entry),
            Branch::Dense(line) => {
                self.leaf_mut(line).dense_insert(dense_slot(rest), rest.second, state);
            }
            Branch::Wide(line) => self.leaf_mut(line).wide_insert(wide_slot(rest), rest.second, state),
        }
    }

    /// Takes out an impression that a dense or wide line cannot hold any more.
    pub(super) fn cast_out(&mut self, branch: Branch, slot: u8) {
        let (Branch::Dense(line) | Branch::Wide(line)) = branch else { return };
        let leaf = self.leaf_mut(line);
        match branch {
            Branch::Dense(_) => leaf.dense_remove(slot),
            _ => leaf.wide_remove(slot),
        }
        leaf.mark_outcasts();
    }
}

/// Where a stretch keeps an impression.
#[inline(always)]
fn branch_in(stretch: &Stretch, place: Place, rest: Rest) -> Branch {
    match stretch.form() {
        Form::Inline => Branch::Inline(place),
        Form::Sparse { first, level } => Branch::Sparse(first + part_of(rest.slot, level)),
        Form::Dense { first } => Branch::Dense(first + u32::from(rest.slot) / DENSE_SLOTS as u32),
        Form::Wide { firsts } => Branch::Wide(wide_line(firsts, rest)),
    }
}
