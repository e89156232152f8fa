//! What a body holds: JSON, lines of JSON, or a binary datagram, as clicks.
//!
//! [`read`] turns a body into [`Clicks`]: one item for each click it names, in the order of the body. What
//! is wrong with one click costs that click alone ([`Item::Bad`], with the field and why); only a body that
//! cannot be told apart into clicks is refused whole. Whether a click may be counted is no question
//! here: the signature, the clock and everything before them are admission's, as for a datagram.
//!
//! Nothing is kept between bodies but memory, and where nothing is wrong nothing is allocated for a click.
//!
//! Start reading at [`read`]. `object` tells the fields of an object apart, `value` reads one of them,
//! `assemble` makes them a click. The fields are described in `docs/http.md`.

mod assemble;
mod decimal;
mod extension;
mod object;
#[cfg(test)]
mod tests;
mod value;

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use weir_common::reason::{Outcome, Reason};
use weir_common::time::UnixMs;
use weir_common::token::{Token, TokenError};
use weir_common::wire::{Click, Datagram, MAX_EXTENSION, click_flags, extension as extension_field};

/// Prices of the catalog are read by the same digits.
pub(crate) use decimal::Decimal;

use super::catalog::Catalog;
use super::head::Format;
use object::Fields;

/// The most clicks one request may carry: four binary datagrams of them, and few enough that the answer is
/// one short response.
pub const CLICKS_MAX: usize = 1000;

// Offsets into the extensions of all clicks of a body are 32 bits.
const _: () = assert!(CLICKS_MAX * MAX_EXTENSION < u32::MAX as usize);

/// What the request itself says of whoever clicked; fields of a click go before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// The header `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The header `Referer`.
    pub referrer: Option<&'a [u8]>,
    /// The request says that it is a prefetch or a prerender.
    pub is_prefetch: bool,
    /// The user does not want to be tracked: what could tell one user from another is left out.
    pub is_opted_out: bool,
    /// When the request was read.
    pub received_at: UnixMs,
}

/// Why a click, or a whole body, is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Malformed, or refused.
    pub outcome: Outcome,
    /// The reason it is counted under.
    pub reason: Reason,
    /// The field that is wrong, "" where it is none.
    pub field: &'static str,
    /// What is wrong and what would be right, for whoever wrote the sender.
    pub why: String,
}

impl From<TokenError> for Fault {
    /// `bad_token`.
    fn from(error: TokenError) -> Self {
        Self { outcome: Outcome::Malformed, reason: Reason::BadToken, field: "", why: error.to_string() }
    }
}

/// One click of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A click whose form is sound.
    Click {
        /// The fixed part.
        click: &'a Click,
        /// Its extension.
        extension: &'a [u8],
    },
    /// A click that is wrong by itself.
    Bad(&'a Fault),
}

/// The clicks of a body. Reused from request to request: keeps its memory.
#[derive(Debug, Default)]
pub struct Clicks {
    slots: Vec<Slot>,
    /// The extensions of all clicks, one after the other.
    extensions: Vec<u8>,
    faults: Vec<Fault>,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Click { click: Click, extension_at: u32 },
    Bad { fault: u32 },
}

impl Clicks {
    /// Forgets all clicks.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.extensions.clear();
        self.faults.clear();
    }

    /// How many clicks, bad ones too.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What is wrong with those that cannot be read.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The clicks in the order of the body.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> + Clone {
        self.iter_from(0)
    }

    /// The clicks from this one on.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = Item<'_>> + Clone {
        self.slots.get(first..).unwrap_or_default().iter().map(|slot| match slot {
            Slot::Click { click, extension_at } => {
                let at = *extension_at as usize;
                Item::Click {
                    click,
                    extension: &self.extensions[at..at + click.extension_len.get() as usize],
                }
            }
            Slot::Bad { fault } => Item::Bad(&self.faults[*fault as usize]),
        })
    }

    /// Appends what `make` makes of what this sender sent; it appends the click's extension to what it is given.
    #[inline]
    fn push(&mut self, sender: &Sender<'_>, make: impl FnOnce(&mut Vec<u8>) -> Result<Click, Fault>) {
        let extension_at = self.extensions.len();
        match make(&mut self.extensions) {
            Ok(mut click) => {
                if sender.is_opted_out {
                    forget_user(&mut click, &mut self.extensions, extension_at);
                }
                // Both fit: the extension of a click is that of a datagram, or at most MAX_EXTENSION.
                click.extension_len = ((self.extensions.len() - extension_at) as u16).into();
                self.slots.push(Slot::Click { click, extension_at: extension_at as u32 });
            }
            Err(fault) => {
                self.extensions.truncate(extension_at);
                self.slots.push(Slot::Bad { fault: self.faults.len() as u32 });
                self.faults.push(fault);
            }
        }
    }
}

/// Reads a body. Afterwards `out` holds its clicks and nothing else, at least one and at most
/// [`CLICKS_MAX`].
///
/// # Errors
/// Nothing of it can be told apart into clicks, or they are none or too many; `out` is then empty, and the
/// body counts as one malformed click. A click that is wrong by itself is an [`Item::Bad`] and costs only
/// itself.
pub fn read(
    format: Format,
    body: &[u8],
    sender: &Sender<'_>,
    catalog: &Catalog,
    out: &mut Clicks,
) -> Result<(), Fault> {
    out.clear();
    let mut reading = Reading { sender, catalog, out, too_many: false };
    let read = match format {
        Format::Json => reading.json(body),
        Format::Lines => reading.lines(body),
        Format::Text => reading.text(body),
        Format::Datagram => reading.datagram(body),
    };
    let read = if reading.too_many {
        Err(Fault::of_body(
            Reason::BadCount,
            format!("more than {CLICKS_MAX} clicks in one request: send several"),
        ))
    } else if read.is_ok() && out.is_empty() {
        Err(Fault::of_body(Reason::BadCount, "there is no click in the body".to_owned()))
    } else {
        read
    };
    if read.is_err() {
        out.clear();
    }
    read
}

/// One click of a link or pixel: what its token says. Afterwards `out` holds it and nothing else.
pub fn of_token(token: &Token, sender: &Sender<'_>, out: &mut Clicks) {
    out.clear();
    out.push(sender, |extension| {
        let mut click = token.click;
        click.clicked_at_ms = sender.received_at.0.into();
        click.flags |= sender.flags();
        extension::Extension::of_sender(sender).append_to(extension);
        Ok(click)
    });
}

/// Takes away what could tell one user from another, in place. What is wrong stays as it is, for admission to
/// see: a position that nobody announced, and what is no field of an extension.
fn forget_user(click: &mut Click, extensions: &mut Vec<u8>, extension_at: usize) {
    click.user_key = 0.into();
    if click.flags & click_flags::POSITION != 0 {
        click.flags &= !click_flags::POSITION;
        (click.latitude_e6, click.longitude_e6) = (0.into(), 0.into());
    }
    let (mut kept, mut at) = (extension_at, extension_at);
    while let Some((kind, value, _)) = extension_field::split_field(&extensions[at..]) {
        let end = at + extension_field::FIELD_HEADER_LEN + value.len();
        if !matches!(kind, extension_field::REFERRER | extension_field::SESSION) {
            extensions.copy_within(at..end, kept);
            kept += end - at;
        }
        at = end;
    }
    extensions.drain(kept..at);
}

impl Sender<'_> {
    /// The flags of each click of this sender.
    const fn flags(&self) -> u8 {
        if self.is_prefetch { click_flags::PREFETCH } else { 0 }
    }
}

impl Fault {
    fn of_body(reason: Reason, why: String) -> Self {
        Self { outcome: Outcome::Malformed, reason, field: "", why }
    }

    fn not_utf8(error: std::str::Utf8Error) -> Self {
        Self::of_body(Reason::BadJson, format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))
    }

    /// What is wrong with the syntax of a text that starts on the line after `lines_before`.
    fn of_syntax(error: &serde_json::Error, lines_before: usize) -> Self {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let line = lines_before + error.line();
        Self::of_body(Reason::BadJson, format!("line {line}, column {}: {what}", error.column()))
    }

    fn not_an_object(found: &str) -> Self {
        Self::of_body(Reason::BadJson, format!("a click is an object, written {{...}}; found {found}"))
    }
}

/// A body that is being read.
struct Reading<'r> {
    sender: &'r Sender<'r>,
    catalog: &'r Catalog,
    out: &'r mut Clicks,
    too_many: bool,
}

impl Reading<'_> {
    fn json(&mut self, body: &[u8]) -> Result<(), Fault> {
        let text = std::str::from_utf8(body).map_err(Fault::not_utf8)?;
        let read = match body.trim_ascii_start().first() {
            Some(b'[') => self.array(text),
            Some(b'{') => self.object(text),
            Some(_) => {
                let why = "neither an object nor an array of objects".to_owned();
                return Err(Fault::of_body(Reason::BadJson, why));
            }
            None => Ok(()),
        };
        read.map_err(|error| Fault::of_syntax(&error, 0))
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), Fault> {
        for (lines_before, line) in body.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if !self.has_room() {
                return Ok(());
            }
            let read = std::str::from_utf8(line)
                .map_err(Fault::not_utf8)
                .and_then(|line| self.object(line).map_err(|error| Fault::of_syntax(&error, lines_before)));
            if let Err(fault) = read {
                self.out.push(self.sender, |_| Err(fault));
            }
        }
        Ok(())
    }

    fn text(&mut self, body: &[u8]) -> Result<(), Fault> {
        match body.trim_ascii_start().first() {
            Some(b'[') => self.json(body),
            Some(b'{') => self.object_or_lines(body),
            _ => self.lines(body),
        }
    }

    /// An object may stand on several lines, and several objects on a line each.
    fn object_or_lines(&mut self, body: &[u8]) -> Result<(), Fault> {
        let Err(as_object) = self.json(body) else { return Ok(()) };
        self.out.clear();
        self.lines(body)?;
        // Not one line is an object: it was meant as one, and its clicks are not as many as its lines.
        let is_object = |item| !matches!(item, Item::Bad(fault) if fault.reason == Reason::BadJson);
        if self.too_many || self.out.iter().any(is_object) { Ok(()) } else { Err(as_object) }
    }

    fn datagram(&mut self, body: &[u8]) -> Result<(), Fault> {
        let datagram =
            Datagram::parse(body).map_err(|bad| Fault::of_body(bad.reason, bad.reason.cause().to_owned()))?;
        for (click, extension) in datagram.clicks() {
            self.out.push(self.sender, |extensions| {
                extensions.extend_from_slice(extension);
                Ok(Click { flags: click.flags | self.sender.flags(), ..*click })
            });
        }
        Ok(())
    }

    fn array(&mut self, text: &str) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_seq(Elements(self))?;
        json.end()
    }

    /// One object and nothing after it. What is no object becomes a bad click.
    fn object(&mut self, text: &str) -> serde_json::Result<()> {
        let before = self.out.len();
        let mut json = serde_json::Deserializer::from_str(text);
        let read = Element(self).deserialize(&mut json).and_then(|()| json.end());
        if read.is_err() {
            self.out.slots.truncate(before);
        }
        read
    }

    fn has_room(&mut self) -> bool {
        self.too_many |= self.out.len() >= CLICKS_MAX;
        !self.too_many
    }
}

/// The elements of an array, each a click.
struct Elements<'e, 'r>(&'e mut Reading<'r>);

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }
}

/// One value that should be the object of a click. Fails only where the JSON does.
struct Element<'e, 'r>(&'e mut Reading<'r>);

impl Element<'_, '_> {
    fn bad<E: serde::de::Error>(self, found: &str) -> Result<(), E> {
        if !self.0.has_room() {
            return Err(E::custom("too many clicks"));
        }
        self.0.out.push(self.0.sender, |_| Err(Fault::not_an_object(found)));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        if !self.0.has_room() {
            return Err(serde::de::Error::custom("too many clicks"));
        }
        let fields = Fields::read(map)?;
        let (sender, catalog) = (self.0.sender, self.0.catalog);
        self.0.out.push(sender, |extension| assemble::click(&fields, sender, catalog, extension));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        self.bad("an array")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.bad("null")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.bad("true or false")
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.bad("a number")
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.bad("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.bad("a number")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.bad("a string")
    }
}
