//! Unique users: Apache DataSketches Theta sketches, as nodes send them (`docs/row-format.md`, section 4).
//!
//! A union with the same sketch twice changes nothing, so users are merged without a thought for what
//! came before. [`Users`] is sound by its type: octets from elsewhere become one in [`Users::read`] alone.

use datasketches::theta::{CompactThetaSketch, ThetaUnion, ThetaUnionBuilder};

/// The longest sketch a node sends: 4,096 hashes and a preamble of 24 octets.
pub const SKETCH_LEN_MAX: usize = 24 + 4096 * 8;

/// The base-2 logarithm of how many hashes a sketch keeps: that of all nodes.
const LG_K: u8 = 12;

/// A set of users: exact up to 4,096 of them, then to about 1.6 % (one standard error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users(Vec<u8>);

impl Users {
    /// The sketch in these octets; `None` unless it is one that merges with ours. Its length is
    /// bounded before anything reads it.
    #[must_use]
    pub fn read(theta: &[u8]) -> Option<Self> {
        if theta.len() > SKETCH_LEN_MAX {
            return None;
        }
        let sketch = CompactThetaSketch::deserialize(theta).ok()?;
        let mut union = ThetaUnionBuilder::default().lg_k(LG_K).build().ok()?;
        union.update(&sketch).ok()?;
        Some(Self(theta.to_vec()))
    }

    /// The sketch's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Sets of users in the course of being united, one after the other.
#[derive(Debug, Default)]
pub struct Union(Option<ThetaUnion>);

impl Union {
    /// Takes one set; `None` for octets of a store that are damaged.
    pub fn add(&mut self, theta: &[u8]) -> Option<()> {
        if self.0.is_none() {
            self.0 = Some(ThetaUnionBuilder::default().lg_k(LG_K).build().ok()?);
        }
        self.0.as_mut()?.update(&CompactThetaSketch::deserialize(theta).ok()?).ok()
    }

    /// How many users the sets have together; `None` when none was taken.
    #[must_use]
    pub fn users(&self) -> Option<f64> {
        Some(self.0.as_ref()?.to_sketch(true).estimate())
    }

    /// The sets as one; `None` when none was taken.
    #[must_use]
    pub fn set(&self) -> Option<Users> {
        Some(Users(self.0.as_ref()?.to_sketch(true).serialize()))
    }
}

#[cfg(test)]
mod tests {
    use datasketches::theta::ThetaSketchBuilder;

    use super::*;

    fn of(users: std::ops::Range<u64>) -> Vec<u8> {
        let mut sketch = ThetaSketchBuilder::default().lg_k(LG_K).build().unwrap();
        for user in users {
            sketch.update(user);
        }
        sketch.trim();
        sketch.compact(true).serialize()
    }

    #[test]
    fn a_union_has_each_user_once_whatever_comes_twice() {
        let (left, right) = (of(0..700), of(500..1000));
        let mut union = Union::default();
        assert_eq!((union.users(), union.set()), (None, None));
        for set in [&left[..], &right, &left, &right] {
            union.add(set).unwrap();
        }
        assert!((union.users().unwrap() - 1000.0).abs() < 1e-6);
        let users = union.set().unwrap();
        assert_eq!(users.as_bytes(), of(0..1000));
        assert_eq!(Users::read(users.as_bytes()), Some(users));
    }

    #[test]
    fn a_full_sketch_is_as_long_as_any_may_be() {
        assert_eq!(of(0..20_000).len(), SKETCH_LEN_MAX);
        assert!(Users::read(&of(0..20_000)).is_some());
    }
}
