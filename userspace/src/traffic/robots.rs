//! Robots, by user agent and address, in two passes: a user agent must be one of a valid browser,
//! and must not be one of a known robot.
//!
//! The order is that of the IAB/ABC International Spiders and Bots List as it is applied in the
//! field: own patterns of valid user agents, own patterns of robots, addresses of robots, no user
//! agent at all, valid browsers, known robots. The first that has an answer decides. That list is
//! licensed and comes by subscription: it is read at run time and never shipped; the patterns in
//! `deploy/lists/` are a small sample of our own.
//!
//! A list is one pattern a line. A user agent that has it anywhere matches, in whatever case of
//! letters; `^` before a pattern says that the user agent must begin with it. ` | ` after a pattern
//! begins exceptions, with commas between: a user agent that has one of them does not match.
//! A line that begins with `#` is a comment.

use std::net::IpAddr;
use std::path::Path;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, StartKind};
use weir_common::time::UnixMs;

use super::prefixes::PrefixList;
use super::source::{ListError, ListProblems, ListVersion, Source, shown};

/// The most patterns of one list; the lists of the field have some hundreds to a few thousand.
pub const PATTERNS_MAX: usize = 10_000;
/// The longest pattern, in octets: as long as any product name with version and link.
pub const PATTERN_LEN_MAX: usize = 128;
/// As much of a user agent is looked at: twice what a click can carry, and a bound to the time
/// that one click takes.
pub const USER_AGENT_LEN_MAX: usize = 1024;
/// Patterns of as many octets together are made a table with one step an octet, which takes at most
/// 256 octets of memory for each of theirs: 16 MiB. More are made a smaller one that is slower.
const DFA_OCTETS_MAX: usize = 64 << 10;
/// The most exceptions of one pattern.
const EXCEPTIONS_MAX: usize = 32;

/// What is known of a click's user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserAgent<'a> {
    /// The user's side said this.
    Sent(&'a [u8]),
    /// It could have said one and did not. No door says so yet: on the wire an empty one, which is judged alike,
    /// cannot be told from it, and a click without the field is [`UserAgent::Unasked`].
    Absent,
    /// Nobody asked: a sender that does not pass user agents on.
    Unasked,
}

/// What was found, and by which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A pattern of our own says that it is valid.
    CustomValid,
    /// A pattern of our own says that it is a robot.
    CustomRobot,
    /// The address is a robot's.
    RobotAddress,
    /// There is no user agent.
    NoUserAgent,
    /// No valid browser has such a user agent.
    NoBrowser,
    /// Known robots have such a user agent.
    KnownRobot,
    /// Nothing speaks against it.
    Valid,
}

impl Verdict {
    /// Whether the click is invalid traffic.
    #[inline]
    #[must_use]
    pub const fn is_robot(self) -> bool {
        !matches!(self, Self::CustomValid | Self::Valid)
    }
}

/// The lists. One that is not there is a pass that is left out.
#[derive(Debug, Default)]
pub struct Robots {
    /// Own patterns of valid user agents.
    pub custom_valid: Option<PatternList>,
    /// Own patterns of robots.
    pub custom_robots: Option<PatternList>,
    /// Addresses of robots.
    pub addresses: Option<PrefixList>,
    /// User agents of valid browsers.
    pub browsers: Option<PatternList>,
    /// User agents of known robots.
    pub known_robots: Option<PatternList>,
}

impl Robots {
    /// The verdict by user agent, and by address where that comes first in the order.
    #[inline]
    #[must_use]
    pub fn with_address(&self, by_agent: Verdict, address: Option<IpAddr>) -> Verdict {
        let is_listed = |addresses: &PrefixList| address.is_some_and(|address| addresses.contains(address));
        match by_agent {
            Verdict::CustomValid | Verdict::CustomRobot => by_agent,
            _ if self.addresses.as_ref().is_some_and(is_listed) => Verdict::RobotAddress,
            _ => by_agent,
        }
    }

    /// Judges a user agent alone.
    #[must_use]
    pub fn judge_agent(&self, user_agent: UserAgent<'_>) -> Verdict {
        let text = match user_agent {
            UserAgent::Sent(text) => &text[..text.len().min(USER_AGENT_LEN_MAX)],
            UserAgent::Absent | UserAgent::Unasked => b"",
        };
        let has = |list: &Option<PatternList>| list.as_ref().is_some_and(|list| list.matches(text));
        if has(&self.custom_valid) {
            return Verdict::CustomValid;
        }
        if has(&self.custom_robots) {
            return Verdict::CustomRobot;
        }
        if user_agent == UserAgent::Unasked || !self.judges_user_agents() {
            return Verdict::Valid;
        }
        if says_nothing(text) {
            return Verdict::NoUserAgent;
        }
        if self.browsers.is_some() && !has(&self.browsers) {
            return Verdict::NoBrowser;
        }
        if has(&self.known_robots) { Verdict::KnownRobot } else { Verdict::Valid }
    }

    /// Without any list of user agents none is asked for either.
    const fn judges_user_agents(&self) -> bool {
        self.browsers.is_some() || self.known_robots.is_some()
    }

    /// Whether there is any list of patterns. Without one nothing speaks for or against a user agent.
    #[inline]
    pub(super) const fn has_patterns(&self) -> bool {
        self.judges_user_agents() || self.custom_valid.is_some() || self.custom_robots.is_some()
    }

    /// Which lists these are.
    pub fn versions(&self) -> impl Iterator<Item = &ListVersion> {
        let patterns = [&self.custom_valid, &self.custom_robots, &self.browsers, &self.known_robots];
        let patterns = patterns.into_iter().flatten().map(PatternList::version);
        patterns.chain(self.addresses.as_ref().map(PrefixList::version))
    }
}

/// Empty, blank, or the dash that logs write for what is not there.
fn says_nothing(text: &[u8]) -> bool {
    matches!(text.trim_ascii(), b"" | b"-")
}

/// Patterns of user agents, all looked for at once.
#[derive(Debug)]
pub struct PatternList {
    /// Those without exceptions, anywhere.
    anywhere: AhoCorasick,
    /// Those without exceptions, at the start.
    at_start: AhoCorasick,
    /// Those with exceptions, which have more to them.
    qualified: Option<Qualified>,
    version: ListVersion,
}

/// Patterns with exceptions.
#[derive(Debug)]
struct Qualified {
    /// These and all that are looked for anywhere: nearly every user agent of a person has none of
    /// them, and is known after one pass.
    any: AhoCorasick,
    patterns: AhoCorasick,
    /// What is more to say of each, by its number.
    conditions: Box<[Condition]>,
}

#[derive(Debug)]
struct Condition {
    is_at_start: bool,
    exceptions: Box<[Box<[u8]>]>,
}

impl PatternList {
    /// Reads a list. Never on a worker: it allocates and waits for the disk.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(name: &'static str, path: &Path, activated_at: UnixMs) -> Result<Self, ListError> {
        Self::read(name, &Source::read(path)?, activated_at)
    }

    pub(super) fn read(name: &'static str, source: &Source, activated_at: UnixMs) -> Result<Self, ListError> {
        let mut problems = ListProblems::default();
        let (mut anywhere, mut at_start, mut qualified, mut conditions) = (vec![], vec![], vec![], vec![]);
        let entries = source.lines().filter(|(_, line)| !line.starts_with('#'));
        // One more than there may be is enough to say that there are too many.
        for (line, entry) in entries.take(PATTERNS_MAX + 1) {
            match Pattern::read(entry) {
                Ok(Pattern { text, is_at_start: false, exceptions }) if exceptions.is_empty() => {
                    anywhere.push(text)
                }
                Ok(Pattern { text, is_at_start: true, exceptions }) if exceptions.is_empty() => {
                    at_start.push(text)
                }
                Ok(Pattern { text, is_at_start, exceptions }) => {
                    qualified.push(text);
                    let exceptions = exceptions.into_iter().map(|text| text.as_bytes().into()).collect();
                    conditions.push(Condition { is_at_start, exceptions });
                }
                Err(wrong) => problems.note(line, wrong),
            }
        }
        let entries = anywhere.len() + at_start.len() + qualified.len();
        source.bound(entries, PATTERNS_MAX)?;
        let version = source.checked(name, entries, problems, activated_at)?;
        let all = [&anywhere[..], &qualified[..]].concat();
        let qualified = (!qualified.is_empty()).then(|| Qualified {
            any: automaton(&all, StartKind::Unanchored),
            patterns: automaton(&qualified, StartKind::Unanchored),
            conditions: conditions.into(),
        });
        let at_start = automaton(&at_start, StartKind::Anchored);
        Ok(Self { anywhere: automaton(&anywhere, StartKind::Unanchored), at_start, qualified, version })
    }

    /// Whether a user agent matches any pattern.
    #[inline]
    #[must_use]
    pub fn matches(&self, user_agent: &[u8]) -> bool {
        let at_start = Input::new(user_agent).anchored(Anchored::Yes).earliest(true);
        if matches!(self.at_start.try_find(at_start), Ok(Some(_))) {
            return true;
        }
        match &self.qualified {
            None => self.anywhere.is_match(user_agent),
            Some(qualified) => {
                qualified.any.is_match(user_agent)
                    && (self.anywhere.is_match(user_agent) || qualified.matches(user_agent))
            }
        }
    }

    /// Which list this is.
    #[must_use]
    pub const fn version(&self) -> &ListVersion {
        &self.version
    }
}

impl Qualified {
    fn matches(&self, user_agent: &[u8]) -> bool {
        self.patterns.find_overlapping_iter(user_agent).any(|found| {
            self.conditions.get(found.pattern().as_usize()).is_some_and(|condition| {
                let is_there = !condition.is_at_start || found.start() == 0;
                is_there && !condition.exceptions.iter().any(|text| has_in_any_case(user_agent, text))
            })
        })
    }
}

/// Only for the few user agents that a pattern with exceptions has matched.
fn has_in_any_case(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// # Panics
/// Never: the bounds on patterns keep it far below two thousand million states.
fn automaton(patterns: &[&str], start: StartKind) -> AhoCorasick {
    let octets: usize = patterns.iter().map(|pattern| pattern.len()).sum();
    let kind = (octets <= DFA_OCTETS_MAX).then_some(AhoCorasickKind::DFA);
    let mut builder = AhoCorasick::builder();
    // Nothing is rare enough in user agents for a search ahead to pay.
    let built =
        builder.ascii_case_insensitive(true).prefilter(false).start_kind(start).kind(kind).build(patterns);
    built.expect("patterns within the bounds of a list have fewer states than there can be")
}

/// A line of a list.
#[derive(Debug, PartialEq, Eq)]
struct Pattern<'t> {
    text: &'t str,
    is_at_start: bool,
    exceptions: Vec<&'t str>,
}

impl<'t> Pattern<'t> {
    fn read(line: &'t str) -> Result<Self, String> {
        let (pattern, rest) = line.split_once(" | ").unwrap_or((line, ""));
        let (text, is_at_start) = pattern.strip_prefix('^').map_or((pattern, false), |text| (text, true));
        let text = sound(text.trim())?;
        let exceptions: Vec<_> = rest.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if exceptions.len() > EXCEPTIONS_MAX {
            return Err(format!("has more than {EXCEPTIONS_MAX} exceptions; make the pattern narrower"));
        }
        exceptions.iter().try_for_each(|text| sound(text).map(drop))?;
        Ok(Self { text, is_at_start, exceptions })
    }
}

/// A pattern of one letter matches nearly everything, and is never meant.
fn sound(text: &str) -> Result<&str, String> {
    match text.len() {
        0 | 1 => Err(format!("{} is too short for a pattern; it would match nearly everything", shown(text))),
        2..=PATTERN_LEN_MAX => Ok(text),
        _ => Err(format!("{} is longer than {PATTERN_LEN_MAX} octets; a part of it will do", shown(text))),
    }
}

#[cfg(test)]
mod tests;
