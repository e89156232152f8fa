//! Brings back what was remembered of impressions without the rows that said so.
//!
//! A row tells the ledger two things: what its bucket counts, and which clicks of its impression
//! were here. Only the second is needed longer than minutes, and it fits a byte.

use weir_common::id::{ImpressionId, ORDINALS, Ordinal};
use weir_common::reason::Outcome;
use weir_common::row::Row;
use weir_common::time::UnixMs;

use super::{LOOKAHEAD, Ledger, recorded};
use weir_common::verdict::State;

/// What is remembered of one impression: which of its clicks were here, and whether one of them
/// was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RememberedState(u8);

impl RememberedState {
    /// The state of nearly all: one click, with the first ordinal, counted.
    pub const USUAL: Self = Self(1 | 1 << ORDINALS);

    /// The state of these bits: one for each ordinal from the lowest, then "counted". `None`
    /// when no click was here.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & ((1 << ORDINALS) - 1) == 0 { None } else { Some(Self(bits)) }
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What one row alone says; `None` when no row can be like this one. A repeat says that a
    /// click before it was counted, should the row of that one be lost.
    #[must_use]
    pub fn of_row(row: &Row) -> Option<Self> {
        let (outcome, _) = recorded(row)?;
        let outcome = if outcome == Outcome::Repeat { Outcome::Accepted } else { outcome };
        Some(Self(State::default().after(Ordinal(row.click.ordinal), outcome).0))
    }

    /// What both know.
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One impression as it was remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The impression.
    pub id: ImpressionId,
    /// Whether it is a foreign one: the same bytes issued are another.
    pub is_foreign: bool,
    /// Of a foreign one when its first click was received. Of an issued one any time from then
    /// to now.
    pub received_at: UnixMs,
    /// What is remembered.
    pub state: RememberedState,
}

impl Ledger {
    /// Remembers these impressions, beside what it knows of them already. Returns how many of
    /// them it does not remember: they are too old to matter, or there is no room.
    ///
    /// Time moves to the latest receive time among them, never back. No bucket counts them.
    pub fn recall(&mut self, entries: &[Recalled]) -> usize {
        let Some(latest) = entries.iter().map(|entry| entry.received_at).max() else { return 0 };
        self.advance(latest);
        let mut forgotten = 0;
        let mut ahead = core::mem::take(&mut self.ahead);
        for chunk in entries.chunks(LOOKAHEAD) {
            self.bring_impressions(chunk.iter().map(|entry| (entry.id, entry.is_foreign)), &mut ahead);
            let moves = self.impressions.moves();
            for (entry, plan) in chunk.iter().zip(ahead.plans()) {
                let Recalled { id, is_foreign, received_at, state } = *entry;
                let at_hand = self.impressions.moves() == moves
                    && self.impressions.recall_at_hand(&plan.name, plan.home, State(state.0));
                if !at_hand {
                    let recalled = self.impressions.recall(id, is_foreign, received_at, State(state.0));
                    forgotten += usize::from(recalled.is_err());
                }
            }
        }
        self.ahead = ahead;
        forgotten
    }
}
