//! The traffic rules of a recount: which of the filters that held count.

use std::path::Path;

use serde::Deserialize;
use weir_common::reason::{FIRST_FILTERED, Outcome, Reason};

use super::recount::{Click, first_reason};

/// Why there are no rules.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RulesError {
    /// the rules {path} cannot be read: {source}
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// the rules {path} are not valid: {why}
    Parse {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// {name:?} is no reason to filter a click; `weir explain all` lists them
    Reason {
        /// As the file has it.
        name: String,
    },
}

/// Which clicks are filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What names them in a run's report.
    pub version: String,
    /// The filters that count, as bits by reason number less [`FIRST_FILTERED`]; none for those of the nodes.
    filters: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    filters: Vec<String>,
}

impl Rules {
    /// What the nodes had decided.
    #[must_use]
    pub fn recorded() -> Self {
        Self { version: "recorded".to_owned(), filters: None }
    }

    /// Rules by which these filters count and no others.
    ///
    /// # Errors
    /// When one is no filter.
    pub fn of(version: String, filters: &[String]) -> Result<Self, RulesError> {
        let mut bits = 0;
        for name in filters {
            let found = (FIRST_FILTERED..=u8::MAX)
                .take(8)
                .find(|number| Reason::from_number(*number).is_some_and(|reason| reason.name() == name));
            let number = found.ok_or_else(|| RulesError::Reason { name: name.clone() })?;
            bits |= 1 << (number - FIRST_FILTERED);
        }
        Ok(Self { version, filters: Some(bits) })
    }

    /// Reads a file: `version`, and `filters`, a list of reasons.
    ///
    /// # Errors
    /// When it cannot be read, or names what is no filter.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| RulesError::Read { path: name.clone(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|error| RulesError::Parse { path: name, why: error.to_string() })?;
        Self::of(file.version, &file.filters)
    }

    /// Why a click is filtered, if it is.
    #[must_use]
    pub fn filter(&self, click: &Click) -> Reason {
        match self.filters {
            Some(filters) => first_reason(click.traffic & filters),
            None if click.outcome == Outcome::Filtered as u8 => {
                Reason::from_number(click.reason).unwrap_or(Reason::None)
            }
            None => Reason::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_filters_of_the_rules_count_and_the_first_of_them_is_the_reason() {
        let rules = Rules::of("2".to_owned(), &["prefetch".to_owned()]).unwrap();
        let click = |traffic| Click { traffic, outcome: Outcome::Accepted as u8, ..Click::default() };
        assert_eq!(rules.filter(&click(0b11)), Reason::Prefetch);
        assert_eq!(rules.filter(&click(0b01)), Reason::None);
        let recorded = Click { outcome: Outcome::Filtered as u8, reason: FIRST_FILTERED, ..click(1) };
        assert_eq!(Rules::recorded().filter(&recorded) as u8, FIRST_FILTERED);
        assert_eq!(Rules::recorded().filter(&click(1)), Reason::None);
    }

    #[test]
    fn a_name_that_is_no_filter_is_refused() {
        for name in ["bad_tag", "nonsense"] {
            assert!(Rules::of("2".to_owned(), &[name.to_owned()]).is_err(), "{name}");
        }
    }
}
