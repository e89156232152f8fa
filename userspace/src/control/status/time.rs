//! What the node takes for the time.

use serde::{Deserialize, Serialize};

use crate::clock::{Doubt, NodeClock};

/// The node's time, and whether it can be relied on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// Whether it is uncertain: clicks are taken; nothing becomes final, or goes for its age.
    pub uncertain: bool,
    /// Why, as [`Doubt::name`].
    pub doubt: Option<String>,
    /// The same as a sentence.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The node's time, in ms since 1970.
    pub node_ms: u64,
    /// What the system clock showed at the last look, in ms since 1970.
    pub system_ms: u64,
}

impl From<&NodeClock> for TimeStatus {
    fn from(clock: &NodeClock) -> Self {
        let reading = clock.read();
        let text = |text: fn(Doubt) -> &'static str| reading.doubt.map(|it| text(it).to_owned());
        Self {
            uncertain: reading.doubt.is_some(),
            doubt: text(Doubt::name),
            cause: text(Doubt::cause),
            remedy: text(Doubt::remedy),
            node_ms: reading.time.0,
            system_ms: clock.system().0,
        }
    }
}
