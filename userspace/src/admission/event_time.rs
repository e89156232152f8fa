//! Which minute counts a click: its own, when its clock is plausible and it came in time, else
//! the minute it was received in.

use weir_common::row::row_flags;
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::Click;

use super::Settings;

/// Issue times are whole seconds, so a click may seem up to this much earlier than its issue.
const ISSUE_GRAIN_MS: u64 = 1000;

/// Where a click stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) minute: Minute,
    pub(super) row_flags: u8,
    pub(super) late: bool,
}

/// Places a click that has passed the checks.
///
/// Implausible are a click before its impression's issue, one further ahead than honest clocks
/// disagree, and one older than any valid click can be. Late clicks are counted under the minute
/// they were *received* in: their own minute's bucket is closed.
#[inline]
pub(super) fn place(settings: &Settings, received_at: UnixMs, click: &Click) -> Placed {
    let clicked_at = UnixMs(click.clicked_at_ms.get());
    let age_ms = received_at.0.saturating_sub(clicked_at.0);
    let issued_at_ms = if click.is_foreign() { 0 } else { u64::from(click.impression.issued_at_s()) * 1000 };
    let before_issue = clicked_at.0.saturating_add(ISSUE_GRAIN_MS) < issued_at_ms;
    let ahead = clicked_at.0.saturating_sub(received_at.0) > settings.max_ahead_ms;
    if before_issue || ahead || age_ms > settings.lifetime_ms {
        return Placed { minute: received_at.minute(), row_flags: row_flags::CLOCK_SUSPECT, late: false };
    }
    let late = age_ms > settings.lateness_ms || clicked_at.minute() < settings.closed_before;
    let minute = if late { received_at.minute() } else { clicked_at.minute() };
    Placed { minute, row_flags: 0, late }
}
