//! What outlives the rows of a segment: which impressions were clicked, in a few bytes each.
//!
//! Dedupe has to know an impression for a day; forwarding and buckets need its row for minutes.
//! So each segment that is closed gets a *digest* beside it: an immutable file with the id and
//! the one byte of state of each impression in it. The segment may then go long before its
//! impressions expire, and a start reads two bytes where it read a hundred.
//!
//! A digest is there or not there, whole or known to be damaged: it gets its name when it is
//! complete and synced, and every byte is under a CRC. It says nothing that the segment did not,
//! and states are joined by OR, so reading both, or one twice, changes nothing. Nothing here
//! deletes a segment: that is [`crate::journal::trim`].
//!
//! Start reading at [`header`] for the bytes of a file, at [`chunk`] for those of an impression,
//! at [`write`] for how one comes to be. [`digester`] is the thread that writes them, [`shelf`]
//! what is known of those in a folder.

pub mod chunk;
pub mod digester;
pub mod header;
pub mod read;
pub mod shelf;
pub mod write;

pub use digester::{Digester, Digests};
pub use header::{DigestFault, DigestHeader, GROUPS};
pub use read::{Digest, DigestError};
pub use shelf::Shelf;
pub use write::{WriteError, write_digest};
