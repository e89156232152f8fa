//! The users of one ad in one minute: the keys themselves while they are few, a sketch when they
//! are many. Both make the same octets.

use datasketches::theta::{ThetaSketch, ThetaSketchBuilder};

/// log2 of the hashes a sketch keeps. ClickHouse's `uniqTheta` has the same, and no other.
pub const LG_K: u8 = 12;
/// Places for keys that a set begins with. Half of all ads have fewer clicks than this in a minute
/// on a long-tailed day, and an allocation has 16 bytes of its own.
const FIRST: usize = 4;
/// Places for keys at the most: from here on the keys would take more memory than the sketch.
const FEW_MAX: usize = 1 << LG_K;
/// What a set takes beside its keys: a slot of a hash table that is half full, and what the
/// allocator keeps.
const SET_BYTES: u64 = 96;
/// Bytes of a key.
const KEY_BYTES: u64 = size_of::<u64>() as u64;
/// What a sketch takes: a table twice as large as what it keeps.
const MANY_BYTES: u64 = (KEY_BYTES << (LG_K + 1)) + size_of::<ThetaSketch>() as u64;
/// The most a sketch has before its hashes.
const PREAMBLE_BYTES_MAX: u64 = 24;

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The memory that all sets may take together.
#[derive(Debug, Default)]
pub(super) struct Room {
    used: u64,
    max: u64,
}

impl Room {
    pub(super) const fn new(max: u64) -> Self {
        Self { used: 0, max }
    }

    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Takes `more` in place of `less`.
    const fn exchange(&mut self, less: u64, more: u64) -> Result<(), Full> {
        if self.used - less + more > self.max {
            return Err(Full);
        }
        self.used = self.used - less + more;
        Ok(())
    }
}

/// A set of users.
#[derive(Debug)]
pub(super) enum Users {
    /// Their keys; since they were last sorted one may stand here twice.
    Few(Vec<u64>),
    /// Their hashes, of which the smallest are kept.
    Many(Box<ThetaSketch>),
}

impl Users {
    pub(super) fn new(user: u64, room: &mut Room) -> Result<Self, Full> {
        room.exchange(0, SET_BYTES + FIRST as u64 * KEY_BYTES)?;
        let mut users = Vec::with_capacity(FIRST);
        users.push(user);
        Ok(Self::Few(users))
    }

    /// Whether they are fewer than so many, which a sketch still keeps exactly.
    pub(super) fn are_fewer_than(&mut self, least: usize) -> bool {
        debug_assert!(least <= FEW_MAX);
        let Self::Few(users) = self else { return false };
        users.sort_unstable();
        users.dedup();
        users.len() < least
    }

    pub(super) fn insert(&mut self, user: u64, room: &mut Room) -> Result<(), Full> {
        if let Self::Few(users) = self
            && users.len() == users.capacity()
        {
            self.make_place(room)?;
        }
        match self {
            Self::Few(users) => users.push(user),
            Self::Many(sketch) => sketch.update(user),
        }
        Ok(())
    }

    /// Throws out the keys that stand there twice; grows when that was not much, so that sorting
    /// costs each key a few times its share at the most.
    fn make_place(&mut self, room: &mut Room) -> Result<(), Full> {
        let Self::Few(users) = self else { return Ok(()) };
        users.sort_unstable();
        users.dedup();
        let capacity = users.capacity();
        if users.len() <= capacity / 4 * 3 {
            return Ok(());
        }
        if capacity < FEW_MAX {
            room.exchange(capacity as u64 * KEY_BYTES, 2 * capacity as u64 * KEY_BYTES)?;
            users.reserve_exact(2 * capacity - users.len());
            return Ok(());
        }
        room.exchange(capacity as u64 * KEY_BYTES, MANY_BYTES)?;
        *self = Self::Many(Box::new(sketch_of(users)));
        Ok(())
    }

    /// The octets of the sketch.
    pub(super) fn theta(&mut self) -> Vec<u8> {
        match self {
            Self::Few(users) => sketch_of(users).compact(true).serialize(),
            Self::Many(sketch) => {
                sketch.trim();
                sketch.compact(true).serialize()
            }
        }
    }

    /// No less than the octets of the sketch.
    pub(super) fn theta_bytes_max(&self) -> u64 {
        let hashes = match self {
            Self::Few(users) => users.len(),
            Self::Many(sketch) => sketch.num_retained().min(1 << LG_K),
        };
        PREAMBLE_BYTES_MAX + hashes as u64 * KEY_BYTES
    }

    /// Gives its room back; how many users are known to have been in it.
    pub(super) fn give_up(self, room: &mut Room) -> u64 {
        let (bytes, users) = match &self {
            Self::Few(users) => (users.capacity() as u64 * KEY_BYTES, users.len()),
            Self::Many(sketch) => (MANY_BYTES, sketch.num_retained()),
        };
        room.used = room.used.saturating_sub(SET_BYTES + bytes);
        users as u64
    }
}

/// A sketch of at most [`FEW_MAX`] users, so one that is exact.
pub(super) fn sketch_of(users: &[u64]) -> ThetaSketch {
    let builder = ThetaSketchBuilder::default().lg_k(LG_K);
    let mut sketch = builder.build().expect("lg_k 12 and the library's own seed are in its range");
    users.iter().for_each(|&user| sketch.update(user));
    sketch
}
