//! The hashed impressions of one span of time: an index of marks and states, and the ids apart
//! from it.

use super::hash::Hasher;
use super::hashed::Name;
use super::ids::{IdLine, Ids};
use super::index::{IndexEntry, IndexLine, mark_of};
use super::pages::{OutOfPages, Place, Table};
use super::pool::Pool;
use super::spans::Content;
use weir_common::verdict::State;

/// The impressions of one span of time.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) index: Table,
    pub(super) ids: Ids,
    pub(super) len: usize,
}

impl Slice {
    #[inline]
    pub(super) fn find(&self, memory: &Memory, name: &Name) -> Option<Place> {
        let (segment, mark) = (self.index.segment_of(name.hash), mark_of(name.hash));
        let lines = memory.ids.groups();
        let is = |line: &IndexLine, slot| self.ids.get(lines, segment, line.position(slot)) == name.words;
        self.index.find(&memory.index, name.hash, |line| line.matches(mark).find(|&slot| is(line, slot)))
    }

    /// The line of the id that, as far as an impression's home and its neighbour say, is the one.
    #[inline]
    pub(super) fn seems(&self, memory: &Memory, name: &Name) -> Option<usize> {
        let (lines, mark, home) = (memory.index.groups(), mark_of(name.hash), self.index.home(name.hash));
        let seen = |line: &IndexLine| line.matches(mark).next().map(|slot| line.position(slot));
        let at = lines.get(home).and_then(seen).or_else(|| lines.get(home ^ 1).and_then(seen))?;
        Some(self.ids.line_of(self.index.segment_of(name.hash), at))
    }

    /// Whether one more impression of this hash can be inserted; if not, [`Slice::grow`] first.
    #[inline]
    pub(super) fn has_room(&self, hash: u64) -> bool {
        let segment = self.index.segment_of(hash);
        self.ids.has_room(segment, self.index.len_of(segment)) && self.index.has_room(segment)
    }

    /// Pages of index that the segment of this hash has.
    pub(super) fn index_pages(&self, hash: u64) -> usize {
        self.index.pages_of(self.index.segment_of(hash))
    }

    /// Makes room for one more.
    #[cold]
    pub(super) fn grow(
        &mut self,
        memory: &mut Memory,
        hasher: &Hasher,
        hash: u64,
        pages_before: usize,
    ) -> Result<(), OutOfPages> {
        let segment = self.index.segment_of(hash);
        if !self.ids.has_room(segment, self.index.len_of(segment)) {
            self.ids.grow(&mut memory.ids, segment)?;
        }
        if self.index.has_room(segment) {
            return Ok(());
        }
        let (ids, lines) = (&self.ids, memory.ids.groups());
        let hash_of = |entry: &IndexEntry| hasher.of_id(ids.get(lines, segment, entry.at));
        self.index.grow(&mut memory.index, hash, pages_before, hash_of)
    }

    /// Inserts an impression that is not here; only with [room](Slice::has_room).
    #[inline]
    pub(super) fn insert(&mut self, memory: &mut Memory, name: &Name, state: State) -> Option<Place> {
        let segment = self.index.segment_of(name.hash);
        let len = self.index.len_of(segment);
        let at = self.ids.push(&mut memory.ids, segment, len, name.words);
        let entry = IndexEntry { mark: mark_of(name.hash), state, at };
        let place = self.index.insert(&mut memory.index, name.hash, entry)?;
        self.len += 1;
        Some(place)
    }
}

impl Content for Slice {
    type Memory = Memory;

    fn clear(&mut self, memory: &mut Memory) {
        self.index.clear(&mut memory.index);
        self.ids.clear(&mut memory.ids);
        self.len = 0;
    }
}

/// The pages of all slices.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) index: Pool<IndexLine>,
    pub(super) ids: Pool<IdLine>,
}
