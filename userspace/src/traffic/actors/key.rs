//! Who may be a known-bad actor, and the one form of it that is hashed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use weir_common::siphash::{SipKey, siphash24};

use crate::traffic::source::shown;

/// An address or a user key.
///
/// IPv6 addresses count by their /64: it is what one host has, and it changes the rest of its
/// address daily (RFC 8981). IPv4 addresses inside IPv6 ones count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActorKey([u64; 2]);

/// Distinguishes the kinds; part of the file's format.
const IPV4: u64 = 4;
const IPV6: u64 = 6;
const USER: u64 = 1;

impl ActorKey {
    /// The user at this address.
    #[inline]
    #[must_use]
    pub const fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self([IPV4, address.to_bits() as u64]),
            IpAddr::V6(address) => Self([IPV6, (address.to_bits() >> 64) as u64]),
        }
    }

    /// The user with this key, as clicks carry it; none for 0, which says that there is no key.
    #[inline]
    #[must_use]
    pub const fn user(user_key: u64) -> Option<Self> {
        if user_key == 0 { None } else { Some(Self([USER, user_key])) }
    }

    /// SipHash-2-4 of the kind and the number, as two words.
    #[inline]
    #[must_use]
    pub const fn hash(&self, key: &SipKey) -> u64 {
        siphash24(key, &self.0)
    }

    /// Reads a key as lists write it: an address, or a user key in decimal or as `0x` and
    /// hexadecimal digits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::address(address));
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        match number.map(Self::user) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err("user key 0 means that there is none; leave the line out".to_owned()),
            Err(_) if text.contains('/') => {
                Err(format!("{} is a prefix; prefixes belong in the list of bad prefixes", shown(text)))
            }
            Err(_) => Err(format!(
                "{} is neither an address nor a user key; write 203.0.113.7, 2001:db8::7, 12345 or 0xfedc",
                shown(text)
            )),
        }
    }
}

/// As lists write it.
impl fmt::Display for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [IPV4, bits] => std::net::Ipv4Addr::from_bits(bits as u32).fmt(f),
            [IPV6, bits] => write!(f, "{} (its /64)", Ipv6Addr::from_bits(u128::from(bits) << 64)),
            [_, number] => write!(f, "{number:#018x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_has_one_form_however_it_is_written() {
        let read = |text| ActorKey::read(text).unwrap();
        assert_eq!(read("::ffff:192.0.2.7"), read("192.0.2.7"));
        assert_eq!(read("2001:db8::7"), read("2001:db8:0:0:ffff::"));
        assert_ne!(read("2001:db8::7"), read("2001:db8:0:1::7"));
        assert_eq!(read("0xFEDC"), read("65244"));
        assert_eq!(Some(read("65244")), ActorKey::user(65_244));
    }

    #[test]
    fn an_address_and_a_user_key_of_the_same_bits_are_two_actors() {
        let bits = u32::from_be_bytes([192, 0, 2, 7]);
        assert_ne!(ActorKey::read("192.0.2.7"), ActorKey::read(&bits.to_string()));
        let key = SipKey::from_bytes([7; 16]);
        let hashes = ["192.0.2.7", &bits.to_string()].map(|text| ActorKey::read(text).unwrap().hash(&key));
        assert_ne!(hashes[0], hashes[1]);
    }

    #[test]
    fn what_is_no_actor_is_refused_with_what_would_be() {
        let refused = |text| ActorKey::read(text).unwrap_err();
        assert!(refused("192.0.2.0/24").contains("is a prefix; prefixes belong in"));
        assert!(refused("0").contains("user key 0 means that there is none"));
        for text in ["example.com", "0x", "-1", "0x1_0", "18446744073709551616"] {
            assert!(refused(text).contains("neither an address nor a user key"), "{text}");
        }
    }
}
