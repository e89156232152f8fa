//! Mints impressions and signs them: the ad server's part.

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::token::{Token, TokenText};
use weir_common::wire::Click;

/// What the ad server knows about an impression; all of it stands under the signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The ad.
    pub ad: u64,
    /// The price of one click, in millionths of the account's currency unit; above
    /// [`MAX_PRICE_MICROS`](weir_common::wire::MAX_PRICE_MICROS) the click is malformed.
    pub price_micros: u64,
    /// The campaign.
    pub campaign: u32,
    /// The creative.
    pub creative: u32,
    /// The placement.
    pub placement: u32,
    /// The publisher.
    pub publisher: u32,
}

/// An ad server's key and its next sequence number.
#[derive(Clone, Debug)]
pub struct Minter {
    issuer: Issuer,
    key_id: KeyId,
    key: SipKey,
    next_sequence: u64,
}

impl Minter {
    /// A minter that counts up from `first_sequence`. A sequence number must never be used twice
    /// by one issuer, not even over restarts: [`SequenceFile`](crate::SequenceFile) sees to that.
    #[must_use]
    pub const fn new(issuer: Issuer, key_id: KeyId, key: SipKey, first_sequence: u64) -> Self {
        Self { issuer, key_id, key, next_sequence: first_sequence }
    }

    /// Mints the next impression and gives its first click (ordinal 0), signed. The caller fills
    /// in what is known only at the click: time, user key, country, device, position.
    #[must_use]
    pub fn mint(&mut self, offer: &Offer, issued_at_s: u32) -> Click {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.wrapping_add(1);
        let mut click = Click {
            impression: ImpressionId::issued(self.issuer, self.key_id, issued_at_s, sequence),
            ad: offer.ad.into(),
            price_micros: offer.price_micros.into(),
            campaign: offer.campaign.into(),
            creative: offer.creative.into(),
            placement: offer.placement.into(),
            publisher: offer.publisher.into(),
            ..Click::zeroed()
        };
        self.sign(&mut click);
        click
    }

    /// Mints the next impression and gives its token: what an ad server puts into a link, or a page into the field
    /// `impression` of a click (`docs/http.md`, section 2).
    ///
    /// Mint when the price is known, as a rule after the auction: it stands under the signature, so no macro can
    /// put it in later.
    #[must_use]
    pub fn mint_token(&mut self, offer: &Offer, issued_at_s: u32) -> TokenText {
        Token::text(&self.mint(offer, issued_at_s))
    }

    /// Signs a click anew, after one of its signed fields was changed.
    pub fn sign(&self, click: &mut Click) {
        click.tag = click.expected_tag(&self.key).into();
    }

    /// The sequence number the next impression gets.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Goes on counting from here.
    pub const fn skip_to(&mut self, sequence: u64) {
        self.next_sequence = sequence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_click_carries_its_offer_under_a_tag_that_verifies() {
        let key = SipKey { k0: 3, k1: 4 };
        let mut minter = Minter::new(Issuer(9), KeyId(2), key, 41);
        let offer = Offer { ad: 1, price_micros: 2, campaign: 3, creative: 4, placement: 5, publisher: 6 };
        let click = minter.mint(&offer, 1_000);
        assert_eq!(click.impression, ImpressionId::issued(Issuer(9), KeyId(2), 1_000, 41));
        assert_eq!((click.ad.get(), click.price_micros.get(), click.publisher.get()), (1, 2, 6));
        assert_eq!(click.tag.get(), click.expected_tag(&key));
        assert_eq!(click.check(&[]), Ok(()));
        assert_eq!(minter.mint(&offer, 1_000).impression.sequence(), 42);
    }

    #[test]
    fn a_minted_token_says_all_that_is_signed() {
        let offer = Offer { ad: 7, price_micros: 250_000, publisher: 6, ..Offer::default() };
        let minter = Minter::new(Issuer(9), KeyId(2), SipKey { k0: 3, k1: 4 }, 41);
        let token = Token::parse(&minter.clone().mint_token(&offer, 1_000)).expect("a token");
        assert_eq!(token.click, minter.clone().mint(&offer, 1_000));
    }
}
