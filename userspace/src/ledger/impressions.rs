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
use super::pages::{Group, OutOfPages, PAGE_GROUPS, Place, Pool, Table, Way};
use super::verdict::State;

/// Bytes of table for each impression that the capacity promises: 18.3 bytes a slot at a load
/// that swings between 0.70 and 0.94, so 19.5 to 26 bytes of which segments at all stages make 22.6.
const BYTES_PER_IMPRESSION: usize = 24;
/// Slices of issue time a lifetime is cut into: 1 h each at the default of 24 h. More would waste
/// partly filled pages, fewer would keep the dead longer.
const ISSUED_SLICES_PER_LIFETIME: u64 = 24;
/// Slices of receive time a lifetime is cut into: 6 h each at the default. Each costs every new
/// foreign id one look-up.
const FOREIGN_SLICES_PER_LIFETIME: u64 = 4;
/// No slice is narrower, whatever the lifetime, so that their number is bounded by the slack.
const MIN_SLICE_S: u64 = 60;
/// Issued ids stay this much longer than their signature: rows of several workers are replayed in
/// the order of their blocks, so time may seem to step back by as much as a block is old.
const EXPIRY_SLACK_MS: u64 = 600_000;
/// A segment is cut so that, were all impressions in one slice, it held about this many: growing
/// it then takes about a millisecond.
const SEGMENT_IMPRESSIONS: usize = 131_072;

/// Seven impressions in two cache lines. The first line alone tells most ids apart: the
/// high word of an issued id is its sequence.
#[derive(Clone, Debug, Default)]
#[repr(C, align(128))]
pub(super) struct IdGroup {
    highs: [u64; 7],
    states: [State; 7],
    len: u8,
    lows: [u64; 7],
    /// A bit for each kind of entry that went on to the next group.
    spilled: u64,
}

const _: () = assert!(size_of::<IdGroup>() == 128 && core::mem::offset_of!(IdGroup, lows) == 64);

impl Group for IdGroup {
    type Key = [u64; 2];
    type Entry = ([u64; 2], State);

    const SLOTS: usize = 7;
    const MAX_LOAD_16THS: usize = 15;
    const GROWTH_DIVISOR: usize = 3;

    #[inline]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn may_hold(&self, _: &[u64; 2]) -> bool {
        // Looking is as dear as a line read in vain, and full groups are the lesser part.
        false
    }

    #[inline]
    fn find(&self, key: &[u64; 2]) -> Option<usize> {
        let mut equal = 0_u32;
        for (slot, high) in self.highs.iter().enumerate() {
            equal |= u32::from(*high == key[1]) << slot;
        }
        equal &= (1 << self.len()) - 1;
        while equal != 0 {
            let slot = equal.trailing_zeros() as usize;
            if self.lows[slot] == key[0] {
                return Some(slot);
            }
            equal &= equal - 1;
        }
        None
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
    fn may_have_spilled(&self, bit: u32) -> bool {
        self.spilled >> bit & 1 != 0
    }

    #[inline]
    fn mark_spilled(&mut self, bit: u32) {
        self.spilled |= 1 << bit;
    }

    #[inline]
    fn touch(&self) -> u64 {
        self.highs[0] ^ self.spilled
    }
}

/// The impressions of one span of time.
#[derive(Debug)]
struct Slice {
    /// Which span, counted from the epoch in widths; `None` when the slot is free.
    number: Option<u32>,
    table: Table,
    len: usize,
}

/// Slices of one width, each in the slot of its number.
#[derive(Debug)]
struct Slices {
    /// Whole seconds, as issue times are: dividing 32 bits is much cheaper than 64.
    width_s: u32,
    /// How long after its end a slice is kept.
    keep_ms: u64,
    ring: Vec<Slice>,
}

impl Slices {
    fn new(width_s: u32, keep_ms: u64, ahead_ms: u64, segment_bits: u32) -> Self {
        let spans = keep_ms.saturating_add(ahead_ms) / (u64::from(width_s) * 1000) + 3;
        let slice = |_| Slice { number: None, table: Table::new(segment_bits), len: 0 };
        Self { width_s, keep_ms, ring: (0..spans.next_power_of_two()).map(slice).collect() }
    }

    #[inline]
    const fn number_of(&self, at_s: u32) -> u32 {
        at_s / self.width_s
    }

    const fn expires_at(&self, number: u32) -> UnixMs {
        let end_ms = (number as u64 + 1) * self.width_s as u64 * 1000;
        UnixMs(end_ms.saturating_add(self.keep_ms))
    }

    #[inline]
    fn slot(&self, number: u32) -> usize {
        number as usize & (self.ring.len() - 1)
    }

    /// The live slice of this number.
    #[inline]
    fn live(&self, number: u32) -> Option<&Slice> {
        Some(&self.ring[self.slot(number)]).filter(|slice| slice.number == Some(number))
    }

    /// The slice of this number, born if its slot is free.
    fn open(&mut self, number: u32) -> Option<&mut Slice> {
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
    /// Of an issued id: when it was issued, in seconds, and the number of its slice.
    issued: Option<(u32, u32)>,
}

/// Where an impression stands, as long as [`Impressions::moves`] stays the same.
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
    /// How often places changed: by growth or expiry.
    moves: u64,
    limits: Limits,
}

impl Impressions {
    pub(super) fn new(limits: Limits, key: &SipKey) -> Self {
        let segments = (limits.capacity / SEGMENT_IMPRESSIONS).max(1);
        let segment_bits = segments.ilog2();
        let width_s = |slices: u64| {
            let width_s = (limits.lifetime_ms / 1000 / slices).max(MIN_SLICE_S);
            u32::try_from(width_s).unwrap_or(u32::MAX)
        };
        let issued_width = width_s(ISSUED_SLICES_PER_LIFETIME);
        let foreign_width = width_s(FOREIGN_SLICES_PER_LIFETIME);
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
            moves: 0,
            limits,
        }
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// Changes whenever a [`Found`] is no longer where it was.
    pub(super) const fn moves(&self) -> u64 {
        self.moves
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
        self.moves += 1;
    }

    /// The name of the impression a click is on.
    #[inline]
    pub(super) fn name(&self, click: &Click) -> Name {
        let id: ImpressionId = click.impression;
        let issued = (!click.is_foreign()).then(|| {
            let issued_at_s = id.issued_at_s();
            (issued_at_s, self.issued.number_of(issued_at_s))
        });
        Name { words: id.words(), hash: self.hasher.of_id(id.words()), issued }
    }

    /// Where a look-up of an issued id will go.
    #[inline]
    pub(super) fn way(&self, name: &Name) -> Way {
        let slice = name.issued.and_then(|(_, number)| self.issued.live(number));
        slice.map_or(Way::NOWHERE, |slice| slice.table.way(name.hash))
    }

    /// Brings in the cache lines of the first group of a way.
    #[inline]
    pub(super) fn touch(&self, way: Way) -> u64 {
        self.pool.touch(way.first)
    }

    /// Brings in the second, should a look-up have to go on.
    #[inline]
    pub(super) fn touch_second(&self, way: Way, name: &Name) -> u64 {
        self.pool.touch_second(way, &name.words)
    }

    /// Brings in the cache lines a look-up of a foreign id will need, in every live slice.
    #[inline]
    pub(super) fn touch_foreign(&self, name: &Name) -> u64 {
        if name.issued.is_some() {
            return 0;
        }
        let ways = self.foreign_slices().map(|slice| slice.table.way(name.hash));
        ways.fold(0, |sum, way| sum ^ self.pool.touch(way.first))
    }

    /// The live slices of foreign ids, newest first.
    #[inline]
    fn foreign_slices(&self) -> impl Iterator<Item = &Slice> {
        let newest = self.foreign.number_of(self.now.seconds());
        let oldest = newest.saturating_sub(self.foreign.ring.len() as u32 - 1);
        (oldest..=newest).rev().filter_map(|number| self.foreign.live(number))
    }

    #[inline]
    pub(super) fn find(&self, name: &Name) -> Option<Found> {
        let look = |slice: &Slice| slice.table.find(&self.pool, name.hash, &name.words);
        match name.issued {
            Some((_, number)) => self.issued.live(number).and_then(look),
            None => self.foreign_slices().find_map(look),
        }
        .map(Found)
    }

    /// Entries of the home of an issued id that was not found there; `None` where a look-up goes
    /// further than its home. As long as [`Impressions::moves`] and this number stay the same, the
    /// impression is still not here.
    #[inline]
    pub(super) fn absent_at(&self, way: Way) -> Option<usize> {
        self.pool.len_with_room(way.first)
    }

    #[inline]
    pub(super) fn state(&self, at: Found) -> State {
        self.pool.group(at.0.group).states[at.0.slot as usize]
    }

    #[inline]
    pub(super) fn set_state(&mut self, at: Found, state: State) {
        self.pool.group_mut(at.0.group).states[at.0.slot as usize] = state;
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
        let slices = if name.issued.is_some() { &mut self.issued } else { &mut self.foreign };
        let expires_at = slices.expires_at(number);
        let slice = slices.open(number).ok_or(Reason::TableFull)?;
        self.next_expiry = self.next_expiry.min(expires_at);
        let room = slice.table.make_room(&mut self.pool, name.hash, |(words, _)| hasher.of_id(*words));
        match room {
            Ok(grown) => self.moves += u64::from(grown),
            Err(OutOfPages) => return Err(Reason::TableFull),
        }
        Ok(())
    }

    /// Inserts an impression that is not here; at its home, if that is known to have room still.
    /// Only after [`Impressions::make_room`] for it.
    #[inline]
    pub(super) fn insert(&mut self, name: &Name, home: Option<usize>, state: State) -> Option<Found> {
        let number = self.number_for(name).ok()?;
        let slices = if name.issued.is_some() { &mut self.issued } else { &mut self.foreign };
        let slice = slices.open(number)?;
        let (pool, entry) = (&mut self.pool, (name.words, state));
        let place = match home {
            Some(home) => slice.table.insert_at(pool, name.hash, home, entry),
            None => slice.table.insert(pool, name.hash, entry)?,
        };
        slice.len += 1;
        self.live += 1;
        Some(Found(place))
    }

    #[inline]
    fn number_for(&self, name: &Name) -> Result<u32, Reason> {
        let Some((issued_at_s, number)) = name.issued else {
            return Ok(self.foreign.number_of(self.now.seconds()));
        };
        if self.issued.expires_at(number) < self.now {
            return Err(Reason::Expired);
        }
        let ahead_ms = self.limits.max_ahead_ms.saturating_add(EXPIRY_SLACK_MS);
        if u64::from(issued_at_s) * 1000 > self.now.0.saturating_add(ahead_ms) {
            return Err(Reason::NotYetIssued);
        }
        Ok(number)
    }
}
