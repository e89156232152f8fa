//! Hash tables that grow by pages from one fixed budget and are dropped whole.
//!
//! A [`Table`] is cut by the top bits of the hash into segments of bounded size. A segment is a
//! list of pages; its groups are open-addressed in the order of the hash, so growing a segment
//! streams it once from its old pages into new ones, freeing the old as it goes. The pause is
//! that of one segment, the memory needed meanwhile a page or two. Nothing is removed from a
//! table: all of it goes at once, back to the [`Pool`].
//!
//! The tables know no meaning: what a group holds is its own affair.

/// What a segment probes as a unit: one or two cache lines with some entries.
pub(super) trait Group: Clone + Default {
    /// What tells entries apart.
    type Key: Copy;
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
    /// Where the entry with this key stands.
    fn find(&self, key: &Self::Key) -> Option<usize>;
    /// The entry in a slot below `len`.
    fn entry(&self, slot: usize) -> Self::Entry;
    /// Adds an entry and says where; there is room.
    fn push(&mut self, entry: Self::Entry) -> usize;
    /// Whether an entry that belongs here had to go on to a later group.
    fn has_spilled(&self) -> bool;
    /// Notes that one had to.
    fn mark_spilled(&mut self);
    /// A word from each cache line, so that reading it brings the lines in.
    fn touch(&self) -> u64;
}

/// Groups are as large as one or two cache lines, so pages are of 4 or 8 KiB: small enough that a
/// hundred little segments waste little, large enough that page lists stay in the nearest caches.
pub(super) const PAGE_GROUPS: usize = 64;
const PAGE_SHIFT: u32 = PAGE_GROUPS.ilog2();

/// All pages of one kind: taken and given back one by one, never more than the budget.
#[derive(Debug)]
pub(super) struct Pool<G> {
    /// Grows up to its reserved capacity and never moves.
    groups: Vec<G>,
    free: Vec<u32>,
    pages_max: usize,
}

impl<G: Clone + Default> Pool<G> {
    /// A pool of `pages_max` pages. Address space is reserved at once, memory as pages are taken.
    pub(super) fn new(pages_max: usize) -> Self {
        let pages_max = pages_max.min(u32::MAX as usize);
        Self { groups: Vec::with_capacity(pages_max * PAGE_GROUPS), free: Vec::new(), pages_max }
    }

    /// Pages that can still be taken.
    pub(super) fn available(&self) -> usize {
        self.pages_max - self.groups.len() / PAGE_GROUPS + self.free.len()
    }

    /// Pages in use.
    pub(super) fn in_use(&self) -> usize {
        self.pages_max - self.available()
    }

    /// An empty page.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(page) = self.free.pop() {
            self.page_mut(page).fill(G::default());
            return Some(page);
        }
        let page = self.groups.len() / PAGE_GROUPS;
        if page >= self.pages_max {
            return None;
        }
        self.groups.resize(self.groups.len() + PAGE_GROUPS, G::default());
        Some(page as u32)
    }

    /// Gives a page back.
    pub(super) fn give(&mut self, page: u32) {
        self.free.push(page);
    }

    pub(super) fn page(&self, page: u32) -> &[G] {
        &self.groups[(page as usize) << PAGE_SHIFT..][..PAGE_GROUPS]
    }

    pub(super) fn page_mut(&mut self, page: u32) -> &mut [G] {
        &mut self.groups[(page as usize) << PAGE_SHIFT..][..PAGE_GROUPS]
    }

    #[inline]
    pub(super) fn group(&self, at: usize) -> &G {
        &self.groups[at]
    }

    #[inline]
    pub(super) fn group_mut(&mut self, at: usize) -> &mut G {
        &mut self.groups[at]
    }
}

/// Where an entry stands, valid until its segment grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: usize,
    pub(super) slot: usize,
}

/// There is no page left for a segment to grow into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfPages;

/// A hash table whose groups live in a pool that is passed to every call.
#[derive(Debug)]
pub(super) struct Table {
    segments: Vec<Segment>,
    segment_bits: u32,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    pages: Vec<u32>,
    len: usize,
}

impl Table {
    /// An empty table of `2^segment_bits` segments; it holds no page yet.
    pub(super) fn new(segment_bits: u32) -> Self {
        Self { segments: vec![Segment::default(); 1 << segment_bits], segment_bits }
    }

    /// Segment of a hash, and what is left of the hash to place it within.
    #[inline]
    fn split(&self, hash: u64) -> (usize, u64) {
        let segment = (u128::from(hash) << self.segment_bits) >> 64;
        (segment as usize, hash << self.segment_bits)
    }

    /// A word of the group this hash belongs to first: brings its cache lines in.
    #[inline]
    pub(super) fn touch<G: Group>(&self, pool: &Pool<G>, hash: u64) -> u64 {
        let (segment, within) = self.split(hash);
        let segment = &self.segments[segment];
        if segment.pages.is_empty() { 0 } else { pool.group(segment.home(within)).touch() }
    }

    /// Where the entry of this key stands.
    #[inline]
    pub(super) fn find<G: Group>(&self, pool: &Pool<G>, hash: u64, key: &G::Key) -> Option<Place> {
        let (segment, within) = self.split(hash);
        self.segments[segment].find(pool, within, key)
    }

    /// Makes sure that one more entry of this hash can be inserted.
    #[inline]
    pub(super) fn make_room<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        hash_of: impl Fn(&G::Entry) -> u64,
    ) -> Result<(), OutOfPages> {
        let bits = self.segment_bits;
        let (segment, _) = self.split(hash);
        let segment = &mut self.segments[segment];
        if segment.has_room::<G>() { Ok(()) } else { segment.grow(pool, |entry| hash_of(entry) << bits) }
    }

    /// Inserts an entry that is not in the table. Only after [`Table::make_room`] for this hash;
    /// `None` without it.
    #[inline]
    pub(super) fn insert<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        entry: G::Entry,
    ) -> Option<Place> {
        let (segment, within) = self.split(hash);
        let segment = &mut self.segments[segment];
        let place = segment.insert(pool, within, entry)?;
        segment.len += 1;
        Some(place)
    }

    /// Gives every page back.
    pub(super) fn clear<G: Group>(&mut self, pool: &mut Pool<G>) {
        for segment in &mut self.segments {
            segment.pages.drain(..).for_each(|page| pool.give(page));
            segment.len = 0;
        }
    }

    /// All pages of the table.
    pub(super) fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.iter().flat_map(|segment| segment.pages.iter().copied())
    }
}

impl Segment {
    const fn groups(&self) -> usize {
        self.pages.len() << PAGE_SHIFT
    }

    /// The group within the segment a hash belongs to; order-preserving.
    #[inline]
    const fn home_index(&self, within: u64) -> usize {
        ((within as u128 * self.groups() as u128) >> 64) as usize
    }

    /// The pool's index of a group of this segment.
    #[inline]
    fn at(&self, index: usize) -> usize {
        (self.pages[index >> PAGE_SHIFT] as usize) << PAGE_SHIFT | index & (PAGE_GROUPS - 1)
    }

    #[inline]
    fn home(&self, within: u64) -> usize {
        self.at(self.home_index(within))
    }

    const fn next(&self, index: usize) -> usize {
        if index + 1 == self.groups() { 0 } else { index + 1 }
    }

    const fn has_room<G: Group>(&self) -> bool {
        16 * (self.len + 1) <= G::MAX_LOAD_16THS * G::SLOTS * self.groups()
    }

    #[inline]
    fn find<G: Group>(&self, pool: &Pool<G>, within: u64, key: &G::Key) -> Option<Place> {
        let mut index = self.home_index(within);
        for _ in 0..self.groups() {
            let at = self.at(index);
            let group = pool.group(at);
            if let Some(slot) = group.find(key) {
                return Some(Place { group: at, slot });
            }
            if !group.has_spilled() {
                return None;
            }
            index = self.next(index);
        }
        None
    }

    /// Puts an entry into its home group or the nearest after it. `None` when every group is full
    /// or, while the segment grows, when the way leads to a page it does not have yet.
    #[inline]
    fn insert<G: Group>(&self, pool: &mut Pool<G>, within: u64, entry: G::Entry) -> Option<Place> {
        let mut index = self.home_index(within);
        for _ in 0..self.groups() {
            let at = self.at(index);
            let group = pool.group_mut(at);
            if group.len() < G::SLOTS {
                return Some(Place { group: at, slot: group.push(entry) });
            }
            group.mark_spilled();
            index = self.next(index);
        }
        None
    }

    /// Streams the segment into one with more pages.
    #[cold]
    fn grow<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        within: impl Fn(&G::Entry) -> u64,
    ) -> Result<(), OutOfPages> {
        let more = (self.pages.len() / G::GROWTH_DIVISOR).max(1);
        let pages = self.pages.len() + more;
        if pool.available() < pages {
            return Err(OutOfPages);
        }
        let new_pages: Option<Vec<u32>> = (0..pages).map(|_| pool.take()).collect();
        let grown = Self { pages: new_pages.ok_or(OutOfPages)?, len: self.len };
        for &page in &self.pages {
            for index in 0..PAGE_GROUPS {
                let group = pool.page(page)[index].clone();
                for slot in 0..group.len() {
                    let entry = group.entry(slot);
                    grown.insert(pool, within(&entry), entry);
                }
            }
            pool.give(page);
        }
        *self = grown;
        Ok(())
    }
}
