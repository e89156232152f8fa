//! Who clicks more often than a person does: over 100 clicks in a minute or 10 in a second, by
//! user or by address, where the config sets no other [`Limits`].
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
//! Time comes with each click. Nothing here allocates after it is made, and nothing here is shared:
//! [`super::Crowd`] makes of such tables the one that all workers count in.

use weir_common::time::{MS_PER_MINUTE, UnixMs};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::zeroed::Zeroed;

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

    /// Adds a click; says whether it is one too many, and how many there were in the minute before.
    #[inline]
    fn add(&mut self, limits: Limits, at_ms: u64, since_last_ms: u64) -> (bool, u8) {
        // Ages are told by the last click, so what leaves the minute goes before the new one comes.
        while self.len > 0 && self.age_ms(self.len).saturating_add(since_last_ms) >= MS_PER_MINUTE {
            self.len -= 1;
        }
        let before = self.len;
        let over =
            self.len >= limits.per_minute || self.are_within(limits.per_second, MS_PER_SECOND, since_last_ms);
        self.at_ms[usize::from(self.next)] = at_ms as u16;
        self.next = if usize::from(self.next) + 1 < REMEMBERED { self.next + 1 } else { 0 };
        self.len = if usize::from(self.len) < REMEMBERED { self.len + 1 } else { self.len };
        (over, before)
    }
}

/// Names and last times of a set's places; a last time of 0 is that of an empty place.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Set {
    hashes: [u64; WAYS],
    last_ms: [u64; WAYS],
}

/// What one more click of a key comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether it is one too many.
    pub is_too_much: bool,
    /// Clicks of this key in the minute before it, as far as they are remembered.
    pub in_minute: u8,
    /// Whether another key lost clicks of its last minute to it. Where this is often so, the table is
    /// too small for its traffic.
    pub has_pushed_out: bool,
}

/// The clicks of the last minute, by key.
#[derive(Debug)]
pub(super) struct Activity {
    sets: Zeroed<Set>,
    clicks: Zeroed<Clicks>,
    now: UnixMs,
}

impl Activity {
    /// Room for at least `keys` keys.
    ///
    /// # Panics
    /// When the kernel refuses the address space.
    pub(super) fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).clamp(1, u32::MAX as usize);
        Self { sets: table(sets), clicks: table(sets * WAYS), now: UnixMs(0) }
    }

    /// Counts a click of the key with this hash at this time. Time does not run backwards here: an earlier
    /// one counts as the latest seen.
    #[inline]
    pub(super) fn count(&mut self, hash: u64, at: UnixMs, limits: Limits) -> Counted {
        self.now = self.now.max(at);
        // So that no click is at the time of an empty place.
        let now_ms = self.now.0.max(1);
        let sets = self.sets.items_mut();
        // The lower half as a fraction of the sets: the upper bits are the crowd's.
        let number = (((hash & u64::from(u32::MAX)) * sets.len() as u64) >> u32::BITS) as usize;
        let set = &mut sets[number];
        let known = set.hashes.iter().zip(&set.last_ms).position(|(&name, &last)| name == hash && last != 0);
        let way = known.unwrap_or_else(|| oldest(&set.last_ms));
        let clicks = &mut self.clicks.items_mut()[number * WAYS + way];
        let has_pushed_out = known.is_none() && now_ms.saturating_sub(set.last_ms[way]) < MS_PER_MINUTE;
        if known.is_none() {
            clicks.len = 0;
            set.hashes[way] = hash;
            set.last_ms[way] = now_ms;
        }
        let since_last_ms = now_ms - set.last_ms[way];
        set.last_ms[way] = now_ms;
        let (is_too_much, in_minute) = clicks.add(limits, now_ms, since_last_ms);
        Counted { is_too_much, in_minute, has_pushed_out }
    }

    /// Octets of address space, and the most memory it takes.
    #[cfg(test)]
    pub(super) fn len_octets(&self) -> usize {
        self.sets.len_octets() + self.clicks.len_octets()
    }
}

fn table<T: FromBytes + IntoBytes + Immutable + KnownLayout>(len: usize) -> Zeroed<T> {
    Zeroed::new(len).unwrap_or_else(|error| {
        panic!("no address space to count activity ({error}): lower traffic.activity_keys")
    })
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
