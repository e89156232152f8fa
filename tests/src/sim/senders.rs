//! Senders: the SDK's own, and the clicks they are given.

use std::net::SocketAddr;

use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::wire::{Click, click_flags};
use weir_sdk::{Config, Fate, Minter, Offer, Sender};

use super::chance::Chance;
use super::host::Packet;
use super::oracle::{Oracle, Verdict};
use super::plan::Plan;

/// The key of all simulated ad servers.
pub const KEY: SipKey = SipKey { k0: 0x0123_4567, k1: 0x89ab_cdef };
/// Clicks that a sender keeps to send them again.
const REMEMBERED: usize = 64;

/// One sender with its ad server.
pub struct Source {
    /// Where it sends from.
    pub address: SocketAddr,
    sender: Sender,
    minter: Minter,
    /// Impressions that may be clicked again.
    seen: Vec<Click>,
    foreign: u64,
}

impl Source {
    /// Sender number `number`.
    ///
    /// # Panics
    /// When the SDK refuses its configuration.
    #[must_use]
    pub fn new(number: u16, now_ns: u64, chance: &mut Chance) -> Self {
        let config = Config {
            source_id: u32::from(number),
            group_bits: chance.pick(&[0, 1, 2]),
            batches: 32,
            flush_after_ns: 2_000_000,
            ack_timeout_ns: 50_000_000,
            backoff_base_ns: 10_000_000,
            backoff_cap_ns: 500_000_000,
            attempts_max: u16::MAX,
            seed: chance.any(),
        };
        Self {
            address: ([10, 0, 0, 1], 1000 + number).into(),
            sender: Sender::new(config, now_ns).expect("the configuration of the simulation is sound"),
            minter: Minter::new(Issuer(1), KeyId(1), KEY, u64::from(number) << 32),
            seen: Vec::new(),
            foreign: u64::from(number) << 32,
        }
    }

    /// Somebody clicks, `clicks` times.
    pub fn click(
        &mut self,
        clicks: u64,
        (now_ns, wall_ms): (u64, u64),
        plan: &Plan,
        chance: &mut Chance,
        oracle: &mut Oracle,
    ) {
        for _ in 0..clicks {
            let mut is_sound = true;
            let mut click = if !self.seen.is_empty() && chance.per_mille(plan.resent) {
                chance.pick(&self.seen)
            } else if !self.seen.is_empty() && chance.one_in(8) {
                // Another click on an impression that was clicked.
                let click = chance.pick(&self.seen);
                Click { ordinal: (click.ordinal + 1) % 7, ..click }
            } else {
                self.impression(wall_ms, plan, chance)
            };
            if chance.per_mille(plan.unsound) {
                click = self.impression(wall_ms, plan, chance);
                click.flags &= !click_flags::FOREIGN;
                click.tag = (click.tag.get() ^ 1 << chance.below(64)).into();
                is_sound = false;
            } else if self.seen.len() < REMEMBERED {
                self.seen.push(click);
            } else {
                let old = chance.below(REMEMBERED as u64) as usize;
                self.seen[old] = click;
            }
            oracle.made(&click, is_sound);
            // A sender that is full says so, and the click is nobody's.
            let _full = self.sender.offer(now_ns, &click, &[]);
        }
    }

    fn impression(&mut self, wall_ms: u64, plan: &Plan, chance: &mut Chance) -> Click {
        let limits = &plan.limits;
        let age_ms = chance.below(limits.lifetime_ms / 2);
        let offer = Offer {
            ad: chance.below(4),
            price_micros: chance.below(1_000_000),
            campaign: 1,
            ..Offer::default()
        };
        let mut click = self.minter.mint(&offer, ((wall_ms - age_ms) / 1000) as u32);
        if chance.one_in(4) {
            self.foreign += 1;
            click.impression = ImpressionId(u128::from(self.foreign).to_le_bytes());
            click.tag = 0.into();
            click.flags |= click_flags::FOREIGN;
        }
        click.clicked_at_ms = match chance.below(10) {
            0 => wall_ms - chance.below(limits.lateness_ms * 2),
            1 => wall_ms + chance.below(limits.max_ahead_ms * 2),
            _ => wall_ms - chance.below(1000),
        }
        .into();
        // Few users, so that they come again; 0 is nobody.
        click.user_key = (click.clicked_at_ms.get() % 6).into();
        click.country = chance.pick(&[*b"DE", *b"PL"]);
        click.flags |= match chance.below(20) {
            0 => click_flags::TEST,
            1 => click_flags::PREFETCH,
            _ => 0,
        };
        click
    }

    /// Acts on the time; what is to be sent now goes to `out`.
    ///
    /// # Errors
    /// When the sender breaks a rule of its own.
    pub fn tick(&mut self, now_ns: u64, oracle: &mut Oracle, out: &mut Vec<Packet>) -> Verdict {
        let mut gave_up = 0;
        self.sender.advance(now_ns, |_| gave_up += 1);
        if gave_up > 0 {
            return Err("a sender gave up".to_owned());
        }
        while let Some(transmit) = self.sender.poll_transmit(now_ns) {
            let payload = self.sender.datagram(transmit).to_vec();
            oracle.sent(self.address, &payload)?;
            out.push(Packet { peer: self.address, payload });
        }
        if self.sender.ledger().closes() {
            Ok(())
        } else {
            Err("the books of a sender do not close".to_owned())
        }
    }

    /// An answer arrives.
    pub fn hear(&mut self, now_ns: u64, payload: &[u8], oracle: &mut Oracle) {
        self.sender.on_datagram(now_ns, payload, |settled| {
            if matches!(settled.fate, Fate::Created | Fate::Exists) {
                oracle.acked(settled.click);
            }
        });
    }

    /// Sends what waits for company.
    pub fn flush(&mut self) {
        self.sender.flush();
    }

    /// Whether all its clicks are settled.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }
}
