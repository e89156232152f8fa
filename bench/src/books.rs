//! Counts what was sent, kind by kind, and says what the node must have made of it.

use std::collections::BTreeMap;

use weir_common::reason::{Outcome, Reason};

use crate::kind::{Kind, Stage};
use crate::report::{Expected, ExpectedClicks, KindReport};

const KINDS: usize = 64;
const _: () = assert!(Kind::ALL.len() <= KINDS);

/// What one thread sent.
#[derive(Clone, Debug)]
pub struct Books {
    clicks: [u64; KINDS],
    clicks_sent: [u64; KINDS],
    frames: [u64; KINDS],
    /// Datagrams of tracked clicks handed to the kernel.
    pub tracked_datagrams: u64,
    /// Prices of the clicks that will be billable.
    pub cost_micros: u64,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            clicks: [0; KINDS],
            clicks_sent: [0; KINDS],
            frames: [0; KINDS],
            tracked_datagrams: 0,
            cost_micros: 0,
        }
    }
}

impl Books {
    /// A tracked click was taken by the sender.
    pub fn click(&mut self, kind: Kind, price_micros: u64) {
        self.clicks[kind as usize] += 1;
        if kind.outcome() == Outcome::Accepted && kind != Kind::Foreign {
            self.cost_micros += price_micros;
        }
    }

    /// A tracked click went to the kernel, for the first or a further time.
    pub fn click_sent(&mut self, kind: Kind) {
        self.clicks_sent[kind as usize] += 1;
    }

    /// A datagram or frame made by hand went to the kernel.
    pub fn frame(&mut self, kind: Kind, price_micros: u64) {
        self.frames[kind as usize] += 1;
        if matches!(kind.stage(), Stage::Worker | Stage::Wrapped) {
            self.click(kind, price_micros);
            self.click_sent(kind);
        }
    }

    /// Clicks and hand-made frames, resends left out.
    #[must_use]
    pub fn sends_planned(&self) -> u64 {
        let by_hand: u64 = self.frames.iter().sum();
        let tracked = Kind::ALL
            .iter()
            .filter(|kind| kind.stage() == Stage::Tracked)
            .map(|&kind| self.clicks[kind as usize]);
        by_hand + tracked.sum::<u64>()
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for kind in 0..KINDS {
            self.clicks[kind] += other.clicks[kind];
            self.clicks_sent[kind] += other.clicks_sent[kind];
            self.frames[kind] += other.frames[kind];
        }
        self.tracked_datagrams += other.tracked_datagrams;
        self.cost_micros += other.cost_micros;
    }

    /// The kinds that were sent.
    #[must_use]
    pub fn kinds(&self) -> Vec<KindReport> {
        let sent = |kind: &&Kind| self.clicks[**kind as usize] + self.frames[**kind as usize] > 0;
        let report = |&kind: &Kind| KindReport {
            name: kind.name().to_owned(),
            stage: format!("{:?}", kind.stage()).to_lowercase(),
            frames: self.frames[kind as usize],
            clicks: self.clicks[kind as usize],
            clicks_sent: self.clicks_sent[kind as usize],
            outcome: if kind.stage() == Stage::Passed { "none" } else { kind.outcome().name() }.to_owned(),
            reason: kind.reason().name().to_owned(),
        };
        Kind::ALL.iter().filter(sent).map(report).collect()
    }

    /// What a node that lost nothing has counted. `retried` sends were answered with `retry`.
    #[must_use]
    pub fn expected(&self, retried: u64) -> Expected {
        let mut expected = Expected { clicks: self.expected_clicks(retried), ..Expected::default() };
        expected.datagrams_delivered = self.tracked_datagrams;
        expected.datagrams_sent_total = self.tracked_datagrams;
        for &kind in Kind::ALL {
            let frames = self.frames[kind as usize];
            expected.clicks_sent_total += self.clicks_sent[kind as usize];
            expected.datagrams_sent_total += frames;
            match kind.stage() {
                Stage::Header => {
                    add(&mut expected.frames, kind.reason().name(), frames);
                    add(&mut expected.frames_or_clicks, kind.reason().name(), frames);
                }
                Stage::Frame | Stage::Passed => add(&mut expected.frames, kind.reason().name(), frames),
                Stage::Worker | Stage::Wrapped => expected.datagrams_delivered += frames,
                Stage::Tracked => {}
            }
        }
        expected
    }

    /// The first send of a click meets its kind's outcome. A further send of a click that was taken
    /// is a duplicate, of one that was refused the same refusal again.
    fn expected_clicks(&self, retried: u64) -> ExpectedClicks {
        let mut expected =
            ExpectedClicks { retried, cost_micros: self.cost_micros, ..ExpectedClicks::default() };
        let mut duplicates = 0;
        for &kind in Kind::ALL {
            let (first, sent) = (self.clicks[kind as usize], self.clicks_sent[kind as usize]);
            let resent = sent.saturating_sub(first);
            let met = if kind.is_stored() { first } else { sent };
            if kind.is_stored() {
                duplicates += resent;
            }
            add(&mut expected.outcomes, kind.outcome().name(), met);
            if kind.reason() != Reason::None && !matches!(kind.stage(), Stage::Passed) {
                add(&mut expected.reasons, kind.reason().name(), met);
            }
        }
        // A send answered with `retry` was neither: the click was taken by a later send.
        let duplicates = duplicates.saturating_sub(retried);
        add(&mut expected.outcomes, Outcome::Duplicate.name(), duplicates);
        expected.clock_suspect = self.clicks[Kind::WrongClock as usize];
        expected
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, by: u64) {
    if by > 0 {
        *counts.entry(name.to_owned()).or_default() += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resend_of_a_taken_click_is_a_duplicate_and_of_a_refused_one_refused_again() {
        let mut books = Books::default();
        for kind in [Kind::Fresh, Kind::BadTag, Kind::Late] {
            books.click(kind, 10);
            books.click_sent(kind);
            books.click_sent(kind);
        }
        let expected = books.expected(0).clicks;
        let count = |name: &str| expected.outcomes.get(name).copied().unwrap_or(0);
        assert_eq!((count("accepted"), count("late"), count("duplicate"), count("refused")), (1, 1, 2, 2));
        assert_eq!(expected.reasons["bad_tag"], 2);
        assert_eq!(expected.cost_micros, 10);
        assert_eq!(books.expected(1).clicks.outcomes["duplicate"], 1);
    }

    #[test]
    fn an_unsound_header_is_a_frame_or_a_click_and_never_both() {
        let mut books = Books::default();
        books.frame(Kind::BadMagic, 0);
        books.frame(Kind::BadCountry, 0);
        books.frame(Kind::Vlan2, 7);
        let expected = books.expected(0);
        assert_eq!(expected.frames, BTreeMap::from([("bad_magic".to_owned(), 1)]));
        assert_eq!(expected.frames_or_clicks, expected.frames);
        assert_eq!(expected.clicks.outcomes["malformed"], 1);
        assert_eq!(expected.clicks.outcomes["accepted"], 1);
        assert_eq!((expected.datagrams_delivered, expected.datagrams_sent_total), (2, 3));
    }
}
