//! Issued impressions, found by their sequence: about a byte each where most of an issuer's
//! impressions are clicked, a few where one in a hundred is.
//!
//! A *stretch* is 3,840 positions of one issuer and key within 4,096 s of issue time. Its
//! impressions begin in the `directory`, move to sparse lines, then to dense or wide ones (`leaf`),
//! which take their room from the slice's `runs`. Every form tells the full id apart; the few that
//! a line cannot hold, or no page is left for, are *outcasts*: kept by full id in the hash
//! table, and their place here remembers that there are some.

mod growth;
mod hand;

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::time::UnixMs;

use super::directory::{DirectoryLine, StretchKey};
use super::hash::Hasher;
use super::leaf::{Leaf, Rest, SECOND_BITS, STRETCH_SLOTS};
use super::lines::{Branch, Cell, Lines};
use super::pages::{NOWHERE, Place, Table};
use super::pool::Pool;
use super::positions::Positions;
use super::runs::{LEVELS, Runs};
use super::spans::{Content, Spans};

use growth::Scratch;

pub(super) use hand::Hand;

/// A slice of issue time in seconds: what is left of an issue time fits [`SECOND_BITS`].
pub(super) const SLICE_S: u32 = 1 << SECOND_BITS;
/// A directory is cut into this many segments at most, so that growing one takes about a
/// millisecond.
const DIRECTORY_BITS_MAX: u32 = 5;

/// An issued id, taken apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    /// Number of its slice.
    slice: u32,
    stretch: StretchKey,
    rest: Rest,
    hash: u64,
}

impl Name {
    /// The id of another impression of the same slice and stretch.
    fn sibling(&self, rest: Rest, positions: &Positions) -> ImpressionId {
        let StretchKey { number, issuer_and_key } = self.stretch;
        let position = number * STRETCH_SLOTS as u64 + u64::from(rest.slot);
        let issued_at_s = self.slice * SLICE_S + u32::from(rest.second);
        let (issuer, key) = (issuer_and_key as u16, (issuer_and_key >> 16) as u16);
        ImpressionId::issued(Issuer(issuer), KeyId(key), issued_at_s, positions.sequence(position))
    }
}

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
    /// Some slice has [overflowed](IssuedSlice::overflowed).
    any_overflowed: bool,
    moves: u64,
    scratch: Scratch,
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
        Self { hasher, positions, slices, memory, any_overflowed: false, moves: 0, scratch: Scratch::new() }
    }

    pub(super) fn live(&self) -> usize {
        self.slices.contents().map(|slice| slice.len).sum()
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
        let next = self.slices.expire(now, &mut self.memory);
        self.any_overflowed = self.slices.contents().any(|slice| slice.overflowed);
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
        Hand { lines: self.memory.lines(), slices: &mut self.slices, any_overflowed: self.any_overflowed }
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

    /// The line of the directory a look-up goes to first.
    #[inline]
    pub(super) fn home(&self, name: &Name) -> usize {
        self.slices.live(name.slice).map_or(NOWHERE, |slice| slice.directory.home(name.hash))
    }

    /// Where the line of an impression is.
    #[inline(never)]
    pub(super) fn branch(&mut self, name: &Name) -> Branch {
        self.place(name).map_or(Branch::NOWHERE, |place| self.memory.lines().branch_at(place, name.rest))
    }

    /// The place of its stretch.
    fn place(&self, name: &Name) -> Option<Place> {
        let slice = self.slices.live(name.slice)?;
        slice.directory.find(&self.memory.directory, name.hash, |line| line.slot_of(name.stretch))
    }

    /// Takes out an impression that cannot stay with its next state.
    pub(super) fn cast_out(&mut self, name: &Name, cell: Cell) {
        self.memory.lines().cast_out(cell.branch);
        if let Some(slice) = self.slices.live_mut(name.slice) {
            slice.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::siphash::SipKey;

    use super::super::positions::Owned;
    use super::*;
    use weir_common::verdict::State;

    const SEEN: State = State(1);

    /// The first impression of a stretch, issued at the beginning of a slice.
    fn name(issued: &Issued, slice: u32, stretch: u64) -> Name {
        let sequence = stretch * STRETCH_SLOTS as u64;
        issued.name(ImpressionId::issued(Issuer(1), KeyId(1), slice * SLICE_S, sequence)).unwrap()
    }

    fn insert(issued: &mut Issued, name: &Name) -> bool {
        let branch = issued.branch(name);
        let room = issued.make_room(name, branch, SEEN, |_, _| false);
        room.is_ok_and(|branch| issued.hand().put(name, Cell::vacant(branch), SEEN))
    }

    /// What is known of an impression without looking elsewhere.
    fn state(issued: &mut Issued, name: &Name) -> Option<State> {
        let branch = issued.branch(name);
        issued.hand().cell(name, branch).map(|cell| cell.state)
    }

    #[test]
    fn a_slice_that_overflowed_sends_nobody_else_elsewhere_and_nobody_once_it_is_over() {
        let (hasher, positions) = (Hasher::new(&SipKey { k0: 1, k1: 2 }), Positions::new(&Owned::All));
        let slice_ms = u64::from(SLICE_S) * 1000;
        let mut issued = Issued::new(hasher, positions, 0, slice_ms, slice_ms);
        let full = (0..10_000).map(|stretch| name(&issued, 100, stretch)).collect::<Vec<_>>();
        let held = full.iter().take_while(|name| insert(&mut issued, name)).count();
        assert!((1..full.len()).contains(&held));
        assert_eq!(state(&mut issued, &full[0]), Some(SEEN));
        assert_eq!(state(&mut issued, &full[held]), None);
        assert_eq!(state(&mut issued, &full[held + 1]), None, "another may be kept elsewhere too");

        let (next, never) = (name(&issued, 101, 0), name(&issued, 101, 1));
        assert!(insert(&mut issued, &next));
        assert_eq!(state(&mut issued, &next), Some(SEEN));
        assert_eq!(state(&mut issued, &never), Some(State(0)), "the slice after it holds all of its own");

        issued.expire(UnixMs(102 * slice_ms));
        assert_eq!((issued.live(), issued.any_overflowed), (held + 1, true));
        issued.expire(UnixMs(102 * slice_ms + 1));
        assert_eq!((issued.live(), issued.any_overflowed), (1, false));
    }
}
