//! The keys ad servers sign with, found by (issuer, key) in constant time.

use displaydoc::Display;
use thiserror::Error;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;

/// Keys a node can hold. Four thousand are two for each of two thousand ad servers, and their
/// table still fits the second-level cache of a core.
pub const MAX_KEYS: usize = 4096;
/// Live keys of one issuer: the one in use and, during a rotation, the next.
pub const MAX_KEYS_PER_ISSUER: usize = 2;

/// A key and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// The ad server.
    pub issuer: Issuer,
    /// Its number for this key.
    pub id: KeyId,
    /// The key.
    pub secret: SipKey,
}

/// Why a set of keys cannot be used.
#[derive(Clone, Copy, Debug, Display, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRingError {
    /// key {1} of issuer {0} is given twice: remove one of the two from `keys`
    GivenTwice(u16, u16),
    /// {0} keys are given and a node holds at most 4096: remove keys that are out of use from `keys`
    TooMany(usize),
    /// issuer {0} has more than two live keys: finish one rotation, and remove its old key from `keys`, before the next
    TooManyOfIssuer(u16),
}

#[derive(Clone, Copy)]
struct Slot {
    /// Issuer and key as one number.
    name: u32,
    used: bool,
    secret: SipKey,
}

/// All keys of a node: a table with open addressing, built once, never more than half full.
#[derive(Clone)]
pub struct KeyRing {
    slots: Vec<Slot>,
    len: usize,
}

const fn name_of(issuer: Issuer, id: KeyId) -> u32 {
    (issuer.0 as u32) << 16 | id.0 as u32
}

impl KeyRing {
    /// Builds the ring.
    ///
    /// # Errors
    /// When the set breaks a bound or names a key twice.
    pub fn new(keys: &[SigningKey]) -> Result<Self, KeyRingError> {
        if keys.len() > MAX_KEYS {
            return Err(KeyRingError::TooMany(keys.len()));
        }
        let unused = Slot { name: 0, used: false, secret: SipKey { k0: 0, k1: 0 } };
        let mut ring = Self { slots: vec![unused; (2 * keys.len()).next_power_of_two().max(2)], len: 0 };
        for (position, key) in keys.iter().enumerate() {
            let earlier = keys[..position].iter().filter(|other| other.issuer == key.issuer).count();
            if ring.find(key.issuer, key.id).is_some() {
                return Err(KeyRingError::GivenTwice(key.issuer.0, key.id.0));
            }
            if earlier >= MAX_KEYS_PER_ISSUER {
                return Err(KeyRingError::TooManyOfIssuer(key.issuer.0));
            }
            ring.insert(key);
        }
        Ok(ring)
    }

    /// Number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key of this name.
    #[inline]
    #[must_use]
    pub fn find(&self, issuer: Issuer, id: KeyId) -> Option<&SipKey> {
        let name = name_of(issuer, id);
        // Half the slots are unused, so the walk ends at one of them at the latest.
        for step in 0..self.slots.len() {
            let slot = &self.slots[self.position(name, step)];
            if !slot.used {
                return None;
            }
            if slot.name == name {
                return Some(&slot.secret);
            }
        }
        None
    }

    fn insert(&mut self, key: &SigningKey) {
        let name = name_of(key.issuer, key.id);
        let free =
            (0..self.slots.len()).map(|step| self.position(name, step)).find(|&at| !self.slots[at].used);
        if let Some(at) = free {
            self.slots[at] = Slot { name, used: true, secret: key.secret };
            self.len += 1;
        }
    }

    #[inline]
    fn position(&self, name: u32, step: usize) -> usize {
        // Knuth's multiplicative hash. Names come from the operator, so no secret is needed.
        let mixed = (u64::from(name)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (mixed as usize).wrapping_add(step) & (self.slots.len() - 1)
    }
}

impl core::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Secrets must never reach a log, and neither must their number of bytes on the heap.
        f.debug_struct("KeyRing").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(issuer: u16, id: u16) -> SigningKey {
        let secret = SipKey { k0: u64::from(issuer), k1: u64::from(id) };
        SigningKey { issuer: Issuer(issuer), id: KeyId(id), secret }
    }

    #[test]
    fn every_key_of_a_full_ring_is_found_and_no_other() {
        let keys: Vec<_> = (0..MAX_KEYS as u16).map(|n| key(n / 2, n % 2 + 7)).collect();
        let ring = KeyRing::new(&keys).unwrap();
        assert_eq!(ring.len(), MAX_KEYS);
        for key in &keys {
            assert_eq!(ring.find(key.issuer, key.id), Some(&key.secret));
        }
        assert_eq!(ring.find(Issuer(0), KeyId(6)), None);
        assert_eq!(ring.find(Issuer(u16::MAX), KeyId(7)), None);
    }

    #[test]
    fn an_empty_ring_finds_nothing() {
        let ring = KeyRing::new(&[]).unwrap();
        assert!(ring.is_empty());
        assert_eq!(ring.find(Issuer(0), KeyId(0)), None);
    }

    #[test]
    fn bounds_and_doubles_are_told_apart() {
        assert_eq!(KeyRing::new(&[key(1, 1), key(1, 1)]).unwrap_err(), KeyRingError::GivenTwice(1, 1));
        let three = [key(1, 1), key(1, 2), key(1, 3)];
        assert_eq!(KeyRing::new(&three).unwrap_err(), KeyRingError::TooManyOfIssuer(1));
        let many = vec![key(1, 1); MAX_KEYS + 1];
        assert_eq!(KeyRing::new(&many).unwrap_err(), KeyRingError::TooMany(MAX_KEYS + 1));
    }

    #[test]
    fn a_ring_prints_no_secret() {
        let ring = KeyRing::new(&[key(1, 0x4d2)]).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { len: 1, .. }");
    }
}
