//! Bytes and meanings shared by every part of Weir: the eBPF program, the daemon, the SDK,
//! the generator, the central tier and the fuzzers.
//!
//! This crate does no I/O, allocates nothing, holds no state and contains no `unsafe`. What it
//! fixes once, nobody else may define again: the wire format ([`wire`]), the packet parser
//! ([`packet`]), the outcomes and reasons ([`reason`]), the rule that decides on a click
//! ([`verdict`]), the row and block layouts ([`row`], [`block`]), the bucket ([`bucket`]), what
//! goes to Kafka ([`record`]), the keys of stores ([`ordered`]), the BPF map layouts ([`maps`]), and a signed impression as text
//! (`token`).
//!
//! Start reading at [`wire`]: it says what a click is.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod block;
pub mod bucket;
pub mod id;
pub mod maps;
pub mod ordered;
pub mod packet;
pub mod reason;
pub mod record;
pub mod row;
pub mod siphash;
pub mod time;
#[cfg(feature = "token")]
pub mod token;
pub mod verdict;
pub mod wire;
