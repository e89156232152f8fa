//! Generated attacks, and honest traffic beside them: who sends what, so that a test can say which share the
//! node flags, refuses, or lets pass.
//!
//! A profile is a list of visits. A visit is one request: the address it comes from, and its clicks, each with its
//! form: what it pretends to be. The numbers of each form are fixed; the seed decides order and contents; ids are
//! new in each run. What must become of a form is not decided here: that is the node's, and its books say it.
//!
//! Addresses are of 127.0.0.0/8, every one of which a Linux host may send from over loopback, so that a node
//! sees as many sources as on a network. [`networks`] says whose they are; lists that know them are in
//! `tests/samples/attack/`.
//!
//! One visit after the other, each answered before the next: order is what is sent. All clicks of one visit are
//! received at one moment; so a burst of one visit meets limits by the second the same on every machine.
//!
//! Start reading at [`Profile`]; `profiles` makes the visits, `send` makes them, [`command`] is the command line.

pub mod command;
pub mod networks;

mod agents;
mod profiles;
mod send;

use std::net::{Ipv4Addr, SocketAddr};

use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::wire::Click;

pub use self::send::Report;

/// What is sent. `docs/methodology.md` says what becomes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// People: at home, in offices, on journeys and behind VPNs
    Clean,
    /// Signatures that are altered, guessed, out of date, or missing
    Forged,
    /// Clicks that came before, sent again by others
    Replayed,
    /// Rows of telephones that click, at one address each row, or patiently
    ClickFarm,
    /// One address, with a new user each click
    OneAddress,
    /// One user from ever new addresses; then new users too
    RotatingAddresses,
    /// Machines in data centres that look like people otherwise
    DataCentre,
    /// Robots that say so, tools, and those that imitate a browser
    Robots,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The address it comes from.
    pub source: Ipv4Addr,
    /// What it brings.
    pub presses: Vec<Press>,
}

/// A click, and what it is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Press {
    /// What it is, in reports.
    pub form: &'static str,
    /// The click.
    pub click: Click,
    /// What the device says it is; nothing where it says nothing.
    pub user_agent: &'static str,
}

/// Whose impressions are clicked, and what decides the rest.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's door, on loopback.
    pub target: SocketAddr,
    /// What to send.
    pub profile: Profile,
    /// The issuer of the impressions.
    pub issuer: Issuer,
    /// Its key's number.
    pub key_id: KeyId,
    /// Its key.
    pub key: SipKey,
    /// Seeds order and contents.
    pub seed: u64,
}

/// Sends a profile and says what was sent and answered. Ends in bounded time: the number of visits is fixed, and
/// each has a bound.
///
/// # Errors
/// The target is not on loopback, cannot be reached, or answers what cannot be read.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    send::run(options)
}
