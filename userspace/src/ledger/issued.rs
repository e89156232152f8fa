//! Issued impressions, found by their sequence: about a byte each where most of an issuer's
//! impressions are clicked, a few where one in a hundred is.
//!
//! A *stretch* is 3,840 positions of one issuer and key within 4,096 s of issue time. Its
//! impressions begin in the `directory`, move to sparse lines, then to dense or wide ones (`leaf`),
//! which take their room from the slice's `runs`. Every form tells the full id apart; the few that
//! a line cannot hold, or no page is left for, are *outcasts*: kept by full id in the hash
//! table, and their place here remembers that there are some.

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::time::UnixMs;

use super::directory::{DirectoryLine, Form, Stretch, StretchKey};
use super::hash::Hasher;
use super::layout::{self, PAGE_LEVEL, level_for, line_of};
use super::leaf::{Leaf, Rest, SECOND_BITS, STRETCH_SLOTS, Sighting, SparseEntry};
use super::lines::{Branch, Lines, Spot};
use super::pages::{Group, NOWHERE, Place, Table};
use super::pool::Pool;
use super::positions::Positions;
use super::runs::{LEVELS, Runs};
use super::spans::{Content, Spans};
use super::verdict::State;

/// A slice of issue time in seconds: what is left of an issue time fits [`SECOND_BITS`].
pub(super) const SLICE_S: u32 = 1 << SECOND_BITS;
/// A directory is cut into this many segments at most, so that growing one takes about a
/// millisecond.
const DIRECTORY_BITS_MAX: u32 = 5;

/// An issued id, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    /// Number of its slice.
    slice: u32,
    stretch: StretchKey,
    rest: Rest,
    hash: u64,
}

/// Whether an impression is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// It is.
    Here(Spot),
    /// It was never seen.
    Absent,
    /// It is not; perhaps it was cast out.
    Elsewhere,
}

/// An impression that cannot be kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcast;

/// Issued impressions of one slice.
#[derive(Debug)]
pub(super) struct IssuedSlice {
    directory: Table,
    runs: Runs,
    len: usize,
    /// Some of its impressions found no page.
    overflowed: bool,
}

impl Content for IssuedSlice {
    type Memory = IssuedMemory;

    fn len(&self) -> usize {
        self.len
    }

    fn clear(&mut self, memory: &mut IssuedMemory) {
        self.directory.clear(&mut memory.directory);
        self.runs.clear(&mut memory.leaves);
        (self.len, self.overflowed) = (0, false);
    }
}

/// The pages of all slices.
#[derive(Debug)]
pub(super) struct IssuedMemory {
    directory: Pool<DirectoryLine>,
    leaves: Pool<Leaf>,
}

impl IssuedMemory {
    #[inline(always)]
    fn lines(&mut self) -> Lines<'_> {
        Lines { directory: self.directory.groups_mut(), leaves: self.leaves.groups_mut() }
    }
}

/// Bytes for a promised impression: with 24 in the hash table as well, 32. Where all are clicked
/// in sequence, six bytes hold five impressions.
const LEAF_BYTES_PER_IMPRESSION: usize = 6;
/// So a stretch for every sixteenth impression: with fewer to a stretch the hash table is smaller.
const DIRECTORY_BYTES_PER_IMPRESSION: usize = 2;
const PAGE_BYTES: usize = super::pool::PAGE_GROUPS * size_of::<Leaf>();

/// All issued impressions of a worker, but for the outcasts.
pub(super) struct Issued {
    hasher: Hasher,
    positions: Positions,
    slices: Spans<IssuedSlice>,
    memory: IssuedMemory,
    live: usize,
    /// Some slice has impressions that found no page.
    has_overflowed: bool,
    moves: u64,
}

impl Issued {
    /// None yet; `keep_ms` and `ahead_ms` bound the issue times that can be live.
    pub(super) fn new(
        hasher: Hasher,
        positions: Positions,
        capacity: usize,
        keep_ms: u64,
        ahead_ms: u64,
    ) -> Self {
        let pages = |bytes_each: usize| capacity.saturating_mul(bytes_each).div_ceil(PAGE_BYTES);
        let slices_live = keep_ms.saturating_add(ahead_ms) / (u64::from(SLICE_S) * 1000) + 1;
        // So that a page of each segment is no more than an eighth of a slice's share.
        let share = pages(DIRECTORY_BYTES_PER_IMPRESSION) as u64 / slices_live / 8;
        let segment_bits = share.max(1).ilog2().min(DIRECTORY_BITS_MAX);
        let slice = || IssuedSlice {
            directory: Table::new(segment_bits),
            runs: Runs::default(),
            len: 0,
            overflowed: false,
        };
        let slices = Spans::new(SLICE_S, keep_ms, ahead_ms, slice);
        // Of each slice, a page for every segment and every length of run may be partly filled.
        let memory = IssuedMemory {
            directory: Pool::new(pages(DIRECTORY_BYTES_PER_IMPRESSION) + (slices.len() << segment_bits)),
            leaves: Pool::new(pages(LEAF_BYTES_PER_IMPRESSION) + slices.len() * LEVELS),
        };
        Self { hasher, positions, slices, memory, live: 0, has_overflowed: false, moves: 0 }
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// Changes whenever a [`Branch`] may lead elsewhere.
    pub(super) const fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        (self.memory.directory.in_use() + self.memory.leaves.in_use()) * PAGE_BYTES
    }

    /// Drops what has expired; says when more will.
    pub(super) fn expire(&mut self, now: UnixMs) -> UnixMs {
        let (next, gone) = self.slices.expire(now, &mut self.memory);
        self.live -= gone;
        self.moves += 1;
        next
    }

    /// When a slice that this impression opens will expire.
    pub(super) const fn expires_at(&self, name: &Name) -> UnixMs {
        self.slices.expires_at(name.slice)
    }

    /// All lines at hand: what clicks need whose place is there already.
    #[inline(always)]
    pub(super) fn hand(&mut self) -> Hand<'_> {
        let Self { slices, memory, live, has_overflowed, .. } = self;
        Hand { lines: memory.lines(), slices, live, has_overflowed: *has_overflowed }
    }

    /// The name of an issued id; `None` when its shard is not owned.
    #[inline]
    pub(super) fn name(&self, id: ImpressionId) -> Option<Name> {
        let [words, sequence] = id.words();
        let issued_at_s = (words >> 32) as u32;
        let position = self.positions.of(sequence)?;
        let stretch = StretchKey { number: position / STRETCH_SLOTS as u64, issuer_and_key: words as u32 };
        let rest =
            Rest { slot: (position % STRETCH_SLOTS as u64) as u16, second: (issued_at_s % SLICE_S) as u16 };
        Some(Name { slice: issued_at_s / SLICE_S, stretch, rest, hash: self.hasher.of_id(stretch.words()) })
    }

    /// The id of a position in a stretch.
    fn id_of(&self, slice: u32, stretch: StretchKey, rest: Rest) -> ImpressionId {
        let position = stretch.number * STRETCH_SLOTS as u64 + u64::from(rest.slot);
        let issued_at_s = slice * SLICE_S + u32::from(rest.second);
        let (issuer, key) = (stretch.issuer_and_key as u16, (stretch.issuer_and_key >> 16) as u16);
        ImpressionId::issued(Issuer(issuer), KeyId(key), issued_at_s, self.positions.sequence(position))
    }

    /// The line of the directory a look-up goes to first.
    #[inline]
    pub(super) fn home(&self, name: &Name) -> usize {
        self.slices.live(name.slice).map_or(NOWHERE, |slice| slice.directory.home(name.hash))
    }

    /// Where the line of an impression is.
    #[inline(never)]
    pub(super) fn branch(&mut self, name: &Name) -> Branch {
        self.place(name).map_or(Branch::Nowhere, |place| self.memory.lines().branch_at(place, name.rest))
    }

    fn place(&self, name: &Name) -> Option<Place> {
        let slice = self.slices.live(name.slice)?;
        slice.directory.find(&self.memory.directory, name.hash, |line| line.slot_of(name.stretch))
    }

    /// Looks for an impression where its branch leads.
    pub(super) fn search(&mut self, name: &Name, branch: Branch) -> Search {
        match self.memory.lines().search(name.rest, branch) {
            Sighting::Here(slot) => Search::Here(Lines::spot(branch, slot)),
            Sighting::Absent if !self.has_overflowed || !self.slice_overflowed(name) => Search::Absent,
            Sighting::Absent | Sighting::Elsewhere => Search::Elsewhere,
        }
    }

    fn slice_overflowed(&self, name: &Name) -> bool {
        self.slices.live(name.slice).is_some_and(|slice| slice.overflowed)
    }

    pub(super) fn state(&mut self, spot: Spot) -> State {
        self.memory.lines().state(spot)
    }

    /// Changes a state to one that it [can hold](Lines::can_hold).
    pub(super) fn set_state(&mut self, spot: Spot, state: State) {
        self.memory.lines().set_state(spot, state);
    }

    /// Takes out an impression that cannot stay with its next state.
    pub(super) fn cast_out(&mut self, name: &Name, spot: Spot) {
        self.memory.lines().cast_out(spot);
        self.live -= 1;
        if let Some(slice) = self.slices.live_mut(name.slice) {
            slice.len -= 1;
        }
    }

    /// Inserts an impression where [`Issued::make_room`] said.
    pub(super) fn insert(&mut self, name: &Name, branch: Branch, state: State) {
        self.memory.lines().insert(name.rest, branch, state);
        self.count_in(name);
    }

    #[inline]
    fn count_in(&mut self, name: &Name) {
        self.live += 1;
        if let Some(slice) = self.slices.live_mut(name.slice) {
            slice.len += 1;
        }
    }

    /// Makes sure that an impression that is not here can be inserted, and says where. What has to
    /// leave for it goes to `keep_elsewhere`, which says whether it has room.
    ///
    /// # Errors
    /// [`Outcast`] when it has to be kept elsewhere itself; its place remembers that.
    pub(super) fn make_room(
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
        match branch {
            Branch::Nowhere => self.begin(name),
            Branch::Inline(_) => self.grow(name, branch, state, keep_elsewhere),
            Branch::Sparse(line) if !lines.leaf(line).has_outcasts() => {
                self.grow(name, branch, state, keep_elsewhere)
            }
            Branch::Sparse(line) | Branch::Dense(line) | Branch::Wide(line) => {
                lines.leaf_mut(line).mark_outcasts();
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
                (slice.overflowed, self.has_overflowed) = (true, true);
                return Err(Outcast);
            }
        }
        let stretch = Stretch::new(name.stretch);
        let place = slice.directory.insert(&mut self.memory.directory, hash, stretch);
        place.map(Branch::Inline).ok_or(Outcast)
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
        let (entries, run) = self.entries_at(place);
        let grown = match level_for(&entries, name.rest) {
            // Where some were cast out stays what it is: its lines remember which.
            _ if self.has_outcasts(run) => None,
            Some(level) => {
                let slice = self.slices.live_mut(name.slice).ok_or(Outcast)?;
                layout::sparse(&mut self.memory.leaves, &mut slice.runs, &entries, level)
            }
            None => self.grow_dense(name, &entries, keep_elsewhere),
        };
        let Some(form) = grown else {
            match (branch, self.slices.live_mut(name.slice)) {
                (Branch::Sparse(line), _) => self.memory.leaves.group_mut(line).mark_outcasts(),
                (_, Some(slice)) => (slice.overflowed, self.has_overflowed) = (true, true),
                _ => {}
            }
            return Err(Outcast);
        };
        self.memory.lines().stretch_mut(place).set_form(form);
        if let (Some((first, level)), Some(slice)) = (run, self.slices.live_mut(name.slice)) {
            slice.runs.give(first, level);
        }
        let mut lines = self.memory.lines();
        let branch = lines.branch_at(place, name.rest);
        if lines.has_room(name.rest, branch, state) {
            return Ok(branch);
        }
        if let Branch::Dense(line) | Branch::Wide(line) = branch {
            lines.leaf_mut(line).mark_outcasts();
        }
        Err(Outcast)
    }

    fn has_outcasts(&self, run: Option<(u32, u8)>) -> bool {
        let Some((first, level)) = run else { return false };
        self.memory.leaves.groups()[first as usize..][..1 << level].iter().any(Leaf::has_outcasts)
    }

    /// The entries of a stretch that is not dense, and its run of lines.
    fn entries_at(&self, place: Place) -> (Vec<SparseEntry>, Option<(u32, u8)>) {
        let stretch = self.memory.directory.group(place.group).stretch(place.slot);
        match stretch.form() {
            Form::Sparse { first, level } => {
                let lines = &self.memory.leaves.groups()[first as usize..][..1 << level];
                let entries = lines.iter().flat_map(Leaf::sparse_entries).copied().collect();
                (entries, Some((first, level)))
            }
            Form::Inline | Form::Dense { .. } | Form::Wide { .. } => (stretch.inline().to_vec(), None),
        }
    }

    /// Dense lines with all of these but for a few outcasts.
    fn grow_dense(
        &mut self,
        name: &Name,
        entries: &[SparseEntry],
        mut keep_elsewhere: impl FnMut(ImpressionId, State) -> bool,
    ) -> Option<Form> {
        let mut entries = entries.to_vec();
        // The median of a line's seconds is the least likely to be far from the others.
        entries.sort_unstable_by_key(|entry| (line_of(entry), entry.rest().second));
        let slice = self.slices.live_mut(name.slice)?;
        let form = layout::dense(&mut self.memory.leaves, &mut slice.runs, &entries)
            .or_else(|| layout::wide(&mut self.memory.leaves, &mut slice.runs, &entries));
        let (form, outcasts) = form?;
        let id_of = |entry: &SparseEntry| self.id_of(name.slice, name.stretch, entry.rest());
        let kept = outcasts.iter().all(|entry| keep_elsewhere(id_of(entry), entry.state()));
        let slice = self.slices.live_mut(name.slice)?;
        if !kept {
            let (Form::Dense { first } | Form::Wide { firsts: [first, _] }) = form else { return None };
            slice.runs.give(first, PAGE_LEVEL);
            if let Form::Wide { firsts: [_, second] } = form {
                slice.runs.give(second, PAGE_LEVEL);
            }
            return None;
        }
        slice.len -= outcasts.len();
        self.live -= outcasts.len();
        Some(form)
    }
}

/// The lines of issued impressions, for many look-ups in a row.
pub(super) struct Hand<'a> {
    lines: Lines<'a>,
    slices: &'a mut Spans<IssuedSlice>,
    live: &'a mut usize,
    has_overflowed: bool,
}

/// An impression at hand: where it is or would come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    branch: Branch,
    slot: Option<u8>,
    pub(super) state: State,
}

impl Hand<'_> {
    /// Reads a word of the home of an impression.
    #[inline(always)]
    pub(super) fn touch(&self, home: usize) -> u64 {
        self.lines.directory.get(home).map_or(0, Group::touch)
    }

    /// Where an impression's home leads; nowhere if its stretch does not stand there.
    #[inline(always)]
    pub(super) fn branch(&self, name: &Name, home: usize) -> Branch {
        self.lines.branch_at_home(name.stretch, name.rest, home).unwrap_or(Branch::Nowhere)
    }

    /// Reads a word of the line a branch leads to.
    #[inline(always)]
    pub(super) fn touch_line(&self, branch: Branch) -> u64 {
        self.lines.leaves.get(branch.line() as usize).map_or(0, Leaf::touch)
    }

    /// The impression, if all that can be said of it stands where its branch leads.
    #[inline(always)]
    pub(super) fn cell(&self, name: &Name, branch: Branch) -> Option<Cell> {
        if branch == Branch::Nowhere {
            return None;
        }
        match self.lines.search(name.rest, branch) {
            Sighting::Here(slot) => {
                let state = self.lines.state(Lines::spot(branch, slot));
                Some(Cell { branch, slot: Some(slot), state })
            }
            Sighting::Absent if !self.has_overflowed => {
                Some(Cell { branch, slot: None, state: State::default() })
            }
            Sighting::Absent | Sighting::Elsewhere => None,
        }
    }

    /// Whether a cell can take a state as it is.
    #[inline(always)]
    pub(super) fn has_room(&self, name: &Name, cell: Cell, state: State) -> bool {
        match cell.slot {
            Some(_) => Lines::can_hold(cell.branch, state),
            None => self.lines.has_room(name.rest, cell.branch, state),
        }
    }

    /// Puts a state into a cell that [has room](Self::has_room) for it.
    #[inline(always)]
    pub(super) fn put(&mut self, name: &Name, cell: Cell, state: State) {
        match cell.slot {
            Some(slot) => self.lines.set_state(Lines::spot(cell.branch, slot), state),
            None => {
                self.lines.insert(name.rest, cell.branch, state);
                *self.live += 1;
                if let Some(slice) = self.slices.live_mut(name.slice) {
                    slice.len += 1;
                }
            }
        }
    }
}
