//! In which country an address is, and whether a click can come from where it says.
//!
//! The table is a list of prefixes with a country each, as two capital letters (ISO 3166-1
//! alpha-2): `203.0.113.0/24 DE`. The longest prefix decides. What is unknown on either side never
//! speaks against a click.

use std::net::IpAddr;

use super::prefixes::{BETWEEN_FIELDS, Meaning, PrefixTable};
use super::source::shown;

/// A country, or zeros where none is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country([u8; 2]);

/// What tables write where no country is known or several are meant: none of them is a country.
const UNKNOWN: [[u8; 2]; 4] = [*b"ZZ", *b"XX", *b"EU", *b"AP"];

impl From<[u8; 2]> for Country {
    #[inline]
    fn from(letters: [u8; 2]) -> Self {
        if UNKNOWN.contains(&letters) { Self::NONE } else { Self(letters) }
    }
}

impl Meaning for Country {
    const NONE: Self = Self([0, 0]);

    fn read(entry: &str) -> Result<(&str, Self), String> {
        let mut fields = entry.split(BETWEEN_FIELDS).filter(|field| !field.is_empty());
        let (prefix, country) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        match *country.as_bytes() {
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok((prefix, [a, b].into())),
            _ => {
                let shown = shown(country);
                Err(format!("{shown} is no country; write two capital letters after the prefix, like DE"))
            }
        }
    }
}

/// A table of prefixes and the countries they are in.
pub type Geography = PrefixTable<Country>;

impl Geography {
    /// Whether a click from this address cannot be in the country it names. `claimed` is as clicks
    /// carry it: two capital letters, or two zeros.
    #[inline]
    #[must_use]
    pub fn contradicts(&self, address: IpAddr, claimed: [u8; 2]) -> bool {
        let claimed = Country::from(claimed);
        if claimed == Country::NONE {
            return false;
        }
        let country = self.find(address);
        country != Country::NONE && country != claimed
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weir_common::time::UnixMs;

    use super::*;
    use crate::traffic::source::{ListError, Source};

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
        let country = |address: &str| geography.find(address.parse().unwrap());
        assert_eq!(country("198.51.100.1"), Country(*b"FR"));
        assert_eq!(country("198.51.100.129"), Country(*b"DE"));
        assert_eq!(country("198.51.100.200"), Country::NONE, "unknown within Germany");
        assert_eq!(country("2001:db8::1"), Country(*b"US"));
        assert_eq!(country("203.0.113.1"), Country::NONE);
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
