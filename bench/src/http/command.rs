//! `weir-bench http`: the command line over the engine.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::ensure;

use super::report::write_table;
use super::{Format, Options, Tls};
use crate::plan::PlanArgs;

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
    /// Connections, kept alive, each with one request under way
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Threads that share the connections
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Clicks of a request
    #[arg(long, default_value_t = 1, value_name = "CLICKS_PER_REQUEST")]
    batch: usize,
    /// What bodies are written in
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// One click in so many says its user agent; 0: none
    #[arg(long, default_value_t = 1)]
    user_agent_every: u64,
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
    #[command(flatten)]
    plan: PlanArgs,
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
    args.plan.run.write_json(&report)?;
    Ok(report.valid)
}

fn options(args: &HttpArgs) -> anyhow::Result<Options> {
    ensure!(args.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate must be above 0");
    let ca = args.ca.as_deref().filter(|_| args.tls);
    let user_agent_every = if args.format == Format::Datagram { 0 } else { args.user_agent_every };
    Ok(Options {
        plan: args.plan.plan(args.threads)?,
        target: args.target,
        tls: ca.map(|ca| Tls::new(ca, &args.server_name)).transpose()?,
        host: args.server_name.clone(),
        rate: args.rate,
        connections: args.connections,
        batch: args.batch,
        format: args.format,
        user_agent_every,
        plain_202: args.plain_202,
        server_pid: args.server_pid,
    })
}
