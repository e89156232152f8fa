//! A signed impression as text: what stands in links and in JSON.
//!
//! The text is base64url without padding (RFC 4648, section 5) of the 48 signed bytes of a click, its
//! tag of 8, and, where the click is not the first on its impression, one byte for the ordinal.
//! It says nothing that is not under the signature but that ordinal, and nothing here makes or checks a
//! signature: an ad server writes the text, the HTTP door reads it, and admission judges it as any other
//! click. Of the feature `token`, which the eBPF program has no use for.

use core::fmt;
use core::ops::Deref;

use data_encoding::BASE64URL_NOPAD;
use zerocopy::{FromBytes, IntoBytes};

use crate::wire::{Click, SIGNED_WORDS};

/// The signed bytes and the tag.
const SIGNED_AND_TAG_LEN: usize = SIGNED_WORDS * 8 + size_of::<u64>();
/// With the ordinal.
const TOKEN_LEN_MAX: usize = SIGNED_AND_TAG_LEN + 1;
/// Characters of a token without an ordinal.
pub const CHARS_MIN: usize = (SIGNED_AND_TAG_LEN * 8).div_ceil(6);
/// Characters of a token with an ordinal.
pub const CHARS_MAX: usize = (TOKEN_LEN_MAX * 8).div_ceil(6);

// The signed part and the tag are the first bytes of a click, so that a token is a prefix of it.
const _: () = assert!(SIGNED_AND_TAG_LEN == core::mem::offset_of!(Click, user_key));
// As the message of an error says.
const _: () = assert!(CHARS_MIN == 75 && CHARS_MAX == 76);

/// The signed part of a click and its tag, as in the wire format, and the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Only the signed fields, the tag and the ordinal are set.
    pub click: Click,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Neither of the two lengths there are.
    Length {
        /// Its length in bytes.
        chars: usize,
    },
    /// A character that is none of base64url, or whose idle bits are not zero.
    Character {
        /// Which, from 1.
        number: usize,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { chars } => {
                write!(f, "a token has {CHARS_MIN} or {CHARS_MAX} characters, this one {chars}")
            }
            Self::Character { number } => {
                write!(f, "no base64url without padding from character {number} on")
            }
        }
    }
}

impl core::error::Error for TokenError {}

/// The text of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenText {
    chars: [u8; CHARS_MAX],
    len: u8,
}

impl TokenText {
    /// The characters, all of them safe in a path, a query and JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Base64url is ASCII, so there is always a text.
        core::str::from_utf8(&self.chars[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl Deref for TokenText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Token {
    /// Reads a token. Of the texts that base64 allows for the same bytes only one is taken: a bit that
    /// carries nothing must be zero.
    ///
    /// # Errors
    /// For any other text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() != CHARS_MIN && text.len() != CHARS_MAX {
            return Err(TokenError::Length { chars: text.len() });
        }
        let mut bytes = [0; TOKEN_LEN_MAX];
        let len = if text.len() == CHARS_MIN { SIGNED_AND_TAG_LEN } else { TOKEN_LEN_MAX };
        BASE64URL_NOPAD
            .decode_mut(text.as_bytes(), &mut bytes[..len])
            .map_err(|partial| TokenError::Character { number: partial.error.position + 1 })?;
        let mut click = [0; size_of::<Click>()];
        click[..SIGNED_AND_TAG_LEN].copy_from_slice(&bytes[..SIGNED_AND_TAG_LEN]);
        let mut click = Click::read_from_bytes(&click).unwrap_or_else(|_| Click::zeroed());
        click.ordinal = bytes[SIGNED_AND_TAG_LEN];
        Ok(Self { click })
    }

    /// The token of a click with an issued id. Of a click with a foreign id, which nobody signed,
    /// there is none; its text is that of an issued id that no key vouches for.
    #[must_use]
    pub fn text(click: &Click) -> TokenText {
        let mut bytes = [0; TOKEN_LEN_MAX];
        bytes[..SIGNED_AND_TAG_LEN].copy_from_slice(&click.as_bytes()[..SIGNED_AND_TAG_LEN]);
        bytes[SIGNED_AND_TAG_LEN] = click.ordinal;
        let (len, chars_len) = match click.ordinal {
            0 => (SIGNED_AND_TAG_LEN, CHARS_MIN),
            _ => (TOKEN_LEN_MAX, CHARS_MAX),
        };
        let mut chars = [0; CHARS_MAX];
        BASE64URL_NOPAD.encode_mut(&bytes[..len], &mut chars[..chars_len]);
        TokenText { chars, len: chars_len as u8 }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use crate::id::{ImpressionId, Issuer, KeyId};

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
            prop_assert_eq!(text.len(), if click.ordinal == 0 { CHARS_MIN } else { CHARS_MAX });
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
            let mut changed = String::from(text.as_str());
            changed.replace_range(at..=at, character.encode_utf8(&mut [0; 4]));
            prop_assume!(changed != *text);
            if let Ok(token) = Token::parse(&changed) {
                prop_assert_ne!(token.click, click);
            }
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,100}|[-_A-Za-z0-9]{74,77}") {
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
        let (all_but_last, last) = text.split_at(CHARS_MIN - 1);
        assert_eq!(last, "E");
        for other in ["F", "G", "H"] {
            assert!(Token::parse(&format!("{all_but_last}{other}")).is_err(), "{other}");
        }
        for form in [format!("{text}="), format!(" {text}"), format!("{text} "), text.replace('A', "+")] {
            assert!(Token::parse(&form).is_err(), "{form:?}");
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
        assert_eq!(Token::text(&click).as_str(), signed);
        click.ordinal = 5;
        assert_eq!(Token::text(&click).as_str(), format!("{signed}F"));
    }

    #[test]
    fn an_error_says_what_would_be_right() {
        let said = |text: &str| Token::parse(text).expect_err("no token").to_string();
        assert_eq!(said(""), "a token has 75 or 76 characters, this one 0");
        let text = Token::text(&Click::zeroed()).replacen('A', "*", 1);
        assert_eq!(said(&text), "no base64url without padding from character 1 on");
    }
}
