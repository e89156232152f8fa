//! General invalid traffic: what flags a click as gross and not billable. It never drops one.
//!
//! Lists are read on the control side, checked whole, and published as one immutable value; a
//! worker judges by it without waiting, allocating, or looking at a clock. Nothing here knows
//! sockets, clicks on the wire, or the ledger.

pub mod activity;
pub mod actors;
pub mod geography;
pub mod prefixes;
pub mod robots;
pub mod source;
