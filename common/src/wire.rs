//! The wire format, version 1: what a datagram of clicks and its ack look like.
//!
//! Little-endian, fixed offsets, every reserved bit zero and checked. `docs/protocol.md` is the
//! normative text; `tests/vectors/` holds byte-exact examples that every implementation passes.
//!
//! Reading is in two steps. [`check_header`] needs only the 24 header bytes and the payload's
//! length, so the eBPF program and the daemon share it. [`Datagram::parse`] then walks the
//! clicks: it either accepts the structure of the whole datagram or none of it. Faults within
//! one click ([`Click::check`]) cost only that click.

mod ack;

use core::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::ack::{ACK_HEADER_LEN, ACK_MAGIC, Ack, AckHeader, AckStatus, Acks};
use crate::id::{ImpressionId, SHARD_BITS, SHARDS, Shard};
use crate::reason::Reason;
use crate::siphash::{SipKey, siphash24};

/// First four bytes of a datagram of clicks.
pub const MAGIC: [u8; 4] = *b"WEIR";
/// The version this crate speaks.
pub const VERSION: u8 = 1;
/// The largest UDP payload a sender uses: 1,500 bytes less 20 (IPv4) and 8 (UDP).
pub const MAX_PAYLOAD: usize = 1472;
/// The largest UDP payload that passes a 1,500-byte path over IPv6 too: 1,500 less 40 and 8. A
/// sender that does not know which it is on uses this: a fragment is dropped.
pub const MAX_PAYLOAD_V6: usize = 1452;
/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Bytes of a click's fixed part.
pub const CLICK_LEN: usize = size_of::<Click>();
/// The longest extension of one click that still fits a UDP payload.
pub const MAX_EXTENSION: usize = MAX_PAYLOAD - HEADER_LEN - CLICK_LEN;
/// The highest price of one click, in micros: a million units of currency, far above any real one
/// in any currency, and far below what could wrap the sum of a bucket.
pub const MAX_PRICE_MICROS: u64 = 1_000_000_000_000;

const _: () = assert!(HEADER_LEN == 24 && CLICK_LEN == 96);
// The promise of the protocol: at least 14 plain clicks fit one payload.
const _: () = assert!((MAX_PAYLOAD_V6 - HEADER_LEN) / CLICK_LEN >= 14);
// An ack with one status byte a click can never be larger than its request.
const _: () = assert!(ACK_HEADER_LEN < HEADER_LEN + CLICK_LEN);
// A bucket sums the prices of its accepted clicks in 64 bits: wrapping takes more than 18 million
// of them at the highest price, all for one ad within one minute, a bill of 18 trillion units.
const _: () = assert!(u64::MAX / MAX_PRICE_MICROS > 18_000_000);
// The signed part is the click's first 48 bytes, so that six loads gather it.
const _: () = assert!(offset_of!(Click, tag) == SIGNED_WORDS * 8);

/// The header of a datagram of clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// [`VERSION`].
    pub version: u8,
    /// Reserved, zero.
    pub flags: u8,
    /// Number of clicks, at least 1.
    pub count: u8,
    /// How many leading bits of `shard` all clicks share, 0 to 10.
    pub shared_bits: u8,
    /// The shard all clicks share in its leading bits; the other bits are zero.
    pub shard: U16,
    /// Bytes of the datagram, this header included.
    pub total_len: U16,
    /// The sender's own number; 0 when it has none.
    pub source_id: U32,
    /// Chosen by the sender, echoed in the ack.
    pub batch_id: U64,
}

impl Header {
    /// The header of a datagram of `count` clicks that fill `clicks_len` octets, extensions included: of this
    /// version, with no reserved bit set, and no shared shard, source or batch yet. Nothing else fills these in.
    ///
    /// `clicks_len` is at most 65,511, so that the whole has a length of 16 bits.
    #[must_use]
    pub const fn new(count: u8, clicks_len: usize) -> Self {
        debug_assert!(HEADER_LEN + clicks_len <= u16::MAX as usize);
        Self {
            magic: MAGIC,
            version: VERSION,
            flags: 0,
            count,
            shared_bits: 0,
            shard: U16::ZERO,
            total_len: U16::new((HEADER_LEN + clicks_len) as u16),
            source_id: U32::ZERO,
            batch_id: U64::ZERO,
        }
    }
}

/// The fixed part of a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Click {
    /// The impression that was clicked. Signed, as are the next six fields.
    pub impression: ImpressionId,
    /// The ad.
    pub ad: U64,
    /// The price of one click, in millionths of the account's currency unit, at most
    /// [`MAX_PRICE_MICROS`].
    pub price_micros: U64,
    /// The campaign.
    pub campaign: U32,
    /// The creative.
    pub creative: U32,
    /// The placement.
    pub placement: U32,
    /// The publisher.
    pub publisher: U32,
    /// SipHash-2-4 tag over the 48 bytes before it; zero for a foreign id.
    pub tag: U64,
    /// A pseudonymous user key, 0 when there is none.
    pub user_key: U64,
    /// When the user clicked, by the sender's clock, in ms since the Unix epoch.
    pub clicked_at_ms: U64,
    /// Latitude in millionths of a degree, when [`click_flags::POSITION`] is set, else 0.
    pub latitude_e6: I32,
    /// Longitude in millionths of a degree, when [`click_flags::POSITION`] is set, else 0.
    pub longitude_e6: I32,
    /// Where on the creative, in pixels from the left, when [`click_flags::POINT`] is set, else 0.
    pub x: U16,
    /// Where on the creative, in pixels from the top, when [`click_flags::POINT`] is set, else 0.
    pub y: U16,
    /// ISO 3166-1 alpha-2 in capitals, or two zero bytes.
    pub country: [u8; 2],
    /// Device class; the numbers stand in `docs/protocol.md`.
    pub device: u8,
    /// Operating system; the numbers stand in `docs/protocol.md`.
    pub os: u8,
    /// Which click on this impression, from 0.
    pub ordinal: u8,
    /// [`click_flags`].
    pub flags: u8,
    /// Bytes of the extension that follows.
    pub extension_len: U16,
    /// Reserved, zero.
    pub reserved: U32,
}

/// Bits of [`Click::flags`].
pub mod click_flags {
    /// The impression id is foreign: any 128 bits, unsigned.
    pub const FOREIGN: u8 = 1 << 0;
    /// The sender marks a test.
    pub const TEST: u8 = 1 << 1;
    /// The page was prefetched or prerendered.
    pub const PREFETCH: u8 = 1 << 2;
    /// Latitude and longitude are set.
    pub const POSITION: u8 = 1 << 3;
    /// `x` and `y` are set.
    pub const POINT: u8 = 1 << 4;
    /// All bits that have a meaning.
    pub const KNOWN: u8 = FOREIGN | TEST | PREFETCH | POSITION | POINT;
}

/// Fields of a click's extension. Each is type u8, length u16, bytes; types rise strictly.
pub mod extension {
    /// User agent, at most 512 bytes.
    pub const USER_AGENT: u8 = 1;
    /// Referrer, at most 1,024 bytes.
    pub const REFERRER: u8 = 2;
    /// Session id, at most 64 bytes.
    pub const SESSION: u8 = 3;
    /// Conversion id, at most 64 bytes.
    pub const CONVERSION: u8 = 4;
    /// Bytes before each field's own.
    pub const FIELD_HEADER_LEN: usize = 3;

    /// The most bytes a field of this type may have; `None` for an unknown type.
    #[must_use]
    pub const fn max_len(kind: u8) -> Option<usize> {
        match kind {
            USER_AGENT => Some(512),
            REFERRER => Some(1024),
            SESSION | CONVERSION => Some(64),
            _ => None,
        }
    }

    /// The first field of an extension: its type, its bytes, and what follows it. `None` at the end, and
    /// where a field is cut off.
    #[inline(always)]
    #[must_use]
    pub fn split_field(extension: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (&[kind, len_low, len_high], after) = extension.split_first_chunk()?;
        let (field, rest) = after.split_at_checked(u16::from_le_bytes([len_low, len_high]) as usize)?;
        Some((kind, field, rest))
    }
}

/// Words of the signed part.
pub const SIGNED_WORDS: usize = 6;

/// What [`check_header`] learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFacts {
    /// Number of clicks, at least 1.
    pub count: u8,
    /// The shard the sender names; only its leading `shared_bits` bits mean anything.
    pub shard: Shard,
    /// How many leading bits all clicks share.
    pub shared_bits: u8,
}

/// Checks the 24 header bytes against the payload's length.
///
/// # Errors
/// The reason the datagram is malformed. The order of the checks is part of the protocol: magic,
/// version, flags, length, count, shard.
#[inline(always)]
pub const fn check_header(bytes: &[u8; HEADER_LEN], payload_len: usize) -> Result<HeaderFacts, Reason> {
    // By fields, not by bytes: the eBPF program has no other way to load more than a byte at once.
    let header: Header = zerocopy::transmute!(*bytes);
    if u32::from_le_bytes(header.magic) != u32::from_le_bytes(MAGIC) {
        return Err(Reason::BadMagic);
    }
    if header.version != VERSION {
        return Err(Reason::BadVersion);
    }
    if header.flags != 0 {
        return Err(Reason::BadFlags);
    }
    let total_len = header.total_len.get() as usize;
    if total_len != payload_len {
        return Err(Reason::BadLength);
    }
    let count = header.count;
    if count == 0 || HEADER_LEN + count as usize * CLICK_LEN > total_len {
        return Err(Reason::BadCount);
    }
    let shared_bits = header.shared_bits;
    let shard = header.shard.get();
    if shared_bits as u32 > SHARD_BITS || shard as usize >= SHARDS {
        return Err(Reason::BadShard);
    }
    if shard & ((1 << (SHARD_BITS - shared_bits as u32)) - 1) != 0 {
        return Err(Reason::BadShard);
    }
    Ok(HeaderFacts { count, shard: Shard(shard), shared_bits })
}

/// A datagram whose structure is sound: header checked, clicks add up to its length.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    header: &'a Header,
    facts: HeaderFacts,
    clicks: &'a [u8],
}

/// A datagram that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDatagram {
    /// Why.
    pub reason: Reason,
    /// How many clicks it claims: the header's count once the header is sound, else 1.
    pub clicks: u8,
    /// The batch id to echo, once the header is sound.
    pub batch_id: Option<u64>,
}

impl<'a> Datagram<'a> {
    /// Reads the structure of a payload.
    ///
    /// # Errors
    /// The reason and the number of clicks it costs.
    pub fn parse(payload: &'a [u8]) -> Result<Self, BadDatagram> {
        let bad = |reason| BadDatagram { reason, clicks: 1, batch_id: None };
        let Some(bytes) = payload.first_chunk::<HEADER_LEN>() else {
            return Err(bad(Reason::HeaderShort));
        };
        let facts = check_header(bytes, payload.len()).map_err(bad)?;
        let Ok((header, clicks)) = Header::ref_from_prefix(payload) else {
            return Err(bad(Reason::HeaderShort));
        };
        let datagram = Self { header, facts, clicks };
        if datagram.adds_up() {
            Ok(datagram)
        } else {
            let batch_id = Some(header.batch_id.get());
            Err(BadDatagram { reason: Reason::ClickCut, clicks: facts.count, batch_id })
        }
    }

    /// Whether the counted clicks with their extensions fill the datagram exactly.
    fn adds_up(&self) -> bool {
        let mut rest = self.clicks;
        for _ in 0..self.facts.count {
            let Ok((click, after)) = Click::ref_from_prefix(rest) else { return false };
            let Some(after) = after.get(click.extension_len.get() as usize..) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a Header {
        self.header
    }

    /// What the header says of count and shard.
    #[must_use]
    pub const fn facts(&self) -> HeaderFacts {
        self.facts
    }

    /// The clicks in order, each with its extension.
    #[must_use]
    pub const fn clicks(&self) -> Clicks<'a> {
        Clicks { rest: self.clicks, left: self.facts.count }
    }
}

/// The clicks of a [`Datagram`].
#[derive(Clone, Debug)]
pub struct Clicks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> Iterator for Clicks<'a> {
    type Item = (&'a Click, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (click, after) = Click::ref_from_prefix(self.rest).ok()?;
        let (extension, rest) = after.split_at_checked(click.extension_len.get() as usize)?;
        self.rest = rest;
        Some((click, extension))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Clicks<'_> {}

impl Click {
    /// A click with every field zero.
    #[must_use]
    pub fn zeroed() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// Whether the impression id is foreign.
    #[inline]
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        self.flags & click_flags::FOREIGN != 0
    }

    /// The shard that owns this click, by its impression.
    #[inline]
    #[must_use]
    pub const fn shard(&self) -> Shard {
        if self.is_foreign() { self.impression.foreign_shard() } else { self.impression.issued_shard() }
    }

    /// The six words under the tag.
    #[inline]
    #[must_use]
    pub const fn signed_words(&self) -> [u64; SIGNED_WORDS] {
        let [id_low, id_high] = self.impression.words();
        [
            id_low,
            id_high,
            self.ad.get(),
            self.price_micros.get(),
            self.campaign.get() as u64 | (self.creative.get() as u64) << 32,
            self.placement.get() as u64 | (self.publisher.get() as u64) << 32,
        ]
    }

    /// The tag this click must carry under `key`.
    #[inline]
    #[must_use]
    pub const fn expected_tag(&self, key: &SipKey) -> u64 {
        siphash24(key, &self.signed_words())
    }

    /// Checks the fields of one click and its extension.
    ///
    /// # Errors
    /// The reason this click, and only this one, is malformed.
    #[inline]
    pub fn check(&self, extension: &[u8]) -> Result<(), Reason> {
        if self.flags & !click_flags::KNOWN != 0 || self.reserved.get() != 0 {
            return Err(Reason::ReservedBits);
        }
        if self.is_foreign() && self.tag.get() != 0 {
            return Err(Reason::ForeignTag);
        }
        let capitals = self.country[0].is_ascii_uppercase() && self.country[1].is_ascii_uppercase();
        if self.country != [0, 0] && !capitals {
            return Err(Reason::BadCountry);
        }
        if !self.coordinates_are_sound() {
            return Err(Reason::BadCoordinates);
        }
        if self.price_micros.get() > MAX_PRICE_MICROS {
            return Err(Reason::BadPrice);
        }
        if extension.is_empty() { Ok(()) } else { check_extension(extension) }
    }

    const fn coordinates_are_sound(&self) -> bool {
        let (latitude, longitude) = (self.latitude_e6.get(), self.longitude_e6.get());
        let position = if self.flags & click_flags::POSITION == 0 {
            latitude == 0 && longitude == 0
        } else {
            latitude >= -90_000_000
                && latitude <= 90_000_000
                && longitude >= -180_000_000
                && longitude <= 180_000_000
        };
        let point = self.flags & click_flags::POINT != 0 || (self.x.get() == 0 && self.y.get() == 0);
        position && point
    }
}

/// Checks that an extension is a list of known fields in strictly rising order.
fn check_extension(mut rest: &[u8]) -> Result<(), Reason> {
    let mut last_kind = 0;
    // At most one round for each known type, since types rise strictly.
    while let Some((kind, field, after)) = extension::split_field(rest) {
        let known = extension::max_len(kind).is_some_and(|max| field.len() <= max);
        if !known || kind <= last_kind {
            return Err(Reason::BadExtension);
        }
        last_kind = kind;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(Reason::BadExtension) }
}
