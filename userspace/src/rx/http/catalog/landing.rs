//! What the address of a landing page may be.
//!
//! It goes into a response header as it stands, and a browser follows it: so it consists of the
//! characters of RFC 3986 alone, and names scheme and host.

use hyper::Uri;

/// The longest address, in bytes: what every browser and proxy takes.
pub const LANDING_LEN_MAX: usize = 2048;

/// Checks an address.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(url: &str) -> Result<(), String> {
    if url.len() > LANDING_LEN_MAX {
        return Err(format!("has {} bytes, more than {LANDING_LEN_MAX}", url.len()));
    }
    if let Some(wrong) = url.chars().find(|&character| !is_of_url(character)) {
        return Err(format!("has the character {wrong:?}; percent-encode it"));
    }
    if !percents_are_sound(url.as_bytes()) {
        return Err("has a % without two hex digits after it; a percent sign itself is %25".to_owned());
    }
    let uri = url.parse::<Uri>().map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must start with https:// or http://".to_owned());
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("names a user before its host; leave out all up to the @".to_owned())
        }
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err("names no host".to_owned()),
    }
}

/// RFC 3986, section 2: unreserved, reserved, and the percent sign.
fn is_of_url(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(character)
}

fn percents_are_sound(url: &[u8]) -> bool {
    url.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| url.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_address_of_the_web_may_be_a_landing_page() {
        for url in [
            "https://shop.example/spring",
            "http://shop.example",
            "https://shop.example:8443/a/b;c?d=e&f=%C3%A9#top",
            "https://[2001:db8::1]/",
            "HTTPS://shop.example/",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn anything_else_is_no_landing_page() {
        for url in [
            "",
            "/spring",
            "//evil.example/",
            "shop.example/spring",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://shop.example/",
            "https://",
            "https:///spring",
            "https:shop.example",
            "https://shop.example@evil.example/",
            "https://shop.example\\@evil.example/",
            "https://shop.example/a b",
            "https://shop.example/\r\nSet-Cookie: a=b",
            "https://shop.example/\u{e9}",
            "https://shop.example/%zz",
            "https://shop.example/%2",
            "https://shop.example/{click_id}",
            " https://shop.example/",
        ] {
            assert!(check(url).is_err(), "{url:?}");
        }
        assert!(check(&format!("https://shop.example/{}", "a".repeat(LANDING_LEN_MAX))).is_err());
    }
}
