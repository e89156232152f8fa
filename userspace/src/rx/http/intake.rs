//! What a whole request asks for: a decision over its head and body.

use weir_common::time::UnixMs;

use super::body::encoding::Decoder;
use super::catalog::Catalog;
use super::clicks::{self, Clicks, Fault, Format, Sender};
use super::head::{self, Encoding, Head, Limits, Method, Target};
use super::problem::Problem;
use super::requests::Answer;
use super::token::Token;
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
    /// Names and landing pages.
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
        match clicks::read(format_of(format), body, &self.sender(head), self.catalog, out) {
            Ok(()) => Asked::Count(Answer::Statuses),
            Err(fault) => Asked::Malformed(fault),
        }
    }

    /// A link leads to the landing page of the ad that its token signs, and nowhere else.
    fn link(&self, head: &Head<'_>, text: &str, out: &mut Clicks) -> Asked {
        let token = match Token::parse(text) {
            Ok(token) => token,
            Err(fault) if is_click(head) => return Asked::Malformed(fault),
            Err(_) => return Asked::Refused(Problem::NotFound),
        };
        let is_signed = self.admission.check_tag(&token.click).is_ok();
        let landing = self.catalog.landing(token.click.ad.get()).filter(|_| is_signed).map(str::to_owned);
        if !is_click(head) {
            return Asked::Look(Answer::Redirect(landing));
        }
        clicks::of_token(&token, &self.sender(head), out);
        Asked::Count(Answer::Redirect(landing))
    }

    fn pixel(&self, head: &Head<'_>, text: &str, out: &mut Clicks) -> Asked {
        if !is_click(head) {
            return Asked::Look(Answer::Pixel);
        }
        match Token::parse(text) {
            Ok(token) => clicks::of_token(&token, &self.sender(head), out),
            Err(fault) => return Asked::Malformed(fault),
        }
        Asked::Count(Answer::Pixel)
    }

    fn sender<'a>(&self, head: &Head<'a>) -> Sender<'a> {
        Sender {
            user_agent: head.user_agent,
            referrer: head.referrer,
            is_prefetch: head.is_prefetch,
            received_at: self.received_at,
        }
    }
}

/// Whether following a link is a click: a browser that fetches ahead, and whoever asks for the head
/// alone, has not clicked.
const fn is_click(head: &Head<'_>) -> bool {
    matches!(head.method, Method::Get) && !head.is_prefetch
}

const fn format_of(format: head::Format) -> Format {
    match format {
        head::Format::Json => Format::Json,
        head::Format::Lines => Format::Lines,
        head::Format::Text => Format::Text,
        head::Format::Datagram => Format::Datagram,
    }
}
