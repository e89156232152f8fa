//! Two network namespaces and a veth between them: a node's and its senders'. Needs root and `ip`,
//! to turn offloads off `ethtool` too.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// The node's address.
pub const NODE: &str = "192.0.2.10";
/// The node's interface.
pub const NODE_INTERFACE: &str = "w0";
/// The addresses of senders.
pub const SENDERS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The senders' interface.
pub const SENDER_INTERFACE: &str = "w1";

/// A network namespace; gone when dropped.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    pub(crate) fn new(role: &str) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{role}-{}-{serial}", std::process::id());
        ip(&["netns", "add", &name])?;
        Ok(Self(name))
    }

    /// Moves this thread, and the processes it starts, into the namespace.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(format!("/run/netns/{}", self.0))?;
        Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Does this in the namespace, and comes back.
    ///
    /// # Errors
    /// When the system refuses, or as what is done.
    pub fn within<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        self.enter()?;
        let done = act();
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
        done
    }

    /// Its name, as `ip` takes it.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The namespaces and the veth between them.
#[derive(Debug)]
pub struct Veth {
    /// Where senders run.
    pub senders: Namespace,
    /// Where the node runs.
    pub node: Namespace,
}

impl Veth {
    /// Makes both; this thread is then in the node's.
    ///
    /// # Errors
    /// When `ip` is not there or this user may not.
    pub fn new() -> Result<Self> {
        let veth = Self { senders: Namespace::new("senders")?, node: Namespace::new("node")? };
        veth.node.enter()?;
        let senders = &veth.senders.0;
        let pair = ["link", "add", NODE_INTERFACE, "type", "veth", "peer", "name", SENDER_INTERFACE];
        ip(&[&pair[..], &["netns", senders]].concat())?;
        ip(&["addr", "add", &format!("{NODE}/24"), "dev", NODE_INTERFACE])?;
        ip(&["link", "set", NODE_INTERFACE, "up"])?;
        ip(&["link", "set", "lo", "up"])?;
        for address in SENDERS {
            ip(&["-n", senders, "addr", "add", &format!("{address}/24"), "dev", SENDER_INTERFACE])?;
        }
        ip(&["-n", senders, "link", "set", SENDER_INTERFACE, "up"])?;
        Ok(veth)
    }

    /// Lets senders fill in checksums themselves: one that the card is to fill in is missing where the XDP
    /// program sends a packet to another CPU.
    ///
    /// # Errors
    /// When `ethtool` is not there or fails.
    pub fn send_whole_checksums(&self) -> Result<()> {
        let turned_off = ["ethtool", "-K", SENDER_INTERFACE, "tx", "off"];
        ip(&[&["netns", "exec", &self.senders.0], &turned_off[..]].concat()).map(drop)
    }

    /// Packets that found the ring between the two full, and so never came to the node.
    ///
    /// # Errors
    /// When `ip` does not say.
    pub fn lost(&self) -> Result<u64> {
        let text = ip(&["-n", &self.senders.0, "-s", "-j", "link", "show", SENDER_INTERFACE])?;
        let links: Value = serde_json::from_str(&text)?;
        links.pointer("/0/stats64/tx/dropped").and_then(Value::as_u64).context("its counters")
    }
}

/// The frames that a node's status counts under this reason.
///
/// # Panics
/// When it is no status.
#[must_use]
pub fn frames(status: &Value, reason: &str) -> u64 {
    let frames = status["frames"].as_array().expect("a status has frames");
    let found = frames.iter().find(|frame| frame["reason"] == reason);
    found.and_then(|frame| frame["packets"].as_u64()).unwrap_or(0)
}

pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("ip, of iproute2")?;
    ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
