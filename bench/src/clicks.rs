//! Makes the clicks of each tracked kind: ids that were never used before, signed, and plausible or
//! implausible exactly as the kind says.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weir_common::id::{Issuer, KeyId, ORDINALS};
use weir_common::siphash::SipKey;
use weir_common::wire::{Click, click_flags, extension};
use weir_sdk::{Minter, Offer};

use crate::kind::Kind;
use crate::zipf::ad_table;

/// Fresh clicks remembered to be sent again or clicked again.
const RECENT: usize = 4096;
/// Sequences one thread takes at a time. All of a block are issued in the same second, as a busy
/// ad server would: consecutive and close in time.
const BLOCK: u64 = 1024;
/// Cells of the table that ads are drawn from.
const AD_CELLS: usize = 1 << 16;
const COUNTRIES: [[u8; 2]; 8] = [*b"DE", *b"US", *b"FR", *b"GB", *b"BR", *b"IN", *b"JP", [0, 0]];
/// One click in so many carries a user agent.
const EXTENSION_EVERY: u64 = 8;
const USER_AGENT: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const MS_PER_S: u64 = 1000;
const MS_PER_MIN: u64 = 60 * MS_PER_S;
const S_PER_H: u32 = 3600;
/// 2050-01-01, as a clock that runs ahead.
const YEAR_2050_MS: u64 = 2_524_608_000_000;
/// A key number that no node of a bench holds.
const UNKNOWN_KEY: KeyId = KeyId(0xfffe);

/// Who signs, and which part of the ids is this thread's.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The issuer.
    pub issuer: Issuer,
    /// Its key's number.
    pub key_id: KeyId,
    /// Its key.
    pub key: SipKey,
    /// No two runs share it: the first sequence, and part of foreign ids. A multiple of 1,024.
    pub run: u64,
    /// This thread's number ...
    pub thread: u64,
    /// ... of so many.
    pub threads: u64,
    /// Seeds everything that need not be unique.
    pub seed: u64,
    /// How many ads there are.
    pub ads: u32,
    /// The share of clicks, 0 to 1, that the first of them has before Zipf's law divides the rest.
    pub hot_share: f64,
}

#[derive(Clone, Copy)]
struct Recent {
    click: Click,
    has_extension: bool,
    next_ordinal: u8,
}

/// A click ready to be offered.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// What it really is: a duplicate or repeat becomes fresh while there is nothing to repeat.
    pub kind: Kind,
    /// The click.
    pub click: Click,
    /// Whether it carries [`ClickSource::extension`].
    pub has_extension: bool,
}

/// Makes clicks; one for each thread.
pub struct ClickSource {
    identity: Identity,
    minter: Minter,
    unknown: Minter,
    rng: SmallRng,
    ads: Vec<u32>,
    recent: Vec<Recent>,
    recent_next: usize,
    made: u64,
    blocks: u64,
    block_issued_at_s: u32,
    extension: Vec<u8>,
}

impl ClickSource {
    /// A source with its tables.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        debug_assert!(identity.run.is_multiple_of(BLOCK));
        let first = identity.run + identity.thread * BLOCK;
        let minter = |key_id| Minter::new(identity.issuer, key_id, identity.key, first);
        let mut extension = vec![extension::USER_AGENT];
        extension.extend((USER_AGENT.len() as u16).to_le_bytes());
        extension.extend(USER_AGENT);
        Self {
            minter: minter(identity.key_id),
            unknown: minter(UNKNOWN_KEY),
            rng: SmallRng::seed_from_u64(identity.seed ^ identity.thread << 32),
            ads: ad_table(AD_CELLS, identity.ads, identity.hot_share),
            recent: Vec::with_capacity(RECENT),
            recent_next: 0,
            made: 0,
            blocks: 0,
            block_issued_at_s: 0,
            extension,
            identity,
        }
    }

    /// The extension that some clicks carry.
    #[must_use]
    pub fn extension(&self, made: &Made) -> &[u8] {
        if made.has_extension { &self.extension } else { &[] }
    }

    /// Makes the next click of a tracked kind.
    pub fn make(&mut self, kind: Kind, now_ms: u64) -> Made {
        self.made += 1;
        match kind {
            Kind::Duplicate => self.duplicate(now_ms),
            Kind::Repeat => self.repeat(now_ms),
            Kind::Foreign | Kind::ForeignRefused => self.foreign(kind, now_ms),
            Kind::Late | Kind::WrongClock | Kind::Expired | Kind::NotYetIssued => {
                self.ill_timed(kind, now_ms)
            }
            Kind::TestTraffic | Kind::Prefetch | Kind::BadTag | Kind::UnknownKey | Kind::OrdinalLimit => {
                self.altered(kind, now_ms)
            }
            _ => self.fresh(now_ms),
        }
    }

    /// A fresh click on an impression of its own, not remembered for repetition.
    pub fn single(&mut self, now_ms: u64) -> Click {
        let issued_at_s = self.issued_at_s(now_ms);
        self.click(issued_at_s, now_ms)
    }

    fn fresh(&mut self, now_ms: u64) -> Made {
        let click = self.single(now_ms);
        let has_extension = self.made.is_multiple_of(EXTENSION_EVERY);
        self.remember(click, has_extension);
        Made { kind: Kind::Fresh, click, has_extension }
    }

    fn foreign(&mut self, kind: Kind, now_ms: u64) -> Made {
        let mut click = self.single(now_ms);
        let low = self.identity.run ^ self.identity.thread << 56 | 1;
        let id = u128::from(low.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(self.made);
        click.impression.0 = id.to_le_bytes();
        click.tag = 0.into();
        click.flags |= click_flags::FOREIGN;
        // No two of one user: a node counts one unsigned click of a user on an ad in some seconds.
        click.user_key = (self.rng.random::<u64>() | 1).into();
        if kind == Kind::Foreign {
            self.remember(click, false);
        }
        Made { kind, click, has_extension: false }
    }

    fn duplicate(&mut self, now_ms: u64) -> Made {
        if self.recent.is_empty() {
            return self.fresh(now_ms);
        }
        let at = self.rng.random_range(0..self.recent.len());
        let Recent { click, has_extension, .. } = self.recent[at];
        Made { kind: Kind::Duplicate, click, has_extension }
    }

    fn repeat(&mut self, now_ms: u64) -> Made {
        if self.recent.is_empty() {
            return self.fresh(now_ms);
        }
        let at = self.rng.random_range(0..self.recent.len());
        let recent = &mut self.recent[at];
        if recent.next_ordinal >= ORDINALS {
            return self.fresh(now_ms);
        }
        let click = Click { ordinal: recent.next_ordinal, clicked_at_ms: now_ms.into(), ..recent.click };
        recent.next_ordinal += 1;
        Made { kind: Kind::Repeat, click, has_extension: recent.has_extension }
    }

    fn ill_timed(&mut self, kind: Kind, now_ms: u64) -> Made {
        let now_s = (now_ms / MS_PER_S) as u32;
        let (issued_at_s, clicked_at_ms) = match kind {
            Kind::Late => {
                let clicked_at_ms = now_ms - self.rng.random_range(11 * MS_PER_MIN..120 * MS_PER_MIN);
                ((clicked_at_ms / MS_PER_S) as u32 - 5, clicked_at_ms)
            }
            Kind::Expired => (now_s - 25 * S_PER_H, now_ms),
            Kind::NotYetIssued => (now_s + 2 * S_PER_H, now_ms),
            _ => {
                let clicked_at_ms = match self.made % 3 {
                    0 => MS_PER_S,
                    1 => YEAR_2050_MS,
                    // A minute before the impression was issued.
                    _ => now_ms - 65 * MS_PER_S,
                };
                (now_s - 5, clicked_at_ms)
            }
        };
        Made { kind, click: self.click(issued_at_s, clicked_at_ms), has_extension: false }
    }

    fn altered(&mut self, kind: Kind, now_ms: u64) -> Made {
        let mut click = self.single(now_ms);
        match kind {
            Kind::TestTraffic => click.flags |= click_flags::TEST,
            Kind::Prefetch => click.flags |= click_flags::PREFETCH,
            Kind::BadTag => click.tag = (click.tag.get() ^ 1 << (self.made % 64)).into(),
            Kind::OrdinalLimit => click.ordinal = ORDINALS,
            _ => {
                let offer = Offer { ad: click.ad.get(), ..Offer::default() };
                self.unknown.skip_to(click.impression.sequence());
                let stranger = self.unknown.mint(&offer, click.impression.issued_at_s());
                click = Click { clicked_at_ms: click.clicked_at_ms, ..stranger };
            }
        }
        Made { kind, click, has_extension: false }
    }

    /// Mints and fills in what the page knows.
    fn click(&mut self, issued_at_s: u32, clicked_at_ms: u64) -> Click {
        let random: u64 = self.rng.random();
        let ad = self.ads[random as usize % AD_CELLS];
        let offer = Offer {
            ad: u64::from(ad) + 1,
            price_micros: 50_000 + u64::from(ad % 97) * 1000,
            campaign: ad / 8 + 1,
            creative: ad % 5 + 1,
            placement: (random >> 16) as u32 % 40 + 1,
            publisher: (random >> 24) as u32 % 200 + 1,
        };
        let mut click = self.minter.mint(&offer, issued_at_s);
        let sequence = self.minter.next_sequence();
        if sequence.is_multiple_of(BLOCK) {
            // The next block belongs to the next thread.
            self.minter.skip_to(sequence + (self.identity.threads - 1) * BLOCK);
        }
        click.user_key = (random >> 32 | 1).into();
        click.clicked_at_ms = clicked_at_ms.into();
        click.country = COUNTRIES[(random >> 40) as usize % COUNTRIES.len()];
        click.device = (random >> 44) as u8 % 4 + 1;
        click.os = (random >> 48) as u8 % 6 + 1;
        if random >> 63 == 1 {
            click.flags |= click_flags::POINT;
            click.x = ((random >> 52) as u16 % 300).into();
            click.y = ((random >> 54) as u16 % 250).into();
        }
        click
    }

    /// When the current block of impressions was issued: some seconds ago.
    fn issued_at_s(&mut self, now_ms: u64) -> u32 {
        if self.blocks == 0 || self.minter.next_sequence().is_multiple_of(BLOCK) {
            self.blocks += 1;
            self.block_issued_at_s = (now_ms / MS_PER_S) as u32 - 2 - (self.blocks % 16) as u32;
        }
        self.block_issued_at_s
    }

    fn remember(&mut self, click: Click, has_extension: bool) {
        let recent = Recent { click, has_extension, next_ordinal: 1 };
        if self.recent.len() < RECENT {
            self.recent.push(recent);
        } else {
            self.recent[self.recent_next] = recent;
            self.recent_next = (self.recent_next + 1) % RECENT;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn source(thread: u64) -> ClickSource {
        ClickSource::new(Identity {
            issuer: Issuer(1),
            key_id: KeyId(2),
            key: SipKey { k0: 1, k1: 2 },
            run: 1 << 30,
            thread,
            threads: 2,
            seed: 5,
            ads: 100,
            hot_share: 0.0,
        })
    }

    #[test]
    fn two_threads_never_mint_the_same_id_and_leave_no_gap() {
        let (mut one, mut two) = (source(0), source(1));
        let mut seen = HashSet::new();
        for _ in 0..5 * BLOCK {
            for made in [one.make(Kind::Fresh, NOW_MS), two.make(Kind::Fresh, NOW_MS)] {
                assert!(seen.insert(made.click.impression.sequence()));
            }
        }
        assert_eq!(seen.iter().max().unwrap() - seen.iter().min().unwrap() + 1, seen.len() as u64);
        assert!(seen.contains(&(1 << 30)));
    }

    #[test]
    fn foreign_ids_differ_between_threads_and_from_click_to_click() {
        let (mut one, mut two) = (source(0), source(1));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            for made in [one.make(Kind::Foreign, NOW_MS), two.make(Kind::Foreign, NOW_MS)] {
                assert!(seen.insert(made.click.impression));
                assert_eq!(made.click.check(&[]), Ok(()));
            }
        }
    }

    #[test]
    fn every_tracked_kind_is_a_sound_click_that_the_sender_takes() {
        let mut source = source(0);
        for round in 0..200 {
            for &kind in Kind::ALL.iter().filter(|kind| kind.stage() == crate::kind::Stage::Tracked) {
                let made = source.make(kind, NOW_MS);
                assert_eq!(made.click.check(source.extension(&made)), Ok(()), "{kind:?}");
                let key = SipKey { k0: 1, k1: 2 };
                let signed = made.click.tag.get() == made.click.expected_tag(&key);
                assert_eq!(signed, made.kind != Kind::BadTag && !made.click.is_foreign(), "{kind:?} {round}");
            }
        }
    }

    #[test]
    fn a_repeat_has_a_new_ordinal_below_the_limit_and_a_duplicate_the_same_bytes() {
        let mut source = source(0);
        let first = source.make(Kind::Fresh, NOW_MS).click;
        assert_eq!(source.make(Kind::Duplicate, NOW_MS + 5).click, first);
        let ordinals: Vec<u8> = (0..6).map(|_| source.make(Kind::Repeat, NOW_MS).click.ordinal).collect();
        assert_eq!(ordinals, [1, 2, 3, 4, 5, 6]);
        assert_eq!(source.make(Kind::Repeat, NOW_MS).kind, Kind::Fresh);
    }
}
