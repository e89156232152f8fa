//! The file of a filter, and the filter as workers ask it.
//!
//! A header, a table of shards, the packed fingerprints. Two checksums cover every octet. The file
//! is read once, checked on the way, into memory of its own that is then read-only: so what
//! was checked is what is asked, whatever becomes of the file, and the memory is on huge pages
//! where the kernel has them. A mapping of the file itself would be neither: whoever truncates it
//! would end the process, and its pages are small.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::fuse::{self, FINGERPRINT_BITS, Shard};
use super::key::ActorKey;
use crate::operator_file::{self, FileFault};
use crate::traffic::source::{ListVersion, VERSION_LEN_MAX};

/// The most different actors of one filter.
pub const ACTORS_MAX: u64 = 100_000_000;
/// The largest file of a filter.
pub const FILTER_BYTES_MAX: u64 = 180_000_000;
/// More shards than a hundred million keys make.
pub(super) const SHARDS_MAX: u32 = 128;

const MAGIC: [u8; 8] = *b"WEIRBADA";
const VERSION: u32 = 1;
/// Read, checked and kept at once: small enough to stay in a cache between the three.
const CHUNK_BYTES: usize = 1 << 20;

/// The header. Little-endian, fixed offsets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    /// CRC-32C of the header, this field zero, and the table of shards.
    pub(super) head_crc: U32,
    /// CRC-32C of the fingerprints.
    pub(super) data_crc: U32,
    pub(super) fingerprint_bits: U32,
    /// Different actors in it.
    pub(super) actors: U64,
    /// Slots of all shards.
    pub(super) slots: U64,
    pub(super) built_at_ms: U64,
    /// The SipHash key of the actors' hashes.
    pub(super) key: [u8; 16],
    pub(super) shards: U32,
    /// CRC-32C of the list it was built from.
    pub(super) list_crc: U32,
    /// What the list says of its version, filled up with zeros.
    pub(super) list_version: [u8; VERSION_LEN_MAX],
}

pub(super) const HEADER_LEN: usize = size_of::<Header>();
const _: () = assert!(HEADER_LEN == 136);
/// Octets of the longest header and table.
const HEAD_LEN_MAX: usize = HEADER_LEN + SHARDS_MAX as usize * size_of::<Shard>();

impl Header {
    /// A header of this version with nothing behind it.
    pub(super) fn new() -> Self {
        Self {
            magic: MAGIC,
            version: VERSION.into(),
            fingerprint_bits: FINGERPRINT_BITS.into(),
            key: {
                let mut key = [0; 16];
                key[..8].copy_from_slice(&fuse::FILE_KEY.k0.to_le_bytes());
                key[8..].copy_from_slice(&fuse::FILE_KEY.k1.to_le_bytes());
                key
            },
            ..Self::new_zeroed()
        }
    }

    /// The checksum of this header with this table.
    pub(super) fn crc(&self, table: &[Shard]) -> u32 {
        let clean = Self { head_crc: 0.into(), ..*self };
        crc32c::crc32c_append(crc32c::crc32c(clean.as_bytes()), table.as_bytes())
    }

    fn table_len(&self) -> usize {
        self.shards.get() as usize * size_of::<Shard>()
    }
}

/// Why a filter cannot be used. Whoever judges by an older one goes on with it.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum FilterError {
    /// cannot read the filter {path}: {source}; correct its path, or the file
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileFault,
    },
    /// {path} is no filter of known-bad actors; build one with `weir actors build`
    NotAFilter {
        /// The file.
        path: PathBuf,
    },
    /// the filter {path} has version {version}, this program reads version 1; build it again with `weir actors build`
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// the filter {path} has {found} octets and should have {expected}; copy it again, or build it again
    Length {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: u64,
        /// How many its header says.
        expected: u64,
    },
    /// the filter {path} is damaged: {what}; copy it again, or build it again
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// no memory of {bytes} octets for the filter {path}: {source}; free memory, or leave the filter out
    Memory {
        /// The file.
        path: PathBuf,
        /// How much it needs.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Known-bad actors: says of everyone who is listed that he is, and of one in 4,096 others too.
#[derive(Debug)]
pub struct ActorFilter {
    key: SipKey,
    table: Box<[Shard]>,
    /// None when there are no slots.
    fingerprints: Option<Mmap>,
    built_at: UnixMs,
    version: ListVersion,
}

impl ActorFilter {
    /// Reads and checks a whole file, some 170 MB at the most. Never on a worker.
    ///
    /// # Errors
    /// When it is no sound filter.
    pub fn open(name: &'static str, path: &Path, activated_at: UnixMs) -> Result<Self, FilterError> {
        let refused = |source| FilterError::Read { path: path.to_owned(), source };
        let mut file = operator_file::open(path).map_err(refused)?;
        let found = file.metadata().map_err(|error| refused(error.into()))?.len();
        let (header, table) = read_head(path, &mut file, found)?;
        let fingerprints = read_fingerprints(path, &mut file, &header)?;
        let version = ListVersion {
            name,
            version: text(&header.list_version),
            crc32c: header.list_crc.get(),
            entries: header.actors.get(),
            activated_at,
        };
        let built_at = UnixMs(header.built_at_ms.get());
        Ok(Self { key: SipKey::from_bytes(header.key), table, fingerprints, built_at, version })
    }

    /// Whether an actor is listed. Touches three lines of memory that do not wait for each other.
    #[inline]
    #[must_use]
    pub fn contains(&self, actor: &ActorKey) -> bool {
        self.contains_name(self.name(actor))
    }

    /// The name of an actor in this filter.
    #[inline]
    pub(in crate::traffic) const fn name(&self, actor: &ActorKey) -> u64 {
        actor.hash(&self.key)
    }

    /// [`Self::contains`] of a name. So short that a core has many of them under way at once, when
    /// the names are worked out before.
    #[inline]
    pub(in crate::traffic) fn contains_name(&self, name: u64) -> bool {
        let place = ((u128::from(name) * self.table.len() as u128) >> 64) as usize;
        match (self.table.get(place), &self.fingerprints) {
            (Some(shard), Some(fingerprints)) => fuse::contains(shard, fingerprints, name),
            _ => false,
        }
    }

    /// Whether the user at this address is listed.
    #[inline]
    #[must_use]
    pub fn contains_address(&self, address: IpAddr) -> bool {
        self.contains(&ActorKey::address(address))
    }

    /// Which list it was built from.
    #[must_use]
    pub const fn version(&self) -> &ListVersion {
        &self.version
    }

    /// When it was built, by the clock of the machine that did.
    #[must_use]
    pub const fn built_at(&self) -> UnixMs {
        self.built_at
    }

    /// Octets of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.table) + self.fingerprints.as_ref().map_or(0, |map| map.len())
    }
}

fn text(padded: &[u8]) -> String {
    let len = padded.iter().position(|&byte| byte == 0).unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..len]).into_owned()
}

/// Header and table, with everything checked that the fingerprints are not needed for.
fn read_head(path: &Path, file: &mut File, found: u64) -> Result<(Header, Box<[Shard]>), FilterError> {
    let mut head = Vec::with_capacity(HEADER_LEN);
    read_more(path, file, HEADER_LEN, &mut head)?;
    let path = || path.to_owned();
    if head.first_chunk() != Some(&MAGIC) {
        return Err(FilterError::NotAFilter { path: path() });
    }
    let damaged = |what| FilterError::Damaged { path: path(), what };
    let Ok(header) = Header::read_from_bytes(&head) else {
        return Err(FilterError::Length { path: path(), found, expected: HEADER_LEN as u64 });
    };
    if header.version.get() != VERSION {
        return Err(FilterError::OtherVersion { path: path(), version: header.version.get() });
    }
    let shards = header.shards.get();
    if shards == 0 || shards > SHARDS_MAX || header.slots.get() > FILTER_BYTES_MAX {
        return Err(damaged("its header is out of range"));
    }
    head.clear();
    read_more(&path(), file, header.table_len(), &mut head)?;
    let expected = (HEADER_LEN + header.table_len()) as u64 + fuse::packed_len(header.slots.get());
    if found != expected {
        return Err(FilterError::Length { path: path(), found, expected });
    }
    let table = <[Shard]>::ref_from_bytes(&head).map_err(|_| damaged("its table is cut"))?;
    if header.crc(table) != header.head_crc.get() {
        return Err(damaged("the checksum of its header is wrong"));
    }
    let slots = header.slots.get();
    let sound = header.fingerprint_bits.get() == FINGERPRINT_BITS
        && slots.is_multiple_of(2)
        && expected <= FILTER_BYTES_MAX
        && table.iter().all(|shard| shard.is_sound(slots));
    if !sound {
        return Err(damaged("its header contradicts itself"));
    }
    Ok((header, table.into()))
}

/// Reads at most `len` octets; fewer at the end of the file.
fn read_more(path: &Path, file: &mut File, len: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
    debug_assert!(len <= HEAD_LEN_MAX);
    let read = file.take(len as u64).read_to_end(out);
    read.map(drop).map_err(|error| FilterError::Read { path: path.to_owned(), source: error.into() })
}

/// Reads and checks the fingerprints chunk by chunk, then makes them read-only.
fn read_fingerprints(path: &Path, file: &mut File, header: &Header) -> Result<Option<Mmap>, FilterError> {
    let bytes = fuse::packed_len(header.slots.get());
    if bytes == 0 {
        return Ok(None);
    }
    let no_memory = |source| FilterError::Memory { path: path.to_owned(), bytes, source };
    let mut memory = MmapMut::map_anon(bytes as usize).map_err(no_memory)?;
    #[cfg(target_os = "linux")]
    // A kernel without huge pages says so; small ones are slower, not wrong.
    let _ = memory.advise(memmap2::Advice::HugePage);
    let mut crc = 0;
    for chunk in memory.chunks_mut(CHUNK_BYTES) {
        let read = file.read_exact(chunk);
        read.map_err(|error| FilterError::Read { path: path.to_owned(), source: error.into() })?;
        crc = crc32c::crc32c_append(crc, chunk);
    }
    if crc != header.data_crc.get() {
        let what = "the checksum of its fingerprints is wrong";
        return Err(FilterError::Damaged { path: path.to_owned(), what });
    }
    memory.make_read_only().map(Some).map_err(no_memory)
}
