//! What was found of user agents that came lately.
//!
//! Most clicks have one of a few hundred user agents, and looking through one for all patterns
//! costs as much as everything else together. So verdicts are remembered with the whole text: one
//! is found only for the very same octets, never for others with the same hash.

use super::robots::{Robots, UserAgent, Verdict};

/// Places, each for the one text that came last of those that fall to it. All take 256 KiB: they
/// stay in a core's nearer caches, and are more than the user agents that make up most traffic.
const PLACES: usize = 1024;
/// The longest text that is remembered; nearly all are shorter.
const TEXT_LEN_MAX: usize = 252;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Place {
    /// None while the place is empty.
    verdict: Option<Verdict>,
    len: u16,
    text: [u8; TEXT_LEN_MAX],
}

const _: () = assert!(size_of::<Place>() == 256);

/// Verdicts on the user agents that came lately, under one set of lists.
#[derive(Debug)]
pub(super) struct Agents {
    places: Box<[Place]>,
}

impl Agents {
    pub(super) fn new() -> Self {
        let empty = Place { verdict: None, len: 0, text: [0; TEXT_LEN_MAX] };
        Self { places: vec![empty; PLACES].into() }
    }

    /// Forgets all: the lists are others.
    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(|place| place.verdict = None);
    }

    /// What [`Robots::judge_agent`] finds.
    #[inline]
    pub(super) fn judge(&mut self, robots: &Robots, user_agent: UserAgent<'_>) -> Verdict {
        let UserAgent::Sent(text) = user_agent else { return robots.judge_agent(user_agent) };
        // Without patterns there is nothing to remember; a longer text has no place.
        if !robots.has_patterns() || text.len() > TEXT_LEN_MAX {
            return robots.judge_agent(user_agent);
        }
        let place = &mut self.places[crc32c::crc32c(text) as usize % PLACES];
        if let Some(verdict) = place.verdict
            && place.text[..usize::from(place.len)] == *text
        {
            return verdict;
        }
        let verdict = robots.judge_agent(user_agent);
        place.text[..text.len()].copy_from_slice(text);
        place.len = text.len() as u16;
        place.verdict = Some(verdict);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weir_common::time::UnixMs;

    use super::*;
    use crate::traffic::robots::PatternList;
    use crate::traffic::source::Source;

    fn robots(list: &str) -> Robots {
        let list = Source::from_bytes(Path::new("a"), list.into()).unwrap();
        let list = PatternList::read("robots", &list, UnixMs(0)).unwrap();
        Robots { known_robots: Some(list), ..Robots::default() }
    }

    #[test]
    fn a_verdict_is_remembered_for_the_very_same_text_alone() {
        let robots = robots("bot\n");
        let mut agents = Agents::new();
        // Many more than there are places, so each place has had several.
        for round in 0..3 {
            for n in 0..5_000 {
                let kind = if n % 3 == 0 { "robots" } else { "person" };
                // Most of one length, some too long to be remembered.
                let width = if n % 10 == 0 { n % 300 } else { 20 };
                let text = format!("{kind}{n:>width$}");
                let sent = UserAgent::Sent(text.as_bytes());
                assert_eq!(agents.judge(&robots, sent), robots.judge_agent(sent), "{round} {text}");
                assert_eq!(agents.judge(&robots, sent), robots.judge_agent(sent), "{round} {text}");
            }
        }
        for other in [UserAgent::Absent, UserAgent::Unasked, UserAgent::Sent(b"")] {
            assert_eq!(agents.judge(&robots, other), robots.judge_agent(other));
        }
        // Under other lists it is forgotten, and not before: that is its owner's part.
        let sent = UserAgent::Sent(b"bot");
        assert_eq!(agents.judge(&robots, sent), Verdict::KnownRobot);
        let others = self::robots("crawler\n");
        assert_eq!(agents.judge(&others, sent), Verdict::KnownRobot);
        agents.clear();
        assert_eq!(agents.judge(&others, sent), Verdict::Valid);
    }

    #[test]
    fn without_patterns_nothing_is_remembered() {
        let mut agents = Agents::new();
        assert_eq!(agents.judge(&Robots::default(), UserAgent::Sent(b"bot")), Verdict::Valid);
        assert!(agents.places.iter().all(|place| place.verdict.is_none()));
        agents.judge(&robots("bot\n"), UserAgent::Sent(b"bot"));
        assert_eq!(agents.places.iter().filter(|place| place.verdict.is_some()).count(), 1);
    }
}
