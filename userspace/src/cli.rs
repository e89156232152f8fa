//! The command line of `weir`, and the commands that need no daemon around them.
//!
//! `run` and `audit` are the binary's own affair: they tie rooms together. Everything else is
//! answered by [`answer`].

use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Cluster, Config, Host, Kafka, MemoryEstimate};
use crate::forward::kafka;
use crate::mint::{self, MintArgs};
use crate::traffic::actors;
use crate::{control, top};

/// Where the packages put the config.
pub const DEFAULT_CONFIG: &str = "/etc/weir/weir.toml";
/// Where a daemon with the default `node.run_dir` answers.
pub const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";

/// Counts ad clicks at the edge: every click once, none lost without a count.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  weir check-config /etc/weir/weir.toml    is this file sound, and what does it mean?
  weir run --config /etc/weir/weir.toml    start the node
  weir status                              what is it doing?
  weir explain bad_tag                     what is this drop reason, and what helps?
  weir mint --key FILE --issuer 1 --key-id 2 --ad 7 --link https://clicks.example/v1/click/

Exit codes: 0 done; 1 the books do not close, or the daemon failed; 2 wrong arguments or config."
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
    /// Say what a drop reason means and what to do about it
    Explain {
        /// Its name or number, or "all"
        reason: String,
    },
    /// Print what a running daemon is doing
    Status(StatusArgs),
    /// Watch a running daemon
    Top(TopArgs),
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

/// Runs a command that needs no daemon around it; gives `run` and `audit` back to the caller.
///
/// # Errors
/// With the command, when it is not one of these.
pub fn answer(command: Command) -> Result<ExitCode, Command> {
    match command {
        Command::CheckConfig { file } => Ok(check_config(&file)),
        Command::PrintConfig => {
            print!("{}", config::SAMPLE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain { reason } => Ok(match control::explain(&reason) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 2),
        }),
        Command::Status(args) => Ok(status(&args)),
        Command::Top(args) => Ok(top::run(&args).unwrap_or_else(|error| fail(&error, 1))),
        Command::ReadTopic(args) => Ok(read_topic(&args)),
        Command::Actors(command) => Ok(match actors(&command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        }),
        Command::Mint(args) => Ok(match mint::run(&args, &mut BufWriter::new(std::io::stdout().lock())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        }),
        other @ (Command::Run(_) | Command::Audit(_)) => Err(other),
    }
}

/// Prints an error as every command does.
pub fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("weir: {error}");
    ExitCode::from(code)
}

fn check_config(file: &std::path::Path) -> ExitCode {
    let host = Host::this();
    match config::load(file, &host) {
        Ok(config) => {
            print!("ok\n{}", resolved(&config, &host));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 2),
    }
}

fn read_topic(args: &ReadTopicArgs) -> ExitCode {
    let config = match config::load(&args.config.config, &Host::this()) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match kafka::command::run(&config, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn actors(command: &ActorsCommand) -> Result<(), actors::CommandError> {
    match command {
        ActorsCommand::Build { list, out } => actors::run_build(list, out, &mut std::io::stderr()),
        ActorsCommand::Show { filter, actors } => {
            print!("{}", actors::show(filter, actors)?);
            Ok(())
        }
    }
}

/// A config in short, as this machine will use it.
fn resolved(config: &Config, host: &Host) -> String {
    use config::quantity::{duration_text, size_text};
    let cores = host.worker_cores(config);
    let memory = MemoryEstimate::of(config, cores.len());
    let steer = match &config.steer.interface {
        Some(interface) => format!("{:?} on {interface}", config.steer.mode).to_lowercase(),
        None => "none: no interface".to_owned(),
    };
    let listen = config.metrics.listen.map_or("off".to_owned(), |address| address.to_string());
    let addresses: Vec<_> = config.udp.addresses.iter().map(ToString::to_string).collect();
    let lines = [
        ("node", format!("{} in {} {}", config.node.id, config.node.region, config.node.pop)),
        ("data", format!("{}, status in {}", config.node.data_dir.display(), config.node.run_dir.display())),
        ("workers", format!("{} on cores {cores:?}", cores.len())),
        ("udp", format!("port {} on {}", config.udp.port, addresses.join(", "))),
        ("steer", steer),
        (
            "keys",
            format!("{}, unsigned clicks {}", config.keys.len(), taken(config.admission.allow_unsigned)),
        ),
        (
            "journal",
            format!(
                "commit every {}, at most {}{}",
                duration_text(config.journal.commit_window),
                size_text(config.journal.max_bytes),
                if config.journal.encrypt { ", encrypted" } else { "" }
            ),
        ),
        ("forward", format!("{} every {}", sink_text(config), duration_text(config.forward.interval))),
        ("metrics", listen),
        ("memory", memory.to_string()),
    ];
    lines.iter().map(|(name, value)| format!("  {name:<8} {value}\n")).collect()
}

fn sink_text(config: &Config) -> String {
    match config.forward.sink {
        config::Sink::Embedded => "embedded".to_owned(),
        config::Sink::Kafka => {
            let Kafka { cluster, buckets, topics } = &config.kafka;
            let buckets = buckets.as_ref().map(|buckets| format!(", buckets {}", cluster_text(buckets)));
            format!(
                "kafka {}{}, topics {}*",
                cluster_text(cluster),
                buckets.unwrap_or_default(),
                topics.prefix
            )
        }
    }
}

fn cluster_text(Cluster { settings, .. }: &Cluster) -> String {
    let log_in = settings.sasl.as_ref().map(|sasl| format!(" as {}", sasl.user));
    let tls = if settings.tls.is_some() { " over TLS" } else { "" };
    format!("{}{tls}{}", settings.bootstrap(), log_in.unwrap_or_default())
}

const fn taken(allowed: bool) -> &'static str {
    if allowed { "taken" } else { "refused" }
}

fn status(args: &StatusArgs) -> ExitCode {
    if args.json {
        return match control::fetch_json(&args.socket) {
            Ok(json) => {
                print!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        };
    }
    match control::fetch(&args.socket) {
        Ok(status) => {
            print!("{}", top::text(&status));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_config_in_short_says_what_this_machine_will_do() {
        let host = Host { cores: vec![0, 1] };
        assert_eq!(
            resolved(&Config::default(), &host),
            "  \
node     1 in local local
  data     /var/lib/weir, status in /run/weir
  workers  2 on cores [0, 1]
  udp      port 4500 on 0.0.0.0, ::
  steer    none: no interface
  keys     0, unsigned clicks taken
  journal  commit every 2ms, at most 64GiB
  forward  embedded every 2s
  metrics  127.0.0.1:9464
  memory   at most about 4340MiB: dedupe 3052MiB, buckets 184MiB, uniques 1GiB, receive buffers 65MiB, activity 16MiB
"
        );
    }
}
