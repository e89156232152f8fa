//! Where committed blocks and changed buckets go.
//!
//! Every interval the forwarder asks all workers for a flush; each answers with the buckets that
//! changed and the last block they cover, once that block is durable. The forwarder merges the
//! shares, reads the blocks back from the journal and commits both with a checkpoint in one
//! transaction of its [`Sink`]. So after each flush the sink's buckets are a recount of the sink's
//! blocks. From the same blocks it folds the unique users of each ad and minute, which leave as
//! sketches when the minute is final ([`uniques`]).
//!
//! Workers never wait for any of this: a full ring makes them try again later, a failed commit
//! makes nothing but the forwarder wait. The journal is the buffer.
//!
//! Start reading at [`mailbox`] for the worker's side, at [`forwarder`] for the flush, at
//! [`sink`] for what a sink must do.
//!
//! [`Sink`]: crate::forward::Sink
//! [`mailbox`]: crate::forward::mailbox
//! [`forwarder`]: crate::forward::forwarder
//! [`sink`]: crate::forward::sink
//! [`uniques`]: crate::forward::uniques

pub mod batch;
pub mod embedded;
pub mod forwarder;
pub mod kafka;
pub mod losses;
pub mod mailbox;
pub mod merge;
pub mod pace;
pub mod reopening;
mod retention;
pub mod sink;
pub mod split;
mod stop;
pub mod uniques;

pub use batch::{Batch, BatchBlocks, Bucket, Checkpoint, FlushNo};
pub use forwarder::{Counted, Forwarder, LostEnd, Past};
pub use mailbox::{Mailbox, Share, mailboxes};
pub use pace::{ForwarderConfig, Now};
pub use reopening::Reopening;
pub use sink::{Sink, SinkError};
pub use split::Split;
pub use stop::Stop;
pub use uniques::{Closing, Sketch, Uniques, Unsketched};
