//! The pinned loop that ties the rooms together.

pub mod handoff;
pub mod reply;
pub mod shard_map;
