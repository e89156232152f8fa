//! The embedded store: buckets, sketches, sums, how far nodes are and how far the topics are read, in one
//! fjall database.
//!
//! Everything that follows from a batch of records changes in one atomic write, the offsets of the
//! batch among it. So after a crash the store goes on exactly where it is, and what was not written is
//! read again from the log.

mod alerts;
mod campaigns;
pub mod keys;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};
use weir_common::bucket::BucketTotals;
use weir_common::ordered::{self, BucketId, UsersId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::{FromBytes, IntoBytes};

use crate::merge::{Changes, Held};
use crate::record::{Life, Revision, Told};
use crate::span::Span;
use crate::users::{Union, Users};
use crate::watermark::{NodeState, Offsets};
use keys::BucketValue;
pub use view::{Summed, View};

/// Why the store cannot be opened, read or written.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum StoreError {
    /// the store {path} is in use: one process at a time can have it open, so stop the other one
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// the store {path} cannot be opened: {source}
    Open {
        /// The store's folder.
        path: PathBuf,
        /// Why.
        source: fjall::Error,
    },
    /// the store cannot be read or written: {0}
    Engine(#[from] fjall::Error),
    /// an entry of keyspace {0} is damaged; move the store away, and it is filled again from Kafka
    Damaged(&'static str),
}

/// The store. One thread writes what is counted, another which campaign an ad is of, a third alerts: each
/// its own keyspaces. Any may read through a [`View`].
#[derive(Clone)]
pub struct Store {
    db: Database,
    spaces: Spaces,
}

#[derive(Clone)]
struct Spaces {
    buckets: Keyspace,
    sums: Keyspace,
    tops: Keyspace,
    splits: Keyspace,
    users: Keyspace,
    user_sums: Keyspace,
    unsketched: Keyspace,
    nodes: Keyspace,
    offsets: Keyspace,
    campaigns: Keyspace,
    campaign_ads: Keyspace,
    unassigned: Keyspace,
    alerts: Keyspace,
    messages: Keyspace,
    alert_marks: Keyspace,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// A node's state as it is kept.
#[derive(Serialize, Deserialize)]
struct StateValue {
    told: ToldValue,
    reached: Option<ToldValue>,
}

#[derive(Serialize, Deserialize)]
struct ToldValue {
    region: String,
    pop: String,
    flush: u64,
    final_before: u32,
    counted_until_ms: Option<u64>,
    appended_at_ms: u64,
}

impl From<&Told> for ToldValue {
    fn from(told: &Told) -> Self {
        Self {
            region: told.region.clone(),
            pop: told.pop.clone(),
            flush: told.flush,
            final_before: told.final_before.0,
            counted_until_ms: told.counted_until.map(|time| time.0),
            appended_at_ms: told.appended_at.0,
        }
    }
}

impl From<ToldValue> for Told {
    fn from(value: ToldValue) -> Self {
        Self {
            region: value.region,
            pop: value.pop,
            flush: value.flush,
            final_before: Minute(value.final_before),
            counted_until: value.counted_until_ms.map(UnixMs),
            appended_at: UnixMs(value.appended_at_ms),
        }
    }
}

impl Held for Store {
    type Error = StoreError;

    fn bucket(&self, id: &BucketId) -> Result<Option<BucketValue>, StoreError> {
        let Some(value) = self.spaces.buckets.get(id)? else { return Ok(None) };
        BucketValue::read_from_bytes(&value).map(Some).map_err(|_| StoreError::Damaged("buckets"))
    }

    fn sketch(&self, id: &UsersId) -> Result<Option<Revision>, StoreError> {
        let Some(value) = self.spaces.users.get(id)? else { return Ok(None) };
        let (revision, _) = keys::read_users_value(&value).ok_or(StoreError::Damaged("users"))?;
        Ok(Some(revision))
    }
}

impl Store {
    /// Opens the store in `path`, or makes it there.
    ///
    /// # Errors
    /// When another process has it open, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder(path).open().map_err(|source| match source {
            fjall::Error::Locked => StoreError::InUse { path: path.to_owned() },
            source => StoreError::Open { path: path.to_owned(), source },
        })?;
        let keyspace = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        let spaces = Spaces {
            buckets: keyspace("buckets")?,
            sums: keyspace("sums")?,
            tops: keyspace("tops")?,
            splits: keyspace("splits")?,
            users: keyspace("users")?,
            user_sums: keyspace("user_sums")?,
            unsketched: keyspace("unsketched")?,
            nodes: keyspace("nodes")?,
            offsets: keyspace("offsets")?,
            campaigns: keyspace("campaigns")?,
            campaign_ads: keyspace("campaign_ads")?,
            unassigned: keyspace("unassigned")?,
            alerts: keyspace("alerts")?,
            messages: keyspace("messages")?,
            alert_marks: keyspace("alert_marks")?,
        };
        Ok(Self { db, spaces })
    }

    /// The store as it is now, whatever is written meanwhile.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.db.snapshot(), self.spaces.clone())
    }

    /// What is known of the nodes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn nodes(&self) -> Result<BTreeMap<Life, NodeState>, StoreError> {
        let mut nodes = BTreeMap::new();
        for entry in self.spaces.nodes.iter() {
            let (key, value) = entry.into_inner()?;
            let life = keys::read_life(&key).ok_or(StoreError::Damaged("nodes"))?;
            let state: StateValue =
                serde_json::from_slice(&value).map_err(|_| StoreError::Damaged("nodes"))?;
            let (told, reached) = (state.told.into(), state.reached.map(Told::from));
            nodes.insert(life, NodeState { told, reached });
        }
        Ok(nodes)
    }

    /// The offset of the first record of a partition that is not in the store; none for a partition of
    /// which there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn offset(&self, topic: &str, partition: i32) -> Result<Option<i64>, StoreError> {
        let Some(value) = self.spaces.offsets.get(keys::offset(topic, partition))? else { return Ok(None) };
        let octets = value.as_ref().try_into().map_err(|_| StoreError::Damaged("offsets"))?;
        Ok(Some(i64::from_be_bytes(octets)))
    }

    /// Applies what a batch of records changes, with how far the topics are read and what is known of
    /// these nodes, all at once or not at all.
    ///
    /// It is not synced: what a crash takes away is read again from the log, for the offsets go with it.
    ///
    /// # Errors
    /// When the disk fails; nothing is applied then.
    pub fn apply(
        &self,
        changes: &Changes,
        topics: &[String],
        offsets: &Offsets,
        nodes: &[(Life, NodeState)],
    ) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        for (id, value) in &changes.buckets {
            batch.insert(&self.spaces.buckets, *id, value.as_bytes());
        }
        for (id, difference) in &changes.sums {
            let sum = self.added(&self.spaces.sums, "sums", id, difference)?;
            let (ad, start) = keys::read_sum(id).ok_or(StoreError::Damaged("sums"))?;
            let span = Span::ALL[usize::from(id[0])];
            batch.insert(&self.spaces.sums, *id, sum.as_bytes());
            batch.insert(&self.spaces.tops, keys::top(span, start, ad), sum.as_bytes());
            if span == Span::Day && !self.spaces.campaigns.contains_key(keys::ad(ad))? {
                batch.insert(&self.spaces.unassigned, keys::ad(ad), []);
            }
        }
        for (id, difference) in &changes.splits {
            let sum = self.added(&self.spaces.splits, "splits", id, difference)?;
            batch.insert(&self.spaces.splits, *id, sum.as_bytes());
        }
        self.unite(&mut batch, changes)?;
        for (id, clicks) in &changes.unsketched {
            batch.insert(&self.spaces.unsketched, *id, clicks.to_be_bytes());
        }
        for ((topic, partition), offset) in offsets {
            let key = keys::offset(&topics[*topic], *partition);
            batch.insert(&self.spaces.offsets, key, offset.to_be_bytes());
        }
        for (life, NodeState { told, reached }) in nodes {
            let state = StateValue { told: told.into(), reached: reached.as_ref().map(ToldValue::from) };
            let value = serde_json::to_vec(&state).map_err(|_| StoreError::Damaged("nodes"))?;
            batch.insert(&self.spaces.nodes, keys::life(*life), value);
        }
        Ok(batch.commit()?)
    }

    fn added(
        &self,
        space: &Keyspace,
        name: &'static str,
        id: &[u8],
        difference: &BucketTotals,
    ) -> Result<BucketTotals, StoreError> {
        let mut sum = match space.get(id)? {
            Some(value) => BucketTotals::read_from_bytes(&value).map_err(|_| StoreError::Damaged(name))?,
            None => BucketTotals::default(),
        };
        sum.merge(difference);
        Ok(sum)
    }

    /// Sets sketches, and unites them with those of their hour and day.
    fn unite(&self, batch: &mut fjall::OwnedWriteBatch, changes: &Changes) -> Result<(), StoreError> {
        let mut united: BTreeMap<keys::SumId, Vec<&Users>> = BTreeMap::new();
        for (id, (revision, users)) in &changes.users {
            batch.insert(&self.spaces.users, *id, keys::users_value(*revision, users.as_bytes()));
            let (ad, minute, _) = ordered::read_users(id).ok_or(StoreError::Damaged("users"))?;
            for span in [Span::Hour, Span::Day] {
                united.entry(keys::sum(span, ad, span.start_of(minute))).or_default().push(users);
            }
        }
        for (id, users) in united {
            let held = self.spaces.user_sums.get(id)?;
            let mut union = Union::default();
            for theta in users.iter().map(|users| users.as_bytes()).chain(held.as_deref()) {
                union.add(theta).ok_or(StoreError::Damaged("user_sums"))?;
            }
            let union = union.set().ok_or(StoreError::Damaged("user_sums"))?;
            batch.insert(&self.spaces.user_sums, id, union.as_bytes());
        }
        Ok(())
    }

    /// Makes what was applied so far durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

#[cfg(test)]
mod tests;
