//! The sender as a library: batch clicks by shard, track acks, resend, keep exact books.
//!
//! [`Sender`] is the core and does no I/O: it has no sockets, no threads and no clock of its own.
//! The caller passes the time with every call, sends what [`Sender::poll_transmit`] hands out, and
//! passes what comes back to [`Sender::on_datagram`]. Memory is bounded by [`Config::batches`] and
//! taken once: no call allocates after [`Sender::new`].
//!
//! [`UdpClient`] is the thin shell: one socket and a [`Sender`]. [`Minter`] is for ad servers: it
//! mints impression ids and signs what the ad server knows about a click, as a click or as the token of a
//! link ([`LinkTemplate`]); [`SequenceFile`] keeps its numbers unique over restarts.
//!
//! What this crate promises: every click offered is at any moment in exactly one place of the
//! [`Ledger`]; its impression and ordinal never change over resends; an ack that was forged,
//! repeated, reordered or meant for somebody else changes nothing. What it never does: block in
//! the core, keep a click past its last attempt, or retry a click that the node called malformed.
//!
//! Start reading at [`Sender`].
//!
//! ```no_run
//! use std::time::Duration;
//! use weir_common::id::{Issuer, KeyId};
//! use weir_common::siphash::SipKey;
//! use weir_sdk::{Config, Minter, Offer, UdpClient};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The ad server mints an impression and signs it ...
//! let key = SipKey::from_bytes(*b"sixteen byte key");
//! let mut minter = Minter::new(Issuer(1), KeyId(1), key, 0);
//! let offer = Offer { ad: 7, campaign: 3, price_micros: 250_000, ..Offer::default() };
//! let mut click = minter.mint(&offer, 1_700_000_000);
//!
//! // ... and when somebody clicks, the click goes to the edge.
//! click.clicked_at_ms = 1_700_000_004_000.into();
//! click.country = *b"DE";
//! let mut client = UdpClient::connect("127.0.0.1:4500".parse()?, Config::default())?;
//! client.offer(&click, &[])?;
//! client.flush(Duration::from_secs(2))?;
//! assert!(client.ledger().closes());
//! # Ok(())
//! # }
//! ```
//!
//! An ad server whose clicks come over HTTP signs links:
//!
//! ```
//! use weir_common::id::{Issuer, KeyId};
//! use weir_common::siphash::SipKey;
//! use weir_sdk::{LinkTemplate, Minter, Offer, SequenceFile};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("weir-sdk-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let now_ms = 1_800_000_000_000_u64;
//! let mut numbers = SequenceFile::open(&folder.join("issuer-1.key-2.sequence"))?;
//! // A run of numbers at a time: one fsync for so many impressions.
//! let run = numbers.take(1024, now_ms)?;
//! let mut minter = Minter::new(Issuer(1), KeyId(2), SipKey::from_bytes(*b"sixteen byte key"), run.start);
//! let template = LinkTemplate::new("https://clicks.example/v1/click/{token}")?;
//! let offer = Offer { ad: 7, price_micros: 250_000, ..Offer::default() };
//! let link = template.fill(&minter.mint_token(&offer, (now_ms / 1000) as u32), &offer);
//! assert!(link.starts_with("https://clicks.example/v1/click/") && minter.next_sequence() < run.end);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod batch;
mod batch_id;
mod client;
mod config;
mod ledger;
mod link;
mod minter;
mod sender;
mod sequence;
mod wheel;

pub use client::{ClientError, UdpClient};
pub use config::{Config, ConfigError};
pub use ledger::{Ledger, Traffic};
pub use link::{AD_MACRO, LinkError, LinkTemplate, PRICE_MACRO, TOKEN_MACRO};
pub use minter::{Minter, Offer};
pub use sender::{Fate, Refused, Sender, Settled, Ticket, Transmit};
pub use sequence::{SequenceError, SequenceFile};
pub use weir_common::token::{Token, TokenError, TokenText};
