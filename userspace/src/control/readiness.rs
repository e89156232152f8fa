//! Whether clicks should come to this node: what `/readyz` answers, and what announces its addresses goes by.

use serde::{Deserialize, Serialize};

use super::status::{Sources, State};
use crate::clock::Doubt;
use crate::stats::JournalHealth;
use crate::withdrawal::Withdrawal;

/// All that a node has to have, and whether it has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether nothing is wrong.
    pub ready: bool,
    /// Each thing looked at, in the order of its weight.
    pub checks: Vec<Check>,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// What is wrong with it; none when nothing is.
    pub fault: Option<String>,
}

impl Readiness {
    /// What is to be said of a node in this state, with journals that are so at the worst, and this doubt of its
    /// time. Only a node that has no time at all is unfit for it: in doubt it takes clicks and counts them.
    #[must_use]
    pub fn of(state: State, withdrawal: Withdrawal, journal: JournalHealth, doubt: Option<Doubt>) -> Self {
        let is_withdrawn = withdrawal == Withdrawal::Withdrawn;
        let faults = [
            ("state", (state != State::Running).then_some(state.name())),
            ("operator", is_withdrawn.then_some("taken out of service; `weir undrain` ends that")),
            (
                "journal",
                match journal {
                    JournalHealth::Running => None,
                    JournalHealth::NoSpace => Some("the journal is full"),
                    JournalHealth::Halted => Some("a journal is halted"),
                },
            ),
            ("time", (doubt == Some(Doubt::NoTime)).then_some("the time is not known")),
        ];
        let check = |(name, fault): (&str, Option<&str>)| Check {
            name: name.to_owned(),
            fault: fault.map(str::to_owned),
        };
        Self { ready: faults.iter().all(|(_, fault)| fault.is_none()), checks: faults.map(check).to_vec() }
    }

    pub(super) fn read(sources: &Sources) -> Self {
        let health =
            |worker: &crate::stats::WorkerStats| JournalHealth::from_gauge(worker.journal_health.get());
        let journal = sources.workers.iter().map(health).max().unwrap_or(JournalHealth::Running);
        Self::of(sources.state.get(), sources.withdrawal.get(), journal, sources.clock.read().doubt)
    }

    /// Why clicks should rather go elsewhere, if they should: the weightiest fault.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.checks.iter().find_map(|check| check.fault.as_deref())
    }

    /// What is wrong with this one thing, if something is.
    #[must_use]
    pub fn fault_of(&self, name: &str) -> Option<&str> {
        self.checks.iter().find(|check| check.name == name)?.fault.as_deref()
    }

    /// Every check in a line.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |Check { name, fault }: &Check| match fault {
            None => format!("[+] {name}: ok\n"),
            Some(fault) => format!("[-] {name}: {fault}\n"),
        };
        self.checks.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_nothing_is_wrong_and_the_weightiest_fault_is_told_first() {
        let of = |journal, doubt| Readiness::of(State::Running, Withdrawal::Finishing, journal, doubt);
        let ready = of(JournalHealth::Running, None);
        assert_eq!((ready.ready, ready.fault()), (true, None));
        let both = of(JournalHealth::Halted, Some(Doubt::NoTime));
        assert_eq!((both.ready, both.fault()), (false, Some("a journal is halted")));
        assert_eq!(
            both.lines(),
            "[+] state: ok\n[+] operator: ok\n[-] journal: a journal is halted\n[-] time: the time is not known\n"
        );
        let doubtful = of(JournalHealth::Running, Some(Doubt::SteppedBack));
        assert!(doubtful.ready, "it takes clicks all the same");
        let away = Readiness::of(State::Running, Withdrawal::Withdrawn, JournalHealth::Running, None);
        assert_eq!((away.ready, away.fault()), (false, away.fault_of("operator")));
        assert!(away.fault().is_some_and(|fault| fault.contains("weir undrain")));
    }
}
