//! What the operator wants, and its form for the kernel.

use std::net::IpAddr;
use std::str::FromStr;
use std::{fmt, iter};

use serde::{Deserialize, Serialize};
use weir_common::id::SHARDS;
use weir_common::maps::{
    self, MAX_ADDRESSES, MAX_SYN_PORTS, NO_CPU, V6_BUCKET_BITS, policy_flags, prefix_action,
};

use super::SteerError;

/// Prefixes of one family. A trie of this many costs about 150 ns a look-up, paid only by sources
/// that the pre-test lets through.
const MAX_PREFIXES: usize = 16_384;
/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What happens to IP fragments for a click address. Clicks always fit one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fragments {
    /// Counted as malformed and dropped.
    #[default]
    Drop,
    /// Left to the kernel, for other services on the same address.
    Pass,
}

/// The rate of each source (IPv4 address or IPv6 /64), on each CPU apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Packets a second.
    pub packets_per_s: u32,
    /// Packets at once; at least what comes within one tick (10 ms) of the kernel's coarse clock.
    pub burst: u32,
    /// New sources each CPU remembers in a second; in a flood further ones are not limited.
    pub new_sources_per_s: u32,
}

/// The rate at which each source (IPv4 address or IPv6 /64) may ask for connections, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynRate {
    /// Connections a second.
    pub syns_per_s: u32,
    /// Connections at once; at least what comes within one tick (10 ms) of the kernel's coarse clock.
    pub burst: u32,
    /// New sources each CPU remembers in a second; in a flood further ones are not limited.
    pub new_sources_per_s: u32,
}

/// A network: an address whose bits behind `len` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// What the XDP program decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The addresses that take clicks; empty for those of the interface.
    pub addresses: Vec<IpAddr>,
    /// The UDP ports that take clicks.
    pub ports: Vec<u16>,
    /// The CPU that owns each shard, or `weir_common::maps::NO_CPU`.
    pub shard_owner_cpu: [u16; SHARDS],
    /// Whether drops happen, or are only counted.
    pub enforce: bool,
    /// What happens to fragments.
    pub fragments: Fragments,
    /// Sources to drop. The longest prefix decides.
    pub deny: Vec<Prefix>,
    /// Sources that are neither dropped nor limited. The longest prefix decides.
    pub allow: Vec<Prefix>,
    /// The rate of each source.
    pub rate: Option<Rate>,
    /// The rate at which each source may ask for connections to `syn_ports`.
    pub syn_rate: Option<SynRate>,
    /// The TCP ports of that rate.
    pub syn_ports: Vec<u16>,
}

impl Policy {
    /// A policy for these addresses and ports that enforces, steers nowhere and limits nobody.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>, ports: Vec<u16>) -> Self {
        Self {
            addresses,
            ports,
            shard_owner_cpu: [NO_CPU; SHARDS],
            enforce: true,
            fragments: Fragments::Drop,
            deny: Vec::new(),
            allow: Vec::new(),
            rate: None,
            syn_rate: None,
            syn_ports: Vec::new(),
        }
    }

    /// Whether the kernel can keep it.
    pub(super) fn check(&self) -> Result<(), SteerError> {
        let within = |what, count, max| {
            if count > max { Err(SteerError::TooMany { what, count, max }) } else { Ok(()) }
        };
        let v4_count = self.addresses.iter().filter(|address| address.is_ipv4()).count();
        within("IPv4 click addresses", v4_count, MAX_ADDRESSES)?;
        within("IPv6 click addresses", self.addresses.len() - v4_count, MAX_ADDRESSES)?;
        within("prefixes", self.deny.len() + self.allow.len(), MAX_PREFIXES)?;
        if self.ports.is_empty() {
            return Err(SteerError::NoPort);
        }
        if let Some(both) = self.deny.iter().find(|prefix| self.allow.contains(prefix)) {
            return Err(SteerError::Contradiction(*both));
        }
        within("ports with a rate of connections", self.syn_ports.len(), MAX_SYN_PORTS)?;
        let rates = [
            self.rate.map(|rate| (rate.packets_per_s, rate.burst)),
            self.syn_rate.map(|rate| (rate.syns_per_s, rate.burst)),
        ];
        let cannot_be_kept =
            |(per_s, burst): &(u32, u32)| *per_s == 0 || u64::from(*per_s) > SECOND_NS || *burst == 0;
        match rates.into_iter().flatten().find(cannot_be_kept) {
            Some((per_s, _)) => Err(SteerError::BadRate(per_s)),
            None => Ok(()),
        }
    }

    /// The CPUs that own shards, each once.
    pub(super) fn owners(&self) -> Vec<u16> {
        let mut cpus: Vec<u16> = self.shard_owner_cpu.iter().copied().filter(|&cpu| cpu != NO_CPU).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    /// The prefixes, each with what it means.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Prefix, u32)> {
        let denied = self.deny.iter().map(|&prefix| (prefix, prefix_action::DENY));
        denied.chain(self.allow.iter().map(|&prefix| (prefix, prefix_action::ALLOW)))
    }

    /// The form the kernel reads, whose prefixes stand in `prefix_slot`. The policy was checked.
    #[must_use]
    pub fn compile(&self, prefix_slot: u32) -> Box<maps::Policy> {
        let mut compiled = Box::new(maps::Policy::empty());
        compiled.prefix_slot = prefix_slot;
        compiled.shard_cpu = self.shard_owner_cpu;
        self.compile_addresses(&mut compiled);
        for &port in &self.ports {
            compiled.ports.set(port);
        }
        for (prefix, _) in self.prefixes() {
            prefix.touch(&mut compiled);
            compiled.flags |= policy_flags::PREFIXES;
        }
        if self.enforce {
            compiled.flags |= policy_flags::ENFORCE;
        }
        if self.fragments == Fragments::Pass {
            compiled.flags |= policy_flags::PASS_FRAGMENTS;
        }
        if let Some(rate) = self.rate {
            compiled.flags |= policy_flags::RATE;
            compiled.rate = rate_of(rate.packets_per_s, rate.burst);
            compiled.new_sources_per_s = u64::from(rate.new_sources_per_s);
        }
        // Without a port of the door there is nothing to limit.
        if let (Some(rate), Some(&first)) = (self.syn_rate, self.syn_ports.first()) {
            compiled.flags |= policy_flags::SYN_RATE;
            compiled.syn_rate = rate_of(rate.syns_per_s, rate.burst);
            compiled.new_syn_sources_per_s = u64::from(rate.new_sources_per_s);
            let ports = self.syn_ports.iter().copied().chain(iter::repeat(first));
            compiled.syn_ports.iter_mut().zip(ports).for_each(|(place, port)| *place = port);
        }
        compiled
    }

    fn compile_addresses(&self, compiled: &mut maps::Policy) {
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => {
                    compiled.v4[compiled.v4_count as usize] = v4.octets();
                    compiled.v4_count += 1;
                }
                IpAddr::V6(v6) => {
                    compiled.v6[compiled.v6_count as usize] = v6.octets();
                    compiled.v6_count += 1;
                }
            }
        }
    }
}

fn rate_of(tokens_per_s: u32, burst: u32) -> maps::Rate {
    let interval_ns = SECOND_NS / u64::from(tokens_per_s);
    maps::Rate { interval_ns, burst_ns: u64::from(burst - 1) * interval_ns }
}

impl Prefix {
    /// The network of `address` with `len` leading bits.
    ///
    /// # Errors
    /// The length is longer than the address, or bits behind it are set.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, SteerError> {
        let bits = match address {
            // Left-aligned, so that the bits behind the prefix are the lowest.
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let max = if address.is_ipv4() { 32 } else { 128 };
        let tail = bits.checked_shl(u32::from(len)).unwrap_or(0);
        if len > max || tail != 0 {
            return Err(SteerError::BadPrefix(format!("{address}/{len}")));
        }
        Ok(Self { address, len })
    }

    /// The network's first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    #[expect(clippy::len_without_is_empty, reason = "a prefix length is not a container's")]
    #[must_use]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Sets the pre-test bits of every bucket this prefix has addresses in.
    fn touch(&self, compiled: &mut maps::Policy) {
        match self.address {
            IpAddr::V4(v4) => {
                let first = maps::v4_bucket(v4.octets());
                let last = first | (u16::MAX).checked_shr(u32::from(self.len)).unwrap_or(0);
                (first..=last).for_each(|bucket| compiled.v4_touched.set(bucket));
            }
            IpAddr::V6(v6) => {
                // Whole /32s; of 2^16 or more of them every bucket is touched.
                let spare_bits = V6_BUCKET_BITS.saturating_sub(self.len);
                if spare_bits >= 16 {
                    (0..=u16::MAX).for_each(|bucket| compiled.v6_touched.set(bucket));
                    return;
                }
                let first = (v6.to_bits() >> 96) as u32;
                for head in first..=first | ((1 << spare_bits) - 1) {
                    let address = u128::from(head) << 96;
                    compiled.v6_touched.set(maps::v6_bucket(address.to_be_bytes()));
                }
            }
        }
    }
}

impl FromStr for Prefix {
    type Err = SteerError;

    fn from_str(text: &str) -> Result<Self, SteerError> {
        let bad = || SteerError::BadPrefix(text.to_owned());
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        Self::new(address, len.unwrap_or(if address.is_ipv4() { 32 } else { 128 })).map_err(|_| bad())
    }
}

impl TryFrom<String> for Prefix {
    type Error = SteerError;

    fn try_from(text: String) -> Result<Self, SteerError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::maps::{v4_bucket, v6_bucket};

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        Policy::new(vec!["192.0.2.10".parse().unwrap()], vec![8899])
    }

    #[test]
    fn a_prefix_reads_as_it_prints() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0", "198.51.100.7/32"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("198.51.100.7"), prefix("198.51.100.7/32"));
    }

    #[test]
    fn a_prefix_with_bits_behind_its_length_is_refused() {
        for text in ["192.0.2.1/24", "192.0.2.0/33", "::1/127", "2001:db8::/129", "192.0.2.0/", "x/8", ""] {
            assert!(matches!(text.parse::<Prefix>(), Err(SteerError::BadPrefix(_))), "{text}");
        }
    }

    #[test]
    fn a_prefix_touches_every_bucket_it_has_addresses_in_and_no_other() {
        let compiled = Policy { deny: vec![prefix("10.64.0.0/11")], ..policy() }.compile(0);
        for (address, inside) in [([10, 64, 0, 0], true), ([10, 95, 9, 9], true), ([10, 96, 0, 0], false)] {
            assert_eq!(compiled.v4_touched.has(v4_bucket(address)), inside, "{address:?}");
        }
        let compiled = Policy { deny: vec![prefix("2a00::/24")], ..policy() }.compile(0);
        for third in 0..=255 {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[0x2a, 0, 0, third]);
            assert!(compiled.v6_touched.has(v6_bucket(address)));
        }
        let touched = (0..=u16::MAX).filter(|&bucket| compiled.v6_touched.has(bucket)).count();
        assert!(touched <= 256, "{touched} buckets");
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_refused() {
        let both = vec![prefix("10.0.0.0/8")];
        let error = Policy { deny: both.clone(), allow: both, ..policy() }.check().unwrap_err();
        assert!(matches!(error, SteerError::Contradiction(_)));
        assert!(matches!(Policy { ports: Vec::new(), ..policy() }.check(), Err(SteerError::NoPort)));
        let many = vec!["192.0.2.1".parse().unwrap(); MAX_ADDRESSES + 1];
        assert!(matches!(Policy::new(many, vec![1]).check(), Err(SteerError::TooMany { count: 17, .. })));
        let rate = Some(Rate { packets_per_s: 0, burst: 1, new_sources_per_s: 1 });
        assert!(matches!(Policy { rate, ..policy() }.check(), Err(SteerError::BadRate(0))));
        let syn_rate = Some(SynRate { syns_per_s: 9, burst: 0, new_sources_per_s: 1 });
        assert!(matches!(Policy { syn_rate, ..policy() }.check(), Err(SteerError::BadRate(9))));
        let syn_ports = vec![80; MAX_SYN_PORTS + 1];
        assert!(matches!(
            Policy { syn_ports, ..policy() }.check(),
            Err(SteerError::TooMany { count: 5, .. })
        ));
    }

    #[test]
    fn a_rate_of_a_thousand_with_a_burst_of_ten_is_a_bucket_of_ten_milliseconds() {
        let rate = rate_of(1000, 10);
        assert_eq!((rate.interval_ns, rate.burst_ns), (1_000_000, 9_000_000));
    }

    #[test]
    fn connections_have_a_rate_only_where_a_rate_and_ports_are_given() {
        use weir_common::packet::Policy as _;
        let syn_rate = Some(SynRate { syns_per_s: 100, burst: 5, new_sources_per_s: 1 });
        let none = Policy { syn_rate, ..policy() }.compile(0);
        assert!(!none.limits_syns_to(0) && !none.limits_syns_to(443));
        let off = Policy { syn_ports: vec![443], ..policy() }.compile(0);
        assert!(!off.limits_syns_to(443));
        let both = Policy { syn_rate, syn_ports: vec![80, 443], ..policy() }.compile(0);
        let limited: Vec<u16> = (0..=u16::MAX).filter(|&port| both.limits_syns_to(port)).collect();
        assert_eq!(limited, [80, 443]);
        assert_eq!((both.syn_rate.interval_ns, both.syn_rate.burst_ns), (10_000_000, 40_000_000));
    }

    #[test]
    fn each_owner_is_named_once() {
        let mut shard_owner_cpu = [NO_CPU; SHARDS];
        shard_owner_cpu[..4].copy_from_slice(&[3, 1, 3, 1]);
        assert_eq!(Policy { shard_owner_cpu, ..policy() }.owners(), [1, 3]);
    }
}
