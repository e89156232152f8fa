//! A worker's end: the lists as they were published last, and what this worker remembers.
//!
//! New lists are taken when the worker says so, between two blocks, so that a block names the one version of
//! the rules that all its rows were judged by.

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::reason::Reason;
use weir_common::time::UnixMs;
use weir_common::wire::{Click, extension};

use super::{Crowd, Facts, Flags, Forgotten, Found, Limits, Lists, Memory, UserAgent, judge};
use crate::published::Shared;
use crate::score::{self, Activity, Campaign, Features, Mark};

/// Judges the clicks that a worker owns.
#[derive(Debug)]
pub struct Judge {
    lists: Shared<Lists>,
    memory: Memory,
    found: Vec<Found>,
    rows: Vec<(Campaign, Features)>,
    scratch: score::Scratch,
    marks: Vec<Mark>,
}

impl Judge {
    /// One that has judged nothing yet, beside others that count with it.
    #[must_use]
    pub fn new(lists: Shared<Lists>, crowd: Option<Arc<Crowd>>) -> Self {
        Self {
            lists,
            memory: Memory::new(crowd),
            found: Vec::new(),
            rows: Vec::new(),
            scratch: score::Scratch::default(),
            marks: Vec::new(),
        }
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

    /// What matters of a click that came from `source`, as far as the click alone says it.
    #[must_use]
    pub fn facts<'a>(
        &self,
        source: Option<IpAddr>,
        received_at: UnixMs,
        said: Flags,
        click: &Click,
        extension: &'a [u8],
    ) -> Facts<'a> {
        Facts {
            address: self.user_address(source),
            user_agent: field(extension, extension::USER_AGENT).map_or(UserAgent::Unasked, UserAgent::Sent),
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

    /// What is found of each of these clicks, in their order.
    pub fn judge(&mut self, facts: &[Facts<'_>]) -> &[Found] {
        self.found.clear();
        judge(self.lists.current(), &mut self.memory, facts, &mut self.found);
        &self.found
    }

    /// How a model marks the clicks that were judged last, in their order; none where clicks are not scored.
    pub fn score<'a>(
        &mut self,
        facts: &[Facts<'_>],
        clicks: impl Iterator<Item = (&'a Click, &'a [u8])>,
    ) -> Option<&[Mark]> {
        let lists = self.lists.current();
        let scorer = lists.scorer.as_ref()?;
        self.rows.clear();
        self.rows.extend(facts.iter().zip(&self.found).zip(clicks).map(|((facts, found), click)| {
            let known = known_of(lists, facts, *found, click);
            (Campaign(known.click.campaign.get()), Features::of(&known))
        }));
        self.marks.clear();
        scorer.mark(&self.rows, &mut self.scratch, &mut self.marks);
        Some(&self.marks)
    }
}

/// What a model is told of a click.
fn known_of<'a>(
    lists: &Lists,
    facts: &Facts<'_>,
    found: Found,
    (click, extension): (&'a Click, &'a [u8]),
) -> score::Facts<'a> {
    let count = |clicks: Option<u8>| clicks.map(u32::from);
    let has_list = lists.data_centres.is_some();
    score::Facts {
        click,
        received_at: facts.received_at,
        user_agent: field(extension, extension::USER_AGENT).unwrap_or_default(),
        is_robot: found.flags.contains(Reason::Robot),
        referrer: field(extension, extension::REFERRER).unwrap_or_default(),
        is_ipv6: facts.address.map(|address| address.is_ipv6()),
        is_data_centre: facts.address.filter(|_| has_list).map(|_| found.flags.contains(Reason::DataCentre)),
        // Nobody counts by the hour: a model goes the way it has for what is not known.
        activity: Activity {
            user_clicks_minute: count(found.user_clicks_minute),
            address_clicks_minute: count(found.address_clicks_minute),
            ..Activity::default()
        },
    }
}

/// A field of a click's extension, which admission found sound.
fn field(mut rest: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((kind, value, next)) = extension::split_field(rest) {
        if kind == wanted {
            return Some(value);
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use weir_common::siphash::SipKey;

    use super::*;
    use crate::published::Published;

    const SECRET: SipKey = SipKey { k0: 1, k1: 2 };

    #[test]
    fn a_field_is_found_where_it_is_and_nowhere_else() {
        let both = [1, 2, 0, b'm', b'z', 3, 1, 0, b's'];
        assert_eq!((field(&both, 1), field(&both, 3)), (Some(&b"mz"[..]), Some(&b"s"[..])));
        assert_eq!(field(&both, 2), None);
        for none in [&[][..], &[2, 1, 0, b'r'], &[1, 9, 0, b'm'], &[1, 2]] {
            assert_eq!(field(none, 1), None, "{none:?}");
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
