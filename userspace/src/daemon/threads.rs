//! The threads of a run: workers and forwarder, started together, ended in order.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use socket2::Type;
use weir_common::id::WorkerId;
use weir_common::time::UnixMs;

use super::doors::Doors;
use super::held::{Inheritance, Kept};
use super::{DaemonError, settings};
use crate::admission::Admission;
use crate::clock::NodeClock;
use crate::config::Config;
use crate::forward::{Forwarder, Mailbox, Sink, Stop};
use crate::journal::{DiskBudget, Folder, Journal, JournalConfig};
use crate::ledger::Ledger;
use crate::pseudonym::Pseudonyms;
use crate::published::Published;
use crate::rejects::Sampler;
use crate::rx::udp::{SocketError, open_group, resize};
use crate::stats::{OwnStats, WorkerStats};
use crate::traffic::{Judge, Lists};
use crate::worker::book::{BLOCK_BYTES, Book};
use crate::worker::desk::Parts;
use crate::worker::handoff::mesh;
use crate::worker::kernel::Kernel;
use crate::worker::phase::Phase;
use crate::worker::shard_map::ShardMap;
use crate::worker::unflushed::Unflushed;
use crate::worker::{Settings, Worker, WorkerError, pin};

/// The sockets of one address, in worker order.
pub(super) struct SocketGroup {
    pub(super) is_ipv6: bool,
    pub(super) sockets: Vec<Kept>,
}

/// The sockets for datagrams: those of the last process, or new ones.
pub(super) fn open_sockets(
    config: &Config,
    workers: usize,
    left: &mut Inheritance,
) -> Result<Vec<SocketGroup>, SocketError> {
    let buffer_bytes = config.udp.socket_buffer_bytes;
    let open = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, config.udp.port);
        let new = || open_group(address, workers);
        let sockets = left.group(Type::DGRAM, address, workers, new)?;
        for kept in &sockets {
            resize(&kept.socket, address, buffer_bytes)?;
        }
        Ok(SocketGroup { is_ipv6: ip.is_ipv6(), sockets })
    };
    config.udp.addresses.iter().map(open).collect()
}

/// What the workers are made of.
pub(super) struct Start<'a> {
    pub(super) config: &'a Config,
    pub(super) cores: &'a [usize],
    pub(super) shards: &'a ShardMap,
    pub(super) folder: &'a Folder,
    pub(super) admission: &'a Arc<Published<Admission>>,
    pub(super) lists: &'a Arc<Published<Lists>>,
    pub(super) pseudonyms: &'a Arc<Published<Pseudonyms>>,
    pub(super) ledgers: Vec<(Ledger, Unflushed)>,
    pub(super) budget: Arc<DiskBudget>,
    pub(super) sockets: Vec<SocketGroup>,
    pub(super) boxes: Vec<Mailbox>,
    pub(super) stats: &'a Arc<[WorkerStats]>,
    pub(super) phase: &'a Arc<Phase>,
    /// The latest receive time in the journal.
    pub(super) latest: UnixMs,
    pub(super) clock: Arc<NodeClock>,
    pub(super) samplers: Vec<Sampler>,
    pub(super) doors: &'a mut Doors,
}

/// The running workers.
pub(super) struct WorkerThreads(Vec<WorkerThread>);

struct WorkerThread {
    name: String,
    /// What its sockets are kept as, in its order.
    sockets: Vec<String>,
    thread: JoinHandle<Result<Vec<u32>, WorkerError>>,
}

impl WorkerThreads {
    /// Starts all workers and waits until each has its ring.
    pub(super) fn start(start: Start<'_>) -> Result<Self, DaemonError> {
        let Start { config, cores, phase, .. } = start;
        debug_assert!(cores.len() == start.ledgers.len() && cores.len() == start.boxes.len());
        let mut sockets = by_worker(start.sockets, cores.len());
        let mut listeners = start.doors.listeners(cores.len());
        let (ready, readiness) = sync_channel(cores.len());
        let mut threads = Vec::new();
        let (crowd, limits) = (settings::crowd(config), settings::limits(config));
        let refractory = settings::refractory(config);
        // Whose key the first segments take: today's, where the node knows the time.
        let started_at = start.latest.max(start.clock.read().time);
        let each = start.ledgers.into_iter().zip(start.boxes).zip(mesh(cores.len())).zip(start.samplers);
        for (number, (((((ledger, unflushed), mailbox), port), rejects), &core)) in
            each.zip(cores).enumerate()
        {
            let worker = WorkerId(number as u16);
            let parts = Parts {
                worker,
                shards: start.shards.clone(),
                admission: start.admission.reader(),
                judge: Judge::new(start.lists.reader(), crowd.clone()),
                limits: limits.clone(),
                refractory: refractory.clone(),
                pseudonyms: start.pseudonyms.reader(),
                ledger,
                book: Book::new(journal(config, start.folder, worker, &start.budget, started_at)),
                port,
                waiting_capacity: settings::WAITING_MAX,
                stats: OwnStats::new(Arc::clone(start.stats), number),
                clock: Arc::clone(&start.clock),
                rejects,
            };
            let (ring, clock) = (settings::ring(config), Arc::clone(&start.clock));
            let told = Settings {
                commit_window: config.journal.commit_window,
                receive_buffers: ring.receive_buffers,
            };
            let own = std::mem::take(&mut sockets[number]);
            let (phase, ready) = (Arc::clone(phase), ready.clone());
            let own_listeners = std::mem::take(&mut listeners[number]);
            let door =
                start.doors.door(start.admission.reader(), OwnStats::new(Arc::clone(start.stats), number));
            let name = format!("weir-worker-{number}");
            let run = move || {
                pin(core);
                let mut kernel = Kernel::start(worker, ring, own.sockets, clock)?;
                own_listeners.into_iter().for_each(|listener| kernel.listen(listener));
                let worker = Worker::new(told, kernel, parts, mailbox, unflushed, phase);
                let mut worker = worker.with_door(door).with_drops_counted(&own.drops_counted);
                worker.prepare()?;
                let _ = ready.send(());
                drop(ready); // whoever counts the ready ones waits until nobody can send any more
                worker.run()
            };
            let spawned = std::thread::Builder::new().name(name.clone()).spawn(run);
            let thread = spawned.map_err(|source| DaemonError::Thread { name: name.clone(), source })?;
            threads.push(WorkerThread { name, sockets: own.names, thread });
        }
        drop(ready);
        let workers = Self(threads);
        // Each sends once or drops its end: when one cannot start, none may run.
        if readiness.iter().count() < cores.len() {
            phase.stop();
            workers.join()?;
            return Err(DaemonError::Panicked("of a worker that started".to_owned()));
        }
        Ok(workers)
    }

    /// The name of a worker that ended.
    pub(super) fn ended(&self) -> Option<String> {
        self.0.iter().find(|worker| worker.thread.is_finished()).map(|worker| worker.name.clone())
    }

    /// Waits for all of them: what they have counted of the drops of each socket, by its name, or the first error.
    pub(super) fn join(self) -> Result<Vec<(String, u32)>, DaemonError> {
        let mut all = Ok(Vec::new());
        for WorkerThread { name, sockets, thread } in self.0 {
            let ended = match thread.join() {
                Ok(result) => result.map_err(DaemonError::from),
                Err(_) => Err(DaemonError::Panicked(name)),
            };
            all = all.and_then(|mut all: Vec<_>| {
                all.extend(sockets.into_iter().zip(ended?));
                Ok(all)
            });
        }
        all
    }
}

/// The sockets of a worker, one an address.
#[derive(Default)]
struct OwnSockets {
    sockets: Vec<OwnedFd>,
    names: Vec<String>,
    drops_counted: Vec<u32>,
}

/// From sockets by address to sockets by worker.
fn by_worker(groups: Vec<SocketGroup>, workers: usize) -> Vec<OwnSockets> {
    let mut all: Vec<_> = (0..workers).map(|_| OwnSockets::default()).collect();
    for group in groups {
        for (own, kept) in all.iter_mut().zip(group.sockets) {
            own.sockets.push(kept.socket.into());
            own.names.push(kept.name);
            own.drops_counted.push(kept.drops_counted);
        }
    }
    all
}

fn journal(
    config: &Config,
    folder: &Folder,
    worker: WorkerId,
    budget: &Arc<DiskBudget>,
    started_at: UnixMs,
) -> Journal {
    let journal = JournalConfig::new(folder.segments().to_owned(), folder.writer(worker));
    let journal = JournalConfig {
        segment_bytes: config.journal.segment_bytes,
        block_bytes_max: BLOCK_BYTES,
        started_at,
        keys: folder.sealing_keys(),
        ..journal
    };
    Journal::new(journal, Arc::clone(budget))
}

/// The sink that the config names.
pub(super) type AnySink = Box<dyn Sink + Send>;

/// The running forwarder.
pub(super) struct ForwarderThread {
    thread: JoinHandle<Forwarder<AnySink>>,
    stop: Arc<Stop>,
}

const FORWARDER: &str = "weir-forward";

impl ForwarderThread {
    pub(super) fn start(forwarder: Forwarder<AnySink>) -> Result<Self, DaemonError> {
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let spawned =
            std::thread::Builder::new().name(FORWARDER.to_owned()).spawn(move || forwarder.run(&told));
        let thread = spawned.map_err(|source| DaemonError::Thread { name: FORWARDER.to_owned(), source })?;
        Ok(Self { thread, stop })
    }

    /// Its name, when it ended.
    pub(super) fn ended(&self) -> Option<String> {
        self.thread.is_finished().then(|| FORWARDER.to_owned())
    }

    /// Lets it make its last flush, and waits for it. Where the next process `takes_over`, it has less time, and what
    /// it does not get to is left to that one.
    pub(super) fn finish(self, takes_over: bool) -> Result<(), DaemonError> {
        self.stop.ask(takes_over);
        self.thread.thread().unpark();
        let forwarder = self.thread.join().map_err(|_| DaemonError::Panicked(FORWARDER.to_owned()))?;
        if forwarder.is_finished() || takes_over {
            return Ok(());
        }
        let why = forwarder.last_error().unwrap_or("the workers did not answer").to_owned();
        Err(DaemonError::Unflushed(why))
    }
}
