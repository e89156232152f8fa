//! Which impressions were clicked, exactly: one byte of state for each, in slices of time that
//! expire whole.
//!
//! Issued ids stand in the slice of their issue time, so a click finds its slice at once. Foreign
//! ids have no time of their own: they stand in the slice of their first click's receive time, so
//! a click looks through the live slices, newest first. There are few of those.
//!
//! The seam for another form of issued ids is [`Slice`]: nothing else knows how ids are kept.

use weir_common::id::ImpressionId;
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::Click;

use super::hash::Hasher;
use super::pages::{Group, OutOfPages, PAGE_GROUPS, Place, Pool, Table};
use super::verdict::State;

/// Bytes of table for each impression that the capacity promises: 18.3 bytes a slot at a load
/// that swings between 3/4 and 7/8.
const BYTES_PER_IMPRESSION: usize = 24;
/// Slices of issue time a lifetime is cut into: 1 h each at the default of 24 h. More would waste
/// partly filled pages, fewer would keep the dead longer.
const ISSUED_SLICES_PER_LIFETIME: u64 = 24;
/// Slices of receive time a lifetime is cut into: 6 h each at the default. Each costs every new
/// foreign id one look-up.
const FOREIGN_SLICES_PER_LIFETIME: u64 = 4;
/// No slice is narrower, whatever the lifetime, so that their number is bounded by the slack.
const MIN_SLICE_MS: u64 = 60_000;
/// Issued ids stay this much longer than their signature: rows of several workers are replayed in
/// the order of their blocks, so time may seem to step back by as much as a block is old.
const EXPIRY_SLACK_MS: u64 = 600_000;
/// A segment is cut so that, were all impressions in one slice, it held about this many: growing
/// it then takes well below a millisecond.
const SEGMENT_IMPRESSIONS: usize = 65_536;

/// Seven impressions in two cache lines: ids in two halves, so that the compiler compares all
/// seven at once, then states.
#[derive(Clone, Debug, Default)]
#[repr(C, align(128))]
pub(super) struct IdGroup {
    lows: [u64; 7],
    len: u8,
    spilled: bool,
    highs: [u64; 7],
    states: [State; 7],
}

const _: () = assert!(size_of::<IdGroup>() == 128);

impl Group for IdGroup {
    type Key = [u64; 2];
    type Entry = ([u64; 2], State);

    const SLOTS: usize = 7;
    const MAX_LOAD_16THS: usize = 14;
    const GROWTH_DIVISOR: usize = 7;

    #[inline]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn find(&self, key: &[u64; 2]) -> Option<usize> {
        let mut equal = 0_u32;
        for slot in 0..Self::SLOTS {
            let differs = (self.lows[slot] ^ key[0]) | (self.highs[slot] ^ key[1]);
            equal |= u32::from(differs == 0) << slot;
        }
        equal &= (1 << self.len) - 1;
        if equal == 0 { None } else { Some(equal.trailing_zeros() as usize) }
    }

    #[inline]
    fn entry(&self, slot: usize) -> Self::Entry {
        ([self.lows[slot], self.highs[slot]], self.states[slot])
    }

    #[inline]
    fn push(&mut self, (id, state): Self::Entry) -> usize {
        let slot = self.len as usize;
        (self.lows[slot], self.highs[slot], self.states[slot]) = (id[0], id[1], state);
        self.len += 1;
        slot
    }

    #[inline]
    fn has_spilled(&self) -> bool {
        self.spilled
    }

    #[inline]
    fn mark_spilled(&mut self) {
        self.spilled = true;
    }

    #[inline]
    fn touch(&self) -> u64 {
        self.lows[0] ^ self.highs[6]
    }
}

/// The impressions of one span of time.
#[derive(Debug)]
struct Slice {
    /// Which span, counted from the epoch in widths; `None` when the slot is free.
    number: Option<u64>,
    table: Table,
    len: usize,
}

/// Slices of one width, each in the slot of its number.
#[derive(Debug)]
struct Slices {
    width_ms: u64,
    /// How long after its end a slice is kept.
    keep_ms: u64,
    ring: Vec<Slice>,
}

impl Slices {
    fn new(width_ms: u64, keep_ms: u64, ahead_ms: u64, segment_bits: u32) -> Self {
        let spans = (keep_ms.saturating_add(ahead_ms) / width_ms + 3) as usize;
        let slice = |_| Slice { number: None, table: Table::new(segment_bits), len: 0 };
        Self { width_ms, keep_ms, ring: (0..spans).map(slice).collect() }
    }

    const fn number_of(&self, at: UnixMs) -> u64 {
        at.0 / self.width_ms
    }

    const fn expires_at(&self, number: u64) -> UnixMs {
        UnixMs(number.saturating_add(1).saturating_mul(self.width_ms).saturating_add(self.keep_ms))
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.ring.len() as u64) as usize
    }

    /// The live slice of this number.
    #[inline]
    fn live(&self, number: u64) -> Option<&Slice> {
        Some(&self.ring[self.slot(number)]).filter(|slice| slice.number == Some(number))
    }

    /// The slice of this number, born if its slot is free.
    fn open(&mut self, number: u64) -> Option<&mut Slice> {
        let slot = self.slot(number);
        let slice = &mut self.ring[slot];
        if slice.number.is_none() {
            slice.number = Some(number);
        }
        Some(slice).filter(|slice| slice.number == Some(number))
    }

    /// Drops what has expired; says when the next slice will, and how many impressions went.
    fn expire(&mut self, now: UnixMs, pool: &mut Pool<IdGroup>) -> (UnixMs, usize) {
        let (mut next, mut gone) = (UnixMs(u64::MAX), 0);
        for slot in 0..self.ring.len() {
            let Some(number) = self.ring[slot].number else { continue };
            let expires_at = self.expires_at(number);
            if expires_at < now {
                let slice = &mut self.ring[slot];
                gone += slice.len;
                slice.table.clear(pool);
                (slice.number, slice.len) = (None, 0);
            } else {
                next = next.min(expires_at);
            }
        }
        (next, gone)
    }
}

/// How long impressions are kept and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) lifetime_ms: u64,
    pub(super) max_ahead_ms: u64,
    pub(super) capacity: usize,
}

/// An impression and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    words: [u64; 2],
    hash: u64,
    /// Of an issued id: when it was issued.
    issued_at: Option<UnixMs>,
}

/// Where an impression stands; valid until the next insertion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found(Place);

/// All impressions a worker remembers.
pub(super) struct Impressions {
    hasher: Hasher,
    pool: Pool<IdGroup>,
    issued: Slices,
    foreign: Slices,
    now: UnixMs,
    next_expiry: UnixMs,
    live: usize,
    limits: Limits,
}

impl Impressions {
    pub(super) fn new(limits: Limits, key: &SipKey) -> Self {
        let segments = (limits.capacity / SEGMENT_IMPRESSIONS).max(1);
        let segment_bits = segments.ilog2();
        let issued_width = (limits.lifetime_ms / ISSUED_SLICES_PER_LIFETIME).max(MIN_SLICE_MS);
        let foreign_width = (limits.lifetime_ms / FOREIGN_SLICES_PER_LIFETIME).max(MIN_SLICE_MS);
        let keep_issued = limits.lifetime_ms.saturating_add(EXPIRY_SLACK_MS);
        let ahead = limits.max_ahead_ms.saturating_add(EXPIRY_SLACK_MS);
        let issued = Slices::new(issued_width, keep_issued, ahead, segment_bits);
        let foreign = Slices::new(foreign_width, limits.lifetime_ms, 0, segment_bits);
        let page_bytes = size_of::<IdGroup>() * PAGE_GROUPS;
        // A page for each segment of each slice, since most are partly filled, and room for one
        // segment to stand twice while it grows.
        let partly_filled = (issued.ring.len() + foreign.ring.len()) << segment_bits;
        let pages = (limits.capacity.saturating_mul(BYTES_PER_IMPRESSION)).div_ceil(page_bytes);
        let growing = (pages >> segment_bits) + 2;
        Self {
            hasher: Hasher::new(key),
            pool: Pool::new(pages + growing + partly_filled),
            issued,
            foreign,
            now: UnixMs(0),
            next_expiry: UnixMs(u64::MAX),
            live: 0,
            limits,
        }
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        self.pool.in_use() * size_of::<IdGroup>() * PAGE_GROUPS
    }

    /// Moves time forward, never back, and drops what has expired by then.
    #[inline]
    pub(super) fn advance(&mut self, now: UnixMs) {
        self.now = self.now.max(now);
        if self.now > self.next_expiry {
            self.expire();
        }
    }

    #[cold]
    fn expire(&mut self) {
        let (next_issued, gone_issued) = self.issued.expire(self.now, &mut self.pool);
        let (next_foreign, gone_foreign) = self.foreign.expire(self.now, &mut self.pool);
        self.next_expiry = next_issued.min(next_foreign);
        self.live -= gone_issued + gone_foreign;
    }

    /// The name of the impression a click is on.
    #[inline]
    pub(super) fn name(&self, click: &Click) -> Name {
        let id: ImpressionId = click.impression;
        let issued_at =
            if click.is_foreign() { None } else { Some(UnixMs(u64::from(id.issued_at_s()) * 1000)) };
        Name { words: id.words(), hash: self.hasher.of_id(id.words()), issued_at }
    }

    /// Brings in the cache lines a look-up will need.
    #[inline]
    pub(super) fn touch(&self, name: &Name) -> u64 {
        let touch = |slice: &Slice| slice.table.touch(&self.pool, name.hash);
        match name.issued_at {
            Some(issued_at) => self.issued.live(self.issued.number_of(issued_at)).map_or(0, touch),
            None => {
                self.foreign_numbers().filter_map(|n| self.foreign.live(n)).map(touch).fold(0, |a, b| a ^ b)
            }
        }
    }

    /// Numbers of the foreign slices that may be live, newest first.
    fn foreign_numbers(&self) -> impl Iterator<Item = u64> {
        let newest = self.foreign.number_of(self.now);
        let oldest = newest.saturating_sub(self.foreign.ring.len() as u64 - 1);
        (oldest..=newest).rev()
    }

    #[inline]
    pub(super) fn find(&self, name: &Name) -> Option<Found> {
        let look = |slice: &Slice| slice.table.find(&self.pool, name.hash, &name.words);
        match name.issued_at {
            Some(issued_at) => self.issued.live(self.issued.number_of(issued_at)).and_then(look),
            None => self.foreign_numbers().filter_map(|n| self.foreign.live(n)).find_map(look),
        }
        .map(Found)
    }

    #[inline]
    pub(super) fn state(&self, at: Found) -> State {
        self.pool.group(at.0.group).states[at.0.slot]
    }

    #[inline]
    pub(super) fn set_state(&mut self, at: Found, state: State) {
        self.pool.group_mut(at.0.group).states[at.0.slot] = state;
    }

    /// Makes sure that this impression, which is not here, can be inserted.
    ///
    /// # Errors
    /// `expired` or `not_yet_issued` for an issue time that no live slice covers: admission keeps
    /// such clicks away. `table_full` when there is no memory left.
    #[inline]
    pub(super) fn make_room(&mut self, name: &Name) -> Result<(), Reason> {
        let number = self.number_for(name)?;
        let hasher = &self.hasher;
        let slices = if name.issued_at.is_some() { &mut self.issued } else { &mut self.foreign };
        let expires_at = slices.expires_at(number);
        let slice = slices.open(number).ok_or(Reason::TableFull)?;
        self.next_expiry = self.next_expiry.min(expires_at);
        slice
            .table
            .make_room(&mut self.pool, name.hash, |(words, _)| hasher.of_id(*words))
            .map_err(|OutOfPages| Reason::TableFull)
    }

    /// Inserts an impression that is not here. Only after [`Impressions::make_room`] for it.
    #[inline]
    pub(super) fn insert(&mut self, name: &Name, state: State) -> Option<Found> {
        let number = self.number_for(name).ok()?;
        let slices = if name.issued_at.is_some() { &mut self.issued } else { &mut self.foreign };
        let slice = slices.open(number)?;
        let place = slice.table.insert(&mut self.pool, name.hash, (name.words, state))?;
        slice.len += 1;
        self.live += 1;
        Some(Found(place))
    }

    #[inline]
    fn number_for(&self, name: &Name) -> Result<u64, Reason> {
        let Some(issued_at) = name.issued_at else { return Ok(self.foreign.number_of(self.now)) };
        let number = self.issued.number_of(issued_at);
        if self.issued.expires_at(number) < self.now {
            return Err(Reason::Expired);
        }
        let ahead = self.limits.max_ahead_ms.saturating_add(EXPIRY_SLACK_MS);
        if issued_at.0 > self.now.0.saturating_add(ahead) {
            return Err(Reason::NotYetIssued);
        }
        Ok(number)
    }
}
