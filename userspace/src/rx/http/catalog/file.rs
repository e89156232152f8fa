//! Reads the entries of a catalog, and notes everything that is wrong with them.

use std::collections::HashMap;

use serde_json::{Map, Value};
use weir_common::wire::MAX_PRICE_MICROS;

use super::problem::{CatalogProblem, CatalogProblems, Wrong};
use super::{AdEntry, Catalog, Names, landing};
use crate::config::nearest;
use crate::rx::http::clicks::Decimal;

/// As much of a wrong value as a message repeats.
const SHOWN_CHARS_MAX: usize = 60;
/// The longest name, in bytes.
const NAME_LEN_MAX: usize = 256;

/// The lists of a catalog. Those that ads refer to stand before them.
const LISTS: [&str; 5] = ["campaigns", "creatives", "placements", "publishers", "ads"];
const NAMED_KEYS: [&str; 2] = ["id", "name"];
const AD_KEYS: [&str; 6] = ["id", "name", "campaign", "publisher", "price", "landing"];

/// Reads a whole catalog.
///
/// # Errors
/// Every problem it has.
pub(super) fn read(document: &Value) -> Result<Catalog, CatalogProblems> {
    let mut notes = Notes::default();
    let mut catalog = Catalog::default();
    let Some(lists) = document.as_object() else {
        notes.note("the catalog", bad("(all)", document, "an object with the lists of the catalog"));
        return Err(notes.problems);
    };
    notes.unknown_keys("the catalog", lists, &LISTS);
    catalog.campaigns = notes.names(lists, "campaigns");
    catalog.creatives = notes.names(lists, "creatives");
    catalog.placements = notes.names(lists, "placements");
    catalog.publishers = notes.names(lists, "publishers");
    notes.ads(lists, &mut catalog);
    if notes.problems.0.is_empty() { Ok(catalog) } else { Err(notes.problems) }
}

/// What was found so far.
#[derive(Default)]
struct Notes {
    problems: CatalogProblems,
}

/// One entry of a list.
struct Entry<'v> {
    /// As messages name it.
    label: String,
    place: usize,
    keys: &'v Map<String, Value>,
}

/// The ids and names of one list, with the place of the entry that has each.
#[derive(Default)]
struct Taken<'v> {
    ids: HashMap<u64, usize>,
    names: HashMap<&'v str, (u64, usize)>,
}

impl Notes {
    fn note(&mut self, entry: &str, wrong: Wrong) {
        self.problems.0.push(CatalogProblem { entry: entry.to_owned(), wrong });
    }

    /// Notes an error, and goes on without the value.
    fn noted<T>(&mut self, entry: &Entry<'_>, found: Result<T, Wrong>) -> Option<T> {
        found.map_err(|wrong| self.note(&entry.label, wrong)).ok()
    }

    fn unknown_keys(&mut self, label: &str, keys: &Map<String, Value>, known: &[&str]) {
        for key in keys.keys().filter(|key| !known.contains(&key.as_str())) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(meant) => format!("is {meant:?} meant?"),
                None => format!("there are {}", known.join(", ")),
            };
            self.note(label, Wrong::UnknownKey { key: shown(key), hint });
        }
    }

    /// The entries of a list that are tables.
    fn entries<'v>(&mut self, lists: &'v Map<String, Value>, list: &'static str) -> Vec<Entry<'v>> {
        let Some(value) = lists.get(list) else { return Vec::new() };
        let Some(values) = value.as_array() else {
            self.note(
                "the catalog",
                bad(list, value, &format!("a list of entries, in TOML each written [[{list}]]")),
            );
            return Vec::new();
        };
        let mut entries = Vec::with_capacity(values.len());
        for (place, value) in (1..).zip(values) {
            let label = label(list, place, value);
            match value.as_object() {
                Some(keys) => entries.push(Entry { label, place, keys }),
                None => self.note(&label, bad("(entry)", value, "an entry with keys")),
            }
        }
        entries
    }

    /// A list of ids and names alone.
    fn names(&mut self, lists: &Map<String, Value>, list: &'static str) -> Names {
        let mut taken = Taken::default();
        for entry in &self.entries(lists, list) {
            self.unknown_keys(&entry.label, entry.keys, &NAMED_KEYS);
            let id = self.id(entry, u32::MAX.into(), &mut taken);
            if !entry.keys.contains_key("name") {
                self.note(
                    &entry.label,
                    Wrong::MissingKey { key: "name", expected: "the name that clicks use" },
                );
            }
            self.name(entry, id, &mut taken);
        }
        taken.into_names()
    }

    fn ads(&mut self, lists: &Map<String, Value>, catalog: &mut Catalog) {
        let mut taken = Taken::default();
        for entry in &self.entries(lists, "ads") {
            self.unknown_keys(&entry.label, entry.keys, &AD_KEYS);
            let id = self.id(entry, u64::MAX, &mut taken);
            self.name(entry, id, &mut taken);
            let campaign = reference(entry, "campaign", "campaigns", &catalog.campaigns);
            let publisher = reference(entry, "publisher", "publishers", &catalog.publishers);
            let ad = AdEntry {
                campaign: self.noted(entry, campaign).flatten(),
                publisher: self.noted(entry, publisher).flatten(),
                price_micros: self.noted(entry, price(entry)).flatten(),
                landing: self.noted(entry, landing_page(entry)).flatten(),
            };
            if let Some(id) = id {
                catalog.ads.insert(id, ad);
            }
        }
        catalog.ad_names = taken.into_names();
    }

    fn id<'v>(&mut self, entry: &Entry<'v>, max: u64, taken: &mut Taken<'v>) -> Option<u64> {
        let Some(value) = entry.keys.get("id") else {
            self.note(&entry.label, Wrong::MissingKey { key: "id", expected: "a whole number" });
            return None;
        };
        let id = id_of(value).filter(|&id| id <= max);
        let found = id.ok_or_else(|| bad("id", value, &format!("a whole number from 0 to {max}")));
        let id = self.noted(entry, found)?;
        let first = *taken.ids.entry(id).or_insert(entry.place);
        if first != entry.place {
            self.note(&entry.label, Wrong::DuplicateId { id, first });
        }
        Some(id)
    }

    fn name<'v>(&mut self, entry: &Entry<'v>, id: Option<u64>, taken: &mut Taken<'v>) {
        let Some(value) = entry.keys.get("name") else { return };
        let Some(name) = value.as_str().filter(|name| is_name(name)) else {
            let expected =
                format!("a string of 1 to {NAME_LEN_MAX} bytes that are not all digits: those are an id");
            self.note(&entry.label, bad("name", value, &expected));
            return;
        };
        let (_, first) = *taken.names.entry(name).or_insert((id.unwrap_or(0), entry.place));
        if first != entry.place {
            self.note(&entry.label, Wrong::DuplicateName { name: shown(name), first });
        }
    }
}

impl Taken<'_> {
    fn into_names(self) -> Names {
        self.names.into_iter().map(|(name, (id, _))| (name.into(), id)).collect()
    }
}

/// As `ads, entry 2 ("spring-sale")`.
fn label(list: &str, place: usize, value: &Value) -> String {
    match value.get("name").or_else(|| value.get("id")) {
        Some(name) => format!("{list}, entry {place} ({})", shown(&name.to_string())),
        None => format!("{list}, entry {place}"),
    }
}

fn bad(key: &'static str, value: &Value, expected: &str) -> Wrong {
    Wrong::BadValue { key, found: shown(&value.to_string()), expected: expected.to_owned() }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len()) && !name.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole number, or a string of digits: TOML has no numbers above 63 bits.
fn id_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn reference(
    entry: &Entry<'_>,
    key: &'static str,
    list: &'static str,
    names: &Names,
) -> Result<Option<u32>, Wrong> {
    let Some(value) = entry.keys.get(key) else { return Ok(None) };
    if let Some(id) = id_of(value).and_then(|id| u32::try_from(id).ok()) {
        return Ok(Some(id));
    }
    match value.as_str() {
        Some(name) if is_name(name) => {
            let unknown = || Wrong::UnknownReference { key, name: shown(name), list };
            names.get(name).and_then(|&id| u32::try_from(id).ok()).map(Some).ok_or_else(unknown)
        }
        _ => Err(bad(key, value, &format!("a name of [[{list}]], or an id from 0 to {}", u32::MAX))),
    }
}

/// A string, because a float cannot say most prices; a whole number says itself.
fn price(entry: &Entry<'_>) -> Result<Option<u64>, Wrong> {
    let Some(value) = entry.keys.get("price") else { return Ok(None) };
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|number| Decimal::parse(&number.to_string())),
        Value::String(text) => Decimal::parse(text),
        _ => None,
    };
    let micros = number
        .filter(|number| !number.negative)
        .and_then(|number| number.fixed(6))
        .filter(|price| price.exact && price.cut <= MAX_PRICE_MICROS);
    let expected = "the price of one click as a string, \"0\" to \"1000000\", at most six decimals: \"0.25\"";
    micros.map(|price| Some(price.cut)).ok_or_else(|| bad("price", value, expected))
}

fn landing_page(entry: &Entry<'_>) -> Result<Option<Box<str>>, Wrong> {
    let Some(value) = entry.keys.get("landing") else { return Ok(None) };
    let url = value.as_str().ok_or_else(|| bad("landing", value, "a URL as a string"))?;
    match landing::check(url) {
        Ok(()) => Ok(Some(url.into())),
        Err(why) => Err(Wrong::BadLanding { url: shown(url), why }),
    }
}
