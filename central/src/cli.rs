//! The command line of `weir-central`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::archive::place::Place;
use crate::config::Config;
use crate::reconcile::report::Report;
use crate::reconcile::rules::Rules;
use crate::reconcile::{self, Day, counted};
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
    /// Ask the tier that runs, with the first key of the config, and print the answer
    Ask(AskArgs),
    /// Count a day again from the archive, over all nodes, and say what changes and why
    Reconcile(ReconcileArgs),
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// What to ask, such as `/v1/stats/top?window=1h`
    #[arg(value_name = "PATH")]
    path: String,
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
        Command::Ask(args) => load(&args.config).map_or_else(usage, |config| ask(&config, &args.path)),
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
    let key = match read_key(config) {
        Ok(key) => key,
        Err(error) => return usage(error),
    };
    let place = match Place::open(&archive.url, &archive.options) {
        Ok(place) => place,
        Err(error) => return usage(error),
    };
    let asked = (config.serve.listen, key.as_deref());
    match alone(reconcile::reconcile(&place, asked, &day, &rules)) {
        Ok(Ok(report)) => tell(&report, args.json),
        Ok(Err(error)) => failure(error),
        Err(error) => failure(error),
    }
}

/// Runs one thing to its end on this thread.
fn alone<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

fn ask(config: &Config, path: &str) -> ExitCode {
    let key = match read_key(config) {
        Ok(key) => key,
        Err(error) => return usage(error),
    };
    match alone(counted::ask(config.serve.listen, key.as_deref(), path)) {
        Ok(Ok(octets)) => match std::io::stdout().write_all(&octets) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(error),
        },
        Ok(Err(error)) => failure(error),
        Err(error) => failure(error),
    }
}

/// The first key of the config, if there are any.
fn read_key(config: &Config) -> Result<Option<String>, String> {
    let Some(key) = config.serve.keys.first() else { return Ok(None) };
    let read = std::fs::read_to_string(&key.file);
    let read = read.map_err(|error| format!("{}: {error}", key.file.display()))?;
    Ok(Some(read.trim().to_owned()))
}

fn tell(report: &Report, json: bool) -> ExitCode {
    if json {
        println!("{}", String::from_utf8_lossy(&report.to_json()));
    } else {
        print!("{report}");
    }
    if report.unexplained_total > 0 { ExitCode::from(UNEXPLAINED) } else { ExitCode::SUCCESS }
}
