//! Numbers the sequences of the shards a worker owns without gaps, so that what follows in
//! sequence follows in memory, however many workers share the node.

use weir_common::id::{ImpressionId, Issuer, KeyId, SHARDS, Shard};

/// Which shards a ledger holds impressions of. It decides where they stand, not whether they
/// can: an impression of another shard is kept, in more memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owned {
    /// All of them.
    #[default]
    All,
    /// These.
    Only(Vec<Shard>),
}

/// Of 1,024 consecutive sequences, one is of each shard. The owned ones are ranked in their order.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// Rank of a sequence among the owned by its low ten bits; [`NOT_OWNED`] for the others.
    ranks: Box<[u16; SHARDS]>,
    /// The low ten bits by rank.
    lows: Vec<u16>,
}

const NOT_OWNED: u16 = u16::MAX;
const SHARD_MASK: u64 = SHARDS as u64 - 1;

impl Positions {
    pub(super) fn new(owned: &Owned) -> Self {
        let is_owned = |low: u16| match owned {
            Owned::All => true,
            Owned::Only(shards) => {
                let id = ImpressionId::issued(Issuer(0), KeyId(0), 0, u64::from(low));
                shards.contains(&id.issued_shard())
            }
        };
        let lows: Vec<u16> = (0..SHARDS as u16).filter(|&low| is_owned(low)).collect();
        let mut ranks = Box::new([NOT_OWNED; SHARDS]);
        for (rank, &low) in lows.iter().enumerate() {
            ranks[usize::from(low)] = rank as u16;
        }
        Self { ranks, lows }
    }

    /// The position of a sequence; `None` when its shard is not owned.
    #[inline]
    pub(super) fn of(&self, sequence: u64) -> Option<u64> {
        let rank = self.ranks[(sequence & SHARD_MASK) as usize];
        if rank == NOT_OWNED {
            return None;
        }
        // At most 2^54 - 1 times 1,024 and 1,023 more: never past 64 bits.
        Some((sequence >> SHARDS.ilog2()) * self.lows.len() as u64 + u64::from(rank))
    }

    /// The sequence at a position that was given out.
    pub(super) fn sequence(&self, position: u64) -> u64 {
        let owned = self.lows.len() as u64;
        let low = self.lows[(position % owned) as usize];
        (position / owned) << SHARDS.ilog2() | u64::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_sequences_have_positions_without_gaps_in_their_order() {
        let owned = Owned::Only((0..341).map(Shard).collect());
        let positions = Positions::new(&owned);
        let mut next = 0;
        for sequence in 0..10 * SHARDS as u64 {
            let shard = ImpressionId::issued(Issuer(1), KeyId(1), 1, sequence).issued_shard();
            let position = positions.of(sequence);
            assert_eq!(position.is_some(), shard.0 < 341);
            if let Some(position) = position {
                assert_eq!(position, next);
                assert_eq!(positions.sequence(position), sequence);
                next += 1;
            }
        }
        assert_eq!(next, 3410);
    }

    #[test]
    fn the_last_sequence_there_is_has_a_position() {
        let positions = Positions::new(&Owned::All);
        for sequence in [u64::MAX, u64::MAX - 1, 1 << 63] {
            assert_eq!(positions.of(sequence), Some(sequence));
            assert_eq!(positions.sequence(sequence), sequence);
        }
    }
}
