//! `weir-bench attack`: the command line over the profiles.

use std::net::SocketAddr;
use std::path::PathBuf;

use weir_common::id::{Issuer, KeyId};

use super::{Options, Profile, Report};
use crate::key_file::{KeyArgs, read_key};
use crate::report::write_json;

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct AttackArgs {
    /// The node's HTTP door, on loopback
    #[arg(long)]
    target: SocketAddr,
    /// What to send
    #[arg(long, value_enum)]
    profile: Profile,
    #[command(flatten)]
    key: KeyArgs,
    /// Seeds order and contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report here
    #[arg(long)]
    json: Option<PathBuf>,
    /// No table
    #[arg(long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`super::run`], or the report cannot be written.
pub fn run(args: &AttackArgs) -> anyhow::Result<bool> {
    let report = super::run(&Options {
        target: args.target,
        profile: args.profile,
        issuer: Issuer(args.key.issuer),
        key_id: KeyId(args.key.key),
        key: read_key(&args.key.key_file)?,
        seed: args.seed,
    })?;
    if !args.quiet {
        // Nobody may be listening on stderr; the JSON says the same.
        let _closed = write_table(&mut std::io::stderr().lock(), &report);
    }
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(true)
}

fn write_table(out: &mut impl std::io::Write, report: &Report) -> std::io::Result<()> {
    writeln!(
        out,
        "{}: {} clicks in {} requests, {:.1} s; what became of them is in the node's books\n",
        report.profile,
        report.clicks,
        report.visits,
        report.lasted_ms as f64 / 1e3
    )?;
    writeln!(
        out,
        "{:<22} {:>6} {:>8} {:>8} {:>6} {:>9}",
        "form", "sent", "created", "exists", "retry", "malformed"
    )?;
    for (form, told) in &report.forms {
        writeln!(
            out,
            "{form:<22} {:>6} {:>8} {:>8} {:>6} {:>9}",
            told.sent, told.created, told.exists, told.retry, told.malformed
        )?;
    }
    Ok(())
}
