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
use super::ids::{IDS_PER_PAGE, IdLine, Ids};
use super::index::IndexLine;
use super::pages::{Group, NOWHERE, Place, Table};
use super::pool::{PAGE_GROUPS, Pool};
use super::slice::{Memory, Slice};
use super::verdict::State;

/// Bytes of index for each impression that the capacity promises: 5.3 bytes a slot at a load that
/// swings between 0.66 and 0.88, so 6.1 to 8.1 bytes, of which segments at all stages make 7. With the
/// 16 bytes of the id itself it is 23.
const INDEX_BYTES_PER_IMPRESSION: usize = 8;
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
        let slice = |_| Slice {
            number: None,
            index: Table::new(segment_bits),
            ids: Ids::new(1 << segment_bits),
            len: 0,
        };
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
    fn expire(&mut self, now: UnixMs, memory: &mut Memory) -> (UnixMs, usize) {
        let (mut next, mut gone) = (UnixMs(u64::MAX), 0);
        for slot in 0..self.ring.len() {
            let Some(number) = self.ring[slot].number else { continue };
            let expires_at = self.expires_at(number);
            if expires_at < now {
                let slice = &mut self.ring[slot];
                gone += slice.len;
                slice.clear(memory);
            } else {
                next = next.min(expires_at);
            }
        }
        (next, gone)
    }
}

const PAGE_BYTES: usize = PAGE_GROUPS * size_of::<IndexLine>();
const _: () = assert!(size_of::<IndexLine>() == size_of::<IdLine>(), "one size of page");

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
    pub(super) words: [u64; 2],
    pub(super) hash: u64,
    /// Of an issued id: when it was issued, in seconds, and the number of its slice.
    issued: Option<(u32, u32)>,
}

/// Where an impression stands, as long as [`Impressions::moves`] stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found(Place);

/// Where an impression was looked for in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absent {
    pub(super) home: u32,
    /// What the home and its neighbour held and sent on. Had the impression come since, one of the
    /// two would hold more, or the neighbour would have begun to send entries of its kind on.
    pub(super) seen: [u32; 2],
}

/// What the home of an impression says of it at first sight.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    /// It is not here.
    Absent(Absent),
    /// It is at `place`, if it is the id that stands there.
    Seems {
        /// Where its mark stands.
        place: Place,
        /// Where the id of that mark stands.
        id_line: u32,
        /// The id's number within its line.
        within: u8,
    },
    /// It has to be searched for.
    Unknown,
}

/// Whether an impression is here, as far as a look-ahead can know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// It is.
    Found(Found),
    /// It is not, as long as this holds.
    Absent(Absent),
    /// It was not, but may have come.
    NotFound,
}

/// All impressions a worker remembers.
pub(super) struct Impressions {
    hasher: Hasher,
    memory: Memory,
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
        // A page for each segment of each slice, since most are partly filled, and room for one
        // segment to stand twice while it grows.
        let partly_filled = (issued.ring.len() + foreign.ring.len()) << segment_bits;
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
        (self.memory.index.in_use() + self.memory.ids.in_use()) * PAGE_BYTES
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
        let (next_issued, gone_issued) = self.issued.expire(self.now, &mut self.memory);
        let (next_foreign, gone_foreign) = self.foreign.expire(self.now, &mut self.memory);
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

    #[inline]
    fn issued_slice(&self, name: &Name) -> Option<&Slice> {
        name.issued.and_then(|(_, number)| self.issued.live(number))
    }

    /// Where a look-up of an issued id will go first.
    #[inline]
    pub(super) fn home(&self, name: &Name) -> usize {
        self.issued_slice(name).map_or(NOWHERE, |slice| slice.index.home(name.hash))
    }

    /// Brings in the line of a home and its neighbour.
    #[inline]
    pub(super) fn touch(&self, home: usize) -> u64 {
        let lines = self.memory.index.groups();
        let touch = |at: usize| lines.get(at).map_or(0, Group::touch);
        touch(home) ^ touch(home ^ 1)
    }

    /// What the home of an impression says of it, and a word of what will be read next.
    #[inline]
    pub(super) fn sight(&self, home: usize, name: &Name) -> (Sight, u64) {
        match self.issued_slice(name) {
            Some(slice) => slice.sight(&self.memory, name, home),
            None => (Sight::Unknown, self.touch_foreign(name)),
        }
    }

    /// Makes of a first sight what is certain.
    #[inline]
    pub(super) fn look(&self, sight: Sight, name: &Name) -> Look {
        match sight {
            Sight::Absent(absent) => Look::Absent(absent),
            Sight::Seems { place, id_line, within } => {
                let line = self.memory.ids.group(id_line);
                if line.get(within) == name.words { Look::Found(Found(place)) } else { self.search(name) }
            }
            Sight::Unknown => self.search(name),
        }
    }

    #[inline(never)]
    fn search(&self, name: &Name) -> Look {
        self.find(name).map_or(Look::NotFound, Look::Found)
    }

    /// Whether an impression that was absent still is, when none [moved](Self::moves) since.
    #[inline]
    pub(super) fn is_still_absent(&self, absent: Absent) -> bool {
        let Absent { home, seen } = absent;
        let index = &self.memory.index;
        [index.group(home).version(), index.group(home ^ 1).version()] == seen
    }

    /// The home of an absent impression, if it has room.
    #[inline]
    pub(super) fn home_with_room(&self, absent: Absent) -> Option<usize> {
        (self.memory.index.group(absent.home).len() < IndexLine::SLOTS).then_some(absent.home as usize)
    }

    /// Brings in the lines a look-up of a foreign id will need, in every live slice.
    #[inline]
    fn touch_foreign(&self, name: &Name) -> u64 {
        if name.issued.is_some() {
            return 0;
        }
        let homes = self.foreign_slices().map(|slice| slice.index.home(name.hash));
        homes.fold(0, |sum, home| sum ^ self.touch(home))
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
        let look = |slice: &Slice| slice.find(&self.memory, name);
        match name.issued {
            Some(_) => self.issued_slice(name).and_then(look),
            None => self.foreign_slices().find_map(look),
        }
        .map(Found)
    }

    #[inline]
    pub(super) fn state(&self, at: Found) -> State {
        self.memory.index.group(at.0.group).state(at.0.slot as usize)
    }

    #[inline]
    pub(super) fn set_state(&mut self, at: Found, state: State) {
        self.memory.index.group_mut(at.0.group).set_state(at.0.slot as usize, state);
    }

    /// Makes sure that this impression, which is not here, can be inserted.
    ///
    /// # Errors
    /// `expired` or `not_yet_issued` for an issue time that no live slice covers: admission keeps
    /// such clicks away. `table_full` when there is no memory left.
    #[inline]
    pub(super) fn make_room(&mut self, name: &Name) -> Result<(), Reason> {
        let number = self.number_for(name)?;
        let slices = if name.issued.is_some() { &mut self.issued } else { &mut self.foreign };
        let expires_at = slices.expires_at(number);
        let before = slices.slot(number.wrapping_sub(1));
        let slice = slices.open(number).ok_or(Reason::TableFull)?;
        self.next_expiry = self.next_expiry.min(expires_at);
        if !slice.has_room(name.hash) {
            let pages_before = slices.ring[before].index_pages(name.hash);
            let slice = slices.open(number).ok_or(Reason::TableFull)?;
            let grown = slice.grow(&mut self.memory, &self.hasher, name.hash, pages_before);
            let Ok(grown) = grown else { return Err(Reason::TableFull) };
            self.moves += u64::from(grown);
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
        let place = slice.insert(&mut self.memory, name, home, state)?;
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
