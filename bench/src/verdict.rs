//! Whether the numbers of a run may be used.

use crate::report::Report;

/// More late sends than this make a run invalid: the load was then not the planned one.
pub const LATE_SHARE_MAX: f64 = 0.001;

/// Why a run's numbers must not be used, if so. `sends` counts first sends of every kind.
#[must_use]
pub fn invalid_reason(report: &Report, sends: u64) -> Option<String> {
    if sends == 0 {
        return Some("nothing was sent: raise rate or duration".to_owned());
    }
    if report.late_sends_share > LATE_SHARE_MAX {
        return Some(format!(
            "{:.3} % of sends left more than {:.1} ms behind plan (0.1 % allowed): lower the rate, add \
             threads, free the cores, or raise --batches if the node was away",
            report.late_sends_share * 100.0,
            report.late_bound_ms
        ));
    }
    let ledger = &report.sdk_ledger;
    if ledger.queued + ledger.dropped_gave_up + ledger.refused_full > 0 {
        return Some(format!(
            "{} clicks not acknowledged in time, {} given up, {} refused by a full sender: is the node up?",
            ledger.queued, ledger.dropped_gave_up, ledger.refused_full
        ));
    }
    (!ledger.closes).then(|| "the senders' ledgers do not close: this is a defect".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LedgerReport;

    fn sound() -> Report {
        let sdk_ledger =
            LedgerReport { created: 5, acked_created: 5, closes: true, ..LedgerReport::default() };
        Report { sdk_ledger, late_sends_share: LATE_SHARE_MAX, ..Report::default() }
    }

    #[test]
    fn a_run_on_plan_with_closed_ledgers_is_valid() {
        assert_eq!(invalid_reason(&sound(), 5), None);
    }

    #[test]
    fn a_run_is_invalid_when_late_unanswered_unbalanced_or_empty() {
        assert!(invalid_reason(&sound(), 0).unwrap().contains("nothing was sent"));
        let late = Report { late_sends_share: 0.0011, ..sound() };
        assert!(invalid_reason(&late, 5).unwrap().contains("behind plan"));
        let mut waiting = sound();
        waiting.sdk_ledger.queued = 1;
        assert!(invalid_reason(&waiting, 5).unwrap().contains("not acknowledged"));
        let mut unbalanced = sound();
        unbalanced.sdk_ledger.closes = false;
        assert!(invalid_reason(&unbalanced, 5).unwrap().contains("do not close"));
    }
}
