//! The ids of one slice's impressions, in the order they came: an id never moves and is read only
//! to confirm what the index found, so a new one costs no read at all.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::index::Position;
use super::pages::OutOfPages;
use super::pool::{Directory, PAGE_GROUPS, PAGE_SHIFT, Pool};

/// A cache line of ids.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct IdLine([[u64; 2]; IDS_PER_LINE]);

impl Position {
    /// The number of the id within its line.
    #[inline]
    pub(super) const fn within_line(self) -> u8 {
        self.offset % IDS_PER_LINE as u8
    }
}

impl IdLine {
    /// A word of the line, so that reading it brings the line in.
    #[inline]
    pub(super) const fn touch(&self) -> u64 {
        self.0[0][0]
    }

    /// An id of the line, by [`Position::within_line`].
    #[inline]
    pub(super) const fn get(&self, within: u8) -> [u64; 2] {
        self.0[within as usize % IDS_PER_LINE]
    }
}

const IDS_PER_LINE: usize = 4;
const _: () = assert!(size_of::<IdLine>() == 64);

/// Ids in a page: as many as one byte tells apart.
pub(super) const IDS_PER_PAGE: usize = PAGE_GROUPS * IDS_PER_LINE;
const _: () = assert!(IDS_PER_PAGE == 1 << u8::BITS);
/// Pages of a segment: as many as a [`Position`] tells apart.
const PAGES_MAX: usize = 1 << u16::BITS;

/// The ids of one slice, by segment and position.
#[derive(Debug)]
pub(super) struct Ids {
    directory: Directory,
}

impl Ids {
    /// No ids, in this many segments; holds no page yet.
    pub(super) const fn new(segments: usize) -> Self {
        Self { directory: Directory::new(segments) }
    }

    /// The pool's number of the line an id stands in.
    #[inline]
    pub(super) fn line_of(&self, segment: usize, at: Position) -> usize {
        let page = self.directory.of(segment).get(at.page as usize).copied().unwrap_or_default();
        ((page as usize) << PAGE_SHIFT) + at.offset as usize / IDS_PER_LINE
    }

    /// The id at a position that was given out.
    #[inline]
    pub(super) fn get(&self, lines: &[IdLine], segment: usize, at: Position) -> [u64; 2] {
        lines[self.line_of(segment, at)].get(at.within_line())
    }

    /// Whether a segment that holds `len` ids has room for one more.
    #[inline]
    pub(super) fn has_room(&self, segment: usize, len: usize) -> bool {
        len < self.directory.of(segment).len() * IDS_PER_PAGE
    }

    /// Gives a segment one more page.
    #[cold]
    pub(super) fn grow(&mut self, pool: &mut Pool<IdLine>, segment: usize) -> Result<(), OutOfPages> {
        if self.directory.of(segment).len() >= PAGES_MAX {
            return Err(OutOfPages);
        }
        self.directory.push(segment, pool.take().ok_or(OutOfPages)?);
        Ok(())
    }

    /// Adds an id to a segment that holds `len` and [has room](Self::has_room).
    #[inline]
    pub(super) fn push(&self, pool: &mut Pool<IdLine>, segment: usize, len: usize, id: [u64; 2]) -> Position {
        let at = Position { page: (len / IDS_PER_PAGE) as u16, offset: (len % IDS_PER_PAGE) as u8 };
        let line = self.line_of(segment, at);
        pool.groups_mut()[line].0[at.offset as usize % IDS_PER_LINE] = id;
        at
    }

    /// Gives every page back.
    pub(super) fn clear(&mut self, pool: &mut Pool<IdLine>) {
        self.directory.clear(pool);
    }
}
