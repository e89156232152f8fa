//! Takes values out of a parsed file, one key at a time, and notes everything that is wrong.
//!
//! A wrong value is noted and replaced by its default, so that one pass finds every problem.
//! The keys asked for are the keys that exist: whatever is left over is unknown.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};
use super::quantity::{duration_text, parse_duration, parse_size, size_text};

/// As much of a wrong value as a message repeats.
const VALUE_CHARS_MAX: usize = 60;

/// The text being read, and what was found in it so far.
pub(super) struct Notes<'t> {
    text: &'t str,
    problems: RefCell<Vec<(usize, Problem)>>,
    known: RefCell<BTreeSet<String>>,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default(), known: RefCell::default() }
    }

    /// Notes a problem at a byte of the text, or one that belongs to no line.
    pub(super) fn note(&self, at: Option<usize>, text: String) {
        let line = at.map(|at| self.text[..at].matches('\n').count() + 1);
        self.problems.borrow_mut().push((at.unwrap_or(usize::MAX), Problem { line, text }));
    }

    /// The problems in the order of the file, and every key that was asked for.
    pub(super) fn into_parts(self) -> (Problems, BTreeSet<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        (Problems(problems.into_iter().map(|(_, problem)| problem).collect()), self.known.into_inner())
    }

    fn written(&self, value: &Spanned<DeValue<'_>>) -> String {
        let written = self.text[value.span()].split_whitespace().collect::<Vec<_>>().join(" ");
        match written.char_indices().nth(VALUE_CHARS_MAX) {
            Some((cut, _)) => format!("{}...", &written[..cut]),
            None => written,
        }
    }
}

/// One section of the file, present or not.
pub(super) struct Section<'n, 'd> {
    notes: &'n Notes<'n>,
    path: String,
    at: Option<usize>,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'n, 'd> Section<'n, 'd> {
    pub(super) fn root(notes: &'n Notes<'n>, table: &'d DeTable<'d>) -> Self {
        Self { notes, path: String::new(), at: None, table: Some(table), asked: Vec::new() }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.push(name);
        self.notes.known.borrow_mut().insert(self.key(name));
        self.table?.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    fn note_value(&self, name: &str, value: &Spanned<DeValue<'_>>, message: &str) {
        let text = format!("{} = {}: {message}", self.key(name), self.notes.written(value));
        self.notes.note(Some(value.span().start), text);
    }

    /// Notes a problem of this section as a whole, or of how its keys agree.
    pub(super) fn note(&self, name: &'static str, message: &str) {
        let written = self.table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name));
        let at = written.map(|(key, _)| key.span().start).or(self.at);
        self.notes.note(at, format!("{}: {message}", self.key(name)));
    }

    /// A section inside this one.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'n, 'd> {
        let value = self.take(name);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            self.note_value(name, value, &format!("expected a section, written [{}]", self.key(name)));
        }
        let at = value.map(|value| value.span().start);
        Section { notes: self.notes, path: self.key(name), at, table, asked: Vec::new() }
    }

    /// The sections of a list, written `[[name]]`.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Section<'n, 'd>> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let expected = format!("expected a list of sections, each written [[{}]]", self.key(name));
        let Some(array) = value.get_ref().as_array() else {
            self.note_value(name, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for entry in array.iter() {
            let Some(table) = entry.get_ref().as_table() else {
                self.note_value(name, entry, &expected);
                continue;
            };
            let at = Some(entry.span().start);
            let table = Some(table);
            sections.push(Section { notes: self.notes, path: self.key(name), at, table, asked: Vec::new() });
        }
        sections
    }

    /// A value that `read` understands, or `default` where there is none; anything else is noted
    /// as not being `expected`.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        default: T,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> T {
        let Some(value) = self.take(name) else { return default };
        read(value.get_ref()).unwrap_or_else(|| {
            self.note_value(name, value, &format!("expected {expected}"));
            default
        })
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.take(name) else {
            self.notes.note(self.at, format!("{}: missing; expected {expected}", self.key(name)));
            return None;
        };
        let found = read(value.get_ref());
        if found.is_none() {
            self.note_value(name, value, &format!("expected {expected}"));
        }
        found
    }

    pub(super) fn integer<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64> + Display + Copy,
    {
        let expected =
            format!("a whole number from {} to {} (default {default})", range.start(), range.end());
        self.value(name, default, &expected, |value| integer_in(value, &range))
    }

    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.value(name, default, &format!("true or false (default {default})"), |value| value.as_bool())
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, default: T, words: &[(&str, T)]) -> T {
        let list = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>();
        let expected = match list.as_slice() {
            [only] => format!("{only}, the only one in this version"),
            several => format!("one of {}", several.join(", ")),
        };
        self.value(name, default, &expected, |value| {
            words.iter().find(|(word, _)| value.as_str() == Some(*word)).map(|(_, choice)| *choice)
        })
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let expected = format!(
            "a duration from \"{}\" to \"{}\" (default \"{}\")",
            duration_text(*range.start()),
            duration_text(*range.end()),
            duration_text(default)
        );
        self.value(name, default, &expected, |value| {
            value.as_str().and_then(parse_duration).filter(|found| range.contains(found))
        })
    }

    pub(super) fn size(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!(
            "a size from \"{}\" to \"{}\" (default \"{}\")",
            size_text(*range.start()),
            size_text(*range.end()),
            size_text(default)
        );
        self.value(name, default, &expected, |value| {
            value.as_str().and_then(parse_size).filter(|found| range.contains(found))
        })
    }

    /// A list whose entries `read` understands, without repetitions.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        name: &'static str,
        default: Vec<T>,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Cow<'static, str>>,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return default };
        let Some(array) = value.get_ref().as_array() else {
            self.note_value(name, value, &format!("expected a list of {expected}"));
            return default;
        };
        let mut found = Vec::with_capacity(array.len());
        for entry in array.iter() {
            match read(entry.get_ref()) {
                Ok(item) if found.contains(&item) => {
                    self.note_value(name, entry, "named twice; remove one");
                }
                Ok(item) => found.push(item),
                Err(message) => self.note_value(name, entry, &message),
            }
        }
        found
    }

    /// Notes every key of the section that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())) {
            let hint = match nearest(key.get_ref(), self.asked.iter().copied()) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("the keys here are {}", self.asked.join(", ")),
            };
            let text = format!("{}: no such key; {hint}", self.key(key.get_ref()));
            self.notes.note(Some(key.span().start), text);
        }
    }
}

/// A whole number within `range`, in any radix TOML has.
pub(super) fn integer_in<T: TryFrom<u64>>(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Option<T> {
    let integer = value.as_integer()?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    if range.contains(&number) { T::try_from(number).ok() } else { None }
}

/// The name most like `wrong`, if one is like it enough to be meant.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ: beyond that a suggestion misleads more than it helps.
    let limit = (wrong.chars().count() / 3).max(1);
    names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}
