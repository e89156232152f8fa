//! Datagrams that break the protocol in exactly one way, so that each gets exactly one reason.

use weir_common::wire::{CLICK_LEN, Click, HEADER_LEN, Header, MAX_PAYLOAD, MAX_PRICE_MICROS, VERSION};
use zerocopy::IntoBytes;

use crate::kind::Kind;

/// A datagram under construction.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: [u8; MAX_PAYLOAD],
    len: usize,
}

impl Payload {
    /// A sound datagram of one click.
    #[must_use]
    pub fn sound(click: &Click, batch_id: u64) -> Self {
        let header = Header { batch_id: batch_id.into(), ..Header::new(1, CLICK_LEN) };
        let mut payload = Self { bytes: [0; MAX_PAYLOAD], len: HEADER_LEN + CLICK_LEN };
        payload.put(&header, click);
        payload
    }

    fn put(&mut self, header: &Header, click: &Click) {
        self.bytes[..HEADER_LEN].copy_from_slice(header.as_bytes());
        self.bytes[HEADER_LEN..HEADER_LEN + CLICK_LEN].copy_from_slice(click.as_bytes());
    }

    /// A datagram that is malformed for the reason of `kind`, and for no other.
    #[must_use]
    pub fn malformed(kind: Kind, click: &Click, batch_id: u64) -> Self {
        let mut payload = Self::sound(click, batch_id);
        let bytes = &mut payload.bytes;
        match kind {
            Kind::HeaderShort => payload.len = HEADER_LEN - 1,
            Kind::BadMagic => bytes[0] ^= 0x20,
            Kind::BadVersion => bytes[4] = VERSION + 1,
            Kind::BadFlags => bytes[5] = 1,
            Kind::BadCount => bytes[6] = 2,
            Kind::BadShard => bytes[8] = 1, // a bit beyond the zero shared ones
            Kind::BadLength => payload.len -= 1,
            _ => payload.spoil_click(kind, click),
        }
        payload
    }

    /// Header sound, click not.
    fn spoil_click(&mut self, kind: Kind, click: &Click) {
        let mut click = *click;
        match kind {
            Kind::ClickCut => click.extension_len = 1.into(),
            Kind::ReservedBits => click.reserved = 1.into(),
            Kind::BadExtension => {
                // One field of a type that does not exist.
                click.extension_len = 3.into();
                self.bytes[self.len] = 0xff;
                self.len += 3;
            }
            Kind::ForeignTag => click.flags |= weir_common::wire::click_flags::FOREIGN,
            Kind::BadCountry => click.country = *b"d3",
            Kind::BadCoordinates => {
                click.flags |= weir_common::wire::click_flags::POSITION;
                click.latitude_e6 = 90_000_001.into();
            }
            Kind::BadPrice => click.price_micros = (MAX_PRICE_MICROS + 1).into(),
            _ => debug_assert!(false, "{kind:?} is not a malformed datagram"),
        }
        self.bytes[HEADER_LEN..HEADER_LEN + CLICK_LEN].copy_from_slice(click.as_bytes());
        self.bytes[10..12].copy_from_slice(&(self.len as u16).to_le_bytes());
    }

    /// What goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Issuer, KeyId};
    use weir_common::siphash::SipKey;
    use weir_common::wire::Datagram;
    use weir_sdk::{Minter, Offer};

    use super::*;
    use crate::kind::Stage;

    fn click() -> Click {
        let mut minter = Minter::new(Issuer(1), KeyId(1), SipKey { k0: 1, k1: 2 }, 0);
        minter.mint(&Offer::default(), 1000)
    }

    #[test]
    fn each_kind_is_malformed_for_its_own_reason() {
        let by_hand = |kind: &&Kind| matches!(kind.stage(), Stage::Header | Stage::Worker);
        for &kind in Kind::ALL.iter().filter(by_hand) {
            let payload = Payload::malformed(kind, &click(), 9);
            match kind.stage() {
                Stage::Header => {
                    let bad = Datagram::parse(payload.bytes()).unwrap_err();
                    assert_eq!((bad.reason, bad.clicks, bad.batch_id), (kind.reason(), 1, None), "{kind:?}");
                }
                Stage::Worker if kind == Kind::ClickCut => {
                    let bad = Datagram::parse(payload.bytes()).unwrap_err();
                    assert_eq!((bad.reason, bad.clicks, bad.batch_id), (kind.reason(), 1, Some(9)));
                }
                _ => {
                    let datagram = Datagram::parse(payload.bytes()).unwrap();
                    let (click, extension) = datagram.clicks().next().unwrap();
                    assert_eq!(click.check(extension), Err(kind.reason()), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_sound_payload_is_sound() {
        let payload = Payload::sound(&click(), 3);
        let datagram = Datagram::parse(payload.bytes()).unwrap();
        assert_eq!(datagram.clicks().next().unwrap().0.check(&[]), Ok(()));
    }
}
