//! A bucket as it stands in memory: one cache line.

use weir_common::block::PLAIN_RULES;
use weir_common::bucket::{Addend, BucketKey, BucketTotals, Dimensions};
use weir_common::reason::Outcome;
use weir_common::row::row_flags;
use weir_common::time::Minute;
use weir_common::wire::{CLICK_LEN, Click};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::pages::Group;

/// A [`BucketKey`] as four words, which compare and hash at once.
pub(super) type KeyWords = [u64; 4];

/// One bucket: its key and the totals that most buckets ever have.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct Line {
    pub(super) key: KeyWords,
    pub(super) cost_micros: u64,
    pub(super) accepted: u32,
    pub(super) repeat: u32,
    /// Accepted clicks that nobody signed.
    pub(super) unsigned: u32,
    pub(super) clock_suspect: u32,
    /// Number of this bucket's carried totals within its minute plus one; 0 for none.
    pub(super) carried: u32,
    /// 1 for a line that is a bucket.
    pub(super) used: u8,
    /// 1 for a bucket that changed since it was last taken.
    pub(super) changed: u8,
    /// A bit for each kind of bucket that went on to the next line.
    pub(super) spilled: u16,
}

const _: () = assert!(size_of::<Line>() == 64);

impl Group for Line {
    type Entry = LineEntry;

    const SLOTS: usize = 1;
    const MAX_LOAD_16THS: usize = 10;
    const GROWTH_DIVISOR: usize = 3;

    #[inline]
    fn len(&self) -> usize {
        self.used as usize
    }

    #[inline]
    fn entry(&self, _: usize) -> LineEntry {
        LineEntry {
            key: self.key,
            cost_micros: self.cost_micros,
            counts: [self.accepted, self.repeat, self.unsigned, self.clock_suspect],
            carried: self.carried,
            changed: self.changed,
        }
    }

    #[inline]
    fn push(&mut self, entry: LineEntry) -> usize {
        let [accepted, repeat, unsigned, clock_suspect] = entry.counts;
        *self = Self {
            key: entry.key,
            cost_micros: entry.cost_micros,
            accepted,
            repeat,
            unsigned,
            clock_suspect,
            carried: entry.carried,
            used: 1,
            spilled: self.spilled,
            changed: entry.changed,
        };
        0
    }

    #[inline]
    fn may_have_spilled(&self, bit: u32) -> bool {
        self.spilled >> (bit & 15) & 1 != 0
    }

    #[inline]
    fn mark_spilled(&mut self, bit: u32) {
        self.spilled |= 1 << (bit & 15);
    }

    #[inline]
    fn touch(&self) -> u64 {
        self.cost_micros
    }
}

/// A bucket on its way from an old page to a new one.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineEntry {
    pub(super) key: KeyWords,
    cost_micros: u64,
    counts: [u32; 4],
    carried: u32,
    changed: u8,
}

impl LineEntry {
    pub(super) const fn new(key: KeyWords) -> Self {
        Self { key, cost_micros: 0, counts: [0; 4], carried: 0, changed: 0 }
    }
}

impl Line {
    /// Whether this is the bucket of this key.
    #[inline]
    pub(super) const fn is(&self, key: &KeyWords) -> bool {
        // All words at once: no branch, for none could be predicted.
        let [a, b, c, d] = self.key;
        let differs = (a ^ key[0]) | (b ^ key[1]) | (c ^ key[2]) | (d ^ key[3]);
        differs == 0 && self.used != 0
    }

    /// Whether a small counter is half full: then all have to be carried before more is counted.
    #[inline(always)]
    pub(super) const fn is_full(&self) -> bool {
        // There are never more unsigned ones than accepted ones.
        (self.accepted | self.repeat | self.clock_suspect) > u32::MAX / 2
    }

    /// Counts a click of which [a line knows all](super::buckets::is_common), in one that is not
    /// [full](Self::is_full).
    #[inline(always)]
    pub(super) fn count(&mut self, addend: &Addend) {
        if matches!(addend.outcome, Outcome::Accepted) {
            self.accepted += 1;
            self.unsigned += u32::from(addend.is_unsigned);
            let billable = u64::from(!addend.is_unsigned);
            self.cost_micros = self.cost_micros.wrapping_add(addend.price_micros * billable);
        } else {
            self.repeat += 1;
        }
        self.clock_suspect += u32::from(addend.row_flags & row_flags::CLOCK_SUSPECT != 0);
        self.changed = 1;
    }

    /// What the line itself counts; what it carried on stands elsewhere.
    pub(super) fn small_totals(&self) -> BucketTotals {
        BucketTotals {
            accepted: U64::new(u64::from(self.accepted)),
            repeat: U64::new(u64::from(self.repeat)),
            clock_suspect: U64::new(u64::from(self.clock_suspect)),
            cost_micros: U64::new(self.cost_micros),
            unsigned: U64::new(u64::from(self.unsigned)),
            ..BucketTotals::default()
        }
    }
}

/// What makes the key of a click: its dimensions as a mask over all there are, so that no click
/// costs a branch for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    mask: KeyWords,
    rules: u32,
}

impl Keys {
    /// Until it is told otherwise, of the plain rules.
    pub(super) fn new(dimensions: &Dimensions) -> Self {
        let ones: Click = transmute!([u8::MAX; CLICK_LEN]);
        Self { mask: words(&dimensions.key(u32::MAX, &ones, u32::MAX)), rules: PLAIN_RULES }
    }

    pub(super) const fn judge_by(&mut self, rules: u32) {
        self.rules = rules;
    }

    /// The key of the bucket that a click of `minute` belongs to, as [`Dimensions::key`] has it.
    #[inline(always)]
    pub(super) fn of(&self, minute: Minute, click: &Click) -> KeyWords {
        const ALL: Dimensions = Dimensions {
            country: true,
            device: true,
            os: true,
            publisher: true,
            placement: true,
            creative: true,
        };
        let [a, b, c, d] = words(&ALL.key(minute.0, click, self.rules));
        [a & self.mask[0], b & self.mask[1], c & self.mask[2], d & self.mask[3]]
    }
}

/// The minute of a key.
#[inline]
pub(super) const fn minute_of(words: &KeyWords) -> Minute {
    Minute(words[1] as u32)
}

/// A key as words.
#[inline]
pub(super) fn words(key: &BucketKey) -> KeyWords {
    let words: [U64; 4] = transmute!(*key);
    words.map(U64::get)
}

/// Words as the key they are.
#[inline]
pub(super) fn key_of(words: &KeyWords) -> BucketKey {
    transmute!(words.map(U64::new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_by_mask_is_the_key_of_its_dimensions(
            on: [bool; 6],
            bytes: [[u8; 24]; 4],
            minute: u32,
            rules_version: u32,
        ) {
            let [country, device, os, publisher, placement, creative] = on;
            let dimensions = Dimensions { country, device, os, publisher, placement, creative };
            let click = Click::read_from_bytes(bytes.as_flattened()).unwrap();
            let mut keys = Keys::new(&dimensions);
            keys.judge_by(rules_version);
            let key = keys.of(Minute(minute), &click);
            prop_assert_eq!(key_of(&key), dimensions.key(minute, &click, rules_version));
            prop_assert_eq!(minute_of(&key), Minute(minute));
        }
    }
}
