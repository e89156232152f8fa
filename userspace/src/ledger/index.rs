//! What finds an impression: a line of twelve marks, states and positions.
//!
//! A mark is a byte of the hash. An id none of whose line's marks match is new, and nothing more
//! was read than that line; where one matches, the id itself decides, so the answer is exact.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::pages::Group;
use weir_common::verdict::State;

/// Impressions of a line.
const SLOTS: usize = 12;

/// Where an id stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) page: u16,
    pub(super) offset: u8,
}

/// Twelve impressions in a cache line.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct IndexLine {
    /// 0 where there is none.
    marks: [u8; SLOTS],
    states: [State; SLOTS],
    pages: [u16; SLOTS],
    offsets: [u8; SLOTS],
    /// Slots in use, and from bit 4 on a bit for each kind of entry that went on.
    used_and_spilled: u32,
}

const _: () = assert!(size_of::<IndexLine>() == 64);
const _: () = assert!(SLOTS < 1 << LEN_BITS);
const LEN_BITS: u32 = 4;
/// Kinds of entries that can be told to have gone on: a multiply and a shift bring 64 down to 28.
const SPILL_BITS: u32 = u32::BITS - LEN_BITS;

/// One impression of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexEntry {
    pub(super) mark: u8,
    pub(super) state: State,
    pub(super) at: Position,
}

/// The mark of a hash, from bits that place little: never 0.
#[inline]
pub(super) const fn mark_of(hash: u64) -> u8 {
    let byte = (hash >> 24) as u8;
    if byte == 0 { 1 } else { byte }
}

/// Slots whose marks match: bit 7 of byte `n` for slot `n`, bit 3 of byte `n` for slot `n + 8`.
#[derive(Clone, Copy)]
pub(super) struct Matches(u64);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit >> 3 | (!bit & 4) << 1)
    }
}

impl IndexLine {
    #[inline]
    pub(super) fn matches(&self, mark: u8) -> Matches {
        /// Bit 7 of every byte that is 0, and no other bit.
        const fn zeros(word: u64) -> u64 {
            const LOW_SEVEN: u64 = u64::from_ne_bytes([0x7f; 8]);
            !(((word & LOW_SEVEN) + LOW_SEVEN) | word | LOW_SEVEN)
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.marks;
        let wanted = u64::from_ne_bytes([mark; 8]);
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // The upper half is made unlike any mark.
        let last = u64::from(u32::from_le_bytes([i, j, k, l]) ^ u32::from_ne_bytes([mark; 4])) | !0 << 32;
        Matches(zeros(first ^ wanted) | zeros(last) >> 4)
    }

    #[inline]
    pub(super) const fn state(&self, slot: usize) -> State {
        self.states[slot]
    }

    #[inline]
    pub(super) const fn set_state(&mut self, slot: usize, state: State) {
        self.states[slot] = state;
    }

    #[inline]
    pub(super) const fn position(&self, slot: usize) -> Position {
        Position { page: self.pages[slot], offset: self.offsets[slot] }
    }
}

#[inline]
const fn spill_mask(bit: u32) -> u32 {
    1 << (LEN_BITS + ((bit * SPILL_BITS) >> 6))
}

impl Group for IndexLine {
    type Entry = IndexEntry;

    const SLOTS: usize = SLOTS;
    const MAX_LOAD_16THS: usize = 14;
    // Small steps: with the id, an impression never takes more than 24 bytes.
    const GROWTH_DIVISOR: usize = 4;

    #[inline]
    fn len(&self) -> usize {
        (self.used_and_spilled & ((1 << LEN_BITS) - 1)) as usize
    }

    #[inline]
    fn entry(&self, slot: usize) -> IndexEntry {
        IndexEntry { mark: self.marks[slot], state: self.states[slot], at: self.position(slot) }
    }

    #[inline]
    fn push(&mut self, entry: IndexEntry) -> usize {
        let slot = self.len();
        self.marks[slot] = entry.mark;
        self.states[slot] = entry.state;
        (self.pages[slot], self.offsets[slot]) = (entry.at.page, entry.at.offset);
        self.used_and_spilled += 1;
        slot
    }

    #[inline]
    fn may_have_spilled(&self, bit: u32) -> bool {
        self.used_and_spilled & spill_mask(bit) != 0
    }

    #[inline]
    fn mark_spilled(&mut self, bit: u32) {
        self.used_and_spilled |= spill_mask(bit);
    }

    #[inline]
    fn touch(&self) -> u64 {
        u64::from(self.used_and_spilled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_matches_in_every_slot_that_has_it_and_in_no_other() {
        let mut line = IndexLine::read_from_bytes(&[0; 64]).unwrap();
        let marks = [7, 8, 6, 7, 0x87, 1, 7, 7, 7, 6, 0x80, 7];
        for mark in marks {
            let at = Position { page: u16::from(mark), offset: mark };
            line.push(IndexEntry { mark, state: State(mark), at });
            assert_eq!(line.matches(0xff).count(), 0);
        }
        for mark in 1..=u8::MAX {
            let found: Vec<_> = line.matches(mark).collect();
            let mut found_sorted = found.clone();
            found_sorted.sort_unstable();
            let expected: Vec<_> = (0..SLOTS).filter(|&slot| marks[slot] == mark).collect();
            assert_eq!(found_sorted, expected, "mark {mark}");
            assert!(found.iter().all(|&slot| line.state(slot) == State(mark)));
        }
    }

    #[test]
    fn an_empty_slot_matches_no_mark() {
        let line = IndexLine::read_from_bytes(&[0; 64]).unwrap();
        assert!(
            (0..=u64::MAX >> 8).step_by(1 << 24).all(|hash| line.matches(mark_of(hash)).next().is_none())
        );
    }

    #[test]
    fn kinds_of_entries_that_went_on_do_not_touch_the_length() {
        let mut line = IndexLine::read_from_bytes(&[0; 64]).unwrap();
        (0..64).for_each(|bit| line.mark_spilled(bit));
        assert_eq!((line.len(), line.used_and_spilled), (0, !0 << LEN_BITS));
    }
}
