//! Encryption of blocks at rest: values in, values out. No files, no clock, no randomness.
//!
//! ```text
//! 0          48                               48 + n    64 + n
//! +----------+--------------------------------+---------+
//! | envelope | the block's n bytes, encrypted | tag     |
//! +----------+--------------------------------+---------+
//! ```
//!
//! The cipher is AES-256-GCM (NIST SP 800-38D). Its key is derived (HKDF-SHA-256, RFC 5869) from
//! the day's key, the salt of a writer and the segment's name; its nonce is the place of the
//! envelope in the file; the envelope is its additional data. So **no nonce comes twice under a
//! key**: a place of a segment is written once, a segment's name is used once by a writer, and each
//! start of a worker draws a salt of its own, so that not even an epoch used twice repeats a key.
//! A block whose group failed goes to another segment, thus under another key. A block that stands
//! where it was not written does not open.
//!
//! What is sealed are the bytes of the block as they are forwarded, CRCs included. Envelopes name
//! their key and carry their salt, so a segment whose header is damaged is read like any other.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hkdf};
use weir_common::id::Incarnation;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use super::segment::SegmentId;
use crate::day::Day;

/// First four bytes of a sealed block.
pub const SEAL_MAGIC: [u8; 4] = *b"WSEL";
/// The version this build writes.
pub const SEAL_VERSION: u16 = 1;
/// Bytes before the encrypted ones.
pub const ENVELOPE_LEN: usize = size_of::<Envelope>();
const _: () = assert!(ENVELOPE_LEN == 48);
/// Bytes of the tag, after them.
pub const TAG_LEN: usize = 16;
/// How much longer a sealed block is.
pub const SEAL_OVERHEAD: usize = ENVELOPE_LEN + TAG_LEN;
/// Bytes of a day's key.
pub const SECRET_LEN: usize = 32;
/// Bytes of a salt: enough that no two that are ever drawn are the same.
pub const SALT_LEN: usize = 16;

const CRC_OFFSET: usize = ENVELOPE_LEN - 4;
/// What keys of segments are derived for, so that none can be another purpose's.
const SEGMENT_PURPOSE: &[u8] = b"weir journal segment 1";
const FINGERPRINT_PURPOSE: &[u8] = b"weir journal key fingerprint 1";

/// Names a day's key: the day, and 32 bits of a hash of the key itself. So a file with another key
/// under this name is found out. Never 0, which says "not encrypted".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DayKeyId(pub u64);

impl DayKeyId {
    /// The day it was made for.
    #[must_use]
    pub const fn day(self) -> Day {
        Day((self.0 >> 32) as u32)
    }
}

impl fmt::Display for DayKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.day(), self.0)
    }
}

/// The key of a day. Erased from memory when the last owner drops it.
pub struct DayKey {
    id: DayKeyId,
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

impl fmt::Debug for DayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DayKey({}, ..)", self.id)
    }
}

impl DayKey {
    /// The key of `day` with these bytes; `None` for the one in 2^32 of 1970-01-01 that would be
    /// number 0.
    #[must_use]
    pub fn new(day: Day, secret: Zeroizing<[u8; SECRET_LEN]>) -> Option<Self> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(FINGERPRINT_PURPOSE);
        context.update(&*secret);
        let (fingerprint, _) = U32::read_from_prefix(context.finish().as_ref()).ok()?;
        let number = u64::from(day.0) << 32 | u64::from(fingerprint.get());
        (number != 0).then_some(Self { id: DayKeyId(number), secret })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> DayKeyId {
        self.id
    }

    /// Its bytes, to be written to its file and nowhere else.
    #[must_use]
    pub fn secret(&self) -> &[u8; SECRET_LEN] {
        &self.secret
    }
}

/// What a writer seals with: a day's key, and a salt drawn for this writer in this start.
#[derive(Clone, Debug)]
pub struct SealingKey {
    /// The day's key.
    pub key: Arc<DayKey>,
    /// Drawn once for each writer, start and day.
    pub salt: [u8; SALT_LEN],
}

impl SealingKey {
    /// The cipher of one segment.
    #[must_use]
    pub fn segment(&self, incarnation: Incarnation, segment: SegmentId) -> SegmentCipher {
        SegmentCipher::new(&self.key, self.salt, incarnation, segment)
    }
}

/// What stands before the encrypted bytes: how many there are, and what opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Envelope {
    /// [`SEAL_MAGIC`].
    pub magic: [u8; 4],
    /// Bytes of the block.
    pub len: U32,
    /// The life of the folder: random and never sent to senders, so that no bytes of theirs pass
    /// for an envelope.
    pub incarnation: U64,
    /// The day's key.
    pub key: U64,
    /// The writer's salt.
    pub salt: [u8; SALT_LEN],
    /// [`SEAL_VERSION`].
    pub version: U16,
    /// Reserved, zero.
    pub reserved: U16,
    /// CRC-32C of the bytes before it: what tells damage from a key that is not there.
    pub crc: U32,
}

impl Envelope {
    /// Reads the envelope at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(bytes: &[u8], incarnation: Incarnation) -> Result<Self, SealFault> {
        let Ok((envelope, _)) = Self::read_from_prefix(bytes) else { return Err(SealFault::Cut) };
        if envelope.magic != SEAL_MAGIC || crc32c::crc32c(&bytes[..CRC_OFFSET]) != envelope.crc.get() {
            return Err(SealFault::Envelope);
        }
        if envelope.version.get() != SEAL_VERSION {
            return Err(SealFault::Version);
        }
        if envelope.incarnation.get() != incarnation.0 {
            return Err(SealFault::Foreign);
        }
        Ok(envelope)
    }

    /// The day's key.
    #[must_use]
    pub const fn key(&self) -> DayKeyId {
        DayKeyId(self.key.get())
    }

    /// Bytes of the whole, tag included.
    #[must_use]
    pub const fn sealed_len(&self) -> u64 {
        self.len.get() as u64 + SEAL_OVERHEAD as u64
    }
}

/// What is wrong with bytes that should be a sealed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, displaydoc::Display, thiserror::Error)]
pub enum SealFault {
    /// the encrypted block is cut off
    Cut,
    /// the envelope of the encrypted block does not match its CRC
    Envelope,
    /// the version of the encryption is not one this build reads
    Version,
    /// the encrypted block belongs to another folder
    Foreign,
    /// the encrypted block does not open: its bytes are not as written, or not where they were written
    Tag,
    /// its key {0} is not there: put the key's file back into `journal.keys_dir`
    KeyMissing(DayKeyId),
}

/// Seals and opens the blocks of one segment.
pub struct SegmentCipher {
    key: LessSafeKey,
    envelope: Envelope,
}

impl fmt::Debug for SegmentCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentCipher({}, ..)", DayKeyId(self.envelope.key.get()))
    }
}

impl SegmentCipher {
    /// The cipher of `segment` under this key and salt.
    #[must_use]
    pub fn new(key: &DayKey, salt: [u8; SALT_LEN], incarnation: Incarnation, segment: SegmentId) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&*key.secret);
        let (epoch, worker, number) =
            (segment.epoch.0.to_le_bytes(), segment.worker.0.to_le_bytes(), segment.segment.0.to_le_bytes());
        let info = [SEGMENT_PURPOSE, &incarnation.0.to_le_bytes(), &epoch, &worker, &number];
        // Fails only for more output than 255 hashes (RFC 5869); a key is one.
        let derived = extracted.expand(&info, &AES_256_GCM).expect("a key is shorter than 255 hashes");
        let envelope = Envelope {
            magic: SEAL_MAGIC,
            incarnation: U64::new(incarnation.0),
            key: U64::new(key.id.0),
            salt,
            version: U16::new(SEAL_VERSION),
            ..Envelope::new_zeroed()
        };
        Self { key: LessSafeKey::new(UnboundKey::from(derived)), envelope }
    }

    /// Whether it opens what carries this envelope.
    #[must_use]
    pub fn fits(&self, envelope: &Envelope) -> bool {
        self.envelope.key == envelope.key && self.envelope.salt == envelope.salt
    }

    /// Seals a block that will stand at `offset` of the segment; `out` is overwritten.
    ///
    /// The caller seals one block for each offset, ever.
    pub fn seal(&self, offset: u64, block: &[u8], out: &mut Vec<u8>) {
        let mut envelope = self.envelope;
        envelope.len = U32::new(block.len() as u32);
        envelope.crc = U32::new(crc32c::crc32c(&envelope.as_bytes()[..CRC_OFFSET]));
        out.clear();
        out.reserve(block.len() + SEAL_OVERHEAD);
        out.extend_from_slice(envelope.as_bytes());
        out.extend_from_slice(block);
        let body = &mut out[ENVELOPE_LEN..];
        let sealed = self.key.seal_in_place_separate_tag(nonce(offset), Aad::from(envelope.as_bytes()), body);
        // Fails only beyond 64 GiB, the bound of the mode; a block's length is a u32.
        let tag = sealed.expect("a block is shorter than 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens what follows an envelope that stands at `offset`: encrypted bytes and tag. The block's
    /// bytes are then in front.
    ///
    /// # Errors
    /// [`SealFault::Tag`] when they are not what was sealed there.
    pub fn open(&self, offset: u64, envelope: &Envelope, sealed: &mut [u8]) -> Result<(), SealFault> {
        let opened = self.key.open_in_place(nonce(offset), Aad::from(envelope.as_bytes()), sealed);
        opened.map(drop).map_err(|_| SealFault::Tag)
    }
}

/// The place of a block in its segment.
fn nonce(offset: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::id::{Epoch, WorkerId};

    use super::super::operation::SegmentNo;
    use super::*;

    const LIFE: Incarnation = Incarnation(0xfeed);

    fn key(byte: u8) -> SealingKey {
        let key = DayKey::new(Day(20_000), Zeroizing::new([byte; SECRET_LEN])).unwrap();
        SealingKey { key: Arc::new(key), salt: [byte; SALT_LEN] }
    }

    fn segment(number: u32) -> SegmentId {
        SegmentId { epoch: Epoch(3), worker: WorkerId(1), segment: SegmentNo(number) }
    }

    fn open(cipher: &SegmentCipher, offset: u64, sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        let envelope = Envelope::check(sealed, LIFE)?;
        if sealed.len() as u64 != envelope.sealed_len() {
            return Err(SealFault::Cut);
        }
        let mut body = sealed[ENVELOPE_LEN..].to_vec();
        cipher.open(offset, &envelope, &mut body)?;
        body.truncate(envelope.len.get() as usize);
        Ok(body)
    }

    #[test]
    fn a_key_is_named_by_its_day_and_by_what_it_is() {
        let (one, other) = (key(1).key, key(2).key);
        assert_eq!((one.id().day(), other.id().day()), (Day(20_000), Day(20_000)));
        assert_ne!(one.id(), other.id());
        assert!(one.id().to_string().starts_with("2024-10-04-00004e20"), "{}", one.id());
        assert!(!format!("{one:?}").contains("01, 1"), "a key is never printed");
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_block_is_found() {
        let cipher = key(1).segment(LIFE, segment(1));
        let mut sealed = Vec::new();
        cipher.seal(4096, b"a block of some bytes", &mut sealed);
        assert_eq!(open(&cipher, 4096, &sealed).unwrap(), b"a block of some bytes");
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            let fault = open(&cipher, 4096, &sealed).unwrap_err();
            assert!(!matches!(fault, SealFault::KeyMissing(_)), "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_block_does_not_open_behind_an_envelope_that_somebody_changed() {
        let cipher = key(1).segment(LIFE, segment(1));
        let mut sealed = Vec::new();
        cipher.seal(4096, b"block", &mut sealed);
        for bit in 0..CRC_OFFSET * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            // Who changes it on purpose makes the CRC fit.
            let crc = crc32c::crc32c(&forged[..CRC_OFFSET]).to_le_bytes();
            forged[CRC_OFFSET..ENVELOPE_LEN].copy_from_slice(&crc);
            assert!(open(&cipher, 4096, &forged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_block_opens_only_where_it_was_written_and_with_its_own_key() {
        let sealing = key(1);
        let cipher = sealing.segment(LIFE, segment(1));
        let mut sealed = Vec::new();
        cipher.seal(4096, b"block", &mut sealed);
        assert_eq!(open(&cipher, 8192, &sealed), Err(SealFault::Tag), "another place");
        let own = segment(1);
        for other in
            [segment(2), SegmentId { epoch: Epoch(4), ..own }, SegmentId { worker: WorkerId(2), ..own }]
        {
            let elsewhere = sealing.segment(LIFE, other);
            assert_eq!(open(&elsewhere, 4096, &sealed), Err(SealFault::Tag), "{other}");
        }
        let other_life = sealing.segment(Incarnation(LIFE.0 ^ 1), own);
        assert_eq!(open(&other_life, 4096, &sealed), Err(SealFault::Tag), "another folder");
        let stranger = SealingKey { key: key(2).key, ..sealing.clone() }.segment(LIFE, segment(1));
        assert_eq!(open(&stranger, 4096, &sealed), Err(SealFault::Tag), "another day's key");
        let again = SealingKey { salt: [9; SALT_LEN], ..sealing }.segment(LIFE, segment(1));
        assert_eq!(open(&again, 4096, &sealed), Err(SealFault::Tag), "another start");
    }

    #[test]
    fn the_same_block_is_never_sealed_to_the_same_bytes_twice() {
        let sealing = key(1);
        let seal = |sealing: &SealingKey, number, offset| {
            let mut out = Vec::new();
            sealing.segment(LIFE, segment(number)).seal(offset, &[0; 64], &mut out);
            out.split_off(ENVELOPE_LEN)
        };
        let other_start = SealingKey { salt: [8; SALT_LEN], ..sealing.clone() };
        let all = [
            seal(&sealing, 1, 4096),
            seal(&sealing, 1, 8192),
            seal(&sealing, 2, 4096),
            seal(&other_start, 1, 4096),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_to_the_same_bytes(
            block in prop::collection::vec(any::<u8>(), 0..3000),
            offset: u64,
        ) {
            let cipher = key(1).segment(LIFE, segment(1));
            let mut sealed = vec![7; 10];
            cipher.seal(offset, &block, &mut sealed);
            prop_assert_eq!(sealed.len(), block.len() + SEAL_OVERHEAD);
            prop_assert_eq!(open(&cipher, offset, &sealed).unwrap(), block);
        }
    }
}
