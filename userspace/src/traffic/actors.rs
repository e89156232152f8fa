//! The filter of known-bad actors: a hundred million of them in 170 MB.
//!
//! Built offline from a list ([`build()`]), read and checked as a whole ([`ActorFilter::open`]),
//! asked by workers. Who is listed is always found; of the others one in 4,096 is taken for one
//! who is. Start reading at `fuse` for how, at `file` for the octets.

mod build;
mod command;
mod file;
mod fuse;
mod key;

pub use build::{BuildError, Progress, Summary, build};
pub use command::{CommandError, run_build, show};
pub use file::{ACTORS_MAX, ActorFilter, FILTER_BYTES_MAX, FilterError};
pub use key::ActorKey;

#[cfg(test)]
mod tests;
