//! What can go wrong, told to the operator.

use aya::EbpfError;
use aya::maps::MapError;
use aya::maps::xdp::XdpMapError;
use aya::programs::ProgramError;
use displaydoc::Display;
use thiserror::Error;

/// Why steering was not set up or changed.
#[derive(Debug, Display, Error)]
pub enum SteerError {
    /// the BPF programs did not load: {0}; give the daemon CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, kernel 5.18 or later
    Load(#[source] Box<EbpfError>),
    /// the kernel's verifier refused the program `{0}`: {1}; give the daemon CAP_PERFMON, without which no program may compute with pointers, and kernel 5.18 or later
    Verify(&'static str, #[source] Box<ProgramError>),
    /// XDP did not attach to `{interface}`: {source}; see that the interface exists, that its driver knows XDP, its MTU is not above what the driver allows and no other XDP program is there (`ip link show {interface}`)
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// the BPF map `{0}` did not take a value: {1}
    Map(&'static str, #[source] Box<MapError>),
    /// no packet queue to CPU {cpu}: {source}; see that the CPU exists and is online
    CpuQueue {
        /// The CPU that the policy gives a shard.
        cpu: u16,
        /// What the kernel said.
        #[source]
        source: Box<XdpMapError>,
    },
    /// the socket chooser did not attach: {0}; all click sockets must have SO_REUSEPORT set before they are bound to one port
    Reuseport(#[source] Box<ProgramError>),
    /// {count} {what} are more than the {max} the kernel side holds; give fewer
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// the prefix {0} is both denied and allowed; remove it from `steer.deny` or `steer.allow`
    Contradiction(super::Prefix),
    /// the prefix `{0}` is not an address, a slash and a length with zero bits behind it, like 192.0.2.0/24
    BadPrefix(String),
    /// no address takes clicks: `steer.addresses` is empty and the interface has none; list the click addresses
    NoAddress,
    /// no port takes clicks; list the click ports
    NoPort,
    /// a rate of {0} packets or connections a second cannot be kept; give 1 to 1,000,000,000, and a burst of at least 1
    BadRate(u32),
    /// the CPUs cannot be counted: {0}
    Cpus(#[source] std::io::Error),
}
