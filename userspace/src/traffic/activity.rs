//! Who clicks more often than a person does: over 100 clicks in a minute or 10 in a second, by
//! user or by address.
//!
//! Exact and rolling: a click is marked when as many clicks of the same key as the limit allows lie
//! within the minute, or the second, that ends with it. The window is half open: a click exactly a
//! minute old has left it. All clicks count, marked ones too.
//!
//! In bounded memory: a key has a place for the times of its last 100 clicks, 256 octets with its
//! name; places are in sets of eight, a key's set follows from its hash, and a new key in a full
//! set takes the place of the one whose last click is longest ago. So what a small table loses is
//! the past of keys that pause, and a key that lost its past is marked too late or not at all. The
//! innocent are not touched: a place belongs to one hash of 64 bits, and two keys with the same
//! one are counted together, which among a million keys happens once in 37 million tables.
//!
//! Time comes with each click. Nothing here allocates after [`Activity::new`].

use core::marker::PhantomData;

use memmap2::MmapMut;
use weir_common::siphash::SipKey;
use weir_common::time::{MS_PER_MINUTE, UnixMs};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::actors::ActorKey;

/// The most clicks of a key that are remembered; no limit can be higher.
pub const REMEMBERED: usize = 100;
/// Places of a set: a line of names, searched at once.
const WAYS: usize = 8;
const MS_PER_SECOND: u64 = 1000;

/// How many clicks are not too many: one more is. A limit above [`REMEMBERED`] is never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In any minute.
    pub per_minute: u8,
    /// In any second.
    pub per_second: u8,
}

impl Limits {
    /// More than is ever remembered: nothing is too much.
    pub const NONE: Self = Self { per_minute: u8::MAX, per_second: u8::MAX };
}

const _: () = assert!(REMEMBERED < u8::MAX as usize);

impl Default for Limits {
    /// 100 a minute, 10 a second.
    fn default() -> Self {
        Self { per_minute: 100, per_second: 10 }
    }
}

/// The last clicks of one key. All zero is that of no clicks.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Clicks {
    /// Where the next one goes. First, so that the line of who clicks seldom is the only one.
    next: u8,
    /// How many there are, none of them a minute or more before the last.
    len: u8,
    /// Times in ms, modulo 65,536; a click before the last is at most a minute older than it, so
    /// they can be told apart.
    at_ms: [u16; REMEMBERED],
}

// A minute before the last click is still another number.
const _: () = assert!(MS_PER_MINUTE < 1 << u16::BITS);

impl Clicks {
    /// When the `back`th click before the next was, 1 being the last; in ms before the last.
    #[inline]
    fn age_ms(&self, back: u8) -> u64 {
        let place = |back: u8| (usize::from(self.next) + REMEMBERED - usize::from(back)) % REMEMBERED;
        u64::from(self.at_ms[place(1)].wrapping_sub(self.at_ms[place(back)]))
    }

    /// Whether the `limit` clicks before a new one, `since_last_ms` after the last, are all within
    /// `window_ms` of it.
    #[inline]
    fn are_within(&self, limit: u8, window_ms: u64, since_last_ms: u64) -> bool {
        limit <= self.len && (limit == 0 || self.age_ms(limit).saturating_add(since_last_ms) < window_ms)
    }

    /// Adds a click and says whether it is one too many.
    #[inline]
    fn add(&mut self, limits: Limits, at_ms: u64, since_last_ms: u64) -> bool {
        // Ages are told by the last click, so what leaves the minute goes before the new one comes.
        while self.len > 0 && self.age_ms(self.len).saturating_add(since_last_ms) >= MS_PER_MINUTE {
            self.len -= 1;
        }
        let over =
            self.len >= limits.per_minute || self.are_within(limits.per_second, MS_PER_SECOND, since_last_ms);
        self.at_ms[usize::from(self.next)] = at_ms as u16;
        self.next = if usize::from(self.next) + 1 < REMEMBERED { self.next + 1 } else { 0 };
        self.len = if usize::from(self.len) < REMEMBERED { self.len + 1 } else { self.len };
        over
    }
}

/// Names and last times of a set's places; a last time of 0 is that of an empty place.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Set {
    hashes: [u64; WAYS],
    last_ms: [u64; WAYS],
}

/// Why bytes of a table are always items.
const WHOLE: &str = "the kernel aligns to pages, and the length is whole items";

/// Items in memory that is zero until it is used, on huge pages where the kernel has them: a click
/// touches places that nothing before it was near to, and small pages would cost it as many
/// address look-ups.
#[derive(Debug)]
struct Table<T> {
    bytes: MmapMut,
    len: usize,
    items: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Table<T> {
    /// # Panics
    /// When the kernel refuses the address space.
    fn new(len: usize) -> Self {
        let octets = len * size_of::<T>();
        let bytes = MmapMut::map_anon(octets).unwrap_or_else(|error| {
            panic!(
                "no address space for a table of {octets} octets ({error}): count the activity of fewer keys"
            )
        });
        #[cfg(target_os = "linux")]
        // A kernel without huge pages says so; small ones are slower, not wrong.
        let _ = bytes.advise(memmap2::Advice::HugePage);
        Self { bytes, len, items: PhantomData }
    }

    #[inline(always)]
    fn items_mut(&mut self) -> &mut [T] {
        <[T]>::mut_from_bytes(&mut self.bytes).expect(WHOLE)
    }
}

/// The clicks of the last minute, by user and by address.
///
/// Each owner judges by the clicks that it was shown, and by no others.
#[derive(Debug)]
pub struct Activity {
    key: SipKey,
    sets: Table<Set>,
    clicks: Table<Clicks>,
    now: UnixMs,
    evicted: u64,
}

impl Activity {
    /// Room for at least `keys` keys, hashed under a key that should be another at every start: who
    /// knows it can push others out.
    #[must_use]
    pub fn new(keys: usize, key: SipKey) -> Self {
        let sets = keys.div_ceil(WAYS).max(1).next_power_of_two();
        Self { key, sets: Table::new(sets), clicks: Table::new(sets * WAYS), now: UnixMs(0), evicted: 0 }
    }

    /// Counts a click of this actor at this time, and says whether it is one too many. Time does
    /// not run backwards here: an earlier one counts as the latest seen.
    #[inline]
    pub fn is_too_much(&mut self, actor: &ActorKey, at: UnixMs, limits: Limits) -> bool {
        self.count(self.name(actor), at, limits)
    }

    /// The name of an actor in this table.
    #[inline]
    pub(super) const fn name(&self, actor: &ActorKey) -> u64 {
        actor.hash(&self.key)
    }

    /// [`Self::is_too_much`] of a name.
    #[inline]
    pub(super) fn count(&mut self, hash: u64, at: UnixMs, limits: Limits) -> bool {
        self.now = self.now.max(at);
        // So that no click is at the time of an empty place.
        let now_ms = self.now.0.max(1);
        let sets = self.sets.items_mut();
        let number = hash as usize & (sets.len() - 1);
        let set = &mut sets[number];
        let known = set.hashes.iter().zip(&set.last_ms).position(|(&name, &last)| name == hash && last != 0);
        let way = known.unwrap_or_else(|| oldest(&set.last_ms));
        let clicks = &mut self.clicks.items_mut()[number * WAYS + way];
        if known.is_none() {
            self.evicted += u64::from(now_ms.saturating_sub(set.last_ms[way]) < MS_PER_MINUTE);
            clicks.len = 0;
            set.hashes[way] = hash;
            set.last_ms[way] = now_ms;
        }
        let since_last_ms = now_ms - set.last_ms[way];
        set.last_ms[way] = now_ms;
        clicks.add(limits, now_ms, since_last_ms)
    }

    /// Keys that lost clicks of the last minute to others since the start. When this grows quickly
    /// the table is too small for its traffic.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keys there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.clicks.len
    }

    /// Octets of memory it takes, now and ever.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.sets.bytes.len() + self.clicks.bytes.len()
    }
}

#[inline]
fn oldest(last_ms: &[u64; WAYS]) -> usize {
    let mut oldest = 0;
    for way in 1..WAYS {
        if last_ms[way] < last_ms[oldest] {
            oldest = way;
        }
    }
    oldest
}

#[cfg(test)]
mod tests;
