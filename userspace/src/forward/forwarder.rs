//! The flush: ask, gather, read, commit.
//!
//! [`Forwarder::poll`] takes the time and says when it wants to be called again; it blocks only
//! in the sink and on reads of the journal. [`Forwarder::run`] is the thread around it, `part` what
//! is committed at a time.

mod opening;
mod part;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};

use part::Planned;

use super::batch::{Checkpoint, FlushNo};
use super::losses::Losses;
use super::mailbox::{Mailboxes, Share};
use super::merge::Merge;
use super::pace::{ForwarderConfig, Now};
use super::retention::Retention;
use super::sink::{Sink, SinkError};
use super::stop::Stop;
use super::uniques::Uniques;
use crate::clock::NodeClock;
use crate::digest::Digests;
use crate::journal::{BlockStream, DiskBudget, Folder, Place, Recovery};
use crate::rejects::Samples;
use crate::stats::ForwardStats;

/// Bytes of one bucket in a batch, for the statistics: key and totals.
const BUCKET_BYTES: u64 = (size_of::<BucketKey>() + size_of::<BucketTotals>()) as u64;
/// How long to wait before a failed commit is tried again, at first and at the most.
const BACKOFF_MS: (u64, u64) = (100, 10_000);
/// How often a gathering forwarder looks at the mailboxes.
const GATHER_MS: u64 = 5;
/// How often a commit that fails at shutdown is tried before it is left to the next start.
const FINAL_ATTEMPTS: u64 = 5;
/// How long the last flush may take before it is left to the next start.
const FINAL_WAIT: Duration = Duration::from_secs(20);
/// The same where the next process waits for this one to end: a healthy sink takes less, and clicks wait meanwhile.
const HASTY_WAIT: Duration = Duration::from_millis(500);
/// How often a waiting forwarder looks whether it is to stop.
const STOP_CHECK_MS: u64 = 50;

/// How often a forwarder looks whether the past is counted.
const PAST_MS: u64 = 50;
/// Whose share the past is: no worker has this number.
const PAST: WorkerId = WorkerId(u16::MAX);
const _: () = assert!(crate::worker::shard_map::MAX_WORKERS <= u16::MAX as usize);

/// Where the totals come from of rows that were counted before this start and that no worker has
/// in its ledger.
#[derive(Debug)]
pub struct Past {
    /// Gets them once.
    pub counted: Receiver<Counted>,
}

/// What became of the past.
#[derive(Debug, Default)]
pub struct Counted {
    /// The totals of every bucket that its rows have a part in.
    pub totals: Vec<(BucketKey, BucketTotals)>,
    /// Its users, and those that were folded before it.
    pub uniques: Uniques,
    /// Ends of streams that digests know of and that cannot be read any more.
    pub lost_ends: Vec<LostEnd>,
}

/// The last blocks of a stream that is over, gone with nothing after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEnd {
    /// Whose blocks they were.
    pub writer: (Epoch, WorkerId),
    /// The last block that was known.
    pub known: BlockSeq,
    /// The last one that is left.
    pub left: BlockSeq,
}

/// Why forwarding cannot start.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum StartError {
    /// {0}
    Sink(#[from] SinkError),
    /// the sink holds blocks of epoch {sink}, but this journal is only at epoch {journal}; the folder is a copy or was restored from one, so start with an empty folder instead
    Behind {
        /// What the sink knows.
        sink: u32,
        /// Where the journal is.
        journal: u32,
    },
}

#[derive(Debug)]
enum State {
    /// The sink is away, and what it holds is not known yet: nothing is asked of the workers.
    Opening {
        retry: Retry,
    },
    Idle {
        until_ms: u64,
    },
    Gathering {
        since: Now,
        shares: Vec<Option<Share>>,
    },
    Committing {
        asked: Asked,
        part: u32,
        batch: Option<Box<Planned>>,
        retry: Retry,
    },
}

/// What is known of a flush when all shares are there.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Now,
    /// The receive time of the oldest row that is new in it.
    oldest: Option<UnixMs>,
    /// The oldest minute that a worker could not share.
    held_back: Option<Minute>,
}

impl Asked {
    /// The minute this long before the flush, or an earlier one that must stay open.
    fn minute_before(self, ms: u64) -> Minute {
        let minute = UnixMs(self.since.wall.0.saturating_sub(ms)).minute();
        self.held_back.map_or(minute, |held_back| minute.min(held_back))
    }
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at_ms: u64,
    backoff_ms: u64,
}

impl Retry {
    /// After a failure at `now`: waits, and the next time longer.
    const fn again(&mut self, now: Now) {
        self.at_ms = now.ms + self.backoff_ms;
        let doubled = self.backoff_ms * 2;
        self.backoff_ms = if doubled < BACKOFF_MS.1 { doubled } else { BACKOFF_MS.1 };
    }
}

/// Brings blocks and buckets from the workers to a sink.
#[derive(Debug)]
pub struct Forwarder<S> {
    config: ForwarderConfig,
    sink: S,
    mailboxes: Mailboxes,
    stats: Arc<ForwardStats>,
    budget: Arc<DiskBudget>,
    place: Place,
    epoch: Epoch,
    merge: Merge,
    clock: Arc<NodeClock>,
    uniques: Uniques,
    /// Rows of open minutes are at the sink and in no fold: what is known of losses.
    losses: Losses,
    checkpoint: Checkpoint,
    flush: FlushNo,
    /// The last block to forward of each stream.
    upto: BTreeMap<(Epoch, WorkerId), BlockSeq>,
    /// Streams that were read ahead of the checkpoint for the batch in work.
    ahead: BTreeMap<(Epoch, WorkerId), BlockStream>,
    retention: Retention,
    trim_at_ms: u64,
    /// When, by the monotonic clock, the last flush went to the sink, if it had nothing to bring.
    quiet_since: Option<u64>,
    past: Option<Past>,
    samples: Option<Samples>,
    state: State,
    last_error: Option<String>,
}

impl<S: Sink> Forwarder<S> {
    /// A forwarder that goes on after the sink's checkpoint. What `recovery` found of earlier
    /// epochs is forwarded with the first flush. A sink that is away is asked again until it
    /// answers; the journal keeps everything meanwhile.
    ///
    /// # Errors
    /// When the checkpoint will never be readable, or is ahead of the journal.
    pub fn new(
        config: ForwarderConfig,
        folder: &Folder,
        recovery: &Recovery,
        mut sink: S,
        mailboxes: Mailboxes,
        (budget, stats): (Arc<DiskBudget>, Arc<ForwardStats>),
    ) -> Result<Self, StartError> {
        let found = sink.checkpoint();
        let upto = recovery.ends.iter().map(|(&writer, end)| (writer, end.last)).collect();
        let mut forwarder = Self {
            merge: Merge::default(),
            clock: Arc::default(),
            uniques: Uniques::new(config.uniques_bytes_max),
            losses: Losses::of(recovery),
            flush: FlushNo::default(),
            checkpoint: Checkpoint::default(),
            config,
            sink,
            mailboxes,
            stats,
            budget,
            place: folder.place(),
            epoch: folder.epoch(),
            upto,
            ahead: BTreeMap::new(),
            retention: Retention::new(recovery.segments.clone(), folder.epoch()),
            trim_at_ms: 0,
            quiet_since: None,
            past: None,
            samples: None,
            state: State::Opening { retry: Retry { at_ms: BACKOFF_MS.0, backoff_ms: BACKOFF_MS.0 } },
            last_error: None,
        };
        match found {
            Ok(checkpoint) => forwarder.resume(checkpoint)?,
            Err(SinkError::Retry(why)) => forwarder.note_error(SinkError::Retry(why).to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(forwarder)
    }

    /// Keeps, and says once, what stands between the forwarder and its work.
    fn note_error(&mut self, why: String) {
        if self.last_error.as_ref() != Some(&why) {
            tracing::error!(why, "forwarding does not go on; the journal keeps what it holds");
        }
        self.stats.last_error.set(Some(why.clone()));
        self.last_error = Some(why);
    }

    fn recovered(&mut self) {
        if self.last_error.take().is_some() {
            self.stats.last_error.set(None);
            tracing::info!("flushes reach the sink again");
        }
    }

    /// Waits with the first flush for the totals of rows that no worker has in its ledger.
    pub fn await_past(&mut self, past: Past) {
        self.past = Some(past);
    }

    /// Takes samples of malformed input along.
    pub fn take_samples(&mut self, samples: Samples) {
        self.samples = Some(samples);
    }

    /// Runs by this clock.
    pub fn keep_time(&mut self, clock: Arc<NodeClock>) {
        self.clock = clock;
    }

    /// Goes on with the users of rows that were forwarded before this start and whose minutes are
    /// not final. Where there is a past, they come with it.
    pub fn go_on_with(&mut self, uniques: Uniques) {
        self.uniques = uniques;
        self.uniques.settle(self.checkpoint.final_before);
    }

    /// Keeps rows only as long as these digests do not stand for them.
    pub fn keep_digests(&mut self, digests: Digests) {
        self.retention.keep_digests(digests);
    }

    /// Why the last flush is not committed yet, if it is not.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The last committed checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The sink.
    #[must_use]
    pub const fn sink(&self) -> &S {
        &self.sink
    }

    /// The sink, when forwarding is over.
    #[must_use]
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// Whether there is nothing left to forward of what was asked for.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.is_idle() && self.past.is_none()
    }

    /// Whether no flush is in work.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Begins a flush now, unless one is in work or the past is not known yet.
    pub fn begin_flush(&mut self, now: Now) {
        // Not before the sink is open: it decides which minutes of the past are wanted.
        if self.is_idle() {
            self.take_past();
        }
        if self.is_idle() && self.past.is_none() {
            if self.losses.take() {
                // Whatever was lost was received before this.
                let minute = now.wall.minute().0.saturating_add(self.config.minutes_ahead);
                self.uniques.spoil(Minute(minute.saturating_add(1)));
            }
            self.flush.0 += 1;
            self.mailboxes.request(self.flush);
            let shares = (0..self.mailboxes.workers()).map(|_| None).collect();
            self.state = State::Gathering { since: now, shares };
        }
    }

    /// Does what there is to do now; in how many ms to call again at the latest.
    pub fn poll(&mut self, now: Now) -> u64 {
        // In every state: a worker may wait for the space, and a flush for that worker.
        self.trim_now_and_then(now);
        match &mut self.state {
            State::Opening { retry } if now.ms < retry.at_ms => retry.at_ms - now.ms,
            State::Opening { .. } => {
                self.open(now);
                0
            }
            State::Idle { until_ms } if now.ms < *until_ms => *until_ms - now.ms,
            State::Idle { .. } => {
                self.begin_flush(now);
                if self.past.is_some() { PAST_MS } else { 0 }
            }
            State::Gathering { .. } => self.gather(now),
            State::Committing { retry, .. } if now.ms < retry.at_ms => retry.at_ms - now.ms,
            State::Committing { .. } => {
                self.commit_part(now);
                0
            }
        }
    }

    /// Takes the shares that are there; goes on when none is missing.
    fn gather(&mut self, now: Now) -> u64 {
        let State::Gathering { since, shares } = &mut self.state else { return 0 };
        let since = *since;
        for (index, place) in shares.iter_mut().enumerate() {
            while place.is_none() {
                match self.mailboxes.take(index) {
                    Some(share) if share.flush == self.flush => *place = Some(share),
                    // A share is cumulative, and the worker sent it once: never thrown away.
                    Some(share) => self.merge.add(&share),
                    None => break,
                }
            }
        }
        let missing =
            |(index, place): (usize, &Option<Share>)| place.is_none() && !self.mailboxes.is_gone(index);
        if shares.iter().enumerate().any(missing) {
            return GATHER_MS;
        }
        let shares = std::mem::take(shares);
        let mut asked = Asked { since, oldest: None, held_back: None };
        for share in shares.into_iter().flatten() {
            self.merge.add(&share);
            self.upto.insert((self.epoch, share.worker), share.upto);
            asked.oldest = asked.oldest.into_iter().chain(share.oldest_received_at).min();
            asked.held_back = asked.held_back.into_iter().chain(share.held_back).min();
        }
        let retry = Retry { at_ms: now.ms, backoff_ms: BACKOFF_MS.0 };
        self.state = State::Committing { asked, part: 0, batch: None, retry };
        0
    }

    fn finish(&mut self, now: Now, asked: Asked) {
        let since = asked.since;
        self.recovered();
        if since.is_certain {
            self.merge.settle(asked.minute_before(self.config.close_after_ms));
        }
        if let Some(oldest) = asked.oldest {
            let waited_ms = (since.wall.0 + (now.ms - since.ms)).saturating_sub(oldest.0);
            self.stats.click_to_bucket.record(waited_ms.saturating_mul(1_000_000), 1);
        }
        self.state = State::Idle { until_ms: since.ms + self.config.interval_ms };
    }

    fn trim_now_and_then(&mut self, now: Now) {
        if now.ms < self.trim_at_ms {
            return;
        }
        self.trim_at_ms = now.ms + self.config.trim_every_ms;
        // To a clock at the beginning of time nothing is old.
        let age_by = if now.is_certain { now.wall } else { UnixMs(0) };
        if let Err(error) = self.trim(age_by) {
            self.note_error(format!("deleting forwarded segments failed: {error}; the disk may fill up"));
        }
    }

    /// Deletes the segments and digests that may go. Returns how many segments that were.
    ///
    /// # Errors
    /// When a deletion fails.
    pub fn trim(&mut self, now: UnixMs) -> std::io::Result<u64> {
        self.retention.trim(&self.place, &self.budget, &self.checkpoint, &self.config, now)
    }

    /// Runs until `stop`, then makes one last flush. Workers must answer flushes until this
    /// returns; one that ended and dropped its mailbox is not waited for.
    pub fn run(mut self, stop: &Stop) -> Self {
        let clock = Arc::clone(&self.clock);
        let now = || {
            let monotonic_ns = clock.monotonic_ns();
            let reading = clock.at(monotonic_ns);
            Now { ms: monotonic_ns / 1_000_000, wall: reading.time, is_certain: reading.doubt.is_none() }
        };
        while !stop.is_asked() {
            let wait_ms = self.poll(now()).min(STOP_CHECK_MS);
            std::thread::park_timeout(Duration::from_millis(wait_ms));
        }
        let deadline = Instant::now() + if stop.is_in_haste() { HASTY_WAIT } else { FINAL_WAIT };
        // The flush in work may have been asked for before the last click.
        for _ in 0..2 {
            self.begin_flush(now());
            let failures = self.stats.flush_failures.get();
            while !self.is_finished() {
                let wait_ms = self.poll(now());
                let attempts = self.stats.flush_failures.get() - failures;
                if attempts >= FINAL_ATTEMPTS || Instant::now() >= deadline {
                    if self.past.is_some() {
                        let why = "the rows of earlier starts were not all counted yet";
                        self.last_error.get_or_insert(why.to_owned());
                    }
                    self.retention.finish();
                    return self;
                }
                // A sink that was away for long is tried again later than the end may be.
                let left = deadline.saturating_duration_since(Instant::now());
                std::thread::park_timeout(Duration::from_millis(wait_ms).min(left));
            }
        }
        self.retention.finish();
        self
    }
}
