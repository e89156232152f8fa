//! Whose addresses the attacks come from, within 127.0.0.0/8.

use std::net::Ipv4Addr;

/// The countries that people live in; each has a network of 65,536 homes, from 127.16.0.0/16 on.
pub const COUNTRIES: [[u8; 2]; 3] = [*b"DE", *b"FR", *b"US"];
/// The second octet of the first country's homes.
const HOMES: u8 = 16;
/// The second octet of offices and rows of telephones, each behind one address: in the first country.
const SHARED: u8 = 24;
/// The second octet of data centres that lists know.
const LISTED_CENTRES: u8 = 64;
/// The second octet of data centres that no list knows yet.
const NEW_CENTRES: u8 = 80;

// Homes end before what follows.
const _: () = assert!(HOMES as usize + COUNTRIES.len() <= SHARED as usize);

/// A home in the country with this place in [`COUNTRIES`].
#[must_use]
pub const fn home(country: usize, number: u16) -> Ipv4Addr {
    at(HOMES + country as u8, number)
}

/// An address that many share.
#[must_use]
pub const fn shared(number: u16) -> Ipv4Addr {
    at(SHARED, number)
}

/// A machine in a data centre that the lists know.
#[must_use]
pub const fn listed_centre(number: u16) -> Ipv4Addr {
    at(LISTED_CENTRES, number)
}

/// A machine in a data centre that they do not know.
#[must_use]
pub const fn new_centre(number: u16) -> Ipv4Addr {
    at(NEW_CENTRES, number)
}

const fn at(second: u8, number: u16) -> Ipv4Addr {
    let [third, fourth] = number.to_be_bytes();
    Ipv4Addr::new(127, second, third, fourth)
}
