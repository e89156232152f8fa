//! Rules at the desk: those of invalid traffic, taken between two blocks and asked about clicks of this worker's
//! own; budgets, asked about every click that admission passed; and what of a click may be written.

use std::net::IpAddr;

use weir_common::reason::{Outcome, Reason};
use weir_common::row::row_flags;
use weir_common::wire::Click;

use super::super::clock::Now;
use super::super::reply::Ticket;
use super::{Desk, Origin, reuse};
use crate::journal::block::has_rows;
use crate::ledger::{Decision, Entry};
use crate::limits::{Payers, Refractory, Window};
use crate::traffic::Facts;

impl Desk {
    /// Takes new salts, and new lists of invalid traffic when there are any and a block for them alone can begin.
    pub(super) fn follow_rules(&mut self) {
        self.pseudonyms.get();
        if self.judge.is_outdated() && self.book.begins_anew() {
            self.judge.renew();
            self.book.judge_by(self.judge.rules());
            self.ledger.judge_by(self.judge.rules());
        }
    }

    /// Flags what speaks against these clicks, each from its source, and which are repeats for what their
    /// users did before. Sources are looked up only where somebody judges by them.
    pub(super) fn flag<'a>(
        &mut self,
        now: Now,
        entries: &mut [Entry<'a>],
        extensions: &[&'a [u8]],
        source_of: impl Fn(&Self, usize) -> Option<IpAddr>,
    ) {
        if self.judge.is_on() {
            self.judge_traffic(entries, extensions, source_of);
        }
        // Taken and put back, not cloned: its count of owners is a line that all workers would write.
        if let Some(refractory) = self.refractory.take() {
            entries.iter_mut().for_each(|entry| self.note_repeat(now, &refractory, entry));
            self.refractory = Some(refractory);
        }
    }

    /// Nobody vouches for the impression of an unsigned click, so what its user did moments ago counts too.
    fn note_repeat(&mut self, now: Now, refractory: &Refractory, entry: &mut Entry<'_>) {
        let (click, admitted) = (entry.click, &mut entry.admitted);
        if !click.is_foreign() || click.user_key.get() == 0 || !admitted.traffic.is_empty() || admitted.late {
            return;
        }
        // A copy of the very click that began the window is no repeat of it.
        if self.ledger.has(click) {
            return;
        }
        match refractory.note(now.monotonic_ns, click.user_key.get(), click.ad.get()) {
            Window::Begins => {}
            Window::IsOpen => admitted.row_flags |= row_flags::REFRACTORY,
            Window::NoRoom => self.stats.windows_missed.add(1),
        }
    }

    fn judge_traffic<'a>(
        &mut self,
        entries: &mut [Entry<'a>],
        extensions: &[&'a [u8]],
        source_of: impl Fn(&Self, usize) -> Option<IpAddr>,
    ) {
        let mut facts: Vec<Facts<'a>> = reuse(std::mem::take(&mut self.scratch.facts));
        let counts_activity = self.judge.counts_activity();
        for (nth, (entry, extension)) in entries.iter().zip(extensions).enumerate() {
            let (source, said) = (source_of(self, nth), entry.admitted.traffic);
            let of_click = self.judge.facts(source, entry.received_at, said, entry.click, extension);
            // A copy in this same batch is not known yet, and counts.
            let is_new = !counts_activity || !self.ledger.has(entry.click);
            facts.push(Facts { is_new, ..of_click });
        }
        for (entry, found) in entries.iter_mut().zip(self.judge.judge(&facts)) {
            entry.admitted.traffic = found.flags;
        }
        let clicks = entries.iter().map(|entry| entry.click).zip(extensions.iter().copied());
        if let Some(marks) = self.judge.score(&facts, clicks) {
            for (entry, mark) in entries.iter_mut().zip(marks) {
                entry.admitted.row_flags |= mark.row_flags();
            }
        }
        let forgotten = self.judge.forgotten();
        self.stats.activity_missed.set(forgotten.missed);
        self.stats.activity_pushed_out.set(forgotten.pushed_out);
        self.scratch.facts = reuse(facts);
    }

    /// Refuses a click for now that somebody's budget has no room for; else charges it.
    pub(super) fn is_over_budget(&mut self, now: Now, origin: Origin, click: &Click) -> bool {
        let Some(limits) = &self.limits else { return false };
        let source = self.judge.user_address(self.source_of(origin.ticket));
        let payers = Payers {
            source,
            user_key: click.user_key.get(),
            ad: click.ad.get(),
            publisher: click.publisher.get(),
        };
        if let Ok(uncharged) = limits.charge(now.monotonic_ns, &payers) {
            self.stats.budgets_uncharged.add(uncharged);
            return false;
        }
        self.waiting.limit(origin.ticket);
        self.reject(now, origin, Outcome::Refused, Reason::OverBudget);
        true
    }

    /// Counts a decision, and writes its row: with the key that its user is written under.
    pub(super) fn record(&mut self, now: Now, entry: &Entry<'_>, decision: &Decision, extension: &[u8]) {
        self.stats.count(decision.outcome, decision.reason, 1);
        if !has_rows(decision.outcome) {
            return self.book.count(now, decision.outcome, 1);
        }
        if !self.pseudonyms.current().are_salted() {
            return self.book.record(now, entry, decision, extension);
        }
        let click = Click { user_key: self.pseudonym_of(entry).into(), ..*entry.click };
        self.book.record(now, &Entry { click: &click, ..*entry }, decision, extension);
    }

    /// The key under which the user of a click is written.
    fn pseudonym_of(&self, entry: &Entry<'_>) -> u64 {
        let user_key = entry.click.user_key.get();
        let pseudonym = self.pseudonyms.current().of(entry.admitted.minute, user_key);
        self.stats.users_unsalted.add(u64::from(user_key != 0 && pseudonym == 0));
        pseudonym
    }

    /// Where a click came from that waits here.
    pub(super) fn source_of(&self, ticket: Ticket) -> Option<IpAddr> {
        self.waiting.sender(ticket).map(|sender| sender.ip())
    }
}
