//! Tags: SipHash-2-4 over the 48 signed octets of a click.

use serde_json::{Value, json};
use weir_common::siphash::{SipKey, siphash24};
use weir_common::wire::{Click, SIGNED_WORDS};
use zerocopy::FromBytes;

use super::Case;
use super::octets::{KEY, hex, issued_id, number, put, signed_click, siphash, unhex, with};

pub(crate) const ABOUT: &str = "SipHash-2-4, 64-bit: key (16 octets), message, tag as a number and as the 8 \
octets that stand in a click. Messages of 48 octets are the signed part of a click.";

pub(crate) fn cases() -> Vec<Case> {
    let signed = signed_click(42);
    let part = &signed[..48];
    let mut cases = vec![
        // The two values that come from elsewhere: the reference implementation's vector for
        // eight octets, and the worked example of the protocol document.
        case("reference_implementation_8_octets", &KEY, &[0, 1, 2, 3, 4, 5, 6, 7], 0x93f5_f579_9a93_2462),
        case("worked_example", &KEY, part, 0xf482_a948_eac4_b24e),
        computed("zero_key_zero_message", &[0; 16], &[0; 48]),
        computed("largest_key_largest_message", &[255; 16], &[255; 48]),
        computed("counting_octets", &KEY, &core::array::from_fn::<u8, 48, _>(|i| i as u8)),
        computed("next_sequence", &KEY, &signed_click(43)[..48]),
        computed("another_key", &core::array::from_fn(|i| 0xf0 | i as u8), part),
        computed("largest_id", &KEY, &with(part, 0, &[255; 16])),
        computed("same_id_unsigned_fields_zero", &KEY, &with(&[0; 48], 0, &issued_id(42))),
    ];
    // One bit in each signed field: every one of them is under the tag.
    for (name, octet) in [
        ("issuer", 0),
        ("key_number", 2),
        ("issued_at", 4),
        ("sequence", 8),
        ("ad", 16),
        ("price", 24),
        ("campaign", 32),
        ("creative", 36),
        ("placement", 40),
        ("publisher", 44),
        ("last_octet_of_the_publisher", 47),
    ] {
        let mut changed = part.to_vec();
        let flipped = changed[octet] ^ 1;
        put(&mut changed, octet, &[flipped]);
        cases.push(computed(&format!("one_bit_of_{name}"), &KEY, &changed));
    }
    for bit in [0, 63, 64, 127] {
        let mut key = KEY;
        key[bit / 8] ^= 1 << (bit % 8);
        cases.push(computed(&format!("one_bit_of_the_key_{bit}"), &key, part));
    }
    cases
}

fn case(name: &str, key: &[u8; 16], message: &[u8], tag: u64) -> Case {
    let members = json!({
        "key": hex(key), "message": hex(message), "tag": number(tag), "tag_octets": hex(&tag.to_le_bytes()),
    });
    (name.to_owned(), members)
}

fn computed(name: &str, key: &[u8; 16], message: &[u8]) -> Case {
    case(name, key, message, siphash(key, message))
}

fn words<const N: usize>(message: &[u8]) -> [u64; N] {
    let word = |i: usize| u64::from_le_bytes(message[i * 8..i * 8 + 8].try_into().expect("eight octets"));
    core::array::from_fn(word)
}

pub(crate) fn replay(vector: &Value) {
    let key: [u8; 16] = unhex(vector["key"].as_str().expect("hex")).try_into().expect("16 octets");
    let message = unhex(vector["message"].as_str().expect("hex"));
    let sip = SipKey::from_bytes(key);
    let tag = match message.len() {
        8 => siphash24(&sip, &words::<1>(&message)),
        48 => {
            let mut octets = [0; 96];
            octets[..48].copy_from_slice(&message);
            let click = Click::read_from_bytes(&octets).expect("96 octets");
            assert_eq!(click.signed_words(), words::<SIGNED_WORDS>(&message));
            click.expected_tag(&sip)
        }
        len => panic!("a message of {len} octets"),
    };
    assert_eq!(number(tag), vector["tag"]);
    assert_eq!(hex(&tag.to_le_bytes()), vector["tag_octets"]);
    assert_eq!(siphash(&key, &message), tag);
}
