//! `weir-bench http`: the command line over the engine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_common::id::{Issuer, KeyId};

use super::report::write_table;
use super::{Format, Options, Tls};
use crate::duration::parse_duration;
use crate::key_file::{KeyArgs, read_key};
use crate::kind::Profile;

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpArgs {
    /// The door: address and port
    #[arg(long)]
    target: SocketAddr,
    /// Planned clicks a second
    #[arg(long, value_name = "CLICKS_PER_S", required_unless_present = "saturate")]
    rate: Option<f64>,
    /// No plan: each connection sends again as soon as it is answered, to find the highest rate
    #[arg(long, conflicts_with = "rate")]
    saturate: bool,
    /// Length of the sending phase, such as 20s or 500ms
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// Connections, kept alive, each with one request under way
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Threads that share the connections
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Cores to pin the threads to, in order
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Clicks of a request
    #[arg(long, default_value_t = 1, value_name = "CLICKS_PER_REQUEST")]
    batch: usize,
    /// What bodies are written in
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// What to send
    #[arg(long, value_enum, default_value = "clean")]
    profile: Profile,
    /// One click in so many says its user agent; 0: none
    #[arg(long, default_value_t = 1)]
    user_agent_every: u64,
    #[command(flatten)]
    key: KeyArgs,
    /// Speak TLS
    #[arg(long, requires = "ca")]
    tls: bool,
    /// PEM file of the certificates to trust
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The name the certificate must have
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// Any 202 will do, whatever its body: for a server that only discards, such as nginx
    #[arg(long, conflicts_with = "acked_log")]
    plain_202: bool,
    /// Seeds order and contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a line for each acknowledged click here
    #[arg(long)]
    acked_log: Option<PathBuf>,
    /// A request first sent later than this behind plan is late; over 0.1 % make the run invalid
    #[arg(long, value_parser = parse_duration, default_value = "10ms")]
    late_bound: Duration,
    /// The longest wait for the last replies
    #[arg(long, value_parser = parse_duration, default_value = "15s")]
    drain: Duration,
    /// Number of ads
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    ads: u32,
    /// The node refuses unsigned clicks (`admission.allow_unsigned = false`)
    #[arg(long)]
    unsigned_refused: bool,
    /// The server's process on this machine, to report its CPU time
    #[arg(long)]
    server_pid: Option<u32>,
    /// No table
    #[arg(long)]
    quiet: bool,
}

/// Runs the command; false for a run whose numbers must not be used.
///
/// # Errors
/// As [`super::run`], or the report cannot be written.
pub fn run(args: &HttpArgs) -> anyhow::Result<bool> {
    let report = super::run(&options(args)?)?;
    if !args.quiet {
        // Nobody may be listening on stderr; the exit code and the JSON say the same.
        let _closed = write_table(&mut std::io::stderr().lock(), &report);
    }
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&report)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.valid)
}

fn options(args: &HttpArgs) -> anyhow::Result<Options> {
    ensure!(args.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate must be above 0");
    let ca = args.ca.as_deref().filter(|_| args.tls);
    let user_agent_every = if args.format == Format::Datagram { 0 } else { args.user_agent_every };
    Ok(Options {
        target: args.target,
        tls: ca.map(|ca| Tls::new(ca, &args.server_name)).transpose()?,
        host: args.server_name.clone(),
        rate: args.rate,
        duration: args.duration,
        connections: args.connections,
        threads: args.threads,
        cores: args.cores.clone(),
        batch: args.batch,
        format: args.format,
        profile: args.profile,
        user_agent_every,
        issuer: Issuer(args.key.issuer),
        key_id: KeyId(args.key.key),
        key: read_key(&args.key.key_file)?,
        seed: args.seed,
        ads: args.ads,
        unsigned: !args.unsigned_refused,
        plain_202: args.plain_202,
        acked_log: args.acked_log.clone(),
        late_bound: args.late_bound,
        drain_max: args.drain,
        server_pid: args.server_pid,
    })
}
