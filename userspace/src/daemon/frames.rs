//! The steering of a run, shared with the control side, which reads its counters on demand.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use weir_common::id::SHARDS;

use super::settings;
use super::threads::SocketGroup;
use crate::config::{self, Config};
use crate::control::{FrameSource, FrameTotals, Steering as SteeringStatus, service_manager};
use crate::steer::{
    Fragments, Mode, Policy, Prefix, Rate, Settings, SteerError, Steering, Switches, SynRate,
};
use crate::worker::shard_map::ShardMap;

/// Steering once it is attached. The lock is for the main thread and the control side alone; no
/// worker knows of it.
#[derive(Default)]
pub(super) struct SharedSteering(Mutex<Option<Steering>>);

impl SharedSteering {
    /// Attaches what the config asks for.
    pub(super) fn attach(
        &self,
        config: &Config,
        cores: &[usize],
        shards: &ShardMap,
        groups: &[SocketGroup],
    ) -> Result<(), SteerError> {
        let mut steering = Steering::attach(&settings(config, cores, shards)?)?;
        give_keys(&mut steering, config)?;
        let mut shard_worker = [0_u16; SHARDS];
        shard_worker.iter_mut().zip(shards.iter()).for_each(|(slot, owner)| *slot = owner.0);
        let first_of_each = groups.iter().filter_map(|group| group.sockets.first());
        steering.release_groups(first_of_each.map(|kept| kept.socket.as_fd()));
        for group in groups {
            let sockets: Vec<_> = group.sockets.iter().map(|kept| kept.socket.as_fd()).collect();
            steering.attach_reuseport(group.is_ipv6, &sockets, &shard_worker)?;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(steering);
        Ok(())
    }
}

impl SharedSteering {
    /// Lets the XDP program end with this process.
    pub(super) fn unpin(&self) {
        let mut steering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(steering) = steering.as_mut() {
            steering.unpin();
        }
    }

    /// Lets the XDP program check tags by the config's keys, where it checks any.
    pub(super) fn replace_keys(&self, config: &Config) -> Result<(), SteerError> {
        let mut steering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steering.as_mut().map_or(Ok(()), |steering| give_keys(steering, config))
    }
}

fn give_keys(steering: &mut Steering, config: &Config) -> Result<(), SteerError> {
    if !config.steer.verify_first {
        return Ok(());
    }
    let keys = settings::keys(config);
    let keys: Vec<_> = keys.iter().map(|key| (key.issuer, key.id, key.secret)).collect();
    steering.set_keys(&keys)
}

impl FrameSource for SharedSteering {
    fn steering(&self) -> SteeringStatus {
        let steering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(status) = steering.as_ref().map(Steering::status) else {
            return SteeringStatus { rung: "none".to_owned(), reasons: vec!["not attached yet".to_owned()] };
        };
        let reasons = status.misses.iter().map(|miss| format!("{:?}: {}", miss.rung, miss.why)).collect();
        SteeringStatus { rung: format!("{:?}", status.rung).to_lowercase(), reasons }
    }

    fn frames(&self) -> Vec<FrameTotals> {
        let steering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = steering.as_ref().map(Steering::frames);
        let counts = counted.transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "the frame counters cannot be read");
            None
        });
        let totals = |count: crate::steer::FrameCount| FrameTotals {
            reason: count.reason,
            packets: count.packets,
            bytes: count.bytes,
            packets_by_cpu: count.packets_by_cpu,
        };
        counts.unwrap_or_default().into_iter().map(totals).collect()
    }
}

fn settings(config: &Config, cores: &[usize], shards: &ShardMap) -> Result<Settings, SteerError> {
    let steer = &config.steer;
    let mode = match (steer.mode, &steer.interface) {
        (_, None) | (config::SteerMode::None, _) => Mode::None,
        (config::SteerMode::Auto, _) => Mode::Auto,
        (config::SteerMode::Native, _) => Mode::Native,
        (config::SteerMode::Generic, _) => Mode::Generic,
    };
    let prefixes = |nets: &[ipnet::IpNet]| -> Result<Vec<Prefix>, SteerError> {
        nets.iter().map(|net| Prefix::new(net.addr(), net.prefix_len())).collect()
    };
    // Without addresses of its own, the program takes those of the interface.
    let specific =
        |addresses: &[IpAddr]| addresses.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    let addresses =
        if steer.addresses.is_empty() { specific(&config.udp.addresses) } else { steer.addresses.clone() };
    let mut policy = Policy::new(addresses, vec![config.udp.port]);
    for (slot, owner) in policy.shard_owner_cpu.iter_mut().zip(shards.iter()) {
        *slot = cores.get(usize::from(owner.0)).map_or(0, |&core| core as u16);
    }
    policy.enforce = steer.enforce;
    policy.fragments = match steer.fragments {
        config::Fragments::Drop => Fragments::Drop,
        config::Fragments::Pass => Fragments::Pass,
    };
    policy.deny = prefixes(&steer.deny)?;
    policy.allow = prefixes(&steer.allow)?;
    policy.rate = steer.rate.as_ref().map(|rate| Rate {
        packets_per_s: rate.packets_per_s,
        burst: rate.burst,
        new_sources_per_s: rate.new_sources_per_s,
    });
    policy.syn_rate = steer.syn_rate.as_ref().map(|rate| SynRate {
        syns_per_s: rate.syns_per_s,
        burst: rate.burst,
        new_sources_per_s: rate.new_sources_per_s,
    });
    policy.syn_ports = config.http.port.into_iter().chain(config.http.tls_port).collect();
    let switches = Switches { strip_vlan: steer.strip_vlan, verify_first: steer.verify_first };
    // Without somebody who starts a next process there is none to take it over.
    let pin_dir = steer.pin_dir.clone().filter(|_| service_manager::is_there());
    Ok(Settings { mode, interface: steer.interface.clone().unwrap_or_default(), policy, switches, pin_dir })
}
