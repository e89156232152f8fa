//! The pinned loop that ties the rooms together.

pub mod clock;
pub mod handoff;
pub mod phase;
pub mod reply;
pub mod shard_map;
