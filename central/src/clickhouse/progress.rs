//! How far the tables are, as it stands in ClickHouse itself: so it goes with them wherever they are restored.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_common::id::{Incarnation, NodeId};
use weir_common::time::{Minute, UnixMs};

use super::ClickhouseError;
use super::client::Client;
use crate::record::{Life, Told};
use crate::watermark::{NodeState, Offsets};

/// The name under which it stands how far windows are built.
const WINDOWS: &str = "windows";

/// A row of `positions`.
#[derive(Serialize, Deserialize)]
struct PositionRow {
    topic: String,
    partition: i32,
    next: i64,
}

/// A row of `closed`.
#[derive(Serialize, Deserialize)]
struct ClosedRow {
    name: String,
    before: u32,
}

/// A row of `nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeRow {
    node: u32,
    incarnation: u64,
    region: String,
    pop: String,
    told_at_ms: u64,
    told_flush: u64,
    told_final_before: u32,
    told_counted_until_ms: Option<u64>,
    is_reached: bool,
    final_before: u32,
    counted_until_ms: Option<u64>,
    is_retired: bool,
    version: u64,
}

impl NodeRow {
    fn of(life: Life, state: &NodeState, is_retired: bool, version: u64) -> Self {
        let (told, reached) = (&state.told, state.reached.as_ref());
        Self {
            node: life.node.0,
            incarnation: life.incarnation.0,
            region: told.region.clone(),
            pop: told.pop.clone(),
            told_at_ms: told.appended_at.0,
            told_flush: told.flush,
            told_final_before: told.final_before.0,
            told_counted_until_ms: told.counted_until.map(|time| time.0),
            is_reached: reached.is_some(),
            final_before: reached.map_or(0, |reached| reached.final_before.0),
            counted_until_ms: reached.and_then(|reached| reached.counted_until).map(|time| time.0),
            is_retired,
            version,
        }
    }

    /// The state. Of an older word that is true of the tables only what is of use is kept.
    fn state(self) -> (Life, NodeState) {
        let life = Life { node: NodeId(self.node), incarnation: Incarnation(self.incarnation) };
        let told = Told {
            region: self.region,
            pop: self.pop,
            flush: self.told_flush,
            final_before: Minute(self.told_final_before),
            counted_until: self.told_counted_until_ms.map(UnixMs),
            appended_at: UnixMs(self.told_at_ms),
        };
        let reached = self.is_reached.then(|| Told {
            final_before: Minute(self.final_before),
            counted_until: self.counted_until_ms.map(UnixMs),
            ..told.clone()
        });
        (life, NodeState { told, reached })
    }
}

/// What ClickHouse says of how far its tables are.
pub(super) struct Progress {
    /// The offset of the first record of each topic and partition that is not in them.
    pub(super) positions: HashMap<(String, i32), i64>,
    /// Windows that end before it are built.
    pub(super) closed: Minute,
    /// The nodes.
    pub(super) nodes: BTreeMap<Life, NodeState>,
}

impl Progress {
    /// Asks for all of it.
    pub(super) fn read(client: &Client<'_>) -> Result<Self, ClickhouseError> {
        let of = client.database();
        let positions = format!(
            "SELECT topic, partition, max(t.next) AS next FROM {of}.positions AS t GROUP BY topic, partition"
        );
        let closed = format!(
            "SELECT name, max(t.before) AS before FROM {of}.closed AS t WHERE name = '{WINDOWS}' GROUP BY name"
        );
        let nodes = format!("SELECT * FROM {of}.nodes FINAL");
        let positions = rows::<PositionRow>(client, &positions)?.into_iter();
        let closed = rows::<ClosedRow>(client, &closed)?.into_iter();
        Ok(Self {
            positions: positions.map(|row| ((row.topic, row.partition), row.next)).collect(),
            closed: Minute(closed.map(|row| row.before).max().unwrap_or(0)),
            nodes: rows::<NodeRow>(client, &nodes)?.into_iter().map(NodeRow::state).collect(),
        })
    }
}

/// The answer to a question, row by row.
fn rows<T: DeserializeOwned>(client: &Client<'_>, question: &str) -> Result<Vec<T>, ClickhouseError> {
    let answer = client.ask(format!("{question} FORMAT JSONEachRow"), &[])?;
    let rows = answer.lines().filter(|line| !line.is_empty()).map(serde_json::from_str);
    rows.collect::<Result<_, _>>().map_err(|error| client.unreadable(&error))
}

/// The days, counted from 1970, that have buckets among these minutes.
pub(super) fn days(client: &Client<'_>, from: Minute, until: Minute) -> Result<Vec<u32>, ClickhouseError> {
    #[derive(Deserialize)]
    struct DayRow {
        day: u32,
    }
    let question = format!(
        "SELECT DISTINCT intDiv(minute, {}) AS day FROM {}.buckets WHERE minute >= {} AND minute < {} ORDER BY day",
        super::windows::DAY,
        client.database(),
        from.0,
        until.0
    );
    Ok(rows::<DayRow>(client, &question)?.into_iter().map(|row| row.day).collect())
}

/// Says how far nodes are.
pub(super) fn write_nodes(
    client: &Client<'_>,
    nodes: impl IntoIterator<Item = (Life, NodeState)>,
    (retired, version): (&[NodeId], u64),
) -> Result<(), ClickhouseError> {
    let row =
        |(life, state): (Life, NodeState)| NodeRow::of(life, &state, retired.contains(&life.node), version);
    insert(client, "nodes", nodes.into_iter().map(row))
}

/// Says up to where windows are built.
pub(super) fn write_closed(client: &Client<'_>, before: Minute) -> Result<(), ClickhouseError> {
    insert(client, "closed", [ClosedRow { name: WINDOWS.to_owned(), before: before.0 }])
}

/// Says up to where the topics are in the tables.
pub(super) fn write_positions(
    client: &Client<'_>,
    topics: &[String],
    offsets: &Offsets,
) -> Result<(), ClickhouseError> {
    let row = |(&(topic, partition), &next): (&(usize, i32), &i64)| PositionRow {
        topic: topics[topic].clone(),
        partition,
        next,
    };
    insert(client, "positions", offsets.iter().map(row))
}

fn insert<T: Serialize>(
    client: &Client<'_>,
    table: &str,
    rows: impl IntoIterator<Item = T>,
) -> Result<(), ClickhouseError> {
    let mut body = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut body, &row).map_err(|error| client.unreadable(&error))?;
        body.push(b'\n');
    }
    if body.is_empty() {
        return Ok(());
    }
    // The same state may be said again on purpose, so no insert is dropped for being like an earlier one.
    let settings = [("insert_deduplicate", "0")];
    client.insert(&format!("INSERT INTO {}.{table} FORMAT JSONEachRow", client.database()), &settings, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_state_comes_back_from_its_row() {
        let life = Life { node: NodeId(3), incarnation: Incarnation(u64::MAX) };
        let told = Told {
            region: "eu".to_owned(),
            pop: "waw".to_owned(),
            flush: 7,
            final_before: Minute(90),
            counted_until: Some(UnixMs(5_400_001)),
            appended_at: UnixMs(5_500_000),
        };
        let before = Told { final_before: Minute(80), counted_until: None, ..told.clone() };
        for reached in [None, Some(told.clone()), Some(before)] {
            let state = NodeState { told: told.clone(), reached };
            let row = NodeRow::of(life, &state, false, 1);
            let text = serde_json::to_string(&row).unwrap();
            let read: NodeRow = serde_json::from_str(&text).unwrap();
            assert_eq!(read.state(), (life, state));
        }
    }
}
