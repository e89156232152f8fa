//! Looks ahead over a chunk of clicks, so that the waits for their memory overlap, and decides
//! those whose memory is all at hand.
//!
//! A miss costs a core 100 ns and more, but it can have a dozen under way. So what the clicks of a
//! chunk will read is asked for in passes: loops that do nothing but read, and between them loops
//! that work out the next addresses. What was looked up ahead is a hint where to look, never an
//! answer: a click is decided by what stands there at its turn. One that needs more than
//! its lines at hand, room for example, is left to [`Ledger::decide`].

use weir_common::id::{ORDINALS, Ordinal};
use weir_common::reason::{Outcome, Reason};

use super::buckets::{self, Addend};
use super::impressions::Name;
use super::lines::Branch;
use super::pages::NOWHERE;
use super::{Decision, Entry, Ledger};

/// How many clicks are looked ahead. A core has 10 to 16 misses under way at once and each click up
/// to 3; a longer chunk pays for the wait at its end less often, until its plans leave the first
/// cache.
pub(super) const LOOKAHEAD: usize = 64;
const _: () = assert!(LOOKAHEAD <= u64::BITS as usize, "a set of them is a word");

/// Where a click will probably be decided.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    impression: Name,
    /// Where the look-up of an issued impression begins.
    home: usize,
    /// Where it goes on.
    branch: Branch,
    bucket: buckets::Name,
    /// Where the look-up of the bucket begins, and then where it ended; nowhere for what looks like a
    /// duplicate.
    bucket_at: usize,
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
    pub(super) fn look_ahead(&mut self, entries: &[Entry], plans: &mut Vec<Plan>) {
        plans.clear();
        plans.extend(entries.iter().map(|entry| {
            let impression = self.impressions.name(entry.click.impression, entry.click.is_foreign());
            let home = self.impressions.home(&impression);
            let (branch, bucket) = (Branch::Nowhere, buckets::Name::NONE);
            Plan { impression, home, branch, bucket, bucket_at: NOWHERE }
        }));
        self.bring_impressions(plans);
        self.plan_buckets(entries, plans);
        self.bring_buckets(plans);
    }

    #[inline(always)]
    fn bring_impressions(&mut self, plans: &mut [Plan]) {
        let hand = self.impressions.hand();
        let mut words = plans.iter().fold(0, |sum, plan| sum ^ hand.touch(plan.home));
        let mut any_hashed = false;
        for plan in plans.iter_mut() {
            match &plan.impression {
                Name::Issued(name) => plan.branch = hand.branch(name, plan.home),
                Name::Hashed(_) => any_hashed = true,
            }
        }
        words ^= plans.iter().fold(0, |sum, plan| sum ^ hand.touch_line(plan.branch));
        if any_hashed {
            words ^= self.bring_hashed(plans);
        }
        core::hint::black_box(words);
    }

    fn bring_hashed(&self, plans: &[Plan]) -> u64 {
        let names = || {
            plans.iter().filter_map(|plan| match &plan.impression {
                Name::Issued(_) => None,
                Name::Hashed(name) => Some(name),
            })
        };
        let homes = names().fold(0, |sum, name| sum ^ self.impressions.touch_hashed(name));
        names().fold(homes, |sum, name| sum ^ self.impressions.touch_ids(name))
    }

    /// Works out the buckets of all clicks that do not look like duplicates.
    #[inline(always)]
    fn plan_buckets(&mut self, entries: &[Entry], plans: &mut [Plan]) {
        let hand = self.impressions.hand();
        for (plan, entry) in plans.iter_mut().zip(entries) {
            if let Name::Issued(name) = &plan.impression
                && let Some(cell) = hand.cell(name, plan.branch)
                && cell.state.has_seen(Ordinal(entry.click.ordinal))
            {
                continue;
            }
            plan.bucket = self.buckets.name(self.keys.of(entry.admitted.minute, entry.click));
            plan.bucket_at = self.buckets.home(&plan.bucket);
        }
    }

    /// Brings in the lines of these buckets and notes which they are.
    #[inline(always)]
    fn bring_buckets(&self, plans: &mut [Plan]) {
        let buckets = &self.buckets;
        core::hint::black_box(plans.iter().fold(0, |sum, plan| sum ^ buckets.touch(plan.bucket_at)));
        let mut far = 0_u64;
        for (nth, plan) in plans.iter_mut().enumerate() {
            if plan.bucket_at != NOWHERE {
                let near = buckets.near(plan.bucket_at, &plan.bucket);
                far |= u64::from(near.is_none()) << nth;
                plan.bucket_at = near.unwrap_or(NOWHERE);
            }
        }
        let leaps = ones(far).fold(0, |sum, nth| sum ^ buckets.touch_leap(&plans[nth].bucket));
        core::hint::black_box(leaps);
        ones(far).for_each(|nth| plans[nth].bucket_at = buckets.far(&plans[nth].bucket).unwrap_or(NOWHERE));
    }

    /// Decides entries in order until one needs more than its lines at hand, and says how many it
    /// decided. Only while [moves](Ledger::moves) are what they were when they were planned.
    #[inline(always)]
    pub(super) fn decide_at_hand(
        &mut self,
        entries: &[Entry],
        plans: &[Plan],
        decisions: &mut Vec<Decision>,
    ) -> usize {
        let (now, before) = (self.now, decisions.len());
        let (mut hand, mut buckets) = (self.impressions.hand(), self.buckets.hand());
        for (entry, plan) in entries.iter().zip(plans) {
            let Name::Issued(name) = &plan.impression else { break };
            let ordinal = Ordinal(entry.click.ordinal);
            let is_plain = matches!(entry.admitted.filter, Reason::None) && !entry.admitted.late;
            if !is_plain || ordinal.0 >= ORDINALS || entry.received_at > now {
                break;
            }
            let branch = if plan.branch.is_final() { plan.branch } else { hand.branch(name, plan.home) };
            let Some(cell) = hand.cell(name, branch) else { break };
            let outcome = cell.state.judge(ordinal, Reason::None, false);
            if outcome != Outcome::Duplicate {
                // Everything that can fail comes before anything that counts.
                let next = cell.state.after(ordinal, outcome);
                if !buckets.can_count(plan.bucket_at) || !hand.put(name, cell, next) {
                    break;
                }
                let (row_flags, price_micros) = (entry.admitted.row_flags, entry.click.price_micros.get());
                let addend = Addend { outcome, reason: Reason::None, row_flags, price_micros };
                buckets.count(plan.bucket_at, entry.admitted.minute, &addend);
            }
            decisions.push(Decision { outcome, reason: Reason::None });
        }
        decisions.len() - before
    }
}

/// The numbers of the bits that are set.
fn ones(mut set: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let nth = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(nth)
    })
}
