//! Makes a click of the fields of an object.
//!
//! The first thing that is wrong is the one that is told, in the order of [`click`].

use std::hash::Hasher;

use jiff::Timestamp;
use siphasher::sip::SipHasher24;
use uuid::Uuid;
use weir_common::id::ImpressionId;
use weir_common::wire::{Click, MAX_PRICE_MICROS, click_flags};

use super::extension::{CONVERSION_LEN_MAX, Extension, SESSION_LEN_MAX};
use super::object::{Field, Fields};
use super::value::{Value, is_digits, shown};
use super::{Catalog, Fault, Sender, Token};

/// The key that turns names of users into user keys: "weir.user_id.v1" and a zero, published in
/// `docs/http.md`, so that a sender of datagrams can give the same user the same key.
const USER_KEY: [u8; 16] = *b"weir.user_id.v1\0";

/// Names of device classes, and of what else they are called, with the numbers of `docs/protocol.md`.
const DEVICES: [(&str, u8); 16] = [
    ("desktop", 1),
    ("phone", 2),
    ("mobile", 2),
    ("smartphone", 2),
    ("tablet", 3),
    ("tv", 4),
    ("ctv", 4),
    ("console", 5),
    ("wearable", 6),
    ("car", 7),
    ("speaker", 8),
    ("signage", 9),
    ("server", 10),
    ("pc", 1),
    ("laptop", 1),
    ("unknown", 0),
];

/// The click that the fields say, but for the length of its extension, which is appended.
pub(super) fn click(
    fields: &Fields<'_>,
    sender: &Sender<'_>,
    catalog: &Catalog,
    extension: &mut Vec<u8>,
) -> Result<Click, Fault> {
    if let Some(field) = fields.twice {
        return Err(Fault::of_field(field, "given twice in one object"));
    }
    let mut click = identity(fields)?;
    click.flags |= sender.flags();
    offer(fields, catalog, &mut click)?;
    moment(fields, sender, &mut click)?;
    click.user_key = user_key(fields)?.into();
    click.device = device(fields)?;
    click.country = country(fields)?;
    position(fields, &mut click)?;
    point(fields, &mut click)?;
    if fields.boolean(Field::Test)? {
        click.flags |= click_flags::TEST;
    }
    append_extension(fields, sender, extension)?;
    Ok(click)
}

/// Which click it is: the signed part where there is a token, else a foreign id.
fn identity(fields: &Fields<'_>) -> Result<Click, Fault> {
    let event_id = fields.text(Field::EventId, "a UUID as a string")?;
    let mut click = match (fields.text(Field::Impression, "a signed token as a string")?, event_id) {
        (Some(token), None) => {
            let named = |error| Fault { field: Field::Impression.name(), ..Fault::from(error) };
            Token::parse(&token).map_err(named)?.click
        }
        (None, Some(id)) => {
            let impression = ImpressionId(event_id_bytes(&id)?);
            Click { impression, flags: click_flags::FOREIGN, ..Click::zeroed() }
        }
        (Some(_), Some(_)) => {
            let why = "a click has one id: leave this out where `impression` holds a signed token";
            return Err(Fault::of_field(Field::EventId, why));
        }
        (None, None) => {
            let why = "a click needs an id: a UUID here, or a signed token as `impression`";
            return Err(Fault::missing(Field::EventId, why));
        }
    };
    if let Some(ordinal) = fields.integer(Field::Ordinal, u8::MAX.into())? {
        click.ordinal = ordinal as u8;
    }
    Ok(click)
}

fn event_id_bytes(id: &str) -> Result<[u8; 16], Fault> {
    Uuid::try_parse(id).map(Uuid::into_bytes).map_err(|_| {
        Fault::of_field(Field::EventId, format!("expected a UUID or 32 hex digits, found {}", shown(id)))
    })
}

/// What was shown, and at what price. Under a token these are settled; beside it they must say the same.
fn offer(fields: &Fields<'_>, catalog: &Catalog, click: &mut Click) -> Result<(), Fault> {
    let max = u64::from(u32::MAX);
    let ad = fields.id(Field::Ad, u64::MAX, |name| catalog.ad(name))?;
    let campaign = fields.id(Field::Campaign, max, |name| catalog.campaign(name).map(u64::from))?;
    let creative = fields.id(Field::Creative, max, |name| catalog.creative(name).map(u64::from))?;
    let placement = fields.id(Field::Placement, max, |name| catalog.placement(name).map(u64::from))?;
    let publisher = fields.id(Field::Publisher, max, |name| catalog.publisher(name).map(u64::from))?;
    let price = price(fields)?;
    if !click.is_foreign() {
        agrees(Field::Ad, ad, click.ad.get())?;
        agrees(Field::Campaign, campaign, click.campaign.get().into())?;
        agrees(Field::Creative, creative, click.creative.get().into())?;
        agrees(Field::Placement, placement, click.placement.get().into())?;
        agrees(Field::Publisher, publisher, click.publisher.get().into())?;
        return agrees(Field::CostPerClick, price, click.price_micros.get());
    }
    let ad =
        ad.ok_or_else(|| Fault::missing(Field::Ad, "a click needs an ad: its id, or a name of the catalog"))?;
    let entry = catalog.of_ad(ad);
    let campaign = campaign.map_or_else(|| entry.and_then(|entry| entry.campaign), |id| Some(id as u32));
    let publisher = publisher.map_or_else(|| entry.and_then(|entry| entry.publisher), |id| Some(id as u32));
    click.ad = ad.into();
    click.campaign = campaign.unwrap_or(0).into();
    click.creative = (creative.unwrap_or(0) as u32).into();
    click.placement = (placement.unwrap_or(0) as u32).into();
    click.publisher = publisher.unwrap_or(0).into();
    click.price_micros = price.or_else(|| entry.and_then(|entry| entry.price_micros)).unwrap_or(0).into();
    Ok(())
}

fn agrees(field: Field, given: Option<u64>, signed: u64) -> Result<(), Fault> {
    match given {
        Some(given) if given != signed => Err(Fault::of_field(
            field,
            format!("contradicts the signed token, which says {signed}{}", unit(field)),
        )),
        _ => Ok(()),
    }
}

const fn unit(field: Field) -> &'static str {
    if matches!(field, Field::CostPerClick) { " millionths" } else { "" }
}

fn price(fields: &Fields<'_>) -> Result<Option<u64>, Fault> {
    let Some((negative, price)) = fields.millionths(Field::CostPerClick)? else { return Ok(None) };
    let wrong = |why: &str| Err(Fault::of_field(Field::CostPerClick, why));
    if negative && (price.cut > 0 || !price.exact) {
        return wrong("a price cannot be negative");
    }
    if price.cut > MAX_PRICE_MICROS || price.cut == MAX_PRICE_MICROS && !price.exact {
        return wrong("more than 1000000, the highest price of a click");
    }
    if !price.exact {
        return wrong("more than six decimals: prices are counted in millionths, exactly");
    }
    Ok(Some(price.cut))
}

fn moment(fields: &Fields<'_>, sender: &Sender<'_>, click: &mut Click) -> Result<(), Fault> {
    let field = Field::Timestamp;
    click.clicked_at_ms = match fields.value(field)? {
        Value::Nothing => sender.received_at.0,
        Value::Text(text) if !is_digits(&text) => text
            .parse::<Timestamp>()
            .ok()
            .and_then(|moment| u64::try_from(moment.as_millisecond()).ok())
            .ok_or_else(|| {
                let why = "expected a time since 1970 with its offset, as 2026-11-22T16:00:00.000Z, or a number of ms";
                Fault::of_field(field, format!("{why}; found {}", shown(&text)))
            })?,
        _ => fields.integer(field, u64::MAX)?.unwrap_or(sender.received_at.0),
    }
    .into();
    Ok(())
}

/// An integer is the key itself; a string is hashed.
fn user_key(fields: &Fields<'_>) -> Result<u64, Fault> {
    if let Value::Text(name) = fields.value(Field::User)? {
        let mut hasher = SipHasher24::new_with_key(&USER_KEY);
        hasher.write(name.as_bytes());
        // 0 says that there is no user.
        return Ok(hasher.finish().max(1));
    }
    Ok(fields.integer(Field::User, u64::MAX)?.unwrap_or(0))
}

fn device(fields: &Fields<'_>) -> Result<u8, Fault> {
    let field = Field::Device;
    match fields.value(field)? {
        Value::Text(name) if !is_digits(&name) => DEVICES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
            .map(|(_, number)| *number)
            .ok_or_else(|| {
                let names = DEVICES.map(|(name, _)| name).join(", ");
                Fault::of_field(
                    field,
                    format!("{} is none of {names}, nor a number from 0 to 255", shown(&name)),
                )
            }),
        _ => Ok(fields.integer(field, u8::MAX.into())?.unwrap_or(0) as u8),
    }
}

fn country(fields: &Fields<'_>) -> Result<[u8; 2], Fault> {
    let expected = "two letters of ISO 3166-1 as a string";
    let Some(text) = fields.text(Field::Country, expected)? else { return Ok([0; 2]) };
    match *text.as_bytes() {
        [first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
            Ok([first.to_ascii_uppercase(), second.to_ascii_uppercase()])
        }
        _ => Err(Fault::of_field(Field::Country, format!("expected {expected}, found {}", shown(&text)))),
    }
}

fn position(fields: &Fields<'_>, click: &mut Click) -> Result<(), Fault> {
    let latitude = degrees_e6(fields, Field::Latitude, 90)?;
    let longitude = degrees_e6(fields, Field::Longitude, 180)?;
    let (latitude, longitude) = match (latitude, longitude) {
        (Some(latitude), Some(longitude)) => (latitude, longitude),
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(Fault::missing(Field::Latitude, "`lon` needs a `lat` beside it")),
        (Some(_), None) => return Err(Fault::missing(Field::Longitude, "`lat` needs a `lon` beside it")),
    };
    click.latitude_e6 = latitude.into();
    click.longitude_e6 = longitude.into();
    click.flags |= click_flags::POSITION;
    Ok(())
}

/// To the nearest millionth of a degree, a tenth of a metre.
fn degrees_e6(fields: &Fields<'_>, field: Field, max: u64) -> Result<Option<i32>, Fault> {
    let Some((negative, degrees)) = fields.millionths(field)? else { return Ok(None) };
    let max_e6 = max * 1_000_000;
    if degrees.cut > max_e6 || degrees.cut == max_e6 && !degrees.exact {
        return Err(Fault::of_field(field, format!("beyond {max} degrees")));
    }
    let magnitude = (degrees.cut + u64::from(degrees.half)) as i32;
    Ok(Some(if negative { -magnitude } else { magnitude }))
}

fn point(fields: &Fields<'_>, click: &mut Click) -> Result<(), Fault> {
    let (x, y) = match (pixels(fields, Field::X)?, pixels(fields, Field::Y)?) {
        (Some(x), Some(y)) => (x, y),
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(Fault::missing(Field::X, "`y` needs an `x` beside it")),
        (Some(_), None) => return Err(Fault::missing(Field::Y, "`x` needs a `y` beside it")),
    };
    click.x = x.into();
    click.y = y.into();
    click.flags |= click_flags::POINT;
    Ok(())
}

/// Whole pixels: browsers give fractions on screens of high density.
fn pixels(fields: &Fields<'_>, field: Field) -> Result<Option<u16>, Fault> {
    let Some((negative, millionths)) = fields.millionths(field)? else { return Ok(None) };
    match u16::try_from(millionths.cut / 1_000_000) {
        Ok(pixels) if !negative || (millionths.cut == 0 && millionths.exact) => Ok(Some(pixels)),
        _ => Err(Fault::of_field(field, "expected pixels from 0 to 65535")),
    }
}

fn append_extension(fields: &Fields<'_>, sender: &Sender<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let user_agent = fields.text(Field::UserAgent, "a string")?;
    let referrer = fields.text(Field::Referrer, "a string")?;
    let session = fields.name(Field::Session, SESSION_LEN_MAX)?;
    let conversion = fields.name(Field::Conversion, CONVERSION_LEN_MAX)?;
    let of_sender = Extension::of_sender(sender);
    Extension {
        user_agent: user_agent.as_ref().map_or(of_sender.user_agent, |text| text.as_bytes()),
        referrer: referrer.as_ref().map_or(of_sender.referrer, |text| text.as_bytes()),
        session: session.as_bytes(),
        conversion: conversion.as_bytes(),
    }
    .append_to(out);
    Ok(())
}
