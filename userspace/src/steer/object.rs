//! The BPF object: its programs and its maps.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, CpuMap, MapData, MapError, PerCpuArray, ReusePortSockArray};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{SkReuseport, Xdp, XdpMode};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use serde::{Deserialize, Serialize};
use weir_common::id::{Issuer, KeyId, SHARDS};
use weir_common::maps::{
    self, KeyTable, MAX_CPUS, MAX_KEYS, MAX_WORKERS, NULL_PROGRAM, POLICY_WORDS, PREFIX_SLOTS,
    REUSEPORT_PROGRAM, XDP_PROGRAM, socket_place,
};
use weir_common::reason::{Class, Reason};
use weir_common::siphash::SipKey;

use super::pin::Pin;
use super::{Policy, SteerError};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf"));

/// Packets a queue to another CPU holds. What overflows is lost before any counter of ours, so
/// the queue takes a worker's stall of about 0.5 ms at 1M packets/s.
const CPU_QUEUE_PACKETS: u32 = 512;
/// How long the array of the last process may take to go: the kernel frees it some time after its last user.
const ARRAY_GONE_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked for.
const ARRAY_LOOK: Duration = Duration::from_millis(1);
/// `BPF_F_NO_PREALLOC`, which the kernel demands of every trie.
const NO_PREALLOC: u32 = 1;

/// What is built into the program as it is loaded; what is off costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// Check the tag of each datagram's first click, against [`Object::set_keys`].
    pub verify_first: bool,
    /// Take the VLAN tags off our own packets, so that the host needs no VLAN device. Native mode
    /// only: before generic XDP the kernel has taken the outermost tag off already.
    pub strip_vlan: bool,
}

/// Packets and bytes that met one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameCount {
    /// The reason.
    pub reason: Reason,
    /// Packets.
    pub packets: u64,
    /// Bytes in the linear part of their frames.
    pub bytes: u64,
    /// Packets that each CPU met.
    pub packets_by_cpu: Vec<u64>,
}

/// The loaded programs with their maps. Dropping it detaches and unloads them.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    prefix_slot: u32,
    /// What the live policy was made of: each is replaced without the other.
    policy: Policy,
    keys: Box<KeyTable>,
    #[cfg(feature = "ebpf-trace")]
    _trace: Option<super::trace::Trace>,
}

type PolicyWords = [u64; POLICY_WORDS];
type V4Trie = LpmTrie<MapData, [u8; 4], u32>;
type V6Trie = LpmTrie<MapData, [u8; 16], u32>;

impl Object {
    /// Loads both programs, with a policy that [`super::Steering`] has checked or a test has made.
    ///
    /// # Errors
    /// The kernel refuses: capabilities, version, memory.
    pub fn load(switches: Switches, policy: &Policy) -> Result<Self, SteerError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| SteerError::Cpus(error))?;
        #[cfg_attr(not(feature = "ebpf-trace"), expect(unused_mut, reason = "a trace takes its map out"))]
        let mut ebpf = EbpfLoader::new()
            .override_global("VERIFY_FIRST", &u8::from(switches.verify_first), true)
            .override_global("STRIP_VLAN", &u8::from(switches.strip_vlan), true)
            .map_max_entries("CPUS", u32::try_from(cpus).unwrap_or(MAX_CPUS).min(MAX_CPUS))
            .load(OBJECT)
            .map_err(|error| SteerError::Load(Box::new(error)))?;
        let mut object = Self {
            #[cfg(feature = "ebpf-trace")]
            _trace: super::trace::Trace::start(&mut ebpf),
            ebpf,
            prefix_slot: 0,
            policy: policy.clone(),
            keys: key_table(&[])?,
        };
        object.set_policy(policy)?;
        let verify = |name| move |error| SteerError::Verify(name, Box::new(error));
        object.xdp_mut(XDP_PROGRAM)?.load().map_err(verify(XDP_PROGRAM))?;
        object.reuseport_mut()?.load().map_err(verify(REUSEPORT_PROGRAM))?;
        Ok(object)
    }

    /// The XDP program, for test runs.
    ///
    /// # Errors
    /// The object has none.
    pub fn xdp(&self) -> Result<&Xdp, SteerError> {
        let program = self.ebpf.program(XDP_PROGRAM).ok_or_else(|| missing(XDP_PROGRAM))?;
        program.try_into().map_err(|error| SteerError::Verify(XDP_PROGRAM, Box::new(error)))
    }

    /// A program that drops everything, for benchmarks to measure against. May be asked for once.
    ///
    /// # Errors
    /// The kernel does not take it, or has it already.
    pub fn null(&mut self) -> Result<&Xdp, SteerError> {
        let program = self.xdp_mut(NULL_PROGRAM)?;
        program.load().map_err(|error| SteerError::Verify(NULL_PROGRAM, Box::new(error)))?;
        Ok(program)
    }

    fn xdp_mut(&mut self, name: &'static str) -> Result<&mut Xdp, SteerError> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(|error| SteerError::Verify(name, Box::new(error)))
    }

    fn reuseport_mut(&mut self) -> Result<&mut SkReuseport, SteerError> {
        let program = self.ebpf.program_mut(REUSEPORT_PROGRAM).ok_or_else(|| missing(REUSEPORT_PROGRAM))?;
        program.try_into().map_err(|error| SteerError::Verify(REUSEPORT_PROGRAM, Box::new(error)))
    }

    /// Attaches the XDP program: in the place of the one whose link is pinned, or anew. Whether its link is pinned.
    pub(super) fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
        pin: Option<&Pin>,
    ) -> Result<(XdpLinkId, bool), SteerError> {
        let xdp = self.xdp_mut(XDP_PROGRAM)?;
        if let Some(pin) = pin.filter(|pin| pin.is_there()) {
            match pin.take_over(xdp) {
                Ok(link) => return Ok((link, true)),
                Err(error) => tracing::warn!(%error, "the XDP program of the last process is not taken over"),
            }
            pin.remove();
        }
        let attach = |xdp: &mut Xdp| {
            xdp.attach(interface, mode).map_err(|source| SteerError::Attach {
                interface: interface.to_owned(),
                source: Box::new(source),
            })
        };
        let link = attach(xdp)?;
        let Some(pin) = pin else { return Ok((link, false)) };
        match pin.keep(xdp, link) {
            Ok(link) => Ok((link, true)),
            Err(error) => {
                tracing::warn!(%error, "the XDP program is detached while no process runs");
                attach(xdp).map(|link| (link, false))
            }
        }
    }

    /// Attaches the socket chooser; see [`super::Steering::attach_reuseport`].
    pub(super) fn attach_reuseport(
        &mut self,
        is_ipv6: bool,
        sockets: &[BorrowedFd<'_>],
        shard_worker: &[u16; SHARDS],
    ) -> Result<(), SteerError> {
        if sockets.len() > MAX_WORKERS as usize {
            return Err(SteerError::TooMany {
                what: "sockets",
                count: sockets.len(),
                max: MAX_WORKERS as usize,
            });
        }
        let map = |error| map_error("SHARD_WORKER", error);
        let mut workers: Array<_, [u16; SHARDS]> = self.map("SHARD_WORKER")?.try_into().map_err(map)?;
        workers.set(0, shard_worker, 0).map_err(map)?;
        let Some(first) = sockets.first() else { return Ok(()) };
        let map = |error| map_error("SOCKETS", error);
        let mut array: ReusePortSockArray<_> = self.map("SOCKETS")?.try_into().map_err(map)?;
        // Sockets of the last process are in its array for a while; see `Steering::release_groups`.
        let deadline = Instant::now() + ARRAY_GONE_WITHIN;
        for (worker, socket) in (0..).zip(sockets) {
            loop {
                match array.set(socket_place(is_ipv6, worker), socket, 0) {
                    Err(error) if is_busy(&error) && Instant::now() < deadline => {
                        std::thread::sleep(ARRAY_LOOK);
                    }
                    set => break set.map_err(map)?,
                }
            }
        }
        self.reuseport_mut()?.attach(first).map_err(|error| SteerError::Reuseport(Box::new(error)))
    }

    /// Replaces the policy by one pointer store, after everything it points to is in place.
    ///
    /// # Errors
    /// The kernel does not take it; the old one then stays.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<(), SteerError> {
        self.open_cpu_queues(&policy.owners())?;
        // The slot that the live policy does not name. No packet can still be in it: replacing
        // the policy that named it waited for all running programs (`maybe_wait_bpf_programs` in
        // kernel/bpf/syscall.c, kernel 5.0).
        let slot = (self.prefix_slot + 1) % PREFIX_SLOTS;
        self.fill_prefixes(policy, slot)?;
        let mut compiled = policy.compile(slot);
        compiled.keys = *self.keys;
        let map = |error| map_error("POLICY", error);
        let mut words: Array<MapData, PolicyWords> = Array::create(1, 0).map_err(map)?;
        let value: &PolicyWords = zerocopy::transmute_ref!(&*compiled);
        words.set(0, value, 0).map_err(map)?;
        let mut live: ArrayOfMaps<_, Array<MapData, PolicyWords>> =
            self.map("POLICY")?.try_into().map_err(map)?;
        live.set(0, &words, 0).map_err(map)?;
        self.prefix_slot = slot;
        self.policy = policy.clone();
        Ok(())
    }

    /// Puts the prefixes into `slot`. A family that has none keeps what an older policy left there:
    /// its pre-test is empty, so nobody looks, and every store costs a wait for running programs.
    fn fill_prefixes(&mut self, policy: &Policy, slot: u32) -> Result<(), SteerError> {
        let map = |error| map_error("PREFIXES", error);
        let (v4, v6): (Vec<_>, Vec<_>) =
            policy.prefixes().partition(|(prefix, _)| prefix.address().is_ipv4());
        if !v4.is_empty() {
            let mut trie: V4Trie = LpmTrie::create(v4.len() as u32, NO_PREALLOC).map_err(map)?;
            for (prefix, action) in v4 {
                if let IpAddr::V4(address) = prefix.address() {
                    let key = Key::new(u32::from(prefix.len()), address.octets());
                    trie.insert(&key, action, 0).map_err(map)?;
                }
            }
            let mut slots: ArrayOfMaps<_, V4Trie> = self.map("PREFIXES_V4")?.try_into().map_err(map)?;
            slots.set(slot, &trie, 0).map_err(map)?;
        }
        if !v6.is_empty() {
            let mut trie: V6Trie = LpmTrie::create(v6.len() as u32, NO_PREALLOC).map_err(map)?;
            for (prefix, action) in v6 {
                if let IpAddr::V6(address) = prefix.address() {
                    let key = Key::new(u32::from(prefix.len()), address.octets());
                    trie.insert(&key, action, 0).map_err(map)?;
                }
            }
            let mut slots: ArrayOfMaps<_, V6Trie> = self.map("PREFIXES_V6")?.try_into().map_err(map)?;
            slots.set(slot, &trie, 0).map_err(map)?;
        }
        Ok(())
    }

    /// Opens a queue to each CPU that has none yet. Queues stay: an idle one costs a sleeping
    /// kernel thread.
    fn open_cpu_queues(&mut self, cpus: &[u16]) -> Result<(), SteerError> {
        let map = |error| map_error("CPUS", error);
        let mut queues: CpuMap<_> = self.map("CPUS")?.try_into().map_err(map)?;
        for &cpu in cpus {
            let open = queues.get(u32::from(cpu), 0).is_ok_and(|queue| queue.queue_size != 0);
            if !open {
                queues
                    .set(u32::from(cpu), CPU_QUEUE_PACKETS, None, 0)
                    .map_err(|source| SteerError::CpuQueue { cpu, source: Box::new(source) })?;
            }
        }
        Ok(())
    }

    /// Replaces the signing keys, together with the policy they stand in.
    ///
    /// # Errors
    /// There are too many, or the kernel does not take them; the old ones then stay.
    pub fn set_keys(&mut self, keys: &[(Issuer, KeyId, SipKey)]) -> Result<(), SteerError> {
        let table = key_table(keys)?;
        let policy = self.policy.clone();
        let old = std::mem::replace(&mut self.keys, table);
        self.set_policy(&policy).inspect_err(|_| self.keys = old)
    }

    /// Packets and bytes by reason, over all CPUs: every reason a frame can meet, in order.
    ///
    /// # Errors
    /// The kernel does not give the counters.
    pub fn frames(&self) -> Result<Vec<FrameCount>, SteerError> {
        let reasons = Reason::ALL.iter().filter(|reason| is_met_by_frames(**reason));
        reasons.map(|&reason| self.count(reason)).collect()
    }

    /// Packets and bytes of one reason, over all CPUs.
    ///
    /// # Errors
    /// The kernel does not give the counter.
    pub fn count(&self, reason: Reason) -> Result<FrameCount, SteerError> {
        let map = |error| map_error("COUNTERS", error);
        let counters = self.ebpf.map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters: PerCpuArray<_, [u64; 2]> = counters.try_into().map_err(map)?;
        let cpus = counters.get(&(reason as u32), 0).map_err(map)?;
        let sum = |field: usize| cpus.iter().map(|cpu| cpu[field]).sum();
        let packets_by_cpu = cpus.iter().map(|cpu| cpu[0]).collect();
        Ok(FrameCount { reason, packets: sum(0), bytes: sum(1), packets_by_cpu })
    }

    fn map(&mut self, name: &'static str) -> Result<&mut aya::maps::Map, SteerError> {
        self.ebpf.map_mut(name).ok_or_else(|| missing(name))
    }
}

fn key_table(keys: &[(Issuer, KeyId, SipKey)]) -> Result<Box<KeyTable>, SteerError> {
    let too_many = || SteerError::TooMany { what: "keys", count: keys.len(), max: MAX_KEYS };
    if keys.len() > MAX_KEYS {
        return Err(too_many());
    }
    let mut table = Box::new(maps::Policy::empty().keys);
    for &(issuer, key_id, key) in keys {
        if !table.insert(issuer, key_id, key) {
            return Err(too_many());
        }
    }
    Ok(table)
}

/// Takes the socket chooser off a reuseport group.
pub(super) fn detach_reuseport(socket: BorrowedFd<'_>) -> Result<(), SteerError> {
    SkReuseport::detach(socket).map_err(|error| SteerError::Reuseport(Box::new(error)))
}

/// Whether the XDP program can count this reason.
fn is_met_by_frames(reason: Reason) -> bool {
    match reason.class() {
        Class::Passed | Class::Delivered => true,
        Class::Malformed => reason < Reason::ClickCut,
        Class::Refused => reason <= Reason::BadTag || reason == Reason::SynRateLimited,
        Class::None => reason == Reason::FloodBypass,
        Class::Filtered | Class::Unseen => false,
    }
}

/// Whether a socket is in another array still (`reuseport_array_update_check` in
/// kernel/bpf/reuseport_array.c, kernel 4.19).
fn is_busy(error: &MapError) -> bool {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::EBUSY),
        _ => false,
    }
}

fn map_error(name: &'static str, error: MapError) -> SteerError {
    SteerError::Map(name, Box::new(error))
}

/// The object and this file do not agree: the build is broken.
fn missing(name: &str) -> SteerError {
    SteerError::Load(Box::new(EbpfError::MapError(MapError::InvalidName { name: name.to_owned() })))
}
