//! The config file: read, checked once, then trusted.
//!
//! [`load`] turns a TOML file into a [`Config`] of plain typed values, or into a list of *all* its
//! problems, each with its line, the value as written and what would be right. Every key has a
//! default, so an empty file is a valid config; [`SAMPLE`] is the file that says so, commented.
//!
//! Nothing outside this room reads the file or doubts a value again. This room opens no socket
//! and starts nothing; of the machine it only looks at what the file names: cores and key files.
//!
//! Start reading at [`Config`]; `sections.rs` holds each key's default and range.

mod host;
mod http;
mod kafka;
mod limits;
mod problem;
pub mod quantity;
mod reader;
mod sample;
mod score;
mod sections;
mod traffic;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;
use weir_common::bucket::Dimensions;

use crate::forward::kafka::{ClusterSettings, TopicSettings};

pub use host::{Host, MemoryEstimate, read_secret};
pub use http::Http;
pub use problem::{Error, Problem, Problems};
pub(crate) use reader::nearest;
pub use sample::{SampleKey, sample_keys};
pub use traffic::Traffic;

/// The commented sample: every key with its default. The documentation of the config.
pub const SAMPLE: &str = include_str!("../../../deploy/weir.toml");

/// A config that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which node this is, and where its files are.
    pub node: Node,
    /// The cores the workers are pinned to.
    pub workers: Workers,
    /// Where clicks come in by UDP.
    pub udp: Udp,
    /// Where they come in by HTTP.
    pub http: Http,
    /// What flags invalid traffic.
    pub traffic: Traffic,
    /// The model that scores clicks, and from which score on they are marked.
    pub score: Option<crate::score::Settings>,
    /// How users' keys are written.
    pub privacy: Privacy,
    /// Budgets of clicks a second.
    pub limits: crate::limits::Settings,
    /// The XDP program.
    pub steer: Steer,
    /// Which clicks may be counted.
    pub admission: Admission,
    /// The keys of ad servers. Without [`Key::secret`] until [`load`] read the files.
    pub keys: Vec<Key>,
    /// The dedupe table.
    pub dedupe: Dedupe,
    /// The buckets.
    pub buckets: Buckets,
    /// The journal.
    pub journal: Journal,
    /// Where blocks and buckets go.
    pub forward: Forward,
    /// What is kept of malformed input.
    pub rejects: Rejects,
    /// The cluster, when they go to Kafka.
    pub kafka: Kafka,
    /// Metrics and health over HTTP.
    pub metrics: Metrics,
    /// The log.
    pub log: Log,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's number; unique over all POPs.
    pub id: u32,
    /// The region its buckets are labelled with.
    pub region: String,
    /// The POP its buckets are labelled with.
    pub pop: String,
    /// Journal and embedded store.
    pub data_dir: PathBuf,
    /// Status socket and final status.
    pub run_dir: PathBuf,
}

/// `[workers]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// One worker for each.
    pub cores: Cores,
}

/// Which cores take workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every core that is online.
    All,
    /// These, by number.
    These(Vec<usize>),
}

/// `[rx.udp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The click port.
    pub port: u16,
    /// The local addresses to listen on.
    pub addresses: Vec<IpAddr>,
    /// Receive buffer of each socket, in bytes.
    pub socket_buffer_bytes: usize,
    /// Datagrams a worker's ring can hold; a power of two.
    pub buffers_per_worker: u16,
}

/// `[steer]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steer {
    /// How hard to try.
    pub mode: SteerMode,
    /// The interface clicks arrive on; none turns steering off.
    pub interface: Option<String>,
    /// Destination addresses that are ours; empty means every address.
    pub addresses: Vec<IpAddr>,
    /// Drop what earned it; false only counts.
    pub enforce: bool,
    /// What to do with IP fragments.
    pub fragments: Fragments,
    /// Remove VLAN tags before the packet goes to the kernel.
    pub strip_vlan: bool,
    /// Whether the XDP program checks the tag of each datagram's first click.
    pub verify_first: bool,
    /// Sources that are dropped.
    pub deny: Vec<IpNet>,
    /// Sources the rate limit does not apply to.
    pub allow: Vec<IpNet>,
    /// The limit for each source; none when it is off.
    pub rate: Option<Rate>,
    /// The limit of connections for each source; none when it is off.
    pub syn_rate: Option<SynRate>,
    /// Where the XDP program's link is pinned; none nowhere.
    pub pin_dir: Option<PathBuf>,
}

/// `steer.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteerMode {
    /// The best mode the interface has, down to none.
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's generic hook, or fail.
    Generic,
    /// No XDP at all.
    None,
}

/// `steer.fragments`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// Count and drop: clicks always fit one packet.
    Drop,
    /// Give them to the kernel.
    Pass,
}

/// `[steer.rate]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets a second from one source address.
    pub packets_per_s: u32,
    /// Packets a source may send at once after a pause.
    pub burst: u32,
    /// Sources a second that are newly tracked; beyond it a flood of spoofed ones is on.
    pub new_sources_per_s: u32,
}

/// `[steer.syn_rate]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynRate {
    /// Connections to the HTTP door a second from one source address.
    pub syns_per_s: u32,
    /// Connections a source may ask for at once after a pause.
    pub burst: u32,
    /// Sources a second that are newly tracked; beyond it a flood of spoofed ones is on.
    pub new_sources_per_s: u32,
}

/// `[admission]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Take clicks without a signature.
    pub allow_unsigned: bool,
    /// How long a signature holds; also the dedupe horizon.
    pub lifetime: Duration,
    /// How old a click may be and still be counted in its minute.
    pub lateness: Duration,
    /// How far a sender's clock may run ahead.
    pub max_ahead: Duration,
}

/// `[[keys]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The issuer it belongs to.
    pub issuer: u16,
    /// Its number with that issuer.
    pub key: u16,
    /// The file that holds it.
    pub file: PathBuf,
    /// What the file held.
    pub secret: Secret,
}

/// A 128-bit SipHash key. Never printed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `[dedupe]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// Impressions held at once by the whole node.
    pub capacity: usize,
}

/// `[buckets]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// What splits a bucket, beside minute and ad.
    pub dimensions: Dimensions,
    /// Buckets held at once by the whole node.
    pub capacity: usize,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// How long a click may wait for others to share its fdatasync.
    pub commit_window: Duration,
    /// Bytes of one segment file.
    pub segment_bytes: u64,
    /// Bytes all segments of the node may take.
    pub max_bytes: u64,
    /// What an ack promises.
    pub ack: AckLevel,
    /// Whether new segments are encrypted, with a key for each day.
    pub encrypt: bool,
    /// Where those keys are; also those of segments that are there already.
    pub keys_dir: Option<PathBuf>,
}

/// `journal.ack`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckLevel {
    /// The click is on this node's disk.
    Disk,
}

/// `[privacy]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// `salts` and `salts_dir`.
    pub salting: Salting,
}

/// What users' keys are written under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Salting {
    /// Salts of this folder, which the node draws by itself and destroys.
    Drawn(PathBuf),
    /// Salts of this folder, which an operator brings and destroys.
    Brought(PathBuf),
    /// Nothing: they are written as they are sent.
    None,
}

/// `[forward]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where batches go.
    pub sink: Sink,
    /// The longest a changed bucket waits for its flush.
    pub interval: Duration,
    /// Memory that the unique users of all open minutes may take; 0 for no sketches.
    pub uniques_bytes_max: u64,
    /// The least users of a sketch that leaves the node.
    pub uniques_users_min: usize,
}

/// `forward.sink`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A store on this node, under [`Node::data_dir`].
    Embedded,
    /// The cluster of [`Config::kafka`].
    Kafka,
}

/// `[rejects]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejects {
    /// Samples a worker takes in a second at the most.
    pub samples_per_s: u32,
}

/// `[kafka]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// The cluster that takes everything, or all but what the other one takes.
    pub cluster: Cluster,
    /// The cluster of buckets and sketches, where they go to one of their own: `[kafka.buckets]`.
    pub buckets: Option<Cluster>,
    /// The topics.
    pub topics: TopicSettings,
}

/// A cluster, in `[kafka]` and in `[kafka.buckets]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its brokers, and how to log in. Without the password until [`load`] read its file.
    pub settings: ClusterSettings,
    /// The file of the password of its `sasl`.
    pub password_file: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where HTTP listens; none turns it off.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level that is written.
    pub level: tracing::Level,
}

impl Config {
    /// Reads a config text. Looks at nothing but the text.
    ///
    /// # Errors
    /// Every problem the text has; when it is no TOML, the first place where it is not.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse_with_keys(text).0
    }

    /// As [`Config::parse`], with every key that a config can hold.
    fn parse_with_keys(text: &str) -> (Result<Self, Problems>, BTreeSet<String>) {
        let notes = reader::Notes::new(text);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                notes.note(error.span().map(|span| span.start), format!("not TOML: {}", error.message()));
                return (Err(notes.into_parts().0), BTreeSet::new());
            }
        };
        let config = sections::read(&notes, table.get_ref());
        let (problems, known) = notes.into_parts();
        (if problems.0.is_empty() { Ok(config) } else { Err(problems) }, known)
    }

    /// Every key a config can hold, as dotted paths, in alphabetical order.
    #[must_use]
    pub fn known_keys() -> BTreeSet<String> {
        // Keys of a list exist only with an entry of it.
        Self::parse_with_keys("[[keys]]\n[[score.campaigns]]").1
    }
}

impl Default for Config {
    fn default() -> Self {
        let notes = reader::Notes::new("");
        sections::read(&notes, &DeTable::new())
    }
}

/// Reads the config file and what it names, and checks both against this machine.
///
/// # Errors
/// When the file cannot be read; or every problem it has, those of its cores and key files too.
pub fn load(path: &Path, host: &Host) -> Result<Config, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let invalid = |problems| Error::Invalid { path: path.to_owned(), problems };
    let mut config = Config::parse(&text).map_err(invalid)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    host.complete(&mut config, folder).map_err(invalid)?;
    Ok(config)
}
