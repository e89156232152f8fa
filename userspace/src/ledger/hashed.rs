//! Impressions by a hash of their full id: foreign ones, and the issued ones that have no place
//! by their sequence. One byte of state each, in slices of time that expire whole.
//!
//! Issued ids stand in the slice of their issue time, so a click finds its slice at once. Foreign
//! ids have no time of their own: they stand in the slice of their first click's receive time, so
//! a click looks through the live slices, newest first. There are few of those.

use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;

use super::hash::Hasher;
use super::ids::{IDS_PER_PAGE, IdLine, Ids};
use super::impressions::Limits;
use super::index::IndexLine;
use super::pages::{Group, OutOfPages, Place, Table};
use super::pool::{PAGE_GROUPS, Pool};
use super::slice::{Memory, Slice};
use super::spans::Spans;
use weir_common::verdict::State;

/// Bytes of index for each impression that the capacity promises: 5.3 bytes a slot at a load that
/// swings between 0.7 and 0.88, so 6.1 to 7.6 bytes. With the 16 bytes of the id itself it is 24.
const INDEX_BYTES_PER_IMPRESSION: usize = 8;
/// Slices of receive time a lifetime is cut into: 6 h each at the default. Each costs every new
/// foreign id one look-up.
const FOREIGN_SLICES_PER_LIFETIME: u64 = 4;
/// No slice is narrower, whatever the lifetime, so that their number is bounded by the slack.
const MIN_SLICE_S: u64 = 60;
/// Nor wider: numbers of slices are 32 bits.
const MAX_SLICE_S: u64 = u32::MAX as u64;
/// A segment is cut so that, were all impressions in one slice, it held about this many: growing
/// it then takes about a millisecond.
const SEGMENT_IMPRESSIONS: usize = 131_072;

/// How wide a slice of receive time is.
pub(super) const fn foreign_slice_s(lifetime_ms: u64) -> u32 {
    let width_s = lifetime_ms / 1000 / FOREIGN_SLICES_PER_LIFETIME;
    match width_s {
        ..MIN_SLICE_S => MIN_SLICE_S as u32,
        MIN_SLICE_S..=MAX_SLICE_S => width_s as u32,
        _ => u32::MAX,
    }
}

const PAGE_BYTES: usize = PAGE_GROUPS * size_of::<IndexLine>();
const _: () = assert!(size_of::<IndexLine>() == size_of::<IdLine>(), "one size of page");

/// An impression and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) words: [u64; 2],
    pub(super) hash: u64,
    /// Number of an issued id's slice.
    pub(super) issued_slice: Option<u32>,
}

/// All hashed impressions of a worker.
pub(super) struct Hashed {
    hasher: Hasher,
    memory: Memory,
    issued: Spans<Slice>,
    foreign: Spans<Slice>,
}

impl Hashed {
    pub(super) fn new(limits: Limits, issued_slice_s: u32, key: &SipKey) -> Self {
        let segments = (limits.capacity / SEGMENT_IMPRESSIONS).max(1);
        let segment_bits = segments.ilog2();
        let slice = || Slice { index: Table::new(segment_bits), ids: Ids::new(1 << segment_bits), len: 0 };
        let issued = Spans::new(issued_slice_s, limits.keep_issued_ms(), limits.ahead_ms(), slice);
        let foreign = Spans::new(foreign_slice_s(limits.lifetime_ms), limits.lifetime_ms, 0, slice);
        // A page for each segment of each slice, since most are partly filled, and room for one
        // segment to stand twice while it grows.
        let partly_filled = (issued.len() + foreign.len()) << segment_bits;
        let index_pages = limits.capacity.saturating_mul(INDEX_BYTES_PER_IMPRESSION).div_ceil(PAGE_BYTES);
        let growing = (index_pages >> segment_bits) + 2;
        Self {
            hasher: Hasher::new(key),
            memory: Memory {
                index: Pool::new(index_pages + growing + partly_filled),
                ids: Pool::new(limits.capacity.div_ceil(IDS_PER_PAGE) + partly_filled),
            },
            issued,
            foreign,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.issued.contents().chain(self.foreign.contents()).map(|slice| slice.len).sum()
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        (self.memory.index.in_use() + self.memory.ids.in_use()) * PAGE_BYTES
    }

    /// Drops what has expired; says when more will.
    pub(super) fn expire(&mut self, now: UnixMs) -> UnixMs {
        self.issued.expire(now, &mut self.memory).min(self.foreign.expire(now, &mut self.memory))
    }

    /// The name of an impression by its full id.
    #[inline]
    pub(super) fn name(&self, words: [u64; 2], issued_slice: Option<u32>) -> Name {
        Name { words, hash: self.hasher.of_id(words), issued_slice }
    }

    /// The live slices an impression may stand in: one by its issue time, or for a foreign one all,
    /// newest first.
    #[inline]
    fn slices_of(&self, name: &Name, now: UnixMs) -> impl Iterator<Item = &Slice> {
        let (slices, newest, oldest) = match name.issued_slice {
            Some(number) => (&self.issued, number, number),
            None => {
                let newest = self.foreign.number_of(now.seconds());
                (&self.foreign, newest, newest.saturating_sub(self.foreign.len() as u32 - 1))
            }
        };
        (oldest..=newest).rev().filter_map(|number| slices.live(number))
    }

    /// Brings in the lines a look-up begins with.
    #[inline]
    pub(super) fn touch(&self, name: &Name, now: UnixMs) -> u64 {
        let lines = self.memory.index.groups();
        let touch = |at: usize| lines.get(at).map_or(0, Group::touch);
        let homes = self.slices_of(name, now).map(|slice| slice.index.home(name.hash));
        homes.fold(0, |sum, home| sum ^ touch(home) ^ touch(home ^ 1))
    }

    /// Brings in the ids that seem to be the one.
    #[inline]
    pub(super) fn touch_ids(&self, name: &Name, now: UnixMs) -> u64 {
        let lines = self.memory.ids.groups();
        let ids = self.slices_of(name, now).filter_map(|slice| slice.seems(&self.memory, name));
        ids.fold(0, |sum, line| sum ^ lines.get(line).map_or(0, IdLine::touch))
    }

    #[inline]
    pub(super) fn find(&self, name: &Name, now: UnixMs) -> Option<Place> {
        self.slices_of(name, now).find_map(|slice| slice.find(&self.memory, name))
    }

    #[inline]
    pub(super) fn state(&self, at: Place) -> State {
        self.memory.index.group(at.group).state(at.slot as usize)
    }

    #[inline]
    pub(super) fn set_state(&mut self, at: Place, state: State) {
        self.memory.index.group_mut(at.group).set_state(at.slot as usize, state);
    }

    /// When the slice that this impression belongs to expires.
    pub(super) fn expires_at(&self, name: &Name, first_seen: UnixMs) -> UnixMs {
        match name.issued_slice {
            Some(number) => self.issued.expires_at(number),
            None => self.foreign.expires_at(self.foreign.number_of(first_seen.seconds())),
        }
    }

    /// Makes sure that this impression, which is not here and not expired, can be inserted. A
    /// foreign one stands in the slice of `first_seen`.
    ///
    /// # Errors
    /// `table_full` when there is no memory left.
    #[inline]
    pub(super) fn make_room(&mut self, name: &Name, first_seen: UnixMs) -> Result<(), Reason> {
        let number = self.number_for(name, first_seen);
        let slices = if name.issued_slice.is_some() { &mut self.issued } else { &mut self.foreign };
        let slice = slices.open(number).ok_or(Reason::TableFull)?;
        if slice.has_room(name.hash) { Ok(()) } else { self.grow(name, number) }
    }

    #[inline]
    const fn number_for(&self, name: &Name, first_seen: UnixMs) -> u32 {
        match name.issued_slice {
            Some(number) => number,
            None => self.foreign.number_of(first_seen.seconds()),
        }
    }

    #[cold]
    fn grow(&mut self, name: &Name, number: u32) -> Result<(), Reason> {
        let Self { hasher, memory, .. } = self;
        let slices = if name.issued_slice.is_some() { &mut self.issued } else { &mut self.foreign };
        let pages_before = slices.before(number).index_pages(name.hash);
        let slice = slices.open(number).ok_or(Reason::TableFull)?;
        slice.grow(memory, hasher, name.hash, pages_before).map_err(|OutOfPages| Reason::TableFull)
    }

    /// Inserts an impression that is not here; only after [`Hashed::make_room`] for it.
    #[inline]
    pub(super) fn insert(&mut self, name: &Name, first_seen: UnixMs, state: State) {
        let number = self.number_for(name, first_seen);
        let slices = if name.issued_slice.is_some() { &mut self.issued } else { &mut self.foreign };
        let slice = slices.open(number);
        let inserted = slice.and_then(|slice| slice.insert(&mut self.memory, name, state));
        debug_assert!(inserted.is_some(), "room was made");
    }
}
