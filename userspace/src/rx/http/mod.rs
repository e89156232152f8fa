//! The HTTP door: clicks as JSON, beacons, pixels and the counted redirect, over HTTP/1.1 and TLS.
//!
//! The same workers, admission, ledger and journal as for datagrams; only how a click comes in and how
//! its answer goes out is new. A request becomes clicks ([`clicks`]), these are decided like any
//! others, and the response is sent when all of them are durable.
//!
//! Everything here is a function over bytes: what a head says ([`head`]), what a body holds
//! ([`body`], [`clicks`]), what is answered ([`response`]). No sockets, no clock, no waiting; the worker's
//! ring carries the bytes. What is refused for its form is a [`problem`].

pub mod body;
pub mod catalog;
pub mod clicks;
pub mod head;
pub mod problem;
pub mod response;
pub mod token;
