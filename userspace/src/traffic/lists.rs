//! All lists of a node, read from the files that the settings name: one immutable value.
//!
//! It is read on the control side, whole, before anybody judges by it: a list with one wrong line
//! replaces nothing. Whoever judges gets it by publishing
//! ([`crate::published`]), so no click is judged half by an old list
//! and half by a new one.

use std::fmt;
use std::path::PathBuf;

use weir_common::block::PLAIN_RULES;
use weir_common::time::UnixMs;

use super::activity::Limits;
use super::actors::{ActorFilter, FilterError};
use super::geography::Geography;
use super::prefixes::PrefixList;
use super::robots::{PatternList, Robots};
use super::source::{ListError, ListVersion};
use crate::score::Scorer;

/// Which files the lists are in. What is not named is not judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes whose addresses are those of forwarders, such as ad servers, and not of users.
    pub forwarders: Option<PathBuf>,
    /// Prefixes of data centres.
    pub data_centres: Option<PathBuf>,
    /// Known-bad prefixes.
    pub bad_prefixes: Option<PathBuf>,
    /// A filter of known-bad actors, as `weir actors build` writes it.
    pub bad_actors: Option<PathBuf>,
    /// Own patterns of valid user agents, which no other list of robots overrides.
    pub valid_agents: Option<PathBuf>,
    /// Own patterns of robots' user agents.
    pub robot_agents: Option<PathBuf>,
    /// Prefixes of robots.
    pub robot_addresses: Option<PathBuf>,
    /// Patterns of valid browsers' user agents.
    pub browsers: Option<PathBuf>,
    /// Patterns of known robots' user agents.
    pub known_robots: Option<PathBuf>,
    /// Prefixes and the countries they are in.
    pub countries: Option<PathBuf>,
    /// How many clicks of a user or address are not too many.
    pub activity: Limits,
    /// How long after an unsigned click of a user on an ad another one is a repeat.
    pub refractory: Refractory,
}

/// How long after an unsigned click of a user on an ad another one is a repeat, in ms; 0: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refractory(pub u32);

impl Default for Refractory {
    /// 10 s: the field's own, for who tells clicks apart by user and ad.
    fn default() -> Self {
        Self(10_000)
    }
}

/// Everything a click is judged by, apart from other clicks.
#[derive(Debug)]
pub struct Lists {
    /// Prefixes of forwarders.
    pub forwarders: Option<PrefixList>,
    /// Prefixes of data centres.
    pub data_centres: Option<PrefixList>,
    /// Known-bad prefixes.
    pub bad_prefixes: Option<PrefixList>,
    /// Known-bad actors.
    pub bad_actors: Option<ActorFilter>,
    /// Robots.
    pub robots: Robots,
    /// Countries by prefix.
    pub geography: Option<Geography>,
    /// How many clicks of a user or address are not too many.
    pub activity: Limits,
    /// How long after an unsigned click another one is a repeat.
    pub refractory: Refractory,
    /// What says how likely clicks are invalid, where they are scored.
    pub scorer: Option<Scorer>,
    /// The number of all of it: worked out once, for it is asked of each batch of clicks.
    rules: u32,
}

// All workers judge by the same value.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Lists>();
};

/// Why one file cannot be used.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum LoadError {
    /// {0}
    List(#[from] ListError),
    /// {0}
    Filter(#[from] FilterError),
}

/// Every file that cannot be used, each with all that is wrong with it.
#[derive(Debug)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

impl Lists {
    /// No list and no limit but the usual window: what a click says of itself is all that speaks against it.
    #[must_use]
    pub fn plain() -> Self {
        Self::of(Limits::NONE)
    }

    /// Limits alone, without a list.
    #[must_use]
    pub fn of(activity: Limits) -> Self {
        let lists = Self {
            forwarders: None,
            data_centres: None,
            bad_prefixes: None,
            bad_actors: None,
            robots: Robots::default(),
            geography: None,
            activity,
            refractory: Refractory::default(),
            scorer: None,
            rules: 0,
        };
        lists.numbered()
    }

    /// The same, and clicks are scored.
    #[must_use]
    pub fn with_scorer(self, scorer: Option<Scorer>) -> Self {
        Self { scorer, ..self }.numbered()
    }

    /// Whether there is no list and no limit.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.rules == PLAIN_RULES
    }

    /// Reads and checks all files. Takes seconds and some hundred megabytes when the lists are
    /// large: never on a worker.
    ///
    /// # Errors
    /// With every file that cannot be used. Nothing is judged by the others then either.
    pub fn load(settings: &Settings, now: UnixMs) -> Result<Self, LoadErrors> {
        let mut wrong = Vec::new();
        let mut prefixes = |name, path: &Option<PathBuf>| {
            noted(&mut wrong, path.as_ref().map(|path| PrefixList::load(name, path, now)))
        };
        let forwarders = prefixes("forwarders", &settings.forwarders);
        let data_centres = prefixes("data_centres", &settings.data_centres);
        let bad_prefixes = prefixes("bad_prefixes", &settings.bad_prefixes);
        let addresses = prefixes("robot_addresses", &settings.robot_addresses);
        let mut patterns = |name, path: &Option<PathBuf>| {
            noted(&mut wrong, path.as_ref().map(|path| PatternList::load(name, path, now)))
        };
        let robots = Robots {
            custom_valid: patterns("valid_agents", &settings.valid_agents),
            custom_robots: patterns("robot_agents", &settings.robot_agents),
            addresses,
            browsers: patterns("browsers", &settings.browsers),
            known_robots: patterns("known_robots", &settings.known_robots),
        };
        let countries = settings.countries.as_ref().map(|path| Geography::load("countries", path, now));
        let geography = noted(&mut wrong, countries);
        let actors = settings.bad_actors.as_ref().map(|path| ActorFilter::open("bad_actors", path, now));
        let bad_actors = noted(&mut wrong, actors);
        let lists = Self {
            forwarders,
            data_centres,
            bad_prefixes,
            bad_actors,
            robots,
            geography,
            activity: settings.activity,
            refractory: settings.refractory,
            scorer: None,
            rules: 0,
        };
        if wrong.is_empty() { Ok(lists.numbered()) } else { Err(LoadErrors(wrong)) }
    }

    /// Which lists these are, each with its octets and since when it is judged by.
    pub fn versions(&self) -> impl Iterator<Item = &ListVersion> {
        let prefixes = [&self.forwarders, &self.data_centres, &self.bad_prefixes]
            .into_iter()
            .flatten()
            .map(PrefixList::version);
        let actors = self.bad_actors.as_ref().map(ActorFilter::version);
        let geography = self.geography.as_ref().map(Geography::version);
        prefixes.chain(actors).chain(self.robots.versions()).chain(geography)
    }

    /// One number for all of them and the limits: that of the rules a click was judged by. It changes
    /// with any octet of any list, and not with the time they were activated at.
    #[must_use]
    pub const fn rules_version(&self) -> u32 {
        self.rules
    }

    fn numbered(self) -> Self {
        Self { rules: self.number(), ..self }
    }

    fn number(&self) -> u32 {
        let has_limits = self.activity != Limits::NONE || self.refractory != Refractory::default();
        if !has_limits && self.scorer.is_none() && self.versions().next().is_none() {
            return PLAIN_RULES;
        }
        let mut crc = crc32c::crc32c(&[self.activity.per_minute, self.activity.per_second]);
        crc = crc32c::crc32c_append(crc, &self.refractory.0.to_le_bytes());
        for version in self.versions() {
            crc = crc32c::crc32c_append(crc, version.name.as_bytes());
            crc = crc32c::crc32c_append(crc, &version.crc32c.to_le_bytes());
        }
        if let Some(scorer) = &self.scorer {
            crc = crc32c::crc32c_append(crc, &scorer.checksum().to_le_bytes());
        }
        // 0 and 1 have a meaning of their own.
        if crc <= PLAIN_RULES { crc + 2 } else { crc }
    }
}

fn noted<T, E: Into<LoadError>>(wrong: &mut Vec<LoadError>, found: Option<Result<T, E>>) -> Option<T> {
    match found? {
        Ok(list) => Some(list),
        Err(error) => {
            wrong.push(error.into());
            None
        }
    }
}
