//! One start of a node: the daemon's own workers, journals, ledgers and forwarder, put together
//! as the daemon does, on simulated hosts.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir::admission::{self, Admission, KeyRing, SigningKey};
use weir::clock::{NodeClock, Watch};
use weir::daemon::refold::{Refolded, refold};
use weir::forward::{self, Forwarder, ForwarderConfig, Mailbox, Sink, mailboxes};
use weir::journal::group::GROUP_BLOCKS_MAX;
use weir::journal::seal::SEAL_OVERHEAD;
use weir::journal::settle::settle;
use weir::journal::{
    BlockIdentity, DayKeys, DiskBudget, Finding, Folder, Journal, JournalConfig, JournalState, check_keys,
    recover,
};
use weir::ledger;
use weir::pseudonym::Pseudonyms;
use weir::published::Published;
use weir::rejects::{Gate, samplers};
use weir::stats::{ForwardStats, OwnStats, WorkerStats};
use weir::traffic::{Judge, Lists};
use weir::worker::book::Book;
use weir::worker::desk::Parts;
use weir::worker::handoff::mesh;
use weir::worker::phase::Phase;
use weir::worker::shard_map::ShardMap;
use weir::worker::unflushed::Unflushed;
use weir::worker::{Settings, Worker};
use weir_common::block::BlockHeader;
use weir_common::id::{Issuer, KeyId, NodeId, WorkerId};
use weir_common::row::Row;
use weir_common::siphash::SipKey;
use weir_common::time::{Minute, UnixMs};

use super::aside::Aside;
use super::host::{BUFFERS, Clocks, Shown, SimulatedHost, Station};
use super::medium::FaultyMedium;
use super::plan::Plan;
use super::segments::BlockName;
use super::senders::KEY;
use super::sink::{SimulatedSink, Store};

/// The simulated node.
const NODE: NodeId = NodeId(1);
/// Impressions a worker has memory for: more than a run makes.
const IMPRESSIONS: usize = 1 << 14;
/// Buckets a worker has memory for: more than a run makes.
const BUCKETS: usize = 1 << 12;

/// A running node.
pub struct Node {
    /// Its workers.
    pub workers: Vec<Worker<SimulatedHost>>,
    /// What each worker's host shares with the world.
    pub stations: Vec<Rc<RefCell<Station>>>,
    /// Its forwarder.
    pub forwarder: Forwarder<SimulatedSink>,
    /// What runs beside workers and forwarder.
    pub aside: Aside,
    /// The steps of its drain.
    pub phase: Arc<Phase>,
    /// The workers' counters.
    pub stats: Arc<[WorkerStats]>,
    /// Which start this is.
    pub epoch: u32,
    /// Who owns which shard.
    pub shards: ShardMap,
    /// Its time.
    pub clock: Arc<NodeClock>,
    watch: Watch,
    clock_settings: weir::clock::Settings,
    /// Monotonic ms at its start.
    pub started_ms: u64,
    /// Held as long as it runs.
    folder: Folder,
}

/// How a node is to start.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// Its data folder.
    pub path: &'a Path,
    /// Its workers.
    pub workers: usize,
    /// An operator says that the clock is right.
    pub is_vouched_for: bool,
    /// Its sizes and limits.
    pub plan: &'a Plan,
    /// Where it has its keys, if its journal is encrypted.
    pub keys_dir: Option<&'a Path>,
    /// What its clocks show.
    pub clocks: &'a Clocks,
    /// Its sink.
    pub store: &'a Rc<RefCell<Store>>,
}

/// What a start read back from the journal.
pub type RowsRead = Vec<(BlockName, Row)>;

impl Node {
    /// Starts a node on what the disk holds, in the order of the daemon.
    ///
    /// # Errors
    /// Why it cannot start, in words.
    pub fn start(
        start: Start<'_>,
        medium: &mut FaultyMedium<'_>,
    ) -> Result<(Self, RowsRead, Vec<Finding>), String> {
        let Start { path, workers, is_vouched_for, plan, keys_dir, clocks, store } = start;
        let folder = equip(Folder::open(path, NODE).map_err(text)?, keys_dir)?;
        settle(medium, &folder).map_err(text)?;
        let rows = rows_of(&folder)?;
        let mut sink = SimulatedSink(Rc::clone(store));
        let checkpoint = sink.checkpoint().map_err(text)?;
        let shards = ShardMap::even(workers);
        let refolded = refold(&folder, &shards, &ledger_settings(plan), plan.uniques_bytes, &checkpoint)
            .map_err(text)?;
        let Refolded { ledgers, recovery, uniques, shelf, past, latest } = refolded;
        let used = folder.bytes_used().map_err(text)?;
        let seals = if keys_dir.is_some() { 2 * GROUP_BLOCKS_MAX * SEAL_OVERHEAD } else { 0 };
        let segment_bytes = (10 * plan.block_bytes + 16_384 + seals) as u64;
        let budget = Arc::new(DiskBudget::new(used + plan.segments_max * segment_bytes, used));
        let (boxes, ends) = mailboxes(workers as u16);
        let given = (Arc::clone(&budget), Arc::new(ForwardStats::default()));
        let mut forwarder =
            Forwarder::new(forwarder_config(plan), &folder, &recovery, sink, ends, given).map_err(text)?;
        let aside = Aside::of(&folder, (shelf, past, uniques), recovery.ends.clone(), plan, &mut forwarder)?;
        let latest = latest.max(checkpoint.final_before.start());
        let clock = Arc::<NodeClock>::default();
        let shown = clocks.get();
        let newest = (latest > UnixMs(0)).then_some(latest);
        let shows = (shown.monotonic_ns, shown.wall);
        let watch = Watch::begin_at(&clock, clock_settings(plan), shows, newest, is_vouched_for);
        let (samplers, samples) = samplers(workers as u16, 10, folder.epoch(), &Gate::default());
        forwarder.take_samples(samples);
        let mut node = Self {
            workers: Vec::new(),
            stations: (0..workers).map(|_| Rc::<RefCell<Station>>::default()).collect(),
            forwarder,
            aside,
            phase: Arc::new(Phase::new(workers)),
            stats: (0..workers).map(|_| WorkerStats::default()).collect(),
            epoch: folder.epoch().0,
            shards,
            clock,
            watch,
            clock_settings: clock_settings(plan),
            started_ms: shown.monotonic_ns / 1_000_000,
            folder,
        };
        let each = ledgers.into_iter().zip(boxes).zip(mesh(workers)).zip(samplers).enumerate();
        for (number, ((((ledger, unflushed), mailbox), port), rejects)) in each {
            let worker = WorkerId(number as u16);
            let parts = Parts {
                worker,
                shards: node.shards.clone(),
                admission: Published::new(admission(plan, checkpoint.final_before)?).reader(),
                judge: Judge::new(Published::new(Lists::plain()).reader(), None),
                limits: None,
                refractory: None,
                pseudonyms: Published::new(Pseudonyms::AsSent).reader(),
                ledger,
                book: book(plan, &node.folder, worker, latest, &budget),
                port,
                waiting_capacity: 64,
                stats: OwnStats::new(Arc::clone(&node.stats), number),
                clock: Arc::clone(&node.clock),
                rejects,
            };
            node.add_worker(parts, mailbox, unflushed, plan, clocks);
        }
        Ok((node, rows, recovery.report.findings))
    }

    fn add_worker(
        &mut self,
        parts: Parts,
        mailbox: Mailbox,
        unflushed: Unflushed,
        plan: &Plan,
        clocks: &Clocks,
    ) {
        let (number, clock) = (self.workers.len(), Arc::clone(&self.clock));
        let station = Rc::clone(&self.stations[number]);
        let host = SimulatedHost::new(number as i32, Rc::clone(clocks), clock, station);
        let told = Settings {
            commit_window: Duration::from_millis(plan.commit_window_ms),
            receive_buffers: BUFFERS as u16,
        };
        self.workers.push(Worker::new(told, host, parts, mailbox, unflushed, Arc::clone(&self.phase)));
    }

    /// Its main thread looks at the clocks. `is_vouched_for`: an operator says that they are right.
    pub fn look(&mut self, shown: Shown, is_vouched_for: bool) {
        if is_vouched_for {
            let shows = (shown.monotonic_ns, shown.wall);
            self.watch = Watch::begin_at(&self.clock, self.clock_settings, shows, None, true);
        }
        self.watch.look_at(&self.clock, shown.monotonic_ns, shown.wall);
    }

    /// Time as its forwarder sees it.
    #[must_use]
    pub fn forwarder_time(&self, shown: Shown) -> forward::Now {
        let reading = self.clock.at(shown.monotonic_ns);
        forward::Now {
            ms: shown.monotonic_ns / 1_000_000 - self.started_ms,
            wall: reading.time,
            is_certain: reading.doubt.is_none(),
        }
    }

    /// Whether a journal takes nothing any more until a restart.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.workers.iter().any(|worker| matches!(worker.desk().book.state(), JournalState::Halted(_)))
    }

    /// Received = the sum of all outcomes, but for what is between two workers.
    ///
    /// # Errors
    /// When it is not.
    pub fn books(&self) -> Result<(), String> {
        let sum = |of: &dyn Fn(&WorkerStats) -> u64| self.stats.iter().map(of).sum::<u64>();
        let received = sum(&|stats| stats.clicks_received.get());
        let decided = sum(&|stats| stats.outcomes.iter().map(weir::stats::Counter::get).sum());
        let (out, over) =
            (sum(&|stats| stats.clicks_handed_off.get()), sum(&|stats| stats.clicks_taken_over.get()));
        if received + over == decided + out {
            return Ok(());
        }
        Err(format!("{received} clicks received, {decided} decided, {out} handed off, {over} taken over"))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The folder with its keys, when each of its segments has its own, as the daemon sees to it.
fn equip(folder: Folder, keys_dir: Option<&Path>) -> Result<Folder, String> {
    let folder = match keys_dir {
        Some(keys_dir) => {
            let keys = DayKeys::open(keys_dir, folder.incarnation()).map_err(text)?;
            folder.with_keys(Arc::new(keys))
        }
        None => folder,
    };
    check_keys(&folder.place()).map_err(text)?;
    Ok(folder)
}

/// Every row in the journal.
fn rows_of(folder: &Folder) -> Result<RowsRead, String> {
    let mut rows = Vec::new();
    let on_row = |header: &BlockHeader, row: &Row, _: &[u8]| {
        let block = BlockIdentity::of(header);
        rows.push(((block.epoch.0, block.worker.0, block.sequence.0), *row));
    };
    recover(folder, on_row).map_err(text)?;
    Ok(rows)
}

fn book(
    plan: &Plan,
    folder: &Folder,
    worker: WorkerId,
    started_at: UnixMs,
    budget: &Arc<DiskBudget>,
) -> Book {
    let config = JournalConfig {
        segment_bytes: 0, // as small as it can be
        block_bytes_max: plan.block_bytes,
        queue_bytes_max: 2 * plan.block_bytes,
        started_at,
        keys: folder.sealing_keys(),
        ..JournalConfig::new(folder.segments().to_owned(), folder.writer(worker))
    };
    Book::new(Journal::new(config, Arc::clone(budget)))
}

fn admission(plan: &Plan, closed_before: Minute) -> Result<Admission, String> {
    let key = SigningKey { issuer: Issuer(1), id: KeyId(1), secret: KEY };
    let keys = KeyRing::new(&[key]).map_err(|error| error.to_string())?;
    let limits = &plan.limits;
    let settings = admission::Settings {
        lifetime_ms: limits.lifetime_ms,
        max_ahead_ms: limits.max_ahead_ms,
        lateness_ms: limits.lateness_ms,
        closed_before,
        allow_unsigned: true,
    };
    Ok(Admission::new(settings, keys))
}

fn ledger_settings(plan: &Plan) -> ledger::Settings {
    let limits = &plan.limits;
    ledger::Settings {
        lifetime_ms: limits.lifetime_ms,
        lateness_ms: limits.lateness_ms,
        max_ahead_ms: limits.max_ahead_ms,
        capacity_impressions: IMPRESSIONS,
        capacity_buckets: BUCKETS,
        ..ledger::Settings::new(SipKey { k0: 11, k1: 12 })
    }
}

const fn clock_settings(plan: &Plan) -> weir::clock::Settings {
    weir::clock::Settings::new(plan.limits.lifetime_ms, plan.limits.max_ahead_ms)
}

/// As the daemon's own: a minute is over, the last late click may come, clocks may be ahead.
fn forwarder_config(plan: &Plan) -> ForwarderConfig {
    let limits = &plan.limits;
    ForwarderConfig {
        interval_ms: plan.flush_ms,
        part_bytes_max: plan.part_bytes,
        close_after_ms: limits.lateness_ms + limits.max_ahead_ms + 5 * 60_000,
        minutes_ahead: limits.max_ahead_ms.div_ceil(60_000) as u32,
        horizon_ms: ledger::remembered_ms(limits.lifetime_ms),
        idle_ms: Some(10_000),
        trim_every_ms: 5000,
        uniques_bytes_max: plan.uniques_bytes,
        uniques_users_min: 1,
    }
}
