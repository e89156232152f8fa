//! General invalid traffic: what makes a click gross and not billable. It flags and never drops
//! one, and never lets a sender know.
//!
//! [`Lists`] are read on the control side, checked whole and published as one immutable value.
//! [`judge`] is a function over values: it does not allocate, wait, read a clock or touch a file.
//! What it cannot know from one click alone stands in [`Activity`], which its owner hands in.
//! Nothing here knows sockets, the wire, or the ledger, and no address leaves it.
//!
//! Start reading at [`judge`]. [`prefixes`] finds the longest prefix of an address,
//! [`geography`] its country; [`actors`] is the filter of a hundred million known-bad actors;
//! [`robots`] knows user agents; [`activity`] counts clicks by the second and the minute;
//! [`source`] reads lists and names their versions.

pub mod activity;
pub mod actors;
pub mod geography;
pub mod prefixes;
pub mod robots;
pub mod source;

mod flags;
mod lists;

use std::net::IpAddr;

use weir_common::reason::Reason;
use weir_common::time::UnixMs;

pub use activity::{Activity, Limits};
pub use actors::ActorKey;
pub use flags::Flags;
pub use lists::{Lists, LoadError, LoadErrors, Settings};
pub use robots::UserAgent;
pub use source::ListVersion;

/// What is known of a click, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The address of the user's device; none where only a forwarder's is known, for that would
    /// make one actor of all its users.
    pub address: Option<IpAddr>,
    /// What the user's device says it is.
    pub user_agent: UserAgent<'a>,
    /// The country the click names: two capital letters, or two zeros.
    pub country: [u8; 2],
    /// The pseudonymous user key, 0 when there is none.
    pub user_key: u64,
    /// When this node received the click.
    pub received_at: UnixMs,
    /// Whether the sender marks a test.
    pub is_test: bool,
    /// Whether the page was prefetched or prerendered.
    pub is_prefetch: bool,
}

/// Everything that speaks against a click. All checks are made, whatever the first ones find, so
/// the flags of a row are complete; [`Flags::reason`] is the one to count it under.
///
/// Tests and prefetches do not count as activity: nobody clicked.
#[must_use]
pub fn judge(lists: &Lists, activity: &mut Activity, facts: &Facts<'_>) -> Flags {
    let flags =
        Flags::NONE.with(Reason::TestTraffic, facts.is_test).with(Reason::Prefetch, facts.is_prefetch);
    let flags = flags.with(Reason::Robot, lists.robots.judge(facts.address, facts.user_agent).is_robot());
    let flags = match facts.address {
        Some(address) => judge_address(lists, flags, address, facts.country),
        None => flags,
    };
    let actors = [facts.address.map(ActorKey::address), ActorKey::user(facts.user_key)];
    let counts = !facts.is_test && !facts.is_prefetch;
    actors.iter().flatten().fold(flags, |flags, actor| {
        let is_bad = lists.bad_actors.as_ref().is_some_and(|filter| filter.contains(actor));
        let is_too_much = counts && activity.is_too_much(actor, facts.received_at, lists.activity);
        flags.with(Reason::BadActor, is_bad).with(Reason::Activity, is_too_much)
    })
}

#[inline]
fn judge_address(lists: &Lists, flags: Flags, address: IpAddr, country: [u8; 2]) -> Flags {
    let is_in =
        |list: &Option<prefixes::PrefixList>| list.as_ref().is_some_and(|list| list.contains(address));
    let is_elsewhere = lists.geography.as_ref().is_some_and(|table| table.contradicts(address, country));
    flags
        .with(Reason::DataCentre, is_in(&lists.data_centres))
        .with(Reason::BadPrefix, is_in(&lists.bad_prefixes))
        .with(Reason::ImpossibleGeography, is_elsewhere)
}

#[cfg(test)]
mod tests;
