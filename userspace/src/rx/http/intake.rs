//! What a whole request asks for: a decision over its head and body.

use weir_common::time::UnixMs;
use weir_common::token::Token;

use super::body::encoding::Decoder;
use super::catalog::Catalog;
use super::clicks::{self, Clicks, Fault, Sender};
use super::head::{Encoding, Head, Limits, Method, Target};
use super::problem::Problem;
use super::requests::Answer;
use crate::admission::Admission;

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Its clicks are to be decided, and then it is answered.
    Count(Answer),
    /// The landing page, or the image, without a click: nobody clicked yet.
    Look(Answer),
    /// What a page may send.
    Preflight {
        /// From a public page to a private address.
        private_network: bool,
    },
    /// Whether the node takes clicks.
    Health,
    /// It is refused, and no click is lost by it.
    Refused(Problem),
    /// It was to have clicks and they cannot be read: one click, malformed.
    Malformed(Fault),
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Intake<'a> {
    /// What one request may be.
    pub limits: &'a Limits,
    /// Names.
    pub catalog: &'a Catalog,
    /// Who says whether a signature is right.
    pub admission: &'a Admission,
    /// When the request was read.
    pub received_at: UnixMs,
}

/// What bodies that are compressed are decoded with and to, one after the other.
#[derive(Default)]
pub struct Decoding {
    decoder: Decoder,
    decoded: Vec<u8>,
}

impl Intake<'_> {
    /// Reads a request; its clicks go to `out`.
    pub fn read(&self, head: &Head<'_>, body: &[u8], decoding: &mut Decoding, out: &mut Clicks) -> Asked {
        match (head.method, head.target) {
            (Method::Options, _) => Asked::Preflight { private_network: head.asks_private_network },
            (_, Target::Health) => Asked::Health,
            (_, Target::Clicks) => self.clicks(head, body, decoding, out),
            (_, Target::Click(text)) => self.link(head, text, out),
            (_, Target::Pixel(text)) => self.pixel(head, text, out),
            (_, Target::Unknown) => Asked::Refused(Problem::NotFound),
        }
    }

    fn clicks(&self, head: &Head<'_>, body: &[u8], decoding: &mut Decoding, out: &mut Clicks) -> Asked {
        let Some(format) = head.format else { return Asked::Refused(Problem::UnsupportedType) };
        let body = if head.encoding == Encoding::Identity {
            body
        } else {
            let Decoding { decoder, decoded } = decoding;
            decoded.clear();
            if let Err(problem) = decoder.decode(head.encoding, body, self.limits.decoded_bytes_max, decoded)
            {
                return Asked::Refused(problem);
            }
            decoded
        };
        match clicks::read(format, body, &self.sender(head), self.catalog, out) {
            Ok(()) => Asked::Count(Answer::Statuses),
            Err(fault) => Asked::Malformed(fault),
        }
    }

    /// A link leads to the landing page of the ad that its token signs, and nowhere else.
    fn link(&self, head: &Head<'_>, text: &str, out: &mut Clicks) -> Asked {
        let token = match Token::parse(text) {
            Ok(token) => token,
            Err(error) if is_click(head) => return Asked::Malformed(error.into()),
            Err(_) => return Asked::Refused(Problem::NotFound),
        };
        let is_signed = self.admission.check_tag(&token.click).is_ok();
        let answer = Answer::Landing { signed_ad: is_signed.then_some(token.click.ad.get()) };
        if !is_click(head) {
            return Asked::Look(answer);
        }
        clicks::of_token(&token, &self.sender(head), out);
        Asked::Count(answer)
    }

    fn pixel(&self, head: &Head<'_>, text: &str, out: &mut Clicks) -> Asked {
        if !is_click(head) {
            return Asked::Look(Answer::Pixel);
        }
        match Token::parse(text) {
            Ok(token) => clicks::of_token(&token, &self.sender(head), out),
            Err(error) => return Asked::Malformed(error.into()),
        }
        Asked::Count(Answer::Pixel)
    }

    fn sender<'a>(&self, head: &Head<'a>) -> Sender<'a> {
        Sender {
            user_agent: head.user_agent,
            referrer: head.referrer,
            is_prefetch: head.is_prefetch,
            is_opted_out: head.is_opted_out,
            received_at: self.received_at,
        }
    }
}

/// Whether following a link is a click: a browser that fetches ahead, and whoever asks for the head
/// alone, has not clicked.
const fn is_click(head: &Head<'_>) -> bool {
    matches!(head.method, Method::Get) && !head.is_prefetch
}

#[cfg(test)]
mod tests {
    use weir_common::id::{ImpressionId, Issuer, KeyId};
    use weir_common::siphash::SipKey;
    use weir_common::wire::Click;

    use super::super::head;
    use super::*;
    use crate::admission::{KeyRing, Settings, SigningKey};

    const KEY: SipKey = SipKey { k0: 3, k1: 4 };

    fn admission() -> Admission {
        let key = SigningKey { issuer: Issuer(1), id: KeyId(1), secret: KEY };
        Admission::new(Settings::default(), KeyRing::new(&[key]).expect("one key"))
    }

    /// The token of an ad's impression that was issued long ago.
    fn token(ad: u64) -> Click {
        let impression = ImpressionId::issued(Issuer(1), KeyId(1), 1_000, 7);
        let click = Click { impression, ad: ad.into(), ..Click::zeroed() };
        Click { tag: click.expected_tag(&KEY).into(), ..click }
    }

    /// What a request asks for, and how many clicks come with it.
    fn ask(head: &str, body: &[u8]) -> (Asked, usize) {
        let limits = Limits::default();
        let catalog = Catalog::default();
        let (admission, received_at) = (admission(), UnixMs(1_800_000_000_000));
        let intake = Intake { limits: &limits, catalog: &catalog, admission: &admission, received_at };
        let head = format!("{head}\r\nHost: a\r\n\r\n");
        let (head, _) = head::read(head.as_bytes(), &limits).expect("a head").expect("whole");
        let mut clicks = Clicks::default();
        let asked = intake.read(&head, body, &mut Decoding::default(), &mut clicks);
        (asked, clicks.len())
    }

    #[test]
    fn a_link_leads_to_the_signed_ads_page_also_when_it_is_expired() {
        let get = |click: &Click| ask(&format!("GET /v1/click/{} HTTP/1.1", Token::text(click)), &[]);
        let leads_to = |signed_ad| (Asked::Count(Answer::Landing { signed_ad }), 1);
        assert_eq!(get(&token(42)), leads_to(Some(42)));
        let forged = Click { ad: 42.into(), ..token(43) };
        assert_eq!(get(&forged), leads_to(None), "counted as forged, and leads nowhere");
    }

    #[test]
    fn who_only_looks_brings_no_click() {
        let text = Token::text(&token(42));
        let looks = [
            format!("HEAD /v1/click/{text} HTTP/1.1"),
            format!("GET /v1/click/{text} HTTP/1.1\r\nSec-Purpose: prefetch;prerender"),
        ];
        for head in looks {
            assert_eq!(ask(&head, &[]), (Asked::Look(Answer::Landing { signed_ad: Some(42) }), 0), "{head}");
        }
        assert_eq!(ask(&format!("HEAD /v1/pixel/{text} HTTP/1.1"), &[]), (Asked::Look(Answer::Pixel), 0));
        assert_eq!(ask("HEAD /v1/click/nothing HTTP/1.1", &[]), (Asked::Refused(Problem::NotFound), 0));
        assert!(matches!(ask("GET /v1/click/nothing HTTP/1.1", &[]), (Asked::Malformed(_), 0)));
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_no_click_and_one_that_cannot_be_read_is_one() {
        let post = |field: &str, body: &[u8]| {
            ask(&format!("POST /v1/clicks HTTP/1.1\r\nContent-Type: application/json{field}"), body)
        };
        let (asked, clicks) = post("\r\nContent-Encoding: gzip", b"no gzip");
        assert_eq!((asked, clicks), (Asked::Refused(Problem::BadEncoding), 0));
        assert!(matches!(post("", b"{\"ad_id\": "), (Asked::Malformed(_), 0)));
        let body = br#"{"event_id":"00000000000000000000000000000001","ad_id":1}"#;
        assert_eq!(post("", body), (Asked::Count(Answer::Statuses), 1));
    }
}
