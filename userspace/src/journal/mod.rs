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
pub mod disk;
pub mod folder;
pub mod group;
pub mod operation;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod stream;
pub mod trim;
pub mod writer;

pub use block::{BlockBuilder, BlockFull, BlockIdentity, SealedBlock};
pub use budget::DiskBudget;
pub use disk::Disk;
pub use folder::{Folder, FolderError};
pub use operation::{Completion, Operation, SegmentNo};

pub use recovery::{Recovery, RecoveryReport, recover};
pub use segment::SegmentId;
pub use stream::{BlockStream, Finding, Position, SegmentSummary};
pub use writer::{Journal, JournalConfig, JournalState};
