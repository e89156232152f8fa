//! Whether a day can be billed yet: it is over, and no node counts anything in it any more.

use jiff::Timestamp;
use serde::Deserialize;
use weir_common::time::{MS_PER_MINUTE, Minute, UnixMs};

use crate::reconcile::Day;

/// Why a day cannot be billed yet.
#[derive(Debug, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum NotYet {
    /// {day} is not over: it ends at {day}T24:00:00Z, by UTC. Nothing was billed
    NotOver {
        /// The day.
        day: String,
    },
    /// no node has ever spoken to the tier that runs, so nothing says that {day} is final. Nothing was billed
    NoNodes {
        /// The day.
        day: String,
    },
    /// {day} is not final at node {node}, only what is before {until}. Nothing was billed; try again later, or name
    /// the node in central.retired_nodes if it will not come back
    NotFinal {
        /// The day.
        day: String,
        /// The node that is furthest behind.
        node: u32,
        /// How far it is.
        until: String,
    },
    /// the answer to /v1/nodes cannot be read: {0}; is another version running?
    Answer(String),
}

#[derive(Deserialize)]
struct Answer {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    node: u32,
    final_before_minute: u32,
}

/// Whether a day is over.
///
/// # Errors
/// When it is not.
pub fn is_over(day: &Day, now: UnixMs) -> Result<(), NotYet> {
    let is_over = now >= day.minutes().end.start();
    is_over.then_some(()).ok_or_else(|| NotYet::NotOver { day: day.name() })
}

/// Whether a day is final at every node, by what `/v1/nodes` answers.
///
/// # Errors
/// When it is not, or nobody knows.
pub fn is_final(day: &Day, answer: &[u8]) -> Result<(), NotYet> {
    let answer = serde_json::from_slice(answer).map_err(|error| NotYet::Answer(error.to_string()));
    let Answer { nodes } = answer?;
    let slowest = nodes.iter().min_by_key(|node| node.final_before_minute);
    let slowest = slowest.ok_or_else(|| NotYet::NoNodes { day: day.name() })?;
    if slowest.final_before_minute >= day.minutes().end.0 {
        return Ok(());
    }
    let until = time(Minute(slowest.final_before_minute));
    Err(NotYet::NotFinal { day: day.name(), node: slowest.node, until })
}

fn time(minute: Minute) -> String {
    let ms = i64::from(minute.0) * MS_PER_MINUTE as i64;
    Timestamp::from_millisecond(ms).map_or_else(|_| minute.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first minute of 2026-11-23.
    const NEXT: u32 = 29_923_200;

    fn day() -> Day {
        Day::read("2026-11-22").unwrap()
    }

    #[test]
    fn a_day_is_over_from_its_midnight_on() {
        let midnight = Minute(NEXT).start();
        assert_eq!(is_over(&day(), midnight), Ok(()));
        let before = is_over(&day(), UnixMs(midnight.0 - 1));
        assert_eq!(before, Err(NotYet::NotOver { day: "2026-11-22".to_owned() }));
    }

    #[test]
    fn a_day_is_final_only_when_it_is_so_at_every_node() {
        let answer = |minutes: &[u32]| {
            let node = |(index, minute): (usize, &u32)| serde_json::json!({"node": index + 1, "region": "eu", "final_before_minute": minute});
            let nodes: Vec<_> = minutes.iter().enumerate().map(node).collect();
            serde_json::json!({ "nodes": nodes }).to_string().into_bytes()
        };
        assert_eq!(is_final(&day(), &answer(&[NEXT, NEXT + 9])), Ok(()));
        let (name, until) = ("2026-11-22".to_owned(), "2026-11-22T23:59:00Z".to_owned());
        let not_final = NotYet::NotFinal { day: name.clone(), node: 2, until };
        assert_eq!(is_final(&day(), &answer(&[NEXT, NEXT - 1])), Err(not_final));
        assert_eq!(is_final(&day(), &answer(&[])), Err(NotYet::NoNodes { day: name }));
        assert!(matches!(is_final(&day(), b"{}"), Err(NotYet::Answer(_))));
    }
}
