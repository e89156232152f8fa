//! Brokers that know each other.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

use crate::broker::{self, Broker};
use crate::distribution::Distribution;

/// Any 16 bytes in base64 are a cluster's id; clusters of one machine never meet.
const CLUSTER_ID: &str = "V2VpckxhYkNsdXN0ZXJJZA";

/// Lets clients in by SCRAM-SHA-512 alone.
const LOG_IN: &str = "sasl.enabled.mechanisms=SCRAM-SHA-512\n\
    listener.name.clients.scram-sha-512.sasl.jaas.config=\
    org.apache.kafka.common.security.scram.ScramLoginModule required;\n";

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many brokers; each is a controller too.
    pub brokers: u16,
    /// The heap of each, in MiB.
    pub heap_mib: u32,
    /// More lines for each broker's `server.properties`.
    pub properties: String,
    /// Users for SASL/SCRAM-SHA-512, as `StorageTool format --add-scram` takes them. With any, clients
    /// must log in.
    pub users: Vec<String>,
    /// TLS for clients, who must show a certificate; not together with `users`.
    pub tls: Option<TlsFiles>,
    /// What each broker is run by, such as `ip netns exec NAME`; itself if empty. It must become
    /// the broker, not start it.
    pub within: Vec<String>,
}

/// PEM files of a broker's TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Its key (PKCS#8) and certificate, in one file.
    pub keystore: PathBuf,
    /// Who signs clients' certificates.
    pub truststore: PathBuf,
}

impl TlsFiles {
    fn properties(&self) -> String {
        let (keys, trust) = (self.keystore.display(), self.truststore.display());
        format!(
            "ssl.keystore.type=PEM\nssl.keystore.location={keys}\n\
             ssl.truststore.type=PEM\nssl.truststore.location={trust}\nssl.client.auth=required\n"
        )
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            brokers: 1,
            heap_mib: 256,
            properties: String::new(),
            users: Vec::new(),
            tls: None,
            within: Vec::new(),
        }
    }
}

/// A running cluster; ended and its folders removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    peers: Vec<u16>,
    /// The brokers, to be stopped, frozen and started again one by one.
    pub brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts a fresh cluster in a folder of its own under `parent` and waits until it is up.
    ///
    /// # Errors
    /// When a broker does not come up; with the end of its log.
    pub fn start(distribution: &Distribution, parent: &Path, settings: &Settings) -> Result<Self> {
        let folder = fresh(parent)?;
        let ports = Ports::choose(settings.brokers)?;
        let mut cluster = Self { folder, peers: ports.peers.clone(), brokers: Vec::new() };
        let class_path = distribution.class_path();
        let mut formats = Vec::new();
        for (index, &port) in ports.clients.iter().enumerate() {
            let folder = cluster.folder.join((index + 1).to_string());
            fs::create_dir_all(&folder)?;
            let text = properties(index, &folder, &ports, settings);
            fs::write(broker::config_of(&folder), text)?;
            let (path, users, at) = (class_path.clone(), settings.users.clone(), folder.clone());
            formats.push(thread::spawn(move || broker::format(&at, &path, CLUSTER_ID, &users)));
            cluster.brokers.push(Broker::new(folder, port, &class_path, settings));
        }
        for format in formats {
            format.join().map_err(|_| anyhow::anyhow!("the format thread panicked"))??;
        }
        cluster.brokers.iter_mut().try_for_each(Broker::start)?;
        cluster.brokers.iter_mut().try_for_each(Broker::wait_until_up)?;
        Ok(cluster)
    }

    /// As [`Cluster::bootstrap`], by the door that the brokers themselves use: it asks for no log-in.
    #[must_use]
    pub fn back_door(&self) -> String {
        self.peers.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// What clients are given as `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.brokers.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder nobody else has; those of processes that are gone are removed.
fn fresh(parent: &Path) -> Result<PathBuf> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    for entry in fs::read_dir(parent)?.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner =
            name.strip_prefix("cluster-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = parent.join(format!("cluster-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(fs::canonicalize(folder)?)
}

/// Each broker's ports, on loopback.
#[derive(Debug)]
struct Ports {
    clients: Vec<u16>,
    /// Brokers talk to each other beside their clients, who may have to log in.
    peers: Vec<u16>,
    controllers: Vec<u16>,
}

impl Ports {
    /// Ports that are free now. All are held until the last is chosen, so that none comes twice.
    fn choose(brokers: u16) -> Result<Self> {
        let bind = |_| TcpListener::bind("127.0.0.1:0");
        let held: Vec<_> = (0..3 * brokers).map(bind).collect::<Result<_, _>>()?;
        let ports: Vec<_> =
            held.iter().map(|held| held.local_addr().map(|at| at.port())).collect::<Result<_, _>>()?;
        let part = |n: usize| ports[n * usize::from(brokers)..][..usize::from(brokers)].to_vec();
        Ok(Self { clients: part(0), peers: part(1), controllers: part(2) })
    }
}

fn properties(index: usize, folder: &Path, ports: &Ports, settings: &Settings) -> String {
    let voter = |(index, port)| format!("{}@127.0.0.1:{port}", index + 1);
    let voters: Vec<_> = ports.controllers.iter().enumerate().map(voter).collect();
    let (id, port) = (index + 1, ports.clients[index]);
    let (peer, controller) = (ports.peers[index], ports.controllers[index]);
    let (replicas, in_sync) = (ports.clients.len().min(3), ports.clients.len().min(2));
    let (clients, door) = match &settings.tls {
        Some(files) => ("SSL", files.properties()),
        None if settings.users.is_empty() => ("PLAINTEXT", String::new()),
        None => ("SASL_PLAINTEXT", LOG_IN.to_owned()),
    };
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=CLIENTS://127.0.0.1:{port},PEERS://127.0.0.1:{peer},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=CLIENTS://127.0.0.1:{port},PEERS://127.0.0.1:{peer}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENTS:{clients},PEERS:PLAINTEXT\n\
         inter.broker.listener.name=PEERS\n\
         log.dirs={logs}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={in_sync}\n\
         transaction.state.log.num.partitions=4\n\
         offsets.topic.num.partitions=4\n\
         min.insync.replicas={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         {door}{more}\n",
        voters = voters.join(","),
        logs = folder.join("log").display(),
        more = settings.properties,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_chosen_twice_and_every_broker_knows_all_controllers() {
        let ports = Ports::choose(3).unwrap();
        let all: std::collections::BTreeSet<_> =
            ports.clients.iter().chain(&ports.peers).chain(&ports.controllers).collect();
        assert_eq!(all.len(), 9);
        for index in 0..3 {
            let text = properties(index, Path::new("/x"), &ports, &Settings::default());
            assert!(ports.controllers.iter().all(|port| text.contains(&format!("@127.0.0.1:{port}"))));
            assert!(text.contains("transaction.state.log.min.isr=2"), "{text}");
        }
    }
}
