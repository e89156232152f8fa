//! Reads the value of one field from its JSON text.

use std::borrow::Cow;

use weir_common::reason::{Outcome, Reason};

use super::Fault;
use super::decimal::{Decimal, Fixed};
use super::object::{Field, Fields};

/// As much of a wrong value as a reply repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Nothing: left out, `null` or "". A sender that fills in a template often has no better way to say it.
    Nothing,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as written.
    Number(&'a str),
    /// A string, its escapes undone.
    Text(Cow<'a, str>),
    /// An object or an array.
    Nested,
}

impl Fault {
    /// A field that is wrong.
    pub(super) fn of_field(field: Field, why: impl Into<String>) -> Self {
        let (outcome, reason) = (Outcome::Malformed, Reason::BadField);
        Self { outcome, reason, field: field.name(), why: why.into() }
    }

    /// A field that must be there.
    pub(super) fn missing(field: Field, why: impl Into<String>) -> Self {
        Self { reason: Reason::MissingField, ..Self::of_field(field, why) }
    }

    /// A name that the catalog does not have.
    fn unknown_name(field: Field, name: &str) -> Self {
        let why = format!("the catalog has no {}", shown(name));
        Self { outcome: Outcome::Refused, reason: Reason::UnknownName, ..Self::of_field(field, why) }
    }

    #[cold]
    fn expected(field: Field, expected: &str, raw: &str) -> Self {
        Self::of_field(field, format!("expected {expected}, found {}", cut(raw)))
    }
}

/// The beginning of a text, for a message.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]).into(),
        None => text.into(),
    }
}

impl<'a> Fields<'a> {
    /// The value of a field.
    #[inline]
    pub(super) fn value(&self, field: Field) -> Result<Value<'a>, Fault> {
        let raw = self.raw(field);
        Ok(match raw.as_bytes() {
            [] | [b'n', ..] | [b'"', b'"'] => Value::Nothing,
            [b't', ..] => Value::Bool(true),
            [b'f', ..] => Value::Bool(false),
            [b'"', ..] => Value::Text(text(field, raw)?),
            [b'{' | b'[', ..] => Value::Nested,
            _ => Value::Number(raw),
        })
    }

    /// A string.
    #[inline]
    pub(super) fn text(&self, field: Field, expected: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.value(field)? {
            Value::Nothing => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err(Fault::expected(field, expected, self.raw(field))),
        }
    }

    /// A string, or a number as the text it is written in, of at most `max` bytes.
    #[inline]
    pub(super) fn name(&self, field: Field, max: usize) -> Result<Cow<'a, str>, Fault> {
        let name = match self.value(field)? {
            Value::Nothing => Cow::Borrowed(""),
            Value::Text(text) => text,
            Value::Number(text) => text.into(),
            _ => return Err(Fault::expected(field, "a string", self.raw(field))),
        };
        if name.len() > max {
            let why = format!("{} bytes, more than the {max} it may have", name.len());
            return Err(Fault::of_field(field, why));
        }
        Ok(name)
    }

    /// A whole number up to `max`, as a number or as a string of digits.
    #[inline]
    pub(super) fn integer(&self, field: Field, max: u64) -> Result<Option<u64>, Fault> {
        let found = match self.value(field)? {
            Value::Nothing => return Ok(None),
            Value::Number(text) => digits(text),
            Value::Text(text) => digits(&text),
            _ => None,
        };
        match found.filter(|&number| number <= max) {
            None => {
                let expected = format!("a whole number from 0 to {max}");
                Err(Fault::expected(field, &expected, self.raw(field)))
            }
            found => Ok(found),
        }
    }

    /// An id up to `max`: as a whole number, or as a name that `find` knows.
    #[inline]
    pub(super) fn id(
        &self,
        field: Field,
        max: u64,
        find: impl FnOnce(&str) -> Option<u64>,
    ) -> Result<Option<u64>, Fault> {
        match self.value(field)? {
            Value::Text(name) if !is_digits(&name) => {
                find(&name).map(Some).ok_or_else(|| Fault::unknown_name(field, &name))
            }
            _ => self.integer(field, max),
        }
    }

    /// A decimal number in millionths, as a number or as a string.
    #[inline]
    pub(super) fn millionths(&self, field: Field) -> Result<Option<(bool, Fixed)>, Fault> {
        let number = match self.value(field)? {
            Value::Nothing => return Ok(None),
            Value::Number(text) => Decimal::parse(text),
            Value::Text(text) => Decimal::parse(&text),
            _ => None,
        };
        let Some(number) = number else {
            return Err(Fault::expected(field, "a decimal number", self.raw(field)));
        };
        match number.fixed(6) {
            Some(fixed) => Ok(Some((number.negative, fixed))),
            None => Err(Fault::of_field(field, format!("{} is too large", cut(self.raw(field))))),
        }
    }

    /// `true` or `false`; false when there is nothing.
    #[inline]
    pub(super) fn boolean(&self, field: Field) -> Result<bool, Fault> {
        match self.value(field)? {
            Value::Nothing => Ok(false),
            Value::Bool(value) => Ok(value),
            _ => Err(Fault::expected(field, "true or false", self.raw(field))),
        }
    }
}

/// The text of a JSON string.
#[inline]
fn text(field: Field, raw: &str) -> Result<Cow<'_, str>, Fault> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains('\\') {
        return Ok(inner.into());
    }
    // The syntax was checked; what may be left is half of a surrogate pair.
    serde_json::from_str::<String>(raw)
        .map(Cow::Owned)
        .map_err(|_| Fault::of_field(field, format!("{} has an escape that is no character", cut(raw))))
}

/// Whether a text is a number and no name.
#[inline]
pub(super) fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number of decimal digits and nothing else.
#[inline]
fn digits(text: &str) -> Option<u64> {
    // `parse` takes a sign too.
    if text.starts_with('+') { None } else { text.parse().ok() }
}
