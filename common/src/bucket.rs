//! A bucket: the totals of one minute and one set of dimensions, cumulative and revised.
//!
//! A bucket is set, never added: whoever keeps the highest revision of each key holds the truth,
//! whatever was sent twice. Every row lands in exactly one bucket, so the buckets of a node are
//! a recount of its rows.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::reason::{FILTERED_SLOTS, FIRST_FILTERED, Outcome};
use crate::row::{Row, row_flags};
use crate::wire::Click;

/// What a bucket counts. A dimension that the config does not name is zero in every key.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct BucketKey {
    /// The ad.
    pub ad: U64,
    /// The minute ([`crate::time::Minute`]).
    pub minute: U32,
    /// The publisher.
    pub publisher: U32,
    /// The placement.
    pub placement: U32,
    /// The creative.
    pub creative: U32,
    /// ISO 3166-1 alpha-2 in capitals, or two zero bytes.
    pub country: [u8; 2],
    /// Device class.
    pub device: u8,
    /// Operating system.
    pub os: u8,
    /// The version of the traffic rules that judged these clicks.
    pub rules: U32,
}

/// Octets of a key, in either order.
pub const BUCKET_KEY_LEN: usize = size_of::<BucketKey>();
const _: () = assert!(BUCKET_KEY_LEN == 32);

impl BucketKey {
    /// The key as octets that sort as it does, ad after ad and minute after minute: for stores that
    /// keep their keys in order.
    #[must_use]
    pub fn ordered(&self) -> [u8; BUCKET_KEY_LEN] {
        let mut bytes = [0; BUCKET_KEY_LEN];
        bytes[..8].copy_from_slice(&self.ad.get().to_be_bytes());
        let numbers = [self.minute, self.publisher, self.placement, self.creative];
        for (place, number) in bytes[8..24].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.get().to_be_bytes());
        }
        bytes[24..26].copy_from_slice(&self.country);
        bytes[26] = self.device;
        bytes[27] = self.os;
        bytes[28..].copy_from_slice(&self.rules.get().to_be_bytes());
        bytes
    }

    /// The key that stands in [`Self::ordered`] octets.
    #[must_use]
    pub fn from_ordered(bytes: &[u8; BUCKET_KEY_LEN]) -> Self {
        let number = |at: usize| {
            let octets = bytes[at..at + 4].iter();
            U32::new(octets.fold(0, |number, &octet| number << 8 | u32::from(octet)))
        };
        let ad = bytes[..8].iter().fold(0, |number, &octet| number << 8 | u64::from(octet));
        Self {
            ad: U64::new(ad),
            minute: number(8),
            publisher: number(12),
            placement: number(16),
            creative: number(20),
            country: [bytes[24], bytes[25]],
            device: bytes[26],
            os: bytes[27],
            rules: number(28),
        }
    }
}

/// Which dimensions, beside minute and ad, split a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Split by country.
    pub country: bool,
    /// Split by device class.
    pub device: bool,
    /// Split by operating system.
    pub os: bool,
    /// Split by publisher.
    pub publisher: bool,
    /// Split by placement.
    pub placement: bool,
    /// Split by creative.
    pub creative: bool,
}

impl Dimensions {
    /// The default sets: country and device.
    pub const DEFAULT: Self =
        Self { country: true, device: true, os: false, publisher: false, placement: false, creative: false };

    /// The key of the bucket that a click of `minute` belongs to.
    #[inline]
    #[must_use]
    pub fn key(&self, minute: u32, click: &Click, rules: u32) -> BucketKey {
        let zero = U32::ZERO;
        BucketKey {
            ad: click.ad,
            minute: U32::new(minute),
            publisher: if self.publisher { click.publisher } else { zero },
            placement: if self.placement { click.placement } else { zero },
            creative: if self.creative { click.creative } else { zero },
            country: if self.country { click.country } else { [0, 0] },
            device: if self.device { click.device } else { 0 },
            os: if self.os { click.os } else { 0 },
            rules: U32::new(rules),
        }
    }
}

/// What one click adds to its bucket.
#[derive(Clone, Copy, Debug)]
pub struct Addend {
    /// What was decided of it. Duplicates, refused and malformed clicks add nothing.
    pub outcome: Outcome,
    /// The number of the reason it was filtered for; of no other outcome is it looked at.
    pub reason: u8,
    /// [`row_flags`].
    pub row_flags: u8,
    /// Its price, in micros.
    pub price_micros: u64,
    /// Whether nobody vouches for the click and its price.
    pub is_unsigned: bool,
}

impl Addend {
    /// What a row adds, also one whose reason is newer than this reader; `None` where it has no outcome.
    #[inline]
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let outcome = Outcome::from_number(row.outcome)?;
        Some(Self::of_click(&row.click, outcome, row.reason, row.flags))
    }

    /// What a click adds of which this was decided.
    #[inline(always)]
    #[must_use]
    pub const fn of_click(click: &Click, outcome: Outcome, reason: u8, row_flags: u8) -> Self {
        let (price_micros, is_unsigned) = (click.price_micros.get(), click.is_foreign());
        Self { outcome, reason, row_flags, price_micros, is_unsigned }
    }
}

/// The totals of a bucket. Gross is accepted + repeat + all filtered; billable is accepted less
/// unsigned, and of that what no model marked is the total net.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct BucketTotals {
    /// First countable clicks.
    pub accepted: U64,
    /// Further clicks on counted impressions.
    pub repeat: U64,
    /// Clicks past the allowed lateness, under the minute they were *received* in; not in gross.
    pub late: U64,
    /// Clicks whose own clock was implausible, counted by receive time. Also in their outcome.
    pub clock_suspect: U64,
    /// Sum of the prices of billable clicks, in micros: those that are accepted and signed.
    pub cost_micros: U64,
    /// Clicks filtered, by reason number less [`FIRST_FILTERED`].
    pub filtered: [U64; FILTERED_SLOTS],
    /// Accepted clicks that nobody signed: not billable, for nobody vouches for them or their price.
    pub unsigned: U64,
    /// Billable clicks that a model's score marked.
    pub marked: U64,
    /// Sum of their prices, in micros; also in `cost_micros`.
    pub marked_cost_micros: U64,
}

/// How many numbers the totals of a bucket are.
const TOTALS: usize = 16;
const _: () = assert!(size_of::<BucketTotals>() == TOTALS * 8);

impl BucketTotals {
    /// Accepted, repeat and filtered clicks. Modulo 2^64 as [`Self::merge`] is: totals may come
    /// from bytes, and no bytes may bring a reader down.
    #[must_use]
    pub fn gross(&self) -> u64 {
        let counted = self.accepted.get().wrapping_add(self.repeat.get());
        self.filtered.iter().fold(counted, |sum, count| sum.wrapping_add(count.get()))
    }

    /// Accepted clicks that somebody signed. Modulo 2^64, as [`Self::gross`].
    #[must_use]
    pub const fn billable(&self) -> u64 {
        self.accepted.get().wrapping_sub(self.unsigned.get())
    }

    /// Adds one row; what no row can be changes nothing.
    pub fn count(&mut self, row: &Row) {
        if let Some(addend) = Addend::of(row) {
            self.add(&addend);
        }
    }

    /// Adds one click.
    pub fn add(&mut self, addend: &Addend) {
        let add = |field: &mut U64, by: u64| *field = U64::new(field.get().wrapping_add(by));
        let has_flag = |flag: u8| addend.row_flags & flag != 0;
        match addend.outcome {
            Outcome::Accepted if addend.is_unsigned => {
                add(&mut self.accepted, 1);
                add(&mut self.unsigned, 1);
            }
            Outcome::Accepted => {
                add(&mut self.accepted, 1);
                add(&mut self.cost_micros, addend.price_micros);
                if has_flag(row_flags::MARKED) {
                    add(&mut self.marked, 1);
                    add(&mut self.marked_cost_micros, addend.price_micros);
                }
            }
            Outcome::Repeat => add(&mut self.repeat, 1),
            Outcome::Late => add(&mut self.late, 1),
            Outcome::Filtered => {
                let slot = addend.reason.wrapping_sub(FIRST_FILTERED) as usize;
                if let Some(count) = self.filtered.get_mut(slot) {
                    add(count, 1);
                }
            }
            Outcome::Duplicate | Outcome::Refused | Outcome::Malformed => return,
        }
        if has_flag(row_flags::CLOCK_SUSPECT) {
            add(&mut self.clock_suspect, 1);
        }
    }

    /// What is to be merged into `before` to make it this: each number modulo 2^64, so that it takes
    /// away as well as it adds.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut difference: [U64; TOTALS] = zerocopy::transmute!(*self);
        let before: [U64; TOTALS] = zerocopy::transmute!(*before);
        for (mine, theirs) in difference.iter_mut().zip(before) {
            *mine = U64::new(mine.get().wrapping_sub(theirs.get()));
        }
        zerocopy::transmute!(difference)
    }

    /// Adds another share of the same bucket.
    pub fn merge(&mut self, other: &Self) {
        let add = |field: &mut U64, by: U64| *field = U64::new(field.get().wrapping_add(by.get()));
        add(&mut self.accepted, other.accepted);
        add(&mut self.repeat, other.repeat);
        add(&mut self.late, other.late);
        add(&mut self.clock_suspect, other.clock_suspect);
        add(&mut self.cost_micros, other.cost_micros);
        for (mine, theirs) in self.filtered.iter_mut().zip(other.filtered) {
            add(mine, theirs);
        }
        add(&mut self.unsigned, other.unsigned);
        add(&mut self.marked, other.marked);
        add(&mut self.marked_cost_micros, other.marked_cost_micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_merged_into_what_was_before_makes_what_is() {
        let totals = |words: [u64; TOTALS]| -> BucketTotals { zerocopy::transmute!(words.map(U64::new)) };
        let before = totals(core::array::from_fn(|n| n as u64 * 7));
        let now = totals(core::array::from_fn(|n| n as u64 * 5 + 3));
        let mut merged = before;
        merged.merge(&now.since(&before));
        assert_eq!(merged, now);
    }

    #[test]
    fn ordered_octets_sort_as_keys_do_and_come_back() {
        let key = BucketKey {
            ad: U64::new(0x0102_0304_0506_0708),
            minute: U32::new(0x1112_1314),
            publisher: U32::new(1),
            placement: U32::new(2),
            creative: U32::new(3),
            country: *b"PL",
            device: 4,
            os: 5,
            rules: U32::new(6),
        };
        assert_eq!(BucketKey::from_ordered(&key.ordered()), key);
        let later = BucketKey { minute: U32::new(key.minute.get() + 256), ..key };
        let other = BucketKey { ad: U64::new(key.ad.get() + 1), minute: U32::new(0), ..key };
        assert!(key.ordered() < later.ordered() && later.ordered() < other.ordered());
    }
}
