//! What labs share: a node and a generator as real processes, each in a folder of its own.
//!
//! Everything a lab starts ends with it, also when it fails. Nothing here decides what is right;
//! the labs beside this crate do. Start reading at [`Node`].
#![forbid(unsafe_code)]

mod generator;
mod node;
mod process;
pub mod sim;

pub use generator::{Generator, Load, Report};
pub use node::{Node, NodeFolder};
pub use process::binary;
