//! Judgements while nobody knows what time it is.

use weir_common::reason::{Outcome, Reason};
use weir_common::time::UnixMs;

use super::Desk;
use crate::admission::{Arrival, Judgement};
use crate::clock::Doubt;

impl Desk {
    /// What is left of a judgement that rests on a time nobody can rely on: nothing is refused for
    /// good for its age. Signed impressions from the future are a witness of how late it is.
    #[cold]
    pub(super) fn judge_in_doubt(
        &self,
        doubt: Doubt,
        arrival: &Arrival<'_>,
        judgement: Judgement,
        is_hearing: bool,
    ) -> Judgement {
        let uncertain = Judgement::Reject(Outcome::Refused, Reason::TimeUncertain);
        match judgement {
            Judgement::Admit(_) if doubt == Doubt::NoTime => uncertain,
            Judgement::Reject(_, reason @ (Reason::Expired | Reason::NotYetIssued)) => {
                match self.witness(arrival, reason, is_hearing) {
                    Ok(()) => uncertain,
                    Err(reason) => Judgement::Reject(Outcome::Refused, reason),
                }
            }
            certain => certain,
        }
    }

    /// Checks the signature of a click that is not in time, and heeds it.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cold]
    pub(super) fn witness(
        &self,
        arrival: &Arrival<'_>,
        reason: Reason,
        is_hearing: bool,
    ) -> Result<(), Reason> {
        self.admission.current().check_tag(arrival.click)?;
        if reason != Reason::NotYetIssued {
            return Ok(());
        }
        if is_hearing {
            let issued_at_ms = u64::from(arrival.click.impression.issued_at_s()) * 1000;
            self.clock.note_future(UnixMs(issued_at_ms));
        } else {
            self.clock.alert();
        }
        Ok(())
    }
}
