//! What can be typed: the commands of `weir`, with their arguments and help texts.
//!
//! A definition and nothing else, of `clap` and the standard library: the packages' man pages and completions
//! are made from this file, by a program that knows nothing else of the daemon. What the commands do stands in
//! [`super::answer`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Where the packages put the config.
pub const DEFAULT_CONFIG: &str = "/etc/weir/weir.toml";
/// Where a daemon with the default `node.run_dir` answers.
pub const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";
/// Where a daemon with the default `node.run_dir` beats.
pub const DEFAULT_HEARTBEAT: &str = "/run/weir/heartbeat.sock";
/// Where Debian's BIRD takes commands.
pub const DEFAULT_BIRD: &str = "/run/bird/bird.ctl";
/// The longest rise, in seconds: an hour.
const RISE_MAX_S: f64 = 3600.0;

/// The highest price of a click, as the wire has it.
pub const PRICE_MICROS_MAX: u64 = 1_000_000_000_000;
/// The most of one call: a link each, some hundred MB of text.
const COUNT_MAX: u64 = 1_000_000;

/// Counts ad clicks at the edge: every click once, none lost without a count.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  weir check-config /etc/weir/weir.toml    is this file sound, and what does it mean?
  weir doctor                              is this host fit for it?
  weir run --config /etc/weir/weir.toml    start the node
  weir status                              what is it doing?
  weir explain bad_tag                     what is this drop reason, and what helps?
  weir mint --key FILE --issuer 1 --key-id 2 --ad 7 --link https://clicks.example/v1/click/

Exit codes: 0 done; 1 the books do not close, the daemon failed, or the doctor found something fatal; 2 wrong arguments or config."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `weir` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon until SIGTERM or SIGINT, then drain
    Run(RunArgs),
    /// Say everything that is wrong with a config file, or print it resolved
    CheckConfig {
        /// The file
        #[arg(default_value = DEFAULT_CONFIG)]
        file: PathBuf,
    },
    /// Print the commented sample config: every key with its default
    PrintConfig,
    /// Say what is wrong with this host before a node is started on it; changes nothing
    Doctor(DoctorArgs),
    /// Say what a drop reason, a condition of `weir doctor` or a key of the config means
    Explain {
        /// Its name, as bad_tag, fsync or journal.encrypt; the number of a reason; or "all" for all reasons
        name: String,
    },
    /// Collect what somebody who is to help needs to see of this node, without secrets
    Bundle(BundleArgs),
    /// Announce this node's addresses by BIRD while it is ready, and withdraw them when it is not
    ///
    /// SIGTERM ends it and leaves the announcement as it is.
    Announce(AnnounceArgs),
    /// Print what a running daemon is doing
    Status(StatusArgs),
    /// Watch a running daemon
    Top(TopArgs),
    /// Take a node out of service, until undrain: its connections end, then it says that it is not ready
    ///
    /// It goes on to take what comes all the same, and stays out of service when it is started again. Ask as the node's
    /// user. At the end of the wait it says how many connections are still open.
    Drain(DrainArgs),
    /// Take a node into service again
    Undrain(ConfigArgs),
    /// Recount the store's raw batches and compare them with its buckets, while the daemon is stopped
    Audit(AuditArgs),
    /// Print what a topic of the config's Kafka holds, as JSON, one record a line
    ReadTopic(ReadTopicArgs),
    /// Build or look at a filter of known-bad actors
    #[command(subcommand)]
    Actors(ActorsCommand),
    /// Sign impressions with a key: tokens for JSON, or whole links
    Mint(Box<MintArgs>),
}

/// What `weir actors` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum ActorsCommand {
    /// Build a filter from a list, offline; a running node keeps the old one until it reloads
    Build {
        /// The list: an address or a user key (decimal, or 0x and hexadecimal digits) a line
        #[arg(long, value_name = "FILE")]
        list: PathBuf,
        /// The filter, replaced as a whole when the new one is complete
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check a filter, say which list it was built from, and whether it finds these actors
    Show {
        /// The filter
        filter: PathBuf,
        /// Addresses and user keys, written as in a list
        actors: Vec<String>,
    },
}

/// Which config.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The config file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Arguments of `weir drain`.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How long connections may take to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub wait: u64,
}

/// Arguments of `weir doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `weir bundle`.
#[derive(Clone, Debug, Args)]
pub struct BundleArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The bundle, a new file
    #[arg(long, value_name = "FILE", default_value = "weir-bundle.tar.gz")]
    pub out: PathBuf,
    /// Where the log is; the journal of the unit weir if nowhere else
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// Arguments of `weir run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Believe the system clock at this start, whatever the journal says of the time
    #[arg(long)]
    pub clock_is_right: bool,
}

/// Arguments of `weir audit`.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Also print the buckets of the N ads with the most clicks
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub busiest: usize,
    /// A log of acknowledged clicks, as `weir-bench --acked-log` writes it: each must be in the store
    #[arg(long, value_name = "FILE")]
    pub acked: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `weir read-topic`.
#[derive(Clone, Debug, Args)]
pub struct ReadTopicArgs {
    /// Which topic
    pub topic: TopicKind,
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print at most N records
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub limit: u64,
    /// With clicks: print each block's rows too
    #[arg(long)]
    pub rows: bool,
}

/// The topics that `weir read-topic` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TopicKind {
    /// Raw batches
    Clicks,
    /// Bucket revisions
    Buckets,
    /// Sketches of unique users
    Uniques,
    /// Checkpoints, claims and gaps
    Checkpoints,
    /// The same in the cluster of kafka.buckets
    BucketCheckpoints,
    /// Samples of malformed input; of the embedded store too, while the daemon is stopped
    Rejects,
}

/// Arguments of `weir announce`.
#[derive(Clone, Debug, Args)]
pub struct AnnounceArgs {
    /// The daemon's heartbeat socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_HEARTBEAT)]
    pub heartbeat: PathBuf,
    /// BIRD's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_BIRD)]
    pub bird: PathBuf,
    /// A protocol of BIRD to enable and disable; up to 16 times
    #[arg(long = "protocol", value_name = "NAME", required = true, value_parser = protocol_name)]
    pub protocols: Vec<String>,
    /// Seconds that the node has to be ready without a break before it is announced; up to 16 times as long while it flaps
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub rise: Duration,
    /// Print what BIRD would be told, and tell it nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A name as BIRD's config has it without quotes. `all` is none: it would switch every protocol there is.
fn protocol_name(text: &str) -> Result<String, String> {
    let is_letter = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    let is_name = text.starts_with(is_letter)
        && text.len() <= 64
        && text.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit());
    match text {
        "all" => Err("that would switch every protocol of BIRD; name those that announce".to_owned()),
        _ if is_name => Ok(text.to_owned()),
        _ => Err("a protocol's name is of letters, digits and _, and begins with no digit".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=RISE_MAX_S).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("write seconds from 0 to {RISE_MAX_S}, as 3 or 0.5"))
}

/// Arguments of `weir status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Print the JSON as the daemon sends it
    #[arg(long)]
    pub json: bool,
    /// The daemon's status socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Arguments of `weir top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// The daemon's status socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Milliseconds between two looks, from 100
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// Print one screen (with --json: one document) and exit; 1 when the books do not close
    #[arg(long)]
    pub once: bool,
    /// With --once: JSON instead of a screen; of several nodes a list
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Nodes to watch at their HTTP port (metrics.listen), in place of the socket: HOST or HOST:PORT, by commas
    #[arg(long = "host", value_name = "HOSTS", value_delimiter = ',', conflicts_with = "socket")]
    pub hosts: Vec<String>,
    /// Write every look to a new file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Watch what was recorded
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hosts", "record", "socket"])]
    pub replay: Option<PathBuf>,
}

/// Arguments of `weir mint`.
#[derive(Clone, Debug, Args)]
pub struct MintArgs {
    /// The key file, as `keys.file` of a config names it: 32 hex digits, not everybody's to read
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The ad server's number, as `keys.issuer`
    #[arg(long, value_name = "N")]
    pub issuer: u16,
    /// The key's number, as `keys.key`
    #[arg(long, value_name = "N")]
    pub key_id: u16,
    /// The ad
    #[arg(long, value_name = "N")]
    pub ad: u64,
    /// The price of one click, in millionths of the currency unit
    #[arg(long, value_name = "MICROS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=PRICE_MICROS_MAX))]
    pub price_micros: u64,
    /// The campaign
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub campaign: u32,
    /// The creative
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub creative: u32,
    /// The placement
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub placement: u32,
    /// The publisher
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub publisher: u32,
    /// How many impressions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub count: u64,
    /// Print links: a URL with {token}, or to whose end the token goes; {price} and {ad} are filled in too
    #[arg(long, value_name = "URL")]
    pub link: Option<String>,
    /// When they were issued, in seconds since 1970, for trials; now, if nothing is said
    #[arg(long, value_name = "SECONDS")]
    pub issued_at: Option<u32>,
    /// Where the next sequence number is kept; the key file's name with .sequence, if nothing is said
    #[arg(long, value_name = "FILE")]
    pub sequence_file: Option<PathBuf>,
}
