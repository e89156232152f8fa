//! A bucket as it stands in memory: one cache line.

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::reason::Outcome;
use weir_common::row::row_flags;
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::buckets::Addend;
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
    pub(super) late: u32,
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
            counts: [self.accepted, self.repeat, self.late, self.clock_suspect],
            carried: self.carried,
            changed: self.changed,
        }
    }

    #[inline]
    fn push(&mut self, entry: LineEntry) -> usize {
        let [accepted, repeat, late, clock_suspect] = entry.counts;
        *self = Self {
            key: entry.key,
            cost_micros: entry.cost_micros,
            accepted,
            repeat,
            late,
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

    /// Counts a click that is accepted, repeated or late; `false`, and nothing is counted, when a
    /// small counter is full.
    #[inline(always)]
    pub(super) fn count(&mut self, addend: &Addend) -> bool {
        let suspect = u32::from(addend.row_flags & row_flags::CLOCK_SUSPECT != 0);
        let (counter, price_micros) = match addend.outcome {
            Outcome::Accepted => (&mut self.accepted, addend.price_micros),
            Outcome::Repeat => (&mut self.repeat, 0),
            _ => (&mut self.late, 0),
        };
        let (Some(counted), Some(suspects)) =
            (counter.checked_add(1), self.clock_suspect.checked_add(suspect))
        else {
            return false;
        };
        *counter = counted;
        self.clock_suspect = suspects;
        self.cost_micros = self.cost_micros.wrapping_add(price_micros);
        self.changed = 1;
        true
    }

    /// What the line itself counts; what it carried on stands elsewhere.
    pub(super) fn small_totals(&self) -> BucketTotals {
        BucketTotals {
            accepted: U64::new(u64::from(self.accepted)),
            repeat: U64::new(u64::from(self.repeat)),
            late: U64::new(u64::from(self.late)),
            clock_suspect: U64::new(u64::from(self.clock_suspect)),
            cost_micros: U64::new(self.cost_micros),
            filtered: Default::default(),
        }
    }
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
