//! The hashed impressions of one span of time: an index of marks and states, and the ids apart
//! from it.

use super::hash::Hasher;
use super::hashed::{Absent, Name, Sight};
use super::ids::{IdLine, Ids};
use super::index::{IndexEntry, IndexLine, Position, mark_of};
use super::pages::{OutOfPages, Place, Table};
use super::pool::Pool;
use super::spans::Content;
use super::verdict::State;

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

    /// What the home of an impression and its neighbour, whose lines are here, say of it.
    #[inline]
    pub(super) fn sight(&self, memory: &Memory, name: &Name, home: usize) -> Sight {
        let lines = memory.index.groups();
        let Some(line) = lines.get(home) else { return Sight::Unknown };
        let mark = mark_of(name.hash);
        if let Some(slot) = line.matches(mark).next() {
            return self.seems(name, home, line.position(slot), slot);
        }
        let Some(next) = lines.get(home ^ 1) else { return Sight::Unknown };
        if self.index.may_go_on(name.hash, line) {
            if let Some(slot) = next.matches(mark).next() {
                return self.seems(name, home ^ 1, next.position(slot), slot);
            }
            if self.index.may_go_on(name.hash, next) {
                return Sight::Unknown;
            }
        }
        let absent = Absent { home: home as u32, seen: [line.version(), next.version()] };
        Sight::Absent(absent)
    }

    #[inline]
    fn seems(&self, name: &Name, group: usize, at: Position, slot: usize) -> Sight {
        let id_line = self.ids.line_of(self.index.segment_of(name.hash), at) as u32;
        let place = Place { group: group as u32, slot: slot as u32 };
        Sight::Seems { place, id_line, within: at.within_line() }
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

    /// Makes room for one more; whether others moved for it.
    #[cold]
    pub(super) fn grow(
        &mut self,
        memory: &mut Memory,
        hasher: &Hasher,
        hash: u64,
        pages_before: usize,
    ) -> Result<bool, OutOfPages> {
        let segment = self.index.segment_of(hash);
        if !self.ids.has_room(segment, self.index.len_of(segment)) {
            self.ids.grow(&mut memory.ids, segment)?;
        }
        if self.index.has_room(segment) {
            return Ok(false);
        }
        let (ids, lines) = (&self.ids, memory.ids.groups());
        let hash_of = |entry: &IndexEntry| hasher.of_id(ids.get(lines, segment, entry.at));
        self.index.grow(&mut memory.index, hash, pages_before, hash_of)?;
        Ok(true)
    }

    /// Inserts an impression that is not here; only with [room](Slice::has_room).
    #[inline]
    pub(super) fn insert(
        &mut self,
        memory: &mut Memory,
        name: &Name,
        home: Option<usize>,
        state: State,
    ) -> Option<Place> {
        let segment = self.index.segment_of(name.hash);
        let len = self.index.len_of(segment);
        let at = self.ids.push(&mut memory.ids, segment, len, name.words);
        let entry = IndexEntry { mark: mark_of(name.hash), state, at };
        let place = match home {
            Some(home) => self.index.insert_at(&mut memory.index, segment, home, entry),
            None => self.index.insert(&mut memory.index, name.hash, entry)?,
        };
        self.len += 1;
        Some(place)
    }
}

impl Content for Slice {
    type Memory = Memory;

    fn len(&self) -> usize {
        self.len
    }

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
