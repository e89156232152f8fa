//! Decides, from a click alone and the receive time, whether it may be counted at all.
//!
//! Pure: no I/O, no clock, no state but the keys and limits it was given. It never looks at other
//! clicks; that is the ledger's part.
//!
//! Start reading at [`Admission::judge`], which names the order of the checks. [`KeyRing`] holds
//! the keys, `event_time` chooses the minute.

mod event_time;
mod keys;

use weir_common::id::ORDINALS;
use weir_common::reason::{Outcome, Reason};
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::{Click, click_flags};

pub use keys::{KeyRing, KeyRingError, MAX_KEYS, MAX_KEYS_PER_ISSUER, SigningKey};

/// A click as it came from the wire, structure already sound.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The fixed part.
    pub click: &'a Click,
    /// Its extension.
    pub extension: &'a [u8],
}

/// What admission found out about a click that may be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The minute whose bucket will count it.
    pub minute: Minute,
    /// [`weir_common::row::row_flags`].
    pub row_flags: u8,
    /// A reason of class filtered, or [`Reason::None`].
    pub filter: Reason,
    /// Past the allowed lateness.
    pub late: bool,
}

/// The judgement on one click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// On to the ledger.
    Admit(Admitted),
    /// Not to be counted: refused or malformed, and why.
    Reject(Outcome, Reason),
}

/// The limits admission holds clicks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long after its issue an impression can be clicked, in ms. The ledger remembers
    /// impressions for as long; the two must be given the same value.
    pub lifetime_ms: u64,
    /// How far ahead of this node's clock an issue or a click may be, in ms: the disagreement of
    /// two honest clocks.
    pub max_ahead_ms: u64,
    /// How long after the click it may arrive and still be counted in its own minute, in ms.
    pub lateness_ms: u64,
    /// Whether clicks with foreign ids, which nobody signed, are taken.
    pub allow_unsigned: bool,
}

impl Default for Settings {
    /// 24 h (a click is void a day after its impression), 60 s, 10 min, unsigned refused.
    fn default() -> Self {
        Self { lifetime_ms: 86_400_000, max_ahead_ms: 60_000, lateness_ms: 600_000, allow_unsigned: false }
    }
}

/// Judges clicks, one by one, in batches.
#[derive(Clone, Debug)]
pub struct Admission {
    settings: Settings,
    keys: KeyRing,
}

impl Admission {
    /// Admission under these limits, for clicks signed with these keys.
    #[must_use]
    pub const fn new(settings: Settings, keys: KeyRing) -> Self {
        Self { settings, keys }
    }

    /// Judges clicks that this node read at `received_at`; one judgement each, in order, is
    /// appended to `out`.
    ///
    /// The first check that fails names the reason, cheap checks before dear ones:
    /// 1. the click's own fields and extension ([`Click::check`]): malformed;
    /// 2. a foreign id where unsigned traffic is not taken: `unsigned_not_allowed`;
    /// 3. an ordinal that cannot be told apart: `ordinal_limit`;
    /// 4. issued ids: too old, `expired`, or from the future, `not_yet_issued`;
    /// 5. issued ids: a key this node does not hold, `unknown_key`, then the tag, `bad_tag`.
    ///
    /// So nothing is hashed for a click that would be refused anyway; its `expired` is its own
    /// word, which nobody vouched for.
    pub fn judge(&self, received_at: UnixMs, arrivals: &[Arrival], out: &mut Vec<Judgement>) {
        out.extend(arrivals.iter().map(|arrival| match self.check(received_at, arrival) {
            Ok(()) => Judgement::Admit(self.admit(received_at, arrival.click)),
            Err((outcome, reason)) => Judgement::Reject(outcome, reason),
        }));
    }

    #[inline]
    fn check(&self, received_at: UnixMs, arrival: &Arrival) -> Result<(), (Outcome, Reason)> {
        let click = arrival.click;
        let refused = |reason| (Outcome::Refused, reason);
        click.check(arrival.extension).map_err(|reason| (Outcome::Malformed, reason))?;
        let foreign = click.is_foreign();
        if foreign && !self.settings.allow_unsigned {
            return Err(refused(Reason::UnsignedNotAllowed));
        }
        if click.ordinal >= ORDINALS {
            return Err(refused(Reason::OrdinalLimit));
        }
        if foreign { Ok(()) } else { self.check_signature(received_at, click).map_err(refused) }
    }

    #[inline]
    fn check_signature(&self, received_at: UnixMs, click: &Click) -> Result<(), Reason> {
        let issued_at_ms = u64::from(click.impression.issued_at_s()) * 1000;
        if received_at.0.saturating_sub(issued_at_ms) > self.settings.lifetime_ms {
            return Err(Reason::Expired);
        }
        if issued_at_ms.saturating_sub(received_at.0) > self.settings.max_ahead_ms {
            return Err(Reason::NotYetIssued);
        }
        let key = self.keys.find(click.impression.issuer(), click.impression.key());
        let key = key.ok_or(Reason::UnknownKey)?;
        // One comparison of two whole words: its time does not depend on where they differ.
        if click.expected_tag(key) == click.tag.get() { Ok(()) } else { Err(Reason::BadTag) }
    }

    #[inline]
    fn admit(&self, received_at: UnixMs, click: &Click) -> Admitted {
        let filter = if click.flags & (click_flags::TEST | click_flags::PREFETCH) == 0 {
            Reason::None
        } else if click.flags & click_flags::TEST != 0 {
            Reason::TestTraffic
        } else {
            Reason::Prefetch
        };
        let placed = event_time::place(&self.settings, received_at, click);
        Admitted { minute: placed.minute, row_flags: placed.row_flags, filter, late: placed.late }
    }
}

#[cfg(test)]
mod tests;
