//! A worker's end: the lists as they were published last, and what this worker remembers.
//!
//! New lists are taken when the worker says so, between two blocks, so that a block names the one version of
//! the rules that all its rows were judged by.

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::time::UnixMs;
use weir_common::wire::{Click, extension};

use super::{Crowd, Facts, Flags, Forgotten, Limits, Lists, Memory, UserAgent, judge};
use crate::published::Shared;

/// Judges the clicks that a worker owns.
#[derive(Debug)]
pub struct Judge {
    lists: Shared<Lists>,
    memory: Memory,
    found: Vec<Flags>,
}

impl Judge {
    /// One that has judged nothing yet, beside others that count with it.
    #[must_use]
    pub fn new(lists: Shared<Lists>, crowd: Option<Arc<Crowd>>) -> Self {
        Self { lists, memory: Memory::new(crowd), found: Vec::new() }
    }

    /// Whether there is anything to judge by. Where there is not, what the click says of itself is all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.lists.current().is_plain()
    }

    /// Whether newer lists were published.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.lists.is_outdated()
    }

    /// Takes the newest lists.
    pub fn renew(&mut self) {
        self.lists.get();
    }

    /// The version of the rules it judges by.
    #[must_use]
    pub fn rules(&self) -> u32 {
        self.lists.current().rules_version()
    }

    /// The address of a user; none where it is a forwarder's.
    #[must_use]
    pub fn user_address(&self, source: Option<IpAddr>) -> Option<IpAddr> {
        let forwarders = self.lists.current().forwarders.as_ref();
        source.filter(|&source| forwarders.is_none_or(|list| !list.contains(source)))
    }

    /// Whether it counts who clicks how often.
    #[must_use]
    pub fn counts_activity(&self) -> bool {
        self.lists.current().activity != Limits::NONE
    }

    /// How long after an unsigned click of a user on an ad another one is a repeat, in ms.
    #[must_use]
    pub fn refractory_ms(&self) -> u32 {
        self.lists.current().refractory.0
    }

    /// What matters of a click that came from `source`, as far as the click alone says it.
    #[must_use]
    pub fn facts<'a>(
        &self,
        source: Option<IpAddr>,
        (received_at, said): (UnixMs, Flags),
        click: &Click,
        extension: &'a [u8],
    ) -> Facts<'a> {
        Facts {
            address: self.user_address(source),
            user_agent: user_agent(extension).map_or(UserAgent::Unasked, UserAgent::Sent),
            country: click.country,
            user_key: click.user_key.get(),
            received_at,
            said,
            is_new: true,
        }
    }

    /// What it does not know of activity.
    #[must_use]
    pub const fn forgotten(&self) -> Forgotten {
        self.memory.forgotten
    }

    /// Everything that speaks against each of these clicks, in their order.
    pub fn judge(&mut self, facts: &[Facts<'_>]) -> &[Flags] {
        self.found.clear();
        judge(self.lists.current(), &mut self.memory, facts, &mut self.found);
        &self.found
    }
}

/// The user agent of a click. Its field has the least number, so it is the first one or none.
fn user_agent(extension: &[u8]) -> Option<&[u8]> {
    let (&[kind, len_low, len_high], rest) = extension.split_first_chunk()?;
    let len = usize::from(u16::from_le_bytes([len_low, len_high]));
    (kind == extension::USER_AGENT).then(|| rest.get(..len)).flatten()
}

const _: () = assert!(extension::USER_AGENT == 1);

#[cfg(test)]
mod tests {
    use weir_common::siphash::SipKey;

    use super::*;
    use crate::published::Published;

    const SECRET: SipKey = SipKey { k0: 1, k1: 2 };

    #[test]
    fn the_user_agent_is_found_where_it_is_and_nowhere_else() {
        assert_eq!(user_agent(&[1, 2, 0, b'm', b'z', 3, 1, 0, b's']), Some(&b"mz"[..]));
        for none in [&[][..], &[2, 1, 0, b'r'], &[1, 9, 0, b'm'], &[1, 2]] {
            assert_eq!(user_agent(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_node_without_lists_and_limits_judges_by_the_plain_rules() {
        let published = Published::new(Lists::plain());
        let mut judge = Judge::new(published.reader(), Some(Crowd::new(1000, SECRET)));
        assert_eq!((judge.is_on(), judge.rules()), (false, weir_common::block::PLAIN_RULES));
        published.publish(Lists::of(Limits::default()));
        assert!(judge.is_outdated());
        judge.renew();
        assert!(judge.is_on() && !judge.is_outdated());
        assert_ne!(judge.rules(), weir_common::block::PLAIN_RULES);
    }
}
