//! `[traffic]`: what flags invalid traffic.

use std::path::PathBuf;
use std::time::Duration;

use super::kafka::file;
use super::reader::Section;
use crate::traffic::{Limits, Refractory, Settings};

/// Users and addresses whose activity a node can keep: 4 GiB of memory.
const ACTIVITY_KEYS_MAX: u64 = 1 << 24;
/// A longer one would be a rule of its own.
const REFRACTORY_MAX: Duration = Duration::from_secs(3600);
/// The most clicks of one of them that are remembered.
const CLICKS_MAX: u64 = crate::traffic::activity::REMEMBERED as u64;

/// `[traffic]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Which lists there are, and how many clicks are too many.
    pub rules: Settings,
    /// Users and addresses whose activity is kept; 0 for none.
    pub activity_keys: usize,
    /// Users and ads whose last unsigned click is kept.
    pub refractory_keys: usize,
}

impl Traffic {
    /// The files of the lists, with their keys.
    pub(crate) fn files(&mut self) -> [(&'static str, &mut Option<PathBuf>); 10] {
        let rules = &mut self.rules;
        [
            ("forwarders_file", &mut rules.forwarders),
            ("data_centres_file", &mut rules.data_centres),
            ("bad_prefixes_file", &mut rules.bad_prefixes),
            ("bad_actors_file", &mut rules.bad_actors),
            ("valid_agents_file", &mut rules.valid_agents),
            ("robot_agents_file", &mut rules.robot_agents),
            ("robot_addresses_file", &mut rules.robot_addresses),
            ("browsers_file", &mut rules.browsers),
            ("known_robots_file", &mut rules.known_robots),
            ("countries_file", &mut rules.countries),
        ]
    }
}

pub(super) fn read(mut section: Section<'_, '_>) -> Traffic {
    let mut traffic = Traffic { rules: Settings::default(), activity_keys: 0, refractory_keys: 0 };
    for (name, path) in traffic.files() {
        *path = file(&mut section, name);
    }
    traffic.activity_keys = section.integer("activity_keys", 0, 0..=ACTIVITY_KEYS_MAX);
    let limits = Limits {
        per_minute: section.integer("clicks_per_minute", 100, 1..=CLICKS_MAX),
        per_second: section.integer("clicks_per_second", 10, 1..=CLICKS_MAX),
    };
    traffic.rules.activity = if traffic.activity_keys > 0 { limits } else { Limits::NONE };
    let window = section.duration("refractory", Duration::from_secs(10), Duration::ZERO..=REFRACTORY_MAX);
    traffic.rules.refractory = Refractory(window.as_millis() as u32);
    traffic.refractory_keys = section.integer("refractory_keys", 1 << 20, 1000..=ACTIVITY_KEYS_MAX);
    section.finish();
    traffic
}
