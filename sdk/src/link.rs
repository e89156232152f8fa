//! Links that carry a signed impression: a template with macros, filled in for each.

use std::fmt::Write as _;

use weir_common::token::TokenText;

use crate::Offer;

/// Where the token goes.
pub const TOKEN_MACRO: &str = "{token}";
/// Where the price goes, in currency units with six decimals: for others' eyes; the price that counts is in the token.
pub const PRICE_MACRO: &str = "{price}";
/// Where the ad's number goes.
pub const AD_MACRO: &str = "{ad}";
/// Longer than any link needs to be; browsers and proxies cut at 8 KiB at the latest.
const TEMPLATE_BYTES_MAX: usize = 4096;
const MICROS: u64 = 1_000_000;

/// A link with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Token,
    Price,
    Ad,
}

/// Why a text is no template of a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, displaydoc::Display)]
pub enum LinkError {
    /// a link begins with http:// or https://, a whole host and a path, such as https://clicks.example/v1/click/
    NoUrl,
    /// a link has at most 4096 bytes, and no blanks, quotes, angle brackets or control characters; write them percent-encoded
    Characters,
    /// a link carries one token; write {{token}} once, or leave it out and the token goes to the end
    Tokens,
    /// {0} is no macro; there are {{token}}, {{price}} and {{ad}}
    UnknownMacro(String),
}

impl LinkTemplate {
    /// Reads a template: a URL with `{token}`, and `{price}` and `{ad}` where they are wanted. Without `{token}` the
    /// token is appended.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(template: &str) -> Result<Self, LinkError> {
        let address = template.strip_prefix("https://").or_else(|| template.strip_prefix("http://"));
        // A host that nothing ends would go on with the token.
        let host = address.and_then(|address| Some(&address[..address.find(['/', '?', '#'])?]));
        if host.is_none_or(|host| host.is_empty() || host.contains('{')) {
            return Err(LinkError::NoUrl);
        }
        let is_sound =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`');
        if template.len() > TEMPLATE_BYTES_MAX || !template.bytes().all(is_sound) {
            return Err(LinkError::Characters);
        }
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            let end = rest[at..].find('}').map_or(rest.len(), |len| at + len + 1);
            parts.push(Part::Text(rest[..at].to_owned()));
            parts.push(match &rest[at..end] {
                TOKEN_MACRO => Part::Token,
                PRICE_MACRO => Part::Price,
                AD_MACRO => Part::Ad,
                other => return Err(LinkError::UnknownMacro(other.to_owned())),
            });
            rest = &rest[end..];
        }
        parts.push(Part::Text(rest.to_owned()));
        match parts.iter().filter(|part| **part == Part::Token).count() {
            0 => parts.push(Part::Token),
            1 => {}
            _ => return Err(LinkError::Tokens),
        }
        Ok(Self { parts })
    }

    /// The link of an impression.
    #[must_use]
    pub fn fill(&self, token: &TokenText, offer: &Offer) -> String {
        let mut link = String::new();
        for part in &self.parts {
            let written = match part {
                Part::Text(text) => link.write_str(text),
                Part::Token => link.write_str(token),
                Part::Price => {
                    write!(link, "{}.{:06}", offer.price_micros / MICROS, offer.price_micros % MICROS)
                }
                Part::Ad => write!(link, "{}", offer.ad),
            };
            debug_assert!(written.is_ok(), "a string takes what it is given");
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use weir_common::token::Token;
    use weir_common::wire::Click;

    use super::*;

    #[test]
    fn macros_are_filled_in_and_a_link_without_one_ends_with_the_token() {
        let token = Token::text(&Click::zeroed());
        let offer = Offer { ad: 7, price_micros: 1_250_000, ..Offer::default() };
        let fill = |template: &str| LinkTemplate::new(template).expect(template).fill(&token, &offer);
        assert_eq!(
            fill("https://clicks.example/v1/click/"),
            format!("https://clicks.example/v1/click/{token}")
        );
        assert_eq!(
            fill("http://a.example:8080/v1/click/{token}?ad={ad}&price={price}"),
            format!("http://a.example:8080/v1/click/{token}?ad=7&price=1.250000")
        );
    }

    #[test]
    fn what_is_no_link_is_refused_with_what_would_be_right() {
        let refused = |template: &str| LinkTemplate::new(template).expect_err(template);
        for template in [
            "",
            "clicks.example/",
            "https://",
            "https:///c/",
            "ftp://a.example/",
            "https://{token}",
            // The token would be a part of the host.
            "https://a.example",
            "https://a.example:8080",
            "https://{ad}.a.example/",
            "https://a.example{token}/",
        ] {
            assert_eq!(refused(template), LinkError::NoUrl, "{template}");
        }
        let long = format!("https://a.example/{}", "x".repeat(TEMPLATE_BYTES_MAX));
        for template in [
            "https://a.example/ {token}",
            "https://a.example/\"",
            "https://a.example/\n",
            "https://ä/",
            &long,
        ] {
            assert_eq!(refused(template), LinkError::Characters, "{template}");
        }
        assert_eq!(refused("https://a.example/{token}{token}"), LinkError::Tokens);
        let unknown = refused("https://a.example/{token}?p={cost}").to_string();
        assert_eq!(unknown, "{cost} is no macro; there are {token}, {price} and {ad}");
        assert!(matches!(refused("https://a.example/{token"), LinkError::UnknownMacro(_)));
    }
}
