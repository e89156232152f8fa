//! Loads the XDP program and the socket chooser, and owns the BPF maps.
//!
//! Steering is an accelerator, never a condition: without it every click still reaches a worker
//! and the hand-off rings bring it to its owner. So [`Mode::Auto`] never fails for want of a
//! capability or of driver support; it takes the highest rung of the ladder native, generic,
//! none that works, and [`Steering::status`] says which and why not higher.
//!
//! Between veth pairs one thing must be set by hand: the sending end leaves checksums to be made
//! (`CHECKSUM_PARTIAL`), and a packet that the program moves to another CPU loses that note and
//! is then dropped as damaged. `ethtool -K PEER tx off` on the sending end. Packets that came over
//! a wire are not concerned.
//!
//! It never touches clicks, and no worker waits for it. Start reading at [`Steering::attach`].

mod error;
mod interface;
mod object;
mod pin;
mod policy;
#[cfg(feature = "ebpf-trace")]
mod trace;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use aya::programs::XdpMode;
use aya::programs::xdp::XdpLinkId;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use weir_common::id::{Issuer, KeyId, SHARDS};
use weir_common::siphash::SipKey;

pub use self::error::SteerError;
pub use self::object::{FrameCount, Object, Switches};
use self::pin::Pin;
pub use self::policy::{Fragments, Policy, Prefix, Rate, SynRate};

/// How far the ladder may be climbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The highest rung that works; never an error.
    #[default]
    Auto,
    /// In the driver, or an error.
    Native,
    /// In the network stack, or an error.
    Generic,
    /// No XDP. The socket chooser works still.
    None,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// In the driver, before the kernel allocates anything.
    Native,
    /// In the network stack, on a finished packet.
    Generic,
    /// Nowhere.
    None,
}

/// What to attach, where, and with which policy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far the ladder may be climbed.
    pub mode: Mode,
    /// The interface clicks come in on.
    pub interface: String,
    /// What the program decides by; can be swapped later.
    pub policy: Policy,
    /// What is built into the program as it is loaded.
    pub switches: Switches,
    /// Where the program's link is pinned, so that it outlives the process; none for one that ends with it.
    pub pin_dir: Option<PathBuf>,
}

/// A rung that was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// Which.
    pub rung: Rung,
    /// Why, and what to do.
    pub why: String,
}

/// What the ladder came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The interface.
    pub interface: String,
    /// What was asked for.
    pub mode: Mode,
    /// What was reached.
    pub rung: Rung,
    /// The higher rungs that were tried, and why they failed.
    pub misses: Vec<Miss>,
    /// Whether the socket chooser is attached.
    pub reuseport: bool,
}

/// The loaded programs. Dropping it detaches the XDP program, unless its link is pinned; the socket chooser stays with the
/// sockets until they close or [`Steering::detach_reuseport`] is called.
#[derive(Debug)]
pub struct Steering {
    object: Option<Object>,
    link: Option<XdpLinkId>,
    pin: Option<Pin>,
    status: Status,
}

impl Steering {
    /// Loads the programs and attaches the XDP program as high as the mode allows and the host
    /// can.
    ///
    /// # Errors
    /// With [`Mode::Native`] and [`Mode::Generic`] whatever stands in the way; with all modes a
    /// policy that contradicts itself.
    pub fn attach(settings: &Settings) -> Result<Self, SteerError> {
        let policy = resolved(&settings.policy, &settings.interface);
        policy.check()?;
        let status = Status {
            interface: settings.interface.clone(),
            mode: settings.mode,
            rung: Rung::None,
            misses: Vec::new(),
            reuseport: false,
        };
        let mut steering = Self { object: None, link: None, pin: None, status };
        match Object::load(settings.switches, &policy) {
            Ok(object) => {
                steering.object = Some(object);
                if policy.addresses.is_empty() {
                    steering.missed(Rung::Native, SteerError::NoAddress)?;
                } else {
                    steering.climb(settings.pin_dir.as_deref())?;
                }
            }
            Err(error) => steering.missed(Rung::Native, error)?,
        }
        steering.report();
        Ok(steering)
    }

    /// Tries the rungs the mode allows, from the highest down.
    fn climb(&mut self, pin_dir: Option<&Path>) -> Result<(), SteerError> {
        let rungs: &[_] = match self.status.mode {
            Mode::Auto => &[(Rung::Native, XdpMode::Driver), (Rung::Generic, XdpMode::Skb)],
            Mode::Native => &[(Rung::Native, XdpMode::Driver)],
            Mode::Generic => &[(Rung::Generic, XdpMode::Skb)],
            Mode::None => &[],
        };
        let pin_dir = pin_dir.filter(|folder| match pin::check(folder) {
            Ok(()) => true,
            Err(error) => {
                info!(%error, "the XDP program is detached while no process runs");
                false
            }
        });
        for &(rung, mode) in rungs {
            let Some(object) = &mut self.object else { break };
            let pin = pin_dir.map(|folder| Pin::of(folder, &self.status.interface, rung));
            match object.attach(&self.status.interface, mode, pin.as_ref()) {
                Ok((link, is_pinned)) => {
                    self.link = Some(link);
                    self.pin = pin.filter(|_| is_pinned);
                    self.status.rung = rung;
                    break;
                }
                Err(error) => self.missed(rung, error)?,
            }
        }
        if let Some(folder) = pin_dir {
            pin::clear(folder, self.pin.as_ref());
        }
        Ok(())
    }

    /// Lets the XDP program end with this process, also where its link is pinned.
    pub fn unpin(&mut self) {
        if let Some(pin) = self.pin.take() {
            pin.remove();
        }
    }

    /// Notes a rung that was not reached; an error if the operator insisted on it.
    fn missed(&mut self, rung: Rung, error: SteerError) -> Result<(), SteerError> {
        if matches!(self.status.mode, Mode::Native | Mode::Generic) {
            return Err(error);
        }
        // With `Mode::None` only the socket chooser is missed, and that it is, `reuseport` says.
        self.status.misses.push(Miss { rung, why: error.to_string() });
        Ok(())
    }

    fn report(&self) {
        let Status { interface, rung, misses, .. } = &self.status;
        for Miss { rung, why } in misses {
            warn!(interface, ?rung, why, "XDP is not attached on this rung");
        }
        info!(interface, ?rung, "steering is set up");
    }

    /// Lets the kernel give each datagram to the socket of the worker that owns its shard.
    /// There is one group for IPv4 and one for IPv6; a group attached later takes the place of the
    /// one before it. `sockets` is one reuseport group in worker order, `shard_worker` the worker of each shard.
    ///
    /// Returns whether it is so: without BPF, [`Mode::Auto`] and [`Mode::None`] go without, and
    /// the status says why.
    ///
    /// # Errors
    /// The sockets are no reuseport group, or there are too many; with [`Mode::Native`] and
    /// [`Mode::Generic`] also whatever stands in the way.
    pub fn attach_reuseport(
        &mut self,
        is_ipv6: bool,
        sockets: &[BorrowedFd<'_>],
        shard_worker: &[u16; SHARDS],
    ) -> Result<bool, SteerError> {
        let Some(object) = &mut self.object else { return Ok(false) };
        match object.attach_reuseport(is_ipv6, sockets, shard_worker) {
            Ok(()) => {}
            // It is a matter of speed alone: workers hand over what is not theirs.
            Err(error @ SteerError::Map(..)) if matches!(self.status.mode, Mode::Auto | Mode::None) => {
                warn!(%error, "datagrams go to any worker's socket");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.status.reuseport = true;
        info!(sockets = sockets.len(), "datagrams go to the socket of their shard's worker");
        Ok(true)
    }

    /// Takes the socket chooser of the last process, if there is one, off each group that one of these sockets belongs
    /// to. All groups share its array of sockets, and no socket can be in another one before that is gone: so all are
    /// released before the first is attached.
    pub fn release_groups<'a>(&mut self, sockets: impl Iterator<Item = BorrowedFd<'a>>) {
        for socket in sockets {
            let _there_was_none = object::detach_reuseport(socket);
        }
    }

    /// Takes the socket chooser off the group that `socket` belongs to.
    ///
    /// # Errors
    /// The socket has none.
    pub fn detach_reuseport(&mut self, socket: BorrowedFd<'_>) -> Result<(), SteerError> {
        object::detach_reuseport(socket)?;
        self.status.reuseport = false;
        Ok(())
    }

    /// Replaces the policy: every packet sees all of the old or all of the new. Without BPF it
    /// only checks it.
    ///
    /// # Errors
    /// The policy contradicts itself or the kernel does not take it; the old one then stays.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<(), SteerError> {
        let policy = resolved(policy, &self.status.interface);
        policy.check()?;
        self.object.as_mut().map_or(Ok(()), |object| object.set_policy(&policy))
    }

    /// Sets the keys by which first clicks are checked, where [`Switches::verify_first`] is on.
    ///
    /// # Errors
    /// There are more than `weir_common::maps::MAX_KEYS`, or the kernel does not take one.
    pub fn set_keys(&mut self, keys: &[(Issuer, KeyId, SipKey)]) -> Result<(), SteerError> {
        self.object.as_mut().map_or(Ok(()), |object| object.set_keys(keys))
    }

    /// Packets and bytes by reason since the program was loaded, over all CPUs; empty without
    /// BPF.
    ///
    /// # Errors
    /// The kernel does not give the counters.
    pub fn frames(&self) -> Result<Vec<FrameCount>, SteerError> {
        self.object.as_ref().map_or(Ok(Vec::new()), Object::frames)
    }

    /// What the ladder came to.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }
}

/// Loads both programs as [`Steering::attach`] does, attaches them to nothing, and lets go of them: whether the
/// kernel takes them. No packet sees them, and no queue to a CPU is opened.
///
/// # Errors
/// As [`Object::load`].
pub fn probe(switches: Switches) -> Result<(), SteerError> {
    Object::load(switches, &Policy::new(Vec::new(), Vec::new())).map(drop)
}

/// The policy with the interface's own addresses where it lists none.
fn resolved(policy: &Policy, interface: &str) -> Policy {
    let mut policy = policy.clone();
    if policy.addresses.is_empty() {
        policy.addresses = interface::addresses(interface);
    }
    policy
}
