//! What makes a click durable: blocks, segments, group commit, recovery.
//!
//! A worker fills a [`BlockBuilder`], seals it and submits it to its [`Journal`]. The journal is
//! a state machine without I/O: it yields [`Operation`]s and takes [`Completion`]s, so that the
//! worker's ring, a blocking thread or a simulator can run it. [`Journal::durable`] is the only
//! licence to acknowledge.
//!
//! The journal never deletes what was not forwarded, never retries a failed write or sync on the
//! same descriptor, and never waits. It does not know what a click means: blocks are bytes.
//!
//! Start reading at [`writer`] for the rules of group commit, at [`recovery`] for what happens at
//! a start, at [`segment`] for the bytes of a file.
//!
//! One turn of a worker, with a blocking disk in place of its ring:
//!
//! ```
//! use std::sync::Arc;
//! use weir::admission::Admitted;
//! use weir::journal::{BlockBuilder, Disk, DiskBudget, Folder, Journal, JournalConfig};
//! use weir::ledger::Decision;
//! use weir::traffic::Flags;
//! use weir_common::id::{NodeId, WorkerId};
//! use weir_common::reason::{Outcome, Reason};
//! use weir_common::time::UnixMs;
//! use weir_common::wire::Click;
//!
//! # let data = tempfile::tempdir()?;
//! let folder = Folder::open(data.path(), NodeId(1))?;
//! let budget = Arc::new(DiskBudget::new(10 << 30, folder.bytes_used()?));
//! let config = JournalConfig::new(folder.segments().to_owned(), folder.writer(WorkerId(0)));
//! let mut builder = BlockBuilder::new(config.block_bytes_max);
//! let mut journal = Journal::new(config, budget);
//! let mut disk = Disk::default();
//! disk.drive(&mut journal, 0); // the first segment
//!
//! let now = UnixMs(1_700_000_000_000);
//! let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
//! let decision = Decision { outcome: Outcome::Accepted, reason: Reason::None };
//! if journal.has_room() { // else refuse with `journal_full`, before the ledger decides
//!     builder.begin(journal.next_identity(), now);
//!     builder.push(now, &admitted, &decision, &Click::zeroed(), &[])?;
//!     builder.count(Outcome::Refused, 2);
//!     let block = builder.seal(journal.previous_crc()).expect("a block is open");
//!     journal.submit(block).expect("there is room");
//! }
//! disk.drive(&mut journal, 5);
//! assert!(journal.is_idle()); // durable() has reached submitted(): now acknowledge
//! while let Some(buffer) = journal.reclaim() {
//!     builder.recycle(buffer);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`BlockBuilder`]: crate::journal::BlockBuilder
//! [`Journal`]: crate::journal::Journal
//! [`Operation`]: crate::journal::Operation
//! [`Completion`]: crate::journal::Completion
//! [`Journal::durable`]: crate::journal::Journal::durable
//! [`writer`]: crate::journal::writer
//! [`recovery`]: crate::journal::recovery
//! [`segment`]: crate::journal::segment

pub mod block;
pub mod budget;
mod config;
pub mod disk;
pub mod folder;
pub mod group;
pub mod keys;
#[cfg(test)]
mod noted;
pub mod operation;
pub mod read_ahead;
pub mod recovery;
pub mod scan;
pub mod seal;
mod sealer;
pub mod segment;
pub mod settle;
pub mod spool;
pub mod stream;
pub mod trim;
pub mod writer;

pub use block::{BlockBuilder, BlockFull, BlockIdentity, SealedBlock};
pub use budget::DiskBudget;
pub use config::{JournalConfig, JournalState};
pub use disk::Disk;
pub use folder::{Folder, FolderError, Place};
pub use keys::{DayKeys, KeyError, check_keys};
pub use operation::{Completion, Operation, SegmentNo};

pub use recovery::{Part, Recovery, RecoveryReport, recover, recover_part};
pub use segment::SegmentId;
pub use stream::{BlockStream, Finding, Position, SegmentSummary};
pub use writer::Journal;
