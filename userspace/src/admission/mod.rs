//! Decides, from a click alone and the receive time, whether it may be counted at all.
//!
//! Pure: no I/O, no clock, no state but the keys and limits it was given. It never looks at other
//! clicks; that is the ledger's part.

use weir_common::reason::{Outcome, Reason};
use weir_common::time::Minute;
use weir_common::wire::Click;

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
