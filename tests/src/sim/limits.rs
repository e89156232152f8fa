//! What admission, ledger and oracle hold clicks to.

/// The limits of a simulated node, all in ms.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long an impression can be clicked.
    pub lifetime_ms: u64,
    /// How old a click may be and still count in its own minute.
    pub lateness_ms: u64,
    /// How far ahead of the node a click may be.
    pub max_ahead_ms: u64,
}
