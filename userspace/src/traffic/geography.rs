//! In which country an address is, and whether a click can come from where it says.
//!
//! The table is a list of prefixes with a country each, as two capital letters (ISO 3166-1
//! alpha-2): `203.0.113.0/24 DE`. The longest prefix decides. What is unknown on either side never
//! speaks against a click.

use std::net::IpAddr;
use std::path::Path;

use weir_common::time::UnixMs;

use super::prefixes::{NONE, PREFIXES_MAX, PrefixTable, Prefixes};
use super::source::{ListError, ListVersion, Source, shown};

/// What tables write where no country is known or several are meant: none of them is a country.
const UNKNOWN: [[u8; 2]; 5] = [*b"ZZ", *b"XX", *b"EU", *b"AP", [0, 0]];

/// A table of prefixes and the countries they are in.
#[derive(Debug)]
pub struct Geography {
    table: PrefixTable,
    version: ListVersion,
}

impl Geography {
    /// Reads a table. Never on a worker: it allocates and waits for the disk.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(name: &'static str, path: &Path, activated_at: UnixMs) -> Result<Self, ListError> {
        Self::read(name, &Source::read(path)?, activated_at)
    }

    pub(super) fn read(name: &'static str, source: &Source, activated_at: UnixMs) -> Result<Self, ListError> {
        let mut prefixes = Prefixes::default();
        // One more than there may be is enough to say that there are too many.
        for (line, entry) in source.entries().take(PREFIXES_MAX + 1) {
            let mut fields = entry.split([' ', '\t', ',', ';']).filter(|field| !field.is_empty());
            let (prefix, country) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            match country.as_bytes() {
                &[a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                    prefixes.add(line, prefix, says([a, b]));
                }
                _ => prefixes.problems.note(
                    line,
                    format!(
                        "{} is no country; write two capital letters after the prefix, like DE",
                        shown(country)
                    ),
                ),
            }
        }
        let entries = prefixes.len();
        source.bound(entries, PREFIXES_MAX)?;
        let (table, problems) = prefixes.into_table();
        Ok(Self { table, version: source.checked(name, entries, problems, activated_at)? })
    }

    /// The country an address is in, if that is known.
    #[inline]
    #[must_use]
    pub fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        match self.table.find(address) {
            NONE => None,
            country => Some(country.to_be_bytes()),
        }
    }

    /// Whether a click from this address cannot be in the country it names. `claimed` is as clicks
    /// carry it: two capital letters, or two zeros.
    #[inline]
    #[must_use]
    pub fn contradicts(&self, address: IpAddr, claimed: [u8; 2]) -> bool {
        !UNKNOWN.contains(&claimed) && self.country(address).is_some_and(|country| country != claimed)
    }

    /// Which table this is.
    #[must_use]
    pub const fn version(&self) -> &ListVersion {
        &self.version
    }

    /// Octets of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

fn says(country: [u8; 2]) -> u16 {
    if UNKNOWN.contains(&country) { NONE } else { u16::from_be_bytes(country) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geography(text: &str) -> Result<Geography, ListError> {
        Geography::read(
            "countries",
            &Source::from_bytes(Path::new("a.list"), text.into()).unwrap(),
            UnixMs(0),
        )
    }

    const TABLE: &str = "198.51.100.0/24 FR\n198.51.100.128/25,DE\n198.51.100.192/26 ZZ\n2001:db8::/32\tUS\n";

    #[test]
    fn the_longest_prefix_says_the_country() {
        let geography = geography(TABLE).unwrap();
        let country = |address: &str| geography.country(address.parse().unwrap());
        assert_eq!(country("198.51.100.1"), Some(*b"FR"));
        assert_eq!(country("198.51.100.129"), Some(*b"DE"));
        assert_eq!(country("198.51.100.200"), None, "unknown within Germany");
        assert_eq!(country("2001:db8::1"), Some(*b"US"));
        assert_eq!(country("203.0.113.1"), None);
    }

    #[test]
    fn only_two_known_countries_contradict_each_other() {
        let geography = geography(TABLE).unwrap();
        let contradicts = |address: &str, claimed| geography.contradicts(address.parse().unwrap(), claimed);
        assert!(contradicts("198.51.100.1", *b"DE"));
        assert!(contradicts("2001:db8::1", *b"CA"));
        assert!(!contradicts("198.51.100.1", *b"FR"));
        assert!(!contradicts("198.51.100.1", [0, 0]), "the click names no country");
        assert!(!contradicts("198.51.100.1", *b"ZZ"), "the click does not know");
        assert!(!contradicts("198.51.100.200", *b"DE"), "the table does not know");
        assert!(!contradicts("203.0.113.1", *b"DE"), "the table does not have the address");
    }

    #[test]
    fn a_line_without_a_country_is_named() {
        let error = geography("192.0.2.0/24 DE\n198.51.100.0/24\n203.0.113.0/24 Deutschland\n").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line 2: \"\" is no country; write two capital letters after"), "{error}");
        assert!(error.contains("line 3: \"Deutschland\" is no country"), "{error}");
    }
}
