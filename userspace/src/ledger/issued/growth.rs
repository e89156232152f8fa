//! Makes room for issued impressions: begins stretches and gives full ones more lines.

use weir_common::id::ImpressionId;

use super::super::directory::{Form, Stretch};
use super::super::layout::{self, SPARSE_LEVEL_MAX, level_for, line_of};
use super::super::leaf::{Leaf, SPARSE_SLOTS, SparseEntry};
use super::super::lines::{Branch, Kind};
use super::super::pages::Place;
use super::{Issued, Name};
use weir_common::verdict::State;

/// An impression that cannot be kept by its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Outcast;

/// What growth works with, kept from one to the next: the click path does not allocate.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// All of a stretch.
    entries: Vec<SparseEntry>,
    /// Those that do not fit its new lines.
    outcasts: Vec<SparseEntry>,
}

impl Scratch {
    /// Room for the entries of any stretch that can grow.
    pub(super) fn new() -> Self {
        let room = || Vec::with_capacity(SPARSE_SLOTS << SPARSE_LEVEL_MAX);
        Self { entries: room(), outcasts: room() }
    }
}

impl Issued {
    /// Makes sure that an impression that is not here can be inserted, and says where. What has to
    /// leave for it goes to `keep_elsewhere`, which says whether it has room.
    ///
    /// # Errors
    /// [`Outcast`] when it has to be kept elsewhere itself; its place remembers that.
    pub(in super::super) fn make_room(
        &mut self,
        name: &Name,
        branch: Branch,
        state: State,
        keep_elsewhere: impl FnMut(ImpressionId, State) -> bool,
    ) -> Result<Branch, Outcast> {
        let mut lines = self.memory.lines();
        if lines.has_room(name.rest, branch, state) {
            return Ok(branch);
        }
        match branch.kind {
            Kind::Nowhere => self.begin(name),
            Kind::Inline => self.grow(name, branch, state, keep_elsewhere),
            Kind::Sparse if !lines.leaf(branch.line).has_outcasts() => {
                self.grow(name, branch, state, keep_elsewhere)
            }
            Kind::Sparse | Kind::Dense | Kind::Wide => {
                lines.leaf_mut(branch.line).mark_outcasts();
                Err(Outcast)
            }
        }
    }

    /// Begins a stretch.
    #[cold]
    fn begin(&mut self, name: &Name) -> Result<Branch, Outcast> {
        let hash = name.hash;
        let before = self.slices.before(name.slice);
        let pages_before = before.directory.pages_of(before.directory.segment_of(hash));
        let slice = self.slices.open(name.slice).ok_or(Outcast)?;
        let segment = slice.directory.segment_of(hash);
        if !slice.directory.has_room(segment) {
            let hasher = &self.hasher;
            let hash_of = |stretch: &Stretch| hasher.of_id(stretch.key().words());
            self.moves += 1;
            if slice.directory.grow(&mut self.memory.directory, hash, pages_before, hash_of).is_err() {
                (slice.overflowed, self.any_overflowed) = (true, true);
                return Err(Outcast);
            }
        }
        let stretch = Stretch::new(name.stretch);
        let place = slice.directory.insert(&mut self.memory.directory, hash, stretch);
        place.map(Branch::inline).ok_or(Outcast)
    }

    /// Gives a stretch more lines, or dense ones.
    #[cold]
    fn grow(
        &mut self,
        name: &Name,
        branch: Branch,
        state: State,
        keep_elsewhere: impl FnMut(ImpressionId, State) -> bool,
    ) -> Result<Branch, Outcast> {
        let place = self.place(name).ok_or(Outcast)?;
        let mut scratch = core::mem::take(&mut self.scratch);
        let old = self.entries_at(place, &mut scratch.entries);
        let grown = match level_for(&scratch.entries, name.rest) {
            // Where some were cast out stays what it is: its lines remember which.
            _ if self.has_outcasts(old) => None,
            Some(level) => self.slices.live_mut(name.slice).and_then(|slice| {
                layout::sparse(&mut self.memory.leaves, &mut slice.runs, &scratch.entries, level)
            }),
            None => self.grow_dense(name, old, &mut scratch, keep_elsewhere),
        };
        self.scratch = scratch;
        let Some(form) = grown else {
            match (branch.kind, self.slices.live_mut(name.slice)) {
                (Kind::Sparse, _) => self.memory.leaves.group_mut(branch.line).mark_outcasts(),
                (_, Some(slice)) => (slice.overflowed, self.any_overflowed) = (true, true),
                _ => {}
            }
            return Err(Outcast);
        };
        self.memory.lines().stretch_mut(place).set_form(form);
        if let Some(slice) = self.slices.live_mut(name.slice) {
            layout::give_back(&mut slice.runs, old);
        }
        let mut lines = self.memory.lines();
        let branch = lines.branch_at(place, name.rest);
        if lines.has_room(name.rest, branch, state) {
            return Ok(branch);
        }
        if branch.is_final() {
            lines.leaf_mut(branch.line).mark_outcasts();
        }
        Err(Outcast)
    }

    fn has_outcasts(&self, form: Form) -> bool {
        let Form::Sparse { first, level } = form else { return false };
        self.sparse_lines(first, level).iter().any(Leaf::has_outcasts)
    }

    fn sparse_lines(&self, first: u32, level: u8) -> &[Leaf] {
        &self.memory.leaves.groups()[first as usize..][..1 << level]
    }

    /// The entries of a stretch that is not dense, and its form.
    fn entries_at(&self, place: Place, entries: &mut Vec<SparseEntry>) -> Form {
        entries.clear();
        let stretch = self.memory.directory.group(place.group).stretch(place.slot);
        let form = stretch.form();
        match form {
            Form::Sparse { first, level } => {
                entries.extend(self.sparse_lines(first, level).iter().flat_map(Leaf::sparse_entries));
            }
            Form::Inline | Form::Dense { .. } | Form::Wide { .. } => entries.extend(stretch.inline()),
        }
        form
    }

    /// Dense lines with all entries of a stretch but for a few outcasts. Should one of those have no
    /// room elsewhere, the stretch stays as it was without those that had.
    fn grow_dense(
        &mut self,
        name: &Name,
        old: Form,
        scratch: &mut Scratch,
        mut keep_elsewhere: impl FnMut(ImpressionId, State) -> bool,
    ) -> Option<Form> {
        let Scratch { entries, outcasts } = scratch;
        // The median of a line's seconds is the least likely to be far from the others.
        entries.sort_unstable_by_key(|entry| (line_of(entry), entry.rest().second));
        let slice = self.slices.live_mut(name.slice)?;
        let form = layout::dense(&mut self.memory.leaves, &mut slice.runs, entries, outcasts)
            .or_else(|| layout::wide(&mut self.memory.leaves, &mut slice.runs, entries, outcasts))?;
        let keep =
            |entry: &&SparseEntry| keep_elsewhere(name.sibling(entry.rest(), &self.positions), entry.state());
        let kept = outcasts.iter().take_while(keep).count();
        slice.len -= kept;
        if kept == outcasts.len() {
            return Some(form);
        }
        layout::give_back(&mut slice.runs, form);
        outcasts[..kept].iter().for_each(|entry| layout::sparse_remove(&mut self.memory.leaves, old, *entry));
        None
    }
}
