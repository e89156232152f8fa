//! General invalid traffic: what makes a click gross and not billable. It flags and never drops
//! one, and never lets a sender know.
//!
//! [`Lists`] are read on the control side, checked whole and published as one immutable value.
//! [`judge`] is a function over values: it does not wait, read a clock or touch a file, and does
//! not allocate once its output has room. What it cannot know from one click alone stands in a
//! [`Memory`], which its owner hands in.
//! Nothing here knows sockets, the wire, or the ledger, and no address leaves it.
//!
//! Start reading at [`judge`]. [`prefixes`] finds the longest prefix of an address,
//! [`geography`] its country; [`actors`] is the filter of a hundred million known-bad actors;
//! [`robots`] knows user agents; [`activity`] counts clicks by the second and the minute;
//! [`source`] reads lists and names their versions. A worker's end of it all is [`Judge`]; what the
//! workers count together is a [`Crowd`].

pub mod activity;
pub mod actors;
pub mod geography;
pub mod prefixes;
pub mod robots;
pub mod source;

mod agents;
mod crowd;
mod flags;
mod judge;
mod lists;

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::reason::Reason;
use weir_common::time::UnixMs;

use actors::ActorFilter;
use agents::Agents;
use prefixes::PrefixList;

pub use activity::{Counted, Limits};
pub use actors::ActorKey;
pub use crowd::Crowd;
pub use flags::Flags;
pub use judge::Judge;
pub use lists::{Lists, LoadError, LoadErrors, Refractory, Settings};
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
    /// What the click says of itself: that it is a test, or a prefetch.
    pub said: Flags,
    /// Whether this very click has not come before; a transport retry is no traffic.
    pub is_new: bool,
}

/// What was found of a click.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Everything that speaks against it.
    pub flags: Flags,
    /// Clicks of its user in the minute before, where that is counted.
    pub user_clicks_minute: Option<u8>,
    /// Clicks from its address in the minute before, where that is counted.
    pub address_clicks_minute: Option<u8>,
}

/// What a worker remembers between clicks, and what all of them remember together. Of fixed size.
#[derive(Debug)]
pub struct Memory {
    crowd: Option<Arc<Crowd>>,
    forgotten: Forgotten,
    agents: Agents,
    /// The rules that `agents` is of.
    rules: u32,
}

impl Memory {
    /// A worker's, beside what it shares with the others where activity is counted.
    #[must_use]
    pub fn new(crowd: Option<Arc<Crowd>>) -> Self {
        Self { crowd, forgotten: Forgotten::default(), agents: Agents::new(), rules: 0 }
    }
}

/// What activity does not know, since the start: too much may go unmarked for it, never too little be marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Users and addresses whose click was not counted, because another worker was stopped while it counted.
    pub missed: u64,
    /// Users and addresses that lost clicks of their last minute to others. When this grows quickly the
    /// table is too small for its traffic.
    pub pushed_out: u64,
}

/// Clicks that are judged together: while one waits for its memory the next are under way. More do
/// not fit what a core has under way.
const LANES: usize = 32;

/// What is found of each click, in order, appended to `out`.
/// All checks are made, whatever the first ones find, so the flags of a row are complete;
/// [`Flags::reason`] is the one to count it under.
///
/// Tests, prefetches and transport retries do not count as activity: nobody clicked.
pub fn judge(lists: &Lists, memory: &mut Memory, facts: &[Facts<'_>], out: &mut Vec<Found>) {
    let rules = lists.rules_version();
    if rules != memory.rules {
        memory.agents.clear();
        memory.rules = rules;
    }
    out.reserve(facts.len());
    for group in facts.chunks(LANES) {
        let mut found = [Found::default(); LANES];
        for (found, facts) in found.iter_mut().zip(group) {
            found.flags = judge_alone(lists, &mut memory.agents, facts);
        }
        if let Some(filter) = &lists.bad_actors {
            judge_actors(filter, group, &mut found);
        }
        judge_activity(lists.activity, memory, group, &mut found);
        out.extend_from_slice(&found[..group.len()]);
    }
}

/// What can be said of a click by its own fields and small tables.
#[inline]
fn judge_alone(lists: &Lists, agents: &mut Agents, facts: &Facts<'_>) -> Flags {
    let by_agent = agents.judge(&lists.robots, facts.user_agent);
    let is_robot = lists.robots.with_address(by_agent, facts.address).is_robot();
    let flags = facts.said.with(Reason::Robot, is_robot);
    let Some(address) = facts.address else { return flags };
    let is_in = |list: &Option<PrefixList>| list.as_ref().is_some_and(|list| list.contains(address));
    let is_elsewhere =
        lists.geography.as_ref().is_some_and(|table| table.contradicts(address, facts.country));
    flags
        .with(Reason::DataCentre, is_in(&lists.data_centres))
        .with(Reason::BadPrefix, is_in(&lists.bad_prefixes))
        .with(Reason::ImpossibleGeography, is_elsewhere)
}

/// Names first and memory after them: short loops keep more of it on its way.
fn judge_actors(filter: &ActorFilter, group: &[Facts<'_>], found: &mut [Found; LANES]) {
    let mut names = [[None; 2]; LANES];
    for (names, facts) in names.iter_mut().zip(group) {
        *names = facts.actors().map(|actor| actor.map(|actor| filter.name(&actor)));
    }
    for (found, names) in found.iter_mut().zip(&names) {
        let is_bad = names.map(|name| name.is_some_and(|name| filter.contains_name(name)));
        found.flags = found.flags.with(Reason::BadActor, is_bad[0] | is_bad[1]);
    }
}

fn judge_activity(limits: Limits, memory: &mut Memory, group: &[Facts<'_>], found: &mut [Found; LANES]) {
    let Some(crowd) = memory.crowd.as_deref().filter(|_| limits != Limits::NONE) else { return };
    let forgotten = &mut memory.forgotten;
    for (found, facts) in found.iter_mut().zip(group).filter(|(_, facts)| facts.is_activity()) {
        let flags = &mut found.flags;
        let [address, user] = facts.actors().map(|actor| {
            let Some(counted) = crowd.count(crowd.name(&actor?), facts.received_at, limits) else {
                forgotten.missed += 1;
                return None;
            };
            *flags = flags.with(Reason::Activity, counted.is_too_much);
            forgotten.pushed_out += u64::from(counted.has_pushed_out);
            Some(counted.in_minute)
        });
        (found.address_clicks_minute, found.user_clicks_minute) = (address, user);
    }
}

impl Facts<'_> {
    /// Whose click it is: by address and by user key.
    #[inline]
    fn actors(&self) -> [Option<ActorKey>; 2] {
        [self.address.map(ActorKey::address), ActorKey::user(self.user_key)]
    }

    /// Whether somebody clicked.
    #[inline]
    const fn is_activity(&self) -> bool {
        self.is_new && self.said.is_empty()
    }
}

#[cfg(test)]
mod tests;
