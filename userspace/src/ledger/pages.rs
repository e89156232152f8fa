//! Hash tables that grow by pages from one fixed budget and are dropped whole.
//!
//! A [`Table`] is cut by the top bits of the hash into segments of bounded size. A segment is a
//! list of pages; its groups are open-addressed in the order of the hash, so growing a segment
//! streams it once from its old pages into new ones. The pause is that of one segment, and so is
//! the memory needed meanwhile. Nothing is removed from a table: all of it goes at once, back to
//! the [`Pool`].
//!
//! The tables know no meaning: what a group holds is its own affair.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::pool::{Directory, PAGE_GROUPS, PAGE_SHIFT, Pool};

/// What a segment probes as a unit: one cache line with some entries. All zero bytes are an empty
/// one.
pub(super) trait Group: Clone + FromBytes + IntoBytes + Immutable + KnownLayout {
    /// One entry, as it moves when a segment grows.
    type Entry: Copy;

    /// Entries a group holds.
    const SLOTS: usize;
    /// A segment grows when it is fuller than this, in sixteenths.
    const MAX_LOAD_16THS: usize;
    /// A segment grows by one page in this many.
    const GROWTH_DIVISOR: usize;

    /// Entries held.
    fn len(&self) -> usize;
    /// The entry in a slot below `len`.
    fn entry(&self, slot: usize) -> Self::Entry;
    /// Adds an entry and says where; there is room.
    fn push(&mut self, entry: Self::Entry) -> usize;
    /// Whether an entry of this [`spill_bit`] that belongs here may have gone on to a later group.
    fn may_have_spilled(&self, bit: u32) -> bool;
    /// Notes that one did.
    fn mark_spilled(&mut self, bit: u32);
    /// A word of the cache line, so that reading it brings the line in.
    fn touch(&self) -> u64;
}

/// Which of 64 marks a full group sets for an entry that goes on. Most look-ups for what is not
/// there so end at their home, even in a table that is nearly full. Bits that place nothing: a
/// segment has fewer than 2^26 groups.
#[inline]
const fn spill_bit(within: u64) -> u32 {
    (within >> 32) as u32 & 63
}

/// Where an entry stands, valid until its segment grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) slot: u32,
}

/// What has no place yet; no pool has a group of this number.
pub(super) const NOWHERE: usize = usize::MAX;

/// There is no page left for a segment to grow into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfPages;

/// A hash table whose groups live in a pool that is passed to every call.
#[derive(Debug)]
pub(super) struct Table {
    segments: Vec<Segment>,
    directory: Directory,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// Entries held.
    len: u32,
    /// Entries that can come before the segment must grow.
    room: u32,
}

/// The pages of a segment while it is looked at.
#[derive(Clone, Copy)]
struct Pages<'a>(&'a [u32]);

/// A point on the way of one hash through the groups of a segment.
#[derive(Clone, Copy)]
struct Probe {
    index: usize,
    /// Whether this is the neighbour of the group a leap led to.
    neighbour: bool,
    /// How wide a leap is, in groups.
    step: usize,
    leaps: usize,
}

/// Leaps before a probe goes on step by step: at the greatest load, one entry in a thousand
/// needs more.
const LEAPS: usize = 12;

impl Table {
    /// An empty table of `2^segment_bits` segments; it holds no page yet.
    pub(super) fn new(segment_bits: u32) -> Self {
        let segments = 1 << segment_bits;
        Self { segments: vec![Segment::default(); segments], directory: Directory::new(segments) }
    }

    /// Segment of a hash, its topmost bits, and what is left of the hash to place it within.
    #[inline(always)]
    const fn split(&self, hash: u64) -> (usize, u64) {
        let both = hash as u128 * self.segments.len() as u128;
        ((both >> 64) as usize, both as u64)
    }

    /// The segment a hash belongs to.
    #[inline]
    pub(super) const fn segment_of(&self, hash: u64) -> usize {
        self.split(hash).0
    }

    /// Entries of a segment.
    #[inline]
    pub(super) fn len_of(&self, segment: usize) -> usize {
        self.segments[segment].len as usize
    }

    /// Pages of a segment.
    pub(super) fn pages_of(&self, segment: usize) -> usize {
        self.directory.of(segment).len()
    }

    #[inline]
    fn segment(&self, segment: usize) -> Pages<'_> {
        Pages(self.directory.of(segment))
    }

    /// The group a look-up of this hash goes to first; [`NOWHERE`] in a segment without pages.
    #[inline(always)]
    pub(super) fn home(&self, hash: u64) -> usize {
        let (segment, within) = self.split(hash);
        self.directory.group_at(segment, within).unwrap_or(NOWHERE)
    }

    /// The group a look-up of this hash goes to after its home and the home's neighbour.
    pub(super) fn leap(&self, hash: u64) -> usize {
        let (segment, within) = self.split(hash);
        let pages = self.segment(segment);
        if pages.0.is_empty() {
            return NOWHERE;
        }
        let leap = pages.next(pages.next(pages.probe(within)));
        pages.at(leap.index) as usize
    }

    /// Where the entry of this hash stands for which `slot_in` knows a slot.
    #[inline]
    pub(super) fn find<G: Group>(
        &self,
        pool: &Pool<G>,
        hash: u64,
        slot_in: impl Fn(&G) -> Option<usize>,
    ) -> Option<Place> {
        let (segment, within) = self.split(hash);
        self.segment(segment).find(pool.groups(), within, slot_in)
    }

    /// Whether one more entry can be inserted into a segment; if not, [`Table::grow`] first.
    #[inline]
    pub(super) fn has_room(&self, segment: usize) -> bool {
        self.segments[segment].room > 0
    }

    #[inline]
    fn count_in(&mut self, segment: usize) {
        let segment = &mut self.segments[segment];
        segment.len += 1;
        segment.room = segment.room.saturating_sub(1);
    }

    /// Inserts an entry that is not in the table. `None` where a segment
    /// without [room](Table::has_room) has no page.
    #[inline]
    pub(super) fn insert<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        entry: G::Entry,
    ) -> Option<Place> {
        let (segment, within) = self.split(hash);
        let place = self.segment(segment).insert(pool.groups_mut(), within, entry)?;
        self.count_in(segment);
        Some(place)
    }

    /// Streams the segment of this hash into one with more pages. One that has none yet starts with
    /// as many as that of the span before came to have (`pages_before`), if they are easily spared: what came
    /// in one span of time is a good guess for the next, and then nothing needs to grow again.
    #[cold]
    pub(super) fn grow<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        pages_before: usize,
        hash_of: impl Fn(&G::Entry) -> u64,
    ) -> Result<(), OutOfPages> {
        let segment = self.segment_of(hash);
        let old = self.directory.of(segment).len();
        let count = if old > 0 {
            old + (old / G::GROWTH_DIVISOR).max(1)
        } else if pool.is_roomy() {
            pages_before.clamp(1, pool.available())
        } else {
            1
        };
        if pool.available() < count {
            return Err(OutOfPages);
        }
        let mut pages = core::mem::take(&mut pool.scratch);
        pages.clear();
        pages.extend((0..count).filter_map(|_| pool.take()));
        pages.extend_from_slice(self.directory.of(segment));
        let (new, old) = pages.split_at(count);
        for &page in old {
            for index in 0..PAGE_GROUPS {
                let group = pool.page(page)[index].clone();
                for slot in 0..group.len() {
                    let entry = group.entry(slot);
                    let (_, within) = self.split(hash_of(&entry));
                    Pages(new).insert(pool.groups_mut(), within, entry);
                }
            }
            pool.give(page);
        }
        self.directory.set(segment, new);
        pool.scratch = pages;
        let most = G::MAX_LOAD_16THS * G::SLOTS * PAGE_GROUPS * count / 16;
        let segment = &mut self.segments[segment];
        segment.room = (most as u32).saturating_sub(segment.len);
        Ok(())
    }

    /// Gives every page back.
    pub(super) fn clear<G: Group>(&mut self, pool: &mut Pool<G>) {
        self.directory.clear(pool);
        self.segments.fill(Segment::default());
    }

    /// All pages of the table.
    pub(super) fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.directory.pages()
    }
}

impl Pages<'_> {
    const fn groups(self) -> usize {
        self.0.len() << PAGE_SHIFT
    }

    /// The group within the segment a hash belongs to; order-preserving.
    #[inline]
    const fn home_index(self, within: u64) -> usize {
        ((within as u128 * self.groups() as u128) >> 64) as usize
    }

    /// The pool's index of a group of this segment.
    #[inline]
    fn at(self, index: usize) -> u32 {
        self.0[index >> PAGE_SHIFT] << PAGE_SHIFT | (index & (PAGE_GROUPS - 1)) as u32
    }

    #[inline]
    fn probe(self, within: u64) -> Probe {
        // Bits that neither place nor mark; never 0, so that a leap leads to another pair.
        let pairs = self.groups() as u64 / 2;
        let step = 2 * (((within & u64::from(u32::MAX)) * (pairs - 1)) >> 32) as usize + 2;
        Probe { index: self.home_index(within), neighbour: false, step, leaps: LEAPS }
    }

    /// The group to look at after this one: first its neighbour, which processors fetch along with
    /// it, then on to another pair. A few leaps as wide as the hash says keep full groups from
    /// growing into clusters; single steps after them are sure to meet every group.
    #[inline]
    const fn next(self, probe: Probe) -> Probe {
        let Probe { index, neighbour, step, leaps } = probe;
        if !neighbour {
            return Probe { index: index ^ 1, neighbour: true, step, leaps };
        }
        let (ahead, leaps) = if leaps > 0 { (index + step, leaps - 1) } else { (index + 2, 0) };
        let index = if ahead < self.groups() { ahead } else { ahead - self.groups() };
        Probe { index, neighbour: false, step, leaps }
    }

    /// Groups a probe may have to look at to have met every one.
    const fn probes_max(self) -> usize {
        self.groups() + 2 * LEAPS
    }

    #[inline]
    fn find<G: Group>(
        self,
        groups: &[G],
        within: u64,
        slot_in: impl Fn(&G) -> Option<usize>,
    ) -> Option<Place> {
        if self.0.is_empty() {
            return None;
        }
        let mut probe = self.probe(within);
        for _ in 0..self.probes_max() {
            let at = self.at(probe.index);
            let group = &groups[at as usize];
            if let Some(slot) = slot_in(group) {
                return Some(Place { group: at, slot: slot as u32 });
            }
            if !group.may_have_spilled(spill_bit(within)) {
                return None;
            }
            probe = self.next(probe);
        }
        None
    }

    /// Puts an entry into the first group on its way that is not full. `None` when all are.
    #[inline]
    fn insert<G: Group>(self, groups: &mut [G], within: u64, entry: G::Entry) -> Option<Place> {
        if self.0.is_empty() {
            return None;
        }
        // Most entries stay at home, and then the rest of the way need not be worked out.
        let at = self.at(self.home_index(within));
        let group = &mut groups[at as usize];
        if group.len() < G::SLOTS {
            return Some(Place { group: at, slot: group.push(entry) as u32 });
        }
        self.insert_further(groups, within, entry)
    }

    #[inline(never)]
    fn insert_further<G: Group>(self, groups: &mut [G], within: u64, entry: G::Entry) -> Option<Place> {
        let mut probe = self.probe(within);
        for _ in 0..self.probes_max() {
            let at = self.at(probe.index);
            let group = &mut groups[at as usize];
            if group.len() < G::SLOTS {
                return Some(Place { group: at, slot: group.push(entry) as u32 });
            }
            group.mark_spilled(spill_bit(within));
            probe = self.next(probe);
        }
        None
    }
}
