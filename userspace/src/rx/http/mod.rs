//! The HTTP door: clicks as JSON, beacons, pixels and the counted redirect, over HTTP/1.1 and TLS.
//!
//! The same workers, admission, ledger and journal as for datagrams; only how a click comes in and how
//! its answer goes out is new. A request becomes clicks ([`clicks`]), these are decided like any
//! others, and the response is sent when all of them are durable.
//!
//! Most here is a function over bytes: what a head says ([`head`]), what a body holds ([`body`],
//! [`clicks`]), what a request asks for ([`intake`]), what is answered ([`response`], [`problem`]), and what a
//! [`connection`] waits for. No clock, no waiting. Only [`listener`] opens sockets; the worker's ring
//! carries the bytes, and the [`door`] stands between ring and desk. Start reading there.

pub mod body;
pub mod catalog;
pub mod clicks;
pub mod connection;
pub mod door;
pub mod head;
pub mod intake;
pub mod listener;
pub mod problem;
pub mod requests;
pub mod response;
pub mod tls;
