//! The command line of `weir-central`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::archive::place::Place;
use crate::bill::command as billing;
use crate::clickhouse::schema;
use crate::config::Config;
use crate::reconcile::report::Report;
use crate::reconcile::rules::Rules;
use crate::reconcile::{self, Day, counted};
use crate::reprocess::{self, Asked};
use crate::retention::command as retention;
use crate::tier;

/// Merges what nodes count, answers what was counted, archives and reconciles.
#[derive(Debug, Parser)]
#[command(name = "weir-central", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
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
    /// Print the statements that make the tables in ClickHouse
    ClickhouseSchema(ConfigFile),
    /// Count a day again from the archive, over all nodes, and say what changes and why
    Reconcile(ReconcileArgs),
    /// Count any range again by other rules into a table beside the archive, and compare
    Reprocess(ReprocessArgs),
    /// Reconcile a day that is over and bill it, by campaign, into PostgreSQL; the same run again changes nothing
    Bill(billing::BillArgs),
    /// Write a billed day as CSV
    BillExport(billing::ExportArgs),
    #[command(flatten)]
    Retention(retention::Command),
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

#[derive(Debug, Args)]
struct ReprocessArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// What the table is called; one of the same name is replaced
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the range begins: a day in UTC, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    start: String,
    /// Where it ends; this moment is not in it
    #[arg(long, value_name = "TIME")]
    end: String,
    /// The rules: a TOML file with `version` and `filters`
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// Print the whole comparison as JSON
    #[arg(long)]
    json: bool,
}

/// The exit status of what could not be done.
pub(crate) const WORK: u8 = 1;
/// The exit status of a wrong command line or config.
const USAGE: u8 = 2;
/// The exit status of a day with counts that no rows explain.
pub(crate) const UNEXPLAINED: u8 = 3;

/// What the program ends with when it does not end well.
pub(crate) struct Failed {
    pub(crate) status: u8,
    pub(crate) why: String,
}

/// What it was told is wrong.
pub(crate) fn usage(error: impl std::fmt::Display) -> Failed {
    Failed { status: USAGE, why: error.to_string() }
}

/// It could not do what it was told.
pub(crate) fn work(error: impl std::fmt::Display) -> Failed {
    Failed { status: WORK, why: error.to_string() }
}

/// The program: its exit status is 0, 1 when it failed, 2 when its config is wrong, 3 when a reconciliation
/// found counts that no rows explain, 4 when a day cannot be billed yet.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    obey(Arguments::parse().command).unwrap_or_else(|Failed { status, why }| {
        eprintln!("weir-central: {why}");
        ExitCode::from(status)
    })
}

fn obey(command: Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Run(file) => run(&file.load()?),
        Command::CheckConfig(file) => {
            file.load()?;
            println!("valid");
            Ok(ExitCode::SUCCESS)
        }
        Command::Ask(args) => ask(&args.config.load()?, &args.path),
        Command::ClickhouseSchema(file) => print_schema(&file.load()?),
        Command::Reconcile(args) => reconcile(&args.config.load()?, &args),
        Command::Reprocess(args) => reprocess(&args.config.load()?, &args),
        Command::Bill(args) => billing::main(&args.config.load()?, &args),
        Command::BillExport(args) => billing::export(&args.config.load()?, &args),
        Command::Retention(command) => retention::main(&command),
    }
}

impl ConfigFile {
    pub(crate) fn load(&self) -> Result<Config, Failed> {
        Config::load(&self.config).map_err(usage)
    }
}

fn run(config: &Config) -> Result<ExitCode, Failed> {
    tier::run(config).map_err(|error| match error {
        tier::RunError::Access(error) => usage(error),
        error => work(error),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn reconcile(config: &Config, args: &ReconcileArgs) -> Result<ExitCode, Failed> {
    let place = open_archive(config)?;
    let day = Day::read(&args.day).map_err(usage)?;
    let rules = args.rules.as_deref().map_or_else(|| Ok(Rules::recorded()), Rules::read).map_err(usage)?;
    let key = read_key(config).map_err(usage)?;
    let asked = (config.serve.listen, key.as_deref());
    let report = alone(reconcile::reconcile(&place, asked, &day, &rules))?;
    Ok(tell(&report, args.json))
}

fn reprocess(config: &Config, args: &ReprocessArgs) -> Result<ExitCode, Failed> {
    let place = open_archive(config)?;
    let asked = Asked::read(&args.name, &args.start, &args.end).map_err(usage)?;
    let rules = Rules::read(&args.rules).map_err(usage)?;
    let comparison = alone(reprocess::reprocess(&place, &asked, &rules))?;
    if args.json {
        println!("{}", String::from_utf8_lossy(&comparison.to_json()));
    } else {
        print!("{comparison}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The archive of the config.
pub(crate) fn open_archive(config: &Config) -> Result<Place, Failed> {
    let none = || usage("there is no [archive] in the config, and so nothing to count from");
    let archive = config.archive.as_ref().ok_or_else(none)?;
    Place::open(&archive.url, &archive.options).map_err(usage)
}

/// Does one thing to its end on this thread.
pub(crate) fn alone<T, E: std::fmt::Display>(doing: impl Future<Output = Result<T, E>>) -> Result<T, Failed> {
    ended(doing)?.map_err(work)
}

/// What one thing ends with, done on this thread.
pub(crate) fn ended<T>(doing: impl Future<Output = T>) -> Result<T, Failed> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(work)?.block_on(doing))
}

fn ask(config: &Config, path: &str) -> Result<ExitCode, Failed> {
    let key = read_key(config).map_err(usage)?;
    let octets = alone(counted::ask(config.serve.listen, key.as_deref(), path))?;
    std::io::stdout().write_all(&octets).map_err(work)?;
    Ok(ExitCode::SUCCESS)
}

fn print_schema(config: &Config) -> Result<ExitCode, Failed> {
    let clickhouse = config.clickhouse.as_ref();
    let clickhouse = clickhouse.ok_or_else(|| usage("there is no [clickhouse] in the config"))?;
    schema::statements(clickhouse).iter().for_each(|statement| println!("{statement};\n"));
    Ok(ExitCode::SUCCESS)
}

/// The first key of the config, if there are any.
pub(crate) fn read_key(config: &Config) -> Result<Option<String>, String> {
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
