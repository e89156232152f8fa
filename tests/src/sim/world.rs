//! The run of one seed: step by step chance picks what happens next, and the oracle looks on.

mod at_sink;
mod canaries;
mod carrying_out;
mod digesting;
mod ending;
mod time;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

use weir::journal::Finding;
use weir_common::id::Shard;
use weir_common::time::UnixMs;
use weir_common::wire::Datagram;

use super::chance::Chance;
use super::damage;
use super::disk::Disk;
use super::host::{Clocks, Packet, Shown};
use super::medium::FaultyMedium;
use super::node::{Node, Start};
use super::oracle::{Loss, Oracle, Verdict};
use super::plan::{Encryption, Plan};
use super::segments::Reader;
use super::senders::Source;
use super::sink::Store;
use super::vault::Vault;
use super::{Canary, Run};

/// Packets on their way; more are lost, as on a real network.
const PACKETS: usize = 512;
/// A packet on its way.
struct Flying {
    to_node: bool,
    packet: Packet,
}

/// Everything of one run.
pub struct World {
    run: Run,
    plan: Plan,
    chance: Chance,
    clocks: Clocks,
    folder: PathBuf,
    disk: Rc<RefCell<Disk>>,
    store: Rc<RefCell<Store>>,
    /// The keys, where the journal is encrypted.
    vault: Option<Vault>,
    oracle: Oracle,
    sources: Vec<Source>,
    network: Vec<Flying>,
    node: Option<Node>,
    disk_is_full: bool,
    disk_is_read_only: bool,
    /// The forwarder waits in its sink until then.
    sink_busy_until_ms: u64,
    canary_sang: bool,
    /// All faults are over.
    is_at_rest: bool,
    /// A node started on an empty journal while its clock was wrong: nothing can have told it.
    is_misled: bool,
    /// What happened, for the report.
    pub tally: Tally,
}

/// How much happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps taken.
    pub steps: u64,
    /// Crashes.
    pub crashes: u64,
    /// Drains.
    pub drains: u64,
    /// Clicks in datagrams that senders sent.
    pub clicks_sent: u64,
    /// Clicks acknowledged to their senders.
    pub clicks_acked: u64,
    /// Rows at the sink.
    pub rows: u64,
    /// Segments and digests the forwarder deleted.
    pub trimmed: u64,
    /// Digests written.
    pub digests: u64,
    /// Sketches of unique users at the sink.
    pub sketches: u64,
    /// Whether the journal was encrypted.
    pub is_encrypted: bool,
    /// Keys that workers took.
    pub keys_taken: u64,
    /// Keys that could not be taken.
    pub keys_refused: u64,
    /// Keys the forwarder destroyed.
    pub keys_destroyed: u64,
}

impl World {
    /// A world in which nothing has happened yet.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn new(run: Run, folder: PathBuf) -> Result<Self, String> {
        let mut chance = Chance::new(run.seed);
        let mut plan = Plan::draw(&mut chance);
        plan.segments_max = run.segments_max.unwrap_or(plan.segments_max);
        plan.encryption = Encryption::draw(run.seed, run.encrypted);
        let vault = plan.encryption.map(|_| Vault::new(run.seed, folder.join("keys")));
        let reader = Reader { opener: vault.as_ref().map(|vault| vault.opener.clone()) };
        let now = Shown { wall: UnixMs(plan.starts_at_ms()), monotonic_ns: 1_000_000_000 };
        let clocks: Clocks = Rc::new(Cell::new(now));
        let sources = (0..plan.senders)
            .map(|number| Source::new(number as u16, now.monotonic_ns, &mut chance))
            .collect();
        let mut world = Self {
            oracle: Oracle::new(plan.limits, reader),
            run,
            plan,
            chance,
            clocks,
            folder,
            disk: Rc::default(),
            store: Rc::default(),
            tally: Tally { is_encrypted: vault.is_some(), ..Tally::default() },
            vault,
            sources,
            network: Vec::new(),
            node: None,
            disk_is_full: false,
            disk_is_read_only: false,
            sink_busy_until_ms: 0,
            canary_sang: false,
            is_at_rest: false,
            is_misled: false,
        };
        world.start()?;
        Ok(world)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.run.trace {
            let now = self.clocks.get();
            println!("{:>6} {:>10} us  {}", self.tally.steps, now.monotonic_ns / 1000, what());
        }
    }

    fn now_ms(&self) -> u64 {
        self.clocks.get().monotonic_ns / 1_000_000
    }

    /// Runs all steps, then lets everything come to rest.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn go(&mut self) -> Verdict {
        while self.tally.steps < self.run.steps {
            self.tally.steps += 1;
            self.step()?;
        }
        self.come_to_rest()?;
        self.tally.clicks_sent = self.oracle.clicks_sent;
        self.tally.clicks_acked = self.oracle.acked_clicks();
        self.tally.rows = self.oracle.rows_at_sink;
        self.tally.sketches = self.oracle.sketches_at_sink();
        Ok(())
    }

    fn step(&mut self) -> Verdict {
        let ns = match self.chance.below(64) {
            0 => self.chance.below(50_000_000),
            1..8 => self.chance.below(2_000_000),
            _ => self.chance.below(100_000),
        };
        self.pass(ns);
        let workers = self.node.as_ref().map_or(0, |node| node.workers.len()) as u64;
        let worker = self.chance.below(workers) as usize;
        let source = self.chance.below(self.sources.len() as u64) as usize;
        match self.chance.below(100) {
            0..4 => self.click(source),
            4..14 => self.tick(source)?,
            14..36 => self.deliver()?,
            36..64 => self.turn(worker)?,
            64..84 => self.serve(worker)?,
            _ => self.forward()?,
        }
        self.time_is_true()?;
        self.disturb()
    }

    fn click(&mut self, source: usize) {
        let now = self.clocks.get();
        let clicks = self.chance.between(1, 20);
        let time = (now.monotonic_ns, self.true_ms());
        self.sources[source].click(clicks, time, &self.plan, &mut self.chance, &mut self.oracle);
    }

    fn tick(&mut self, source: usize) -> Verdict {
        let mut out = Vec::new();
        self.sources[source].tick(self.clocks.get().monotonic_ns, &mut self.oracle, &mut out)?;
        for packet in out {
            self.send(true, packet);
        }
        if self.chance.per_mille(self.plan.garbage) {
            let payload = (0..self.chance.below(200)).map(|_| self.chance.any() as u8).collect();
            self.send(true, Packet { peer: ([10, 6, 6, 6], 66).into(), payload });
        }
        Ok(())
    }

    /// A packet enters the network.
    fn send(&mut self, to_node: bool, packet: Packet) {
        if self.chance.per_mille(self.plan.lost) || self.network.len() >= PACKETS {
            return;
        }
        if self.chance.per_mille(self.plan.doubled) {
            self.network.push(Flying { to_node, packet: packet.clone() });
        }
        self.network.push(Flying { to_node, packet });
    }

    /// Any packet arrives: the network keeps no order.
    fn deliver(&mut self) -> Verdict {
        if self.network.is_empty() {
            return Ok(());
        }
        let which = self.chance.below(self.network.len() as u64) as usize;
        let Flying { to_node, packet } = self.network.swap_remove(which);
        if to_node {
            self.deliver_to_node(packet)
        } else {
            let now_ns = self.clocks.get().monotonic_ns;
            let source = self.sources.iter_mut().find(|source| source.address == packet.peer);
            if let Some(source) = source {
                source.hear(now_ns, &packet.payload, &mut self.oracle);
            }
            Ok(())
        }
    }

    fn deliver_to_node(&mut self, packet: Packet) -> Verdict {
        let Some(node) = &self.node else { return Ok(()) };
        let shard = Datagram::parse(&packet.payload).map_or(0, |datagram| datagram.header().shard.get());
        let worker = if self.chance.per_mille(self.plan.steered) {
            usize::from(node.shards.owner(Shard(shard)).0)
        } else {
            self.chance.below(node.workers.len() as u64) as usize
        };
        if self.run.canary == Some(Canary::WrongAck)
            && !self.canary_sang
            && self.tally.steps > self.run.steps / 2
        {
            self.sing_wrong_ack(&packet)?;
        }
        let Some(node) = &self.node else { return Ok(()) };
        node.stations[worker].borrow_mut().arrive(packet);
        Ok(())
    }

    fn sing_wrong_ack(&mut self, packet: &Packet) -> Verdict {
        let Ok(datagram) = Datagram::parse(&packet.payload) else { return Ok(()) };
        self.canary_sang = true;
        let mut payload = Vec::new();
        let count = datagram.facts().count;
        let header = weir_common::wire::AckHeader::new(datagram.header().batch_id.get(), count);
        payload.extend_from_slice(zerocopy::IntoBytes::as_bytes(&header));
        payload.extend(std::iter::repeat_n(0, usize::from(count)));
        self.answer(Packet { peer: packet.peer, payload })
    }

    /// The node sent this.
    fn answer(&mut self, packet: Packet) -> Verdict {
        self.oracle.answered(packet.peer, &packet.payload)?;
        self.send(false, packet);
        Ok(())
    }

    /// One turn of a worker.
    fn turn(&mut self, worker: usize) -> Verdict {
        let Some(node) = &mut self.node else { return Ok(()) };
        node.workers[worker].turn().map_err(|error| error.to_string())?;
        let (sent, is_dead) = {
            let mut station = node.stations[worker].borrow_mut();
            station.decided.clear();
            (std::mem::take(&mut station.sent), station.is_dead())
        };
        let books = node.books();
        for packet in sent {
            self.answer(packet)?;
        }
        if is_dead { self.crash("a call of a worker") } else { books }
    }

    /// Chance does harm, as far as the plan allows.
    fn disturb(&mut self) -> Verdict {
        let plan = self.plan.clone();
        let now = |chance: &mut Chance, share| chance.below(100_000) < share;
        if now(&mut self.chance, plan.disk_fills) {
            self.disk_is_full = !self.disk_is_full;
            self.tell(|| format!("the disk is full: {}", self.disk_is_full));
        }
        if now(&mut self.chance, plan.disk_read_only) {
            self.disk_is_read_only = true;
            self.tell(|| "the disk can only be read".to_owned());
        }
        if now(&mut self.chance, plan.clock_steps) {
            self.step_clock();
        }
        if now(&mut self.chance, plan.pauses) {
            let seconds = self.chance.below(600);
            self.tell(|| format!("{seconds} s pass"));
            self.pass(seconds * 1_000_000_000);
        }
        if now(&mut self.chance, plan.damage) {
            self.damage()?;
        }
        if now(&mut self.chance, plan.crashes) {
            self.doom();
        }
        let now_ms = self.now_ms();
        if let Some((vault, plan)) = self.vault.as_mut().zip(plan.encryption) {
            vault.disturb(&plan, now_ms);
        }
        if now(&mut self.chance, plan.digests) {
            return self.digest();
        }
        if now(&mut self.chance, plan.drains) {
            return self.drain();
        }
        if self.needs_operator() && self.chance.one_in(200) {
            // The operator sees the alarm, and restarts the node.
            return self.crash("an alarm");
        }
        Ok(())
    }

    /// Whether the node says that only a restart helps.
    fn needs_operator(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            node.is_halted()
                || node.forwarder.last_error().is_some_and(|error| error.contains("cannot be read back"))
        })
    }

    /// The disk destroys something that was durable.
    fn damage(&mut self) -> Verdict {
        let disk = Rc::clone(&self.disk);
        let before: Vec<_> =
            disk.borrow().durable().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
        let what = damage::strike(&mut disk.borrow_mut(), self.oracle.reader(), &mut self.chance)
            .map_err(|error| error.to_string())?;
        self.tell(|| format!("DAMAGE: {what}"));
        self.oracle.damaged(&before, disk.borrow().durable());
        Ok(())
    }

    /// The node will die at one of the next calls of one of its hosts.
    fn doom(&mut self) {
        let Some(node) = &self.node else { return };
        let worker = self.chance.below(node.stations.len() as u64) as usize;
        node.stations[worker].borrow_mut().calls_left = Some(1 + self.chance.below(8));
    }

    /// The node dies and starts again.
    fn crash(&mut self, during: &str) -> Verdict {
        self.tell(|| format!("CRASH during {during}"));
        self.tally.crashes += 1;
        self.node = None;
        self.store.borrow_mut().has_died = false;
        self.sing_in_vault()?;
        // The process alone, or the whole machine.
        if self.chance.one_in(3) {
            return self.start();
        }
        self.tell(|| "the power goes".to_owned());
        self.disk.borrow_mut().crash(&mut self.chance).map_err(|error| error.to_string())?;
        self.start()
    }

    fn start(&mut self) -> Verdict {
        let workers = self.chance.between(1, self.plan.workers_max) as usize;
        // When all else is well and the node still doubts its clock, the operator knows that it is right.
        let is_vouched_for = self.is_at_rest;
        self.disk_is_read_only = false;
        self.sink_busy_until_ms = 0;
        let disk = Rc::clone(&self.disk);
        let (node, rows, findings) = {
            let mut medium = FaultyMedium {
                trouble: None,
                share: 0,
                calls_left: None,
                disk: &mut disk.borrow_mut(),
                chance: &mut self.chance,
            };
            let start = Start {
                path: &self.folder,
                workers,
                is_vouched_for,
                plan: &self.plan,
                keys_dir: self.vault.as_ref().map(|vault| &*vault.keys_dir),
                clocks: &self.clocks,
                store: &self.store,
            };
            Node::start(start, &mut medium)?
        };
        // What the disk has, whoever knows of it; then what the node made of that.
        self.oracle.crashed(disk.borrow().durable())?;
        self.tell(|| {
            let mut blocks = std::collections::BTreeMap::new();
            rows.iter().for_each(|(block, _)| *blocks.entry(*block).or_insert(0) += 1);
            format!(
                "{:?} true {} start {} with {workers} workers on {} rows: {blocks:?}",
                node.clock.at(self.clocks.get().monotonic_ns),
                self.true_ms(),
                node.epoch,
                rows.len()
            )
        });
        let is_heard = self.run.canary != Some(Canary::SilentDamage);
        let (lost, damaged) = losses(if is_heard { &findings } else { &[] });
        self.oracle.starts(node.epoch, self.store.borrow().checkpoint().final_before.0);
        self.oracle.reported(&lost, &damaged)?;
        self.oracle.recovered(&rows)?;
        self.is_misled |= rows.is_empty() && self.clock_is_wrong();
        self.node = Some(node);
        Ok(())
    }
}

/// What findings say is lost, and which streams they say are damaged.
fn losses(findings: &[Finding]) -> (Vec<Loss>, BTreeSet<(u32, u16)>) {
    let (mut lost, mut damaged) = (Vec::new(), BTreeSet::new());
    for finding in findings {
        match finding {
            Finding::Damaged { segment, lost: Some((first, last)), .. }
            | Finding::Missing { segment, first, last } => {
                lost.push(((segment.epoch.0, segment.worker.0, first.0), last.0));
            }
            Finding::TornTail { segment, .. }
            | Finding::Unopened { segment, .. }
            | Finding::KeyMissing { segment, .. }
            | Finding::Conflict { segment, .. }
            | Finding::ChainBroken { segment, .. }
            | Finding::Damaged { segment, lost: None, .. } => {
                damaged.insert((segment.epoch.0, segment.worker.0));
            }
        }
    }
    (lost, damaged)
}
