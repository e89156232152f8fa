//! The command line of `weir-central`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::archive::place::Place;
use crate::config::Config;
use crate::reconcile::report::Report;
use crate::reconcile::rules::Rules;
use crate::reconcile::{self, Day};
use crate::tier;

/// Merges what nodes count, answers what was counted, archives and reconciles.
#[derive(Debug, Parser)]
#[command(name = "weir-central", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The config file
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/central.toml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Merge, archive and serve until SIGTERM
    Run(ConfigFile),
    /// Read the config and say whether it is valid
    CheckConfig(ConfigFile),
    /// Count a day again from the archive, over all nodes, and say what changes and why
    Reconcile(ReconcileArgs),
}

#[derive(Debug, Args)]
struct ReconcileArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The day, in UTC, such as 2026-01-31
    #[arg(long, value_name = "DAY")]
    day: String,
    /// Rules in place of what the nodes decided: a TOML file with `version` and `filters`
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Print the whole report as JSON
    #[arg(long)]
    json: bool,
}

/// The exit status of a wrong command line or config.
const USAGE: u8 = 2;
/// The exit status of a day with counts that no rows explain.
const UNEXPLAINED: u8 = 3;

/// The program: its exit status is 0, 1 when it failed, 2 when its config is wrong, 3 when a reconciliation
/// found counts that no rows explain.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Arguments::parse().command {
        Command::Run(file) => load(&file).map_or_else(usage, |config| match tier::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ tier::RunError::Access(_)) => usage(error),
            Err(error) => failure(error),
        }),
        Command::CheckConfig(file) => load(&file).map_or_else(usage, |_| {
            println!("valid");
            ExitCode::SUCCESS
        }),
        Command::Reconcile(args) => load(&args.config).map_or_else(usage, |config| reconcile(&config, &args)),
    }
}

fn load(file: &ConfigFile) -> Result<Config, impl std::fmt::Display + use<>> {
    Config::load(&file.config)
}

fn usage(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("weir-central: {error}");
    ExitCode::from(USAGE)
}

fn failure(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("weir-central: {error}");
    ExitCode::FAILURE
}

fn reconcile(config: &Config, args: &ReconcileArgs) -> ExitCode {
    let Some(archive) = &config.archive else {
        return usage("there is no [archive] in the config, and so nothing to reconcile from");
    };
    let rules = args.rules.as_deref().map_or_else(|| Ok(Rules::recorded()), Rules::read);
    let (day, rules) = match Day::read(&args.day).and_then(|day| Ok((day, rules?))) {
        Ok(asked) => asked,
        Err(error) => return usage(error),
    };
    let key = config.serve.keys.first().map(|key| read_key(&key.file)).transpose();
    let key = match key {
        Ok(key) => key,
        Err(error) => return usage(error),
    };
    let place = match Place::open(&archive.url, &archive.options) {
        Ok(place) => place,
        Err(error) => return usage(error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(error),
    };
    let asked = (config.serve.listen, key.as_deref());
    match runtime.block_on(reconcile::reconcile(&place, asked, &day, &rules)) {
        Ok(report) => tell(&report, args.json),
        Err(error) => failure(error),
    }
}

fn read_key(file: &Path) -> Result<String, String> {
    let read = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(read.trim().to_owned())
}

fn tell(report: &Report, json: bool) -> ExitCode {
    if json {
        println!("{}", String::from_utf8_lossy(&report.to_json()));
    } else {
        print!("{report}");
    }
    if report.unexplained_total > 0 { ExitCode::from(UNEXPLAINED) } else { ExitCode::SUCCESS }
}
