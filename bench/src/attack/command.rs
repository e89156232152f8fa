//! `weir-bench attack`: the command line over the profiles.

use std::net::SocketAddr;

use weir_common::id::{Issuer, KeyId};

use super::{Options, Profile, Report};
use crate::key_file::read_key;
use crate::plan::RunArgs;

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
    run: RunArgs,
    /// No table
    #[arg(long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`super::run`], or the report cannot be written.
pub fn run(args: &AttackArgs) -> anyhow::Result<bool> {
    let RunArgs { key, seed, .. } = &args.run;
    let report = super::run(&Options {
        target: args.target,
        profile: args.profile,
        issuer: Issuer(key.issuer),
        key_id: KeyId(key.key),
        key: read_key(&key.key_file)?,
        seed: *seed,
    })?;
    if !args.quiet {
        // Nobody may be listening on stderr; the JSON says the same.
        let _closed = write_table(&mut std::io::stderr().lock(), &report);
    }
    args.run.write_json(&report)?;
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
