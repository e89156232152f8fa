//! The sketches of unique users in a node's topics, held against those that the rows there make.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use datasketches::theta::{CompactThetaSketch, ThetaSketch, ThetaSketchBuilder};
use weir_common::row::Row;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Isolation, Record, read};

/// A sketch's value up to its last column, as `docs/kafka.md` has it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Columns {
    node: U32,
    incarnation: U64,
    revision: U64,
    ad: U64,
    minute: U32,
    unsketched: U64,
}

/// The life of a journal folder, minute, ad.
type Name = (u64, u32, u64);

/// What was found of the sketches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sketches {
    /// Sketches.
    pub sketches: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records of them: more than sketches where some came again.
    pub records: u64,
    /// Minutes that say that some of their ads have none.
    pub unsketched_minutes: u64,
    /// Sketches that are not those of the rows, there before their minute is final, or missing.
    pub mismatches: u64,
}

/// The sketches that rows make.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<Name, ThetaSketch>);

impl Users {
    pub(super) fn note(&mut self, incarnation: u64, row: &Row) {
        let user = row.click.user_key.get();
        if row.outcome > 1 || user == 0 {
            return;
        }
        let name = (incarnation, row.minute.get(), row.click.ad.get());
        let sketch = || ThetaSketchBuilder::default().lg_k(12).seed(9001).build().expect("a sketch");
        self.0.entry(name).or_insert_with(sketch).update(user);
    }

    /// Reads the sketches, and the checkpoints that say which minutes are final.
    pub(super) fn compare(self, bootstrap: &str, prefix: &str) -> Result<Sketches> {
        let final_before = final_before(bootstrap, prefix)?;
        let mut found = Sketches::default();
        let mut highest: HashMap<Name, (u64, Vec<u8>)> = HashMap::new();
        let mut incomplete: HashSet<(u64, u32)> = HashSet::new();
        for record in read(bootstrap, &format!("{prefix}uniques.v1"), Isolation::Committed)? {
            let (columns, theta) = columns_of(&record)?;
            let (incarnation, minute) = (columns.incarnation.get(), columns.minute.get());
            if columns.unsketched.get() > 0 {
                incomplete.insert((incarnation, minute));
                continue;
            }
            found.records += 1;
            found.bytes += record.value.len() as u64;
            let name = (incarnation, minute, columns.ad.get());
            let new = (columns.revision.get(), theta.to_vec());
            let held = highest.entry(name).or_insert_with(|| new.clone());
            if new.0 > held.0 {
                *held = new;
            }
        }
        found.sketches = highest.len() as u64;
        found.unsketched_minutes = incomplete.len() as u64;
        for (name, mut sketch) in self.0 {
            let (incarnation, minute, _) = name;
            sketch.trim();
            let is_final = final_before.get(&incarnation).is_some_and(|before| minute < *before);
            let is_right = match highest.remove(&name) {
                Some((_, theta)) => is_final && theta == sketch.compact(true).serialize(),
                None => !is_final || incomplete.contains(&(incarnation, minute)),
            };
            found.mismatches += u64::from(!is_right);
        }
        found.mismatches += highest.len() as u64;
        Ok(found)
    }
}

fn columns_of(record: &Record) -> Result<(Columns, &[u8])> {
    let (columns, rest) = Columns::read_from_prefix(&record.value)
        .map_err(|_| anyhow::anyhow!("a sketch of {} octets", record.value.len()))?;
    ensure!(record.key == columns.ad.get().to_be_bytes(), "a sketch under another ad's key");
    let end = rest.iter().position(|octet| octet & 0x80 == 0).context("a sketch without a length")?;
    let len = rest[..=end].iter().rev().fold(0, |len, octet| len << 7 | usize::from(octet & 0x7f));
    let theta = &rest[end + 1..];
    ensure!(theta.len() == len, "a sketch of {} octets that says {len}", theta.len());
    let sketch = CompactThetaSketch::deserialize(theta).map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(sketch.is_ordered() && sketch.is_empty() == (columns.unsketched.get() > 0), "{columns:?}");
    Ok((columns, theta))
}

/// The first minute that is not final, of each life of a journal.
fn final_before(bootstrap: &str, prefix: &str) -> Result<BTreeMap<u64, u32>> {
    let mut minutes = BTreeMap::new();
    for record in read(bootstrap, &format!("{prefix}checkpoints.v1"), Isolation::Committed)? {
        if !record.key.starts_with(b"checkpoint:") {
            continue;
        }
        let value: serde_json::Value = serde_json::from_slice(&record.value)?;
        let incarnation = value["incarnation"].as_str().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let minute = value["final_before"].as_u64().and_then(|minute| u32::try_from(minute).ok());
        let (Some(incarnation), Some(minute)) = (incarnation, minute) else {
            anyhow::bail!("a checkpoint that says {value}");
        };
        let known = minutes.entry(incarnation).or_insert(minute);
        *known = minute.max(*known);
    }
    Ok(minutes)
}
