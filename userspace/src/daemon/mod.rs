//! One run of the daemon, from config to exit: puts the rooms together, in order, and takes them
//! apart again.
//!
//! The order of a start: make room for open files, lock the journal folder, settle what the last process left, open the
//! status socket, open the sockets, open the sink, refold the ledgers, steer, start workers and
//! forwarder. Clicks are read only when dedupe knows everything it knew; those that come before
//! wait in the sockets' buffers. The order of a drain stands at
//! [`crate::worker::phase`].
//!
//! No decision on clicks is made here. Start reading at [`run`].

mod doors;
mod frames;
mod heal;
mod held;
mod keys;
mod open_files;
pub mod past;
mod recall;
pub mod refold;
mod reload;
mod settings;
mod shape;
mod sinks;
mod spool;
mod threads;
mod withdrawing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weir_common::id::NodeId;
use weir_common::time::UnixMs;

use crate::clock::{NodeClock, Watch};
use crate::config::{Config, Host};
use crate::control::{
    self, AtomicState, Control, ControlHandle, Drain, Identity, RecoveryStatus, Sources, State,
    service_manager,
};
use crate::digest::digester::Lookout;
use crate::digest::{Digester, Digests, Shelf};
use crate::forward::embedded::StoreError;
use crate::forward::forwarder::StartError;
use crate::forward::losses;
use crate::forward::{Checkpoint, Forwarder, mailboxes};
use crate::journal::disk::System;
use crate::journal::settle::settle;
use crate::journal::spool::{SpoolGauges, SpoolWatch};
use crate::journal::{DiskBudget, Folder, FolderError, KeyError, Recovery};
use crate::ledger;
use crate::published::Published;
use crate::redact;
use crate::rejects::{Gate, samplers};
use crate::rx::udp::SocketError;
use crate::stats::{ForwardStats, WorkerStats};
use crate::steer::SteerError;
use crate::withdrawal::{AtomicWithdrawal, WithdrawalError};
use crate::worker::WorkerError;
use crate::worker::phase::Phase;
use crate::worker::shard_map::ShardMap;

pub(crate) use open_files::needed as open_files_needed;
pub(crate) use settings::{clock as clock_settings, ring as ring_settings};

use doors::Doors;
use frames::SharedSteering;
use heal::Healed;
use held::Inheritance;
use reload::Replaceable;
use sinks::Opened;
use spool::SpoolGuard;
use threads::{ForwarderThread, WorkerThreads};
use withdrawing::Withdrawing;

/// How long the workers may take to finish what waits. Longer than any healthy disk needs;
/// whatever is not acknowledged by then its sender resends.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How often the main thread looks whether anything ended.
const WATCH_TICK: Duration = Duration::from_millis(20);

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The keys contradict each other.
    #[error("{0}")]
    Keys(#[from] crate::admission::KeyRingError),
    /// The salts of users' keys.
    #[error("{0}")]
    Salts(#[from] crate::pseudonym::SaltsError),
    /// The lists of invalid traffic.
    #[error("the lists of invalid traffic cannot be used: {0}")]
    Lists(#[from] crate::traffic::LoadErrors),
    /// The limit on open files.
    #[error(transparent)]
    OpenFiles(#[from] open_files::OpenFilesError),
    /// Whether the node is in service.
    #[error(transparent)]
    Withdrawal(#[from] WithdrawalError),
    /// The journal folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The keys of encrypted segments.
    #[error(transparent)]
    JournalKeys(#[from] KeyError),
    /// The buckets would change their shape.
    #[error(transparent)]
    Shape(#[from] shape::ShapeError),
    /// The control side.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The embedded store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's folder.
    #[error("cannot create {path}: {source}")]
    StoreFolder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Forwarding.
    #[error(transparent)]
    Forward(#[from] StartError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The HTTP door.
    #[error(transparent)]
    Door(#[from] doors::DoorError),
    /// Steering, where the config insists on it.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A thread could not be started.
    #[error("cannot start thread {name}: {source}; raise the limit on threads")]
    Thread {
        /// Its name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A thread panicked.
    #[error(
        "thread {0} panicked: this is a defect; what was acknowledged is in the journal, and a restart goes on"
    )]
    Panicked(String),
    /// The drain did not come to its end.
    #[error(
        "the workers did not settle within {0:?}; what was acknowledged is in the journal, and the next start forwards it"
    )]
    Unsettled(Duration),
    /// The last flush did not reach the sink.
    #[error("the last flush did not reach the sink: {0}; the next start forwards it")]
    Unflushed(String),
}

/// What the operator says to one start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// The system clock is right, whatever the journal says.
    pub clock_is_right: bool,
}

/// Runs the daemon until SIGTERM or SIGINT, then drains it. At SIGHUP the config's keys are read again from `file`.
///
/// # Errors
/// When something it needs cannot be had, or the drain does not come to its end. What was
/// acknowledged is durable in either case.
pub fn run(file: &Path, config: &Config, told: Told) -> Result<(), DaemonError> {
    let cores = Host::this().worker_cores(config);
    open_files::make_room(config, cores.len())?;
    let folder = Folder::open(&config.node.data_dir, NodeId(config.node.id))?;
    settle(&mut System, &folder)?;
    let folder = keys::equip(folder, &config.journal)?;
    shape::keep(&config.node.data_dir, config.buckets.dimensions)?;
    let workers: Arc<[WorkerStats]> = cores.iter().map(|_| WorkerStats::default()).collect();
    let node = Node {
        shards: ShardMap::even(cores.len()),
        steering: Arc::default(),
        state: Arc::default(),
        forward: Arc::default(),
        drain: Arc::default(),
        hands_over: Arc::default(),
        reload: Arc::default(),
        recovery: Arc::default(),
        clock: Arc::default(),
        spool: Arc::default(),
        withdrawal: Arc::default(),
        workers,
        cores,
        folder,
    };
    let mut withdrawing = Withdrawing::begin(&config.node.data_dir, &node.withdrawal)?;
    let control = node.start_control(config, shown(file))?;
    let mut running = node.start(file, config, told)?;
    node.state.set(State::Running);
    tracing::info!(port = config.udp.port, cores = ?node.cores, "taking clicks");
    service_manager::ready();
    let ended = running.watch(&node.drain, &node.reload, &mut withdrawing);
    node.state.set(State::Draining);
    service_manager::stopping();
    let hands_over = node.hands_over.load(Ordering::Acquire);
    let drained = running.drain(hands_over);
    if !hands_over {
        node.steering.unpin();
    }
    let path = control.write_final_status()?;
    tracing::info!(path = %path.display(), "drained; the final counters are written");
    ended.and(drained)
}

/// What may be shown of the config file. It was read and found sound a moment ago.
fn shown(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    redact::config(&text).unwrap_or_default()
}

/// What all parts of a run share.
struct Node {
    cores: Vec<usize>,
    shards: ShardMap,
    folder: Folder,
    workers: Arc<[WorkerStats]>,
    forward: Arc<ForwardStats>,
    steering: Arc<SharedSteering>,
    state: Arc<AtomicState>,
    drain: Arc<AtomicBool>,
    hands_over: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    recovery: Arc<OnceLock<RecoveryStatus>>,
    clock: Arc<NodeClock>,
    spool: Arc<SpoolGauges>,
    withdrawal: Arc<AtomicWithdrawal>,
}

impl Node {
    fn start_control(&self, config: &Config, shown: String) -> Result<ControlHandle, control::Error> {
        let identity = Identity {
            node: config.node.id,
            region: config.node.region.clone(),
            pop: config.node.pop.clone(),
            epoch: self.folder.epoch().0,
            cores: self.cores.clone(),
        };
        let sources = Sources {
            identity,
            config: shown,
            workers: Arc::clone(&self.workers),
            forward: Arc::clone(&self.forward),
            frames: Arc::<SharedSteering>::clone(&self.steering),
            state: Arc::clone(&self.state),
            recovery: Arc::clone(&self.recovery),
            clock: Arc::clone(&self.clock),
            spool: Arc::clone(&self.spool),
            withdrawal: Arc::clone(&self.withdrawal),
            started: Instant::now(),
        };
        let settings =
            control::Settings { run_dir: config.node.run_dir.clone(), http: config.metrics.listen };
        let main = std::thread::current();
        let drain = Drain {
            flag: Arc::clone(&self.drain),
            hands_over: Arc::clone(&self.hands_over),
            reload: Arc::clone(&self.reload),
            wake: Box::new(move || main.unpark()),
        };
        Control::start(settings, sources, drain)
    }

    fn start(&self, file: &Path, config: &Config, by: Told) -> Result<Running, DaemonError> {
        // Bound before all that may take long, so that what comes meanwhile waits in the kernel or
        // is counted.
        let mut left = Inheritance::take(&config.node.run_dir);
        let sockets = threads::open_sockets(config, self.cores.len(), &mut left)?;
        let mut doors = Doors::open(config, self.cores.len(), &mut left, &self.withdrawal)?;
        left.let_go_of_rest();
        let (sink, checkpoint) = sinks::open(config, &self.folder)?;
        let closed_before = checkpoint.final_before;
        let admission = Published::new(settings::admission(config, closed_before)?);
        let lists = Published::new(reload::read_lists(config, None)?);
        let told = (&settings::ledger(config, self.cores.len()), config.forward.uniques_bytes_max);
        let refold::Refolded { ledgers, recovery, shelf, past, uniques, latest } =
            self.refold(told, &sink, &checkpoint)?;
        let _first_of_this_run = self.recovery.set(RecoveryStatus::from(&recovery.report));
        // Minutes can become final after the last click; none is received in them any more.
        let latest = latest.max(checkpoint.final_before.start());
        let newest = (latest > UnixMs(0)).then_some(latest);
        let watch = Watch::begin(&self.clock, settings::clock(config), newest, by.clock_is_right);
        let pseudonyms = Published::new(reload::first_salts(config, &self.clock)?);
        let sink = sink.settled(config, &self.folder, &recovery)?;
        let budget = Arc::new(DiskBudget::new(config.journal.max_bytes, self.folder.bytes_used()?));
        self.steering.attach(config, &self.cores, &self.shards, &sockets)?;
        let (boxes, forward_end) = mailboxes(self.cores.len() as u16);
        let shared = (Arc::clone(&budget), Arc::clone(&self.forward));
        let mut forwarder =
            Forwarder::new(settings::forwarder(config), &self.folder, &recovery, sink, forward_end, shared)?;
        match past {
            Some(past) => forwarder.await_past(past.start(&self.cores)?),
            None => forwarder.go_on_with(uniques),
        }
        let (gate, samples_per_s) = (Gate::default(), config.rejects.samples_per_s);
        let (samplers, samples) =
            samplers(self.cores.len() as u16, samples_per_s, self.folder.epoch(), &gate);
        forwarder.take_samples(samples);
        forwarder.keep_time(Arc::clone(&self.clock));
        forwarder.keep_digests(self.digests(config, shelf, recovery)?);
        let place = self.folder.segments().to_owned();
        let spool =
            SpoolGuard::new(SpoolWatch::new(Arc::clone(&self.spool)), Arc::clone(&budget), place, gate);
        let phase = Arc::new(Phase::new(self.cores.len()));
        let workers = WorkerThreads::start(threads::Start {
            config,
            cores: &self.cores,
            shards: &self.shards,
            folder: &self.folder,
            admission: &admission,
            lists: &lists,
            pseudonyms: &pseudonyms,
            ledgers,
            budget,
            sockets,
            boxes,
            stats: &self.workers,
            phase: &phase,
            latest,
            clock: Arc::clone(&self.clock),
            samplers,
            doors: &mut doors,
        })?;
        let forwarder = ForwarderThread::start(forwarder)?;
        let (file, config) = (file.to_owned(), config.clone());
        let replaceable = Replaceable {
            file,
            config,
            closed_before,
            admission,
            steering: Arc::clone(&self.steering),
            lists,
            pseudonyms,
            salts_due: UnixMs(0),
            doors,
        };
        Ok(Running { phase, workers, forwarder, watch, clock: Arc::clone(&self.clock), spool, replaceable })
    }
}

impl Node {
    /// Refolds the journal; once more, with their rows, when it has lost blocks that the embedded
    /// store has. From Kafka nothing is read back.
    fn refold(
        &self,
        told: (&ledger::Settings, u64),
        sink: &Opened,
        checkpoint: &Checkpoint,
    ) -> Result<refold::Refolded, DaemonError> {
        let refolded = refold::refold(&self.folder, &self.shards, told.0, told.1, checkpoint)?;
        let lost = losses::lost_and_held(&refolded.recovery, checkpoint);
        if lost.is_empty() {
            return Ok(refolded);
        }
        let Opened::Embedded(store) = sink else {
            tracing::error!(
                blocks = losses::count(&lost),
                "blocks are gone from the journal that Kafka has, and nothing is read back from there: a resend of their clicks would be counted again, and buckets of their minutes that are not final yet are sent without them; recount those from the clicks topic"
            );
            return Ok(refolded);
        };
        tracing::warn!("blocks are gone from the journal that the store has: they are read back from there");
        drop(refolded);
        let healed = Healed::read_back(store, self.folder.incarnation(), &lost)?;
        Ok(refold::refold_healed(&self.folder, &self.shards, told, checkpoint, healed)?)
    }

    /// The digests of the folder and the thread that writes more of them.
    fn digests(&self, config: &Config, shelf: Shelf, recovery: Recovery) -> Result<Digests, DaemonError> {
        let place = self.folder.place();
        let lookout = Lookout::new(place.clone(), self.folder.epoch(), &shelf, recovery.ends);
        let (digester, written) = Digester::start(lookout, &self.cores)
            .map_err(|source| DaemonError::Thread { name: "weir-digest".to_owned(), source })?;
        let lifetime_ms = config.admission.lifetime.as_millis() as u64;
        Ok(Digests::new(place, shelf, lifetime_ms, written).by(digester))
    }
}

/// Where the embedded store of a node is.
#[must_use]
pub fn store_path(config: &Config) -> PathBuf {
    config.node.data_dir.join("store")
}

/// The threads of a run.
struct Running {
    phase: Arc<Phase>,
    workers: WorkerThreads,
    forwarder: ForwarderThread,
    watch: Watch,
    clock: Arc<NodeClock>,
    spool: SpoolGuard,
    replaceable: Replaceable,
}

impl Running {
    /// Sleeps until a drain is asked for, or a thread ends that should not; looks at the clocks and
    /// at the room for the journal meanwhile, for this thread waits for nothing else.
    fn watch(
        &mut self,
        drain: &AtomicBool,
        reload: &AtomicBool,
        withdrawing: &mut Withdrawing,
    ) -> Result<(), DaemonError> {
        while !drain.load(Ordering::Acquire) {
            if let Some(name) = self.workers.ended().or_else(|| self.forwarder.ended()) {
                tracing::error!(name, "a thread ended that should not; draining the rest");
                return Err(DaemonError::Panicked(name));
            }
            if reload.swap(false, Ordering::AcqRel) {
                self.replaceable.reload();
            }
            self.replaceable.free_replaced();
            self.replaceable.tend_salts_now_and_then(&self.clock);
            self.watch.look(&self.clock);
            self.spool.look_now_and_then();
            withdrawing.look_now_and_then();
            std::thread::park_timeout(WATCH_TICK);
        }
        Ok(())
    }

    /// Drains the workers, makes the last flush, ends all threads. Where the next process takes over, it leaves to
    /// it what waits in the sockets, and what the sink does not take at once.
    fn drain(self, hands_over: bool) -> Result<(), DaemonError> {
        if hands_over {
            self.phase.hand_over();
        } else {
            self.phase.drain();
        }
        let deadline = Instant::now() + SETTLE_MAX;
        let mut settled = Ok(());
        while !self.phase.all_settled() {
            if Instant::now() >= deadline || self.workers.ended().is_some() {
                settled = Err(DaemonError::Unsettled(SETTLE_MAX));
                break;
            }
            std::thread::park_timeout(WATCH_TICK);
        }
        let flushed = self.forwarder.finish(hands_over);
        self.phase.stop();
        let joined = self.workers.join().map(|drops_counted| {
            if hands_over {
                held::leave_counts(&self.replaceable.config.node.run_dir, &drops_counted);
            }
        });
        joined.and(settled).and(flushed)
    }
}
