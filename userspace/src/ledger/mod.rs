//! Gives every admitted click its outcome and counts it: a deterministic fold.
//!
//! No clock, no I/O, no randomness, no threads. Time enters only with the entries. Replaying the
//! rows of a journal gives the same outcomes and the same buckets, to the byte.
//!
//! Start reading at [`Ledger::apply`]. `weir_common::verdict` is the rule. `ahead` is the fast way through, for clicks
//! whose memory is at hand; it and the slow way meet the same rule on the same tables. Of those,
//! `impressions` is what is remembered of each impression: `issued` ones by sequence (`directory`,
//! `lines` of `leaf`s, `layout`, `runs`, `positions`), others `hashed` (`slice`, `index`, `ids`), both
//! in `spans` of time. `buckets` are the totals in their `line`s. `pages` are the hash tables under
//! all of it, `pool` their memory, `hash` their keyed hash.

mod ahead;
mod buckets;
mod directory;
mod hash;
mod hashed;
mod ids;
mod impressions;
mod index;
mod issued;
mod layout;
mod leaf;
mod line;
mod lines;
mod pages;
mod pool;
mod positions;
mod recall;
mod runs;
mod slice;
mod spans;

use weir_common::bucket::{Addend, BucketKey, BucketTotals, Dimensions};
use weir_common::id::{ORDINALS, Ordinal};
use weir_common::reason::{Class, Outcome, Reason};
use weir_common::row::Row;
use weir_common::siphash::SipKey;
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::Click;

use ahead::{Ahead, LOOKAHEAD};
use buckets::Buckets;
use impressions::Impressions;
use line::Keys;
use weir_common::verdict::Standing;

pub use buckets::OTHER_AD;
pub use impressions::remembered_ms;
pub use positions::Owned;
pub use recall::{Recalled, RememberedState};

use crate::admission::Admitted;

/// A click that admission passed, on its way to an outcome.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When this node read it. Never decreases from entry to entry.
    pub received_at: UnixMs,
    /// What admission found.
    pub admitted: Admitted,
    /// The click.
    pub click: &'a Click,
}

/// The ledger's word on one entry: accepted, repeat, duplicate, late or filtered; or refused,
/// when the click cannot be told apart (`ordinal_limit`) or held (`table_full`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason, where the outcome has one.
    pub reason: Reason,
}

/// Whether the rule leads to what a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The rule gives the recorded outcome again.
    Same,
    /// The rule gives another outcome. The recorded one stands: it was acknowledged.
    Differs(Outcome),
    /// The impression is too old to be remembered, or there is no room for it: a later click on it
    /// will not be told apart from this one.
    NotRemembered(Reason),
    /// The row has an outcome, reason or ordinal that no row can have; nothing was changed.
    NotARow,
}

/// What a ledger is given once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What splits a bucket beside minute and ad.
    pub dimensions: Dimensions,
    /// How long an impression is remembered, in ms; admission's own lifetime.
    pub lifetime_ms: u64,
    /// How long after its click a click may arrive and still be counted in its own minute, in ms;
    /// admission's own lateness.
    pub lateness_ms: u64,
    /// How far ahead of this node's clock an issue or a click may be, in ms; admission's own.
    pub max_ahead_ms: u64,
    /// Impressions the ledger has memory for, whatever their ids: 24 bytes each, and 8 more for
    /// issued ones in sequence, which need as little as one.
    pub capacity_impressions: usize,
    /// The shards whose impressions come here.
    pub owned: Owned,
    /// Buckets held at a time, about 120 bytes each. Keys beyond it are counted in the
    /// [`OTHER_AD`] bucket of their minute.
    pub capacity_buckets: usize,
    /// Drawn at random by the shell, kept from senders, so that none can choose ids that meet in
    /// one place. It changes no outcome and no total.
    pub hash_key: SipKey,
}

impl Settings {
    /// The defaults of the product, for a key drawn by the caller: 24 h, 10 min, 60 s, sixteen
    /// million impressions (400 MB), a million buckets.
    #[must_use]
    pub const fn new(hash_key: SipKey) -> Self {
        Self {
            dimensions: Dimensions::DEFAULT,
            lifetime_ms: 86_400_000,
            lateness_ms: 600_000,
            max_ahead_ms: 60_000,
            capacity_impressions: 1 << 24,
            owned: Owned::All,
            capacity_buckets: 1 << 20,
            hash_key,
        }
    }
}

/// Everything one worker knows of impressions and totals.
pub struct Ledger {
    keys: Keys,
    impressions: Impressions,
    buckets: Buckets,
    now: UnixMs,
    ahead: Ahead,
}

impl Ledger {
    /// An empty ledger. Address space for its tables is reserved here; memory is used as they
    /// fill, and never more than the capacities say.
    ///
    /// # Panics
    /// When the kernel refuses the address space.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let Settings { lifetime_ms, lateness_ms, max_ahead_ms, .. } = *settings;
        let impressions =
            impressions::Limits { lifetime_ms, max_ahead_ms, capacity: settings.capacity_impressions };
        let buckets = buckets::Limits { lateness_ms, max_ahead_ms, capacity: settings.capacity_buckets };
        Self {
            keys: Keys::new(&settings.dimensions),
            impressions: Impressions::new(impressions, &settings.owned, &settings.hash_key),
            buckets: Buckets::new(buckets, &settings.hash_key),
            now: UnixMs(0),
            ahead: Ahead::default(),
        }
    }

    /// Counts what comes from now on under this version of the traffic rules.
    pub const fn judge_by(&mut self, rules: u32) {
        self.keys.judge_by(rules);
    }

    /// Whether this very click was decided before: what comes of it now is a duplicate, and no traffic.
    pub fn has(&mut self, click: &Click) -> bool {
        self.impressions.find(click.impression, click.is_foreign()).state.has_seen(Ordinal(click.ordinal))
    }

    /// Decides the entries in order, appends one decision each to `decisions`, and counts them.
    ///
    /// A refused entry changes nothing: `table_full` when memory is at its bound or the click's
    /// minute is already closed, so that a resend is judged anew; `ordinal_limit`, `expired` and
    /// `not_yet_issued` for what admission would not have passed.
    pub fn apply(&mut self, entries: &[Entry], decisions: &mut Vec<Decision>) {
        let mut ahead = core::mem::take(&mut self.ahead);
        decisions.reserve(entries.len());
        for chunk in entries.chunks(LOOKAHEAD) {
            self.look_ahead(chunk, &mut ahead);
            let (moves, mut decided) = (self.moves(), 0);
            while let Some(entry) = chunk.get(decided) {
                if self.moves() == moves {
                    let at_hand = self.decide_at_hand(chunk, decided, &ahead, decisions);
                    decided += at_hand;
                    if at_hand > 0 {
                        continue;
                    }
                }
                decisions.push(self.decide(entry));
                decided += 1;
            }
        }
        self.ahead = ahead;
    }

    #[inline]
    fn advance(&mut self, received_at: UnixMs) {
        if received_at > self.now {
            self.now = received_at;
            self.impressions.advance(received_at);
        }
    }

    /// Decides any entry, whatever has to be searched for or to grow.
    fn decide(&mut self, entry: &Entry) -> Decision {
        self.advance(entry.received_at);
        match self.judge(entry) {
            Ok(outcome) => {
                let reason =
                    if outcome == Outcome::Filtered { entry.admitted.traffic.reason() } else { Reason::None };
                Decision { outcome, reason }
            }
            Err(reason) => Decision { outcome: Outcome::Refused, reason },
        }
    }

    fn judge(&mut self, entry: &Entry) -> Result<Outcome, Reason> {
        let (click, ordinal) = (entry.click, Ordinal(entry.click.ordinal));
        if ordinal.0 >= ORDINALS {
            return Err(Reason::OrdinalLimit);
        }
        let Admitted { minute, traffic, late, row_flags } = entry.admitted;
        let filter = traffic.reason();
        let known = self.impressions.find(click.impression, click.is_foreign());
        let outcome = known.state.judge(ordinal, filter, Standing::new(late, row_flags));
        if outcome == Outcome::Duplicate {
            return Ok(outcome);
        }
        // Everything that can fail comes before anything that counts.
        let next = known.state.after(ordinal, outcome);
        let room = self.impressions.make_room(&known, next, self.now)?;
        let bucket = self.bucket_of(minute, click);
        let bucket = self.buckets.find_or_open(&bucket, self.now).ok_or(Reason::TableFull)?;
        self.impressions.put(&known, room, next, self.now);
        self.buckets.count(bucket, &Addend::of_click(click, outcome, filter as u8, row_flags));
        Ok(outcome)
    }

    #[inline(always)]
    fn bucket_of(&self, minute: Minute, click: &Click) -> buckets::Name {
        self.buckets.name(self.keys.of(minute, click))
    }

    /// Remembers what one row of a journal says happened, and compares it with the rule. No bucket
    /// counts it: see [`Ledger::count`].
    ///
    /// Rows of several workers come merged by the time of their blocks, so `received_at_ms` may
    /// step back a little; time here does not.
    pub fn remember(&mut self, row: &Row) -> Agreement {
        let (click, ordinal) = (&row.click, Ordinal(row.click.ordinal));
        let Some((outcome, filter)) = recorded(row) else { return Agreement::NotARow };
        self.advance(UnixMs(row.received_at_ms.get()));
        let known = self.impressions.find(click.impression, click.is_foreign());
        let next = known.state.after(ordinal, outcome);
        match self.impressions.make_room(&known, next, self.now) {
            Ok(room) => self.impressions.put(&known, room, next, self.now),
            Err(reason) => return Agreement::NotRemembered(reason),
        }
        let standing = Standing::new(outcome == Outcome::Late, row.flags);
        let judged = known.state.judge(ordinal, filter, standing);
        if judged == outcome { Agreement::Same } else { Agreement::Differs(judged) }
    }

    /// Counts one row of a journal in its bucket; `false` when its minute is closed or there is no
    /// room for it. What no row can be counts nowhere, and is nothing to count.
    ///
    /// Call [`Ledger::take_changed`] at least once for each minute of row time: minutes close only
    /// there, and closing is what makes room.
    pub fn count(&mut self, row: &Row) -> bool {
        let Some(addend) = recorded(row).and_then(|_| Addend::of(row)) else { return true };
        self.advance(UnixMs(row.received_at_ms.get()));
        let bucket = self.bucket_of(Minute(row.minute.get()), &row.click);
        let Some(bucket) = self.buckets.find_or_open(&bucket, self.now) else { return false };
        self.buckets.count(bucket, &addend);
        true
    }

    /// The bucket that counts a row.
    #[must_use]
    pub fn bucket_of_row(&self, row: &Row) -> BucketKey {
        line::key_of(&self.keys.of(Minute(row.minute.get()), &row.click))
    }

    /// Appends the totals so far of every bucket that changed since the last call, in no
    /// particular order. Minutes that no click can belong to any more are dropped after it.
    pub fn take_changed(&mut self, out: &mut Vec<(BucketKey, BucketTotals)>) {
        self.buckets.take_changed(self.now, out);
    }

    /// Makes the next [`Ledger::take_changed`] give every open bucket.
    pub fn mark_all_changed(&mut self) {
        self.buckets.mark_all_changed();
    }

    /// Minutes before this one are closed: their buckets were taken for the last time.
    #[must_use]
    pub const fn closed_before(&self) -> Minute {
        self.buckets.closed_before()
    }

    /// Impressions remembered.
    #[must_use]
    pub fn impressions_live(&self) -> usize {
        self.impressions.live()
    }

    /// Bytes of table those take.
    #[must_use]
    pub fn impression_bytes(&self) -> usize {
        self.impressions.bytes_in_use()
    }

    /// Buckets held.
    #[must_use]
    pub const fn buckets_open(&self) -> usize {
        self.buckets.open()
    }
}

impl core::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ledger")
            .field("now", &self.now)
            .field("impressions_live", &self.impressions_live())
            .field("buckets_open", &self.buckets_open())
            .finish_non_exhaustive()
    }
}

/// The outcome and filter reason of a row, if a row can have them.
fn recorded(row: &Row) -> Option<(Outcome, Reason)> {
    let outcome = Outcome::from_number(row.outcome)?;
    let reason = Reason::from_number(row.reason)?;
    let sound = match outcome {
        Outcome::Accepted | Outcome::Repeat | Outcome::Late => reason == Reason::None,
        Outcome::Filtered => reason.class() == Class::Filtered,
        Outcome::Duplicate | Outcome::Refused | Outcome::Malformed => false,
    };
    (sound && row.click.ordinal < ORDINALS).then_some((outcome, reason))
}
