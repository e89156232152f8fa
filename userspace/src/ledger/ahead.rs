//! Looks ahead over a chunk of clicks, so that the waits for their memory overlap, and decides
//! those whose memory is all at hand.
//!
//! A miss costs a core 100 ns and more, but it can have a dozen under way. So what the clicks of a
//! chunk will read is asked for in passes: loops that do nothing but read, and between them loops
//! that work out the next addresses. What was looked up ahead is a hint where to look, and a click is
//! decided by what stands there at its turn; only a duplicate is decided already, for what was seen
//! stays seen. A click that needs more than its lines at hand, room for example, is left to
//! [`Ledger::decide`].
//!
//! Each pass is a function by itself, never inlined: there are registers enough for one of them.

use weir_common::bucket::Addend;
use weir_common::id::{ImpressionId, ORDINALS, Ordinal};
use weir_common::reason::{Outcome, Reason};
use weir_common::row::row_flags::{MARKED, REFRACTORY};

use super::buckets;
use super::impressions::Name;
use super::lines::Branch;
use super::pages::NOWHERE;
use super::{Admitted, Decision, Entry, Ledger, hashed, issued};
use weir_common::verdict::Standing;

/// How many clicks are looked ahead. A core has 10 to 16 misses under way at once and each click up
/// to 3; a longer chunk pays for the wait at its end less often, until its plans leave the first
/// cache.
pub(super) const LOOKAHEAD: usize = 64;
const _: () = assert!(LOOKAHEAD <= u64::BITS as usize, "a word is a set of them");

/// What the look-ahead learned of a chunk. Reused from chunk to chunk.
#[derive(Default)]
pub(super) struct Ahead {
    plans: Vec<Plan>,
    /// Those impressions that are found by full id.
    hashed: Vec<hashed::Name>,
    /// The buckets of all clicks but duplicates.
    buckets: Vec<Wanted>,
}

impl Ahead {
    /// Where the impressions are looked for, in their order.
    pub(super) fn plans(&self) -> &[Plan] {
        &self.plans
    }
}

/// Where a click will probably be decided.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Of an issued impression.
    pub(super) name: issued::Name,
    /// Where its look-up begins; nowhere for others.
    pub(super) home: usize,
    /// Where it goes on.
    branch: Branch,
    prospect: Prospect,
}

/// What probably becomes of a click.
#[derive(Clone, Copy)]
enum Prospect {
    /// It is a duplicate, surely: what was seen stays seen.
    Duplicate,
    /// It will be counted in this line.
    Counts { line: u32 },
    /// It has to be looked for.
    Unknown,
}

/// A bucket that a click will need.
struct Wanted {
    /// Which click of the chunk.
    nth: usize,
    name: buckets::Name,
    /// Where its look-up begins.
    home: usize,
}

/// What tells whether homes and branches still hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Moves {
    impressions: u64,
    buckets: u64,
}

impl Ledger {
    /// What changes whenever a plan may lead elsewhere.
    pub(super) const fn moves(&self) -> Moves {
        Moves { impressions: self.impressions.moves(), buckets: self.buckets.moves() }
    }

    /// Plans a chunk of at most [`LOOKAHEAD`] clicks and brings in what it will read.
    #[inline]
    pub(super) fn look_ahead(&mut self, entries: &[Entry], ahead: &mut Ahead) {
        let ids = entries.iter().map(|entry| (entry.click.impression, entry.click.is_foreign()));
        self.bring_impressions(ids, ahead);
        self.name_buckets(entries, ahead);
        self.bring_buckets(ahead);
    }

    /// Plans where these impressions, each foreign or not, are looked for, and brings in the lines.
    #[inline(never)]
    pub(super) fn bring_impressions(
        &mut self,
        ids: impl Iterator<Item = (ImpressionId, bool)>,
        Ahead { plans, hashed, .. }: &mut Ahead,
    ) {
        hashed.clear();
        plans.clear();
        plans.extend(ids.map(|(id, is_foreign)| {
            let (name, home) = match self.impressions.name(id, is_foreign) {
                Name::Issued(name) => (name, self.impressions.home(&name)),
                Name::Hashed(name) => {
                    hashed.push(name);
                    (issued::Name::default(), NOWHERE)
                }
            };
            Plan { name, home, branch: Branch::NOWHERE, prospect: Prospect::Unknown }
        }));
        let hand = self.impressions.hand();
        let mut words = plans.iter().fold(0, |sum, plan| sum ^ hand.touch(plan.home));
        for plan in plans.iter_mut() {
            plan.branch = hand.branch(&plan.name, plan.home);
        }
        words ^= plans.iter().fold(0, |sum, plan| sum ^ hand.touch_line(plan.branch));
        words ^= hashed.iter().fold(0, |sum, name| sum ^ self.impressions.touch_hashed(name));
        words ^= hashed.iter().fold(0, |sum, name| sum ^ self.impressions.touch_ids(name));
        core::hint::black_box(words);
    }

    /// Finds the duplicates, and works out the buckets of all others.
    #[inline(never)]
    fn name_buckets(&mut self, entries: &[Entry], Ahead { plans, buckets, .. }: &mut Ahead) {
        buckets.clear();
        let hand = self.impressions.hand();
        for (nth, (plan, entry)) in plans.iter_mut().zip(entries).enumerate() {
            if hand.state(&plan.name, plan.branch).has_seen(Ordinal(entry.click.ordinal)) {
                plan.prospect = Prospect::Duplicate;
                continue;
            }
            let name = self.buckets.name(self.keys.of(entry.admitted.minute, entry.click));
            buckets.push(Wanted { nth, name, home: self.buckets.home(&name) });
        }
    }

    /// Brings in the lines of the buckets and notes which they are: at home, or a leap from it. Few
    /// are farther away, and they are left to the search.
    #[inline(never)]
    fn bring_buckets(&mut self, Ahead { plans, buckets, .. }: &mut Ahead) {
        let hand = self.buckets.hand();
        core::hint::black_box(buckets.iter().fold(0, |sum, wanted| sum ^ hand.touch(wanted.home)));
        let mut far = 0_u64;
        for (nth, wanted) in buckets.iter_mut().enumerate() {
            match hand.near(wanted.home, &wanted.name) {
                Some(line) => plans[wanted.nth].prospect = Prospect::Counts { line: line as u32 },
                None => {
                    far |= 1 << nth;
                    wanted.home = hand.leap(&wanted.name);
                }
            }
        }
        core::hint::black_box(ones(far).fold(0, |sum, nth| sum ^ hand.touch(buckets[nth].home)));
        for wanted in ones(far).map(|nth| &buckets[nth]) {
            if let Some(line) = hand.near(wanted.home, &wanted.name) {
                plans[wanted.nth].prospect = Prospect::Counts { line: line as u32 };
            }
        }
    }

    /// Decides the entries from this one on in their order until one needs more than its lines at hand,
    /// and says how many it decided. Only while [moves](Ledger::moves) are what they were when they
    /// were planned.
    #[inline(never)]
    pub(super) fn decide_at_hand(
        &mut self,
        entries: &[Entry],
        first: usize,
        ahead: &Ahead,
        decisions: &mut Vec<Decision>,
    ) -> usize {
        let (now, before) = (self.now, decisions.len());
        let (mut hand, mut buckets) = (self.impressions.hand(), self.buckets.hand());
        for (entry, plan) in entries[first..].iter().zip(&ahead.plans[first..]) {
            if entry.received_at > now {
                break;
            }
            let outcome = match plan.prospect {
                Prospect::Duplicate => Some(Outcome::Duplicate),
                Prospect::Counts { line } => count_at_hand(&mut hand, &mut buckets, entry, plan, line),
                Prospect::Unknown => None,
            };
            let Some(outcome) = outcome else { break };
            decisions.push(Decision { outcome, reason: Reason::None });
        }
        decisions.len() - before
    }
}

/// Decides and counts a click with its lines at hand; `None`, and nothing is changed, when it needs
/// more.
#[inline(always)]
fn count_at_hand(
    hand: &mut issued::Hand,
    buckets: &mut buckets::Hand,
    entry: &Entry,
    plan: &Plan,
    line: u32,
) -> Option<Outcome> {
    let Admitted { minute, row_flags, traffic, late } = entry.admitted;
    let ordinal = Ordinal(entry.click.ordinal);
    let is_rare = !traffic.is_empty() || late || row_flags & (MARKED | REFRACTORY) != 0;
    if is_rare || ordinal.0 >= ORDINALS {
        return None;
    }
    let branch = if plan.branch.is_final() { plan.branch } else { hand.branch(&plan.name, plan.home) };
    let cell = hand.cell(&plan.name, branch)?;
    let outcome = cell.state.judge(ordinal, Reason::None, Standing::default());
    if outcome == Outcome::Duplicate {
        return Some(outcome);
    }
    // Everything that can fail comes before anything that counts.
    let next = cell.state.after(ordinal, outcome);
    if !buckets.can_count(line) || !hand.put(&plan.name, cell, next) {
        return None;
    }
    let price_micros = entry.click.price_micros.get();
    // Issued ids alone come this way, and admission has verified those.
    let addend = Addend { outcome, reason: Reason::None as u8, row_flags, price_micros, is_unsigned: false };
    buckets.count(line, minute, &addend);
    Some(outcome)
}

/// The numbers of the bits that are set.
fn ones(mut set: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let nth = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(nth)
    })
}
