//! Where the impressions of one issuer, key and stretch of sequences stand: two stretches to a
//! cache line, the first few impressions of each right here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::leaf::{Rest, SparseEntry};
use super::pages::Group;

/// Impressions that stand in the directory itself.
pub(super) const INLINE_SLOTS: usize = 4;

/// One stretch of sequences of one issuer and key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StretchKey {
    /// The stretch, counted from the first sequence.
    pub(super) number: u64,
    /// Issuer and key.
    pub(super) issuer_and_key: u32,
}

impl StretchKey {
    /// The key as words to hash.
    #[inline]
    pub(super) const fn words(self) -> [u64; 2] {
        [self.issuer_and_key as u64, self.number]
    }
}

/// How the impressions of a stretch are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the directory.
    Inline,
    /// In `1 << level` sparse lines, each for an equal part of the stretch.
    Sparse {
        /// The first.
        first: u32,
        /// Logarithm of their number.
        level: u8,
    },
    /// In 64 dense lines.
    Dense {
        /// The first.
        first: u32,
    },
    /// In two runs of 64 wide lines.
    Wide {
        /// The first of each.
        firsts: [u32; 2],
    },
}

/// One stretch.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Stretch {
    number: u64,
    issuer_and_key: u32,
    /// [`NONE`], [`INLINE`], [`DENSE`], [`WIDE`] or [`SPARSE`] and the level.
    form: u8,
    /// Entries that stand here.
    inline_len: u8,
    /// Part of the line's marks of what went on.
    spilled: u16,
    /// Entries, or the numbers of first lines.
    entries: [SparseEntry; INLINE_SLOTS],
}

const NONE: u8 = 0;
const INLINE: u8 = 1;
const DENSE: u8 = 2;
const WIDE: u8 = 3;
const SPARSE: u8 = 8;

impl Stretch {
    /// A stretch without impressions.
    #[inline]
    pub(super) const fn new(key: StretchKey) -> Self {
        Self {
            number: key.number,
            issuer_and_key: key.issuer_and_key,
            form: INLINE,
            inline_len: 0,
            spilled: 0,
            entries: [SparseEntry::new(Rest { slot: 0, second: 0 }, weir_common::verdict::State(0));
                INLINE_SLOTS],
        }
    }

    #[inline]
    pub(super) const fn key(&self) -> StretchKey {
        StretchKey { number: self.number, issuer_and_key: self.issuer_and_key }
    }

    #[inline(always)]
    pub(super) fn form(&self) -> Form {
        let [first, second, _, _]: [u32; INLINE_SLOTS] = zerocopy::transmute!(self.entries);
        match self.form {
            NONE | INLINE => Form::Inline,
            DENSE => Form::Dense { first },
            WIDE => Form::Wide { firsts: [first, second] },
            level => Form::Sparse { first, level: level - SPARSE },
        }
    }

    /// Moves the stretch to lines of its own.
    pub(super) fn set_form(&mut self, form: Form) {
        let (number, [first, second]) = match form {
            Form::Inline => return,
            Form::Sparse { first, level } => (SPARSE + level, [first, 0]),
            Form::Dense { first } => (DENSE, [first, 0]),
            Form::Wide { firsts } => (WIDE, firsts),
        };
        (self.form, self.inline_len) = (number, 0);
        self.entries = zerocopy::transmute!([first, second, 0, 0]);
    }

    #[inline]
    pub(super) fn inline(&self) -> &[SparseEntry] {
        &self.entries[..usize::from(self.inline_len)]
    }

    #[inline]
    pub(super) const fn inline_mut(&mut self, slot: u8) -> &mut SparseEntry {
        &mut self.entries[slot as usize]
    }

    #[inline]
    pub(super) const fn inline_is_full(&self) -> bool {
        self.inline_len as usize == INLINE_SLOTS
    }

    /// Adds an entry to a stretch whose entries stand here and are not [full](Self::inline_is_full).
    #[inline]
    pub(super) const fn inline_push(&mut self, entry: SparseEntry) {
        self.entries[self.inline_len as usize] = entry;
        self.inline_len += 1;
    }
}

/// Two stretches in a cache line.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct DirectoryLine([Stretch; 2]);

const _: () = assert!(size_of::<DirectoryLine>() == 64);

impl DirectoryLine {
    /// The slot of a stretch.
    #[inline(always)]
    pub(super) fn slot_of(&self, key: StretchKey) -> Option<usize> {
        let is = |stretch: &Stretch| {
            let differs = (stretch.number ^ key.number)
                | u64::from(stretch.issuer_and_key ^ key.issuer_and_key)
                | u64::from(stretch.form == NONE);
            differs == 0
        };
        if is(&self.0[0]) {
            Some(0)
        } else if is(&self.0[1]) {
            Some(1)
        } else {
            None
        }
    }

    #[inline]
    pub(super) const fn stretch(&self, slot: u32) -> &Stretch {
        &self.0[slot as usize & 1]
    }

    #[inline]
    pub(super) const fn stretch_mut(&mut self, slot: u32) -> &mut Stretch {
        &mut self.0[slot as usize & 1]
    }
}

impl Group for DirectoryLine {
    type Entry = Stretch;

    const SLOTS: usize = 2;
    const MAX_LOAD_16THS: usize = 12;
    const GROWTH_DIVISOR: usize = 2;

    #[inline]
    fn len(&self) -> usize {
        self.0.iter().filter(|stretch| stretch.form != NONE).count()
    }

    #[inline]
    fn entry(&self, slot: usize) -> Stretch {
        Stretch { spilled: 0, ..self.0[slot] }
    }

    #[inline]
    fn push(&mut self, entry: Stretch) -> usize {
        let slot = self.len();
        let spilled = self.0[slot].spilled;
        self.0[slot] = Stretch { spilled, ..entry };
        slot
    }

    #[inline]
    fn may_have_spilled(&self, bit: u32) -> bool {
        self.0[bit as usize & 1].spilled >> (bit >> 1 & 15) & 1 != 0
    }

    #[inline]
    fn mark_spilled(&mut self, bit: u32) {
        self.0[bit as usize & 1].spilled |= 1 << (bit >> 1 & 15);
    }

    #[inline]
    fn touch(&self) -> u64 {
        self.0[0].number
    }
}
