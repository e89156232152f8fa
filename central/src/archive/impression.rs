//! Impression ids as people write them: the 32 hexadecimal digits of the 16 octets, in the order in which
//! they stand on the wire. A foreign id is a UUID, so the form with hyphens is read as well.

use weir_common::id::ImpressionId;

/// Octets after which a UUID has a hyphen.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

/// The id that a text says.
#[must_use]
pub fn read(text: &str) -> Option<ImpressionId> {
    let digits: Vec<u8> = match text.len() {
        32 => text.bytes().collect(),
        36 => {
            let hyphen = |octet: &usize| octet * 2 + HYPHENS.iter().filter(|before| *before < octet).count();
            let places = HYPHENS.map(|octet| hyphen(&octet));
            if places.iter().any(|place| text.as_bytes()[*place] != b'-') {
                return None;
            }
            text.bytes()
                .enumerate()
                .filter(|(place, _)| !places.contains(place))
                .map(|(_, digit)| digit)
                .collect()
        }
        _ => return None,
    };
    let mut octets = [0; 16];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *octet = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(ImpressionId(octets))
}

/// An id as text.
#[must_use]
pub fn text(id: ImpressionId) -> String {
    id.0.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Issuer, KeyId};

    use super::*;

    #[test]
    fn an_id_is_the_digits_of_its_octets_as_they_stand_on_the_wire() {
        // The example of docs/protocol.md.
        let id = ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, 42);
        assert_eq!(text(id), "07000300803bb16a2a00000000000000");
        assert_eq!(read(&text(id)), Some(id));
        assert_eq!(read("07000300-803b-b16a-2a00-000000000000"), Some(id));
        assert_eq!(read("07000300803BB16A2A00000000000000"), Some(id));
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in [
            "",
            "07",
            "07000300803bb16a2a0000000000000g",
            "07000300803bb16a2a000000000000000000",
            "0700030-0803b-b16a-2a00-000000000000",
            "+7000300803bb16a2a00000000000000",
            "ää0003008ä3bb16a2a0000000000",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
