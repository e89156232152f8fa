//! Opens sealed blocks as their format is written down in `docs/architecture.md`, with nothing of
//! the node's own cipher: what the node seals in another way, or under another key, does not open.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use weir::journal::SegmentId;

/// First bytes of a sealed block.
pub const MAGIC: [u8; 4] = *b"WSEL";
/// Bytes before what is encrypted, and after it.
const ENVELOPE: usize = 48;
const TAG: usize = 16;
const PURPOSE: &[u8] = b"weir journal segment 1";

/// A day's key, as bytes.
pub type Secret = [u8; 32];

/// A block that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its bytes.
    pub block: Vec<u8>,
    /// The bytes it takes in the segment.
    pub len: usize,
}

/// The secrets of all keys that a run's journals took, by the keys' numbers. They outlive the files
/// of the keys, so that what is deleted can still be looked at.
#[derive(Clone, Debug, Default)]
pub struct Opener(Rc<RefCell<BTreeMap<u64, Secret>>>);

impl Opener {
    /// Learns a key.
    pub fn learn(&self, key: u64, secret: Secret) {
        self.0.borrow_mut().insert(key, secret);
    }

    /// The block that stands sealed at the start of `bytes`, which are those at `offset` of the
    /// segment.
    #[must_use]
    pub fn open(&self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Option<Opened> {
        let envelope = bytes.get(..ENVELOPE).filter(|envelope| envelope.starts_with(&MAGIC))?;
        let len = u32::from_le_bytes(envelope[4..8].try_into().ok()?) as usize;
        let key = u64::from_le_bytes(envelope[16..24].try_into().ok()?);
        let secret = *self.0.borrow().get(&key)?;
        let mut block = bytes.get(ENVELOPE..(ENVELOPE + TAG).checked_add(len)?)?.to_vec();
        let (incarnation, salt) = (&envelope[8..16], &envelope[24..40]);
        let cipher = cipher(&secret, salt, incarnation, segment)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&offset.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        cipher.open_in_place(nonce, Aad::from(envelope), &mut block).ok()?;
        block.truncate(len);
        Some(Opened { block, len: ENVELOPE + len + TAG })
    }
}

/// The cipher of a segment.
fn cipher(secret: &Secret, salt: &[u8], incarnation: &[u8], segment: SegmentId) -> Option<LessSafeKey> {
    let (epoch, worker, number) =
        (segment.epoch.0.to_le_bytes(), segment.worker.0.to_le_bytes(), segment.segment.0.to_le_bytes());
    let info = [PURPOSE, incarnation, &epoch, &worker, &number];
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let derived = extracted.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}
