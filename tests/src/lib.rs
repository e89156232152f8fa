//! What labs share: a node and a generator as real processes, each in a folder of its own.
//!
//! Everything a lab starts ends with it, also when it fails. Nothing here decides what is right;
//! the labs beside this crate do. Start reading at [`Node`].
#![forbid(unsafe_code)]

pub mod ansible;
pub mod anycast;
pub mod archived;
pub mod browser;
pub mod central;
pub mod clickhouse;
pub mod clicks;
pub mod clock;
mod disk;
pub mod door;
mod faults;
mod generator;
pub mod kafka;
pub mod keeper;
mod node;
pub mod nspawn;
mod port;
pub mod postgres;
mod process;
pub mod prometheus;
pub mod sim;
pub mod topics;
pub mod veth;

pub use clicks::now_ms;
pub use disk::{Ballast, SmallDisk};
pub use faults::{FaultyDisk, Line, used_after_failure};
pub use generator::{Aim, Generator, Load, Report};
pub use node::{Node, NodeFolder, Setup};
pub use port::{free_ports, get, post};
pub use process::{binary, is_built};

/// Whether the long forms of the tests are asked for: `cargo xtask test --soak`.
#[must_use]
pub fn is_soak() -> bool {
    std::env::var_os("WEIR_SOAK").is_some()
}

/// The seed of a lab's random choices: that of `WEIR_SEED`, or a fresh one. Printed, so that a run
/// can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let asked = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or_else(rand::random);
    println!("seed {seed}: repeat with WEIR_SEED={seed}");
    seed
}
