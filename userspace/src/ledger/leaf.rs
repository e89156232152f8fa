//! A cache line of issued impressions, in one of three forms: up to fifteen of a wide range of
//! sequences (*sparse*), sixty that follow each other, a byte each (*dense*), or thirty, two bytes
//! each (*wide*).
//!
//! All are exact. A sparse entry holds all that is not known from where it stands. A dense byte
//! holds one of fifteen states and the second of issue within sixteen, for keys that mint several
//! impressions a second; a wide one holds any second. What does not fit is kept elsewhere, and the
//! line remembers that there is such.
//!
//! Values only: it knows no table and no pool.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use weir_common::verdict::State;

/// Entries of a sparse line.
pub(super) const SPARSE_SLOTS: usize = 15;
/// Impressions of a dense line.
pub(super) const DENSE_SLOTS: usize = 60;
/// Impressions of a wide line.
pub(super) const WIDE_SLOTS: usize = 30;
/// Dense lines of a stretch: with 64, they are a page of the pool. Twice as many wide ones.
pub(super) const STRETCH_LINES: usize = 64;
/// Positions of a stretch.
pub(super) const STRETCH_SLOTS: usize = DENSE_SLOTS * STRETCH_LINES;
/// Bits of a position within its stretch.
pub(super) const SLOT_BITS: u32 = 12;
/// Bits of a second within its slice: a slice is 4096 s wide.
pub(super) const SECOND_BITS: u32 = 12;
/// Seconds a dense line tells apart.
const WINDOW_S: u16 = 16;

const _: () = assert!(STRETCH_SLOTS <= 1 << SLOT_BITS);
const _: () = assert!(SLOT_BITS + SECOND_BITS + u8::BITS == u32::BITS, "a sparse entry is one word");

/// What is left of an issued id once its slice, issuer, key and stretch are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// Position in the stretch, below [`STRETCH_SLOTS`].
    pub(super) slot: u16,
    /// Second of issue in the slice.
    pub(super) second: u16,
}

impl Rest {
    #[inline]
    const fn bits(self) -> u32 {
        (self.slot as u32) << SECOND_BITS | self.second as u32
    }
}

/// A rest and its state in one word; 0 is none, for a state that was seen is never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(super) struct SparseEntry(u32);

impl SparseEntry {
    #[inline]
    pub(super) const fn new(rest: Rest, state: State) -> Self {
        Self((state.0 as u32) << (SLOT_BITS + SECOND_BITS) | rest.bits())
    }

    #[inline]
    pub(super) const fn is(self, rest: Rest) -> bool {
        self.0 != 0 && (self.0 ^ rest.bits()) << u8::BITS == 0
    }

    #[inline]
    pub(super) const fn rest(self) -> Rest {
        let slot = (self.0 >> SECOND_BITS) as u16 & ((1 << SLOT_BITS) - 1);
        Rest { slot, second: self.0 as u16 & ((1 << SECOND_BITS) - 1) }
    }

    #[inline]
    pub(super) const fn state(self) -> State {
        State((self.0 >> (SLOT_BITS + SECOND_BITS)) as u8)
    }
}

/// 64 bytes: a head and sixty of entries. All zero bytes are an empty line of either form.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    /// Bit 31: [`OUTCASTS`]. Sparse: entries held. Dense: bit 30 once anything came, and the
    /// second of the slice from which its window counts.
    head: u32,
    body: [SparseEntry; SPARSE_SLOTS],
}

const _: () = assert!(size_of::<Leaf>() == 64);
const _: () = assert!(SPARSE_SLOTS * size_of::<SparseEntry>() == DENSE_SLOTS);
const _: () = assert!(WIDE_SLOTS * size_of::<u16>() == DENSE_SLOTS);
const _: () = assert!(STATES.len() << SECOND_BITS == 1 << u16::BITS, "a wide entry is two bytes");

/// Something that belongs here did not fit and is kept elsewhere.
const OUTCASTS: u32 = 1 << 31;
const BEGUN: u32 = 1 << 30;
const COUNT: u32 = BEGUN - 1;

impl Leaf {
    /// A line without entries.
    pub(super) const EMPTY: Self = Self { head: 0, body: [SparseEntry(0); SPARSE_SLOTS] };

    /// A word of the line, so that reading it brings the line in.
    #[inline]
    pub(super) const fn touch(&self) -> u64 {
        self.head as u64
    }

    pub(super) const fn has_outcasts(&self) -> bool {
        self.head & OUTCASTS != 0
    }

    pub(super) const fn mark_outcasts(&mut self) {
        self.head |= OUTCASTS;
    }
}

/// The sparse form.
impl Leaf {
    /// The slot of an impression.
    #[inline]
    pub(super) fn sparse_find(&self, rest: Rest) -> Option<u8> {
        let bits = rest.bits();
        let mut found = 0_u32;
        for (slot, entry) in self.body.iter().enumerate() {
            found |= u32::from((entry.0 ^ bits) << u8::BITS == 0) << slot;
        }
        found &= (1 << self.sparse_len()) - 1;
        (found != 0).then(|| found.trailing_zeros() as u8)
    }

    #[inline]
    pub(super) const fn sparse_len(&self) -> usize {
        (self.head & COUNT) as usize
    }

    #[inline]
    pub(super) fn sparse_entries(&self) -> &[SparseEntry] {
        &self.body[..self.sparse_len()]
    }

    #[inline]
    pub(super) const fn sparse_entry(&self, slot: u8) -> SparseEntry {
        self.body[slot as usize]
    }

    #[inline]
    pub(super) const fn sparse_entry_mut(&mut self, slot: u8) -> &mut SparseEntry {
        &mut self.body[slot as usize]
    }

    /// Adds an entry to a line that is not full.
    #[inline]
    pub(super) const fn sparse_push(&mut self, entry: SparseEntry) {
        self.body[self.sparse_len()] = entry;
        self.head += 1;
    }

    /// Takes an entry out, if it is here; the last one comes in its place.
    pub(super) fn sparse_remove(&mut self, rest: Rest) {
        if let Some(slot) = self.sparse_find(rest) {
            let last = self.sparse_len() - 1;
            self.body[usize::from(slot)] = self.body[last];
            self.head -= 1;
        }
    }
}

/// The states a dense or wide slot can hold, by their code. Nearly all impressions are clicked once, or
/// several times in order; the rest are those where one click was lost, late or out of order.
const STATES: [State; 16] = {
    const COUNTED: u8 = 1 << 7;
    [
        State(0),
        State(COUNTED | 0b1),
        State(COUNTED | 0b11),
        State(COUNTED | 0b111),
        State(COUNTED | 0b1111),
        State(COUNTED | 0b1_1111),
        State(COUNTED | 0b11_1111),
        State(COUNTED | 0b111_1111),
        State(COUNTED | 0b10),
        State(COUNTED | 0b100),
        State(COUNTED | 0b101),
        State(COUNTED | 0b110),
        State(0b1),
        State(0b10),
        State(0b11),
        State(0b111),
    ]
};

/// The code of each state, 0 for those that have none.
const CODES: [u8; 256] = {
    let mut codes = [0; 256];
    let mut code = 1;
    while code < STATES.len() {
        codes[STATES[code].0 as usize] = code as u8;
        code += 1;
    }
    codes
};

/// Whether a dense or wide line can hold a state.
#[inline]
pub(super) const fn has_code(state: State) -> bool {
    CODES[state.0 as usize] != 0
}

/// The dense form; a slot is below [`DENSE_SLOTS`], a second below 4096.
impl Leaf {
    /// The state of an impression; the first, which nothing that is here has, if it is not here.
    #[inline(always)]
    pub(super) fn dense_state(&self, slot: u8, second: u16) -> State {
        let byte = self.dense()[slot as usize];
        let is_here = self.base() + u16::from(byte & 0xf) == second;
        if is_here { STATES[usize::from(byte >> 4)] } else { State(0) }
    }

    #[inline(always)]
    fn dense(&self) -> &[u8; DENSE_SLOTS] {
        zerocopy::transmute_ref!(&self.body)
    }

    #[inline(always)]
    fn dense_mut(&mut self) -> &mut [u8; DENSE_SLOTS] {
        zerocopy::transmute_mut!(&mut self.body)
    }

    #[inline]
    const fn base(&self) -> u16 {
        (self.head & ((1 << SECOND_BITS) - 1)) as u16
    }

    /// Whether an impression can come here: its slot is free, its second within the window.
    #[inline]
    pub(super) fn dense_has_room(&self, slot: u8, second: u16) -> bool {
        let begun = self.head & BEGUN != 0;
        let in_window = second.wrapping_sub(self.base()) < WINDOW_S;
        self.dense()[slot as usize] == 0 && (!begun || in_window)
    }

    /// Begins the window of an empty line, with this second in its middle: impressions issued
    /// before it may be clicked after it.
    #[inline]
    pub(super) const fn dense_begin(&mut self, second: u16) {
        self.head = self.head & OUTCASTS | BEGUN | second.saturating_sub(WINDOW_S / 2) as u32;
    }

    /// Puts an impression that is here or has [room](Self::dense_has_room) in a state that
    /// [fits](has_code). The first [begins](Self::dense_begin) the window.
    #[inline]
    pub(super) fn dense_put(&mut self, slot: u8, second: u16, state: State) {
        if self.head & BEGUN == 0 {
            self.dense_begin(second);
        }
        let ahead = second.wrapping_sub(self.base()) as u8 & 0xf;
        self.dense_mut()[slot as usize] = CODES[state.0 as usize] << 4 | ahead;
    }

    /// Takes an impression out; it is kept elsewhere.
    pub(super) fn dense_cast_out(&mut self, slot: u8) {
        self.dense_mut()[slot as usize] = 0;
        self.mark_outcasts();
    }
}

/// The wide form; a slot is below [`WIDE_SLOTS`], a second below 4096.
impl Leaf {
    #[inline]
    fn wide(&self) -> &[u16; WIDE_SLOTS] {
        zerocopy::transmute_ref!(&self.body)
    }

    #[inline]
    fn wide_mut(&mut self) -> &mut [u16; WIDE_SLOTS] {
        zerocopy::transmute_mut!(&mut self.body)
    }

    /// The state of an impression; the first, which nothing that is here has, if it is not here.
    #[inline(always)]
    pub(super) fn wide_state(&self, slot: u8, second: u16) -> State {
        let word = self.wide()[slot as usize];
        let is_here = word & ((1 << SECOND_BITS) - 1) == second;
        if is_here { STATES[usize::from(word >> SECOND_BITS)] } else { State(0) }
    }

    /// Whether an impression can come here.
    #[inline]
    pub(super) fn wide_has_room(&self, slot: u8) -> bool {
        self.wide()[slot as usize] == 0
    }

    /// Puts an impression that is here or has room in a state that [fits](has_code).
    #[inline]
    pub(super) fn wide_put(&mut self, slot: u8, second: u16, state: State) {
        self.wide_mut()[slot as usize] = u16::from(CODES[state.0 as usize]) << SECOND_BITS | second;
    }

    /// Takes an impression out; it is kept elsewhere.
    pub(super) fn wide_cast_out(&mut self, slot: u8) {
        self.wide_mut()[slot as usize] = 0;
        self.mark_outcasts();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn empty() -> Leaf {
        Leaf::read_from_bytes(&[0; 64]).unwrap()
    }

    #[test]
    fn every_state_has_a_code_of_its_own_or_none() {
        for code in 1..STATES.len() {
            assert_eq!(usize::from(CODES[STATES[code].0 as usize]), code);
        }
        assert_eq!((0..=u8::MAX).filter(|&state| has_code(State(state))).count(), 15);
        assert!(!has_code(State(0)), "what was never seen has no entry");
    }

    #[test]
    fn an_empty_line_holds_nothing_not_even_the_first_slot_of_the_first_second() {
        let nothing = Rest { slot: 0, second: 0 };
        assert_eq!(empty().sparse_find(nothing), None);
        assert_eq!((empty().dense_state(0, 0), empty().wide_state(0, 0)), (State(0), State(0)));
    }

    #[test]
    fn a_line_remembers_that_something_did_not_fit_whatever_comes_after() {
        let mut leaf = empty();
        leaf.mark_outcasts();
        leaf.dense_put(1, 1, State(1));
        assert_eq!((leaf.dense_state(1, 1), leaf.has_outcasts()), (State(1), true));
        leaf = empty();
        leaf.mark_outcasts();
        leaf.sparse_push(SparseEntry::new(Rest { slot: 9, second: 9 }, State(1)));
        assert_eq!((leaf.sparse_len(), leaf.has_outcasts()), (1, true));
    }

    proptest! {
        #[test]
        fn a_sparse_line_finds_what_came_and_nothing_else(
            rests in prop::collection::hash_set((0..3840_u16, 0..4096_u16), 16),
            states: [u8; 15],
        ) {
            let rests: Vec<_> = rests.into_iter().map(|(slot, second)| Rest { slot, second }).collect();
            let mut leaf = empty();
            for (at, (rest, state)) in rests.iter().zip(states).enumerate() {
                leaf.sparse_push(SparseEntry::new(*rest, State(state | 1)));
                *leaf.sparse_entry_mut(at as u8) = SparseEntry::new(*rest, State(state | 3));
            }
            for (at, (rest, state)) in rests.iter().zip(states).enumerate() {
                prop_assert_eq!(leaf.sparse_find(*rest), Some(at as u8));
                prop_assert_eq!(leaf.sparse_entry(at as u8).rest(), *rest);
                prop_assert_eq!(leaf.sparse_entry(at as u8).state(), State(state | 3));
            }
            prop_assert_eq!(leaf.sparse_find(rests[15]), None);
            for at in 0..15 {
                leaf.sparse_remove(rests[at]);
                let held = rests[..15].iter().map(|rest| leaf.sparse_find(*rest).is_some());
                prop_assert!(held.eq((0..15).map(|other| other > at)));
            }
        }

        #[test]
        fn a_wide_line_tells_every_second_apart(
            others in prop::collection::vec((0..30_u8, 0..4096_u16, 1..16_usize), 60),
        ) {
            let mut leaf = empty();
            let mut held = std::collections::BTreeMap::<u8, (u16, State)>::new();
            for (slot, second, code) in others {
                let known = held.get(&slot).is_some_and(|&(at, _)| at == second);
                let expected = if known { held[&slot].1 } else { State(0) };
                prop_assert_eq!(leaf.wide_state(slot, second), expected);
                prop_assert_eq!(leaf.wide_has_room(slot), !held.contains_key(&slot));
                if leaf.wide_has_room(slot) {
                    leaf.wide_put(slot, second, STATES[code]);
                    held.insert(slot, (second, STATES[code]));
                }
            }
            for (slot, (second, state)) in held {
                prop_assert_eq!(leaf.wide_state(slot, second), state);
                leaf.wide_put(slot, second, STATES[7]);
                prop_assert_eq!(leaf.wide_state(slot, second), STATES[7]);
                leaf.wide_cast_out(slot);
                prop_assert_eq!((leaf.wide_state(slot, second), leaf.has_outcasts()), (State(0), true));
            }
        }

        #[test]
        fn a_dense_line_tells_every_second_of_its_window_apart(
            first in (0..60_u8, 0..4096_u16),
            others in prop::collection::vec((0..60_u8, 0..4096_u16, 1..16_usize), 60),
        ) {
            let mut leaf = empty();
            leaf.dense_put(first.0, first.1, STATES[1]);
            let mut held = std::collections::BTreeMap::from([(first.0, (first.1, STATES[1]))]);
            for (slot, second, code) in others {
                // Half of them near the first, so that some fit.
                let second = if code % 2 == 0 { (first.1 + second % 12).min(4095) } else { second };
                let known = held.get(&slot).is_some_and(|&(at, _)| at == second);
                let expected = if known { held[&slot].1 } else { State(0) };
                prop_assert_eq!(leaf.dense_state(slot, second), expected);
                if !known && leaf.dense_has_room(slot, second) {
                    leaf.dense_put(slot, second, STATES[code]);
                    held.insert(slot, (second, STATES[code]));
                }
            }
            for (slot, (second, state)) in held {
                prop_assert_eq!(leaf.dense_state(slot, second), state);
                leaf.dense_put(slot, second, STATES[7]);
                prop_assert_eq!(leaf.dense_state(slot, second), STATES[7]);
                leaf.dense_cast_out(slot);
                prop_assert_eq!((leaf.dense_state(slot, second), leaf.has_outcasts()), (State(0), true));
            }
        }
    }
}
