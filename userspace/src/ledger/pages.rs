//! Hash tables that grow by pages from one fixed budget and are dropped whole.
//!
//! A [`Table`] is cut by the top bits of the hash into segments of bounded size. A segment is a
//! list of pages; its groups are open-addressed in the order of the hash, so growing a segment
//! streams it once from its old pages into new ones. The pause is that of one segment, and so is
//! the memory needed meanwhile. Nothing is removed from a table: all of it goes at once, back to
//! the [`Pool`].
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
    /// Whether the group seems to hold this key; for a guess.
    fn may_hold(&self, key: &Self::Key) -> bool;
    /// Where the entry with this key stands.
    fn find(&self, key: &Self::Key) -> Option<usize>;
    /// The entry in a slot below `len`.
    fn entry(&self, slot: usize) -> Self::Entry;
    /// Adds an entry and says where; there is room.
    fn push(&mut self, entry: Self::Entry) -> usize;
    /// Whether an entry of this [`spill_bit`] that belongs here may have gone on to a later group.
    fn may_have_spilled(&self, bit: u32) -> bool;
    /// Notes that one did.
    fn mark_spilled(&mut self, bit: u32);
    /// A word from each cache line, so that reading it brings the lines in.
    fn touch(&self) -> u64;
}

/// Groups are as large as one or two cache lines, so pages are of 4 or 8 KiB: small enough that a
/// hundred little segments waste little, large enough that page lists stay in the nearest caches.
pub(super) const PAGE_GROUPS: usize = 64;
const PAGE_SHIFT: u32 = PAGE_GROUPS.ilog2();

/// Which of 64 marks a full group sets for an entry that goes on. Most look-ups for what is not
/// there so end at their home, even in a table that is nearly full. Bits that place nothing: a
/// segment has fewer than 2^26 groups.
#[inline]
const fn spill_bit(within: u64) -> u32 {
    (within >> 32) as u32 & 63
}

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
        let pages_max = pages_max.min(u32::MAX as usize >> PAGE_SHIFT);
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

    /// A word of each cache line of a group, or nothing for a group that is not there: brings
    /// the lines in.
    #[inline]
    pub(super) fn touch(&self, at: usize) -> u64
    where
        G: Group,
    {
        self.groups.get(at).map_or(0, Group::touch)
    }

    /// The same for the second group of a way, should the first be full and not hold the key. No
    /// branch, for none could be predicted.
    #[inline]
    pub(super) fn touch_second(&self, way: Way, key: &G::Key) -> u64
    where
        G: Group,
    {
        let goes_on =
            self.groups.get(way.first).is_some_and(|group| group.len() == G::SLOTS && !group.may_hold(key));
        self.touch(if goes_on { way.second } else { way.first })
    }

    /// Entries of a group that has room for more; `None` for one that is full or not there.
    #[inline]
    pub(super) fn len_with_room(&self, at: usize) -> Option<usize>
    where
        G: Group,
    {
        self.groups.get(at).map(Group::len).filter(|&len| len < G::SLOTS)
    }

    #[inline]
    pub(super) fn group(&self, at: u32) -> &G {
        &self.groups[at as usize]
    }

    #[inline]
    pub(super) fn group_mut(&mut self, at: u32) -> &mut G {
        &mut self.groups[at as usize]
    }
}

/// Where an entry stands, valid until its segment grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) slot: u32,
}

/// The first two groups a look-up goes to, in the pool's count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) first: usize,
    pub(super) second: usize,
}

impl Way {
    /// The way of what has none yet; no pool has a group of this number.
    pub(super) const NOWHERE: Self = Self { first: usize::MAX, second: usize::MAX };
}

/// There is no page left for a segment to grow into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfPages;

/// A hash table whose groups live in a pool that is passed to every call.
#[derive(Debug)]
pub(super) struct Table {
    segment_bits: u32,
    /// Pages and entries of each segment.
    segments: Vec<Segment>,
    /// The pages of all segments, `stride` to each: one short load from hash to page.
    directory: Vec<u32>,
    stride: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    pages: u32,
    len: u32,
}

/// The pages of a segment while it is looked at.
#[derive(Clone, Copy)]
struct Pages<'a>(&'a [u32]);

/// A point on the way of one hash through the groups of a segment.
#[derive(Clone, Copy)]
struct Probe {
    index: usize,
    step: usize,
    leaps: usize,
}

/// Leaps before a probe goes on step by step: at the greatest load, one entry in a thousand
/// needs more.
const LEAPS: usize = 12;

impl Table {
    /// An empty table of `2^segment_bits` segments; it holds no page yet.
    pub(super) fn new(segment_bits: u32) -> Self {
        let segments = vec![Segment::default(); 1 << segment_bits];
        Self { segment_bits, segments, directory: Vec::new(), stride: 0 }
    }

    /// Segment of a hash, and what is left of the hash to place it within.
    #[inline]
    const fn split(&self, hash: u64) -> (usize, u64) {
        let segment = ((hash as u128) << self.segment_bits) >> 64;
        (segment as usize, hash << self.segment_bits)
    }

    #[inline]
    fn pages_of(&self, segment: usize) -> Pages<'_> {
        Pages(&self.directory[segment * self.stride..][..self.segments[segment].pages as usize])
    }

    /// Where a look-up of this hash will go.
    #[inline]
    pub(super) fn way(&self, hash: u64) -> Way {
        let (segment, within) = self.split(hash);
        let pages = self.pages_of(segment);
        if pages.0.is_empty() {
            return Way::NOWHERE;
        }
        let probe = pages.probe(within);
        Way { first: pages.at(probe.index) as usize, second: pages.at(pages.next(probe).index) as usize }
    }

    /// Where the entry of this key stands.
    #[inline]
    pub(super) fn find<G: Group>(&self, pool: &Pool<G>, hash: u64, key: &G::Key) -> Option<Place> {
        let (segment, within) = self.split(hash);
        self.pages_of(segment).find(pool, within, key)
    }

    /// Makes sure that one more entry of this hash can be inserted; whether entries moved for it.
    #[inline]
    pub(super) fn make_room<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        hash_of: impl Fn(&G::Entry) -> u64,
    ) -> Result<bool, OutOfPages> {
        let (segment, _) = self.split(hash);
        if self.has_room::<G>(segment) {
            return Ok(false);
        }
        self.grow(pool, segment, hash_of)?;
        Ok(true)
    }

    #[inline]
    fn has_room<G: Group>(&self, segment: usize) -> bool {
        let Segment { pages, len } = self.segments[segment];
        16 * (len as usize + 1) <= G::MAX_LOAD_16THS * G::SLOTS * PAGE_GROUPS * pages as usize
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
        let place = self.pages_of(segment).insert(pool, within, entry)?;
        self.segments[segment].len += 1;
        Some(place)
    }

    /// Inserts an entry into the group a look-up of it has just ended at: its home, not full.
    /// Only after [`Table::make_room`] for this hash made no entry move.
    #[inline]
    pub(super) fn insert_at<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        hash: u64,
        home: usize,
        entry: G::Entry,
    ) -> Place {
        let (segment, _) = self.split(hash);
        self.segments[segment].len += 1;
        Place { group: home as u32, slot: pool.group_mut(home as u32).push(entry) as u32 }
    }

    /// Streams a segment into one with more pages.
    #[cold]
    fn grow<G: Group>(
        &mut self,
        pool: &mut Pool<G>,
        segment: usize,
        hash_of: impl Fn(&G::Entry) -> u64,
    ) -> Result<(), OutOfPages> {
        let old = self.pages_of(segment).0.to_vec();
        let count = old.len() + (old.len() / G::GROWTH_DIVISOR).max(1);
        if pool.available() < count {
            return Err(OutOfPages);
        }
        let new: Option<Vec<u32>> = (0..count).map(|_| pool.take()).collect();
        let new = new.ok_or(OutOfPages)?;
        for page in old {
            for index in 0..PAGE_GROUPS {
                let group = pool.page(page)[index].clone();
                for slot in 0..group.len() {
                    let entry = group.entry(slot);
                    Pages(&new).insert(pool, hash_of(&entry) << self.segment_bits, entry);
                }
            }
            pool.give(page);
        }
        if count > self.stride {
            self.widen(count);
        }
        self.directory[segment * self.stride..][..count].copy_from_slice(&new);
        self.segments[segment].pages = count as u32;
        Ok(())
    }

    /// Makes the directory hold more pages for each segment.
    fn widen(&mut self, pages: usize) {
        let stride = pages + pages / 2;
        let mut directory = vec![0; stride * self.segments.len()];
        for segment in 0..self.segments.len() {
            let pages = self.pages_of(segment).0;
            directory[segment * stride..][..pages.len()].copy_from_slice(pages);
        }
        (self.directory, self.stride) = (directory, stride);
    }

    /// Gives every page back.
    pub(super) fn clear<G: Group>(&mut self, pool: &mut Pool<G>) {
        self.pages().for_each(|page| pool.give(page));
        self.segments.fill(Segment::default());
        (self.directory, self.stride) = (Vec::new(), 0);
    }

    /// All pages of the table.
    pub(super) fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.segments.len()).flat_map(|segment| self.pages_of(segment).0.iter().copied())
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
        // Bits that neither place nor mark; never 0, so that the second group is another one.
        let step = ((within & u64::from(u32::MAX)) * (self.groups() as u64 - 1)) >> 32;
        Probe { index: self.home_index(within), step: step as usize + 1, leaps: LEAPS }
    }

    /// The group to look at after this one. A few leaps as wide as the hash says keep full groups
    /// from growing into clusters; single steps after them are sure to meet every group.
    #[inline]
    const fn next(self, probe: Probe) -> Probe {
        let Probe { index, step, leaps } = probe;
        let (ahead, leaps) = if leaps > 0 { (index + step, leaps - 1) } else { (index + 1, 0) };
        Probe { index: if ahead < self.groups() { ahead } else { ahead - self.groups() }, step, leaps }
    }

    #[inline]
    fn find<G: Group>(self, pool: &Pool<G>, within: u64, key: &G::Key) -> Option<Place> {
        if self.0.is_empty() {
            return None;
        }
        let mut probe = self.probe(within);
        for _ in 0..self.groups() + LEAPS {
            let at = self.at(probe.index);
            let group = pool.group(at);
            if let Some(slot) = group.find(key) {
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
    fn insert<G: Group>(self, pool: &mut Pool<G>, within: u64, entry: G::Entry) -> Option<Place> {
        if self.0.is_empty() {
            return None;
        }
        let mut probe = self.probe(within);
        for _ in 0..self.groups() + LEAPS {
            let at = self.at(probe.index);
            let group = pool.group_mut(at);
            if group.len() < G::SLOTS {
                return Some(Place { group: at, slot: group.push(entry) as u32 });
            }
            group.mark_spilled(spill_bit(within));
            probe = self.next(probe);
        }
        None
    }
}
