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
use super::layout::{self, PAGE_LEVEL, dense_slot, level_for, line_of, part_of, wide_line, wide_slot};
use super::leaf::{
    DENSE_SLOTS, Leaf, Rest, SECOND_BITS, SPARSE_SLOTS, STRETCH_SLOTS, Sighting, SparseEntry, has_code,
};
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

/// Where the line of an impression is, as long as [`Issued::moves`] stays the same.
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

/// An impression that is here: its line and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    branch: Branch,
    slot: u8,
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

    /// Brings in a line of the directory.
    #[inline]
    pub(super) fn touch(&self, home: usize) -> u64 {
        self.memory.directory.groups().get(home).map_or(0, Group::touch)
    }

    /// Where the line of an impression is, by way of its home in the directory.
    #[inline(always)]
    pub(super) fn branch_from(&self, name: &Name, home: usize) -> Branch {
        if let Some(line) = self.memory.directory.groups().get(home)
            && let Some(slot) = line.slot_of(name.stretch)
        {
            let place = Place { group: home as u32, slot: slot as u32 };
            return branch_in(line.stretch(slot as u32), place, name.rest);
        }
        self.branch(name)
    }

    /// Where the line of an impression is.
    #[inline(never)]
    pub(super) fn branch(&self, name: &Name) -> Branch {
        let Some(slice) = self.slices.live(name.slice) else { return Branch::Nowhere };
        self.place(slice, name).map_or(Branch::Nowhere, |place| self.branch_at(place, name.rest))
    }

    #[inline]
    fn place(&self, slice: &IssuedSlice, name: &Name) -> Option<Place> {
        slice.directory.find(&self.memory.directory, name.hash, |line| line.slot_of(name.stretch))
    }

    fn branch_at(&self, place: Place, rest: Rest) -> Branch {
        branch_in(self.memory.directory.group(place.group).stretch(place.slot), place, rest)
    }

    /// Brings the line in.
    #[inline]
    pub(super) fn touch_branch(&self, branch: Branch) -> u64 {
        let line = match branch {
            Branch::Sparse(line) | Branch::Dense(line) | Branch::Wide(line) => line as usize,
            // Any line will do.
            Branch::Nowhere | Branch::Inline(_) => 0,
        };
        self.memory.leaves.groups().get(line).map_or(0, Leaf::touch)
    }

    /// The state of an impression where its branch leads; of one that is not there, the first.
    #[inline(always)]
    pub(super) fn peek(&self, name: &Name, branch: Branch) -> State {
        match self.search(name, branch) {
            Search::Here(spot) => self.state(spot),
            Search::Absent | Search::Elsewhere => State::default(),
        }
    }

    /// Looks for an impression where its branch leads.
    #[inline(always)]
    pub(super) fn search(&self, name: &Name, branch: Branch) -> Search {
        let rest = name.rest;
        let sighting = match branch {
            Branch::Nowhere => Sighting::Absent,
            Branch::Inline(place) => {
                let stretch = self.memory.directory.group(place.group).stretch(place.slot);
                let slot = stretch.inline().iter().position(|entry| entry.is(rest));
                slot.map_or(Sighting::Absent, |slot| Sighting::Here(slot as u8))
            }
            Branch::Sparse(line) => self.memory.leaves.group(line).sparse_find(rest),
            Branch::Dense(line) => self.memory.leaves.group(line).dense_find(dense_slot(rest), rest.second),
            Branch::Wide(line) => self.memory.leaves.group(line).wide_find(wide_slot(rest), rest.second),
        };
        match sighting {
            Sighting::Here(slot) => Search::Here(Spot { branch, slot }),
            Sighting::Absent if !self.has_overflowed || !self.slice_overflowed(name) => Search::Absent,
            Sighting::Absent | Sighting::Elsewhere => Search::Elsewhere,
        }
    }

    fn slice_overflowed(&self, name: &Name) -> bool {
        self.slices.live(name.slice).is_some_and(|slice| slice.overflowed)
    }

    #[inline(always)]
    pub(super) fn state(&self, spot: Spot) -> State {
        match spot.branch {
            Branch::Nowhere => State::default(),
            Branch::Inline(place) => {
                let stretch = self.memory.directory.group(place.group).stretch(place.slot);
                stretch.inline().get(usize::from(spot.slot)).map_or(State::default(), |entry| entry.state())
            }
            Branch::Sparse(line) => self.memory.leaves.group(line).sparse_entry(spot.slot).state(),
            Branch::Dense(line) => self.memory.leaves.group(line).dense_state(spot.slot),
            Branch::Wide(line) => self.memory.leaves.group(line).wide_state(spot.slot),
        }
    }

    /// Whether an impression that is here can stay with this state.
    #[inline]
    pub(super) fn can_hold(spot: Spot, state: State) -> bool {
        !matches!(spot.branch, Branch::Dense(_) | Branch::Wide(_)) || has_code(state)
    }

    /// Changes a state to one that it [can hold](Self::can_hold).
    #[inline]
    pub(super) fn set_state(&mut self, spot: Spot, state: State) {
        match spot.branch {
            Branch::Nowhere => {}
            Branch::Inline(place) => {
                let line = self.memory.directory.group_mut(place.group);
                line.stretch_mut(place.slot).inline_mut(spot.slot).set_state(state);
            }
            Branch::Sparse(line) => {
                self.memory.leaves.group_mut(line).sparse_entry_mut(spot.slot).set_state(state);
            }
            Branch::Dense(line) => self.memory.leaves.group_mut(line).dense_set_state(spot.slot, state),
            Branch::Wide(line) => self.memory.leaves.group_mut(line).wide_set_state(spot.slot, state),
        }
    }

    /// Takes out an impression that cannot stay with its next state.
    pub(super) fn cast_out(&mut self, name: &Name, spot: Spot) {
        let (Branch::Dense(line) | Branch::Wide(line)) = spot.branch else { return };
        let leaf = self.memory.leaves.group_mut(line);
        if spot.branch == Branch::Dense(line) {
            leaf.dense_remove(spot.slot);
        } else {
            leaf.wide_remove(spot.slot);
        }
        leaf.mark_outcasts();
        self.live -= 1;
        self.moves += 1;
        if let Some(slice) = self.slices.live_mut(name.slice) {
            slice.len -= 1;
        }
    }

    /// Inserts an impression where [`Issued::make_room`] said.
    #[inline]
    pub(super) fn insert(&mut self, name: &Name, branch: Branch, state: State) {
        let entry = SparseEntry::new(name.rest, state);
        match branch {
            Branch::Nowhere => return,
            Branch::Inline(place) => {
                let line = self.memory.directory.group_mut(place.group);
                line.stretch_mut(place.slot).inline_push(entry);
            }
            Branch::Sparse(line) => {
                self.memory.leaves.group_mut(line).sparse_push(entry);
            }
            Branch::Dense(line) => {
                let leaf = self.memory.leaves.group_mut(line);
                leaf.dense_insert(dense_slot(name.rest), name.rest.second, state);
            }
            Branch::Wide(line) => {
                let leaf = self.memory.leaves.group_mut(line);
                leaf.wide_insert(wide_slot(name.rest), name.rest.second, state);
            }
        }
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
    #[inline]
    pub(super) fn make_room(
        &mut self,
        name: &Name,
        branch: Branch,
        state: State,
        keep_elsewhere: impl FnMut(ImpressionId, State) -> bool,
    ) -> Result<Branch, Outcast> {
        match branch {
            Branch::Dense(_) | Branch::Wide(_) => self.make_room_in_line(name, branch, state),
            Branch::Sparse(line) => {
                let leaf = self.memory.leaves.group(line);
                if leaf.sparse_len() < SPARSE_SLOTS {
                    Ok(branch)
                } else if leaf.has_outcasts() {
                    Err(Outcast)
                } else {
                    self.grow(name, branch, state, keep_elsewhere)
                }
            }
            Branch::Inline(place)
                if !self.memory.directory.group(place.group).stretch(place.slot).inline_is_full() =>
            {
                Ok(branch)
            }
            Branch::Nowhere => self.begin(name),
            Branch::Inline(_) => self.grow(name, branch, state, keep_elsewhere),
        }
    }

    #[inline]
    fn make_room_in_line(&mut self, name: &Name, branch: Branch, state: State) -> Result<Branch, Outcast> {
        let (Branch::Dense(line) | Branch::Wide(line) | Branch::Sparse(line)) = branch else {
            return Ok(branch);
        };
        let (leaf, rest) = (self.memory.leaves.group_mut(line), name.rest);
        let has_room = match branch {
            Branch::Dense(_) => has_code(state) && leaf.dense_has_room(dense_slot(rest), rest.second),
            Branch::Wide(_) => has_code(state) && leaf.wide_has_room(wide_slot(rest)),
            _ => leaf.sparse_len() < SPARSE_SLOTS,
        };
        if has_room {
            return Ok(branch);
        }
        leaf.mark_outcasts();
        Err(Outcast)
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
        let place = self.slices.live(name.slice).and_then(|slice| self.place(slice, name)).ok_or(Outcast)?;
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
        self.moves += 1;
        self.memory.directory.group_mut(place.group).stretch_mut(place.slot).set_form(form);
        if let (Some((first, level)), Some(slice)) = (run, self.slices.live_mut(name.slice)) {
            slice.runs.give(first, level);
        }
        let branch = self.branch_at(place, name.rest);
        self.make_room_in_line(name, branch, state)
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
