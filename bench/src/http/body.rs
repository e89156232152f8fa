//! Clicks as the body of a request, with the fields that real senders give.
//!
//! Text is written by hand into one buffer: the generator must be cheaper than what it measures.

use weir_common::wire::{CLICK_LEN, Click, HEADER_LEN, Header, MAX_PAYLOAD, click_flags};
use weir_sdk::Token;
use zerocopy::IntoBytes;

use crate::kind::Kind;

/// A browser's, of a usual length; nothing in it needs an escape.
pub const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36";
const DEVICES: [&str; 5] = ["unknown", "desktop", "mobile", "tablet", "tv"];
const MICROS: u64 = 1_000_000;

/// What bodies are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An object, or an array of objects: `application/json`.
    Json,
    /// An object a line: `application/x-ndjson`.
    Lines,
    /// One binary datagram: `application/octet-stream`.
    Datagram,
}

/// A click of a request, kept until its status is known.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// What it is, and so what must become of it.
    pub kind: Kind,
    /// The click.
    pub click: Click,
    /// Whether it says its user agent.
    pub has_user_agent: bool,
}

impl Format {
    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Datagram => "application/octet-stream",
        }
    }

    /// The most clicks of one request, whose user agents a datagram does not carry.
    #[must_use]
    pub const fn clicks_max(self) -> usize {
        match self {
            Self::Json | Self::Lines => weir::rx::http::clicks::CLICKS_MAX,
            Self::Datagram => (MAX_PAYLOAD - HEADER_LEN) / CLICK_LEN,
        }
    }

    /// Whether a kind can be said in it. A prefetch is a matter of the whole request in JSON, and
    /// what breaks the wire format is none there.
    #[must_use]
    pub const fn can_say(self, kind: Kind) -> bool {
        matches!(kind.stage(), crate::kind::Stage::Tracked)
            && !(matches!(kind, Kind::Prefetch) && matches!(self, Self::Json | Self::Lines))
    }

    /// Appends the body that holds `clicks`. `batch_id` is a datagram's own number.
    pub fn write(self, clicks: &[Sent], batch_id: u64, out: &mut Vec<u8>) {
        match self {
            Self::Json if clicks.len() == 1 => write_object(&clicks[0], out),
            Self::Json => {
                for (at, click) in clicks.iter().enumerate() {
                    out.push(if at == 0 { b'[' } else { b',' });
                    write_object(click, out);
                }
                out.push(b']');
            }
            Self::Lines => {
                for click in clicks {
                    write_object(click, out);
                    out.push(b'\n');
                }
            }
            Self::Datagram => write_datagram(clicks, batch_id, out),
        }
    }
}

fn write_datagram(clicks: &[Sent], batch_id: u64, out: &mut Vec<u8>) {
    let header =
        Header { batch_id: batch_id.into(), ..Header::new(clicks.len() as u8, CLICK_LEN * clicks.len()) };
    out.extend_from_slice(header.as_bytes());
    for sent in clicks {
        out.extend_from_slice(sent.click.as_bytes());
    }
}

fn write_object(sent: &Sent, out: &mut Vec<u8>) {
    let click = &sent.click;
    if click.is_foreign() {
        write_offer(click, out);
    } else {
        put(r#"{"impression":""#, out);
        put(&Token::text(click), out);
        put("\"", out);
    }
    put(r#","timestamp":"#, out);
    put_number(click.clicked_at_ms.get(), out);
    put(r#","user_id":"u-"#, out);
    put_hex(&click.user_key.get().to_be_bytes(), out);
    put("\"", out);
    if let Ok(country) = std::str::from_utf8(&click.country)
        && click.country != [0; 2]
    {
        put(r#","country":""#, out);
        put(country, out);
        put("\"", out);
    }
    put(r#","device_type":""#, out);
    put(DEVICES[usize::from(click.device) % DEVICES.len()], out);
    put("\"", out);
    if click.flags & click_flags::POINT != 0 {
        put(r#","x":"#, out);
        put_number(click.x.get().into(), out);
        put(r#","y":"#, out);
        put_number(click.y.get().into(), out);
    }
    if click.flags & click_flags::TEST != 0 {
        put(r#","test":true"#, out);
    }
    if sent.has_user_agent {
        put(r#","user_agent":""#, out);
        put(USER_AGENT, out);
        put("\"", out);
    }
    put("}", out);
}

/// What a token would settle.
fn write_offer(click: &Click, out: &mut Vec<u8>) {
    put(r#"{"event_id":""#, out);
    for (at, group) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if at > 0 {
            put("-", out);
        }
        put_hex(&click.impression.0[group], out);
    }
    put("\"", out);
    for (name, value) in [
        (r#","ordinal":"#, u64::from(click.ordinal)),
        (r#","ad_id":"#, click.ad.get()),
        (r#","campaign_id":"#, click.campaign.get().into()),
        (r#","creative_id":"#, click.creative.get().into()),
        (r#","placement_id":"#, click.placement.get().into()),
        (r#","publisher_id":"#, click.publisher.get().into()),
    ] {
        put(name, out);
        put_number(value, out);
    }
    put(r#","cost_per_click":"#, out);
    let price = click.price_micros.get();
    put_number(price / MICROS, out);
    put(".", out);
    let mut places = MICROS / 10;
    while places > 0 {
        out.push(b'0' + (price / places % 10) as u8);
        places /= 10;
    }
}

fn put(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
        out.push(b"0123456789abcdef"[usize::from(byte & 15)]);
    }
}

/// Appends a number in decimal.
pub(super) fn put_number(number: u64, out: &mut Vec<u8>) {
    put(itoa::Buffer::new().format(number), out);
}

#[cfg(test)]
mod tests {
    use weir::rx::http::catalog::Catalog;
    use weir::rx::http::clicks::{Clicks, Item, Sender, read};
    use weir::rx::http::head::Format as Read;
    use weir_common::id::{Issuer, KeyId};
    use weir_common::siphash::SipKey;

    use super::*;
    use crate::clicks::{ClickSource, Identity};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn some_of_each_kind(format: Format) -> Vec<Sent> {
        let mut source = ClickSource::new(Identity {
            issuer: Issuer(1),
            key_id: KeyId(2),
            key: SipKey { k0: 1, k1: 2 },
            run: 1 << 30,
            thread: 0,
            threads: 1,
            seed: 5,
            ads: 100,
            hot_share: 0.0,
        });
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|&kind| format.can_say(kind)).collect();
        (0..10 * kinds.len())
            .map(|at| {
                let made = source.make(kinds[at % kinds.len()], NOW_MS);
                Sent { kind: made.kind, click: made.click, has_user_agent: at % 3 == 0 }
            })
            .collect()
    }

    #[test]
    fn the_door_reads_the_clicks_that_were_meant() {
        for (format, read_as) in
            [(Format::Json, Read::Json), (Format::Lines, Read::Lines), (Format::Datagram, Read::Datagram)]
        {
            let sent = some_of_each_kind(format);
            for batch in sent.chunks(format.clicks_max().min(64)).chain(sent.chunks(1)) {
                let (mut body, mut clicks) = (Vec::new(), Clicks::default());
                format.write(batch, 7, &mut body);
                read(read_as, &body, &Sender::default(), &Catalog::default(), &mut clicks).unwrap();
                assert_eq!(clicks.len(), batch.len());
                for (sent, item) in batch.iter().zip(clicks.iter()) {
                    let Item::Click { click, extension } = item else { panic!("{item:?} of {sent:?}") };
                    let mut meant = sent.click;
                    if format != Format::Datagram {
                        // Hashed from a name, and not said in JSON.
                        (meant.user_key, meant.os) = (click.user_key, 0);
                        meant.extension_len = click.extension_len;
                        assert_ne!(click.user_key.get(), 0);
                        assert_eq!(!extension.is_empty(), sent.has_user_agent);
                    }
                    assert_eq!(*click, meant);
                }
            }
        }
    }
}
