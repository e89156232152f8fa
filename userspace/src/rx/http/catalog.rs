//! The catalog: names to ids, and what belongs to an ad.
//!
//! A file of the operator, TOML or JSON, read whole and checked before any of it is used; a new one takes the
//! place of the old one whole. It says which id a name stands for, and of an ad its campaign, its
//! publisher, its price and its landing page. It decides nothing about a click that a signature
//! does not: under a signed token only the landing page is taken from here.
//!
//! Start reading at [`Catalog::parse`]; `file` reads entries, `landing` says what an address may be.

mod file;
mod landing;
mod problem;

use std::collections::HashMap;
use std::path::Path;

pub use landing::LANDING_LEN_MAX;
pub use problem::{CatalogError, CatalogProblem, CatalogProblems, Wrong};

use crate::operator_file;

/// The largest catalog file, in MiB: some millions of ads. A larger one is more likely the wrong file, and two
/// catalogs are in memory while one takes the other's place.
pub const CATALOG_MIB_MAX: u64 = 256;

/// What the catalog says of an ad.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdEntry {
    /// The campaign of a click that names none.
    pub campaign: Option<u32>,
    /// The publisher of a click that names none.
    pub publisher: Option<u32>,
    /// The price of a click that names none, in millionths of the currency unit.
    pub price_micros: Option<u64>,
    /// Where a link of this ad leads: an absolute http or https URL.
    pub landing: Option<Box<str>>,
}

/// Names to ids.
type Names = HashMap<Box<str>, u64>;

/// The names and ads of a catalog file. The default is the empty catalog: it knows no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    ads: HashMap<u64, AdEntry>,
    ad_names: Names,
    campaigns: Names,
    creatives: Names,
    placements: Names,
    publishers: Names,
}

impl Catalog {
    /// Reads a catalog file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// The file cannot be read, is larger than [`CATALOG_MIB_MAX`], or is no catalog: see
    /// [`Catalog::parse`].
    pub fn load(path: &Path) -> Result<Self, CatalogError> {
        let text = operator_file::read_text(path, CATALOG_MIB_MAX)
            .map_err(|source| CatalogError::Read { path: path.to_owned(), source })?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        Self::parse(&text, is_json)
            .map_err(|source| CatalogError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads a catalog from its text.
    ///
    /// # Errors
    /// The text is no TOML or no JSON, with the first place where it is not; or every problem that its entries
    /// have, each with the entry and what would be right.
    pub fn parse(text: &str, is_json: bool) -> Result<Self, CatalogError> {
        let syntax = |form, message: String| CatalogError::Syntax { form, message };
        let document = if is_json {
            serde_json::from_str(text).map_err(|error| syntax("JSON", error.to_string()))?
        } else {
            toml::from_str(text).map_err(|error| syntax("TOML", error.to_string()))?
        };
        file::read(&document).map_err(|problems| CatalogError::Invalid { problems })
    }

    /// Where a link of this ad leads.
    #[must_use]
    pub fn landing(&self, ad: u64) -> Option<&str> {
        self.of_ad(ad)?.landing.as_deref()
    }

    /// What belongs to this ad.
    #[must_use]
    pub fn of_ad(&self, ad: u64) -> Option<&AdEntry> {
        self.ads.get(&ad)
    }

    /// The ad of this name.
    #[must_use]
    pub fn ad(&self, name: &str) -> Option<u64> {
        self.ad_names.get(name).copied()
    }

    /// The campaign of this name.
    #[must_use]
    pub fn campaign(&self, name: &str) -> Option<u32> {
        find(&self.campaigns, name)
    }

    /// The creative of this name.
    #[must_use]
    pub fn creative(&self, name: &str) -> Option<u32> {
        find(&self.creatives, name)
    }

    /// The placement of this name.
    #[must_use]
    pub fn placement(&self, name: &str) -> Option<u32> {
        find(&self.placements, name)
    }

    /// The publisher of this name.
    #[must_use]
    pub fn publisher(&self, name: &str) -> Option<u32> {
        find(&self.publishers, name)
    }
}

fn find(names: &Names, name: &str) -> Option<u32> {
    // Ids of all but ads were checked to be 32 bits.
    names.get(name).and_then(|&id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = include_str!("../../../../tests/samples/catalog.toml");

    const JSON: &str = r#"{
        "ads": [
            {"id": 42, "name": "spring-sale", "campaign": "spring", "publisher": 7, "price": "0.25",
             "landing": "https://shop.example/spring"},
            {"id": 18446744073709551615}
        ],
        "campaigns": [{"id": 3, "name": "spring"}],
        "creatives": [{"id": 4, "name": "banner"}],
        "placements": [{"id": 5, "name": "top"}],
        "publishers": [{"id": 6, "name": "news"}]
    }"#;

    /// The problems of a TOML text.
    fn problems(text: &str) -> Vec<CatalogProblem> {
        match Catalog::parse(text, false) {
            Err(CatalogError::Invalid { problems }) => problems.0,
            other => panic!("not a list of problems: {other:?}"),
        }
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let catalog = Catalog::parse(TOML, false).expect("TOML");
        assert_eq!(catalog, Catalog::parse(JSON, true).expect("JSON"));
        let entry = AdEntry {
            campaign: Some(3),
            publisher: Some(7),
            price_micros: Some(250_000),
            landing: Some("https://shop.example/spring".into()),
        };
        assert_eq!(catalog.of_ad(42), Some(&entry));
        assert_eq!((catalog.landing(42), catalog.landing(u64::MAX)), (entry.landing.as_deref(), None));
        assert_eq!(catalog.of_ad(u64::MAX), Some(&AdEntry::default()));
        assert_eq!(catalog.of_ad(43), None);
        assert_eq!(catalog.ad("spring-sale"), Some(42));
        assert_eq!(catalog.campaign("spring"), Some(3));
        assert_eq!(catalog.creative("banner"), Some(4));
        assert_eq!(catalog.placement("top"), Some(5));
        assert_eq!(catalog.publisher("news"), Some(6));
        assert_eq!((catalog.ad("spring"), catalog.campaign("spring-sale")), (None, None));
    }

    #[test]
    fn an_empty_catalog_is_a_catalog() {
        assert_eq!(Catalog::parse("", false).expect("TOML"), Catalog::default());
        assert_eq!(Catalog::parse("{}", true).expect("JSON"), Catalog::default());
    }

    #[test]
    fn every_problem_is_told_with_its_entry() {
        let found = problems(
            r#"
            shops = 1
            [[ads]]
            id = 1
            name = "a"
            [[ads]]
            id = 1
            name = "a"
            campaign = "none"
            publisher = -1
            price = 0.25
            landing = "javascript:alert(1)"
            landng = ""
            [[ads]]
            name = "123"
            [[campaigns]]
            id = 4294967296
            "#,
        );
        let told: Vec<_> =
            found.iter().map(|problem| format!("{}: {}", problem.entry, problem.wrong)).collect();
        let expected = [
            "the catalog: unknown key \"shops\"; there are campaigns, creatives, placements, publishers, ads",
            "campaigns, entry 1 (4294967296): id = 4294967296: expected a whole number from 0 to 4294967295",
            "campaigns, entry 1 (4294967296): name is missing; expected the name that clicks use",
            "ads, entry 2 (\"a\"): unknown key \"landng\"; is \"landing\" meant?",
            "ads, entry 2 (\"a\"): the id 1 is that of entry 1 too; give each its own",
            "ads, entry 2 (\"a\"): the name \"a\" is that of entry 1 too; give each its own",
            "ads, entry 2 (\"a\"): campaign = \"none\" is no name in [[campaigns]]; add it there, or write the id",
            "ads, entry 2 (\"a\"): publisher = -1: expected a name of [[publishers]], or an id from 0 to 4294967295",
            "ads, entry 2 (\"a\"): price = 0.25: expected the price of one click as a string, \"0\" to \"1000000\", \
             at most six decimals: \"0.25\"",
            "ads, entry 2 (\"a\"): landing = \"javascript:alert(1)\" must start with https:// or http://",
            "ads, entry 3 (\"123\"): id is missing; expected a whole number",
            "ads, entry 3 (\"123\"): name = \"123\": expected a string of 1 to 256 bytes that are not all digits: \
             those are an id",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_price_that_is_not_exact_is_no_price() {
        let price = |price: &str| {
            let catalog = Catalog::parse(&format!("[[ads]]\nid = 1\nprice = {price}"), false).ok()?;
            catalog.of_ad(1).and_then(|entry| entry.price_micros)
        };
        assert_eq!(price("\"0.000001\""), Some(1));
        assert_eq!(price("2"), Some(2_000_000));
        assert_eq!(price("\"1000000\""), Some(1_000_000_000_000));
        for wrong in
            ["0.5", "-1", "\"-1\"", "\"0.0000001\"", "\"1000000.000001\"", "\"\"", "\"1 EUR\"", "true"]
        {
            assert_eq!(price(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_list_that_is_none_is_told() {
        assert_eq!(problems("ads = 1").len(), 1);
        assert_eq!(problems("ads = [1, 2]").len(), 2);
        assert!(matches!(Catalog::parse("[]", true), Err(CatalogError::Invalid { .. })));
        assert!(matches!(Catalog::parse("[[ads]", false), Err(CatalogError::Syntax { form: "TOML", .. })));
        assert!(matches!(Catalog::parse("{\"ads\":", true), Err(CatalogError::Syntax { form: "JSON", .. })));
    }

    #[test]
    fn a_file_is_read_by_its_ending_and_named_in_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let expected = Catalog::parse(TOML, false).expect("TOML");
        for (name, text) in [("catalog.toml", TOML), ("catalog.JSON", JSON)] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            assert_eq!(Catalog::load(&path).expect(name), expected);
        }
        let path = folder.path().join("catalog.json");
        std::fs::write(&path, "{").expect("written");
        let error = Catalog::load(&path).expect_err("no JSON").to_string();
        assert!(error.contains("catalog.json: the catalog is no JSON"), "{error}");
        let error = Catalog::load(&folder.path().join("none.toml")).expect_err("no file").to_string();
        assert!(error.contains("none.toml"), "{error}");
        let large = std::fs::File::create(&path).expect("a file");
        large.set_len((CATALOG_MIB_MAX << 20) + 1).expect("its length");
        let error = Catalog::load(&path).expect_err("too large").to_string();
        assert!(error.contains("catalog.json: it has more than 256 MiB; correct `rx"), "{error}");
        let error = Catalog::load(folder.path()).expect_err("no file").to_string();
        assert!(error.contains(": it is no file; correct `rx"), "{error}");
    }
}
