//! What should be true, worked out by itself: maps of clicks, and nothing of the ledger but the
//! types on the wire. It is told what senders send, what the node answers, what becomes durable
//! and what the sink commits, and holds each against all it knows.

mod damage;
mod rows;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use weir::forward::Batch;
use weir_common::bucket::BucketKey;
use weir_common::reason::Outcome;
use weir_common::row::Row;
use weir_common::wire::{AckStatus, Acks, Click, Datagram, click_flags};

use super::disk::Synced;
use super::limits::Limits;
use super::segments::{BlockName, Reader, blocks_in};
use rows::Totals;
use users::UsersAtSink;

macro_rules! hold {
    ($condition:expr, $($text:tt)*) => { if !$condition { return Err(format!($($text)*)); } };
}
use hold;

/// What tells clicks apart: the impression, whether it is foreign, the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClickName {
    foreign: bool,
    impression: u128,
    ordinal: u8,
}

impl ClickName {
    /// The name of this click.
    #[must_use]
    pub fn of(click: &Click) -> Self {
        Self {
            foreign: click.flags & click_flags::FOREIGN != 0,
            impression: u128::from_le_bytes(click.impression.0),
            ordinal: click.ordinal,
        }
    }
}

/// The first block of a range that is lost, and the last one's sequence.
pub type Loss = (BlockName, u64);

/// What is known of one click.
#[derive(Debug, Default)]
struct Truth {
    /// A sender made it like that, and the node should take it.
    is_sound: bool,
    /// `None` for foreign ids, which never expire.
    issued_at_ms: Option<u64>,
    /// The blocks on the medium with a row of it, and when it was received.
    durable: BTreeMap<BlockName, u64>,
    /// Blocks at the sink with a row of it, when it was received and what it is.
    at_sink: Vec<(BlockName, u64, Outcome)>,
    /// A sender was told that it is durable.
    acked: bool,
    /// Datagrams of the node that said `created` of it.
    created: u32,
    /// The disk destroyed a durable row of its impression: what the node knows of it is less than
    /// what was true, and it may be counted again.
    is_excused: bool,
}

/// Everything that should be true. A check that fails says what is not.
#[derive(Debug)]
pub struct Oracle {
    limits: Limits,
    reader: Reader,
    clicks: BTreeMap<ClickName, Truth>,
    /// Which clicks a sender means by a batch id.
    batches: BTreeMap<(SocketAddr, u64), Vec<ClickName>>,
    /// Clicks in each block on the medium.
    blocks: BTreeMap<BlockName, Vec<ClickName>>,
    /// The last block of each stream at the sink.
    forwarded: BTreeMap<(u32, u16), u64>,
    /// When an impression was first counted, accepted or late.
    impressions: BTreeMap<(bool, u128), u64>,
    /// When a foreign impression first had a row.
    foreign: BTreeMap<u128, u64>,
    recount: BTreeMap<BucketKey, Totals>,
    /// The blocks whose rows a bucket counts.
    counted_from: BTreeMap<BucketKey, BTreeSet<BlockName>>,
    buckets: BTreeMap<BucketKey, (u64, Totals)>,
    users: UsersAtSink,
    /// Minutes before this one were final at the sink when a start of the node looked.
    closed_before: BTreeMap<u32, u32>,
    /// Blocks that the disk destroyed since the last start, which that start has to report.
    destroyed: BTreeSet<BlockName>,
    /// Impressions of which the disk destroyed a row.
    excused_impressions: BTreeSet<(bool, u128)>,
    /// Blocks of which a digest knows the clicks: the first of each range, and the last one's
    /// sequence. No start has to read them.
    digested: Vec<Loss>,
    /// Streams of which segments were deleted.
    trimmed: BTreeSet<(u32, u16)>,
    /// Buckets of rows that the disk destroyed after they were forwarded, or before.
    excused: BTreeSet<BucketKey>,
    /// The range of all wall clocks so far.
    wall: Option<(u64, u64)>,
    /// What the specification says of clicks that datagrams carried.
    pub clicks_sent: u64,
    /// Rows at the sink.
    pub rows_at_sink: u64,
    /// Acks the node sent for single clicks.
    pub statuses: [u64; 4],
}

/// Something is not as it should be.
pub type Verdict = Result<(), String>;

impl Oracle {
    /// An oracle that has heard nothing.
    #[must_use]
    pub fn new(limits: Limits, reader: Reader) -> Self {
        Self {
            limits,
            reader,
            clicks: BTreeMap::new(),
            batches: BTreeMap::new(),
            blocks: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            impressions: BTreeMap::new(),
            foreign: BTreeMap::new(),
            recount: BTreeMap::new(),
            counted_from: BTreeMap::new(),
            buckets: BTreeMap::new(),
            users: UsersAtSink::default(),
            closed_before: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            digested: Vec::new(),
            trimmed: BTreeSet::new(),
            excused_impressions: BTreeSet::new(),
            excused: BTreeSet::new(),
            wall: None,
            clicks_sent: 0,
            rows_at_sink: 0,
            statuses: [0; 4],
        }
    }

    /// What it reads segments with.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The wall clock shows this.
    pub fn time(&mut self, wall_ms: u64) {
        let (low, high) = self.wall.unwrap_or((wall_ms, wall_ms));
        self.wall = Some((low.min(wall_ms), high.max(wall_ms)));
    }

    /// The node starts, and this is what minutes are final for it.
    pub fn starts(&mut self, epoch: u32, final_before: u32) {
        self.closed_before.insert(epoch, final_before);
    }

    /// A sender made this click.
    pub fn made(&mut self, click: &Click, is_sound: bool) {
        let name = ClickName::of(click);
        let truth = self.clicks.entry(name).or_default();
        truth.is_sound = is_sound;
        truth.is_excused |= self.excused_impressions.contains(&(name.foreign, name.impression));
        let foreign = click.flags & click_flags::FOREIGN != 0;
        truth.issued_at_ms = (!foreign).then(|| u64::from(click.impression.issued_at_s()) * 1000);
    }

    /// A sender sent this datagram.
    ///
    /// # Errors
    /// When it used a batch id for other clicks before.
    pub fn sent(&mut self, from: SocketAddr, payload: &[u8]) -> Verdict {
        let Ok(datagram) = Datagram::parse(payload) else { return Err("a sender sent garbage".to_owned()) };
        let names: Vec<_> = datagram.clicks().map(|(click, _)| ClickName::of(click)).collect();
        self.clicks_sent += names.len() as u64;
        let id = datagram.header().batch_id.get();
        let known = self.batches.entry((from, id)).or_insert_with(|| names.clone());
        hold!(*known == names, "batch {id:x} of {from} names other clicks than before");
        Ok(())
    }

    /// The node sends this answer.
    ///
    /// # Errors
    /// When it says more than is true.
    pub fn answered(&mut self, to: SocketAddr, payload: &[u8]) -> Verdict {
        let mut acks = Acks::new(payload);
        for ack in acks.by_ref() {
            // What a stranger sent has no batch that is known.
            let Some(names) = self.batches.get(&(to, ack.batch_id)) else { continue };
            hold!(
                names.len() == ack.statuses.len(),
                "an ack of {} clicks for {}",
                ack.statuses.len(),
                names.len()
            );
            for (name, &status) in names.iter().zip(ack.statuses) {
                let Some(truth) = self.clicks.get_mut(name) else {
                    return Err(format!("{name:?} is unknown"));
                };
                self.statuses[usize::from(status)] += 1;
                match AckStatus::from_number(status) {
                    Some(AckStatus::Created | AckStatus::Exists) => {
                        hold!(
                            !truth.durable.is_empty() || !truth.at_sink.is_empty() || truth.is_excused,
                            "{name:?} was acknowledged before it was durable"
                        );
                        truth.created += u32::from(status == AckStatus::Created as u8);
                        // A foreign impression may be forgotten after a lifetime.
                        hold!(
                            truth.created <= 1 || name.foreign || truth.is_excused,
                            "{name:?} was created twice; on the medium in {:?}, at the sink in {:?}",
                            truth.durable,
                            truth.at_sink
                        );
                    }
                    Some(AckStatus::Malformed) => {
                        let (low, high) = self.wall.unwrap_or_default();
                        let limits = &self.limits;
                        let is_void = truth.issued_at_ms.is_some_and(|issued| {
                            issued + limits.lifetime_ms < high || issued > low + limits.max_ahead_ms
                        });
                        hold!(!truth.is_sound || is_void, "{name:?} is sound and was refused for good");
                    }
                    Some(AckStatus::Retry) => {}
                    None => return Err(format!("{name:?} has status {status}")),
                }
            }
        }
        hold!(acks.rest().is_empty(), "an answer is not acks from start to end");
        Ok(())
    }

    /// A sender takes this click for durable.
    pub fn acked(&mut self, click: &Click) {
        if let Some(truth) = self.clicks.get_mut(&ClickName::of(click)) {
            truth.acked = true;
        }
    }

    /// These bytes of a segment are on the medium now.
    ///
    /// # Errors
    /// When they count a click that another block counts, or show one that should be encrypted.
    pub fn durable(&mut self, synced: &Synced) -> Verdict {
        let Synced { path, offset, bytes } = synced;
        let places = self.reader.places_in(path, *offset, bytes);
        let rows: Vec<_> = places.iter().flat_map(|(.., rows)| rows).copied().collect();
        hold!(!self.reader.shows(bytes, &rows), "bytes of a click stand in {path:?}, which is encrypted");
        for (_, name, rows) in places {
            self.note_block(name, &rows)?;
        }
        Ok(())
    }

    fn note_block(&mut self, name: BlockName, rows: &[Row]) -> Verdict {
        let clicks: Vec<_> = rows.iter().map(|row| ClickName::of(&row.click)).collect();
        if let Some(known) = self.blocks.get(&name) {
            // Written again elsewhere, after a failure.
            hold!(*known == clicks, "block {name:?} is there with other clicks");
            return Ok(());
        }
        for (click, row) in clicks.iter().zip(rows) {
            let Some(truth) = self.clicks.get_mut(click) else {
                return Err(format!("a row of {click:?}, which nobody made"));
            };
            let received = row.received_at_ms.get();
            let may_be_forgotten = click.foreign && {
                // Its owner may have seen a later time than the worker that read it.
                let latest = self.wall.map_or(received, |(_, high)| high.max(received));
                let first = self.foreign.entry(click.impression).or_insert(received);
                *first = received.min(*first);
                latest - *first > self.limits.lifetime_ms
            };
            hold!(
                truth.durable.is_empty() || may_be_forgotten || truth.is_excused,
                "{click:?} is in {:?} and again in {name:?}, received at {received}",
                truth.durable
            );
            truth.durable.insert(name, received);
        }
        self.blocks.insert(name, clicks);
        Ok(())
    }

    /// After a crash exactly these segments are on the medium.
    ///
    /// # Errors
    /// When an acknowledged click is in none of them and not at the sink either.
    pub fn crashed<'a>(&mut self, segments: impl Iterator<Item = (&'a Path, &'a [u8])>) -> Verdict {
        self.blocks.clear();
        self.clicks.values_mut().for_each(|truth| truth.durable.clear());
        for (path, bytes) in segments {
            for (name, rows) in self.reader.blocks_of(path, bytes) {
                self.note_block(name, &rows)?;
            }
        }
        for (name, truth) in &self.clicks {
            let is_there = !truth.durable.is_empty() || !truth.at_sink.is_empty();
            hold!(!truth.acked || is_there || truth.is_excused, "{name:?} was acknowledged and is gone");
        }
        Ok(())
    }

    /// A start read these rows back.
    ///
    /// # Errors
    /// When a row is missing that was acknowledged, or is there twice.
    pub fn recovered(&mut self, rows: &[(BlockName, Row)]) -> Verdict {
        let mut found: BTreeMap<ClickName, BTreeSet<BlockName>> = BTreeMap::new();
        for (block, row) in rows {
            found.entry(ClickName::of(&row.click)).or_default().insert(*block);
        }
        let nowhere = BTreeSet::new();
        for (name, truth) in &mut self.clicks {
            let blocks = found.get(name).unwrap_or(&nowhere);
            hold!(
                !truth.acked || truth.durable.keys().all(|block| blocks.contains(block)),
                "{name:?} is acknowledged, on the medium in {:?}, and was read back from {blocks:?}",
                truth.durable
            );
            // What a start does not see, no later one will: the epoch is over.
            truth.durable.retain(|block, _| blocks.contains(block));
        }
        self.blocks.retain(|_, clicks| clicks.iter().all(|click| found.contains_key(click)));
        Ok(())
    }

    /// The sink committed this.
    ///
    /// # Errors
    /// When a block or click comes twice, or a block is left out.
    pub fn committed(&mut self, batch: &Batch, blocks: &[Vec<u8>]) -> Verdict {
        for block in blocks {
            let Some((name, rows)) = blocks_in(block).into_iter().next() else {
                return Err("the sink was given a damaged block".to_owned());
            };
            let (epoch, worker, sequence) = name;
            let last = self.forwarded.entry((epoch, worker)).or_default();
            // Blocks of a group that never became durable may be gone, and are then said to be.
            let is_reported = batch.gaps.iter().any(|gap| {
                (gap.epoch.0, gap.worker.0) == (epoch, worker)
                    && (gap.first.0, gap.last.0) == (*last + 1, sequence - 1)
            });
            hold!(sequence == *last + 1 || is_reported, "block {name:?} was forwarded after number {last}");
            *last = sequence;
            for row in &rows {
                self.note_row(name, row)?;
            }
        }
        for (&(epoch, worker), position) in &batch.checkpoint.positions {
            let last = self.forwarded.get(&(epoch.0, worker.0)).copied().unwrap_or(0);
            hold!(
                last == position.last.0,
                "the checkpoint says {} of ({}, {}), the sink has {last}",
                position.last.0,
                epoch.0,
                worker.0
            );
        }
        for bucket in &batch.buckets {
            let new = (batch.flush.0, Totals::of(&bucket.totals));
            let old = self.buckets.insert(bucket.key, new);
            hold!(old.is_none_or(|(revision, _)| revision < batch.flush.0), "a revision came twice");
        }
        self.users.take(batch)?;
        if batch.checkpoint.positions.is_empty() || batch.buckets.is_empty() {
            return Ok(());
        }
        self.buckets_are_the_recount()
    }

    /// Whether the buckets at the sink are the recount of the rows at the sink.
    ///
    /// # Errors
    /// When one is not.
    pub fn buckets_are_the_recount(&self) -> Verdict {
        for (key, counted) in self.recount.iter().filter(|(key, _)| !self.excused.contains(key)) {
            let told = self.buckets.get(key).map(|(_, totals)| totals);
            let (ad, minute) = (key.ad.get(), key.minute.get());
            hold!(
                told == Some(counted),
                "the bucket of ad {ad} in minute {minute} says {told:?}, its rows {counted:?}, from {:?}",
                self.counted_from.get(key)
            );
        }
        let nothing = Totals::default();
        for (key, (_, told)) in &self.buckets {
            let has_rows = self.recount.contains_key(key) || *told == nothing || self.excused.contains(key);
            hold!(has_rows, "bucket {key:?} says {told:?} and has no rows");
        }
        Ok(())
    }

    /// When all faults are over and everything is forwarded: nothing is left open.
    ///
    /// # Errors
    /// What is.
    pub fn closed(&self) -> Verdict {
        for (name, truth) in &self.clicks {
            hold!(
                !truth.acked || !truth.at_sink.is_empty() || truth.is_excused,
                "{name:?} was acknowledged and never forwarded"
            );
            hold!(
                truth.durable.is_empty() || !truth.at_sink.is_empty(),
                "{name:?} is in {:?} and was never forwarded",
                truth.durable
            );
        }
        self.users.are_the_recount()?;
        self.buckets_are_the_recount()
    }

    /// Sketches of unique users at the sink.
    #[must_use]
    pub fn sketches_at_sink(&self) -> u64 {
        self.users.sketches()
    }

    /// Acknowledged clicks.
    #[must_use]
    pub fn acked_clicks(&self) -> u64 {
        self.clicks.values().filter(|truth| truth.acked).count() as u64
    }
}
