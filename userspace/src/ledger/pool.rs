//! The memory of the ledger's tables: pages from one budget, fixed at the start.
//!
//! It knows no meaning and no hash: [`super::pages`] makes tables of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::zeroed::Zeroed;

/// Groups are cache lines, so pages are of 4 KiB: small enough that a hundred little segments waste
/// little, large enough that page lists stay in the nearest caches.
pub(super) const PAGE_GROUPS: usize = 64;
pub(super) const PAGE_SHIFT: u32 = PAGE_GROUPS.ilog2();

/// All pages of one kind: taken and given back one by one, never more than the budget.
#[derive(Debug)]
pub(super) struct Pool<G> {
    groups: Zeroed<G>,
    free: Vec<u32>,
    /// Pages of a segment while it grows, kept for the next that does.
    pub(super) scratch: Vec<u32>,
    /// Pages taken at least once.
    touched: usize,
    pages_max: usize,
}

impl<G: FromBytes + IntoBytes + Immutable + KnownLayout> Pool<G> {
    /// A pool of `pages_max` pages. Address space is reserved at once, memory as pages are taken.
    ///
    /// # Panics
    /// When the kernel refuses the address space.
    pub(super) fn new(pages_max: usize) -> Self {
        let pages_max = pages_max.min(u32::MAX as usize >> PAGE_SHIFT);
        let len = pages_max * PAGE_GROUPS;
        let groups = Zeroed::new(len).unwrap_or_else(|error| {
            let bytes = len * size_of::<G>();
            panic!("no address space for a table of {bytes} bytes ({error}): lower the ledger's capacities")
        });
        let (free, scratch) = (Vec::with_capacity(pages_max), Vec::new());
        Self { groups, free, scratch, touched: 0, pages_max }
    }

    /// Pages that can still be taken.
    pub(super) fn available(&self) -> usize {
        self.pages_max - self.touched + self.free.len()
    }

    /// Whether a quarter of all pages is left.
    pub(super) fn is_roomy(&self) -> bool {
        self.available() > self.pages_max / 4
    }

    /// Pages in use.
    pub(super) fn in_use(&self) -> usize {
        self.pages_max - self.available()
    }

    /// An empty page: all its bytes are zero.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(page) = self.free.pop() {
            self.page_mut(page).as_mut_bytes().fill(0);
            return Some(page);
        }
        let page = self.touched;
        if page >= self.pages_max {
            return None;
        }
        self.touched += 1;
        Some(page as u32)
    }

    /// Every group there can be, those of pages not taken included.
    #[inline(always)]
    pub(super) fn groups(&self) -> &[G] {
        self.groups.items()
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(super) fn groups_mut(&mut self) -> &mut [G] {
        self.groups.items_mut()
    }

    /// Gives a page back.
    pub(super) fn give(&mut self, page: u32) {
        self.free.push(page);
    }

    pub(super) fn page(&self, page: u32) -> &[G] {
        &self.groups()[(page as usize) << PAGE_SHIFT..][..PAGE_GROUPS]
    }

    pub(super) fn page_mut(&mut self, page: u32) -> &mut [G] {
        &mut self.groups_mut()[(page as usize) << PAGE_SHIFT..][..PAGE_GROUPS]
    }

    #[inline]
    pub(super) fn group(&self, at: u32) -> &G {
        &self.groups()[at as usize]
    }

    #[inline]
    pub(super) fn group_mut(&mut self, at: u32) -> &mut G {
        &mut self.groups_mut()[at as usize]
    }
}

/// The pages of each segment of something, found by one short load.
#[derive(Debug)]
pub(super) struct Directory {
    /// A row for each segment: the number of its pages, then the pages.
    rows: Vec<u32>,
    stride: usize,
    segments: usize,
}

impl Directory {
    pub(super) const fn new(segments: usize) -> Self {
        Self { rows: Vec::new(), stride: 0, segments }
    }

    /// The pages of a segment in order.
    #[inline]
    pub(super) fn of(&self, segment: usize) -> &[u32] {
        match self.rows.get(segment * self.stride..) {
            Some([count, pages @ ..]) => &pages[..*count as usize],
            _ => &[],
        }
    }

    /// The group at a fraction of a segment, in units of 2^-64; the same as counting through
    /// [`Directory::of`], in fewer steps.
    #[inline(always)]
    pub(super) fn group_at(&self, segment: usize, fraction: u64) -> Option<usize> {
        let row = segment * self.stride;
        let groups = u64::from(*self.rows.get(row)?) << PAGE_SHIFT;
        if groups == 0 {
            return None;
        }
        let index = ((u128::from(fraction) * u128::from(groups)) >> 64) as usize;
        let page = *self.rows.get(row + 1 + (index >> PAGE_SHIFT))?;
        Some((page as usize) << PAGE_SHIFT | index & (PAGE_GROUPS - 1))
    }

    /// Gives a segment other pages.
    pub(super) fn set(&mut self, segment: usize, pages: &[u32]) {
        if pages.len() >= self.stride {
            self.widen(pages.len());
        }
        let row = &mut self.rows[segment * self.stride..][..self.stride];
        row[0] = pages.len() as u32;
        row[1..=pages.len()].copy_from_slice(pages);
    }

    /// Gives a segment one more page.
    pub(super) fn push(&mut self, segment: usize, page: u32) {
        let count = self.of(segment).len();
        if count + 1 >= self.stride {
            self.widen(count + 1);
        }
        let row = &mut self.rows[segment * self.stride..][..self.stride];
        row[0] += 1;
        row[count + 1] = page;
    }

    /// Makes each row hold this many pages and some to spare.
    #[cold]
    fn widen(&mut self, pages: usize) {
        let stride = (1 + pages + pages / 2).next_multiple_of(4);
        let mut rows = vec![0; stride * self.segments];
        for segment in 0..self.segments {
            let pages = self.of(segment);
            rows[segment * stride] = pages.len() as u32;
            rows[segment * stride + 1..][..pages.len()].copy_from_slice(pages);
        }
        (self.rows, self.stride) = (rows, stride);
    }

    /// All pages of all segments.
    pub(super) fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.segments).flat_map(|segment| self.of(segment).iter().copied())
    }

    /// Gives every page back.
    pub(super) fn clear<G: FromBytes + IntoBytes + Immutable + KnownLayout>(&mut self, pool: &mut Pool<G>) {
        self.pages().for_each(|page| pool.give(page));
        (self.rows, self.stride) = (Vec::new(), 0);
    }
}
