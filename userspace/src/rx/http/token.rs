//! A signed impression as text: what stands in links and in JSON.
//!
//! The text is base64url without padding (RFC 4648, section 5) of the 48 signed bytes of a click, its
//! tag of 8, and, where the click is not the first on its impression, one byte for the ordinal.
//! It says nothing that is not under the signature but that ordinal, and nothing here checks the
//! signature: that is admission's part, as for any other click.

use data_encoding::BASE64URL_NOPAD;
use weir_common::reason::{Outcome, Reason};
use weir_common::wire::{Click, SIGNED_WORDS};
use zerocopy::{FromBytes, IntoBytes};

use super::clicks::Fault;

/// The signed bytes and the tag.
const SIGNED_AND_TAG_LEN: usize = SIGNED_WORDS * 8 + size_of::<u64>();
/// With the ordinal.
const TOKEN_LEN_MAX: usize = SIGNED_AND_TAG_LEN + 1;
/// Characters of a token without an ordinal.
pub const TOKEN_CHARS_MIN: usize = (SIGNED_AND_TAG_LEN * 8).div_ceil(6);
/// Characters of a token with an ordinal.
pub const TOKEN_CHARS_MAX: usize = (TOKEN_LEN_MAX * 8).div_ceil(6);

// The signed part and the tag are the first bytes of a click, so that a token is a prefix of it.
const _: () = assert!(SIGNED_AND_TAG_LEN == std::mem::offset_of!(Click, user_key));

/// The signed part of a click and its tag, as in the wire format, and the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Only the signed fields, the tag and the ordinal are set.
    pub click: Click,
}

impl Token {
    /// Reads a token. Of the texts that base64 allows for the same bytes only one is taken: a bit that
    /// carries nothing must be zero.
    ///
    /// # Errors
    /// `bad_token`, for any other text.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() != TOKEN_CHARS_MIN && text.len() != TOKEN_CHARS_MAX {
            return Err(bad(format!(
                "a token has {TOKEN_CHARS_MIN} or {TOKEN_CHARS_MAX} characters, this one {}",
                text.len()
            )));
        }
        let mut bytes = [0; TOKEN_LEN_MAX];
        let len = if text.len() == TOKEN_CHARS_MIN { SIGNED_AND_TAG_LEN } else { TOKEN_LEN_MAX };
        BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes[..len]).map_err(|partial| {
            bad(format!("no base64url without padding from character {} on", partial.error.position + 1))
        })?;
        let mut click = [0; size_of::<Click>()];
        click[..SIGNED_AND_TAG_LEN].copy_from_slice(&bytes[..SIGNED_AND_TAG_LEN]);
        let mut click = Click::read_from_bytes(&click).unwrap_or_else(|_| Click::zeroed());
        click.ordinal = bytes[SIGNED_AND_TAG_LEN];
        Ok(Self { click })
    }

    /// The token of a click with an issued id. Of a click with a foreign id, which nobody signed,
    /// there is none; its text is that of an issued id that no key vouches for.
    #[must_use]
    pub fn text(click: &Click) -> String {
        let mut bytes = [0; TOKEN_LEN_MAX];
        bytes[..SIGNED_AND_TAG_LEN].copy_from_slice(&click.as_bytes()[..SIGNED_AND_TAG_LEN]);
        bytes[SIGNED_AND_TAG_LEN] = click.ordinal;
        let len = if click.ordinal == 0 { SIGNED_AND_TAG_LEN } else { TOKEN_LEN_MAX };
        BASE64URL_NOPAD.encode(&bytes[..len])
    }
}

fn bad(why: String) -> Fault {
    Fault { outcome: Outcome::Malformed, reason: Reason::BadToken, field: "", why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::id::{ImpressionId, Issuer, KeyId};

    use super::*;

    /// Any click of which a token says all.
    fn signed() -> impl Strategy<Value = Click> {
        (any::<[u8; SIGNED_AND_TAG_LEN]>(), any::<u8>()).prop_map(|(bytes, ordinal)| {
            let mut click = Click::zeroed();
            click.as_mut_bytes()[..SIGNED_AND_TAG_LEN].copy_from_slice(&bytes);
            click.ordinal = ordinal;
            click
        })
    }

    proptest! {
        #[test]
        fn a_token_says_what_the_click_said(click in signed()) {
            let text = Token::text(&click);
            prop_assert_eq!(text.len(), if click.ordinal == 0 { TOKEN_CHARS_MIN } else { TOKEN_CHARS_MAX });
            prop_assert_eq!(Token::parse(&text), Ok(Token { click }));
        }

        #[test]
        fn a_changed_character_is_refused_or_is_another_token(
            click in signed(),
            at in any::<prop::sample::Index>(),
            character in any::<u8>().prop_map(|byte| char::from(byte & 0x7f)),
        ) {
            let text = Token::text(&click);
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, character.encode_utf8(&mut [0; 4]));
            prop_assume!(changed != text);
            if let Ok(token) = Token::parse(&changed) {
                prop_assert_ne!(token.click, click);
            }
        }

        #[test]
        fn any_text_is_a_token_or_a_fault(text in ".{0,100}|[-_A-Za-z0-9]{74,77}") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert_eq!(token.click.user_key.get(), 0);
            }
        }
    }

    #[test]
    fn one_token_has_one_text() {
        let click = Click {
            impression: ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, 42),
            tag: 0x0102_0304_0506_0708.into(),
            ..Click::zeroed()
        };
        let text = Token::text(&click);
        assert!(Token::parse(&text).is_ok());
        // 75 characters hold 450 bits, 448 of them used.
        let (all_but_last, last) = text.split_at(TOKEN_CHARS_MIN - 1);
        assert_eq!(last, "E");
        for other in ["F", "G", "H"] {
            assert!(Token::parse(&format!("{all_but_last}{other}")).is_err(), "{other}");
        }
        for form in [format!("{text}="), format!(" {text}"), format!("{text} "), text.replace('A', "+")] {
            let fault = Token::parse(&form).expect_err("another text of the same bytes");
            assert_eq!((fault.outcome, fault.reason), (Outcome::Malformed, Reason::BadToken), "{form:?}");
        }
    }

    /// Other implementations rest on these characters.
    #[test]
    fn the_text_of_a_token_is_fixed() {
        let mut click = Click::zeroed();
        for (byte, value) in click.as_mut_bytes()[..SIGNED_AND_TAG_LEN].iter_mut().zip(0xc8..=0xff) {
            *byte = value;
        }
        let signed = "yMnKy8zNzs_Q0dLT1NXW19jZ2tvc3d7f4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8";
        assert_eq!(Token::text(&click), signed);
        click.ordinal = 5;
        assert_eq!(Token::text(&click), format!("{signed}F"));
    }
}
