//! The visits of each profile.
//!
//! Numbers of each form are constants, so that a test can say exactly what must become of them.

use std::net::Ipv4Addr;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use weir_common::id::{KeyId, ORDINALS};
use weir_common::siphash::SipKey;
use weir_common::wire::{Click, click_flags};
use weir_sdk::{Minter, Offer};
use zerocopy::little_endian::U64;

use super::networks::{self, COUNTRIES};
use super::{Options, Press, Profile, Visit, agents};
use crate::plan::first_sequence;

const MS_PER_S: u64 = 1000;
const S_PER_H: u32 = 3600;
/// Ads that impressions are of.
const ADS: u64 = 50;
/// What each costs.
const PRICE_MICROS: u64 = 250_000;
/// A key number that no node of a bench holds.
const UNKNOWN_KEY: KeyId = KeyId(0xfffe);

/// Households of clean traffic, of two people each, one click a person.
const HOUSEHOLDS: usize = 450;
/// One person in so many clicks the same ad again.
const CLICKS_AGAIN_EVERY: usize = 20;
/// Of those whom a rule may hit although they are people, so many of each kind.
const UNUSUAL: usize = 10;
/// People of an office whose clicks arrive in one moment.
const OFFICE: usize = 15;
/// Clicks of each forged form.
const FORGED: usize = 50;
/// Honest clicks before each that was issued in the future: the node counts what is in time only from the first of
/// those on, and one to one they would still be the most.
const HONEST_PER_FUTURE: usize = 2;
/// Impressions that are replayed ...
const REPLAYED: usize = 50;
/// ... each so often as it was.
const COPIES: usize = 5;
/// Rows of telephones ...
const ROWS: usize = 20;
/// ... of so many ...
const TELEPHONES: usize = 10;
/// ... that click so often at once.
const CLICKS_OF_A_TELEPHONE: usize = 5;
/// Telephones with an address each and one click.
const PATIENT: usize = 500;
/// Clicks of one address, in one visit.
const FLOOD: usize = 500;
/// Clicks of one user, each from another address.
const ROTATED: usize = 400;
/// Clicks with a new user and a new address each.
const ALL_NEW: usize = 100;
/// Clicks from data centres that lists know, and from others.
const LISTED: usize = 400;
const UNLISTED: usize = 100;
/// Clicks of each kind of robot.
const ROBOTS: usize = 100;

/// Makes the visits of a profile, at this time.
pub(super) fn visits(options: &Options, now_ms: u64) -> Vec<Visit> {
    let mut scene = Scene::new(options, now_ms);
    match options.profile {
        Profile::Clean => scene.clean(),
        Profile::Forged => scene.forged(),
        Profile::Replayed => scene.replayed(),
        Profile::ClickFarm => scene.click_farm(),
        Profile::OneAddress => scene.one_address(),
        Profile::RotatingAddresses => scene.rotating_addresses(),
        Profile::DataCentre => scene.data_centre(),
        Profile::Robots => scene.robots(),
    }
    scene.visits
}

struct Scene {
    rng: SmallRng,
    minter: Minter,
    /// Another issuer's key under this one's number.
    guessed: SipKey,
    now_ms: u64,
    homes: u16,
    visits: Vec<Visit>,
}

impl Scene {
    fn new(options: &Options, now_ms: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(options.seed);
        Self {
            minter: Minter::new(options.issuer, options.key_id, options.key, first_sequence(now_ms)),
            guessed: SipKey { k0: rng.random(), k1: rng.random() },
            rng,
            now_ms,
            homes: 0,
            visits: Vec::new(),
        }
    }

    const fn now_s(&self) -> u32 {
        (self.now_ms / MS_PER_S) as u32
    }

    /// A fresh signed click of a new user.
    fn click(&mut self) -> Click {
        self.click_issued(self.now_s() - 5)
    }

    fn click_issued(&mut self, issued_at_s: u32) -> Click {
        let offer = Offer {
            ad: self.rng.random_range(1..=ADS),
            price_micros: PRICE_MICROS,
            campaign: 1,
            publisher: self.rng.random_range(1..=20),
            ..Offer::default()
        };
        let mut click = self.minter.mint(&offer, issued_at_s);
        click.clicked_at_ms = self.now_ms.into();
        click.user_key = self.user();
        click
    }

    /// Somebody new.
    fn user(&mut self) -> U64 {
        (self.rng.random::<u64>() | 1).into()
    }

    /// A home that nobody was in before, and the country it is in.
    fn home(&mut self) -> (Ipv4Addr, [u8; 2]) {
        let country = self.rng.random_range(0..COUNTRIES.len());
        (self.home_in(country), COUNTRIES[country])
    }

    fn home_in(&mut self, country: usize) -> Ipv4Addr {
        self.homes += 1;
        networks::home(country, self.homes)
    }

    fn agent(&mut self) -> &'static str {
        agents::PEOPLE[self.rng.random_range(0..agents::PEOPLE.len())]
    }

    /// One click from a home of its own, as a person's would be.
    fn at_home(&mut self, form: &'static str, click: Click) {
        let user_agent = self.agent();
        self.at_home_as(form, click, user_agent);
    }

    fn visit(&mut self, source: Ipv4Addr, presses: Vec<Press>) {
        self.visits.push(Visit { source, presses });
    }

    fn clean(&mut self) {
        for household in 0..HOUSEHOLDS {
            let (source, country) = self.home();
            for person in [2 * household, 2 * household + 1] {
                let (click, user_agent) = (Click { country, ..self.click() }, self.agent());
                let mut presses = vec![Press { form: "person", click, user_agent }];
                if person.is_multiple_of(CLICKS_AGAIN_EVERY) {
                    let again = Click { ordinal: 1, ..click };
                    presses.push(Press { form: "person_again", click: again, user_agent });
                }
                self.visit(source, presses);
            }
        }
        for number in 0..UNUSUAL {
            let mut click = self.click();
            self.at_home_as("no_user_agent", click, "");
            click = self.click();
            self.at_home_as("telephone_called_bot", click, agents::TELEPHONE_CALLED_BOT);
            // The app names the country its user lives in.
            let source = self.home_in(1);
            let (click, user_agent) = (Click { country: COUNTRIES[0], ..self.click() }, self.agent());
            self.visit(source, vec![Press { form: "traveller", click, user_agent }]);
            let (click, user_agent) = (Click { country: [0; 2], ..self.click() }, self.agent());
            let source = networks::listed_centre(number as u16);
            self.visit(source, vec![Press { form: "vpn", click, user_agent }]);
        }
        self.shuffle();
        let office = (0..OFFICE).map(|_| self.press_at_a_shared_address("office")).collect();
        self.visit(networks::shared(0), office);
    }

    fn at_home_as(&mut self, form: &'static str, click: Click, user_agent: &'static str) {
        let (source, country) = self.home();
        self.visit(source, vec![Press { form, click: Click { country, ..click }, user_agent }]);
    }

    fn press_at_a_shared_address(&mut self, form: &'static str) -> Press {
        Press { form, click: Click { country: COUNTRIES[0], ..self.click() }, user_agent: self.agent() }
    }

    fn forged(&mut self) {
        for _ in 0..FORGED {
            let click = self.click();
            self.at_home("altered_price", Click { price_micros: (4 * PRICE_MICROS).into(), ..click });
            let click = self.click();
            self.at_home("altered_ad", Click { ad: (click.ad.get() + 1).into(), ..click });
            let click = self.click();
            self.at_home("altered_publisher", Click { publisher: 999.into(), ..click });
            let click = self.click();
            self.at_home("guessed_key", Click { tag: click.expected_tag(&self.guessed).into(), ..click });
            let mut click = self.click();
            click.impression.0[2..4].copy_from_slice(&UNKNOWN_KEY.0.to_le_bytes());
            self.at_home("unknown_key", click);
            let click = self.click_issued(self.now_s() - 25 * S_PER_H);
            self.at_home("expired", click);
            let click = self.click_issued(self.now_s() + 2 * S_PER_H);
            self.at_home("future", click);
            let mut click = self.click();
            (click.flags, click.tag) = (click.flags | click_flags::FOREIGN, 0.into());
            self.at_home("stripped", click);
        }
        self.shuffle();
        // Were most of what is signed right issued in the future, the node would doubt its own clock.
        let forged = std::mem::take(&mut self.visits);
        for visit in forged {
            if visit.presses[0].form == "future" {
                for _ in 0..HONEST_PER_FUTURE {
                    let click = self.click();
                    self.at_home("honest", click);
                }
            }
            self.visits.push(visit);
        }
    }

    fn replayed(&mut self) {
        let originals: Vec<Click> = (0..REPLAYED).map(|_| self.click()).collect();
        for &click in &originals {
            self.at_home("original", click);
        }
        let before = self.visits.len();
        for &click in &originals {
            for _ in 0..COPIES {
                let copy = Click { user_key: self.user(), ..click };
                self.at_home("copy", copy);
            }
            self.at_home("next_ordinal", Click { ordinal: 1, ..click });
            self.at_home("ordinal_beyond", Click { ordinal: ORDINALS, ..click });
        }
        self.visits[before..].shuffle(&mut self.rng);
    }

    fn click_farm(&mut self) {
        for row in 0..ROWS {
            let mut presses = Vec::new();
            for _ in 0..TELEPHONES {
                let first = self.press_at_a_shared_address("row");
                presses.extend((0..CLICKS_OF_A_TELEPHONE).map(|_| {
                    let click = Click { user_key: first.click.user_key, ..self.click() };
                    Press { click: Click { country: COUNTRIES[0], ..click }, ..first }
                }));
            }
            presses.shuffle(&mut self.rng);
            self.visit(networks::shared(row as u16 + 1), presses);
        }
        for _ in 0..PATIENT {
            let click = self.click();
            self.at_home("patient", click);
        }
        self.shuffle();
    }

    fn one_address(&mut self) {
        let presses = (0..FLOOD).map(|_| self.press_at_a_shared_address("flood")).collect();
        self.visit(networks::shared(0), presses);
    }

    fn rotating_addresses(&mut self) {
        let user = self.user();
        for _ in 0..ROTATED {
            let click = Click { user_key: user, ..self.click() };
            self.at_home("one_user", click);
        }
        for _ in 0..ALL_NEW {
            let click = self.click();
            self.at_home("new_users", click);
        }
        self.shuffle();
    }

    fn data_centre(&mut self) {
        for number in 0..LISTED as u16 {
            let press = self.press_at_a_shared_address("listed");
            self.visit(networks::listed_centre(number), vec![press]);
        }
        for number in 0..UNLISTED as u16 {
            let press = self.press_at_a_shared_address("unlisted");
            self.visit(networks::new_centre(number), vec![press]);
        }
        self.shuffle();
    }

    fn robots(&mut self) {
        for number in 0..ROBOTS {
            for (form, user_agent) in [
                ("declared", agents::DECLARED[number % agents::DECLARED.len()]),
                ("tool", agents::TOOLS[number % agents::TOOLS.len()]),
                ("silent", ""),
                ("imitates_a_browser", agents::PEOPLE[number % agents::PEOPLE.len()]),
            ] {
                let click = self.click();
                self.at_home_as(form, click, user_agent);
            }
        }
        self.shuffle();
    }

    fn shuffle(&mut self) {
        self.visits.shuffle(&mut self.rng);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use clap::ValueEnum;
    use weir_common::id::Issuer;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const KEY: SipKey = SipKey { k0: 1, k1: 2 };

    fn of(profile: Profile, seed: u64) -> Vec<Visit> {
        let (target, issuer, key_id) = (([127, 0, 0, 1], 1).into(), Issuer(1), KeyId(1));
        visits(&Options { target, profile, issuer, key_id, key: KEY, seed }, NOW_MS)
    }

    fn forms(visits: &[Visit]) -> BTreeMap<&'static str, usize> {
        let mut forms = BTreeMap::new();
        for press in visits.iter().flat_map(|visit| &visit.presses) {
            *forms.entry(press.form).or_default() += 1;
        }
        forms
    }

    #[test]
    fn a_seed_gives_the_same_visits_and_another_seed_others_of_the_same_numbers() {
        for &profile in Profile::value_variants() {
            assert_eq!(of(profile, 3), of(profile, 3), "{profile:?}");
            assert_ne!(of(profile, 3), of(profile, 4), "{profile:?}");
            assert_eq!(forms(&of(profile, 3)), forms(&of(profile, 4)), "{profile:?}");
        }
    }

    #[test]
    fn every_click_is_sound_on_the_wire_and_comes_from_loopback() {
        for &profile in Profile::value_variants() {
            for visit in of(profile, 5) {
                assert!(visit.source.is_loopback() && !visit.presses.is_empty());
                for press in &visit.presses {
                    assert_eq!(press.click.check(&[]), Ok(()), "{profile:?} {}", press.form);
                    assert_ne!(press.click.user_key.get(), 0);
                }
            }
        }
    }

    /// What is flagged for activity is so by its visit alone, whatever the time between visits.
    #[test]
    fn no_address_of_a_person_brings_more_than_a_few_clicks() {
        for profile in [Profile::Clean, Profile::Forged, Profile::Replayed, Profile::Robots] {
            let mut by_source: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
            for visit in of(profile, 6).iter().filter(|visit| visit.presses.len() < OFFICE) {
                *by_source.entry(visit.source).or_default() += visit.presses.len();
            }
            assert!(by_source.values().all(|&clicks| clicks <= 4), "{profile:?}");
        }
    }

    #[test]
    fn only_what_is_forged_is_not_signed_and_only_what_is_replayed_comes_twice() {
        for &profile in Profile::value_variants() {
            let mut seen = HashSet::new();
            for press in of(profile, 7).iter().flat_map(|visit| &visit.presses) {
                let click = press.click;
                if profile != Profile::Forged {
                    assert_eq!(click.tag.get(), click.expected_tag(&KEY), "{profile:?} {}", press.form);
                }
                let is_new = seen.insert((click.impression, click.ordinal));
                assert_eq!(is_new, press.form != "copy", "{profile:?} {}", press.form);
            }
        }
    }
}
